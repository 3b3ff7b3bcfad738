"""How records become lines: bounded whatever they hold, and redacted before anything is cut."""

from __future__ import annotations

import json
import logging
import re
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dagbok.cli.log_lines import MAX_LINE_BYTES, Redact, formatter

SECRET = "hunter2-hunter2"


def made(text: bool = False, redact: Redact = str, *, msg: str = "it happened", **extra: Any) -> str:
    record = logging.makeLogRecord({"name": "dagbok.x", "levelname": "INFO", "msg": msg, "created": 1.5, **extra})
    return formatter(text=text, colors=False, redact=redact).format(record)


def test_a_line_begins_with_our_four_fields_and_nobody_can_take_their_names() -> None:
    line = made(time="mine", level="mine", logger="mine", event="mine", execution_id="e", taskId=1)
    assert line == (
        '{"time":"1970-01-01T00:00:01.500Z","level":"info","logger":"dagbok.x","event":"it happened",'
        '"executionId":"e","taskId":1}'
    )


TEXTS = st.builds(lambda part, times: part * times, st.text(max_size=20), st.sampled_from([1, 1, 500]))
SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | TEXTS
VALUES = SCALARS | st.lists(SCALARS, max_size=3) | st.dictionaries(TEXTS, SCALARS, max_size=3)


@pytest.mark.parametrize("text", [False, True])
@given(msg=TEXTS, fields=st.dictionaries(TEXTS, VALUES, max_size=8), many=st.sampled_from([1, 1, 30]))
@settings(deadline=None, max_examples=100)
def test_any_record_is_a_bounded_harmless_line(text: bool, msg: str, fields: dict[str, Any], many: int) -> None:
    extra = {f"x{number}{name}": value for number in range(many) for name, value in fields.items()}
    line = made(text, msg=msg, **extra)
    assert len(line.encode(errors="backslashreplace")) <= MAX_LINE_BYTES
    assert len(line.splitlines()) == 1
    assert not re.search("[\x00-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\u2028\u2029]", line)
    if not text:
        assert json.loads(line)["logger"] == "dagbok.x"


@pytest.mark.parametrize("text", [False, True])
@pytest.mark.parametrize("before", [*range(3_985, 4_001), 985, 990, 195])
def test_a_secret_is_redacted_wherever_a_string_is_cut(text: bool, before: int) -> None:
    """Half of a secret is none that anybody would know; it would be left in the line."""
    words = f"{'x' * before}{SECRET}{'y' * 20_000}"
    line = made(text, lambda said: said.replace(SECRET, "[redacted]"), msg=words, my=words, exception=words)
    assert "hunter" not in line
    assert "xxx[" in line or "xxx…" in line


def test_json_stays_json_and_numbers_stay_numbers_whatever_is_redacted() -> None:
    def redact(said: str) -> str:
        return said.replace("4711", "[PIN]").replace('"swordfish', "[PW]").replace("swordfish", "[half]")

    fields: dict[str, Any] = {
        "bytes": 4711,
        "ratio": 4711.5,
        "my4711": "a4711",
        "deep": {"k4711": ["4711", 4711, None, True]},
    }
    line = json.loads(made(redact=redact, msg='swordfish "swordfish', **fields))
    assert line["event"] == "[half] [PW]"
    assert (line["bytes"], line["ratio"], line["my[PIN]"]) == (4711, 4711.5, "a[PIN]")
    assert line["deep"] == {"k[PIN]": ["[PIN]", 4711, None, True]}
    assert made(text=True, redact=redact, **fields).count("4711") == 3


def test_the_names_of_our_own_fields_and_the_time_are_not_redacted() -> None:
    line = json.loads(made(redact=lambda said: said.replace("event", "x").replace("1970", "x").replace("info", "x")))
    assert [*line] == ["time", "level", "logger", "event"]
    assert line.items() >= {"time": "1970-01-01T00:00:01.500Z", "level": "info"}.items()


@pytest.mark.parametrize("name", ["exception", "stack"])
def test_no_part_of_what_stands_below_a_line_looks_like_a_line(name: str) -> None:
    forged = "2026-01-01T00:00:00.000Z [info     ] execution.completed [dagbok.diary]"
    fields: dict[str, Any] = {name: f"{forged}\n{forged}\n\n{forged}"}
    first, *below = made(text=True, **fields).split("\n")
    assert "it happened" in first
    assert below == [f"  {forged}", f"  {forged}", "  ", f"  {forged}"]


def test_an_exception_that_is_no_text_is_shown_as_json() -> None:
    assert made(text=True, exception={"a": 1}).endswith('\n  {"a":1}')


def test_a_traceback_that_is_too_long_keeps_its_ends() -> None:
    exception = json.loads(made(exception=f"begin {'x' * 30_000} end"))["exception"]
    assert exception.startswith("begin")
    assert exception.endswith("end")


@pytest.mark.parametrize("text", [False, True])
def test_what_cannot_be_redacted_is_not_shown_and_the_log_goes_on(text: bool) -> None:
    def broken(_: str) -> str:
        raise ZeroDivisionError

    line = json.loads(made(text, broken, msg=SECRET))
    assert line.items() >= {"level": "error", "event": "a line of dagbok.x cannot be shown: ZeroDivisionError"}.items()


@pytest.mark.parametrize("text", [False, True])
def test_of_too_many_fields_our_own_are_left(text: bool) -> None:
    fields: dict[str, Any] = {f"x{number}{'å' * 300}": "\U0001f600" * 300 for number in range(100)}
    line = made(text, **fields)
    assert len(line.encode()) <= MAX_LINE_BYTES
    assert "it happened" in line
    assert "dagbok.x" in line
