"""What holds of every execution in every database at every moment: the laws of the diary, said without the engine.

`read` takes all rows of an execution, `broken` names each law they break. Tests that run plans, that cut the database
off, or that kill processes share them.
"""

from __future__ import annotations

import itertools
import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from dagbok.domain.events import EventType
from dagbok.domain.ids import SYNTHESIS
from dagbok.domain.states import ENDED, EXECUTION_ENDED, STEP_MOVES, StepStatus
from dagbok.store.database import Database
from dagbok.store.schema import attempts, blobs, commands, dag_executions, events, human_inputs, sub_steps

Row = Mapping[str, Any]

#: How an event moves its sub-step. After an answer the step waits for what follows from it.
AFTER = {
    EventType.SUBSTEP_STARTED: StepStatus.RUNNING,
    EventType.SUBSTEP_COMPLETED: StepStatus.COMPLETED,
    EventType.SUBSTEP_FAILED: StepStatus.FAILED,
    EventType.SUBSTEP_RETRYING: StepStatus.PENDING,
    EventType.SUBSTEP_WAITING: StepStatus.WAITING,
    EventType.SUBSTEP_ANSWERED: StepStatus.PENDING,
    EventType.SUBSTEP_SKIPPED: StepStatus.SKIPPED,
    EventType.SUBSTEP_CANCELLED: StepStatus.CANCELLED,
}
#: What is told of a sub-step without moving it.
STILL = {EventType.SUBSTEP_REMINDED, EventType.SUBSTEP_OVERRIDDEN}
_ENDS = {f"execution.{status}" for status in EXECUTION_ENDED}


@dataclass(frozen=True)
class Written:
    """All rows of one execution, from one snapshot; large results joined."""

    execution: Row
    steps: Mapping[str, Row]  # by task id
    events: Sequence[Row]  # in order
    attempts: Sequence[Row]
    questions: Sequence[Row]
    commands: Sequence[Row]

    @property
    def ended(self) -> bool:
        return self.execution["status"] in EXECUTION_ENDED


def read(database: Database, execution_id: str | None = None) -> dict[str, Written]:
    """Return the executions by id, all of them unless one is named, as they were at one moment."""
    with database.reading() as connection:

        def rows(table: sa.Table, *order: sa.Column[Any], of: str = "execution_id") -> list[dict[str, Any]]:
            columns = [column for column in table.c if column.name != "xid"]  # which SQLite does not have
            query = sa.select(*columns).order_by(*order)
            if execution_id is not None:
                query = query.where(table.c[of] == execution_id)
            return [dict(row) for row in connection.execute(query).mappings()]

        found = rows(dag_executions, dag_executions.c.created_at, dag_executions.c.id, of="id")
        parts = [
            _by_execution(rows(sub_steps, sub_steps.c.position)),
            _by_execution(rows(events, events.c.seq)),
            _by_execution(rows(attempts, attempts.c.number)),
            _by_execution(rows(human_inputs, human_inputs.c.id)),
            _by_execution(rows(commands, commands.c.id)),
        ]
        large: dict[tuple[str, str], bytes] = {}
        for row in rows(blobs, blobs.c.chunk):
            key = (row["execution_id"], row["name"])
            large[key] = large.get(key, b"") + bytes(row["data"])
    written = {}
    for row in found:
        id = row["id"]
        own, told, tries, asked, wanted = (part.get(id, []) for part in parts)
        for step in own:
            if step["result"] is None and step["result_bytes"] is not None:
                step["result"] = large.get((id, f"result:{step['task_id']}"), b"(missing)").decode()
        for name in ("final_result", "synthesis_result"):
            row[name] = large[id, name].decode() if (id, name) in large else row[name]
        written[id] = Written(row, {step["task_id"]: step for step in own}, told, tries, asked, wanted)
    return written


def _by_execution(rows: list[dict[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    by: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        by.setdefault(row["execution_id"], []).append(row)
    return by


def broken(written: Written) -> list[str]:
    """Return a sentence for each law that the rows break."""
    id = written.execution["id"]
    laws = (_counters, _status, _order, _diary, _replay, _pauses, _tries, _times, _inbox, _approvals, _dataflow)
    return [f"{id}: {fault}" for law in laws for fault in law(written)]


def _own(written: Written) -> list[Row]:
    """The sub-tasks of the plan: the synthesis is not counted."""
    return [step for task_id, step in written.steps.items() if task_id != SYNTHESIS]


def _counters(written: Written) -> Iterator[str]:
    row, own = written.execution, _own(written)
    if row["total_tasks"] != len(own):
        yield f"total_tasks is {row['total_tasks']}, and there are {len(own)} rows"
    counts = Counter(step["status"] for step in own)
    for status in ("completed", "failed", "skipped", "running", "waiting"):
        if row[f"{status}_tasks"] != counts[status]:
            yield f"{status}_tasks is {row[f'{status}_tasks']}, and {counts[status]} rows are {status}"


def _status(written: Written) -> Iterator[str]:
    row, steps = written.execution, list(written.steps.values())
    status, open_steps = row["status"], [step["task_id"] for step in steps if step["status"] not in ENDED]
    if written.ended:
        if open_steps:
            yield f"it is {status}, and {open_steps} have not ended"
        elif status != "cancelled" and status != (expected := whole(_own(written), written.steps.get(SYNTHESIS))):
            yield f"it is {status}, and its steps make it {expected}"
    elif not open_steps:
        yield f"it is {status}, and all of its steps have ended"
    elif row["paused_at"] is None and (status == "waiting") != any(s["status"] == "waiting" for s in steps):
        yield f"it is {status}, and of its steps wait {[s['task_id'] for s in steps if s['status'] == 'waiting']}"
    elif status == "pending" and any(step["attempt"] for step in steps):
        yield "it is pending, and something has started"


def whole(own: Sequence[Row], synthesis: Row | None = None) -> str:
    """Return the status that steps which have all ended make of an execution nobody cancelled."""
    lost = any(
        step["status"] in ("failed", "cancelled")
        or (step["status"] == "skipped" and step["reason"] == "dependency_failed")
        for step in own
    )
    if not lost:
        return "partial" if synthesis is not None and synthesis["status"] in ("failed", "cancelled") else "completed"
    return "partial" if any(step["status"] == "completed" for step in own) else "failed"


def _order(written: Written) -> Iterator[str]:
    last = written.execution["last_event_seq"]
    numbers = [event["seq"] for event in written.events]
    if numbers != list(range(1, last + 1)):
        gaps = sorted(set(range(1, last + 1)) - set(numbers))
        yield f"its events are not 1..{last}: {len(numbers)} of them, {gaps[:10]} missing"


def _diary(written: Written) -> Iterator[str]:
    """The lines about the execution: created first, started once, and behind an end nothing but a retry."""
    types = [event["type"] for event in written.events]
    for before, after in itertools.pairwise(types):
        if (before in _ENDS) != (after == EventType.EXECUTION_RETRIED):
            yield f"its diary goes from {before} to {after}"
    if types.count(EventType.EXECUTION_RETRIED) != written.execution["retry_count"]:
        yield f"it was retried {written.execution['retry_count']} times, and its diary says otherwise"
    if types[:1] != ["execution.created"] or types.count("execution.created") != 1:
        yield f"its diary does not begin with execution.created, once: {types[:2]}"
    if types.count("execution.started") > 1:
        yield "it was started twice"
    ends = [type for type in types[-1:] if type in _ENDS]
    expected = [f"execution.{written.execution['status']}"] if written.ended else []
    if ends != expected:
        yield f"it is {written.execution['status']}, and its diary ends it by {ends}"


def _replay(written: Written) -> Iterator[str]:
    """The diary moves each step legally, to where its row stands."""
    told = {event["task_id"] for event in written.events}
    forked = written.execution["forked_from"] is not None
    at = {
        id: StepStatus(row["status"]) if forked and id not in told and _came_finished(row) else StepStatus.PENDING
        for id, row in written.steps.items()
    }
    for event in written.events:
        if event["data"] is not None:
            json.loads(event["data"])
        if event["task_id"] is None or event["type"] in STILL:
            continue
        before, after = at[event["task_id"]], AFTER[EventType(event["type"])]
        if after not in STEP_MOVES[before]:
            yield f"{event['task_id']}: event {event['seq']} moves it from {before} to {after}"
        at[event["task_id"]] = after
    for task_id, status in at.items():
        if written.steps[task_id]["status"] != status:
            yield f"{task_id}: its row says {written.steps[task_id]['status']}, its diary {status}"


def _came_finished(row: Row) -> bool:
    """Whether a fork has the step from its origin."""
    return row["attempt"] == 0 and (
        row["reason"] == "reused" or (row["status"], row["reason"]) == ("skipped", "chosen")
    )


def _approvals(written: Written) -> Iterator[str]:
    """What has asked whether it may run does not begin before somebody has said yes, and then asks no more."""
    asked: set[str] = set()
    granted: set[str] = set()
    for event in written.events:
        task_id, type, data = event["task_id"], event["type"], json.loads(event["data"] or "{}")
        if type == EventType.SUBSTEP_WAITING and data["kind"] == "approval":
            asked.add(task_id)
            if task_id in granted:
                yield f"{task_id}: event {event['seq']} asks again for what was approved"
        elif type == EventType.SUBSTEP_ANSWERED and data.get("decision") in ("approve", "edit"):
            asked.discard(task_id)
            granted.add(task_id)
        elif type == EventType.SUBSTEP_STARTED and task_id in asked:
            yield f"{task_id}: event {event['seq']} begins what nobody has let run"
        elif data.get("kind") == "did_it_happen" or (
            type == EventType.SUBSTEP_RETRYING and data.get("reason") == "retry"
        ):
            granted.discard(task_id)


def _pauses(written: Written) -> Iterator[str]:
    """Nothing begins while it is paused, and its row says whether it is."""
    paused = False
    for event in written.events:
        if event["type"] == EventType.EXECUTION_PAUSED:
            paused = True
        elif event["type"] == EventType.EXECUTION_RESUMED and "by" in json.loads(event["data"] or "{}"):
            paused = False  # without the name it only says that nobody has to answer any more
        elif event["type"] in _ENDS:
            paused = False  # whoever retries it wants it to go on
        elif paused and event["type"] == EventType.SUBSTEP_STARTED:
            yield f"{event['task_id']}: event {event['seq']} begins an attempt while it is paused"
    if not written.ended and paused != (written.execution["paused_at"] is not None):
        yield f"its diary makes it {'paused' if paused else 'go on'}, and its row says {written.execution['paused_at']}"


def _tries(written: Written) -> Iterator[str]:
    """Attempts are numbered from 1 on, each started once; those that did not end well have a row, and no others."""
    started: dict[str, list[int]] = {}
    for event in written.events:
        if event["type"] == EventType.SUBSTEP_STARTED:
            started.setdefault(event["task_id"], []).append(json.loads(event["data"])["attempt"])
    rows: dict[str, set[int]] = {}
    for row in written.attempts:
        rows.setdefault(row["task_id"], set()).add(row["number"])
    for task_id, step in written.steps.items():
        last, own = step["attempt"], rows.get(task_id, set())
        if started.get(task_id, []) != list(range(1, last + 1)):
            yield f"{task_id}: at attempt {last}, and started as {started.get(task_id, [])}"
        well = {SYNTHESIS} & {task_id} if written.execution["retry_count"] else set()  # which runs again in any case
        if not (well or set(range(1, last)) <= own) or not own <= set(range(1, last + 1)):
            yield f"{task_id}: at attempt {last}, and the attempts that did not end well are {sorted(own)}"
        if step["status"] == "running" and last in own:
            yield f"{task_id}: runs attempt {last}, whose end is written already"
        if step["status"] == "failed" and last and last not in own:
            yield f"{task_id}: failed, and its last attempt did not"


def _times(written: Written) -> Iterator[str]:
    """No attempt begins before the back-off of the one before is over, and a timer rings when it should.

    Loops and the diary count whole milliseconds, each from where its own began.
    """
    not_before: dict[str, int] = {}
    for event in written.events:
        if event["type"] == EventType.SUBSTEP_RETRYING:
            not_before[event["task_id"]] = event["at"] + json.loads(event["data"]).get("delayMs", 0)
        elif event["type"] == EventType.SUBSTEP_STARTED:
            early_ms = not_before.get(event["task_id"], 0) - event["at"]
            if early_ms > 2:
                yield f"{event['task_id']}: began {early_ms} ms before its back-off was over"
    for task_id, step in written.steps.items():
        if step["tool_or_prompt_name"] == "wait" and step["status"] == "completed" and step["error_code"] is None:
            seconds, waited_ms = (
                json.loads(step["tool_or_prompt_params"])["seconds"],
                step["completed_at"] - step["started_at"],
            )
            if isinstance(seconds, int | float) and waited_ms < seconds * 1000 - 2:
                yield f"{task_id}: was to wait {seconds} s, and waited {waited_ms} ms"


def _inbox(written: Written) -> Iterator[str]:
    """A step waits as long as exactly one question of it is open; its questions are numbered from 1 on."""
    for task_id, step in written.steps.items():
        asked = [row for row in written.questions if row["task_id"] == task_id]
        open_ones = [row["number"] for row in asked if row["closed_at"] is None]
        if len(open_ones) != (step["status"] == "waiting"):
            yield f"{task_id}: is {step['status']}, and its open questions are {open_ones}"
        if [row["number"] for row in asked] != list(range(1, len(asked) + 1)):
            yield f"{task_id}: its questions are numbered {[row['number'] for row in asked]}"


def _dataflow(written: Written) -> Iterator[str]:
    """Nothing has begun before all that it depends on was done."""
    steps = written.steps
    for task_id, step in steps.items():
        parents = json.loads(step["dependencies"])
        lost = [parent for parent in parents if not done(steps[parent])]
        if lost and (step["attempt"] or step["status"] not in ("pending", "skipped", "cancelled")):
            yield f"{task_id}: is {step['status']} at attempt {step['attempt']}, and {lost} are not done"
    # Its attempts may be of before a retry, for which it was put back.
    if (last := steps.get(SYNTHESIS)) is not None and last["status"] in ("running", "completed", "failed"):
        lost = [step["task_id"] for step in _own(written) if step["status"] not in ENDED]
        if lost:
            yield f"the synthesis has begun, and {lost} have not ended"


def done(step: Row) -> bool:
    """Whether what depends on this step may start."""
    return bool(step["status"] == "completed" or (step["status"] == "skipped" and step["reason"] == "chosen"))
