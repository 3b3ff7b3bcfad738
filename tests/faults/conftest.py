"""A PostgreSQL that tests of faults may stop, kill and fill: never the one that other tests use."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

import postgres
from dagbok.store import migrations
from dagbok.store.database import Database


@pytest.fixture(scope="session")
def breakable_server() -> Iterator[postgres.Server]:
    """Whoever breaks it, mends it."""
    with postgres.running() as server:
        yield server


@pytest.fixture(scope="session")
def breakable_template(breakable_server: postgres.Server) -> str:
    name = breakable_server.create_database()
    database = Database.open(breakable_server.url(name))
    migrations.upgrade(database)
    database.close()
    return name


@pytest.fixture
def breakable_url(breakable_server: postgres.Server, breakable_template: str) -> Iterator[str]:
    """The URL of a migrated database on it."""
    name = breakable_server.create_database(breakable_template)
    yield breakable_server.url(name)
    breakable_server.drop_database(name)
