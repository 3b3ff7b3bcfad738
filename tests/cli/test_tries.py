"""How retries, timers, deadlines and tries that failed look: while they happen, and afterwards."""

from __future__ import annotations

import json
import re
from typing import Any

from cli.program import Project, id_in, kill, read_until, task
from cli.test_on_a_terminal import OURS
from dagbok.cli.progress import Line, Now, Progress, Whole


def _flaky(file: str, times: int, **retry: Any) -> dict[str, Any]:
    return {**task(1, "flaky", file=file, times=times), "retry": {"backoff_seconds": 0.1, "jitter": 0, **retry}}


def _both_wait() -> tuple[dict[str, Any], dict[str, Any]]:
    """A step that waits for its second attempt, and a timer."""
    return _flaky("calls", 99, backoff_seconds=5_000, max_backoff_seconds=5_000), task(2, "wait", seconds=7_200)


def test_a_retry_is_a_line_with_its_error_and_when_it_follows(project: Project) -> None:
    done = project.run("run", project.plan(_flaky("calls", 2), task(2, "say", 1, text="<Result from Task 1>")))
    assert (done.returncode, done.stdout) == (0, "at last\n")
    happened = re.findall(r"^ +[\d.]+s  (\w+) +1 +flaky +(.*)", done.stderr, re.MULTILINE)
    assert [verb for verb, _ in happened] == ["started", "retrying", "started", "retrying", "started", "completed"]
    assert re.fullmatch(r"unavailable: the server was away for the 1\. time; attempt 2 in \d+ ms", happened[1][1])
    assert happened[2][1] == "Call flaky (attempt 2)"
    assert re.fullmatch(r"unavailable: the server was away for the 2\. time; attempt 3 in \d+ ms", happened[3][1])
    shown = project.run("show").stdout
    assert re.search(
        r"^completed  1  flaky +[\d.]+ ms +Call flaky \(attempt 3\)\n"
        r" +attempt 1  [\d.]+ ms +failed: unavailable: the server was away for the 1\. time\n"
        r" +attempt 2  [\d.]+ ms +failed: unavailable: the server was away for the 2\. time\n"
        r"completed  2  say",
        shown,
        re.MULTILINE,
    )


def test_a_try_that_begins_and_fails_within_one_commit_is_a_line_too() -> None:
    """The rows that are committed hold the last state of each step: pending before, pending after."""
    told: list[Line] = []
    progress = Progress(1, started_ms=0)
    progress.on_lines = told.extend
    progress.take([_pending(1, 70), _pending(2, 290)], _RUNS)
    assert [(line.at_ms, line.verb, line.text) for line in told] == [
        (10, "started", "Call flaky"),
        (20, "retrying", "unavailable: away for the 1. time; attempt 2 in 50 ms"),
        (210, "started", "Call flaky (attempt 2)"),
        (220, "retrying", "unavailable: away for the 2. time; attempt 3 in 70 ms"),
    ]


def _pending(attempt: int, next_ms: int) -> Now:
    at = 200 * (attempt - 1)
    return Now(
        "1", "flaky", "Call flaky", "pending", None, attempt, at + 10, None, next_ms, at + 20,
        "unavailable", f"away for the {attempt}. time", "",
    )  # fmt: skip


_RUNS = Whole("running", paused=False, active_ms=0, updated_ms=0)


def test_the_last_failed_try_is_what_the_step_says_and_of_many_the_latest_are_shown(project: Project) -> None:
    done = project.run("run", project.plan(_flaky("calls", 99, backoff_seconds=0, max_attempts=9)))
    assert done.returncode == 1
    lines = project.call("show").stdout.splitlines()
    at = next(number for number, line in enumerate(lines) if line.startswith("failed "))
    assert lines[at].endswith("unavailable: the server was away for the 9. time")
    assert lines[at + 1].strip() == "3 earlier attempts"
    assert [line.split()[1] for line in lines[at + 2 : at + 7]] == ["4", "5", "6", "7", "8"]
    assert len(lines) == at + 7


def test_what_waits_for_a_time_says_until_when(project: Project) -> None:
    plan = project.plan(
        _flaky("calls", 99, backoff_seconds=5_000, max_backoff_seconds=5_000), task(2, "wait", seconds=7_200)
    )
    process = project.start("run", plan, "--deadline", "9000")
    seen = read_until(process, "retrying")
    kill(process)
    assert re.search(r"started    2   wait +Call wait, until (\d{4}-\d\d-\d\d )?\d\d:\d\d:\d\d$", seen, re.MULTILINE)
    assert re.search(r"retrying   1   flaky +unavailable: .*; attempt 2 in 1 h 23 m$", seen, re.MULTILINE)
    shown = project.run("show", id_in(seen)).stdout
    clock = r"(?:\d{4}-\d\d-\d\d )?\d\d:\d\d:\d\d"
    assert re.search(
        rf"^pending  1  flaky  +attempt 2 at {clock} \(in 1 h 2\d m\) after unavailable: ", shown, re.MULTILINE
    )
    assert re.search(rf"^running  2  wait   +Call wait until {clock} \(in 1 h 59 m\)$", shown, re.MULTILINE)
    assert re.search(r"^deadline +\d{4}-.* \(in 2 h 29 m\)$", shown, re.MULTILINE)


def test_a_deadline_ends_what_has_not_ended_and_says_so(project: Project) -> None:
    plan = project.plan(task(1, "gate", file="never"), task(2, "say", 1, text="x"), task(3, "say", text="y"))
    done = project.run("run", plan, "--deadline", "1.5")
    assert (done.returncode, done.stdout) == (3, '{"3":"y"}\n')
    assert "cancelled  1   gate         because the deadline passed" in done.stderr
    assert "deadline: The deadline has passed when 1 of 3 sub-tasks had completed." in done.stderr
    execution = json.loads(project.call("show", "--json").stdout)
    assert (execution["errorCode"], execution["options"]) == ("deadline", {"deadlineSeconds": 1.5})


def test_on_a_terminal_a_back_off_is_seen_with_the_time_left(project: Project) -> None:
    plan = project.plan(
        _flaky("calls", 99, backoff_seconds=5_000, max_backoff_seconds=5_000), task(2, "wait", seconds=7_200)
    )
    code, seen = project.on_terminal("run", plan, press="\x03", at="in 1 h 23 m")
    plain = OURS.sub("", seen)
    assert code == 130
    assert re.search(r"↻ +1 +flaky +Call flaky +attempt 2 after unavailable: the server .* in 1 h 23 m", plain)
    assert re.search(r"… +2 +wait +Call wait +until (\d{4}-\d\d-\d\d )?\d\d:\d\d:\d\d +in 1 h 59 m", plain)
    assert "Stopping" not in plain
    assert re.search(r"`dagbok resume dag-exec_", plain)
