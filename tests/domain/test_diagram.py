"""The graph of an execution in words and pictures: the same each time, and whatever a plan says stays text."""

from __future__ import annotations

import json
import random
import re
from collections.abc import Sequence
from typing import Any
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dagbok import views, wire
from dagbok.domain import diagram, dot, labels, mermaid, svg
from dagbok.domain.diagram import LOOKS, MEDIA_TYPES, Diagram, Node
from dagbok.domain.ids import SYNTHESIS, SYNTHESIS_TOOL
from dagbok.domain.states import StepStatus
from dagbok.errors import BadInput

SVG = "{http://www.w3.org/2000/svg}"
FORMATS = sorted(MEDIA_TYPES)

#: Markup, quotes, entities and escapes of every format, control characters.
EVIL = (
    '"]; </text><script>alert(1)</script> &amp; &#x41; <!-- ]]> \\N \\" #quot; `**x**` %%{init}%% click\n---\r end\t'
    "\x1b[31m style a:b;"
)
#: What turns text around, too, and what is no character.
HOSTILE = f"{EVIL}\x00\x08\u202e\u2028\ufffe\ud800{EVIL}"


def step(task_id: str, *after: str, **more: Any) -> dict[str, Any]:
    known: dict[str, Any] = {
        **dict.fromkeys(Node._fields),
        "task_id": task_id,
        "description": f"Do {task_id}",
        "action_type": "tool",
        "tool_or_prompt_name": "say",
        "status": "completed",
        "attempt": 1,
        "dependencies": json.dumps(list(after)),
    }
    return known | more


def synthesis(**more: Any) -> dict[str, Any]:
    tool = {"action_type": "inference", "tool_or_prompt_name": SYNTHESIS_TOOL}
    return step(SYNTHESIS, **tool, **({"status": "pending", "description": "Sum it up"} | more))


def made(*steps: dict[str, Any], title: str = "A plan") -> Diagram:
    row = {"id": "dag-exec_1", "title": title, "status": "running"}
    return diagram.of(row, [{**one, "position": at} for at, one in enumerate(steps)])


def written(of: Diagram, format: str) -> str:
    return views.graph_document(of, format).decode()


def parsed(of: Diagram) -> ElementTree.Element:
    return ElementTree.fromstring(svg.write(of))


def titles(root: ElementTree.Element) -> list[str]:
    return ["".join(title.itertext()) for title in root.iter(f"{SVG}title")][1:]


def test_a_small_plan_as_mermaid_dot_and_json() -> None:
    of = made(
        step("1", tool_or_prompt_name="fetch_url"),
        step("2", "1", status="failed", error_code="timeout", attempt=3, duration_ms=1_250),
        step("3", "1", status="skipped", reason="chosen", action_type="human", tool_or_prompt_name="human"),
        synthesis(),
        title='Say "hi"',
    )
    assert mermaid.write(of) == (
        "---\n"
        'title: "Say \\"hi\\""\n'
        "---\n"
        "flowchart TD\n"
        '    n0["✓ 1 · fetch_url<br/>Do 1"]:::completed\n'
        '    n1["✗ 2 · say<br/>Do 2"]:::failed\n'
        '    n2["↷ 3 · human<br/>Do 3"]:::skipped\n'
        '    n3["· synthesis<br/>Sum it up"]:::pending\n'
        "    n0 --> n1\n"
        "    n0 --> n2\n"
        "    n1 --> n3\n"
        "    n2 --> n3\n"
        "    classDef completed fill:#d3f9d8,stroke:#2b8a3e,color:#1c1e21\n"
        "    classDef failed fill:#ffe3e3,stroke:#c92a2a,color:#1c1e21\n"
        "    classDef pending fill:#f1f3f5,stroke:#6c757d,color:#1c1e21\n"
        "    classDef skipped fill:#ffffff,stroke:#868e96,color:#1c1e21,stroke-dasharray:4 3\n"
    )
    assert dot.write(of) == (
        'digraph "dag-exec_1" {\n'
        '    graph [label="Say \\"hi\\"", labelloc=t, fontname="sans-serif"]\n'
        '    node [shape=box, style="rounded,filled", fontname="sans-serif", fontsize=11]\n'
        '    edge [color="#868e96", arrowsize=0.7]\n'
        '    n0 [label="✓ 1 · fetch_url\\nDo 1", tooltip="1 · fetch_url: completed\\nDo 1", '
        'fillcolor="#d3f9d8", color="#2b8a3e"]\n'
        '    n1 [label="✗ 2 · say\\nDo 2", tooltip="2 · say: failed, attempt 3, timeout, 1.2 s\\nDo 2", '
        'fillcolor="#ffe3e3", color="#c92a2a"]\n'
        '    n2 [label="↷ 3 · human\\nDo 3", tooltip="3 · human: skipped (chosen)\\nDo 3", '
        'fillcolor="#ffffff", color="#868e96", style="rounded,filled,dashed"]\n'
        '    n3 [label="· synthesis\\nSum it up", tooltip="synthesis: pending\\nSum it up", '
        'fillcolor="#f1f3f5", color="#6c757d"]\n'
        "    n0 -> n1\n"
        "    n0 -> n2\n"
        "    n1 -> n3\n"
        "    n2 -> n3\n"
        "}\n"
    )
    document = json.loads(written(of, "json"))
    assert document["edges"] == [
        {"source": "1", "target": "2"},
        {"source": "1", "target": "3"},
        {"source": "2", "target": SYNTHESIS},
        {"source": "3", "target": SYNTHESIS},
    ]
    assert [(node["taskId"], node["x"], node["y"]) for node in document["nodes"]] == [
        ("1", 118, 0), ("2", 0, 94), ("3", 236, 94), (SYNTHESIS, 118, 188),
    ]  # fmt: skip
    assert (document["width"], document["height"]) == (448, 236)
    assert document["lines"][0] == {"sources": ["1"], "targets": ["2"], "points": [[224, 48], [106, 94]]}
    assert wire.Graph.read(written(of, "json")).nodes[1].error_code == "timeout"


def test_the_picture_says_all_that_its_boxes_have_no_room_for() -> None:
    long = "A very long description " * 40
    root = parsed(made(step("1", description=long, duration_ms=3_000), synthesis()))
    assert root.get("role") == "graphics-document document"
    named = {element.get("id"): "".join(element.itertext()) for element in root.iter()}
    assert named[root.get("aria-labelledby")] == "A plan"
    assert named[root.get("aria-describedby")] == "running; 2 sub-steps: 1 completed, 1 pending"
    assert titles(root) == [f"1 · say: completed, 3.0 s\n{long.strip()}", "synthesis: pending\nSum it up"]
    shown = [element.text or "" for element in root.iter(f"{SVG}text")]
    assert any(re.fullmatch("A very long description.{0,3}…", words) for words in shown)
    assert {"completed 1", "pending 1"} <= set(shown), "the legend"


def test_the_picture_needs_nothing_from_elsewhere_and_knows_the_night() -> None:
    text = svg.write(made(step("1"), step("2", "1")))
    assert not re.search(r"<script|<foreignObject|<image|<use|<a |href|@import| on\w+=", text)
    assert re.findall(r"https?://[^\"]*", text) == ["http://www.w3.org/2000/svg"], "a name, which nobody fetches"
    assert set(re.findall(r"url\(([^)]*)\)", text)) <= {"#tip", "#box"}
    assert "@media(prefers-color-scheme:dark)" in text
    assert 'style="' not in text, "the policy allows the style sheet by its hash, and no other style"
    for status in StepStatus:
        look = LOOKS[status]
        assert f".{status}{{fill:{look.fill};stroke:{look.stroke}" in text
        assert f".{status}{{fill:{look.dark_fill};stroke:{look.dark_stroke}}}" in text


def _luminance(colour: str) -> float:
    parts = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def _contrast(one: str, other: str) -> float:
    light, dark = sorted((_luminance(one), _luminance(other)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


@pytest.mark.parametrize("status", list(LOOKS))
def test_words_and_signs_can_be_read_by_day_and_by_night(status: str) -> None:
    """WCAG 2.2: 4.5 for text, 3 for signs and borders."""
    look = LOOKS[status]
    assert _contrast("#343a40", look.fill) >= 4.5
    assert _contrast("#ced4da", look.dark_fill) >= 4.5
    assert _contrast(look.stroke, look.fill) >= 3
    assert _contrast(look.dark_stroke, look.dark_fill) >= 3


def test_every_state_has_a_look_and_no_two_a_sign() -> None:
    assert set(LOOKS) == set(StepStatus)
    assert len({look.sign for look in LOOKS.values()}) == len(LOOKS)


@pytest.mark.parametrize("format", FORMATS)
def test_hostile_words_stay_words(format: str) -> None:
    of = made(
        step(EVIL, description=HOSTILE, tool_or_prompt_name=EVIL, error_code=HOSTILE),
        step("2", EVIL, description="\\"),
        title=HOSTILE,
    )
    if format == "json":  # JSON holds what the diary does; there no lone surrogate gets in
        of = made(step(EVIL, description=EVIL), step("2", EVIL), title=EVIL)
    text = written(of, format)
    assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\u2028-\u202e]", text)
    if format == "svg":
        root = ElementTree.fromstring(text)
        assert {element.tag for element in root.iter()} == {
            element.tag for element in parsed(made(step("1"), step("2", "1"))).iter()
        }
        assert "<script>alert(1)</script>" in titles(root)[0]
    elif format == "mermaid":
        lines = text.splitlines()
        assert json.loads(lines[1].removeprefix("title: ")).startswith('"]; </text>')
        for line in lines[4:6]:
            assert re.fullmatch(r'    n\d\["(?:[^"<>&#`\\:{}]|#\d+;|<br/>)*"\]:::completed', line)
        assert lines[6] == "    n0 --> n1"
    elif format == "dot":
        lines = text.splitlines()
        quoted = r'"(?:[^"\\&]|\\["\\n]|&amp;)*"'
        assert len(lines) == 8
        for line in lines[4:6]:
            assert re.fullmatch(
                rf"    n\d \[label={quoted}, tooltip={quoted}, fillcolor={quoted}, color={quoted}\]", line
            )


@given(
    st.lists(st.tuples(st.text(st.characters(exclude_categories=["Cs"])), st.text()), min_size=1, max_size=4),
    st.text(),
)
def test_any_words_make_a_picture_that_can_be_read(words: Sequence[tuple[str, str]], title: str) -> None:
    steps = [step(f"{at}{id}", description=text) for at, (id, text) in enumerate(words)]
    of = made(*steps, title=title)
    assert len(titles(parsed(of))) == len(words)
    for line in mermaid.write(of).splitlines()[-2 - len(words) : -2]:
        assert re.search(r'n\d+\["[^"]*"\]:::completed$|^flowchart TD$|^---$|^title: ', line)


@given(st.permutations(range(6)), st.randoms(use_true_random=False))
def test_the_order_of_rows_and_of_dependencies_changes_nothing(order: list[int], chance: random.Random) -> None:
    needs = {0: [], 1: [], 2: ["0", "1"], 3: ["2", "0"], 4: ["2"], 5: ["1", "3", "4"]}
    rows = [{**step(str(at), *above), "position": at} for at, above in needs.items()]
    row = {"id": "dag-exec_1", "title": "x", "status": "completed"}
    shuffled = []
    for at in order:
        above = chance.sample(needs[at], len(needs[at]))
        shuffled.append({**rows[at], "dependencies": json.dumps(above)})
    for format in FORMATS:
        assert written(diagram.of(row, shuffled), format) == written(diagram.of(row, rows), format)


def test_the_synthesis_is_last_and_below_all_others() -> None:
    rows = [step("1"), step("2", "1"), step("3"), step("4", "3", "2"), step("5")]
    document = json.loads(written(made(*rows, synthesis()), "json"))
    assert document["nodes"][-1]["taskId"] == SYNTHESIS
    assert {edge["source"] for edge in document["edges"] if edge["target"] == SYNTHESIS} == {"4", "5"}
    assert max(document["nodes"], key=lambda node: node["y"])["taskId"] == SYNTHESIS


@pytest.mark.parametrize("format", FORMATS)
def test_an_execution_without_sub_steps_has_an_empty_graph(format: str) -> None:
    text = written(made(), format)
    assert "n0" not in text
    if format == "svg":
        assert "no sub-steps" in "".join(ElementTree.fromstring(text).itertext())


@pytest.mark.parametrize("format", FORMATS)
def test_ten_thousand_sub_steps_are_written_in_every_format(format: str) -> None:
    rows = [step(str(at), *((str(at - 100),) if at >= 100 else ())) for at in range(10_000)]
    text = written(made(*rows), format)
    assert len(text) < 4 * 2**20
    if format == "svg":
        assert len(titles(ElementTree.fromstring(text))) == 10_000


def test_what_is_too_dense_has_no_picture_but_text() -> None:
    rows = [step(str(at), *map(str, range(at))) for at in range(250)]
    of = made(*rows)
    with pytest.raises(BadInput, match="31,125 dependencies") as refused:
        svg.write(of)
    assert refused.value.fields["pointer"] == "/format"
    document = json.loads(written(of, "json"))
    assert (document["width"], document["nodes"][0]["x"], document["lines"]) == (None, None, [])
    assert len(document["edges"]) == 31_125
    assert mermaid.write(of).count("-->") == dot.write(of).count("->") == 31_125
    with pytest.raises(BadInput, match="at most 200,000"):
        made(*(step(str(at), *map(str, range(at))) for at in range(650)))


def test_labels_are_cut_by_the_columns_they_take() -> None:
    assert labels.cut("abcdef", 6) == "abcdef"
    assert labels.cut("abcdefg", 6) == "abcde…"
    assert labels.cut("日本語です", 6) == "日本…"
    assert labels.cut("e\u0301" * 6, 6) == "e\u0301" * 6
    assert labels.cut("e" + "\u0301" * 1_000, 3).endswith("…"), "a pile of marks ends"
    assert labels.prose("Find all that matters", 17) == "Find all that…"
    assert labels.prose("Antidisestablishmentarianism", 12) == "Antidisesta…"
    assert labels.squeezed("NFCORE_SAREK_ALIGN_23", 11) == "NFCO…IGN_23"
    assert labels.plain("a\x1b[31m\u202eb\n c\x00") == "a [31m b c"


@given(st.text(), st.integers(1, 20))
def test_what_is_cut_fits(text: str, room: int) -> None:
    for found in (labels.cut(text, room), labels.prose(text, room), labels.squeezed(text, room)):
        assert sum(map(labels.columns, found)) <= max(room, 2)
