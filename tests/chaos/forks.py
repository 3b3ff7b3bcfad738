"""What a fork has to have taken over from its origin, and what has to run in it: the judge's own account."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import laws
from chaos.changes import Changes
from chaos.plans import Planned
from laws import Row, Written

#: What has been committed so long before somebody asks is seen.
_LAG_MS = 1_000
#: What of a sub-step is taken over.
_TAKEN = ("status", "result", "error", "error_code", "input", "started_at", "completed_at", "duration_ms")

Line = Mapping[str, Any]


class ForkJudge:
    """Judges one fork."""

    def __init__(self, planned: Planned, fork: Written, origin: Written, asked: Line) -> None:
        """Take its plan, the rows of both, and the line in which somebody first asked for it."""
        self._planned, self._fork, self._origin, self._asked = planned, fork, origin, asked
        self._created_at: int = fork.execution["created_at"]
        self._changes = Changes(origin)
        self._began = {event["task_id"] for event in fork.events if event["type"] == "substep.started"}
        self.reused = taken_over(fork)

    def faults(
        self, starts: Mapping[str, Sequence[Line]], origin_starts: Mapping[str, Sequence[Line]]
    ) -> Iterator[str]:
        """Yield a sentence for each thing that is not as it has to be.

        Args:
            starts: By task, the lines in which its bodies began in the fork.
            origin_starts: Those of its origin that were written before somebody asked for the fork.
        """
        created = json.loads(self._fork.events[0]["data"] or "{}")
        told = (created.get("forkedFrom"), created.get("fromTask"), created.get("reused"))
        if told != (self._origin.execution["id"], self._asked["from_task"], len(self.reused)):
            yield f"its diary begins with {created}; it has taken over {len(self.reused)}, and {self._asked} was asked"
        for task_id in self.reused:
            if starts.get(task_id) or task_id in self._began:
                yield f"{task_id} was taken over, and ran"
            if self._fork.steps[task_id]["attempt"]:
                yield f"{task_id} was taken over, and is at attempt {self._fork.steps[task_id]['attempt']}"
            was, row = self._origin.steps[task_id], self._fork.steps[task_id]
            if differing := [name for name in _TAKEN if was[name] != row[name]]:
                yield f"{task_id} was taken over, and {differing} differ"
        yield from self._params()
        may = self._closed(self._created_at)
        must = self._closed(self._asked["at"] - _LAG_MS) if self._asked["ended"] else set()
        if not must <= self.reused <= may:
            yield f"took over {sorted(self.reused)}: too few {sorted(must - self.reused)}, too many {self.reused - may}"
        for task_id in self._planned.tasks:
            if starts.get(task_id) and self._is_in_doubt(task_id, origin_starts.get(task_id, ())):
                yield f"{task_id} may have happened in its origin, and ran before somebody was asked"

    def _closed(self, at_ms: float) -> set[str]:
        """Return what had finished in the origin by then, has not changed, and stands on nothing else."""
        found: set[str] = set()
        for task_id, task in self._planned.tasks.items():  # parents come first
            row = self._origin.steps[task_id]
            finished = laws.done(row) and row["completed_at"] <= at_ms
            if finished and found.issuperset(task.parents) and not self._is_changed(task_id):
                found.add(task_id)
        return found

    def _is_changed(self, task_id: str) -> bool:
        return task_id == self._asked["from_task"] or task_id in self._asked["overrides"]

    def _params(self) -> Iterator[str]:
        """What the fork is to call is what was asked for, else what its origin called."""
        for task_id, row in self._fork.steps.items():
            if task_id not in self._planned.tasks:
                continue
            found = (row["tool_or_prompt_name"], json.loads(row["tool_or_prompt_params"]))
            allowed = self._calls(task_id)
            asked = self._asked["overrides"].get(task_id)
            if asked is not None:
                allowed = [(asked.get("tool", tool), asked["params"]) for tool, _ in allowed]
            if found not in allowed:
                yield f"{task_id} calls {found}, and is to call one of {allowed}"

    def _calls(self, task_id: str) -> list[tuple[str, Any]]:
        """Return what the origin may have called by then: others may have changed it at that very moment."""
        was: Row = self._origin.steps[task_id]
        tool, params = was["tool_or_prompt_name"], json.loads(was["tool_or_prompt_params"])
        found = [(tool, params)]
        for change in self._changes.of(task_id):
            if "edited" not in change.said:
                tool, params = change.said.get("tool", tool), change.said.get("params", params)
                found.append((tool, params))
        return found

    def _is_in_doubt(self, task_id: str, before: Sequence[Line]) -> bool:
        """Whether a `once` step had begun in the origin, nobody knew what it had done, and nobody asks in the fork.

        Said only where it is certain: what the origin wrote in the very moment of the fork may have been seen or not.
        """
        row, task = self._origin.steps[task_id], self._planned.tasks[task_id]
        if row["effect"] != "once" or not before or self._is_changed(task_id):
            return False
        if not self.reused.issuperset(task.parents) or task_id in self._changes.put_back:
            return False
        attempt = before[-1]["attempt"]
        outcomes = {r["outcome"] for r in self._origin.attempts if (r["task_id"], r["number"]) == (task_id, attempt)}
        asked = [q for q in self._origin.questions if q["task_id"] == task_id and q["kind"] == "did_it_happen"]
        about = [q for q in asked if json.loads(q["shown"])["attempt"] == attempt and q["answer"] is not None]
        if "failed" in outcomes or any(q["closed_at"] < self._created_at for q in about):
            return False  # somebody knew
        here = [q for q in self._fork.questions if q["task_id"] == task_id and q["kind"] == "did_it_happen"]
        return not any(q["number"] == 1 for q in here)


def taken_over(fork: Written) -> set[str]:
    """Return what a fork has from its origin: nothing has happened to it here."""
    if fork.execution["forked_from"] is None:
        return set()
    told = {event["task_id"] for event in fork.events}
    return {
        id
        for id, row in fork.steps.items()
        if row["reason"] == "reused" or (row["reason"] == "chosen" and id not in told)
    }
