"""Holds the side log and the looks into the database against each other, and names whatever does not fit.

Two accounts of the same campaign by different hands: bodies of tools wrote the one, the engine the other. The judge
knows the plans and says by itself what each step has to become; of the code under test it uses only words.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import laws
from chaos import plans, sidelog
from chaos.looks import Look
from chaos.plans import Planned, Task
from chaos.tools import SCRIPTED, digest_of, result_of
from chaos.violations import Law, Violation
from dagbok.domain.ids import SYNTHESIS
from dagbok.domain.states import ENDED
from laws import Row, Written

#: Attempts of one step that deaths may cut off; the last one fails it.
_INTERRUPTIONS = 3

Step = tuple[str, str]  # execution, task


class Judge:
    """Judges one round: `see` each look, and `finish` after the last."""

    def __init__(self, seed: int, log: Path) -> None:
        self.violations: list[Violation] = []
        self.counts: Counter[str] = Counter()
        self._seed = seed
        self._log = log
        self._read_up_to = 0
        self._accepted: dict[str, int] = {}  # execution -> plan
        self._intended: set[int] = set()
        self._starts: dict[Step, list[Mapping[str, Any]]] = defaultdict(list)
        self._ends: dict[Step, list[Mapping[str, Any]]] = defaultdict(list)
        self._ended: dict[Step, tuple[str, str]] = {}  # what stood in the row of a step when it was first seen ended
        self._judged: set[str] = set()  # executions that ended
        self._diaries: dict[str, tuple[int, str]] = {}  # the length and checksum of a diary when it was last seen

    def see(self, look: Look) -> None:
        """Judge what happened up to `look`."""
        fresh = self._hear(look)
        self.accuse(Law.UNSOUND, *look.faults)
        for written in look.executions.values():
            self.accuse(Law.DIARY, *laws.broken(written))
            self._is_known(written)
            self._grows_only(written)
            if written.ended and written.execution["id"] not in self._judged:
                self._judged.add(written.execution["id"])
                self._ended_rightly(written)
        for execution in self._accepted.keys() - look.executions.keys():
            self.accuse(Law.LOST, f"{execution} was accepted, and is lost")
        numbers = Counter(_number(written) for written in look.executions.values())
        self.accuse(Law.LOST, *(f"plan {number} became {n} executions" for number, n in numbers.items() if n > 1))
        for line in fresh:
            if line["what"] == "start":
                self._began_rightly(line, look)

    def finish(self, look: Look) -> None:
        """Judge the end, when all is over."""
        self.see(look)
        open_ones = [written for written in look.executions.values() if not written.ended]
        self.accuse(Law.STUCK, *(f"{written.execution['id']} never ended: {_open(written)}" for written in open_ones))

    # -- the side log -------------------------------------------------------------------------------------------------

    def _hear(self, look: Look) -> list[dict[str, Any]]:
        lines, offset = sidelog.read(self._log, self._read_up_to)
        assert offset == look.offset, "somebody wrote into the side log during a look"
        self._read_up_to = offset
        for line in lines:
            what = line["what"]
            self.counts[what] += 1
            if what == "start":
                self._start(line)
            elif what in ("end", "fail"):
                self._ends[line["execution"], line["task"]].append(line)
            elif what == "intend":
                self._intended.add(line["plan"])
            elif what == "accepted":
                self._accepted[line["execution"]] = line["plan"]
                self.counts["replayed"] += line["replayed"]
            elif what == "refused" and line["code"] not in ("conflict", "outcome_unknown", "store_unavailable"):
                self.accuse(Law.PROCESS, f"the engine refused: {line}")
        return lines

    def _start(self, line: Mapping[str, Any]) -> None:
        step = (line["execution"], line["task"])
        if step in self._ended:
            was = self._ended[step][0]
            self.accuse(Law.RAN_AGAIN, f"{_named(step)} was {was} in the database, and its body started again: {line}")
        if line["key"] != f"{line['execution']}:{line['task']}:0":
            self.accuse(Law.WRONG, f"{_named(step)} has the idempotency key {line['key']}")
        twice = [other for other in self._starts[step] if other["attempt"] == line["attempt"]]
        if any(other["pid"] == line["pid"] for other in twice):
            self.accuse(Law.REPEATED, f"{_named(step)}: one process began attempt {line['attempt']} twice")
        if self._starts[step]:
            self.counts["started again"] += 1
        self._starts[step].append(line)

    # -- at every look ------------------------------------------------------------------------------------------------

    def _is_known(self, written: Written) -> None:
        number = _number(written)
        if number not in self._intended:
            self.accuse(Law.WRONG, f"{written.execution['id']}: plan {number} was never submitted")

    def _grows_only(self, written: Written) -> None:
        """What has ended stays as it is, and the diary is only written on."""
        id = written.execution["id"]
        for task_id, row in written.steps.items():
            if row["status"] not in ENDED:
                if (id, task_id) in self._ended:
                    was = self._ended[id, task_id][0]
                    self.accuse(Law.CHANGED, f"{id} {task_id} was {was}, and is {row['status']}")
                continue
            now = (row["status"], _checksum([row["result"], row["error"], row["attempt"], row["completed_at"]]))
            before = self._ended.setdefault((id, task_id), now)
            if before != now:
                self.accuse(Law.CHANGED, f"{id} {task_id} ended as {before[0]}; its row has changed: {row['status']}")
        seen, checksum = self._diaries.get(id, (0, _checksum([])))
        lines = [[e["seq"], e["type"], e["task_id"], e["at"], e["data"]] for e in written.events]
        if _checksum(lines[:seen]) != checksum:
            self.accuse(Law.CHANGED, f"{id}: lines of its diary have changed")
        self._diaries[id] = (len(lines), _checksum(lines))

    def _began_rightly(self, line: Mapping[str, Any], look: Look) -> None:
        """A body may run only over parents that are durable; one that may run once, only after its own start is."""
        id, task_id = line["execution"], line["task"]
        if (written := look.executions.get(id)) is None:
            self.accuse(Law.LOST, f"{id} {task_id} ran, and the execution is not in the database")
            return
        row = written.steps[task_id]
        lost = [parent for parent in json.loads(row["dependencies"]) if not laws.done(written.steps[parent])]
        if lost:
            self.accuse(Law.EARLY, f"{id} {task_id} ran before {lost} were durable")
        if row["effect"] == "once" and row["attempt"] < line["attempt"]:
            self.accuse(Law.EARLY, f"{id} {task_id} ran before the start of attempt {line['attempt']} was durable")

    def _ended_rightly(self, written: Written) -> None:
        id, planned = written.execution["id"], plans.make(self._seed, _number(written))
        self.accuse(
            Law.WRONG,
            *(f"{id} (plan {planned.number}): {fault}" for fault in _End(planned, written, self._ends).faults()),
        )
        # A body that may run once ran once, and once more for each time somebody said so.
        for task_id, row in written.steps.items():
            allowed = 1 + sum(decision == "retry" for decision in _decisions(written, task_id))
            starts = len(self._starts[id, task_id])
            if row["effect"] == "once" and starts > allowed:
                self.accuse(Law.REPEATED, f"{id} {task_id} was allowed {allowed} starts, and had {starts}")

    # -- counting -----------------------------------------------------------------------------------------------------

    def count(self, look: Look) -> None:
        """Count what the round was made of, once all is judged."""
        for written in look.executions.values():
            self._count(plans.make(self._seed, _number(written)), written)

    def _count(self, planned: Planned, written: Written) -> None:
        counts = self.counts
        counts["executions"] += 1
        counts[f"executions {written.execution['status']}"] += 1
        counts["events"] += len(written.events)
        for row in written.steps.values():
            counts["steps"] += 1
            counts[f"steps {row['status']}"] += 1
            counts["steps in crash_loop"] += row["error_code"] == "crash_loop"
            counts["large results"] += (row["result_bytes"] or 0) > 2**20
        for row in written.attempts:
            counts[f"attempts {row['outcome']}"] += 1
        for row in written.questions:
            counts[f"questions {row['kind']}"] += 1
        counts["timers"] += sum(task.kind == "wait" for task in planned.tasks.values())

    def accuse(self, law: Law, *cases: str) -> None:
        """Add cases against a law."""
        self.violations += (Violation(law, words) for words in cases)


class _End:
    """What one execution has to have become."""

    def __init__(self, planned: Planned, written: Written, ends: Mapping[Step, Sequence[Mapping[str, Any]]]) -> None:
        self._planned, self._written, self._ends = planned, written, ends
        self._id = written.execution["id"]
        self._cancelled = written.execution["status"] == "cancelled"
        self._results = {
            task_id: None if row["result"] is None else json.loads(row["result"])
            for task_id, row in written.steps.items()
        }

    def faults(self) -> Iterator[str]:
        if self._written.steps.keys() - {SYNTHESIS} != self._planned.tasks.keys():
            yield "its steps are not those of its plan"
            return
        if self._cancelled and not self._planned.cancelled:
            yield "nobody asked for its end"
        for task in self._planned.tasks.values():
            for fault in self._step(task, self._written.steps[task.id]):
                yield f"{task.id} ({task.kind}, {task.effect}): {fault}"
        yield from self._synthesis()
        if not self._cancelled:
            yield from self._final_result()

    def _step(self, task: Task, row: Row) -> Iterator[str]:
        if row["status"] == "cancelled":
            if not (self._cancelled and row["reason"] == "cancelled"):
                yield f"was cancelled: {row['reason']}"
            return
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
        allowed = {"crash_loop"}
        if task.fails:
            allowed.add(SCRIPTED)
        if task.kind == "late":
            allowed.add("timeout")
        if "fail" in _decisions(self._written, task.id):
            allowed.add("outcome_unknown")
        if code not in allowed:
            yield f"failed with {code}: {row['error']}"
        expected = {"fail": "failed", "skip": "skipped", "default": "completed"}[task.policy]
        if row["status"] != expected:
            yield f"failed, its policy is {task.policy}, and it is {row['status']}"
        if task.policy == "default" and self._results[task.id] != task.default:
            yield f"failed, and has not its default but {str(row['result'])[:100]}"

    def _succeeded(self, task: Task, row: Row) -> Iterator[str]:
        if row["status"] != "completed":
            yield f"is {row['status']} without an error: {row['reason']}"
            return
        if task.fails or task.kind == "late":
            yield "completed, and was told to fail"
            return
        result = self._results[task.id]
        if task.kind == "human":
            if result != task.answer():
                yield f"was answered with {result}"
        elif task.kind == "wait":
            yield from self._waited(task, row)
        elif task.kind == "inference":
            if not (isinstance(result, str) and result):
                yield f"has no text but {str(result)[:100]}"
        else:
            yield from self._worked(task, row, result)

    def _worked(self, task: Task, row: Row, result: Any) -> Iterator[str]:
        digest = digest_of(task.id, task.inputs(self._results))
        if result != result_of(task.id, digest, task.kb):
            yield f"its result does not follow from those of its parents: {str(result)[:100]}, expected {digest}"
        attempt = row["attempt"]
        told = "succeeded" in _decisions(self._written, task.id)[-1:]
        ran = [line for line in self._ends.get((self._id, task.id), ()) if line["attempt"] == attempt]
        if not ran or {line.get("digest") for line in ran} != {digest}:
            yield f"has a result of attempt {attempt}, and its body told of {ran or 'nothing'}"
        if told != (attempt in {row["number"] for row in self._rows(task.id)}):
            yield f"completed at attempt {attempt}, whose row is {self._outcomes(task.id)}"

    def _waited(self, task: Task, row: Row) -> Iterator[str]:
        waited_ms = row["completed_at"] - (row["started_at"] or row["completed_at"])
        # Both loops and the diary count whole milliseconds, each from where its own began.
        if waited_ms < task.seconds * 1000 - 2 or row["attempt"] != 1:
            yield f"was to wait {task.seconds} s, once, and waited {waited_ms} ms at attempt {row['attempt']}"

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
        return [row for row in self._written.attempts if row["task_id"] == task_id]

    def _outcomes(self, task_id: str) -> list[str]:
        return [row["outcome"] for row in self._rows(task_id)]


def _decisions(written: Written, task_id: str) -> list[str]:
    """Return what a person decided about the attempts of a step that were cut off, in order."""
    asked = [row for row in written.questions if row["task_id"] == task_id and row["kind"] == "did_it_happen"]
    return [json.loads(row["answer"])["decision"] for row in asked if row["answer"] is not None]


def _number(written: Written) -> int:
    """Return the number of its plan."""
    return int(json.loads(written.execution["labels"])["plan"])


def _named(step: Step) -> str:
    return " ".join(step)


def _open(written: Written) -> str:
    steps = [
        f"{task_id} {row['tool_or_prompt_name']} {row['status']} at attempt {row['attempt']}"
        for task_id, row in written.steps.items()
        if row["status"] not in ENDED
    ]
    return f"{written.execution['status']}; " + ", ".join(steps[:8])


def _checksum(value: Any) -> str:
    return hashlib.sha256(json.dumps(value).encode()).hexdigest()
