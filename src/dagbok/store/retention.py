"""Deleting what ended long ago, a little at a time: one batch, one transaction, and then others may write.

A batch is bounded in rows, because everybody who writes waits for it. An execution goes whole or not at all, so one
with more rows than that makes a batch of its own. Whatever stops it between two batches, the next who asks goes on.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import Any, Final, NamedTuple

import sqlalchemy as sa
from sqlalchemy import func, select

from dagbok.domain.ids import ExecutionId
from dagbok.domain.states import ExecutionStatus
from dagbok.store import deletion
from dagbok.store.database import Database
from dagbok.store.schema import dag_executions, metadata

#: Rows of one batch, about: sub-steps, events, and some more for each execution.
BATCH_ROWS: Final = 120
_ROWS_BESIDE: Final = 5  # execution, dag, plan, and a command or attempt now and then
_MOST: Final = 100  # rows that are looked at for a batch

#: When an execution ended, and which: a place in the order in which they go.
Place = tuple[int, ExecutionId]


class Pruned(NamedTuple):
    """What one batch deleted."""

    executions: int
    freed_bytes: int | None  #: None: it was not measured
    last: Place | None  #: where the next batch begins; None: nothing is left


class Batch:
    """One batch. `run` until it returns: of a try whose outcome nobody knows the next one counts what it did."""

    def __init__(
        self,
        database: Database,
        before_ms: int,
        *,
        statuses: Collection[ExecutionStatus] = (),
        after: Place | None = None,
        measured: bool = False,
    ) -> None:
        """Prepare a batch.

        Args:
            database: Where.
            before_ms: What ended before that goes.
            statuses: In which of these states; none: in any.
            after: The place of the batch before. What it left behind is not looked at again.
            measured: Whether to ask how many bytes go, where the database can say so.
        """
        self._database = database
        self._ended = deletion.ended_before(before_ms)
        self._statuses = statuses
        self._after = after
        self._measured = measured
        self._chosen: list[Place] | None = None

    def run(self) -> Pruned:
        """Delete the oldest executions of those meant, and return how many that were.

        Raises:
            StoreUnavailable: The database does not answer; what was deleted is not known.
        """
        gone = 0
        if self._chosen is None:
            self._chosen = self._choose()
        else:
            gone = len(self._chosen) - self._present()
        if not self._chosen:
            return Pruned(0, 0 if self._measured else None, None)
        # Judged again under the lock: one that somebody retried meanwhile has not ended any more.
        ids = [id for _, id in self._chosen]
        with self._database.writing() as connection:
            measured_by = self._database if self._measured else None
            removed = deletion.remove(connection, ids, *self._ended, measured_by=measured_by)
        return Pruned(gone + len(removed.ids), removed.freed_bytes, self._chosen[-1])

    def _choose(self) -> list[Place]:
        of = dag_executions.c
        query = meant(select(of.completed_at, of.id, of.total_tasks + of.last_event_seq), self._ended, self._statuses)
        if self._after is not None:
            at, id = self._after
            # The first says it all to the index, so that what was deleted just now is not walked over again.
            query = query.where(of.completed_at >= at, (of.completed_at > at) | (of.id > id))
        with self._database.reading() as connection:
            found = connection.execute(query.order_by(of.completed_at, of.id).limit(_MOST)).all()
        chosen: list[Place] = []
        rows = 0
        for at, id, more in found:
            rows += more + _ROWS_BESIDE
            if chosen and rows > BATCH_ROWS:
                break
            chosen.append((at, id))
        return chosen

    def _present(self) -> int:
        ids = [id for _, id in self._chosen or ()]
        counted = select(func.count()).select_from(dag_executions).where(dag_executions.c.id.in_(ids))
        with self._database.reading() as connection:
            return int(connection.execute(counted).scalar_one())


def count(database: Database, before_ms: int, statuses: Collection[ExecutionStatus] = ()) -> int:
    """Return how many executions ended before a time, in one of these states, or in any."""
    counted = select(func.count()).select_from(dag_executions)
    with database.reading() as connection:
        return int(connection.execute(meant(counted, deletion.ended_before(before_ms), statuses)).scalar_one())


def vacuum(database: Database, *, alone: bool) -> Iterator[int]:
    """Give free space back; see `Database.vacuum`."""
    return database.vacuum([table.name for table in metadata.sorted_tables], alone=alone)


def meant(
    query: sa.Select[Any], ended: Collection[deletion.Condition], statuses: Collection[ExecutionStatus]
) -> sa.Select[Any]:
    """Return `query` of those executions alone."""
    query = query.where(*ended)
    others = sorted(set(ExecutionStatus) - set(statuses)) if statuses else []
    return query.where(dag_executions.c.status.not_in(others)) if others else query  # as `ENDED` is told
