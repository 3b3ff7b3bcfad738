"""What one commit writes, as rows for the driver: many executions, one list per statement.

Here large values leave their columns for `blobs`, and the database's constraints meet the records. A batch is made of
items in the order of their execution ids, so that two writers on PostgreSQL lock rows in one order and hardly ever wait
for each other in a circle, which the server would break, and the commit be repeated.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, MutableMapping, Sequence
from dataclasses import dataclass
from operator import itemgetter
from typing import Any, Final

import uuid_utils

from dagbok.domain import values
from dagbok.domain.ids import FIRST_EPOCH, DagId, Epoch, ExecutionId, TaskId
from dagbok.domain.records import Changes, HeaderRow, NewExecution, StepRow
from dagbok.domain.states import ExecutionStatus, StepStatus
from dagbok.domain.values import JsonText
from dagbok.store.schema import BLOB_CHUNK_BYTES
from dagbok.store.statements import COUNTERS, PLAIN, Statements
from dagbok.store.writer import Writer

#: No UTF-8 of so few characters is larger than a chunk; asked before any bytes are counted.
_SURELY_INLINE: Final = BLOB_CHUNK_BYTES // 4
#: So many characters of a result at most are handed to the database together with others.
_SMALL: Final = 4096

FINAL_RESULT: Final = "final_result"
SYNTHESIS_RESULT: Final = "synthesis_result"

Row = tuple[Any, ...]


@dataclass(slots=True)
class Rows:
    """What the journal knows of the rows of an execution that it writes."""

    epoch: Epoch  #: of the owner for whom it is known; of another's rows nothing is
    blobs: set[str]  #: the names of its blobs, or more: what a new value may have to remove
    #: The sub-steps that have, or had, more than `PLAIN` columns; None: any of them may, somebody else wrote them.
    full: set[TaskId] | None = None
    #: What its header held in the last commit, but for the counters; None: it is not known.
    header: Row | None = None


Known = MutableMapping[ExecutionId, Rows]

_plain: Final = itemgetter(*(StepRow._fields.index(name) for name in PLAIN))
_OTHERS: Final = [name for name in StepRow._fields if name not in (*PLAIN, "result")]
_others: Final = itemgetter(*(StepRow._fields.index(name) for name in _OTHERS))
_NOTHING: Final = tuple(0 if name == "revision" else None for name in _OTHERS)
_counters: Final = itemgetter(*(HeaderRow._fields.index(name) for name in COUNTERS))
_beside_counters: Final = itemgetter(*(n for n, name in enumerate(HeaderRow._fields) if name not in COUNTERS))


class FenceBroken(Exception):
    """Fewer rows than expected were there: an owner changed, or a new row exists already. Roll back and settle."""


class MissingRow(Exception):
    """The changes name a sub-step or command that the execution does not have."""


@dataclass(frozen=True, slots=True)
class Created:
    """What became of a submission."""

    execution_id: ExecutionId
    dag_id: DagId
    existing: bool  #: its idempotency key was used before; the ids are those of then, and nothing was written
    request_hash: str | None  #: of the request that is stored; another than the caller's means another request


@dataclass(frozen=True, slots=True)
class Append:
    """Changes that wait for their commit."""

    changes: Changes
    future: asyncio.Future[None]

    @property
    def execution_id(self) -> ExecutionId:
        return self.changes.execution_id


@dataclass(frozen=True, slots=True)
class Create:
    """A new execution that waits for its commit."""

    new: NewExecution
    future: asyncio.Future[Created]

    @property
    def execution_id(self) -> ExecutionId:
        return self.new.id


Item = Append | Create


def size(item: Item) -> tuple[int, int]:
    """Return about how many rows and characters `item` writes, to bound a batch."""
    if isinstance(item, Create):
        rows, chars = (0, 0) if item.new.start is None else _size(item.new.start)
        return 3 + len(item.new.steps) + rows, len(item.new.plan) + chars
    return _size(item.changes)


def _size(changes: Changes) -> tuple[int, int]:
    rows = 1 + len(changes.steps) + len(changes.events) + len(changes.attempts) + len(changes.questions)
    header = changes.header
    chars = len(header.final_result or "") + len(header.synthesis_result or "")
    return rows, chars + sum(len(step.result or "") + len(step.input or "") for step in changes.steps)


def write(writer: Writer, statements: Statements, items: Sequence[Item], known: Known) -> None:
    """Write `items` inside the writer's transaction.

    Raises:
        FenceBroken: The first statement found other owners or event numbers than the items expect.
        MissingRow, or an error of the driver: The data of some item is at fault, or the database is away.
    """
    appends = [item.changes for item in items if isinstance(item, Append)]
    creates = [item.new for item in items if isinstance(item, Create)]
    events: list[Row] = []
    if appends:
        _append(writer, statements, appends, known, events)
    if creates:
        _create(writer, statements, creates, events)
        for new in creates:
            known[new.id] = Rows(FIRST_EPOCH, set(), set())
        if starts := [new.start for new in creates if new.start is not None]:
            _append(writer, statements, starts, known, events)
    writer.run(statements.event, events)


def _append(
    writer: Writer, statements: Statements, appends: Sequence[Changes], known: Known, events: list[Row]
) -> None:
    large: list[tuple[ExecutionId, str, bytes]] = []
    headers: list[Row] = []
    counters: list[Row] = []
    for changes in appends:
        if _only_counts(changes, _known(changes, known)):
            counters.append((*_counters(changes.header), *_fence(changes)))
        else:
            headers.append((*_header(changes, large), changes.release, *_fence(changes)))
    if writer.run(statements.header, headers) + writer.run(statements.counters, counters) != len(appends):
        raise FenceBroken

    steps: list[Row] = []
    plain: list[Row] = []
    attempts: list[Row] = []
    questions: list[Row] = []
    applied: list[Row] = []
    overrides: list[Row] = []
    for changes in appends:
        execution_id = changes.execution_id
        rows = _known(changes, known)
        for step in changes.steps:
            if rows is not None and _is_plain(step, rows):
                size = None if step.result is None else values.size(step.result)
                plain.append((*_plain(step), step.result, size, execution_id))
            else:
                steps.append(_step(execution_id, step, large))
        events += [(*event, execution_id) for event in changes.events]
        attempts += ((*attempt, execution_id) for attempt in changes.attempts)
        questions += ((*question, execution_id) for question in changes.questions)
        applied += ((changes.header.updated_at, command, execution_id) for command in changes.commands)
        overrides += ((*override, execution_id) for override in changes.overrides)
    touched = writer.run(statements.step, steps) + writer.run(statements.plain_step, plain)
    if touched != len(steps) + len(plain):
        raise MissingRow("the changes name a sub-step that does not exist")
    writer.run(statements.attempt, attempts)
    writer.run(statements.question, questions)
    writer.run(statements.applied, applied)
    writer.run(statements.override, overrides)

    for changes in appends:
        _drop_replaced(writer, statements, changes, known)
    for execution_id, name, _ in large:
        known[execution_id].blobs.add(name)
    writer.run(statements.blob, [row for value in large for row in _chunks(*value)])


def written(changes: Changes, known: Known) -> None:
    """Remember what is durable now."""
    if changes.release:
        known.pop(changes.execution_id, None)
    elif (rows := _known(changes, known)) is not None:
        rows.header = _beside_counters(changes.header)


def _known(changes: Changes, known: Known) -> Rows | None:
    rows = known.get(changes.execution_id)
    return rows if rows is not None and rows.epoch == changes.epoch else None


def _only_counts(changes: Changes, rows: Rows | None) -> bool:
    """Whether the rest of the header is as it was written last: so it is in most commits of a long execution."""
    header = changes.header
    return (
        rows is not None
        and not changes.release
        and rows.header == _beside_counters(header)
        and header.final_result is None  # which may be large, and so among the blobs that each header replaces
        and header.synthesis_result is None
    )


def _fence(changes: Changes) -> Row:
    return changes.seq_after, changes.execution_id, changes.epoch, changes.seq_before


def _header(changes: Changes, large: list[tuple[ExecutionId, str, bytes]]) -> HeaderRow:
    header = changes.header
    if header.final_result is not None and (data := _measure(header.final_result)[1]) is not None:
        large.append((changes.execution_id, FINAL_RESULT, data))
        header = header._replace(final_result=None)
    if header.synthesis_result is not None and (data := _measure(header.synthesis_result)[1]) is not None:
        large.append((changes.execution_id, SYNTHESIS_RESULT, data))
        header = header._replace(synthesis_result=None)
    return header


def _is_plain(step: StepRow, rows: Rows) -> bool:
    """Whether the other columns of a sub-step are, and were, as it was inserted: most are so from start to end.

    One whose result is not small goes with the rest, which the database takes one by one.
    """
    if rows.full is None or step.task_id in rows.full:
        return False
    if _others(step) == _NOTHING:
        return step.result is None or len(step.result) <= _SMALL
    rows.full.add(step.task_id)
    return False


def _step(execution_id: ExecutionId, step: StepRow, large: list[tuple[ExecutionId, str, bytes]]) -> Row:
    input, input_bytes = _value(execution_id, input_name(step.task_id), step.input, large)
    result, result_bytes = _value(execution_id, result_name(step.task_id), step.result, large)
    if input is not step.input or result is not step.result:
        step = step._replace(input=input, result=result)
    return (*step, input_bytes, result_bytes, execution_id)


def _value(
    execution_id: ExecutionId, name: str, text: JsonText | None, large: list[tuple[ExecutionId, str, bytes]]
) -> tuple[JsonText | None, int | None]:
    """Return what of a value goes into its column, and its size; a large one goes to the blobs."""
    if text is None:
        return None, None
    size, data = _measure(text)
    if data is None:
        return text, size
    large.append((execution_id, name, data))
    return None, size


def _measure(text: str) -> tuple[int, bytes | None]:
    """Return the bytes of `text` in UTF-8: how many, and, where they are too many for a column, which."""
    if len(text) <= _SURELY_INLINE:
        return values.size(text), None
    data = text.encode()
    return len(data), data if len(data) > BLOB_CHUNK_BYTES else None


def _drop_replaced(writer: Writer, statements: Statements, changes: Changes, known: Known) -> None:
    rows = _known(changes, known)
    if rows is None:  # the first append of an execution that this journal did not create
        found = writer.select(statements.blob_names, (changes.execution_id,))
        rows = known[changes.execution_id] = Rows(changes.epoch, {name for (name,) in found})
    if not (names := rows.blobs):
        return
    replaced = {FINAL_RESULT, SYNTHESIS_RESULT}
    for step in changes.steps:
        replaced |= {input_name(step.task_id), result_name(step.task_id)}
    writer.run(statements.drop_blob, [(changes.execution_id, name) for name in sorted(names & replaced)])


def _chunks(execution_id: ExecutionId, name: str, data: bytes) -> Iterator[Row]:
    for number, start in enumerate(range(0, len(data), BLOB_CHUNK_BYTES)):
        yield execution_id, name, number, data[start : start + BLOB_CHUNK_BYTES]


def _create(writer: Writer, statements: Statements, creates: Sequence[NewExecution], events: list[Row]) -> None:
    plans = {new.plan_hash: (new.plan_hash, new.plan, new.created_at) for new in creates}
    writer.run(statements.plan, [plans[key] for key in sorted(plans)])
    writer.run(
        statements.dag,
        [(n.dag_id, n.title, "ready", n.plan_hash, 1, n.created_at, n.created_at) for n in creates if n.new_dag],
    )
    rows = [
        (
            new.id, new.dag_id, new.plan_hash, new.title, new.original_request, new.primary_intent,
            ExecutionStatus.PENDING.value, 0, new.total_tasks, 0, 0, 0, 0, 0, 0, new.idempotency_key, new.request_hash,
            new.labels, new.priority, new.options, new.deadline_at, FIRST_EPOCH, new.owner, new.traceparent,
            new.forked_from, new.event.seq, new.created_at, new.created_at,
        )
        for new in creates
    ]  # fmt: skip
    if writer.run(statements.execution, rows) != len(rows):
        raise FenceBroken
    pending = StepStatus.PENDING.value
    writer.run(
        statements.new_step,
        [
            (*step, f"sub-step_{uuid_utils.uuid7()}", new.id, pending, 0, 0, new.created_at, new.created_at)
            for new in creates
            for step in new.steps
        ],
    )
    events += ((*new.event, new.id) for new in creates)


def input_name(task_id: str) -> str:
    """Return the blob name of a sub-step's resolved params."""
    return f"input:{task_id}"


def result_name(task_id: str) -> str:
    """Return the blob name of a sub-step's result."""
    return f"result:{task_id}"
