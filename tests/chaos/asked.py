"""What people were asked in one execution, and what became of that: the judge's account of questions and approvals."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from chaos.changes import Changes
from chaos.plans import Planned, Task
from laws import Row, Written

#: A time in milliseconds, and one that was rounded.
_ROUNDED_MS = 2


class Asked:
    """Judges the questions of one execution."""

    def __init__(self, planned: Planned, written: Written, lines: Sequence[Mapping[str, Any]]) -> None:
        """Take its plan, its rows, and what the side log tells of the answers that were accepted or misplaced."""
        self._planned, self._written, self._lines = planned, written, lines
        self._changes = Changes(written)
        self._rows = {(row["task_id"], row["number"]): row for row in written.questions}
        self._closing: dict[str, list[Row]] = {}  # by question, as "TASK#NUMBER"
        for row in written.commands:
            if row["kind"] in ("answer", "expire"):
                self._closing.setdefault(row["wait"] or "", []).append(row)

    def faults(self) -> Iterator[str]:
        """Yield a sentence for each thing that is not as it has to be."""
        for wait, rows in self._closing.items():
            if not wait or len(rows) > 1:
                yield f"question {wait or '(none)'} was closed by {[(row['kind'], row['by']) for row in rows]}"
        for row in self._written.questions:
            for fault in self._outcome(row):
                yield f"question {row['number']} of {row['task_id']} ({row['kind']}): {fault}"
        for line in self._lines:
            yield from self._accepted(line)
        for task in self._planned.tasks.values():
            for fault in (*self._often(task), *self._approvals(task)):
                yield f"{task.id} ({task.kind}): {fault}"

    def _outcome(self, row: Row) -> Iterator[str]:
        """A question has one outcome, and somebody or its time has brought that."""
        commands = self._closing.get(f"{row['task_id']}#{row['number']}", [])
        how = [command["kind"] for command in commands]
        if row["closed_at"] is None:
            return
        if row["outcome"] == "answered":
            if how != ["answer"] or commands[0]["by"] != row["answered_by"]:
                yield f"was answered by {row['answered_by']}, and the commands are {how}"
        elif row["outcome"] == "timed_out":
            if how != ["expire"]:
                yield f"its time was over, and the commands are {how}"
            task = self._planned.tasks[row["task_id"]]
            if task.timeout_s is None or task.on_timeout == "remind" or row["closed_at"] < row["due_at"]:
                yield f"was closed at {row['closed_at']} because its time was over, and that is {row['due_at']}"
        elif row["outcome"] == "cancelled":
            ends = {e["at"] for e in self._written.events if e["task_id"] is None and e["type"] != "execution.created"}
            if row["closed_at"] not in ends:
                yield "was closed with its execution, which did not end then"
        else:
            yield f"has the outcome {row['outcome']}"

    def _accepted(self, line: Mapping[str, Any]) -> Iterator[str]:
        """What was accepted counts, unless the execution ended first; what was misplaced met another question."""
        task_id, by = line["task"], line["by"]
        if line["what"] == "misplaced":
            row = self._rows.get((task_id, line["question"]))
            if row is None or row["closed_at"] is None:
                yield f"an answer of {by} to {task_id} was refused: {line['message']}"
            return
        waits = [row["wait"] for row in self._written.commands if row["kind"] == "answer" and row["by"] == by]
        if len(waits) != 1 or waits[0] is None:
            yield f"an answer of {by} to {task_id} was accepted, and became {waits}"
            return
        row = self._rows.get((task_id, int(waits[0].rpartition("#")[2])))
        if row is None or row["closed_at"] is None:
            if self._written.ended:
                yield f"an answer of {by} to {waits[0]} was accepted, and the question is not closed"
        elif row["outcome"] != "cancelled" and (row["outcome"], row["answered_by"]) != ("answered", by):
            yield f"an answer of {by} to {waits[0]} was accepted; it is {row['outcome']} by {row['answered_by']}"

    def _often(self, task: Task) -> Iterator[str]:
        """Nobody is asked twice for the same."""
        asked = Counter(row["kind"] for row in self._written.questions if row["task_id"] == task.id)
        again = len(self._changes.put_back.get(task.id, ()))
        allowed = {"human": 1 + again if task.kind == "human" else 0}
        decided = [row for row in self._written.questions if row["task_id"] == task.id]
        retries = sum(_decision(row) == "retry" for row in decided)
        allowed["approval"] = 1 + again + retries if task.approval else 0
        for kind, most in allowed.items():
            if asked[kind] > most:
                yield f"asked {asked[kind]} times ({kind}), and at most {most} times there was a reason to"
        for row in decided:
            if row["due_at"] is not None and not row["reminders"]:
                given_ms = row["due_at"] - row["asked_at"]
                if task.timeout_s is None or abs(given_ms - task.timeout_s * 1000) > _ROUNDED_MS:
                    yield f"a person was given {given_ms} ms, and has {task.timeout_s} s"

    def _approvals(self, task: Task) -> Iterator[str]:
        """What has to be approved begins only after that."""
        if not task.approval:
            return
        granted = False
        for event in self._written.events:
            if event["task_id"] != task.id:
                continue
            data = json.loads(event["data"] or "{}")
            if event["type"] == "substep.answered":
                granted = data.get("kind") == "approval" and data.get("decision") in ("approve", "edit")
            elif event["type"] == "substep.retrying" and data.get("reason") == "retry":
                granted = False
            elif event["type"] == "substep.started" and not granted:
                yield f"event {event['seq']} begins it, and nobody has let it run"


def approved(written: Written, task_id: str) -> bool:
    """Whether somebody has let a task run, at some time."""
    rows = [row for row in written.questions if row["task_id"] == task_id and row["kind"] == "approval"]
    return any(_decision(row) in ("approve", "edit") for row in rows)


def rejected(written: Written, task_id: str) -> bool:
    """Whether the last word about whether a task may run was no."""
    rows = [row for row in written.questions if row["task_id"] == task_id and row["kind"] == "approval"]
    return bool(rows) and _decision(rows[-1]) == "reject"


def _decision(row: Row) -> str | None:
    if row["answer"] is None or row["kind"] == "human":
        return None
    decision: str | None = json.loads(row["answer"]).get("decision")
    return decision
