"""What one execution has to have become, said from its plan: the judge's own account of the engine's rules."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import laws
from chaos import asked
from chaos.changes import Changes
from chaos.forks import taken_over
from chaos.plans import Planned, Task
from chaos.tools import digest_of, result_of
from dagbok.domain.ids import SYNTHESIS
from laws import Row, Written

#: Attempts of one step that deaths may cut off; the last one fails it.
_INTERRUPTIONS = 3
#: A loop that is busy for so long may still begin what was its turn before.
_LAG_MS = 2_000


class Ending:
    """Judges one execution that has ended."""

    def __init__(self, planned: Planned, written: Written, ends: Mapping[str, Sequence[Mapping[str, Any]]]) -> None:
        """Take its plan, its rows, and by task what its bodies told when they ended."""
        self._planned, self._written, self._ends = planned, written, ends
        self._changes, self._taken_over = Changes(written), taken_over(written)
        self._cancelled = written.execution["status"] == "cancelled"
        self._results = {
            task_id: None if row["result"] is None else json.loads(row["result"])
            for task_id, row in written.steps.items()
        }

    def faults(self) -> Iterator[str]:
        """Yield a sentence for each thing that is not as it has to be."""
        if self._written.steps.keys() - {SYNTHESIS} != self._planned.tasks.keys():
            yield "its steps are not those of its plan"
            return
        if self._cancelled and not self._planned.cancelled:
            yield "nobody asked for its end"
        yield from self._deadline()
        yield from self._fail_fast()
        for planned in self._planned.tasks.values():
            task, _ = self._changes.called(planned)
            for fault in self._step(task, self._written.steps[task.id]):
                yield f"{task.id} ({task.kind}, {task.effect}): {fault}"
        yield from self._synthesis()
        if not self._cancelled:
            yield from self._final_result()

    def _step(self, task: Task, row: Row) -> Iterator[str]:
        if row["status"] == "cancelled":
            code = "cancelled" if self._cancelled else self._written.execution["error_code"]
            # Some may have been left as they were when others were let run again.
            if row["reason"] not in ({code} if not self._changes.retried else {"cancelled", "deadline", "fail_fast"}):
                yield f"was cancelled: {row['reason']}"
            return
        if task.id in self._taken_over:
            return  # judged beside its origin
        lost = [parent for parent in task.parents if not laws.done(self._written.steps[parent])]
        if lost:
            if (row["status"], row["reason"]) != ("skipped", "dependency_failed"):
                yield f"is {row['status']}, and {lost} were lost"
            return
        interrupted = self._outcomes(task.id).count("interrupted")
        if interrupted > _INTERRUPTIONS or (interrupted == _INTERRUPTIONS) != (row["error_code"] == "crash_loop"):
            yield f"was interrupted {interrupted} times, and its error is {row['error_code']}"
        if row["error_code"] is not None:
            yield from self._failed(task, row)
        else:
            yield from self._succeeded(task, row)

    def _failed(self, task: Task, row: Row) -> Iterator[str]:
        code = row["error_code"]
        allowed = {"crash_loop", task.code}
        failures = sum(outcome in ("failed", "timeout") for outcome in self._outcomes(task.id))
        # Where a pause would reach beyond the deadline, a step is given up at once.
        if code == task.code and failures != task.attempts and self._written.execution["deadline_at"] is None:
            yield f"was given up after {failures} failures, and has {task.attempts} attempts"
        if "fail" in decisions(self._written, task.id):
            allowed.add("outcome_unknown")
        if asked.rejected(self._written, task.id):
            allowed.add("rejected")
        if any(r["outcome"] == "timed_out" for r in self._written.questions if r["task_id"] == task.id):
            allowed.add("unanswered")
        if code not in allowed:
            yield f"failed with {code}: {row['error']}"
        policy = task.on_timeout if code == "unanswered" and task.on_timeout != "fail" else task.policy
        expected = {"fail": "failed", "skip": "skipped", "default": "completed"}[policy]
        if row["status"] != expected:
            yield f"failed, its policy is {policy}, and it is {row['status']}"
        if policy == "default" and self._results[task.id] != task.default:
            yield f"failed, and has not its default but {str(row['result'])[:100]}"

    def _succeeded(self, task: Task, row: Row) -> Iterator[str]:
        if row["status"] != "completed":
            yield f"is {row['status']} without an error: {row['reason']}"
            return
        result = self._results[task.id]
        told = "succeeded" in decisions(self._written, task.id)[-1:]
        if asked.rejected(self._written, task.id):
            yield "completed, and was rejected"
        flaky = task.kind == "work" and row["attempt"] <= task.flaky and not (told and row["attempt"] == 0)
        if task.fails or (task.kind == "late" and not told) or flaky:
            yield "completed, and was told to fail"
            return
        if task.kind == "human":
            if result != task.answer():
                yield f"was answered with {result}"
        elif task.kind == "wait":
            if (waited := row["attempt"] - self._changes.since(task.id)) != 1:
                yield f"was to wait once, and did {waited} times"
        elif task.kind == "inference":
            if not (isinstance(result, str) and result):
                yield f"has no text but {str(result)[:100]}"
        else:
            yield from self._worked(task, row, result)

    def _worked(self, task: Task, row: Row, result: Any) -> Iterator[str]:
        attempt = row["attempt"]
        told = "succeeded" in decisions(self._written, task.id)[-1:]
        # A thread that was given up tells late, perhaps after the next attempt has begun.
        ran = [line for line in self._ends.get(task.id, ()) if line["attempt"] == attempt or task.kind == "late"]
        if not told:  # one whose start was lost with its process may have been called before somebody changed that
            ran = [line for line in ran if line["key"].endswith(f":{row['revision']}")]
        digest: str | None = digest_of(task.id, task.inputs(self._results))
        if told and attempt == 0:  # in the execution that this one is a fork of
            ran = list(self._ends.get(task.id, ()))[-1:]
        if told and (attempt == 0 or self._changes.of(task.id)):
            digest = ran[-1].get("digest") if ran else None  # of what was called before somebody has changed that
        if result != result_of(task.id, digest or "", task.kb):
            yield f"its result does not follow from those of its parents: {str(result)[:100]}, expected {digest}"
        if not ran or {line.get("digest") for line in ran} != {digest}:
            yield f"has a result of attempt {attempt}, and its body told of {ran or 'nothing'}"
        # What was cut off, and is to run again, may have been asked about only then.
        cut_off = [r["number"] for r in self._written.attempts if r["task_id"] == task.id]
        if attempt and told != (attempt in cut_off):
            yield f"completed at attempt {attempt}, and those that did not end well are {cut_off}"

    @property
    def _overdue(self) -> bool:
        return bool(self._written.execution["error_code"] == "deadline")

    def _deadline(self) -> Iterator[str]:
        """An execution is ended by its deadline, not before it, and begins nothing after it."""
        row = self._written.execution
        deadline_at = row["deadline_at"]
        if deadline_at is None:
            if self._overdue:
                yield "its deadline has passed, and it has none"
            return
        if self._overdue and row["completed_at"] < deadline_at:
            yield f"its deadline ended it {deadline_at - row['completed_at']} ms early"
        since = row["last_retry_at"] or 0  # when the deadline began anew
        for event in self._written.events:
            late = event["at"] > deadline_at + _LAG_MS and event["at"] >= since
            if event["type"] == "substep.started" and late:
                yield f"{event['task_id']} began {event['at'] - deadline_at} ms after the deadline"

    def _fail_fast(self) -> Iterator[str]:
        """After the first failure nothing begins, if it is to end then."""
        if not self._planned.fail_fast:
            if self._written.execution["error_code"] == "fail_fast":
                yield "it ended at its first failure, and nobody asked for that"
            return
        failed = None
        for event in self._written.events:
            if event["type"] == "execution.retried":
                failed = None
            elif event["type"] == "substep.failed":
                failed = event["task_id"]
            elif (
                event["type"] == "substep.started"
                and failed not in (None, SYNTHESIS)
                and (event["task_id"] != SYNTHESIS)
            ):
                yield f"{event['task_id']} began after {failed} had failed"

    def _synthesis(self) -> Iterator[str]:
        row = self._written.steps.get(SYNTHESIS)
        if (row is not None) != self._planned.synthesis:
            yield "it has a synthesis, or none, and its plan says otherwise"
        elif row is not None and row["status"] != "cancelled":
            some = self._written.execution["completed_tasks"] > 0
            expected = ("failed" if row["error_code"] == "crash_loop" else "completed") if some else "skipped"
            if row["status"] != expected:
                yield f"its synthesis is {row['status']} and not {expected}: {row['error']}"

    def _final_result(self) -> Iterator[str]:
        final, row = self._written.execution["final_result"], self._written.steps.get(SYNTHESIS)
        if row is not None:
            if row["status"] == "completed" and not (final and final == self._results[SYNTHESIS]):
                yield "its final result is not that of its synthesis"
            return
        sinks = {task_id: self._results[task_id] for task_id in self._planned.sinks}
        if len(sinks) == 1:
            (only,) = sinks.values()
            expected: Any = only
        else:
            expected = {task_id: result for task_id, result in sinks.items() if self._has_result(task_id)} or None
        if final is None or isinstance(expected, str):
            found: Any = final
        else:
            found = json.loads(final)
        if found != expected:
            yield f"its final result is not that of its last steps: {str(final)[:100]}"

    def _has_result(self, task_id: str) -> bool:
        return self._written.steps[task_id]["result"] is not None

    def _rows(self, task_id: str) -> list[Row]:
        """The attempts of a step that did not end well, since somebody let it run again."""
        since = self._changes.since(task_id)
        return [row for row in self._written.attempts if row["task_id"] == task_id and row["number"] > since]

    def _outcomes(self, task_id: str) -> list[str]:
        return [row["outcome"] for row in self._rows(task_id)]


def decisions(written: Written, task_id: str) -> list[str]:
    """Return what a person decided about the attempts of a step that were cut off, in order."""
    asked = [row for row in written.questions if row["task_id"] == task_id and row["kind"] == "did_it_happen"]
    return [json.loads(row["answer"])["decision"] for row in asked if row["answer"] is not None]
