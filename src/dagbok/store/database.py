"""The file that knows which database it talks to: SQLite (a file, WAL) or PostgreSQL 15+ (psycopg 3).

Everybody else says *read*, *write* or *statement* and gets the same behaviour from both: a read sees one snapshot, a
write is one explicit transaction that takes its lock at the start, JSON goes in and comes out as text, and the errors
of the drivers arrive as ours. What the group commit runs thousands of times a second is compiled once and handed to the
driver's own cursor (`store/writer.py`); everything else is SQLAlchemy Core. How to connect and what an error means have
files beside this one (`store/connections.py`, `store/trouble.py`).
"""

from __future__ import annotations

import math
import re
import sqlite3
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, Literal

import psycopg
import sqlalchemy as sa
from psycopg.types.json import set_json_loads
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.dialects.postgresql.psycopg import PGDialect_psycopg
from sqlalchemy.dialects.sqlite.pysqlite import SQLiteDialect_pysqlite
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.schema import CreateColumn
from sqlalchemy.types import UserDefinedType

from dagbok.errors import Conflict, DagbokError, Misconfigured, StoreRejected, StoreUnavailable
from dagbok.store import trouble
from dagbok.store.arrays import ELEMENTS, Bulk, take_arrays
from dagbok.store.connections import BUSY_TIMEOUT_S, Backend, Patience, Session, connect_postgresql, connect_sqlite
from dagbok.store.lock import EngineLock, FileLock, SessionLock, read_file_owner, read_session_owner
from dagbok.store.owner import Owner
from dagbok.store.writer import RowsOf, Statement, Writer

_PGDialect: Any = PGDialect_psycopg  # its constructor has no annotations

# A bind parameter of a compiled statement; not the cast that may follow it.
_BIND: Final = re.compile(r"(?<!:):p_(\w+)")
_SCHEME: Final = re.compile(r"[\w+]+://")
_UPDATE_FROM: Final = (3, 33)  # the SQLite that learned it; a little older ones take fewer parameters, too
_INCREMENTAL: Final = 2  # of SQLite's auto_vacuum: free pages are given back when asked for
_VACUUM_PAGES: Final = 500  # in one step, for which others wait
# Every statement of the group commit finds its rows by their keys. PostgreSQL keeps a plan that it made while a table
# was short, for a minute or more: to read all of it, however long it has become.
_BY_KEY_ALONE: Final = "SET enable_seqscan = off"
_ROW_HEADER_BYTES: Final = 28  # of a row on PostgreSQL, with the pointer to it
# `reading` and `writing` tell the `begin` listener of SQLite what to begin.
_WRITES: Final = "dagbok_writes"


class JsonColumn(UserDefinedType[str]):
    """JSON, bound and read as text: TEXT on SQLite (JSON would get NUMERIC affinity), json on PostgreSQL."""

    cache_ok = True

    def get_col_spec(self, **_: Any) -> str:
        """Return the type's name in DDL."""
        return "TEXT"


@compiles(JsonColumn, "postgresql")
def _json_of_postgresql(*_: object, **__: object) -> str:
    return "JSON"


class TransactionId(UserDefinedType[str]):
    """PostgreSQL's `xid8`; a column of it exists there alone."""

    cache_ok = True

    def get_col_spec(self, **_: Any) -> str:
        """Return the type's name in DDL."""
        return "XID8"


@compiles(CreateColumn, "sqlite")
def _without_transaction_ids(element: Any, compiler: Any, **options: Any) -> str | None:
    return None if isinstance(element.element.type, TransactionId) else compiler.visit_create_column(element, **options)


#: A growing number of the database's own. SQLite numbers rows itself only where the type is INTEGER.
RowId = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
#: Table options: a number of a deleted row is never given again (PostgreSQL's sequences keep that anyway).
NEVER_REUSED: Final[dict[str, Any]] = {"sqlite_autoincrement": True}


def only_where(condition: str) -> dict[str, Any]:
    """Return the options of an index over the rows that meet `condition`."""
    return {"sqlite_where": sa.text(condition), "postgresql_where": sa.text(condition)}


def filled_to(percent: int) -> dict[str, Any]:
    """Return the options of a table whose pages keep room for the next versions of their rows, where that matters."""
    return {"postgresql_with": {"fillfactor": percent}}


def where_checked_cheaply(key: sa.ForeignKeyConstraint) -> sa.ForeignKeyConstraint:
    """Return `key` as one that PostgreSQL does without: it runs a query for each new row (SQLite: 0.2 us)."""
    return key.ddl_if(dialect="sqlite")


class Database:
    """One database, open. Its methods are safe to call from any thread; `open` makes one, `close` ends it."""

    def __init__(self, url: sa.URL, path: Path | None, synchronous: str) -> None:
        self._path = path  # of the SQLite file; None: PostgreSQL
        self._synchronous = synchronous
        self._patience = Patience()
        # An index over millions of rows takes its time, and so does another process's. `close` ends it.
        self._migrating = Patience(math.inf)
        self._reached = False
        self._writing: Backend | None = None  # of the last writer, on PostgreSQL
        self._positional = SQLiteDialect_pysqlite(paramstyle="named") if path else _PGDialect(paramstyle="named")
        named = sa.URL.create("sqlite+pysqlite", database=str(path)) if path else url
        self._engine = sa.create_engine(named, creator=self._connect_pooled, pool_pre_ping=path is None)
        sa.event.listen(self._engine, "handle_error", _forget_session)
        if path:
            sa.event.listen(self._engine, "begin", _begin_on_sqlite)
        else:
            sa.event.listen(self._engine, "checkin", _forget_read_only)

    @classmethod
    def open(cls, url: str, *, synchronous: Literal["FULL", "NORMAL"] = "FULL") -> Database:
        """Return the database at `url`, reached once to show that it can be.

        Args:
            url: `sqlite:///FILE` or `postgresql://...` (also `postgres://`). A database in memory is refused.
            synchronous: Of SQLite; NORMAL may lose the last commits at a power cut.

        Raises:
            Misconfigured: Nothing will ever come of this URL; the message says why.
            StoreUnavailable: The server does not answer now.
        """
        parsed = _parse(url)
        database = cls(parsed, _sqlite_path(parsed), synchronous)
        try:
            database._reach()
        except BaseException:
            database.close()
            raise
        return database

    @property
    def name(self) -> str:
        """What people may see of the URL: no password, which may be in its query, too."""
        return (
            f"sqlite:///{self._path}"
            if self._path
            else self._engine.url.set(drivername="postgresql", query={}).render_as_string()
        )

    @property
    def dialect(self) -> str:
        """Which of the two it is: `sqlite` or `postgresql`."""
        return "sqlite" if self._path else "postgresql"

    def close(self) -> None:
        """Close every connection that nobody uses, and on PostgreSQL cut one that migrates or waits to."""
        self._migrating.seconds = 0.0
        self._engine.dispose()

    @contextmanager
    def reading(self) -> Iterator[sa.Connection]:
        """Yield a connection whose reads all see one snapshot.

        Raises:
            StoreUnavailable: The database does not answer; try again.
            Misconfigured: It holds no tables of Dagbok.
        """
        options: dict[str, Any] = (
            {} if self._path else {"isolation_level": "REPEATABLE READ", "postgresql_readonly": True}
        )
        with self.translated(), self._engine.connect().execution_options(**options) as connection:
            yield connection

    @contextmanager
    def cursor(self, connection: sa.Connection) -> Iterator[Any]:
        """Yield the driver's cursor for what `statement` compiles, within the transaction of `connection`.

        Raises as `reading`.
        """
        if not connection.in_transaction():
            connection.begin()  # which is ended with the connection
        driver: Any = connection.connection.driver_connection
        cursor: Any = driver.cursor() if self._path else psycopg.RawCursor(driver)
        try:
            yield cursor
        except (sqlite3.Error, psycopg.Error) as exc:
            if trouble.speaks_of_database(exc):
                connection.invalidate(exc)  # as `_forget_session`
            raise self.translate(exc) from exc

    @contextmanager
    def writing(self) -> Iterator[sa.Connection]:
        """Yield a connection inside one transaction, committed at the end and rolled back by an exception.

        Raises:
            StoreUnavailable: The database does not answer. Whether a commit under way happened is not known.
            StoreRejected: The database refuses the data; nothing was written.
        """
        with (
            self.translated(),
            self._engine.connect().execution_options(**{_WRITES: True}) as connection,
            connection.begin(),
        ):
            yield connection

    @contextmanager
    def translated(self) -> Iterator[None]:
        """Turn errors of the driver that arise within into ours."""
        try:
            yield
        except sa.exc.DBAPIError as exc:
            raise self.translate(exc.orig or exc) from exc
        except sa.exc.TimeoutError as exc:
            raise StoreUnavailable(f"No connection to {self.name} came free: {exc}") from exc

    def translate(self, exc: BaseException) -> DagbokError:
        """Return what `exc`, an error of the driver or one of ours, means to the caller."""
        if isinstance(exc, DagbokError):
            return exc
        if trouble.lacks_table(exc):
            return Misconfigured(
                f"The database {self.name} lacks tables of Dagbok ({trouble.words(exc)}); `dagbok db upgrade` makes "
                "them."
            )
        if not trouble.speaks_of_database(exc):
            return StoreRejected(f"The database refused the data: {trouble.words(exc)}")
        advice = trouble.advice(exc, self._path)
        return StoreUnavailable(
            f"The database {self.name} is not available: {trouble.words(exc)}" + (f"; {advice}." if advice else "")
        )

    def is_away(self, exc: BaseException) -> bool:
        """Return whether `exc` speaks of the database (gone, full, locked, read-only) and not of the rows written."""
        return trouble.speaks_of_database(exc)

    def wait_no_longer_than(self, seconds: float) -> None:
        """Cut connections whose server says nothing for so long, from now on. For any thread."""
        self._patience.seconds = min(self._patience.seconds, seconds)

    def insert(self, table: sa.Table) -> sqlite.Insert | postgresql.Insert:
        """Return an INSERT that knows ON CONFLICT."""
        return sqlite.insert(table) if self._path else postgresql.insert(table)

    def statement(
        self, clause: sa.ClauseElement, *names: str, copy_into: sa.Table | None = None, small: bool = False
    ) -> Statement:
        """Compile `clause` for `Writer`: its bind parameters `p_NAME` take the values of a row in the order of `names`.

        Args:
            clause: Any statement of Core whose only bind parameters are named `p_...`.
            names: What a row holds, in order.
            copy_into: For a plain INSERT of the columns `names`: the table, so that many rows may go by a faster way.
            small: Whether the rows of this INSERT or UPDATE are small; then SQLite may take several at once. It copies
                what an UPDATE is given so: values of 20 kB take twice as long, of 200 kB ten times.
        """
        compiled: Any = clause.compile(dialect=self._positional)
        places = {name: number for number, name in enumerate(names, 1)}
        mark = "?" if self._path else "$"
        text = _BIND.sub(lambda found: f"{mark}{places[found[1]]}", compiled.string)
        columns = self._columns(copy_into, names) if copy_into is not None else None
        if self._path:
            return Statement(text, names, grouped=_grouped(compiled.string, places, columns) if small else None)
        if columns:
            return Statement(text, names, copy=f"COPY {columns} FROM STDIN")
        if isinstance(clause, sa.Update):
            return Statement(text, names, bulk=self._bulk_update(compiled, names))
        return Statement(text, names)

    def _columns(self, table: sa.Table, names: Sequence[str]) -> str:
        quote = self._positional.identifier_preparer.quote
        return f"{quote(table.name)} ({', '.join(map(quote, names))})"

    def _bulk_update(self, compiled: Any, names: Sequence[str]) -> Bulk:
        """Return the UPDATE for many rows at once, given as arrays.

        PostgreSQL prepares CHECK constraints anew for each statement, which costs as much as the update of a row.
        Measured and slower: one JSON array of the rows (half as much again, on both sides), arrays written as text or
        by psycopg, COPY into a temporary table (2 ms a commit).

        The LIMIT, which leaves out none, is for the planner. Of a LIMIT that it does not know it takes a tenth, and of
        arrays that it does not know it takes ten rows: for one row it always goes by the key. For more it would join
        by reading the table while that is short, and keep this plan (see `_BY_KEY_ALONE`).
        """
        kinds = [compiled.binds[f"p_{name}"].type.compile(dialect=self._positional) for name in names]
        arrays = ", ".join(f"${number}::{kind}[]" for number, kind in enumerate(kinds, 1))
        text = _BIND.sub(r"r.\1", compiled.string)
        changes, where, conditions = text.partition("WHERE")
        rows = f"(SELECT * FROM unnest({arrays}) LIMIT ${len(names) + 1}) AS r({', '.join(names)})"  # noqa: S608 - names
        return Bulk(f"{changes} FROM {rows} {where}{conditions}", tuple(ELEMENTS[kind] for kind in kinds))

    def writer(self) -> Writer:
        """Return a new connection of its own for the group commit; the one before is over, also for the server.

        Raises:
            Exception: An error of the driver, for `is_away`.
        """
        driver = self._connect()
        if self._path:
            return Writer(driver, driver.cursor(), "BEGIN IMMEDIATE")
        try:
            driver.execute(_BY_KEY_ALONE)
            take_arrays(driver)
            if self._writing is not None:
                driver.end(self._writing)
            self._writing = driver.backend()
        except BaseException:
            driver.close()
            raise
        driver.prepare_threshold = 0
        # It says BEGIN and COMMIT itself, as on SQLite. Not READ WRITE: an operator may have made reading the default.
        return Writer(driver, psycopg.RawCursor(driver), "BEGIN ISOLATION LEVEL READ COMMITTED")

    def stored_bytes(self, table: sa.Table) -> sa.ColumnElement[int] | None:
        """Return how many bytes the values of a row take on the disk; None: this database does not tell."""
        if self._path:
            return None
        # Each column by itself: of a whole row the server would fetch what lies outside of the table.
        sizes = [sa.func.coalesce(sa.func.pg_column_size(column), 0) for column in table.c]
        return sum(sizes, sa.literal(_ROW_HEADER_BYTES, literal_execute=True))

    def free_bytes(self) -> int | None:
        """Return how much of the SQLite file holds nothing and is used again; None: PostgreSQL does not tell."""
        if not self._path:
            return None
        with self.reading() as connection:
            pages = connection.exec_driver_sql("PRAGMA freelist_count").scalar_one()
            return int(pages) * int(connection.exec_driver_sql("PRAGMA page_size").scalar_one())

    def vacuum(self, tables: Sequence[str], *, alone: bool) -> Iterator[int]:
        """Give free space back to the system, and yield in between how many bytes are left to give.

        On SQLite in small steps that let others write; the first time the whole file has to be rewritten, during which
        nobody writes. On PostgreSQL nobody is held up; the server keeps most of the space, and uses it again.

        Args:
            tables: Those of Dagbok.
            alone: Whether nobody else would be held up.

        Raises:
            Conflict: It would hold up others for long.
            StoreUnavailable: The database does not answer, or is being written to.
        """
        driver = self._connect()  # in autocommit: a vacuum is no part of a transaction
        try:
            if self._path:
                yield from self._vacuum_file(driver, alone)
            else:
                driver.patience = Patience(math.inf)  # it takes its time, and says nothing meanwhile
                driver.execute(f"VACUUM {', '.join(tables)}")
        except (sqlite3.Error, psycopg.Error) as exc:
            raise self.translate(exc) from exc
        finally:
            driver.close()

    def _vacuum_file(self, driver: sqlite3.Connection, alone: bool) -> Iterator[int]:
        def number(name: str) -> int:
            return int(driver.execute(f"PRAGMA {name}").fetchone()[0])

        if number("auto_vacuum") != _INCREMENTAL:
            if not alone:
                raise Conflict(
                    f"The file {self._path} has to be rewritten once before it can shrink beside an engine, and nobody "
                    "can write meanwhile: stop the engine first. Without that its free space is used again."
                )
            driver.execute(f"PRAGMA auto_vacuum={_INCREMENTAL}")
            driver.execute("VACUUM")
        while free := number("freelist_count"):
            yield free * number("page_size")
            driver.execute(f"PRAGMA incremental_vacuum({_VACUUM_PAGES})").fetchall()
        # The file shrinks when the log is written back; that waits for nobody.
        driver.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()

    def serialize_migrations(self, connection: sa.Connection) -> None:
        """Let one process at a time go past here, until the end of its transaction."""
        if self._path:  # BEGIN IMMEDIATE has done it
            return
        session: Any = connection.connection.driver_connection
        session.patience = self._migrating
        connection.detach()  # the next user of a pooled one would inherit that
        connection.exec_driver_sql("SET LOCAL lock_timeout = 0")
        connection.exec_driver_sql("SELECT pg_advisory_xact_lock(hashtext('dagbok migrations'))")

    def engine_lock(self) -> EngineLock:
        """Return the lock of which an engine holds the only one while it writes to this database."""
        if self._path:
            return FileLock(self._path, self._show_writable)
        return SessionLock(_session(self._engine.url, self._patience), self.name)

    def _connect(self) -> Any:
        """Return a new connection of the driver's, which begins and ends no transaction by itself."""
        if self._path:
            return connect_sqlite(self._path, self._synchronous, create=not self._reached)
        return connect_postgresql(self._engine.url, "dagbok", self._patience)

    def _connect_pooled(self) -> Any:
        driver = self._connect()
        if isinstance(driver, Session):
            driver.autocommit = False  # SQLAlchemy expects it so
            set_json_loads(lambda data: data if isinstance(data, str) else bytes(data).decode(), driver)
        return driver

    def _show_writable(self) -> None:
        """Write what changes nothing. Raises StoreUnavailable, with the reason, where nothing can be written."""
        with self.writing() as connection:
            version = connection.exec_driver_sql("PRAGMA user_version").scalar_one()
            connection.exec_driver_sql(f"PRAGMA user_version = {int(version)}")

    def _reach(self) -> None:
        deadline = time.monotonic() + BUSY_TIMEOUT_S
        while True:
            try:
                with self._engine.connect() as connection:
                    self._check(connection)
                self._reached = True
                return
            except sa.exc.DBAPIError as exc:
                # Turning a new file to WAL needs it alone, and SQLite does not wait for that by itself.
                if (
                    getattr(exc.orig, "sqlite_errorcode", 0) & 0xFF == sqlite3.SQLITE_BUSY
                    and time.monotonic() < deadline
                ):
                    time.sleep(0.01)
                    continue
                if self._path:
                    advice = trouble.advice(exc, self._path)
                    raise Misconfigured(
                        f"The file {self._path} cannot be opened as a database: {exc.orig}"
                        + (f"; {advice}." if advice else "")
                    ) from exc
                raise self.translate(exc.orig or exc) from exc

    def _check(self, connection: sa.Connection) -> None:
        if self._path:
            mode = connection.exec_driver_sql("PRAGMA journal_mode").scalar_one()
            if mode != "wal":
                raise Misconfigured(
                    f"The file {self._path} cannot keep a write-ahead log (it says {mode!r}): is it on a network disk?"
                )
        elif (connection.dialect.server_version_info or (0,)) < (15,):
            raise Misconfigured(f"Dagbok needs PostgreSQL 15 or newer; {self.name} is older.")


def _grouped(text: str, places: Mapping[str, int], columns: str | None) -> RowsOf | None:
    """Return the INSERT into `columns`, or the UPDATE, for several rows; None: this SQLite does not know it."""
    if sqlite3.sqlite_version_info < _UPDATE_FROM:
        return None
    if columns:
        return RowsOf(f"INSERT INTO {columns}")
    changes, where, conditions = _BIND.sub(lambda found: f"r.column{places[found[1]]}", text).partition("WHERE")
    return RowsOf(f"{changes} FROM (", f") AS r {where}{conditions}")


def read_owner(url: str) -> Owner | None:
    """Return the engine that owns the database at `url`, without taking its lock; None: nobody does.

    Raises:
        Misconfigured: The URL cannot be used.
        StoreUnavailable: PostgreSQL does not answer.
    """
    parsed = _parse(url)
    if path := _sqlite_path(parsed):
        return read_file_owner(path)
    return read_session_owner(_session(parsed, Patience()))


def _parse(url: str) -> sa.URL:
    # Of what cannot be read, no message nor its cause shows more than how it begins: there may be a password in it.
    scheme = _SCHEME.match(url)
    shown = f"{scheme[0]}..." if scheme else "What was given"
    try:
        parsed = sa.make_url(url)
    except (sa.exc.ArgumentError, ValueError):
        raise Misconfigured(
            f"{shown} is no database URL; use sqlite:///FILE or postgresql://USER@HOST/NAME, with %40 for an @ in a "
            "password."
        ) from None
    if parsed.password is not None and url.count("@") > 1:  # the rest of a password would be taken for the host
        raise Misconfigured(f"{shown} is no database URL: write %40 for each @ but the one before the host.")
    kind = parsed.drivername.partition("+")[0]
    if kind not in ("sqlite", "postgresql", "postgres"):
        raise Misconfigured(f"Dagbok keeps its diary on SQLite or PostgreSQL, not on {kind!r}.")
    return parsed.set(drivername="sqlite+pysqlite" if kind == "sqlite" else "postgresql+psycopg")


def _sqlite_path(url: sa.URL) -> Path | None:
    if url.get_backend_name() != "sqlite":
        return None
    name = url.database or ""
    if name in ("", ":memory:") or name.startswith("file:") or url.host:
        raise Misconfigured(
            "A diary lasts: give SQLite a file, as in sqlite:///dagbok.db or sqlite:////absolute/path/dagbok.db."
        )
    path = Path(name).absolute()
    if not path.parent.is_dir():
        raise Misconfigured(f"The folder {path.parent} of the database does not exist; make it first.")
    return path


def _begin_on_sqlite(connection: sa.Connection) -> None:
    # A write takes the lock at once: one that begins as a read is refused, without waiting, when somebody wrote in
    # between.
    connection.exec_driver_sql("BEGIN IMMEDIATE" if connection.get_execution_options().get(_WRITES) else "BEGIN")


def _forget_read_only(driver: Any, _: object) -> None:
    # After a read SQLAlchemy leaves READ WRITE behind, not the server's default, which an operator may have changed.
    if driver is not None and not driver.closed:
        driver.read_only = None


def _forget_session(context: sa.ExceptionContext) -> None:
    # A session may keep what it failed of (a read-only default, a lost right) when all is well again for new ones.
    if trouble.speaks_of_database(context.original_exception):
        context.is_disconnect = True


def _session(url: sa.URL, patience: Patience) -> Callable[[str], Session]:
    return lambda application_name: connect_postgresql(url, application_name, patience)
