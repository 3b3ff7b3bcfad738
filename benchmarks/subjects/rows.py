"""The rows that Dagbok writes for a run in which nothing goes wrong, grouped as well as a graph allows.

One commit for all submissions, then one for each level of the graph: its starts, results, counters and events. That is
the least number of commits in which a task starts after its parents are durable. A test compares the tables that come
of it with those of Dagbok, and which columns an update writes.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import uuid_utils

from benchmarks.workloads import RESULT, Graph, Unit
from dagbok.domain.records import HeaderRow, NewStep
from dagbok.domain.states import ExecutionStatus, StepStatus
from dagbok.store.statements import COUNTERS, EXECUTION_COLUMNS, PLAIN
from dagbok.submitting import plan_hash

Row = tuple[Any, ...]

#: More tasks of a level than this make more commits of it, as no engine holds everything in memory.
LARGEST = 10_000

PLAN = ("hash", "document", "created_at")
DAG = ("id", "title", "status", "plan_hash", "revision", "created_at", "updated_at")
STEP = (*NewStep._fields, "id", "execution_id", "status", "attempt", "revision", "created_at", "updated_at")
EVENT = ("seq", "type", "task_id", "at", "data", "execution_id")
#: What an update sets, and then what it finds its row by.
HEADER_SET = (*HeaderRow._fields, "last_event_seq", "owner")
COUNTERS_SET = (*COUNTERS, "last_event_seq")
HEADER_KEY = ("id", "epoch")
STEP_SET = (*(name for name in PLAIN if name != "task_id"), "result", "result_bytes")
STEP_KEY = ("execution_id", "task_id")


@dataclass
class Group:
    """What one commit writes."""

    inserts: dict[str, tuple[Sequence[str], list[Row]]] = field(default_factory=dict)  #: by table: columns and rows
    headers: list[Row] = field(default_factory=list)  #: of executions that begin or end
    counters: list[Row] = field(default_factory=list)  #: of those of which only these move
    steps: list[Row] = field(default_factory=list)


def groups(unit: Unit, run: int) -> list[Group]:
    """Return what to commit, in order, in one of several runs."""
    now = int(time.time() * 1000)
    plans = {plan_hash(plan): plan for plan in unit.plans(run)}
    executions = [_Execution(unit.graph, plan["original_request"], key, now) for key, plan in plans.items()]
    submissions: dict[str, tuple[Sequence[str], list[Row]]] = {
        "plans": (PLAN, [(key, _text(plan), now) for key, plan in plans.items()]),
        "dags": (DAG, [each.dag for each in executions]),
        "dag_executions": (EXECUTION_COLUMNS, [each.row for each in executions]),
        "sub_steps": (STEP, [row for each in executions for row in each.new_steps()]),
        "events": (EVENT, [each.event("execution.created") for each in executions]),
    }
    made = [Group(submissions)]
    for level in unit.graph.levels():
        for first in range(0, len(level), LARGEST):
            group = Group()
            events: list[Row] = []
            for each in executions:
                each.run(level[first : first + LARGEST], group, events)
            group.inserts["events"] = (EVENT, events)
            made.append(group)
    return made


def _text(value: Any) -> str:
    return json.dumps(value, separators=(",", ":"))


_RESULT = _text(RESULT)


class _Execution:
    """One execution, as far as it has come."""

    def __init__(self, graph: Graph, request: str, key: str, now: int) -> None:
        self._graph = graph
        self._now = now
        self._seq = 0
        self._done = 0
        self.id = f"dag-exec_{uuid_utils.uuid7()}"
        dag_id = f"dag_{uuid_utils.uuid7()}"
        self.dag: Row = (dag_id, request, "ready", key, 1, now, now)
        values = {
            "id": self.id, "dag_id": dag_id, "plan_hash": key, "title": request, "original_request": request,
            "primary_intent": "benchmark", "status": ExecutionStatus.PENDING.value, "total_tasks": len(graph.parents),
            "epoch": 1, "owner": "raw", "last_event_seq": 1, "created_at": now, "updated_at": now,
        }  # fmt: skip
        counters = ("duration_ms", "retry_count", "priority")
        zeros = {name: 0 for name in EXECUTION_COLUMNS if name.endswith("_tasks") or name in counters}
        self.row: Row = tuple((zeros | values).get(name) for name in EXECUTION_COLUMNS)

    def new_steps(self) -> Iterator[Row]:
        """Return the sub-steps as they are submitted."""
        now = self._now
        for position, (task, above) in enumerate(self._graph.parents.items()):
            step = NewStep(task, position, "", "", "tool", "noop", "{}", "", _text(list(above)), "pure")  # type: ignore[arg-type]  # ids are NewTypes
            yield (*step, f"sub-step_{uuid_utils.uuid7()}", self.id, StepStatus.PENDING.value, 0, 0, now, now)

    def event(self, type: str, task: str | None = None, data: Any = None) -> Row:
        """Return the next event."""
        self._seq += 1
        return (self._seq, type, task, self._now, None if data is None else _text(data), self.id)

    def run(self, tasks: Sequence[str], group: Group, events: list[Row]) -> None:
        """Add that `tasks` started and completed."""
        now, total = self._now, len(self._graph.parents)
        begins = not self._done
        if begins:
            events.append(self.event("execution.started"))
        events += [self.event("substep.started", task, {"attempt": 1, "tool": "noop"}) for task in tasks]
        size = len(_RESULT)
        ended = {"attempt": 1, "durationMs": 0, "resultBytes": size}
        events += [self.event("substep.completed", task, ended) for task in tasks]
        changed = {
            "status": StepStatus.COMPLETED.value, "attempt": 1, "result": _RESULT, "started_at": now,
            "completed_at": now, "duration_ms": 0, "updated_at": now, "result_bytes": size,
        }  # fmt: skip
        values = tuple(changed[name] for name in STEP_SET)
        group.steps += [(*values, self.id, task) for task in tasks]
        self._done += len(tasks)
        over = self._done == total
        if over:
            ended = {"completed": total, "failed": 0, "skipped": 0, "cancelled": 0, "durationMs": 0}
            events.append(self.event("execution.completed", None, ended))
        header = dict.fromkeys((name for name in HEADER_SET if name.endswith("_tasks")), 0) | {
            "status": (ExecutionStatus.COMPLETED if over else ExecutionStatus.RUNNING).value, "started_at": now,
            "completed_at": now if over else None, "duration_ms": 0, "completed_tasks": self._done,
            "final_result": _RESULT if over else None, "retry_count": 0, "updated_at": now,
            "last_event_seq": self._seq, "owner": None if over else "raw",
        }  # fmt: skip
        names, rows = (HEADER_SET, group.headers) if begins or over else (COUNTERS_SET, group.counters)
        rows.append((*(header.get(name) for name in names), self.id, 1))
