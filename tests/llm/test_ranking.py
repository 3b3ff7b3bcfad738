from __future__ import annotations

from dagbok.llm.ranking import Candidate, select, words
from dagbok.llm.sentences import split


def candidates(*sources: str) -> list[Candidate]:
    return [Candidate(unit, n, place) for n, text in enumerate(sources) for place, unit in enumerate(split(text, 1000))]


def chosen(*sources: str, question: str, most: int = 3) -> list[str]:
    return [c.unit.text for c in select(candidates(*sources), question, fits=lambda _: True, most=most)]


def test_what_answers_the_question_comes_first() -> None:
    page = "Cats sleep all day long. Dogs bark at night often. The tide is driven by the moon. Fish swim in the sea."
    assert chosen(page, question="What drives the tides?")[0] == "The tide is driven by the moon."


def test_the_same_thing_is_not_said_twice() -> None:
    said = chosen(
        "The tide is driven by the moon. It also follows the sun.",
        "The tide is driven by the moon! Harbours publish tide tables.",
        question="tide moon sun harbours",
        most=9,
    )
    assert len([text for text in said if "driven" in text]) == 1
    assert len(said) == 3


def test_menus_are_passed_over() -> None:
    page = "[Tides](/tides) | [Tides again](/t)\n\nTides\n\nTides rise twice a day in most places."
    assert chosen(page, question="tides", most=1) == ["Tides rise twice a day in most places."]


def test_without_any_word_of_the_question_the_text_speaks_for_itself() -> None:
    assert chosen("The mill grinds corn. The mill is old. Zzz.", question="quantum physics", most=1) == [
        "The mill grinds corn."
    ]


def test_words_have_no_case_no_plural_and_no_stop_words() -> None:
    assert words("The Tides OF glass 潮位表") == ["tide", "glass", "潮位", "位表"]
