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
from chaos.endings import Ending, decisions
from chaos.looks import Look
from chaos.plans import Planned
from chaos.violations import Law, Violation
from dagbok.domain.states import ENDED
from laws import Written

Step = tuple[str, str]  # execution, task

#: What the side log calls an accepted command, and what the database does.
_ACCEPTED = {"answered": "answer", "cancelled": "cancel", "paused": "pause", "resumed": "resume"}


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
        self._ends: dict[Step, list[Mapping[str, Any]]] = defaultdict(list)
        self._ended: dict[Step, tuple[str, str]] = {}  # what stood in the row of a step when it was first seen ended
        self._deadlines: dict[str, int | None] = {}
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
            return
        for (execution, kind), accepted in self._commands.items():
            found = sum(row["kind"] == kind for row in look.executions[execution].commands)
            if found < accepted:
                self.accuse(Law.LOST, f"{execution}: of {accepted} accepted commands to {kind} it {found} are there")
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
            elif what in _ACCEPTED:
                self._commands[line["execution"], _ACCEPTED[what]] += 1
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
        id, deadline_at = written.execution["id"], written.execution["deadline_at"]
        if self._deadlines.setdefault(id, deadline_at) != deadline_at:
            self.accuse(Law.CHANGED, f"{id} had the deadline {self._deadlines[id]}, and has {deadline_at}")
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
        ends = {task_id: self._ends[id, task_id] for task_id in written.steps}
        for fault in Ending(planned, written, ends).faults():
            self.accuse(Law.WRONG, f"{id} (plan {planned.number}): {fault}")
        for task_id, row in written.steps.items():
            if row["effect"] == "once":
                self._was_allowed(written, task_id)

    def _was_allowed(self, written: Written, task_id: str) -> None:
        """A body that may run once begins again only where it said it had failed, or somebody said: retry."""
        id = written.execution["id"]
        began = sorted(line["attempt"] for line in self._starts[id, task_id])
        failed = {row["number"] for row in written.attempts if row["task_id"] == task_id and row["outcome"] == "failed"}
        leaves = sum(decision == "retry" for decision in decisions(written, task_id))
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
        counts["timers"] += sum(task.kind == "wait" for task in planned.tasks.values())

    def accuse(self, law: Law, *cases: str) -> None:
        """Add cases against a law."""
        self.violations += (Violation(law, words) for words in cases)


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
