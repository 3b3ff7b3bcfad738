"""What the database says while no victim lives: all rows, and whether the database itself is sound.

Of an SQLite database a copy is read, write-ahead log and all: to open the file itself would recover its log, and to
close it again would write that back, and both are for the next victim to get right.
"""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import psycopg
import sqlalchemy as sa

import laws
import postgres
from dagbok.store import migrations
from dagbok.store.database import Database
from dagbok.store.schema import dag_executions, events, sub_steps
from laws import Written


@dataclass(frozen=True)
class Look:
    """The database at one moment."""

    offset: int  # of the side log: what stands before it was written before the look
    executions: Mapping[str, Written]
    size_bytes: int
    tables: bool = True  # False: nobody has made them yet
    faults: list[str] = field(default_factory=list)  # of the database itself


class Place(Protocol):
    """A database of its own for one round."""

    kind: str
    url: str

    def look(self, offset: int) -> Look:
        """Read everything."""
        ...

    def remove(self) -> None:
        """Remove it; it is kept where something was wrong."""
        ...


class SQLite:
    """A file."""

    kind = "SQLite"

    def __init__(self, folder: Path) -> None:
        self._file = folder / "dagbok.db"
        self._copy = folder / "look.db"
        self.url = f"sqlite:///{self._file}"

    def look(self, offset: int) -> Look:
        if not self._file.exists():
            return Look(offset, {}, 0, tables=False)
        names = ("", "-wal", "-shm")
        for name in names:
            source, copy = Path(f"{self._file}{name}"), Path(f"{self._copy}{name}")
            copy.unlink(missing_ok=True)
            if source.exists() and name != "-shm":  # which is made anew from the log
                shutil.copyfile(source, copy)
        with sqlite3.connect(self._copy) as connection:
            faults = [str(row[0]) for row in connection.execute("PRAGMA integrity_check") if row[0] != "ok"]
            faults += [f"foreign key of {row[0]}" for row in connection.execute("PRAGMA foreign_key_check")]
        connection.close()
        return _look(f"sqlite:///{self._copy}", offset, self._copy.stat().st_size, faults)

    def remove(self) -> None:
        for file in self._file.parent.glob("*.db*"):
            file.unlink()


class PostgreSQL:
    """A database of a server."""

    kind = "PostgreSQL"

    def __init__(self, server: postgres.Server) -> None:
        self._server = server
        self._name = server.create_database()
        self.url = server.url(self._name)

    def look(self, offset: int) -> Look:
        with psycopg.connect(self.url) as connection:
            found = connection.execute("SELECT pg_database_size(current_database())").fetchone()
        return _look(self.url, offset, found[0] if found else 0, [])

    def remove(self) -> None:
        self._server.drop_database(self._name)


def _look(url: str, offset: int, size_bytes: int, faults: list[str]) -> Look:
    database = Database.open(url)
    try:
        schema = migrations.current(database)
        if schema is None:
            with database.reading() as connection:
                if names := sa.inspect(connection).get_table_names():
                    faults = [*faults, f"it has tables and no version: a migration was cut in two: {names}"]
            return Look(offset, {}, size_bytes, tables=False, faults=faults)
        if schema != migrations.head():
            faults = [*faults, f"its tables are those of {schema}: a migration was cut in two"]
            return Look(offset, {}, size_bytes, tables=False, faults=faults)
        return Look(offset, laws.read(database), size_bytes, faults=[*faults, *_orphans(database)])
    finally:
        database.close()


def _orphans(database: Database) -> list[str]:
    """Return what is wrong with the tables whose rows no foreign key ties to an execution on PostgreSQL."""
    faults = []
    with database.reading() as connection:
        for table in (sub_steps, events):
            of_none = table.c.execution_id.not_in(sa.select(dag_executions.c.id))
            if number := connection.execute(sa.select(sa.func.count()).where(of_none)).scalar_one():
                faults.append(f"{number} rows of {table.name} belong to no execution")
    return faults
