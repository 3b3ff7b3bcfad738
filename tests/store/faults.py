"""A database whose writer fails where a test says: faults enter through the port, production code holds no hooks."""

from __future__ import annotations

import sqlite3
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

import psycopg

from dagbok.store.database import Database
from dagbok.store.writer import Statement, Writer

#: Called before (`False`) and after (`True`) each commit; raises what the commit shall raise.
Fault = Callable[[bool], None]


def away(database: Database) -> Exception:
    """Return what the driver of `database` raises when it is gone."""
    if database.name.startswith("sqlite"):
        error = sqlite3.OperationalError("disk I/O error")
        error.sqlite_errorcode = sqlite3.SQLITE_IOERR
        return error
    return psycopg.OperationalError("server closed the connection unexpectedly")


class FaultyWriter:
    """A writer whose commits go wrong as `faults` say, one each, and whose connection is then of no use."""

    def __init__(self, writer: Writer, faults: deque[Fault | None]) -> None:
        self._writer = writer
        self._faults = faults
        self._broken = False

    def begin(self) -> None:
        self._writer.begin()

    def run(self, statement: Statement, rows: Sequence[tuple[Any, ...]]) -> int:
        return self._writer.run(statement, rows)

    def select(self, statement: Statement, row: tuple[Any, ...]) -> list[tuple[Any, ...]]:
        return self._writer.select(statement, row)

    def commit(self) -> None:
        fault = self._faults.popleft() if self._faults else None
        if fault:
            fault(False)
        self._writer.commit()
        if fault:
            fault(True)

    def rollback(self) -> None:
        self._writer.rollback()

    def close(self) -> None:
        self._writer.close()


class FaultyDatabase:
    """Everything of a database but its writer."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self.faults: deque[Fault | None] = deque()
        self.unreachable = 0  # how many times in a row connecting fails from now on

    def __getattr__(self, name: str) -> Any:
        return getattr(self._database, name)

    def writer(self) -> Any:
        if self.unreachable:
            self.unreachable -= 1
            raise away(self._database)
        return FaultyWriter(self._database.writer(), self.faults)
