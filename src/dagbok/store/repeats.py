"""Calls that are tried again because nobody knows what became of the last try: what that one did is not done again.

A commit of the journal is settled by the fence. These have none: a deletion that happened finds nothing to delete, an
answer that was written meets itself as the answer of somebody else, and a command would be there twice.
"""

from __future__ import annotations

from collections.abc import Mapping

import sqlalchemy as sa
from sqlalchemy import select

from dagbok.domain import values
from dagbok.domain.ids import ExecutionId
from dagbok.domain.values import Json
from dagbok.errors import NotFound
from dagbok.store import takeover
from dagbok.store.database import Database
from dagbok.store.schema import commands, sub_steps


class Deletion:
    """The deletion of an execution: `run` until it returns."""

    def __init__(self, database: Database, execution_id: ExecutionId) -> None:
        self._database = database
        self._execution_id = execution_id
        self._number: int | None = None  # how many sub-steps it had before the first try

    def run(self) -> int:
        """Return how many sub-steps the execution had. Raises as `takeover.delete`."""
        if self._number is None:
            self._number = self._count()
            return takeover.delete(self._database, self._execution_id)
        try:
            return takeover.delete(self._database, self._execution_id)
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
        if self._tried and (number := self._find()) is not None:
            return number
        self._tried = True
        return takeover.write_command(
            self._database, self._execution_id, self._kind, self._data, self._by, at_ms=self._at_ms, wait=self._wait
        )

    def _find(self) -> int | None:
        """Return the number of the command if an earlier try has written it.

        An equal one of somebody else in this very moment would do as well: it asks the same.
        """
        of = commands.c
        query = select(of.id, of.data).where(
            of.execution_id == self._execution_id, of.kind == self._kind, of.at == self._at_ms,
            of.wait.is_not_distinct_from(self._wait), of.by.is_not_distinct_from(self._by),
        )  # fmt: skip
        with self._database.reading() as connection:
            found = connection.execute(query.order_by(of.id)).all()
        return next((int(number) for number, text in found if values.decode(text) == dict(self._data)), None)
