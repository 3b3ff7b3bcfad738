"""The judge of the campaign sees what it is there for: each of these cases, forged into a round that went well."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson
import pytest

from chaos import sidelog
from chaos.judge import Judge
from chaos.looks import Look, SQLite
from chaos.round import Round
from chaos.violations import Law
from chaos.zygote import Zygote

#: Its first plan has steps of every kind, approvals, a question that nobody answers in time, and none that ends it
#: early; it is retried with overrides, and forked.
SEED = 29181


@dataclass
class Case:
    """A round that ended, to be forged."""

    executions: dict[str, Any]
    lines: list[dict[str, Any]]
    faults: list[str]  # of the database

    @property
    def first(self) -> Any:
        return next(iter(self.executions.values()))

    def step(self, fits: Callable[[Any], bool]) -> Any:
        """Return the first row of a sub-step that fits."""
        return next(row for written in self.executions.values() for row in written.steps.values() if fits(row))

    def worked(self, fits: Callable[[Any], bool] = lambda _: True) -> Any:
        """Return the row of a sub-step that completed by a tool of the campaign."""
        ended = {(line["execution"], line["task"]) for line in self.lines if line["what"] == "end"}
        return self.step(lambda row: (row["execution_id"], row["task_id"]) in ended and fits(row))

    def start_of(self, row: Any) -> dict[str, Any]:
        """Return the line of the side log in which the body of a sub-step starts."""
        starts = (line for line in self.lines if line["what"] == "start")
        return next(s for s in starts if (s["execution"], s["task"]) == (row["execution_id"], row["task_id"]))

    def question(self, fits: Callable[[Any], bool]) -> Any:
        """Return the first question that fits."""
        return next(row for written in self.executions.values() for row in written.questions if fits(row))

    @property
    def fork(self) -> Any:
        return next(written for written in self.executions.values() if written.execution["forked_from"])

    def judged(self, judge: Judge, log: Path, *, finish: bool) -> set[Law]:
        """Let it be judged, and return the laws that it breaks."""
        look = Look(log.stat().st_size, self.executions, 0, faults=self.faults)
        (judge.finish if finish else judge.see)(look)
        return {violation.law for violation in judge.violations}


@pytest.fixture(scope="module")
def ended(tmp_path_factory: pytest.TempPathFactory) -> Case:
    folder = tmp_path_factory.mktemp("round")
    place = SQLite(folder)
    with Zygote() as zygote:
        figures = Round(place, SEED, 0, folder, zygote).run()
    assert not figures.violations
    log = folder / "side.log"
    look = place.look(log.stat().st_size)
    return Case(dict(look.executions), sidelog.read(log)[0], [])


def _written(lines: list[dict[str, Any]], folder: Path) -> Path:
    log = folder / "side.log"
    log.write_bytes(b"".join(b"\n" + orjson.dumps(line) for line in lines))
    return log


# -- forgeries --------------------------------------------------------------------------------------------------------


def a_once_body_that_starts_twice(case: Case) -> None:
    start = case.start_of(case.worked(lambda row: row["effect"] == "once"))
    case.lines.append({**start, "attempt": start["attempt"] + 1, "pid": 1})


def an_attempt_that_starts_twice_in_one_process(case: Case) -> None:
    case.lines.append(case.start_of(case.worked(lambda row: row["effect"] == "pure")))


def a_once_body_before_its_start(case: Case) -> None:
    row = case.worked(lambda row: row["effect"] == "once")
    case.start_of(row)["attempt"] = row["attempt"] + 1


def a_body_before_its_parents(case: Case) -> None:
    row = case.worked(lambda row: row["dependencies"] != "[]")
    case.executions[row["execution_id"]].steps[json.loads(row["dependencies"])[0]]["status"] = "failed"


def a_lost_execution(case: Case) -> None:
    del case.executions[next(line["execution"] for line in case.lines if line["what"] == "accepted")]


def a_lost_answer(case: Case) -> None:
    for written in case.executions.values():
        written.commands.clear()


def a_doubled_execution(case: Case) -> None:
    case.executions["another"] = case.first


def an_execution_that_goes_on(case: Case) -> None:
    case.first.execution["status"] = "running"


def a_counter_off_by_one(case: Case) -> None:
    case.first.execution["completed_tasks"] += 1


def a_missing_line_of_the_diary(case: Case) -> None:
    case.first.events.pop(3)


def a_missing_attempt(case: Case) -> None:
    for written in case.executions.values():
        written.attempts.clear()


def an_open_question_of_a_step_that_ended(case: Case) -> None:
    for written in case.executions.values():
        for row in written.questions:
            row["closed_at"] = None


def a_result_of_nobody(case: Case) -> None:
    row = case.worked()
    row["result"] = json.dumps({"task": row["task_id"], "digest": "0" * 24, "bulk": ""})


def a_result_without_a_body(case: Case) -> None:
    start = case.start_of(case.worked())
    case.lines = [line for line in case.lines if line["what"] != "end" or line["task"] != start["task"]]


def another_idempotency_key(case: Case) -> None:
    case.start_of(case.worked())["key"] = "another"


def a_timer_that_rings_early(case: Case) -> None:
    row = case.step(lambda row: row["tool_or_prompt_name"] == "wait" and row["status"] == "completed")
    row["completed_at"] = row["started_at"]


def a_step_that_fails_for_no_reason(case: Case) -> None:
    row = case.worked()
    row["error_code"] = "engine_error"


def a_final_result_of_nobody(case: Case) -> None:
    for written in case.executions.values():
        written.execution["final_result"] = '{"of": "nobody"}'


def a_body_that_nobody_has_let_run(case: Case) -> None:
    case.question(_approved)["answer"] = '{"decision": "reject"}'


def _approved(row: Any) -> bool:
    return row["kind"] == "approval" and '"approve"' in (row["answer"] or "")


def a_body_that_is_not_given_what_somebody_has_edited(case: Case) -> None:
    edited = case.question(lambda row: '"edit"' in (row["answer"] or ""))
    case.start_of(edited)["digest"] = "0" * 24


def an_edit_that_is_forgotten(case: Case) -> None:
    row = case.question(lambda row: '"edit"' in (row["answer"] or ""))
    case.executions[row["execution_id"]].steps[row["task_id"]]["override"] = None


def an_override_that_is_forgotten(case: Case) -> None:
    retry = next(line for line in case.lines if line["what"] == "retry" and line["overrides"])
    events = case.executions[retry["execution"]].events
    events[:] = [e for e in events if e["type"] != "substep.overridden" or retry["by"] not in e["data"]]


def an_override_of_nobody(case: Case) -> None:
    retry = next(line for line in case.lines if line["what"] == "retry" and line["overrides"])
    for row in case.executions[retry["execution"]].commands:
        if row["kind"] == "retry":
            row["data"] = "{}"


def a_second_answer(case: Case) -> None:
    commands = case.first.commands
    commands.append({**next(row for row in commands if row["kind"] == "answer"), "by": "another"})


def an_accepted_answer_that_does_not_count(case: Case) -> None:
    row = case.question(lambda row: row["kind"] == "human" and row["outcome"] == "answered")
    row["answered_by"] = "another"


def a_time_that_is_over_early(case: Case) -> None:
    row = case.question(lambda row: row["outcome"] == "timed_out")
    row["due_at"] = row["closed_at"] + 1


def a_question_that_is_asked_twice(case: Case) -> None:
    row = case.question(_approved)
    case.executions[row["execution_id"]].questions.append({**row, "number": row["number"] + 1})


def _reused(case: Case) -> Any:
    return next(row for row in case.fork.steps.values() if row["reason"] == "reused")


def a_step_that_was_taken_over_and_runs(case: Case) -> None:
    start = case.start_of(case.worked(lambda row: row["effect"] == "pure"))
    row = _reused(case)
    case.lines.append({**start, "execution": row["execution_id"], "task": row["task_id"]})


def a_step_that_was_not_taken_over(case: Case) -> None:
    _reused(case)["reason"] = None


def another_result_of_what_was_taken_over(case: Case) -> None:
    _reused(case)["result"] = "{}"


def a_fork_of_another(case: Case) -> None:
    case.fork.execution["forked_from"] = "another"


def a_lost_fork(case: Case) -> None:
    del case.executions[case.fork.execution["id"]]


def a_lost_retry(case: Case) -> None:
    for written in case.executions.values():
        written.commands[:] = [row for row in written.commands if row["kind"] != "retry"]


def a_broken_database(case: Case) -> None:
    case.faults.append("Page 7 is never used")


@pytest.mark.parametrize(
    ("forge", "law"),
    [
        (a_once_body_that_starts_twice, Law.REPEATED),
        (an_attempt_that_starts_twice_in_one_process, Law.REPEATED),
        (a_once_body_before_its_start, Law.EARLY),
        (a_body_before_its_parents, Law.EARLY),
        (a_lost_execution, Law.LOST),
        (a_lost_answer, Law.LOST),
        (a_doubled_execution, Law.LOST),
        (an_execution_that_goes_on, Law.STUCK),
        (a_counter_off_by_one, Law.DIARY),
        (a_missing_line_of_the_diary, Law.DIARY),
        (a_missing_attempt, Law.DIARY),
        (an_open_question_of_a_step_that_ended, Law.DIARY),
        (a_result_of_nobody, Law.WRONG),
        (a_result_without_a_body, Law.WRONG),
        (another_idempotency_key, Law.WRONG),
        (a_timer_that_rings_early, Law.DIARY),
        (a_step_that_fails_for_no_reason, Law.WRONG),
        (a_final_result_of_nobody, Law.WRONG),
        (a_body_that_nobody_has_let_run, Law.EARLY),
        (a_body_that_is_not_given_what_somebody_has_edited, Law.WRONG),
        (an_edit_that_is_forgotten, Law.WRONG),
        (an_override_that_is_forgotten, Law.WRONG),
        (an_override_of_nobody, Law.WRONG),
        (a_second_answer, Law.WRONG),
        (an_accepted_answer_that_does_not_count, Law.WRONG),
        (a_time_that_is_over_early, Law.WRONG),
        (a_question_that_is_asked_twice, Law.WRONG),
        (a_step_that_was_taken_over_and_runs, Law.WRONG),
        (a_step_that_was_not_taken_over, Law.WRONG),
        (another_result_of_what_was_taken_over, Law.WRONG),
        (a_fork_of_another, Law.WRONG),
        (a_lost_fork, Law.LOST),
        (a_lost_retry, Law.LOST),
        (a_broken_database, Law.UNSOUND),
    ],
    ids=lambda value: getattr(value, "__name__", "-"),
)
def test_a_forgery_is_named(ended: Case, tmp_path: Path, forge: Callable[[Case], None], law: Law) -> None:
    case = copy.deepcopy(ended)
    log = _written(case.lines, tmp_path)
    assert not case.judged(Judge(SEED, log), log, finish=True)
    forge(case)
    log = _written(case.lines, tmp_path)
    assert law in case.judged(Judge(SEED, log), log, finish=True)


def test_what_changes_between_two_looks_is_named(ended: Case, tmp_path: Path) -> None:
    """A body that starts again after its step was seen completed; a row and a line that are not what they were."""
    case = copy.deepcopy(ended)
    log = _written(case.lines, tmp_path)
    judge = Judge(SEED, log)
    assert not case.judged(judge, log, finish=False)

    row = case.worked(lambda row: row["effect"] == "pure")
    log = _written([*case.lines, {**case.start_of(row), "attempt": 9, "pid": 1}], tmp_path)
    row["completed_at"] += 1
    case.first.events[1]["at"] += 1
    assert case.judged(judge, log, finish=False) == {Law.RAN_AGAIN, Law.CHANGED}
    assert sum(violation.law is Law.CHANGED for violation in judge.violations) == 2
