"""Reading the diary, from any thread: lists, one execution, its steps, its events, what waits.

Each method is one snapshot; `Reader.snapshot` makes several of them one. JSON comes back as text, unparsed. What does
not exist comes back as None.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy import func, select, text

from dagbok.domain import values
from dagbok.domain.diagram import Node
from dagbok.domain.ids import DagId, ExecutionId, TaskId
from dagbok.domain.inbox import Wanted
from dagbok.domain.listing import Place
from dagbok.domain.records import Command, Page
from dagbok.domain.states import ExecutionStatus
from dagbok.domain.values import JsonText
from dagbok.errors import NotFound
from dagbok.store.batch import FINAL_RESULT, SYNTHESIS_RESULT, result_name
from dagbok.store.database import Database
from dagbok.store.schema import (
    OPEN,
    PARKED,
    PENDING,
    UNFINISHED,
    attempts,
    blobs,
    commands,
    dag_executions,
    dags,
    events,
    human_inputs,
    plans,
    sub_steps,
)
from dagbok.store.totals import total
from dagbok.store.whole import Whole

Row = Mapping[str, Any]

INLINE_BYTES: Final = 65_536  # a larger result is fetched by itself
SHOWN_ERROR_CHARS: Final = 500  # of an attempt that is shown with its sub-step
_EVENT_COLUMNS: Final = (
    events.c.execution_id, events.c.seq, events.c.type, events.c.task_id, events.c.at, events.c.data
)  # fmt: skip
_LARGE: Final = (dag_executions.c.final_result, dag_executions.c.synthesis_result)
#: What a list shows of an execution.
_LISTED: Final = (
    *(column for column in dag_executions.c if column not in _LARGE),
    *(sa.case((func.length(column) <= INLINE_BYTES, column)).label(column.name) for column in _LARGE),
)
#: So many executions are read at once where somebody goes through all.
_WALKED: Final = 100


class Reader:
    """The read side of one database. Raises StoreUnavailable where the database does not answer."""

    def __init__(self, database: Database, connection: sa.Connection | None = None, whole: Whole | None = None) -> None:
        self._database = database
        self._shared = connection
        self._whole = whole or Whole(database)
        self._seen_commands: tuple[int, ...] = ()

    @contextmanager
    def snapshot(self) -> Iterator[Reader]:
        """Yield a reader whose methods all see the database as it is now. For one thread."""
        with self._database.reading() as connection:
            yield Reader(self._database, connection, self._whole)

    @contextmanager
    def _connection(self) -> Iterator[sa.Connection]:
        if self._shared is not None:
            with self._database.translated():
                yield self._shared
        else:
            with self._database.reading() as connection:
                yield connection

    @contextmanager
    def connected(self) -> Iterator[sa.Connection]:
        """Yield a connection whose reads all see one moment; for the other modules of the store."""
        with self._connection() as connection:
            yield connection

    def _rows(self, query: sa.Select[Any]) -> list[Row]:
        with self._connection() as connection:
            return [dict(row) for row in connection.execute(query).mappings()]

    def _row(self, query: sa.Select[Any]) -> Row | None:
        return next(iter(self._rows(query)), None)

    def ping(self) -> None:
        """Return if the database answers. Raises StoreUnavailable if not."""
        with self._connection() as connection:
            connection.execute(select(1))

    # -- executions ---------------------------------------------------------------------------------------------------

    def list_executions(
        self,
        *,
        limit: int = 50,
        offset: int = 0,
        status: ExecutionStatus | str | None = None,
        after: Place | None = None,
        exact_total: int | None = None,
    ) -> Page:
        """Return a page of executions, newest first, with the number of all; without plans and sub-steps.

        A final or synthesis result of more than `INLINE_BYTES` characters comes as None.

        Args:
            limit: At most so many.
            offset: Pass over so many, which takes the longer the more they are: their index is read.
            status: Only those in this state.
            after: Only those behind this one, wherever it is.
            exact_total: See `totals.total`.
        """
        word = None if status is None else str(status)
        with self._connection() as connection:
            items, more = _page(connection, limit, offset, word, after)
            number, is_estimate = total(connection, word, exact=exact_total)
        return Page(items, number, limit, offset, None if more is None else more.cursor(word), is_estimate)

    def each_execution(self, status: ExecutionStatus | str) -> Iterator[Row]:
        """Go through all executions in a state, newest first, as `list_executions` shows them; nothing is counted."""
        after: Place | None = None
        while True:
            with self._connection() as connection:
                items, after = _page(connection, _WALKED, 0, str(status), after)
            yield from items
            if after is None:
                return

    def beginning_with(self, start: str, *, limit: int) -> list[ExecutionId]:
        """Return at most `limit` of the executions whose id begins so, the newest first."""
        of = dag_executions.c.id
        # Ids are of hexadecimal digits, which come before "z" in every order that a database may have been given.
        query = select(of).where(of >= start, of < f"{start}z").order_by(of.desc()).limit(limit)
        return [row["id"] for row in self._rows(query)]

    def get_execution(self, execution_id: str) -> Row | None:
        """Return every column of an execution, its results whole."""
        with self._connection() as connection:
            found = (
                connection.execute(select(dag_executions).where(dag_executions.c.id == execution_id)).mappings().first()
            )
            if found is None:
                return None
            row = dict(found)
            row.update(join_blobs(connection, ExecutionId(execution_id), FINAL_RESULT, SYNTHESIS_RESULT))
            return row

    def whole(self, execution_id: str, *, last: int) -> tuple[Row, list[Row], list[Row]] | None:
        """Return an execution with its results, its sub-steps as `sub_steps`, and tries of them as `attempts`."""
        with self._connection() as connection:
            found = self._whole.find(connection, execution_id, inline_bytes=INLINE_BYTES)
            if found is None:
                return None
            if found.has_blobs:
                found.row.update(join_blobs(connection, ExecutionId(execution_id), FINAL_RESULT, SYNTHESIS_RESULT))
            at_once = Reader(self._database, connection, self._whole)
            return found.row, [*found.steps], at_once.attempts(execution_id, last=last) if found.has_attempts else []

    def find_idempotent(self, key: str) -> Row | None:
        """Return the execution that was created with this idempotency key.

        Its id, dag_id, request_hash, status, original_request and total_tasks.
        """
        of = dag_executions.c
        query = select(of.id, of.dag_id, of.request_hash, of.status, of.original_request, of.total_tasks)
        return self._row(query.where(of.idempotency_key == key))

    def version(self, execution_id: str) -> tuple[int, int] | None:
        """Return `last_event_seq` and `updated_at` of an execution: no two of its commits have both in common."""
        of = dag_executions.c
        row = self._row(select(of.last_event_seq, of.updated_at).where(of.id == execution_id))
        return None if row is None else (row["last_event_seq"], row["updated_at"])

    def unfinished(self) -> list[Row]:
        """Return the executions that have not ended (id, status, title, owner, created_at), oldest first."""
        columns = dag_executions.c
        query = select(columns.id, columns.status, columns.title, columns.owner, columns.created_at)
        return self._rows(query.where(text(UNFINISHED)).order_by(columns.created_at, columns.id))

    def left_behind(self, now_ms: int) -> list[ExecutionId]:
        """Return the executions that somebody should be running: an owner that is gone left them, or they are due.

        Also those that wait since a time that is not yet: the clock was set back, and their times are to follow it.
        """
        of = dag_executions.c
        waits_wrongly = of.wake_at.is_not(None) & (of.parked_at > now_ms)
        query = select(of.id).where(text(UNFINISHED), of.owner.is_not(None) | (of.wake_at <= now_ms) | waits_wrongly)
        return [row["id"] for row in self._rows(query.order_by(of.created_at, of.id))]

    def parked(self) -> list[ExecutionId]:
        """Return the executions that belong to nobody, wait for a time, and for no person."""
        of = dag_executions.c
        query = select(of.id).where(text(PARKED), of.status != ExecutionStatus.WAITING.value)
        return [row["id"] for row in self._rows(query)]

    def due(
        self, now_ms: int, *, limit: int, after: tuple[int, ExecutionId] | None = None
    ) -> list[tuple[int, ExecutionId]]:
        """Return at most `limit` of the executions that belong to nobody and are due, the longest first, and when."""
        of = dag_executions.c
        query = select(of.wake_at, of.id).where(text(PARKED), of.wake_at <= now_ms)
        if after is not None:
            at, id = after
            query = query.where((of.wake_at > at) | ((of.wake_at == at) & (of.id > id)))
        return [(row["wake_at"], row["id"]) for row in self._rows(query.order_by(of.wake_at, of.id).limit(limit))]

    def next_wake_at(self, now_ms: int) -> int | None:
        """Return when the next execution that belongs to nobody will be due; None: none ever is."""
        of = dag_executions.c.wake_at
        row = self._row(select(func.min(of).label("wake_at")).where(text(PARKED), of > now_ms))
        return None if row is None else row["wake_at"]

    def counts(self) -> dict[str, int]:
        """Return how many executions stand in each state that has any; reads an index, not the rows."""
        query = select(dag_executions.c.status, func.count()).group_by(dag_executions.c.status)
        with self._connection() as connection:
            return {row[0]: row[1] for row in connection.execute(query)}

    # -- steps --------------------------------------------------------------------------------------------------------

    def sub_steps(self, execution_id: str, *, inline_bytes: int = INLINE_BYTES) -> list[Row]:
        """Return the sub-steps in natural order of their task ids, the synthesis last; larger results come as None.

        `result_bytes` tells of a result that is there though `result` is None. An input that lives in `blobs` is not
        joined either; `input_bytes` tells.
        """
        columns = [c for c in sub_steps.c if c.name != "result"]
        small = sa.case((sub_steps.c.result_bytes <= inline_bytes, sub_steps.c.result)).label("result")
        query = select(*columns, small).where(sub_steps.c.execution_id == execution_id)
        return self._rows(query.order_by(sub_steps.c.position))

    def outline(self, execution_id: str) -> tuple[Row, list[Row]] | None:
        """Return an execution and its sub-steps as far as a graph shows them: no results, inputs, or errors' words."""
        of, step = dag_executions.c, sub_steps.c
        found = select(of.id, of.title, of.status, of.last_event_seq, of.updated_at).where(of.id == execution_id)
        columns = [step[name] for name in (*Node._fields, "dependencies")]
        steps = select(*columns).where(step.execution_id == execution_id).order_by(step.position)
        with self._connection() as connection:
            row = connection.execute(found).mappings().first()
            return None if row is None else (dict(row), [dict(one) for one in connection.execute(steps).mappings()])

    def result(self, execution_id: str, task_id: str) -> JsonText | None:
        """Return the whole result of a sub-step as JSON text."""
        query = select(sub_steps.c.result, sub_steps.c.result_bytes).where(
            sub_steps.c.execution_id == execution_id, sub_steps.c.task_id == task_id
        )
        with self._connection() as connection:
            found = connection.execute(query).first()
            if found is None or found.result is not None or found.result_bytes is None:
                return None if found is None else found.result
            name = result_name(task_id)
            return join_blobs(connection, ExecutionId(execution_id), name)[name]

    def step_status(self, execution_id: str, task_id: str) -> str | None:
        """Return the state of a sub-step."""
        of = sub_steps.c
        row = self._row(select(of.status).where(of.execution_id == execution_id, of.task_id == task_id))
        return None if row is None else row["status"]

    def attempts(self, execution_id: str, task_id: str | None = None, *, last: int | None = None) -> list[Row]:
        """Return the tries that did not end well, of one sub-step or of all, in order.

        With `last` only those among the latest so many tries of each sub-step, and the beginnings of their errors.
        """
        error = attempts.c.error if last is None else func.substr(attempts.c.error, 1, SHOWN_ERROR_CHARS).label("error")
        columns = [error if column.name == "error" else column for column in attempts.c]
        query = select(*columns).where(attempts.c.execution_id == execution_id)
        if task_id is not None:
            query = query.where(attempts.c.task_id == task_id)
        if last is not None:
            of_step = (attempts.c.execution_id == sub_steps.c.execution_id) & (
                attempts.c.task_id == sub_steps.c.task_id
            )
            query = query.join(sub_steps, of_step).where(attempts.c.number > sub_steps.c.attempt - last)
        return self._rows(query.order_by(attempts.c.task_id, attempts.c.number))

    # -- diary, plans -------------------------------------------------------------------------------------------------

    def events(self, execution_id: str, *, after_seq: int = 0, limit: int = 1000) -> list[Row]:
        """Return at most `limit` events of an execution whose number is above `after_seq`, in order."""
        query = select(*_EVENT_COLUMNS).where(events.c.execution_id == execution_id, events.c.seq > after_seq)
        return self._rows(query.order_by(events.c.seq).limit(limit))

    def plan(self, id: str) -> JsonText | None:
        """Return the plan of an execution, a dag or a plan hash."""
        hashes = sa.union_all(
            select(dag_executions.c.plan_hash).where(dag_executions.c.id == id),
            select(dags.c.plan_hash).where(dags.c.id == id),
            select(plans.c.hash).where(plans.c.hash == id),
        ).subquery()
        row = self._row(select(plans.c.document).where(plans.c.hash.in_(select(hashes))))
        return None if row is None else row["document"]

    def dag(self, dag_id: DagId | str) -> Row | None:
        """Return every column of a dag; the document is `plan`'s."""
        return self._row(select(dags).where(dags.c.id == dag_id))

    def list_dags(self, *, limit: int = 50, offset: int = 0) -> Page:
        """Return a page of dags, newest first, with the number of all."""
        query = select(dags).order_by(dags.c.created_at.desc(), dags.c.id.desc()).limit(limit).offset(offset)
        with self._connection() as connection:
            total = connection.execute(select(func.count()).select_from(dags)).scalar_one()
            return Page([dict(row) for row in connection.execute(query).mappings()], total, limit, offset)

    # -- people -------------------------------------------------------------------------------------------------------

    def open_questions(self, execution_id: str | None = None, *, limit: int | None = 1000) -> list[Row]:
        """Return the inbox: questions without an answer, oldest first, of one execution or of all."""
        query = select(human_inputs).where(text(OPEN)).order_by(human_inputs.c.asked_at, human_inputs.c.id).limit(limit)
        if execution_id is not None:
            query = query.where(human_inputs.c.execution_id == execution_id)
        return self._rows(query)

    def human_inputs(self, wanted: Wanted) -> list[Row]:
        """Return the questions that somebody wants to see, and one more where there are more than `wanted.limit`.

        Each comes with `execution_title`. Of a prompt over `INLINE_BYTES` characters only the beginning comes; a
        schema, an answer, or what is shown comes as None where it is larger.
        """
        of = human_inputs.c
        inline = [
            func.substr(of.prompt, 1, INLINE_BYTES).label("prompt"),
            *(
                sa.case((func.length(sa.cast(column, sa.Text)) <= INLINE_BYTES, column)).label(column.name)
                for column in (of.answer_schema, of.shown, of.answer)
            ),
        ]
        taken = {column.name for column in inline}
        query = select(
            *(c for c in of if c.name not in taken), *inline, dag_executions.c.title.label("execution_title")
        )
        query = query.join(dag_executions, dag_executions.c.id == of.execution_id)
        for column, value in ((of.kind, wanted.kind), (of.assignee, wanted.assignee)):
            query = query if value is None else query.where(column == value)
        if wanted.execution_id is not None:
            query = query.where(of.execution_id == wanted.execution_id)
        if wanted.due_before is not None:
            query = query.where(of.due_at < wanted.due_before)
        after = wanted.after
        if wanted.status == "open":
            query = query.where(text(OPEN)).order_by(of.asked_at, of.id)
            if after is not None:
                query = query.where(sa.tuple_(of.asked_at, of.id) > sa.tuple_(after.asked_at, after.id))
        else:  # as they were written, which is their order and needs no index of its own
            query = query.order_by(of.id.desc())
            if after is not None:
                query = query.where(of.id < after.id)
        return self._rows(query.limit(wanted.limit + 1))

    def question(self, execution_id: str, task_id: TaskId | str, number: int | None = None) -> Row | None:
        """Return a question of a sub-step, open or closed: the latest, or that with a number."""
        query = select(human_inputs).where(
            human_inputs.c.execution_id == execution_id, human_inputs.c.task_id == task_id
        )
        if number is not None:
            query = query.where(human_inputs.c.number == number)
        return self._row(query.order_by(human_inputs.c.number.desc()).limit(1))

    def called(self, execution_id: str, task_id: str) -> tuple[JsonText, JsonText | None]:
        """Return the plan of an execution, and what was changed about a sub-step of it since. Raises NotFound."""
        of = sub_steps.c
        query = select(plans.c.document, of.override).select_from(sub_steps)
        query = query.join(dag_executions, dag_executions.c.id == of.execution_id)
        query = query.join(plans, plans.c.hash == dag_executions.c.plan_hash)
        row = self._row(query.where(of.execution_id == execution_id, of.task_id == task_id))
        if row is None:
            raise NotFound(f"Execution {execution_id} has no sub-step {task_id!r}.", execution_id=execution_id)
        return row["document"], row["override"]

    def pending_commands(self, execution_ids: Sequence[str] | None = None) -> list[Command]:
        """Return the commands that no owner has applied, in the order of their numbers."""
        query = select(commands).where(text(PENDING)).order_by(commands.c.id)
        wanted = None if execution_ids is None else set(execution_ids)
        # Filtered here: few are pending at a time, and a long list of ids would meet the limits of SQL parameters.
        return [
            Command(row["id"], row["execution_id"], row["kind"], values.decode(row["data"]), row["by"], row["at"])
            for row in self._rows(query)
            if wanted is None or row["execution_id"] in wanted
        ]

    def commands_changed(self) -> bool:
        """Return whether commands are pending that were not at the last call. One index read; for one poller.

        The ids themselves are compared: on PostgreSQL a lower one may become visible after a higher one.
        """
        with self._connection() as connection:
            seen = tuple(
                connection.execute(select(commands.c.id).where(text(PENDING)).order_by(commands.c.id)).scalars()
            )
        changed = bool(set(seen) - set(self._seen_commands))
        self._seen_commands = seen
        return changed


def _page(
    connection: sa.Connection, limit: int, offset: int, status: str | None, after: Place | None
) -> tuple[list[Row], Place | None]:
    """Return a page of executions, newest first, and where the next one begins, if there is one."""
    of = dag_executions.c
    newest_first = of.created_at.desc(), of.id.desc()
    where = [] if status is None else [of.status == status]
    behind = [] if after is None else [sa.tuple_(of.created_at, of.id) < sa.tuple_(*map(sa.literal, after))]
    query = select(*_LISTED).order_by(*newest_first)
    if offset or status is not None:
        # Their ids come from the index alone: what is passed over is not read, and PostgreSQL, which would go
        # through the whole list where a state is a common one, has no reason to, though none of late may be in it.
        ids = select(of.id).where(*where, *behind).order_by(*newest_first).limit(limit + 1).offset(offset)
        query = query.where(of.id.in_(ids))
    else:
        query = query.where(*behind).limit(limit + 1)
    rows: list[Row] = [dict(row) for row in connection.execute(query).mappings()]
    items = rows[:limit]
    return items, Place(items[-1]["created_at"], items[-1]["id"]) if len(rows) > limit else None


def join_blobs(connection: sa.Connection, execution_id: ExecutionId, *names: str) -> dict[str, JsonText]:
    """Return the large values of an execution by blob name; all of them where none is named."""
    query = select(blobs.c.name, blobs.c.data).where(blobs.c.execution_id == execution_id)
    if names:
        query = query.where(blobs.c.name.in_(names))
    parts: dict[str, list[bytes]] = {}
    for name, data in connection.execute(query.order_by(blobs.c.name, blobs.c.chunk)):
        parts.setdefault(name, []).append(data)
    # Joined before decoding: a chunk may end inside a character.
    return {name: JsonText(b"".join(chunks).decode()) for name, chunks in parts.items()}
