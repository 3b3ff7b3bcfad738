"""Databases for tests: the real ones, a fresh one per test, the same suite on both.

A fake store would be a second program to keep right. PostgreSQL is started once per session from the machine's binaries
(`tests/postgres.py`); without them that half is skipped, or fails where `DAGBOK_REQUIRE_POSTGRES=1` (as `.ci/run` sets
it).
"""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path

import hypothesis  # noqa: F401 - at the end of a session its plugin imports it, too deep in the stack for CPython 3.11
import pytest

import postgres
from dagbok.store import migrations
from dagbok.store.database import Database
from databases import Lender

# A shell that starts the tests in the background lets them ignore Ctrl-C, and `nohup` a terminal that is closed; and
# with them every process they start.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:
    signal.signal(signal.SIGHUP, signal.SIG_DFL)

_LEFT_OUT = pytest.StashKey[str]()


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out the PostgreSQL half where the machine has none, unless it is required."""
    try:
        postgres.binaries()
    except postgres.NoPostgres as exc:
        if os.environ.get("DAGBOK_REQUIRE_POSTGRES") == "1":
            raise pytest.UsageError(f"DAGBOK_REQUIRE_POSTGRES=1, but {exc}") from exc
        half = [item for item in items if _needs_postgres(item)]
        config.hook.pytest_deselected(items=half)
        items[:] = [item for item in items if item not in half]
        config.stash[_LEFT_OUT] = f"{len(half)} tests on PostgreSQL left out: {exc}"


def _needs_postgres(item: pytest.Item) -> bool:
    fixtures: list[str] = getattr(item, "fixturenames", [])
    callspec = getattr(item, "callspec", None)
    own = {"postgres_server", "breakable_server"}
    return bool(own & set(fixtures)) or (callspec is not None and "postgresql" in callspec.params.values())


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    if words := config.stash.get(_LEFT_OUT, ""):
        terminalreporter.write_line(words)


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[postgres.Server]:
    with postgres.running(*postgres.LIGHT) as server:
        yield server


@pytest.fixture(scope="session")
def postgres_template(postgres_server: postgres.Server) -> str:
    """The name of a migrated database; copying it is faster than migrating each."""
    name = postgres_server.create_database()
    database = Database.open(postgres_server.url(name))
    migrations.upgrade(database)
    database.close()
    return name


@pytest.fixture(scope="session")
def postgres_databases(postgres_server: postgres.Server, postgres_template: str) -> Lender:
    """What lends a migrated one to each test."""
    return Lender(postgres_server, postgres_template)


@pytest.fixture(scope="session")
def sqlite_template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A migrated file; copying it is faster than migrating each."""
    path = tmp_path_factory.mktemp("template") / "dagbok.db"
    database = Database.open(f"sqlite:///{path}")
    migrations.upgrade(database)
    database.close()
    assert not path.with_name("dagbok.db-wal").exists(), "the file is not all there is"
    return path


@pytest.fixture(params=["sqlite", "postgresql"])
def empty_database_url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """The URL of a database without tables, once per kind."""
    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path / 'dagbok.db'}"
        return
    server: postgres.Server = request.getfixturevalue("postgres_server")
    name = server.create_database()
    yield server.url(name)
    server.drop_database(name)


@pytest.fixture(params=["sqlite", "postgresql"])
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """The URL of a migrated database, once per kind."""
    if request.param == "sqlite":
        path = shutil.copyfile(request.getfixturevalue("sqlite_template"), tmp_path / "dagbok.db")
        yield f"sqlite:///{path}"
        return
    yield request.getfixturevalue("postgres_url")


@pytest.fixture
def postgres_url(postgres_server: postgres.Server, postgres_databases: Lender) -> Iterator[str]:
    """The URL of a migrated PostgreSQL database, for what only a server does."""
    with postgres_databases.lent() as name:
        yield postgres_server.url(name)


@pytest.fixture
def database(database_url: str) -> Iterator[Database]:
    opened = Database.open(database_url)
    yield opened
    opened.close()
