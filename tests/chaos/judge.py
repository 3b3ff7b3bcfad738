"""Holds the side log and the looks into the database against each other, and names whatever does not fit.

Two accounts of the same campaign by different hands: bodies of tools wrote the one, the engine the other. The judge
knows the plans and says by itself what each step has to become; of the code under test it uses only words.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter, defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import laws
from chaos import plans, sidelog
from chaos.asked import Asked, approved
from chaos.changes import Changes
from chaos.endings import Ending, decisions
from chaos.forks import ForkJudge
from chaos.looks import Look
from chaos.plans import Planned
from chaos.tools import digest_of
from chaos.violations import Law, Violation
from dagbok.domain.ids import SYNTHESIS
from dagbok.domain.states import ENDED
from laws import Written

Step = tuple[str, str]  # execution, task

#: How a step has ended for good, whatever anybody wants.
_DONE = ("completed", "chosen")

#: What the side log calls an accepted command, and what the database does.
_ACCEPTED = {
    "answered": "answer", "cancelled": "cancel", "paused": "pause", "resumed": "resume", "retried": "retry"
}  # fmt: skip
#: Why something may be refused: it came too late, or the process died.
_TOO_LATE = ("conflict", "outcome_unknown", "store_unavailable")
#: The same by what the side log calls that. What is to run again may do so already: an earlier life asked for it, too.
_REFUSALS = {"refused": _TOO_LATE, "not retried": (*_TOO_LATE, "invalid_input"), "not forked": ("conflict",)}


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
        self._commands: Counter[tuple[str, str]] = Counter()  # accepted ones, by execution and kind
        self._starts: dict[Step, list[Mapping[str, Any]]] = defaultdict(list)
        self._starts_in_order: list[Mapping[str, Any]] = []
        self._ends: dict[Step, list[Mapping[str, Any]]] = defaultdict(list)
        self._answers: dict[str, list[Mapping[str, Any]]] = defaultdict(list)  # accepted and misplaced, by execution
        self._forks: dict[str, Mapping[str, Any]] = {}  # who asked for them first, by the name of the wish
        #: What stood in the row of a step when it was first seen ended, and how often it had been let run again.
        self._ended: dict[Step, tuple[str, str, int]] = {}
        self._deadlines: dict[tuple[str, int], int | None] = {}  # by execution, and how often it was retried
        self._judged: set[tuple[str, int]] = set()  # executions that ended, likewise
        self._diaries: dict[str, tuple[int, str]] = {}  # the length and checksum of a diary when it was last seen

    def see(self, look: Look) -> None:
        """Judge what happened up to `look`."""
        fresh = self._hear(look)
        self.accuse(Law.UNSOUND, *look.faults)
        for line in fresh:
            if line["what"] == "start":
                self._may_run_again(line, look)
        for written in look.executions.values():
            self.accuse(Law.DIARY, *laws.broken(written))
            self._is_known(written)
            self._grows_only(written)
            time = (written.execution["id"], written.execution["retry_count"])
            if written.ended and time not in self._judged:
                self._judged.add(time)
                self._ended_rightly(written, look)
        for execution in self._accepted.keys() - look.executions.keys():
            self.accuse(Law.LOST, f"{execution} was accepted, and is lost")
            return
        for (execution, kind), accepted in self._commands.items():
            found = sum(row["kind"] == kind for row in look.executions[execution].commands)
            if found < accepted:
                self.accuse(Law.LOST, f"{execution}: of {accepted} accepted commands to {kind} it {found} are there")
        first = [written for written in look.executions.values() if written.execution["forked_from"] is None]
        numbers = Counter(map(_number, first))
        self.accuse(Law.LOST, *(f"plan {number} became {n} executions" for number, n in numbers.items() if n > 1))
        for line in fresh:
            if line["what"] == "start":
                self._began_rightly(line, look)

    def finish(self, look: Look) -> None:
        """Judge the end, when all is over."""
        self.see(look)
        open_ones = [written for written in look.executions.values() if not written.ended]
        for written in look.executions.values():
            planned = plans.make(self._seed, _number(written))
            self.accuse(Law.WRONG, *self._asked_rightly(planned, written))
        self.accuse(Law.STUCK, *(f"{written.execution['id']} never ended: {_open(written)}" for written in open_ones))

    # -- the side log -------------------------------------------------------------------------------------------------

    def _hear(self, look: Look) -> list[dict[str, Any]]:
        lines, offset = sidelog.read(self._log, self._read_up_to)
        assert offset == look.offset, "somebody wrote into the side log during a look"
        self._read_up_to = offset
        for line in lines:
            what = line["what"]
            self.counts[what] += 1
            if what in ("answered", "misplaced"):
                self._answers[line["execution"]].append(line)
            if what == "start":
                self._start(line)
            elif what in ("end", "fail"):
                self._ends[line["execution"], line["task"]].append(line)
            elif what in _ACCEPTED:
                self._commands[line["execution"], _ACCEPTED[what]] += 1
            elif what == "intend":
                self._intended.add(line["plan"])
            elif what == "accepted":
                self._accepted[line["execution"]] = line["plan"]
                self.counts["replayed"] += line["replayed"]
            elif what == "fork":
                self._forks.setdefault(line["by"], {**line, "line": len(self._starts_in_order)})
            elif what == "forked":
                self._accepted[line["fork"]] = 0
            elif what in _REFUSALS and line["code"] not in _REFUSALS[what]:
                self.accuse(Law.PROCESS, f"the engine refused: {line}")
        return lines

    def _start(self, line: Mapping[str, Any]) -> None:
        step = (line["execution"], line["task"])
        twice = [other for other in self._starts[step] if other["attempt"] == line["attempt"]]
        if any(other["pid"] == line["pid"] for other in twice):
            self.accuse(Law.REPEATED, f"{_named(step)}: one process began attempt {line['attempt']} twice")
        if self._starts[step]:
            self.counts["started again"] += 1
        self._starts[step].append(line)
        self._starts_in_order.append(line)

    def _may_run_again(self, line: Mapping[str, Any], look: Look) -> None:
        """What had ended does not begin again, unless it was lost and somebody wanted that."""
        step = (line["execution"], line["task"])
        if step not in self._ended or (written := look.executions.get(step[0])) is None:
            return
        was, _, times = self._ended[step]
        if was in _DONE or len(Changes(written).put_back.get(step[1], ())) <= times:
            self.accuse(Law.RAN_AGAIN, f"{_named(step)} was {was} in the database, and its body started again: {line}")

    # -- at every look ------------------------------------------------------------------------------------------------

    def _is_known(self, written: Written) -> None:
        number = _number(written)
        if number not in self._intended:
            self.accuse(Law.WRONG, f"{written.execution['id']}: plan {number} was never submitted")

    def _grows_only(self, written: Written) -> None:
        """What has ended stays as it is, and the diary is only written on."""
        id, deadline_at = written.execution["id"], written.execution["deadline_at"]
        known = self._deadlines.setdefault((id, written.execution["retry_count"]), deadline_at)
        if known != deadline_at:
            self.accuse(Law.CHANGED, f"{id} had the deadline {known}, and has {deadline_at}")
        put_back = Changes(written).put_back
        for task_id, row in written.steps.items():
            times = len(put_back.get(task_id, ()))
            if (before := self._ended.get((id, task_id))) and times > before[2]:
                if before[0] in _DONE and task_id != SYNTHESIS:
                    self.accuse(Law.CHANGED, f"{id} {task_id} was {before[0]}, and was let run again")
                del self._ended[id, task_id]
            if row["status"] not in ENDED:
                if (id, task_id) in self._ended:
                    was = self._ended[id, task_id][0]
                    self.accuse(Law.CHANGED, f"{id} {task_id} was {was}, and is {row['status']}")
                continue
            checksum = _checksum([row["result"], row["error"], row["attempt"], row["completed_at"]])
            now = ("chosen" if row["reason"] == "chosen" else row["status"], checksum, times)
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
        task = plans.make(self._seed, _number(written)).tasks[task_id]
        if task.approval and not approved(written, task_id):
            self.accuse(Law.EARLY, f"{id} {task_id} ran before somebody had let it run")
        self._was_given(line, written)

    def _was_given(self, line: Mapping[str, Any], written: Written) -> None:
        """A body is called as its plan says, or as people have said since."""
        id, task_id = line["execution"], line["task"]
        prefix, _, revision = line["key"].rpartition(":")
        if prefix != f"{id}:{task_id}" or not 0 <= int(revision) <= written.steps[task_id]["revision"]:
            self.accuse(Law.WRONG, f"{id} {task_id} has the idempotency key {line['key']}")
            return
        planned = plans.make(self._seed, _number(written)).tasks[task_id]
        task, tool = Changes(written).called(planned, int(revision))
        results = {parent: json.loads(written.steps[parent]["result"] or "null") for parent in task.parents}
        expected = (tool, digest_of(task_id, task.inputs(results)))
        if (line["tool"], line["digest"]) != expected:
            self.accuse(Law.WRONG, f"{id} {task_id} was to be {expected} at revision {revision}, and was {line}")

    def _asked_rightly(self, planned: Planned, written: Written) -> list[str]:
        id = written.execution["id"]
        faults = [*Changes(written).faults(), *Asked(planned, written, self._answers[id]).faults()]
        return [f"{id} (plan {planned.number}): {fault}" for fault in faults]

    def _ended_rightly(self, written: Written, look: Look) -> None:
        id, planned = written.execution["id"], plans.make(self._seed, _number(written))
        origins = _origins(written, look)
        ends = {
            task_id: next((found for of in origins if (found := self._ends[of, task_id])), [])
            for task_id in written.steps
        }
        for fault in Ending(planned, written, ends).faults():
            self.accuse(Law.WRONG, f"{id} (plan {planned.number}): {fault}")
        self.accuse(Law.WRONG, *self._asked_rightly(planned, written))
        if written.execution["forked_from"] is not None:
            self._forked_rightly(planned, written, look)
        for task_id, row in written.steps.items():
            if row["effect"] == "once":
                self._was_allowed(written, task_id)

    def _forked_rightly(self, planned: Planned, fork: Written, look: Look) -> None:
        id, by = fork.execution["id"], fork.execution["idempotency_key"]
        asked, origin = self._forks.get(by), look.executions.get(fork.execution["forked_from"])
        if asked is None or origin is None or asked["execution"] != fork.execution["forked_from"]:
            self.accuse(Law.WRONG, f"{id} is a fork of {fork.execution['forked_from']}, and asked was {asked}")
            return
        before: dict[str, list[Mapping[str, Any]]] = defaultdict(list)
        for line in self._starts_in_order[: asked["line"]]:
            if line["execution"] == asked["execution"]:
                before[line["task"]].append(line)
        starts = {task_id: self._starts[id, task_id] for task_id in fork.steps}
        for fault in ForkJudge(planned, fork, origin, asked).faults(starts, before):
            self.accuse(Law.WRONG, f"{id} (plan {planned.number}), a fork of {asked['execution']}: {fault}")

    def _was_allowed(self, written: Written, task_id: str) -> None:
        """A body that may run once begins again only where it said it had failed, or somebody said: retry."""
        id = written.execution["id"]
        began = sorted(line["attempt"] for line in self._starts[id, task_id])
        failed = {row["number"] for row in written.attempts if row["task_id"] == task_id and row["outcome"] == "failed"}
        changes, decided = Changes(written), decisions(written, task_id)
        # Whoever says that it failed, and lets it run again, or names it for that, has looked as well.
        failed_and_again = min(decided.count("fail"), len(changes.put_back.get(task_id, ())))
        leaves = decided.count("retry") + failed_and_again + changes.named(task_id)
        repeated = [number for number in began[:-1] if number not in failed]
        if len(repeated) > leaves or len(set(began)) < len(began):
            self.accuse(
                Law.REPEATED, f"{id} {task_id} began attempts {began}, {sorted(failed)} failed, {leaves} leaves"
            )

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
        counts["executions deadline"] += written.execution["error_code"] == "deadline"
        for event in written.events:
            counts["pauses"] += event["type"] == "execution.paused"
            counts["retries"] += event["type"] == "substep.retrying" and '"errorCode"' in event["data"]
        for row in written.attempts:
            counts[f"attempts {row['outcome']}"] += 1
        for row in written.questions:
            counts[f"questions {row['kind']}"] += 1
            counts[f"questions {row['outcome']}"] += 1
            counts["edits"] += row["kind"] == "approval" and '"edit"' in (row["answer"] or "")
            counts["rejections"] += row["kind"] == "approval" and '"reject"' in (row["answer"] or "")
        counts["executions retried"] += written.execution["retry_count"]
        counts["overrides"] += sum(row["revision"] for row in written.steps.values())
        counts["forks"] += written.execution["forked_from"] is not None
        counts["steps reused"] += sum(row["reason"] == "reused" for row in written.steps.values())
        counts["executions fail_fast"] += written.execution["error_code"] == "fail_fast"
        counts["timers"] += sum(task.kind == "wait" for task in planned.tasks.values())

    def accuse(self, law: Law, *cases: str) -> None:
        """Add cases against a law."""
        self.violations += (Violation(law, words) for words in cases)


def _number(written: Written) -> int:
    """Return the number of its plan."""
    return int(json.loads(written.execution["labels"])["plan"])


def _origins(written: Written, look: Look) -> list[str]:
    """Return its id, and those that it is a fork of."""
    found: list[str] = []
    at: Written | None = written
    while at is not None:
        found.append(at.execution["id"])
        at = look.executions.get(at.execution["forked_from"] or "")
    return found


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
