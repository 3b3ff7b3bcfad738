"""How the databases are connected to, so that nobody waits for ever: neither we for them, nor they for us.

A server that died without a word is noticed by TCP; one that lives and says nothing (stopped, stuck, or behind a proxy
that takes bytes and passes none on) is not, and a driver would wait for it until the end of days. Here each wait has a
bound, on both sides: we cut a connection on which nothing was heard for too long, and tell the server how long to wait
for a lock, and for a client that vanished in the middle of a transaction. What a cut commit did is for the rows to say
(`store/commit.py`). Names both dialects, as `store/database.py` does.
"""

from __future__ import annotations

import sqlite3
import time
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, Final, NamedTuple, TypeVar, cast

import psycopg
import sqlalchemy as sa
from psycopg.abc import PQGen
from sqlalchemy.dialects.postgresql.psycopg import PGDialect_psycopg

BUSY_TIMEOUT_S: Final = 5.0  # how long a write waits for another process's write on SQLite
LOCK_TIMEOUT_S: Final = 10  # the same for a row on PostgreSQL, where the server has no bound of its own
SILENCE_S: Final = 30.0  # longer than the server waits for a lock
# After so long the server ends the transaction of a client that says nothing: its locks are in the way of others.
_IDLE_IN_TRANSACTION_S: Final = 30
# Either side asks after 15 s of silence whether the other is there, and gives up on three questions unanswered.
_KEEPALIVE_S, _KEEPALIVE_INTERVAL_S, _KEEPALIVE_COUNT = 15, 5, 3

# One statement: a connection costs one more round trip. What the operator set for a wait is left as it is.
_SETTINGS: Final = f"""
    SELECT set_config('idle_session_timeout', '0', false),
           set_config('tcp_keepalives_idle', '{_KEEPALIVE_S}', false),
           set_config('tcp_keepalives_interval', '{_KEEPALIVE_INTERVAL_S}', false),
           set_config('tcp_keepalives_count', '{_KEEPALIVE_COUNT}', false),
           set_config('tcp_user_timeout', '{int(SILENCE_S * 1000)}', false),
           CASE WHEN current_setting('lock_timeout') = '0'
                THEN set_config('lock_timeout', '{LOCK_TIMEOUT_S}s', false) END,
           CASE WHEN current_setting('idle_in_transaction_session_timeout') = '0'
                THEN set_config('idle_in_transaction_session_timeout', '{_IDLE_IN_TRANSACTION_S}s', false) END
"""
_FIND_MYSELF: Final = "SELECT pid, backend_start FROM pg_stat_activity WHERE pid = pg_backend_pid()"
_END: Final = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid = %s AND backend_start = %s"

_DIALECT: Final[Any] = cast(Any, PGDialect_psycopg)()  # its constructor has no annotations

T = TypeVar("T")


@dataclass(slots=True)
class Patience:
    """How long a server may say nothing while we wait for it. Shared by the connections of one database.

    Any thread may shorten it; those who wait heed it within a tenth of a second.
    """

    seconds: float = field(default_factory=lambda: SILENCE_S)


class Backend(NamedTuple):
    """The server's side of a session. A pid comes round again, its time of birth does not."""

    pid: int
    born: datetime


class Session(psycopg.Connection[Any]):
    """A connection that ends where its server says nothing for longer than its patience."""

    patience = Patience()

    def backend(self) -> Backend:
        """Return which process of the server this talks to."""
        return Backend(*_one(self.execute(_FIND_MYSELF)))

    def end(self, other: Backend) -> None:
        """Let the server end a session of the same user if it is there still: the server may not know that it is over.

        What it holds (a transaction, a lock) would be in the way of the one that takes its place.
        """
        self.execute(_END, other)

    def wait(self, gen: PQGen[T], *arguments: Any, **options: Any) -> T:
        """See `psycopg.Connection`: all that waits for the server after connecting passes here."""
        return super().wait(self._bounded(gen), *arguments, **options)

    def _bounded(self, gen: PQGen[T]) -> PQGen[T]:
        try:
            wanted = next(gen)
            heard_at = time.monotonic()
            while True:
                ready = yield wanted
                if ready:
                    heard_at = time.monotonic()
                elif (silent_s := time.monotonic() - heard_at) > self.patience.seconds:
                    self.pgconn.finish()
                    raise psycopg.OperationalError(
                        f"the server said nothing for {silent_s:.0f} s; the connection was cut"
                    )
                wanted = gen.send(ready)
        except StopIteration as stop:
            result: T = stop.value
            return result


def _one(cursor: psycopg.Cursor[Any]) -> tuple[Any, ...]:
    row: tuple[Any, ...] | None = cursor.fetchone()
    assert row is not None, "such a query has one row"
    return row


def connect_postgresql(url: sa.URL, application_name: str, patience: Patience) -> Session:
    """Return a new connection, in autocommit.

    Raises:
        psycopg.Error: The server cannot be reached, or does not want us.
    """
    _, given = _DIALECT.create_connect_args(url)
    # Where the URL says otherwise, it holds.
    wanted: dict[str, Any] = {
        "connect_timeout": 10,
        "application_name": application_name,
        "keepalives_idle": _KEEPALIVE_S,
        "keepalives_interval": _KEEPALIVE_INTERVAL_S,
        "keepalives_count": _KEEPALIVE_COUNT,
        "tcp_user_timeout": int(SILENCE_S * 1000),
    }
    # As words, not as a URL: libpq and SQLAlchemy read those differently, a space in `options` for one.
    session = Session.connect(autocommit=True, **(wanted | given))
    try:
        session.patience = patience
        session.execute(_SETTINGS)
    except BaseException:
        session.close()
        raise
    return session


def connect_sqlite(path: Path, synchronous: str, *, create: bool) -> sqlite3.Connection:
    """Return a new connection to the file at `path`.

    Args:
        path: Absolute.
        synchronous: FULL, or NORMAL.
        create: Whether to make the file. One that vanished while we use it is missed, not replaced by an empty one.

    Raises:
        sqlite3.Error: The file cannot be opened, or is no database.
    """
    # With `isolation_level=None` the driver begins nothing by itself: before Python 3.12 it knows no other way to keep
    # DDL and reads inside the transaction we mean. https://docs.sqlalchemy.org/en/20/dialects/sqlite.html#pysqlite-serializable
    connection = sqlite3.connect(
        f"{path.as_uri()}?mode={'rwc' if create else 'rw'}",
        uri=True,
        isolation_level=None,
        timeout=BUSY_TIMEOUT_S,
        check_same_thread=False,
    )
    try:
        if connection.execute("PRAGMA journal_mode").fetchone()[0] != "wal":
            connection.execute("PRAGMA journal_mode=WAL")
        connection.execute(f"PRAGMA synchronous={'NORMAL' if synchronous == 'NORMAL' else 'FULL'}")
        connection.execute("PRAGMA foreign_keys=ON")
        connection.execute("PRAGMA cache_size=-32768")
        connection.execute("PRAGMA journal_size_limit=67108864")
    except BaseException:
        connection.close()
        raise
    return connection
