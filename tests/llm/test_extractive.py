from __future__ import annotations

import time

from hypothesis import given
from hypothesis import strategies as st

from dagbok.llm.extractive import HINT, INFERENCE_CHARS, NOTICE, answer
from dagbok.llm.prompts import inference_prompt, synthesis_prompt
from llm.calls import inference_call, lost, sub_task, synthesis_call

PAGE = "Cookies help us. Tides are driven by the moon. The abbey opens at nine. The sun pulls too, so tides vary."


def test_an_answer_quotes_its_sources_and_says_which() -> None:
    call = inference_call({"prompt": "What drives tides?"}, {"1": PAGE, "2": {"tide": "14 m"}})
    lines = answer(inference_prompt(call, 20_000).text).splitlines()
    assert "- Tides are driven by the moon. [task 1]" in lines
    assert "- tide: 14 m [task 2]" in lines
    assert all(line.endswith(("[task 1]", "[task 2]")) for line in lines)
    assert HINT not in "\n".join(lines)  # it belongs where a person reads, not in every step


def test_a_quotation_of_a_quotation_is_credited_once() -> None:
    call = inference_call({"prompt": "Go"}, {"3": "- Tides are driven by the moon. [task 1]"})
    assert answer(inference_prompt(call, 20_000).text) == "- Tides are driven by the moon. [task 3]"


def test_a_task_without_inputs_gets_an_honest_answer() -> None:
    text = answer(inference_prompt(inference_call({"prompt": "Write a haiku"}), 20_000).text)
    assert text == "There is nothing to quote: this task has no inputs. It asks: Write a haiku"


def test_a_prompt_that_brings_its_own_text_is_quoted() -> None:
    prompt = "Summarise: " + " ".join(f"Fact {n} says that the number {n} matters." for n in range(40))
    assert "[instructions]" in answer(inference_prompt(inference_call({"prompt": prompt}), 20_000).text)


def test_a_synthesis_quotes_the_answers_of_models_and_people_and_only_names_what_they_were_made_of() -> None:
    call = synthesis_call({"1": PAGE, "2": "The moon drives them.", "3": "Tomorrow suits me."})
    call.look_up = {
        "1": sub_task("1", "Read the page"),
        "2": sub_task("2", "Explain the tides", tool="inference"),
        "3": sub_task("3", "Ask for a date", tool="human"),
    }.get
    text = answer(synthesis_prompt(call, 20_000).text)
    assert "## Task 2: Explain the tides\n\n- The moon drives them." in text
    assert "## Task 3: Ask for a date\n\n- Tomorrow suits me." in text
    assert "## Also used\n\n- Task 1: Read the page" in text
    assert "Tides are driven by the moon." not in text


def test_a_synthesis_is_a_briefing_that_names_what_is_missing_and_who_wrote_it() -> None:
    call = synthesis_call(
        {"1": PAGE, "2": "Bring boots."}, missing=(lost("4", description="Find hotels", error="timed\nout"),)
    )
    call.look_up = {"1": sub_task("1", "Read the page")}.get
    text = answer(synthesis_prompt(call, 20_000).text)
    assert text.startswith("## Task 1: Read the page\n\n")
    assert "- Tides are driven by the moon." in text
    assert "## Task 2\n\n- Bring boots." in text
    assert "## Missing\n\n- **Task 4** (Find hotels) failed: timed out" in text
    assert text.endswith(NOTICE)
    assert "`offline:extractive`" in NOTICE
    assert "DAGBOK_MODEL=" in NOTICE


def test_a_synthesis_says_once_what_one_task_quotes_of_another() -> None:
    first = "Tides are driven by the moon."
    call = synthesis_call({"1": first, "2": f"- {first} [task 1]"})
    text = answer(synthesis_prompt(call, 20_000).text)
    assert text.count(first) == 1
    assert "## Task 2\n\nNothing that is not said above." in text


def test_a_synthesis_of_very_many_results_stays_readable() -> None:
    results = {str(n): f"Result {n} tells of tides. " * 9 for n in range(300)}
    text = answer(synthesis_prompt(synthesis_call(results), 120_000).text)
    assert "*260 more results are not quoted here.*" in text
    assert len(text) < 20_000


def test_any_other_text_is_one_input() -> None:
    assert answer("Tides are driven by the moon. Cats sleep.").startswith(
        "- Tides are driven by the moon. [input prompt]"
    )


def test_thirty_megabytes_without_an_end_do_not_hang() -> None:
    start = time.perf_counter()
    for char in "a<[`. ":
        answer(inference_prompt(inference_call({"prompt": "Go"}, {"1": char * 30_000_000}), 10_000_000).text)
        answer(char * 30_000_000)
    assert time.perf_counter() - start < 60


@given(st.text(max_size=2_000), st.text(max_size=300))
def test_an_answer_is_bounded_never_empty_and_always_the_same(result: str, prompt: str) -> None:
    text = inference_prompt(inference_call({"prompt": "?"}, {"1": result}, overridden={"prompt": prompt}), 9_000).text
    said = answer(text)
    assert said.strip()
    assert said == answer(text)
    assert len(said) < INFERENCE_CHARS + 1_000
