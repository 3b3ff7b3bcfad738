"""`extract_json` and `wait`."""

from __future__ import annotations

import resource
import subprocess
import sys
import time
from typing import Any

import pytest
from tool_calls import run

from dagbok.domain.states import Effect
from dagbok.errors import ToolError
from dagbok.tools.decorator import as_tool
from dagbok.tools.extract import extract_json
from dagbok.tools.wait import wait

DATA = {"items": [{"name": "a", "price": 3}, {"name": "b", "price": 30}], "none": None}


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        ("items[?price < `10`].name | [0]", "a"), ("items[].price", [3, 30]), ("nothing.here", None), ("none", None),
        ("length(items)", 2), ("{first: items[0].name, all: items[*].name}", {"first": "a", "all": ["a", "b"]}),
        ("join('+', items[].name)", "a+b"), ("@", DATA), ("sum(items[].price)", 33),
    ],
)  # fmt: skip
def test_a_part_of_json_is_chosen_by_jmespath(expression: str, expected: object) -> None:
    assert run(extract_json, data=DATA, expression=expression) == expected


@pytest.mark.parametrize(
    "text",
    [
        '{"a": 1}', ' \n{"a": 1}\n', 'Here it is:\n```json\n{"a": 1}\n```\nDone.', "```\n{\"a\": 1}\n```",
        'First\n```python\nx = 1\n```\nthen\n```JSON\n{"a":\n1}\n```', '~~~json\n{"a": 1}\n~~~',
        '  ```json\n  {"a": 1}\n  ```',
        '```json\r\n{"a": 1}\r\n```',
    ],
)  # fmt: skip
def test_text_that_holds_json_is_read(text: str) -> None:
    assert run(extract_json, data=text, expression="a") == 1


@pytest.mark.parametrize("text", ["", "hello", "{'a': 1}", "```json\n{\n```", "```json\n{}", "[NaN]", "[" * 100_000])
def test_text_that_holds_no_json_is_an_error(text: str) -> None:
    with pytest.raises(ToolError, match="text that holds no JSON") as caught:
        run(extract_json, data=text, expression="a")
    assert caught.value.code == "invalid_input"


@pytest.mark.parametrize(
    "expression",
    ["a b", "items[", "nope(@)", "length(`1`)", "length()", "sort(items)", "max_by(items, &nope)", " ", "(" * 4000,
     "!" * 4000, "&a", "a." * 1500 + "a.", "abs(`\"x\"`)"],
)  # fmt: skip
def test_an_expression_that_cannot_be_used_is_bad_input(expression: str) -> None:
    with pytest.raises(ToolError) as caught:
        run(extract_json, data=DATA, expression=expression)
    assert caught.value.code == ("not_json" if expression == "&a" else "invalid_input")
    assert len(caught.value.message) < 1200


@pytest.mark.parametrize(
    "expression",
    [
        " | ".join(["[@, @]"] * 60), " | ".join(["[@, @][]"] * 60),
        " | ".join(["{a: @, b: @}"] * 60) + " | to_string(@)",
        " | ".join(["[@, @]"] * 60) + " | to_string(@)", "to_string(@) | " + " | ".join(["join('', [@, @])"] * 60),
        " | ".join(["map(&[@, @], @)"] * 200), " | ".join(["[*].[@, @]"] * 200) + " | to_string(@)",
        "[" + ",".join(["@"] * 500) + "] | [" + ",".join(["@"] * 500) + "] | [" + ",".join(["@"] * 500) + "]",
    ],
)  # fmt: skip
def test_an_expression_that_multiplies_its_data_is_stopped(expression: str) -> None:
    begun = time.monotonic()
    with pytest.raises(ToolError) as caught:
        run(extract_json, data=[1, "x" * 100], expression=expression)
    assert caught.value.code in ("too_large", "invalid_input")
    assert time.monotonic() - begun < 20


def test_stopping_it_takes_little_memory() -> None:
    program = """
import resource
resource.setrlimit(resource.RLIMIT_AS, (1 << 30, 1 << 30))
from dagbok.tools.extract import extract_json
from dagbok.errors import ToolError
for data, expression in [
    ([1], " | ".join(["[@, @][]"] * 60)),
    (["x" * 1000] * 1000, "join(to_string(@), @)"),
    ([1], " | ".join(["[@, @]"] * 60) + "| to_string(@)"),
]:
    try:
        extract_json(data, expression)
    except ToolError as exc:
        print(exc.code)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False)
    assert (done.stdout.split(), done.stderr[-500:]) == (["too_large"] * 3, "")
    assert resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss < 1_000_000


def test_large_data_costs_one_pass() -> None:
    data = {"rows": [{"id": n, "tags": ["a", "b"]} for n in range(100_000)]}
    begun = time.monotonic()
    assert len(extract_json(data, "rows[*].{id: id, first: tags[0]}")) == 100_000
    assert time.monotonic() - begun < 20


def test_a_fence_hunt_in_hostile_text_is_quick() -> None:
    begun = time.monotonic()
    with pytest.raises(ToolError):
        extract_json("```\n" * 50_000 + "x", "a")
    assert time.monotonic() - begun < 10


def test_waiting_waits() -> None:
    begun = time.monotonic()
    assert run(wait, seconds=0.02) == {"waited_seconds": 0.02}
    assert time.monotonic() - begun >= 0.02


@pytest.mark.parametrize("seconds", [-1, float("nan"), float("inf"), 366 * 86_400 + 1, "soon", None])
def test_a_wait_that_cannot_be_is_bad_input(seconds: Any) -> None:
    with pytest.raises(ToolError, match="/seconds: ") as caught:
        run(wait, seconds=seconds)
    assert caught.value.code == "invalid_input"


def test_a_wait_is_a_timer_to_the_engine() -> None:
    made = as_tool(wait)
    assert (made.timer, made.effect) == (True, Effect.PURE)
    assert made.timeout_s > 366 * 86_400
    assert as_tool(extract_json).effect is Effect.PURE
    assert made.parameters["properties"]["seconds"]["maximum"] == 366 * 86_400
