"""The limit of the store: the same rows as Dagbok's in the same tables, written by the driver and nothing else.

The rows are ready before the clock starts, nobody decides what may run, and nothing runs: what is left is what driver,
database and disk cost. On PostgreSQL by `COPY` and by one UPDATE for many rows, on SQLite by statements over several
rows, which were the fastest of what the drivers can do; durability is as Dagbok's, SQLite in WAL mode with
`synchronous=FULL`, PostgreSQL as it is shipped.
"""

from __future__ import annotations

import itertools
import sqlite3
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, closing, nullcontext
from functools import partial
from typing import Any

import orjson
import psycopg
from sqlalchemy.dialects import postgresql

from benchmarks import program
from benchmarks.program import Measured, Orders
from benchmarks.subjects.rows import COUNTERS_SET, HEADER_KEY, HEADER_SET, STEP_KEY, STEP_SET, Group, Row, groups
from benchmarks.workloads import Unit
from dagbok.store import migrations, schema
from dagbok.store.database import Database

#: From so many rows on PostgreSQL's ways for many rows are faster.
MANY = 16
#: So many rows a statement takes at once on SQLite. 8 took a tenth more of the processor, 256 as well.
GROUP = 32

Commit = Callable[[], object]
#: Gets all of a group ready, and returns what commits it.
Writer = Callable[[Group], Commit]


class Raw:
    """Writes units by a connection of its own."""

    def __init__(self, writer: Writer, count: Callable[[], int], version: str) -> None:
        self._writer = writer
        self._count = count
        self._version = version
        self._before = 0
        self._commits: list[Commit] = []
        self._runs = itertools.count()

    async def prepare(self, unit: Unit) -> None:
        """Make the rows."""
        self._commits = [self._writer(group) for group in groups(unit, next(self._runs))]
        self._before = self._count()

    async def run(self, unit: Unit) -> None:
        """Commit them, one group after the other."""
        for commit in self._commits:
            commit()

    async def check(self, unit: Unit, done: None) -> None:
        """Count the sub-steps that completed and have a result."""
        program.expect(unit, self._count() - self._before)

    def more(self, _: Measured) -> dict[str, Any]:
        """Tell what wrote."""
        return {"version": self._version}


def sqlite_writer(connection: sqlite3.Connection) -> Writer:
    """Return what writes groups to SQLite."""

    def ready(group: Group) -> Commit:
        work: list[tuple[Callable[[str, Sequence[Any]], object], str, Sequence[Any]]] = []

        def add(rows: Sequence[Row], one: str, several: str) -> None:
            together = len(rows) // GROUP * GROUP
            for first in range(0, together, GROUP):
                work.append(
                    (connection.execute, several, tuple(itertools.chain.from_iterable(rows[first : first + GROUP])))
                )
            if together < len(rows):
                work.append((connection.executemany, one, rows[together:]))

        for table, (columns, rows) in group.inserts.items():
            several = f"INSERT INTO {table} ({', '.join(columns)}) {_values(len(columns))}"
            add(rows, _insert(table, columns, "?"), several)
        for table, columns, key, changed in _updates(group):
            names = (*columns, *key)
            places = {name: f"r.column{number}" for number, name in enumerate(names, 1)}
            several = _update_from(table, columns, key, places, f"({_values(len(names))}) AS r")
            add(changed, _update(table, columns, key, "?"), several)

        def commit() -> None:
            connection.execute("BEGIN IMMEDIATE")
            for execute, text, values in work:
                execute(text, values)
            connection.execute("COMMIT")

        return commit

    return ready


def postgresql_writer(connection: psycopg.Connection[Any]) -> Writer:
    """Return what writes groups to PostgreSQL."""
    cursor = connection.cursor()
    types = {
        f"{table.name}.{column.name}": column.type.compile(postgresql.dialect())  # type: ignore[no-untyped-call]  # SQLAlchemy's own gap
        for table in (schema.dag_executions, schema.sub_steps)
        for column in table.c
    }

    def update(table: str, columns: Sequence[str], key: Sequence[str], rows: Sequence[Row]) -> Commit:
        if len(rows) < MANY:
            return partial(cursor.executemany, _update(table, columns, key, "%s"), rows)
        names = (*columns, *key)
        kinds = {name: types[f"{table}.{name}"] for name in names}
        # JSON travels in it as text, which is what the column is filled from.
        listed = ", ".join(f"{name} {'text' if kind == 'JSON' else kind}" for name, kind in kinds.items())
        places = {name: f"r.{name}{'::json' if kind == 'JSON' else ''}" for name, kind in kinds.items()}
        data = orjson.dumps([dict(zip(names, row, strict=True)) for row in rows]).decode()
        text = _update_from(table, columns, key, places, f"json_to_recordset(%s) AS r({listed})")
        return partial(cursor.execute, text, (data,))

    def insert(table: str, columns: Sequence[str], rows: Sequence[Row]) -> Commit:
        if len(rows) < MANY:
            return partial(cursor.executemany, _insert(table, columns, "%s"), rows)

        def copy_in() -> None:
            with cursor.copy(f"COPY {table} ({', '.join(columns)}) FROM STDIN") as copy:
                for row in rows:
                    copy.write_row(row)

        return copy_in

    def ready(group: Group) -> Commit:
        work = [insert(table, columns, rows) for table, (columns, rows) in group.inserts.items()]
        work += [update(*each) for each in _updates(group)]
        sizes = (*(len(rows) for _, rows in group.inserts.values()), *(len(rows) for *_, rows in _updates(group)))
        # One round trip for all statements; COPY knows none of that.
        together = max(sizes) < MANY

        def commit() -> None:
            with connection.pipeline() if together else nullcontext():
                cursor.execute("BEGIN")
                for each in work:
                    each()
                cursor.execute("COMMIT")

        return commit

    return ready


def _updates(group: Group) -> list[tuple[str, Sequence[str], Sequence[str], Sequence[Row]]]:
    """Return table, changed columns, key and rows of each update that there is."""
    updates: list[tuple[str, Sequence[str], Sequence[str], Sequence[Row]]] = [
        ("dag_executions", HEADER_SET, HEADER_KEY, group.headers),
        ("dag_executions", COUNTERS_SET, HEADER_KEY, group.counters),
        ("sub_steps", STEP_SET, STEP_KEY, group.steps),
    ]
    return [each for each in updates if each[3]]


def _insert(table: str, columns: Sequence[str], mark: str) -> str:
    return f"INSERT INTO {table} ({', '.join(columns)}) VALUES ({', '.join([mark] * len(columns))})"


def _update(table: str, columns: Sequence[str], key: Sequence[str], mark: str) -> str:
    changed = ", ".join(f"{name} = {mark}" for name in columns)
    return f"UPDATE {table} SET {changed} WHERE {' AND '.join(f'{name} = {mark}' for name in key)}"


def _update_from(table: str, columns: Sequence[str], key: Sequence[str], places: Mapping[str, str], source: str) -> str:
    """Return the update of several rows, whose values are in `source`, at `places`."""
    changed = ", ".join(f"{name} = {places[name]}" for name in columns)
    found = " AND ".join(f"{table}.{name} = {places[name]}" for name in key)
    return f"UPDATE {table} SET {changed} FROM {source} WHERE {found}"


def _values(width: int) -> str:
    row = f"({', '.join('?' * width)})"
    return f"VALUES {', '.join([row] * GROUP)}"


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
            for pragma in ("synchronous=FULL", "foreign_keys=ON", "cache_size=-32768"):
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
