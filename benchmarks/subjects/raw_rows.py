"""The limit of the store: the same rows as Dagbok's in the same tables, written by the driver and nothing else.

The rows are ready before the clock starts, nobody decides what may run, and nothing runs: what is left is what driver,
database and disk cost. On PostgreSQL by `COPY` and by one UPDATE for many rows, which were the fastest of what the
driver can do; durability is as Dagbok's, SQLite in WAL mode with `synchronous=FULL`, PostgreSQL as it is shipped.
"""

from __future__ import annotations

import sqlite3
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, closing, nullcontext
from typing import Any

import orjson
import psycopg
from sqlalchemy.dialects import postgresql

from benchmarks import program
from benchmarks.program import Measured, Orders
from benchmarks.subjects.rows import HEADER_KEY, HEADER_SET, STEP_KEY, STEP_SET, Group, Row, groups
from benchmarks.workloads import Unit
from dagbok.store import migrations, schema
from dagbok.store.database import Database

#: From so many rows on the ways for many rows are faster.
MANY = 16

Write = Callable[[Group], None]


class Raw:
    """Writes units by a connection of its own."""

    def __init__(self, write: Write, count: Callable[[], int], version: str) -> None:
        self._write = write
        self._count = count
        self._version = version
        self._before = 0
        self._groups: list[Group] = []

    async def prepare(self, unit: Unit) -> None:
        """Make the rows."""
        self._groups = groups(unit)
        self._before = self._count()

    async def run(self, unit: Unit) -> None:
        """Commit them, one group after the other."""
        for group in self._groups:
            self._write(group)

    async def check(self, unit: Unit, done: None) -> None:
        """Count the sub-steps that completed and have a result."""
        program.expect(unit, self._count() - self._before)

    def more(self, _: Measured) -> dict[str, Any]:
        """Tell what wrote."""
        return {"version": self._version}


def sqlite_writer(connection: sqlite3.Connection) -> Write:
    """Return what commits a group on SQLite."""
    header = _update("dag_executions", HEADER_SET, HEADER_KEY, "?")
    step = _update("sub_steps", STEP_SET, STEP_KEY, "?")

    def write(group: Group) -> None:
        connection.execute("BEGIN IMMEDIATE")
        for table, (columns, rows) in group.inserts.items():
            connection.executemany(_insert(table, columns, "?"), rows)
        if group.headers:
            connection.executemany(header, group.headers)
            connection.executemany(step, group.steps)
        connection.execute("COMMIT")

    return write


def postgresql_writer(connection: psycopg.Connection[Any]) -> Write:
    """Return what commits a group on PostgreSQL."""
    cursor = connection.cursor()
    types = {
        f"{table.name}.{column.name}": column.type.compile(postgresql.dialect())  # type: ignore[no-untyped-call]  # SQLAlchemy's own gap
        for table in (schema.dag_executions, schema.sub_steps)
        for column in table.c
    }

    def change(table: str, columns: Sequence[str], key: Sequence[str], rows: list[Row]) -> None:
        if len(rows) < MANY:
            cursor.executemany(_update(table, columns, key, "%s"), rows)
            return
        names = (*columns, *key)
        kinds = {name: types[f"{table}.{name}"] for name in names}
        # JSON travels in it as text, which is what the column is filled from.
        listed = ", ".join(f"{name} {'text' if kind == 'JSON' else kind}" for name, kind in kinds.items())
        changed = ", ".join(f"{name} = r.{name}{'::json' if kinds[name] == 'JSON' else ''}" for name in columns)
        found = " AND ".join(f"{table}.{name} = r.{name}" for name in key)
        data = orjson.dumps([dict(zip(names, row, strict=True)) for row in rows]).decode()
        statement = f"UPDATE {table} SET {changed} FROM json_to_recordset(%s) AS r({listed}) WHERE {found}"
        cursor.execute(statement, (data,))

    def statements(group: Group) -> None:
        cursor.execute("BEGIN")
        for table, (columns, rows) in group.inserts.items():
            if len(rows) < MANY:
                cursor.executemany(_insert(table, columns, "%s"), rows)
                continue
            with cursor.copy(f"COPY {table} ({', '.join(columns)}) FROM STDIN") as copy:
                for row in rows:
                    copy.write_row(row)
        if group.headers:
            change("dag_executions", HEADER_SET, HEADER_KEY, group.headers)
            change("sub_steps", STEP_SET, STEP_KEY, group.steps)
        cursor.execute("COMMIT")

    def write(group: Group) -> None:
        sizes = (*(len(rows) for _, rows in group.inserts.values()), len(group.headers), len(group.steps))
        # One round trip for all statements; COPY knows none of that.
        with connection.pipeline() if max(sizes) < MANY else nullcontext():
            statements(group)

    return write


def _insert(table: str, columns: Sequence[str], mark: str) -> str:
    insert = f"INSERT INTO {table} ({', '.join(columns)}) VALUES ({', '.join([mark] * len(columns))})"
    return f"{insert} ON CONFLICT DO NOTHING" if table == "plans" else insert  # executions may share a plan


def _update(table: str, columns: Sequence[str], key: Sequence[str], mark: str) -> str:
    changed = ", ".join(f"{name} = {mark}" for name in columns)
    return f"UPDATE {table} SET {changed} WHERE {' AND '.join(f'{name} = {mark}' for name in key)}"


_COUNT = "SELECT count(*) FROM sub_steps WHERE status = 'completed' AND result IS NOT NULL"


@asynccontextmanager
async def opened(orders: Orders) -> AsyncIterator[Raw]:
    """Make Dagbok's tables, and connect as its journal does."""
    database = Database.open(orders.url)
    try:
        migrations.upgrade(database)
    finally:
        database.close()
    if orders.url.startswith("sqlite:///"):
        with closing(sqlite3.connect(orders.url.removeprefix("sqlite:///"), isolation_level=None)) as file:
            for pragma in ("synchronous=FULL", "foreign_keys=ON", "cache_size=-32768", "wal_autocheckpoint=4000"):
                file.execute(f"PRAGMA {pragma}")
            yield Raw(
                sqlite_writer(file), lambda: int(file.execute(_COUNT).fetchone()[0]), f"SQLite {sqlite3.sqlite_version}"
            )
        return
    with psycopg.connect(orders.url, autocommit=True, prepare_threshold=0) as session:

        def count() -> int:
            row = session.execute(_COUNT).fetchone()
            assert row is not None, "a count has a row"
            return int(row[0])

        yield Raw(postgresql_writer(session), count, f"psycopg {psycopg.__version__}")


if __name__ == "__main__":
    program.main(opened)
