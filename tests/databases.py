"""Databases of PostgreSQL that tests borrow: copies of a migrated template, emptied and lent again.

A copy is three hundred files, made and removed: a tenth of a second of the processor for each test, and more than most
of them take. One that comes back as it went, but for rows, is emptied and lent under another name, so that whoever
still knows the old one stays outside. One whose tables, settings or rights were touched is dropped.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

import psycopg
from psycopg import sql

import postgres

#: What belongs to a database beside the rows of tests: what is defined in it, may be done in it, and is set for it.
_SHAPE: Final = b"""
WITH own AS (SELECT * FROM pg_class WHERE relnamespace = 'public'::regnamespace)
SELECT string_agg(line, chr(10) ORDER BY line) FROM (
    SELECT concat_ws(' ', relname, relkind, relpersistence, relowner, relacl, reloptions) FROM own
    UNION ALL SELECT concat_ws(' ', attrelid::regclass, attname, attnum, atttypid, attnotnull, attacl, atthasdef)
        FROM pg_attribute WHERE attrelid IN (SELECT oid FROM own)
    UNION ALL SELECT concat_ws(' ', conrelid::regclass, pg_get_constraintdef(oid)) FROM pg_constraint
        WHERE connamespace = 'public'::regnamespace
    UNION ALL SELECT concat_ws(' ', tgrelid::regclass, tgname, tgenabled) FROM pg_trigger WHERE NOT tgisinternal
    UNION ALL SELECT concat_ws(' ', indexrelid::regclass, pg_get_indexdef(indexrelid)) FROM pg_index
        WHERE indrelid IN (SELECT oid FROM own)
    UNION ALL SELECT concat_ws(' ', proname, prosrc) FROM pg_proc WHERE pronamespace = 'public'::regnamespace
    UNION ALL SELECT concat_ws(' ', nspname, nspowner, nspacl) FROM pg_namespace WHERE nspname !~ '^pg_(toast_)?temp'
    UNION ALL SELECT concat_ws(' ', setrole, setconfig) FROM pg_db_role_setting
        WHERE setdatabase IN (0, (SELECT oid FROM pg_database WHERE datname = current_database()))
    UNION ALL SELECT concat_ws(' ', datdba, datallowconn, datconnlimit, datacl) FROM pg_database
        WHERE datname = current_database()
    UNION ALL SELECT alembic_version::text FROM alembic_version
    UNION ALL SELECT schema_info::text FROM schema_info
) AS lines(line)
"""
_OTHERS: Final = b"""
SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity
WHERE datname = current_database() AND pid <> pg_backend_pid()
"""
_TABLES: Final = b"""
SELECT relname FROM pg_class
WHERE relnamespace = 'public'::regnamespace AND relkind = 'r' AND relname <> ALL(%s)
"""
_RESTART: Final = b"""
SELECT setval(sequencename::regclass, 1, false) FROM pg_sequences
WHERE schemaname = 'public' AND last_value IS NOT NULL
"""
#: Rows that the template has, and that `_SHAPE` compares.
_KEPT: Final = ("alembic_version", "schema_info")


class Lender:
    """What lends the databases of one server."""

    def __init__(self, server: postgres.Server, template: str) -> None:
        self._server, self._template = server, template
        self._free: list[str] = []
        with self._connected(template) as connection:
            self._shape = connection.execute(_SHAPE).fetchone()
            tables = connection.execute(_TABLES, [list(_KEPT)]).fetchall()
        self._tables = [str(name) for (name,) in tables]

    @contextmanager
    def lent(self) -> Iterator[str]:
        """Yield the name of a migrated database without rows, which nobody else has and nobody has had by that name."""
        name = self._free.pop() if self._free else self._server.create_database(self._template)
        yield name
        try:
            with self._connected(name) as connection:
                connection.execute(_OTHERS)
                as_it_went = connection.execute(_SHAPE).fetchone() == self._shape
                if as_it_went:
                    self._empty(connection)
            if as_it_went:
                self._free.append(self._server.rename_database(name))
                return
        except psycopg.Error:  # nobody may connect any more, say, or a table is gone
            pass
        self._server.drop_database(name)

    def _connected(self, name: str) -> psycopg.Connection[tuple[object, ...]]:
        return psycopg.connect(self._server.url(name), autocommit=True)

    def _empty(self, connection: psycopg.Connection[tuple[object, ...]]) -> None:
        one = sql.SQL("SELECT {} WHERE EXISTS (SELECT FROM {})")
        each = [one.format(table, sql.Identifier(table)) for table in self._tables]
        found = connection.execute(sql.SQL(" UNION ALL ").join(each)).fetchall()
        if found:
            tables = sql.SQL(", ").join(sql.Identifier(str(name)) for (name,) in found)
            connection.execute(sql.SQL("TRUNCATE {} RESTART IDENTITY CASCADE").format(tables))
        connection.execute(_RESTART)  # numbers may have been taken though the rows are gone
