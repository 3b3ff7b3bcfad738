"""What an error of a driver means: does it speak of the database or of the rows at hand, and what can be done about it?

Trouble with the database (away, full, locked, read-only, without the rights or tables it had) is waited out: the rows
are as good as before. Only what the rows themselves cause may fail their execution. Names both dialects, as
`store/database.py` does.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import psycopg
import sqlalchemy as sa

from dagbok.errors import Misconfigured, StoreUnavailable

# SQLite's primary result codes that speak of the file, the disk or another process, and what to do about each.
_SQLITE: Final = {
    sqlite3.SQLITE_PERM: "its file may not be used by this user",
    sqlite3.SQLITE_BUSY: "another program has been writing to it for some seconds; end that",
    sqlite3.SQLITE_LOCKED: "",
    sqlite3.SQLITE_NOMEM: "this computer is out of memory",
    sqlite3.SQLITE_READONLY: "let this user write its file and folder, and see that the disk is mounted for writing",
    sqlite3.SQLITE_INTERRUPT: "",
    sqlite3.SQLITE_IOERR: "see that its disk is there, healthy and not full",
    sqlite3.SQLITE_CORRUPT: "the file is damaged; stop, keep a copy of it, and restore a backup",
    sqlite3.SQLITE_FULL: "free some space on its disk",
    sqlite3.SQLITE_CANTOPEN: "see that the file is there, and that this user may write it and its folder",
    sqlite3.SQLITE_PROTOCOL: "",
    sqlite3.SQLITE_NOTADB: "the file is no database; see that it is the right one, and if it was one, restore a backup",
}

_ROOM_BYTES: Final = 65_536  # more than SQLite needs to begin to write

# PostgreSQL's error classes that speak of the rows: cardinality, data, constraint, syntax, view option, limit of the
# program (an index row too large). https://www.postgresql.org/docs/current/errcodes-appendix.html
_ROWS: Final = frozenset({"21", "22", "23", "42", "44", "54"})
# Of class 42, those that speak of what the database has and allows; our statements are the same as yesterday.
_SCHEMA: Final = {
    "42501": "give this user the rights on the tables again (GRANT)",
    "42P01": "`dagbok db upgrade` makes the tables",
    "42703": "its tables are not Dagbok's, or not this release's",
    "42704": "its tables are not Dagbok's, or not this release's",
    "42883": "its tables are not Dagbok's, or not this release's",
    "42P10": "an index of its tables was dropped",
}
# What to do about some of the others, by code or by class.
_POSTGRESQL: Final = {
    "25006": "it is read-only: a standby, or default_transaction_read_only is on",
    "53100": "free some space on the server's disk",
    "53200": "the server is out of memory",
    "53300": "end some of its sessions, or raise max_connections",
    "55P03": "another session has been holding a lock on these rows for some seconds; pg_locks shows which",
    "57014": "see what statement_timeout the server gives this user",
    "58": "see that the server's disk is there and healthy",
    "XX": "see the server's log",
}


def speaks_of_database(exc: BaseException) -> bool:
    """Return whether `exc` speaks of the database (gone, full, locked, read-only) and not of the rows written."""
    exc = _driver_error(exc)
    if isinstance(exc, (StoreUnavailable, OSError, MemoryError, sa.exc.TimeoutError)):
        return True
    if isinstance(exc, sqlite3.Error):
        code = getattr(exc, "sqlite_errorcode", None)
        if code is None:
            return "closed database" in str(exc)
        return code & 0xFF in _SQLITE or lacks_table(exc)
    if isinstance(exc, psycopg.Error):
        if exc.sqlstate:
            return exc.sqlstate[:2] not in _ROWS or exc.sqlstate in _SCHEMA
        return isinstance(exc, (psycopg.OperationalError, psycopg.InterfaceError))
    return False


def lacks_table(exc: BaseException) -> bool:
    """Return whether `exc`, an error of a driver, says that a table is not there."""
    return isinstance(exc, psycopg.errors.UndefinedTable) or str(exc).startswith("no such table")


def advice(exc: BaseException, path: Path | None = None) -> str:
    """Return what to do about `exc`, an error of a driver; empty where its own words have to do.

    Args:
        path: Of the file, on SQLite, which says "disk I/O error" also where the disk has no room for a file beside it.
    """
    exc = _driver_error(exc)
    if isinstance(exc, sqlite3.Error):
        code = (getattr(exc, "sqlite_errorcode", None) or 0) & 0xFF
        if code in (sqlite3.SQLITE_IOERR, sqlite3.SQLITE_CANTOPEN) and path is not None and _is_full(path):
            return f"its disk is full: {_SQLITE[sqlite3.SQLITE_FULL]}"
        return _SQLITE.get(code, "")
    if isinstance(exc, psycopg.Error) and exc.sqlstate:
        code = exc.sqlstate
        return _SCHEMA.get(code) or _POSTGRESQL.get(code) or _POSTGRESQL.get(code[:2], "")
    return ""


def _is_full(path: Path) -> bool:
    try:
        disk = os.statvfs(path.parent)
    except OSError:
        return False
    return disk.f_bavail * disk.f_frsize < _ROOM_BYTES


def words(exc: BaseException) -> str:
    """Return what `exc` says, in one line."""
    return " ".join(str(exc).split())


def _driver_error(exc: BaseException) -> BaseException:
    """Return the error of the driver that lies below `exc`, if `exc` only tells of it in other words."""
    return next((inner for inner in _below(exc) if isinstance(inner, (sqlite3.Error, psycopg.Error))), exc)


def _below(exc: BaseException) -> Iterator[BaseException]:
    while isinstance(exc, (sa.exc.DBAPIError, Misconfigured)):
        inner = exc.orig if isinstance(exc, sa.exc.DBAPIError) else exc.__cause__
        if inner is None:
            return
        yield inner
        exc = inner
