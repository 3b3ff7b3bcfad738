"""Calls that are tried again because nobody knows what became of the last try: what that one did is not done again.

A commit of the journal is settled by the fence. These have none: a deletion that happened finds nothing to delete, an
answer that was written meets itself as the answer of somebody else, and a command would be there twice.
"""

from __future__ import annotations

from collections.abc import Mapping

import sqlalchemy as sa
from sqlalchemy import select

from dagbok.domain.ids import ExecutionId
from dagbok.domain.values import Json
from dagbok.errors import NotFound
from dagbok.store import takeover
from dagbok.store.database import Database
from dagbok.store.schema import sub_steps


class Deletion:
    """The deletion of an execution: `run` until it returns."""

    def __init__(self, database: Database, execution_id: ExecutionId, *, only_ended: bool = False) -> None:
        self._database = database
        self._execution_id = execution_id
        self._only_ended = only_ended
        self._number: int | None = None  # how many sub-steps it had before the first try

    def run(self) -> int:
        """Return how many sub-steps the execution had. Raises as `takeover.delete`."""
        if self._number is None:
            self._number = self._count()
            return takeover.delete(self._database, self._execution_id, only_ended=self._only_ended)
        try:
            return takeover.delete(self._database, self._execution_id, only_ended=self._only_ended)
        except NotFound:  # the try whose answer was lost has deleted it
            return self._number

    def _count(self) -> int:
        counted = select(sa.func.count()).where(sub_steps.c.execution_id == self._execution_id)
        with self._database.reading() as connection:
            return int(connection.execute(counted).scalar_one())


class Asking:
    """The writing of one command: `run` until it returns."""

    def __init__(
        self,
        database: Database,
        execution_id: ExecutionId,
        kind: str,
        data: Mapping[str, Json],
        by: str | None,
        at_ms: int,
        wait: str | None,
    ) -> None:
        self._database = database
        self._execution_id = execution_id
        self._kind = kind
        self._data = data
        self._by = by
        self._at_ms = at_ms
        self._wait = wait
        self._tried = False

    def run(self) -> int:
        """Return the number of the command. Raises as `takeover.write_command`."""
        again, self._tried = self._tried, True
        return takeover.write_command(
            self._database, self._execution_id, self._kind, self._data, self._by,
            at_ms=self._at_ms, wait=self._wait, again=again,
        )  # fmt: skip
