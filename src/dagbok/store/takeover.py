"""What happens to one execution at a time, each in its own transaction: claim it, delete it, ask something of it.

`claim` and `delete` belong to the journal's thread. `write_command` does not: a process without an engine uses it too.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import sqlalchemy as sa
from sqlalchemy import select

from dagbok.domain import answers, values
from dagbok.domain.ids import Epoch, ExecutionId
from dagbok.domain.records import HeaderRow, QuestionRow, StepRow, StoredExecution
from dagbok.domain.states import AttemptOutcome, Effect, QuestionOutcome
from dagbok.domain.values import Json, JsonText
from dagbok.errors import Conflict, Fenced, NotFound
from dagbok.store import deletion
from dagbok.store.batch import FINAL_RESULT, SYNTHESIS_RESULT, input_name, result_name
from dagbok.store.database import Database
from dagbok.store.queries import join_blobs
from dagbok.store.schema import ENDED, attempts, commands, dag_executions, human_inputs, plans, sub_steps


def claim(database: Database, execution_id: ExecutionId, owner: str) -> StoredExecution:
    """Make `owner` the owner of the execution, and return it. Repeating it claims again, with the next epoch.

    Raises:
        NotFound: There is no such execution.
        Fenced: Somebody else claimed it at the same moment.
    """
    executions = dag_executions.c
    with database.writing() as connection:
        query = select(dag_executions, plans.c.document).join(plans).where(executions.id == execution_id)
        row = connection.execute(query).mappings().one_or_none()
        if row is None:
            raise _no_execution(execution_id)
        epoch = Epoch(row["epoch"] + 1)
        # Not `epoch + 1` in SQL: of two that saw the same owner, one wins and the other learns it.
        taken = connection.execute(
            sa.update(dag_executions)
            .where(executions.id == execution_id, executions.epoch == row["epoch"])
            .values(epoch=epoch, owner=owner, wake_at=None, parked_at=None)
        )
        if taken.rowcount != 1:
            raise Fenced(
                f"Execution {execution_id} was claimed by somebody else at the same moment.", execution_id=execution_id
            )
        parked = None if row["parked_at"] is None or row["wake_at"] is None else (row["parked_at"], row["wake_at"])
        # Read after the fence: nothing of an older owner can come in between any more.
        row = connection.execute(query).mappings().one()
        large = join_blobs(connection, execution_id)
        header = {name: row[name] for name in HeaderRow._fields}
        for name in (FINAL_RESULT, SYNTHESIS_RESULT):
            header[name] = large.get(name, header[name])
        steps, effects, overrides = _steps(connection, execution_id, large)
        return StoredExecution(
            id=execution_id,
            dag_id=row["dag_id"],
            plan=row["document"],
            options=row["options"],
            epoch=epoch,
            last_event_seq=row["last_event_seq"],
            created_at=row["created_at"],
            header=HeaderRow(**header),
            steps=steps,
            effects=effects,
            questions=_questions(connection, execution_id),
            failures=_tries(connection, execution_id, row, AttemptOutcome.FAILED, AttemptOutcome.TIMEOUT),
            interruptions=_tries(connection, execution_id, row, AttemptOutcome.INTERRUPTED),
            parked=parked,
            overrides=overrides,
        )


def delete(database: Database, execution_id: ExecutionId, *, only_ended: bool = False) -> int:
    """Delete the execution with all its rows and return how many sub-steps it had; see `store/deletion.py`.

    Raises:
        NotFound: There is no such execution.
        Conflict: It has not ended, and only then it was to be deleted.
    """
    with database.writing() as connection:
        removed = deletion.remove(connection, [execution_id], *([sa.text(ENDED)] if only_ended else []))
        if not removed.ids:
            status = connection.execute(
                select(dag_executions.c.status).where(dag_executions.c.id == execution_id)
            ).scalar()
            raise _no_execution(execution_id) if status is None else not_ended(execution_id, status)
    return removed.sub_steps


def not_ended(execution_id: str, status: str) -> Conflict:
    """Return the error of a deletion that is not allowed."""
    message = (
        f"Execution {execution_id} is {status}; cancel it or let it end before it is deleted, or delete it with force."
    )
    return Conflict(message, execution_id=execution_id)


def write_command(
    database: Database,
    execution_id: ExecutionId,
    kind: str,
    data: Mapping[str, Json],
    by: str | None,
    *,
    at_ms: int,
    wait: str | None = None,
    again: bool = False,
) -> int:
    """Ask something of an execution and return the number of the command; its owner applies it.

    Args:
        at_ms: When it is asked.
        wait: Names the question that this answers, as "TASK#NUMBER"; each takes one answer.
        again: Whether this was tried before, and nobody knows what came of it; if it was written, it is not repeated.

    Raises:
        NotFound: There is no such execution.
        Conflict: The question is closed already; the message says how.
        StoreUnavailable: The database does not answer; whether the command was written is not known.
    """
    with database.writing() as connection:
        query = select(dag_executions.c.id).where(dag_executions.c.id == execution_id)
        if again:
            # A commit that was cut may be under way still (PostgreSQL, while its standby is away), and nobody sees it
            # before it ends. It shares this row, to which the command refers, until it can be seen.
            query = query.with_for_update()
        if connection.execute(query).first() is None:
            raise _no_execution(execution_id)
        if again and (written := _find_command(connection, execution_id, kind, data, by, at_ms, wait)) is not None:
            return written
        _must_be_first(connection, execution_id, wait)
        insert = database.insert(commands).values(
            execution_id=execution_id, kind=kind, data=values.encode(dict(data)), by=by, at=at_ms, wait=wait
        )
        number = connection.execute(insert.on_conflict_do_nothing().returning(commands.c.id)).scalar_one_or_none()
        if number is None:  # somebody else answered in this very moment
            _must_be_first(connection, execution_id, wait)
            raise Conflict(f"Question {wait} of {execution_id} has an answer already.", execution_id=execution_id)
    return int(number)


def _find_command(
    connection: sa.Connection,
    execution_id: ExecutionId,
    kind: str,
    data: Mapping[str, Json],
    by: str | None,
    at_ms: int,
    wait: str | None,
) -> int | None:
    """Return the number of such a command.

    An equal one of somebody else in this very moment would do as well: it asks the same.
    """
    of = commands.c
    query = select(of.id, of.data).where(
        of.execution_id == execution_id, of.kind == kind, of.at == at_ms,
        of.wait.is_not_distinct_from(wait), of.by.is_not_distinct_from(by),
    )  # fmt: skip
    found = connection.execute(query.order_by(of.id)).all()
    return next((int(number) for number, text in found if values.decode(text) == dict(data)), None)


def _steps(
    connection: sa.Connection, execution_id: ExecutionId, large: Mapping[str, JsonText]
) -> tuple[list[StepRow], dict[Any, Effect], dict[Any, JsonText]]:
    columns = [sub_steps.c[name] for name in StepRow._fields]
    steps: list[StepRow] = []
    effects: dict[Any, Effect] = {}
    overrides: dict[Any, JsonText] = {}
    for row in connection.execute(
        select(*columns, sub_steps.c.effect, sub_steps.c.override)
        .where(sub_steps.c.execution_id == execution_id)
        .order_by(sub_steps.c.position)
    ):
        *cells, effect, override = row
        step = StepRow(*cells)
        effects[step.task_id] = Effect(effect)
        if override is not None:
            overrides[step.task_id] = override
        if large:
            step = step._replace(
                input=large.get(input_name(step.task_id), step.input),
                result=large.get(result_name(step.task_id), step.result),
            )
        steps.append(step)
    return steps, effects, overrides


def _questions(connection: sa.Connection, execution_id: ExecutionId) -> list[QuestionRow]:
    columns = [human_inputs.c[name] for name in QuestionRow._fields]
    query = select(*columns).where(human_inputs.c.execution_id == execution_id).order_by(human_inputs.c.id)
    return [QuestionRow(*row) for row in connection.execute(query)]


def _tries(
    connection: sa.Connection, execution_id: ExecutionId, row: Mapping[Any, Any], *outcomes: AttemptOutcome
) -> dict[Any, int]:
    """Return how many attempts of each task had one of these outcomes, since somebody asked for a retry."""
    query = (
        select(attempts.c.task_id, sa.func.count())
        .where(attempts.c.execution_id == execution_id, attempts.c.outcome.in_(outcomes))
        .where(attempts.c.started_at >= (row["last_retry_at"] or 0))
        .group_by(attempts.c.task_id)
    )
    return {row[0]: row[1] for row in connection.execute(query)}


def _no_execution(execution_id: ExecutionId) -> NotFound:
    return NotFound(f"There is no execution {execution_id}.", execution_id=execution_id)


def _must_be_first(connection: sa.Connection, execution_id: ExecutionId, wait: str | None) -> None:
    """Raise Conflict if somebody has closed the question already: by an answer, or because its time was over."""
    if wait is None:
        return
    of = commands.c
    query = select(of.kind, of.by, of.at).where(of.execution_id == execution_id, of.wait == wait)
    if (row := connection.execute(query).first()) is not None:
        outcome = QuestionOutcome.TIMED_OUT if row.kind == "expire" else QuestionOutcome.ANSWERED
        task_id = wait.rpartition("#")[0]
        raise answers.too_late(execution_id, task_id, outcome=outcome.value, by=row.by, at_ms=row.at)
