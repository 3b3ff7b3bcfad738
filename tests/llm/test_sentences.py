from __future__ import annotations

import time

import pytest

from dagbok.domain.values import as_text
from dagbok.llm.sentences import LONGEST, Kind, Unit, split


def texts(text: str) -> list[str]:
    return [unit.text for unit in split(text, 1000)]


def test_prose_is_cut_at_the_ends_of_sentences_and_not_at_abbreviations() -> None:
    text = "Dr. Smith came, e.g. by boat. He paid 3.50 EUR! Why?\nNobody knows [4]. “Really.” Yes"
    assert texts(text) == [
        "Dr. Smith came, e.g. by boat.",
        "He paid 3.50 EUR!",
        "Why?",
        "Nobody knows [4].",
        "“Really.”",
        "Yes",
    ]


def test_a_sentence_does_not_end_within_code_that_goes_on() -> None:
    text = "`dagbok run plan.json? --quiet` prints it. A lone ` is no code. Nor is this."
    assert texts(text) == ["`dagbok run plan.json? --quiet` prints it.", "A lone ` is no code.", "Nor is this."]


def test_scripts_without_spaces_have_sentences_too() -> None:
    assert texts("潮が満ちる。明日は晴れ。行こう") == ["潮が満ちる。", "明日は晴れ。", "行こう"]


def test_markdown_gives_items_and_blocks_under_their_headings() -> None:
    text = "# Tides\nThe sea\nrises.\n\n- one\n  more\n* two\n\n---\n```python\nx = 1\n```\n\n"
    text += "| a | b |\n|---|---|\n| 1 | 2 |\n"
    assert split(text, 1000) == [
        Unit("The sea rises.", Kind.PROSE, "Tides"),
        Unit("one more", Kind.ITEM, "Tides"),
        Unit("two", Kind.ITEM, "Tides"),
        Unit("```python\nx = 1\n```", Kind.BLOCK, "Tides"),
        Unit("| a | b |\n|---|---|\n| 1 | 2 |", Kind.BLOCK, "Tides"),
    ]


def test_a_long_table_is_read_row_by_row_with_the_names_of_its_columns() -> None:
    rows = "\n".join(f"| day {n} | {n} m |" for n in range(100))
    units = split(f"| when | tide |\n| --- | --- |\n{rows}", 1000)
    assert len(units) == 100
    assert units[3] == Unit("when: day 3; tide: 3 m", Kind.ENTRY)


def test_a_bar_that_is_escaped_ends_no_cell() -> None:
    rows = "\n".join(f"| {n} | one \\| two |" for n in range(100))
    assert split(f"| n | either |\n| --- | --- |\n{rows}", 1000)[3] == Unit("n: 3; either: one | two", Kind.ENTRY)


def test_json_is_read_leaf_by_leaf() -> None:
    value = [{"title": "Tides", "n": 1}, {"title": "Moon", "body": "First sentence. Second one. " + "x" * 200}, None]
    found = texts(as_text(value))
    assert found[:4] == ["title: Tides; n: 1", "title: Moon", f"body: First sentence. Second one. {'x' * 200}"][:4]


def test_json_that_was_cut_still_gives_its_leaves() -> None:
    text = as_text([{"title": f"Page {n}", "n": n} for n in range(9)])[:-25]
    assert texts(text)[:3] == ["title: Page 0", "n: 0", "title: Page 1"]


def test_a_run_without_any_sentence_end_is_cut_at_words() -> None:
    found = texts("word " * 1_000)
    assert all(len(text) <= LONGEST + 2 for text in found)
    assert sum(text.count("word") for text in found) == 1_000


@pytest.mark.parametrize(
    "text",
    ["a" * 1_000_000, "<" * 1_000_000, "| " + "-" * 1_000_000 + "x", "|\n|-", "[" * 1_000_000, '["a":"' * 100_000,
     "x|y\n" + "-" * 50_000 + "x", "* * " * 200_000 + "x", ". " * 300_000, "#" * 500_000, "```" * 200_000,
     "1. " * 200_000, '"' * 600_000, "{" + '"a":"' * 200_000, "a.[" * 200_000],
)  # fmt: skip
def test_no_text_makes_it_slow(text: str) -> None:
    """Each of these would take minutes with an expression that looks back."""
    start = time.perf_counter()
    split(text, 4_000)
    assert time.perf_counter() - start < 5


def test_what_says_nothing_is_no_unit() -> None:
    assert texts("...\n\n---\n\n* * *\n\n!") == []
