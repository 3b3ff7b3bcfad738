"""What the journal writes, compiled once per database: each statement, and the order of the values in its rows.

A row begins with the columns of a record of `domain/records.py`, as they are, and ends with what the store adds; so a
row is made by joining two tuples.
"""

from __future__ import annotations

from typing import Any, ClassVar, Final

import sqlalchemy as sa
from sqlalchemy import bindparam, select, update

from dagbok.domain.records import AttemptRow, HeaderRow, NewStep, OverrideRow, QuestionRow, StepRow
from dagbok.store.database import Database
from dagbok.store.schema import (
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

EXECUTION_COLUMNS: Final = (
    "id", "dag_id", "plan_hash", "title", "original_request", "primary_intent", "status", "duration_ms", "total_tasks",
    "completed_tasks", "failed_tasks", "waiting_tasks", "skipped_tasks", "running_tasks", "retry_count",
    "idempotency_key", "request_hash", "labels", "priority", "options", "deadline_at", "epoch", "owner", "traceparent",
    "forked_from", "last_event_seq", "created_at", "updated_at",
)  # fmt: skip

#: What of a sub-step is written where nothing else of it ever was: a third of the columns, at half the price.
PLAIN: Final = ("task_id", "status", "attempt", "started_at", "completed_at", "duration_ms", "updated_at")


#: What of an execution is written where nothing else of it changed: columns that are in no index, whose pages each
#: commit would write again.
COUNTERS: Final = (
    "duration_ms", "completed_tasks", "failed_tasks", "waiting_tasks", "skipped_tasks", "running_tasks",
    "total_usage", "total_cost_usd", "updated_at",
)  # fmt: skip


class Statements:
    """The statements of the group commit, in the order in which it runs them."""

    _compiled: ClassVar[dict[str, Statements]] = {}  # by dialect, which is all that they depend on

    @classmethod
    def of(cls, database: Database) -> Statements:
        """Return the statements for `database`, which are compiled once in a process for each kind of database."""
        kind = database.dialect
        if kind not in cls._compiled:
            cls._compiled[kind] = cls(database)
        return cls._compiled[kind]

    def __init__(self, database: Database) -> None:
        def compiled(clause: sa.ClauseElement, *names: str, **more: Any) -> Any:
            return database.statement(clause, *names, **more)

        def inserts(table: sa.Table, *names: str, small: bool) -> Any:
            # `inline`: nobody asks which number a row was given.
            insert = sa.insert(table).values({name: _p(table.c[name]) for name in names}).inline()
            return compiled(insert, *names, copy_into=table, small=small)

        def update_step(*names: str, small: bool = False) -> Any:
            of_step = [sub_steps.c[name] == _p(sub_steps.c[name]) for name in ("execution_id", "task_id")]
            changed = {name: _p(sub_steps.c[name]) for name in names if name != "task_id"}
            return compiled(update(sub_steps).where(*of_step).values(changed), *names, "execution_id", small=small)

        def fence(*names: str, **values: Any) -> Any:
            moved = {"last_event_seq": bindparam("p_seq_after", type_=sa.BigInteger)}
            return (
                update(dag_executions)
                .where(
                    dag_executions.c.id == _p(dag_executions.c.id),
                    dag_executions.c.epoch == _p(dag_executions.c.epoch),
                    dag_executions.c.last_event_seq == bindparam("p_seq_before", type_=sa.BigInteger),
                )
                .values({name: _p(dag_executions.c[name]) for name in names} | moved | values)
            )

        # The fence. `HeaderRow`, then: release, seq_after, id, epoch, seq_before.
        released = sa.case((bindparam("p_release", type_=sa.Boolean), sa.null()), else_=dag_executions.c.owner)
        self.header = compiled(
            fence(*HeaderRow._fields, owner=released),
            *HeaderRow._fields, "release", "seq_after", "id", "epoch", "seq_before",
        )  # fmt: skip
        # The fence as well. `COUNTERS`, then: seq_after, id, epoch, seq_before.
        self.counters = compiled(fence(*COUNTERS), *COUNTERS, "seq_after", "id", "epoch", "seq_before", small=True)
        # After a fence that did not hold, or a commit of unknown outcome: where does each execution stand?
        self.settle = compiled(
            select(dag_executions.c.epoch, dag_executions.c.last_event_seq)
            .where(dag_executions.c.id == _p(dag_executions.c.id))
            .with_for_update(),
            "id",
        )
        # `StepRow`, then: input_bytes, result_bytes, execution_id.
        self.step = update_step(*StepRow._fields, "input_bytes", "result_bytes")
        # `PLAIN`, then: result, result_bytes, execution_id. Of small results.
        self.plain_step = update_step(*PLAIN, "result", "result_bytes", small=True)
        # `AttemptRow`, then: execution_id. A try has one outcome: a later word about it takes the place of the earlier.
        self.attempt = _upsert(database, attempts, ("execution_id", "task_id", "number"), *AttemptRow._fields)
        # `QuestionRow`, then: execution_id. Written when asked and again when closed.
        self.question = _upsert(database, human_inputs, ("execution_id", "task_id", "number"), *QuestionRow._fields)
        # `OverrideRow`, then: execution_id.
        self.override = update_step(*OverrideRow._fields)
        self.event = inserts(events, "seq", "type", "task_id", "at", "data", "execution_id", small=True)
        self.applied = compiled(
            update(commands)
            .where(commands.c.id == _p(commands.c.id), commands.c.execution_id == _p(commands.c.execution_id))
            .values(applied_at=_p(commands.c.applied_at)),
            "applied_at", "id", "execution_id",
        )  # fmt: skip

        self.blob_names = compiled(
            select(blobs.c.name).where(blobs.c.execution_id == _p(blobs.c.execution_id)).distinct(), "execution_id"
        )
        self.drop_blob = compiled(
            sa.delete(blobs).where(
                blobs.c.execution_id == _p(blobs.c.execution_id), blobs.c.name == _p(blobs.c.name)
            ),
            "execution_id", "name",
        )  # fmt: skip
        self.blob = inserts(blobs, "execution_id", "name", "chunk", "data", small=False)

        self.idempotent = compiled(
            select(dag_executions.c.id, dag_executions.c.dag_id, dag_executions.c.request_hash).where(
                dag_executions.c.idempotency_key == _p(dag_executions.c.idempotency_key)
            ),
            "idempotency_key",
        )
        self.plan = _insert_or_lock(database, plans, "hash", "document", "created_at")
        self.dag = _insert_or_leave(
            database, dags, "id", "title", "status", "plan_hash", "revision", "created_at", "updated_at"
        )
        self.execution = _insert_or_leave(database, dag_executions, *EXECUTION_COLUMNS)
        # `NewStep`, then: id, execution_id, status, attempt, revision, created_at, updated_at.
        self.new_step = inserts(
            sub_steps,
            *NewStep._fields,
            "id",
            "execution_id",
            "status",
            "attempt",
            "revision",
            "created_at",
            "updated_at",
            small=True,  # all of them are one plan
        )


def _p(column: sa.Column[Any]) -> sa.BindParameter[Any]:
    return bindparam(f"p_{column.name}", type_=column.type)


def _insert_or_leave(database: Database, table: sa.Table, *names: str) -> Any:
    """Insert a row unless a unique column of it is taken already; the count tells."""
    insert = database.insert(table).values({name: _p(table.c[name]) for name in names})
    return database.statement(insert.on_conflict_do_nothing(), *names)


def _insert_or_lock(database: Database, table: sa.Table, *names: str) -> Any:
    """Insert a row, or lock the one that is there, unchanged, until the end of the transaction.

    A row that its condition keeps from being updated is locked all the same, which `DO NOTHING` does not do: whoever
    deletes plans that nobody uses (`store/deletion.py`) could take it away before what refers to it is written.
    https://www.postgresql.org/docs/current/sql-insert.html#SQL-ON-CONFLICT
    """
    insert = database.insert(table).values({name: _p(table.c[name]) for name in names})
    key, *rest = names
    clause = insert.on_conflict_do_update(
        index_elements=[key], set_={name: table.c[name] for name in rest}, where=sa.false()
    )
    return database.statement(clause, *names)


def _upsert(database: Database, table: sa.Table, key: tuple[str, ...], *names: str) -> Any:
    insert = database.insert(table).values({name: _p(table.c[name]) for name in (*names, "execution_id")})
    clause = insert.on_conflict_do_update(
        index_elements=list(key), set_={name: insert.excluded[name] for name in names if name not in key}
    )
    return database.statement(clause, *names, "execution_id")
