"""What a step is called with in place of what its plan says, as people have said it: edits and overrides.

The commands hold what was said, the diary what came of it, the side log what the bodies were given.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from chaos.plans import Task
from laws import Row, Written


@dataclass(frozen=True)
class Change:
    """One line of the diary that says so."""

    by: str
    revision: int
    said: Mapping[str, Any]  # params, tool; edited


class Changes:
    """Those of one execution."""

    def __init__(self, written: Written) -> None:
        self._written = written
        self._of: dict[str, list[Change]] = {}
        self.put_back: dict[str, list[int]] = {}  # by task, the attempts that it had when somebody let it run again
        self.retried: list[str] = []  # who did
        for event in written.events:
            data = json.loads(event["data"] or "{}")
            if event["type"] == "substep.overridden":
                said = {name: data[name] for name in ("params", "tool", "edited") if name in data}
                self._of.setdefault(event["task_id"], []).append(Change(data["by"], data["revision"], said))
            elif event["type"] == "substep.retrying" and data.get("reason") == "retry":
                self.put_back.setdefault(event["task_id"], []).append(data["attempt"])
            elif event["type"] == "execution.retried":
                self.retried.append(data["by"])

    def of(self, task_id: str) -> list[Change]:
        """Return those of a task, in order."""
        return self._of.get(task_id, [])

    def since(self, task_id: str) -> int:
        """Return the attempt that a task had when it was let run again for the last time; 0: it never was."""
        return self.put_back.get(task_id, [0])[-1]

    def named(self, task_id: str) -> int:
        """Return how often a task was let run again by its name: whoever did has looked what it had done."""
        asked = [self._said[by] for by in self.retried if by in self._said]
        return sum(task_id in (said.get("steps") or ()) for said in asked)

    def called(self, task: Task, revision: int | None = None) -> tuple[Task, str]:
        """Return a task as it is called since the n-th change (None: the last), and the name of the tool."""
        row = self._written.steps[task.id]
        tool: str = row["tool_or_prompt_name"]
        if task.kind != "work":
            return task, tool
        now = task.called(json.loads(row["tool_or_prompt_params"]))  # of a fork: with what was different in it
        for change in self.of(task.id):
            if revision is not None and change.revision > revision:
                break
            tool = change.said.get("tool", tool)
            if "params" in change.said:
                now = task.called(change.said["params"])
            elif "edited" in change.said:
                now = now.called(change.said["edited"], edited=True)
        return now, tool

    @cached_property
    def _said(self) -> dict[str, Mapping[str, Any]]:
        return {row["by"]: json.loads(row["data"]) for row in self._written.commands if row["by"] is not None}

    def faults(self) -> Iterator[str]:
        """Yield a sentence for each change that nobody asked for, and each that was asked for and is not there."""
        expected: dict[str, list[tuple[str, Mapping[str, Any]]]] = {}
        for by in self.retried:
            if by not in self._said:
                yield f"it was retried by {by}, and nobody asked for that"
                continue
            for task_id, override in (self._said[by].get("overrides") or {}).items():
                said = {name: override[name] for name in ("params", "tool") if name in override}
                expected.setdefault(task_id, []).append((by, said))
        for question in self._written.questions:
            if (edited := edited_by(question)) is not None:
                expected.setdefault(question["task_id"], []).append((question["answered_by"], {"edited": edited}))
        for task_id, row in self._written.steps.items():
            changes = self.of(task_id)
            found = sorted((change.by, json.dumps(change.said, sort_keys=True)) for change in changes)
            asked = sorted((by, json.dumps(said, sort_keys=True)) for by, said in expected.get(task_id, ()))
            if found != asked:
                yield f"{task_id}: what is called was changed as {found}, and people said {asked}"
            if [change.revision for change in changes] != list(range(1, row["revision"] + 1)):
                yield f"{task_id}: is revision {row['revision']}, changed as {[c.revision for c in changes]}"
            if row["reason"] == "reused":
                continue  # its override, if it has one, is that of its origin
            standing: dict[str, Any] = {}
            for change in changes:
                kept = {} if "params" not in change.said else {n: v for n, v in standing.items() if n == "tool"}
                standing = {**(kept if "params" in change.said else standing), **change.said}
            if json.loads(row["override"] or "{}") != standing:
                yield f"{task_id}: {row['override']} stands over its plan, and people said {standing}"


def edited_by(question: Row) -> Mapping[str, Any] | None:
    """Return the params that a person gave with an approval."""
    if question["kind"] != "approval" or question["answer"] is None:
        return None
    params: Mapping[str, Any] | None = json.loads(question["answer"]).get("params")
    return params
