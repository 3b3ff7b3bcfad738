"""Deletes what ended long ago, asked for by a person: beside whatever engine owns the database, or where there is none.

No lock is taken for that: a batch is a transaction like any other writer's, and pauses let the others through.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Iterator
from typing import Final

from dagbok.domain.states import ExecutionStatus
from dagbok.store import retention
from dagbok.store.database import Database
from dagbok.store.retention import Place, Pruned

#: Between two batches, and how many times as long as the batch took, at least.
PAUSE_S: Final = 0.01
_SHARE: Final = 2.0


class Pruner:
    """Deletes old executions of one database. Synchronous; may be interrupted at any moment, and begun again."""

    def __init__(self, database: Database, before_ms: int, statuses: Collection[ExecutionStatus]) -> None:
        """Prepare for what ended before `before_ms`, in one of these states; none: in any."""
        self._database = database
        self._before_ms = before_ms
        self._statuses = statuses

    def count(self) -> int:
        """Return how many executions would go."""
        return retention.count(self._database, self._before_ms, self._statuses)

    def prune(self) -> Iterator[Pruned]:
        """Delete them, and yield after each batch what it took. Raises StoreUnavailable."""
        last: Place | None = None
        while True:
            began = time.monotonic()
            batch = retention.Batch(self._database, self._before_ms, statuses=self._statuses, after=last, measured=True)
            pruned = batch.run()
            if (last := pruned.last) is None:
                return
            yield pruned
            time.sleep(max(PAUSE_S, _SHARE * (time.monotonic() - began)))

    def free_bytes(self) -> int | None:
        """Return the bytes of the file that hold nothing; None: the database has no such file."""
        return self._database.free_bytes()

    def vacuum(self, *, alone: bool) -> Iterator[int]:
        """Give free space back, as far as the database can; yield the bytes still free; see `Database.vacuum`."""
        for left in retention.vacuum(self._database, alone=alone):
            yield left
            time.sleep(PAUSE_S)
