"""Opening a database, and what its driver's errors mean."""

from __future__ import annotations

import asyncio
import itertools
import sqlite3
import subprocess
import sys
import threading
import traceback
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psycopg
import pytest
import sqlalchemy as sa

from dagbok.errors import Misconfigured, StoreRejected, StoreUnavailable
from dagbok.store.database import Database, read_owner
from dagbok.store.queries import Reader
from dagbok.store.schema import dags, plans
from dagbok.store.statements import Statements
from dagbok.store.writer import Statement
from store import diary


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("sqlite://", "give SQLite a file"),
        ("sqlite:///:memory:", "give SQLite a file"),
        ("sqlite:///file:x?mode=memory&uri=true", "give SQLite a file"),
        ("sqlite:////no/such/folder/dagbok.db", "folder /no/such/folder of the database does not exist"),
        ("mysql://x/y", "not on 'mysql'"),
        ("what", "no database URL"),
        ("sqlite:////tmp", "cannot be opened"),
    ],
)
def test_a_url_that_cannot_work_is_refused_with_the_reason(url: str, words: str) -> None:
    with pytest.raises(Misconfigured, match=words):
        Database.open(url)


def test_a_file_that_is_no_database_is_refused(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("These are my notes, and they are longer than a header of a database. " * 20)
    with pytest.raises(Misconfigured, match=r"notes\.txt cannot be opened"):
        Database.open(f"sqlite:///{tmp_path / 'notes.txt'}")


def test_a_server_that_does_not_answer_is_unavailable() -> None:
    with pytest.raises(StoreUnavailable, match="not available"):
        Database.open("postgresql://nobody@127.0.0.1:1/none")


def test_the_short_scheme_of_postgresql_works(postgres_url: str) -> None:
    database = Database.open(postgres_url.replace("postgresql://", "postgres://"))
    assert database.name == postgres_url
    database.close()


def test_passwords_are_not_shown(postgres_url: str) -> None:
    for url in (postgres_url.replace("dagbok@", "dagbok:secret@"), f"{postgres_url}?password=secret"):
        database = Database.open(url)
        assert "secret" not in database.name
        database.close()


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://ann:pass@secret:word@127.0.0.1/dagbok",
        "postgresql://ann:pass@secret@127.0.0.1/dagbok",
        "postgresql://ann:pass@secret/@127.0.0.1/dagbok",
        "postgresql://ann:word@127.0.0.1:secret/dagbok",
        "postgresql:ann:secret@127.0.0.1/dagbok",
        "ann:secret@127.0.0.1/dagbok",
    ],
)
def test_a_url_that_cannot_be_read_is_refused_without_showing_a_password(url: str) -> None:
    with pytest.raises(Misconfigured, match=r"is no database URL.*%40") as refused:
        Database.open(url)
    assert "secret" not in "".join(traceback.format_exception(refused.value, limit=0))
    with pytest.raises(Misconfigured):
        read_owner(url)


def test_a_diary_without_tables_says_what_makes_them(empty_database_url: str) -> None:
    database = Database.open(empty_database_url)
    with pytest.raises(Misconfigured, match="dagbok db upgrade"):
        Reader(database).list_executions()
    database.close()


def test_a_write_that_fails_leaves_nothing(database: Database) -> None:
    plan = {"hash": "h", "document": "{}", "created_at": 1}

    def write_twice() -> None:
        with database.writing() as connection:
            connection.execute(sa.insert(plans).values(plan))
            connection.execute(sa.insert(plans).values(plan))

    with pytest.raises(StoreRejected, match=r"(?i)unique"):
        write_twice()
    assert Reader(database).plan("h") is None


def test_a_snapshot_does_not_move(database: Database) -> None:
    with Reader(database).snapshot() as reader:
        assert reader.list_dags().total == 0
        with database.writing() as connection:
            connection.execute(sa.insert(plans).values(hash="h", document="{}", created_at=1))
            connection.execute(
                sa.insert(dags).values(
                    id="d", title="", status="ready", plan_hash="h", revision=1, created_at=1, updated_at=1
                )
            )
        assert reader.list_dags().total == 0
    assert Reader(database).list_dags().total == 1


def test_writers_of_one_file_wait_for_each_other(database: Database) -> None:
    """Each takes the lock when it begins; none is refused because it read before another wrote."""
    failures: list[BaseException] = []

    def write(thread: int) -> None:
        try:
            for number in range(20):
                with database.writing() as connection:
                    connection.execute(sa.select(sa.func.count()).select_from(plans))
                    connection.execute(sa.insert(plans).values(hash=f"{thread}-{number}", document="{}", created_at=1))
        except BaseException as exc:
            failures.append(exc)

    threads = [threading.Thread(target=write, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    with database.reading() as connection:
        assert connection.execute(sa.select(sa.func.count()).select_from(plans)).scalar_one() == 80


def sqlite_error(code: int, kind: type[sqlite3.Error] = sqlite3.OperationalError) -> sqlite3.Error:
    error = kind("words")
    error.sqlite_errorcode = code
    return error


@pytest.mark.parametrize(
    ("error", "is_away"),
    [
        (sqlite_error(sqlite3.SQLITE_FULL), True),
        (sqlite_error(sqlite3.SQLITE_BUSY), True),
        (sqlite_error(sqlite3.SQLITE_IOERR | (4 << 8)), True),
        (sqlite_error(sqlite3.SQLITE_READONLY), True),
        (sqlite_error(sqlite3.SQLITE_CORRUPT, sqlite3.DatabaseError), True),
        (sqlite_error(sqlite3.SQLITE_CONSTRAINT, sqlite3.IntegrityError), False),
        (sqlite_error(sqlite3.SQLITE_TOOBIG, sqlite3.DataError), False),
        (sqlite3.ProgrammingError("Cannot operate on a closed database."), True),
        (sqlite3.InterfaceError("Error binding parameter 3"), False),
        (psycopg.OperationalError("server closed the connection"), True),
        (psycopg.errors.AdminShutdown("words"), True),
        (psycopg.errors.DiskFull("words"), True),
        (psycopg.errors.ReadOnlySqlTransaction("words"), True),
        (psycopg.errors.DeadlockDetected("words"), True),
        (psycopg.errors.InsufficientPrivilege("words"), True),
        (psycopg.errors.UndefinedColumn("words"), True),
        (psycopg.errors.FeatureNotSupported("words"), True),  # such as a plan that the tables have outgrown
        (sa.exc.TimeoutError("QueuePool limit reached"), True),
        (psycopg.errors.DatatypeMismatch("words"), False),
        (psycopg.errors.SyntaxError("words"), False),
        (psycopg.errors.CheckViolation("words"), False),
        (psycopg.errors.InvalidTextRepresentation("words"), False),
        (psycopg.errors.ProgramLimitExceeded("words"), False),
        (psycopg.DataError("PostgreSQL text fields cannot contain NUL"), False),
        (TypeError("words"), False),
        (UnicodeEncodeError("utf-8", "\ud800", 0, 1, "surrogates not allowed"), False),
    ],
    ids=lambda value: f"{type(value).__name__}" if isinstance(value, BaseException) else str(value),
)
def test_errors_of_the_database_are_told_from_errors_of_the_rows(
    tmp_path: Path, error: Exception, is_away: bool
) -> None:
    """The first are waited out; the second are the fault of one execution."""
    database = Database.open(f"sqlite:///{tmp_path / 'dagbok.db'}")
    assert database.is_away(error) is is_away
    assert isinstance(database.translate(error), StoreUnavailable if is_away else StoreRejected)
    database.close()


def test_tables_that_are_gone_are_the_fault_of_no_row(empty_database_url: str) -> None:
    """Also where the error has been told in our words already."""
    database = Database.open(empty_database_url)
    with pytest.raises(Misconfigured) as missing:
        Reader(database).list_executions()
    assert database.is_away(missing.value)
    assert database.translate(missing.value) is missing.value
    assert not database.is_away(Misconfigured("A setting is wrong."))
    database.close()


def test_a_url_may_say_what_its_sessions_start_with(postgres_url: str) -> None:
    """Every kind of session reads the URL alike; a space in it is one that many programs get wrong."""
    url = f"{postgres_url}?options=-c%20statement_timeout%3D12345"
    database = Database.open(url)
    lock = database.engine_lock()
    lock.acquire(command="engine")
    with database.reading() as connection:
        assert connection.execute(sa.text("SHOW statement_timeout")).scalar_one() == "12345ms"
    assert read_owner(url)
    lock.release()
    database.close()


def test_a_session_that_talks_in_another_encoding_writes_the_same(postgres_url: str) -> None:
    """As they all do where the database keeps its text in another one."""
    database = Database.open(f"{postgres_url}?client_encoding=latin1")
    tasks = [str(number) for number in range(20)]
    new = diary.new_execution(tasks=tasks)
    steps = [diary.step(task, error=words) for task, words in zip(tasks, itertools.cycle(["fältet", "∅"]))]

    async def main() -> None:
        async with diary.journal(database) as journal:
            await journal.create(new)
            await journal.append(diary.changes(new.id, 1, *steps))
            await journal.append(diary.changes(new.id, 21, diary.step("0", error="øre ∅")))

    asyncio.run(main())
    database.close()
    database = Database.open(postgres_url)
    assert [row["error"] for row in Reader(database).sub_steps(new.id)] == ["øre ∅", *["∅", "fältet"] * 9, "∅"]
    database.close()


def test_the_plans_that_the_group_commit_keeps_go_by_keys(postgres_url: str) -> None:
    """A plan to read a table whole, made while that is short, would be kept when it is not any more."""
    database = Database.open(postgres_url)
    of = Statements.of(database)
    new = [diary.new_execution(tasks=map(str, range(3))) for _ in range(16)]

    async def fill() -> None:
        async with diary.journal(database) as journal:
            await asyncio.gather(*map(journal.create, new))
            for each in new:
                await journal.write_command(each.id, "cancel", {}, None, at_ms=0)

    asyncio.run(fill())
    with psycopg.connect(postgres_url, autocommit=True) as connection:
        connection.execute("VACUUM ANALYZE")
    writer = database.writer()
    writer.select(Statement("SELECT set_config('plan_cache_mode', 'force_generic_plan', false)", ()), ())

    def plan(number: int, text: str, parameters: int) -> str:
        writer.run(Statement(f"PREPARE p{number} AS {text}", ()), [()])
        nothing = ", ".join(["NULL"] * parameters)
        found = writer.select(Statement(f"EXPLAIN EXECUTE p{number} ({nothing})", ()), ())
        return "\n".join(line for (line,) in found)

    one = [(each.text, len(each.names)) for each in (of.plain_step, of.step, of.header, of.counters, of.settle)]
    many = [
        (each.bulk.text, len(each.names) + 1)
        for each in (of.plain_step, of.step, of.header, of.counters, of.applied)
        if each.bulk
    ]
    plans = [plan(number, *each) for number, each in enumerate(one + many)]
    assert len(plans) == 10
    assert [found for found in plans if "Index Cond" not in found or "Materialize" in found] == []
    writer.close()
    database.close()


def test_a_vacuum_may_take_its_time(postgres_url: str) -> None:
    """The server says nothing until it is over; a driver that waits looks up ten times a second."""
    database = Database.open(postgres_url)
    with psycopg.connect(postgres_url) as connection, ThreadPoolExecutor(1) as pool:
        connection.execute("LOCK TABLE plans IN SHARE MODE")
        vacuum = pool.submit(lambda: list(database.vacuum(["plans"], alone=True)))
        with pytest.raises(TimeoutError):
            vacuum.result(0.3)
        connection.rollback()
        assert vacuum.result(30) == []
    database.close()


def test_a_file_that_vanished_is_missed_and_not_made_anew(tmp_path: Path) -> None:
    path = tmp_path / "dagbok.db"
    database = Database.open(f"sqlite:///{path}")
    database.close()
    for left in tmp_path.iterdir():
        left.unlink()
    with pytest.raises(StoreUnavailable, match="see that the file is there"):
        Reader(database).ping()
    with pytest.raises(sqlite3.OperationalError):
        database.writer()
    assert not path.exists()


def test_starting_on_a_current_database_imports_no_alembic(database_url: str) -> None:
    program = (
        "import sys\nfrom dagbok.store import migrations\nfrom dagbok.store.database import Database\n"
        "database = Database.open(sys.argv[1])\nmigrations.upgrade(database)\nprint('alembic' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", program, database_url], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
