"""A connection that only writes, on the driver's own cursor: all that the group commit runs goes through here.

SQLAlchemy compiles each statement once (`Database.statement`); per row nothing is left but the driver. Faults of a test
enter here too: it wraps what `Database.writer` returns.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from functools import cache
from itertools import chain
from typing import Any, Final, NamedTuple

from dagbok.store.arrays import Bulk

#: From so many rows on, one statement for all of them beats one for each on PostgreSQL.
MANY_ROWS: Final = 4
#: On SQLite a statement takes so many rows at once, or one: each size is a statement that the driver keeps prepared.
GROUPS: Final = (64, 16, 4)


class RowsOf(NamedTuple):
    """A statement that takes its rows as a list of `VALUES`: what stands before the list, and behind it."""

    before: str
    after: str = ""


class Statement(NamedTuple):
    """SQL for the driver's cursor, and what does the same for many rows faster, where there is such a thing."""

    text: str  #: with numbered parameters
    names: tuple[str, ...]  #: of a row's values, in order
    grouped: RowsOf | None = None  #: the same for several rows
    copy: str | None = None  #: a COPY of the rows
    bulk: Bulk | None = None  #: one statement for all rows


class Writer:
    """One connection, one transaction at a time. Raises the driver's errors as they are; for one thread."""

    def __init__(self, connection: Any, cursor: Any, begin: str) -> None:
        self._connection = connection
        self._cursor = cursor
        self._begin = begin

    def begin(self) -> None:
        """Begin the transaction, with the right to write."""
        self._cursor.execute(self._begin)

    def run(self, statement: Statement, rows: Sequence[tuple[Any, ...]]) -> int:
        """Run `statement` once per row and return how many rows of the table it touched in all."""
        if not rows:
            return 0
        if statement.copy and len(rows) >= MANY_ROWS:
            with self._cursor.copy(statement.copy) as copy:
                write = copy.write_row
                for row in rows:
                    write(row)
        elif statement.bulk and len(rows) >= MANY_ROWS:
            self._cursor.execute(statement.bulk.text, statement.bulk.parameters(rows))
        elif statement.grouped and len(rows) >= GROUPS[-1]:
            return self._in_groups(statement, statement.grouped, rows)
        elif len(rows) == 1:  # for which psycopg need not begin and end a pipeline
            self._cursor.execute(statement.text, rows[0])
        else:
            self._cursor.executemany(statement.text, rows)
        return int(self._cursor.rowcount)

    def _in_groups(self, statement: Statement, grouped: RowsOf, rows: Sequence[tuple[Any, ...]]) -> int:
        """Run it for many rows at once: the driver lets go of the interpreter for each call, and has to get it back."""
        width = len(statement.names)
        done = touched = 0
        for size in GROUPS:
            while done + size <= len(rows):
                values = tuple(chain.from_iterable(rows[done : done + size]))
                self._cursor.execute(_text(grouped, width, size), values)
                touched += self._cursor.rowcount
                done += size
        if done < len(rows):
            self._cursor.executemany(statement.text, rows[done:])
            touched += self._cursor.rowcount
        return touched

    def select(self, statement: Statement, row: tuple[Any, ...]) -> list[tuple[Any, ...]]:
        """Return what `statement` finds."""
        self._cursor.execute(statement.text, row)
        return list(self._cursor.fetchall())

    def commit(self) -> None:
        """Make the transaction durable. An error leaves open whether it is."""
        self._cursor.execute("COMMIT")

    def rollback(self) -> None:
        """Undo the transaction."""
        self._cursor.execute("ROLLBACK")

    def close(self) -> None:
        """Close the connection, whatever state it is in."""
        with suppress(Exception):  # it may be what broke
            self._cursor.close()
        with suppress(Exception):
            self._connection.close()


@cache
def _text(grouped: RowsOf, width: int, rows: int) -> str:
    row = f"({', '.join('?' * width)})"
    return f"{grouped.before} VALUES {', '.join([row] * rows)}{grouped.after}"
