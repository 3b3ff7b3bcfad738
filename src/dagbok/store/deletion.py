"""What goes when executions go: all they wrote, and the dags and plans that nobody else needs.

A plan is shared by its content, between dags and between executions. Nobody counts who uses it; the rows are asked.
What makes that safe is one rule: whoever submits a plan locks its row, there already or new (`statements.plan`), until
the submission is committed, and whoever deletes locks it too before asking who else uses it. So the two take turns,
plan by plan, and neither finds the other half done. On SQLite every writer takes turns anyway.

Locks are taken in one order, executions by id and then plans by hash, so that two who delete never wait in a circle.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final, NamedTuple

import sqlalchemy as sa
from sqlalchemy import select

from dagbok.domain.ids import ExecutionId
from dagbok.store.database import Database
from dagbok.store.schema import (
    ENDED,
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

#: What only belongs to an execution. On PostgreSQL sub-steps and events do not cascade; the others would, but one
#: statement each for many executions is faster.
_BELONGINGS: Final = (sub_steps, events, attempts, commands, human_inputs, blobs)

Condition = sa.ColumnElement[bool] | sa.TextClause


class Removed(NamedTuple):
    """What a deletion took with it."""

    ids: frozenset[ExecutionId]
    sub_steps: int
    freed_bytes: int | None  #: of their values; None: nobody asked, or the database does not know


def ended_before(time_ms: int) -> tuple[Condition, ...]:
    """Return the conditions of the executions that ended before `time_ms`; there is an index for them."""
    return sa.text(ENDED), dag_executions.c.completed_at < time_ms


def remove(
    connection: sa.Connection,
    execution_ids: Iterable[ExecutionId],
    *conditions: Condition,
    measured_by: Database | None = None,
) -> Removed:
    """Delete executions, within the connection's transaction, and return which of them were there.

    Args:
        connection: Of `Database.writing`.
        execution_ids: Any; those that do not exist are passed over.
        conditions: What an execution has to meet besides, judged under its lock.
        measured_by: The database, to be asked how many bytes go.
    """
    of = dag_executions.c
    query = select(of.id, of.dag_id, of.plan_hash).where(of.id.in_(sorted(execution_ids)), *conditions)
    # The execution's lock, which an append needs too: what is deleted is what it has written in the end.
    found = connection.execute(query.order_by(of.id).with_for_update()).all()
    if not found:
        return Removed(frozenset(), 0, None if measured_by is None else 0)
    ids = [row.id for row in found]
    dag_ids = sorted({row.dag_id for row in found})
    hashes = {row.plan_hash for row in found}
    hashes.update(connection.execute(select(dags.c.plan_hash).where(dags.c.id.in_(dag_ids))).scalars())
    # Before anything is deleted: who waits for this holds none of these executions.
    connection.execute(
        select(plans.c.hash).where(plans.c.hash.in_(sorted(hashes))).order_by(plans.c.hash).with_for_update()
    ).all()
    belonging = [(table, table.c.execution_id.in_(ids)) for table in _BELONGINGS]
    used = _bytes(connection, measured_by, [*belonging, (dag_executions, of.id.in_(ids))])
    counts = {table.name: connection.execute(sa.delete(table).where(of_them)).rowcount for table, of_them in belonging}
    connection.execute(sa.delete(dag_executions).where(of.id.in_(ids)))
    # A dag that was planned is work of its own, and stays. One that only came with an execution goes with its last.
    lonely = dags.c.planning_attempts.is_(None) & ~sa.exists().where(of.dag_id == dags.c.id)
    connection.execute(sa.delete(dags).where(dags.c.id.in_(dag_ids), lonely))
    unused = (
        plans.c.hash.in_(sorted(hashes))
        & ~sa.exists().where(dags.c.plan_hash == plans.c.hash)
        & ~sa.exists().where(of.plan_hash == plans.c.hash)
    )
    if used is not None:
        used += _bytes(connection, measured_by, [(plans, unused)]) or 0
    connection.execute(sa.delete(plans).where(unused))
    return Removed(frozenset(ids), counts[sub_steps.name], used)


def _bytes(connection: sa.Connection, database: Database | None, parts: Iterable[tuple[sa.Table, Any]]) -> int | None:
    """Return the bytes of rows; None: nobody asked, or the database does not know."""
    if database is None:
        return None
    total = 0
    for table, condition in parts:
        size = database.stored_bytes(table)
        if size is None:
            return None
        total += int(connection.execute(select(sa.func.coalesce(sa.func.sum(size), 0)).where(condition)).scalar_one())
    return total
