"""The schema: migrated and declared are equal, and no moment of a migration is one to be killed at."""

from __future__ import annotations

from typing import Any

import pytest
import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy.dialects.postgresql.base import PGDialect

from dagbok.errors import Misconfigured, SchemaTooNew
from dagbok.store import migrations
from dagbok.store.database import Database, TransactionId
from dagbok.store.schema import metadata
from store import processes

KILLED = """
import os, signal, sys
import sqlalchemy as sa
from dagbok.store import migrations
from dagbok.store.database import Database
database = Database.open(sys.argv[1])
left = int(sys.argv[2])
@sa.event.listens_for(database._engine, "after_cursor_execute")
def count(connection, cursor, statement, *_):
    global left
    if statement.lstrip().startswith(("CREATE", "INSERT", "UPDATE", "ALTER")):
        left -= 1
        if not left:
            os.kill(os.getpid(), signal.SIGKILL)
migrations.upgrade(database)
"""

UPGRADES = """
import sys
from dagbok.store import migrations
from dagbok.store.database import Database
print("ready", flush=True)
sys.stdin.readline()
database = Database.open(sys.argv[1])
print(migrations.upgrade(database), flush=True)
"""


@pytest.fixture
def empty(empty_database_url: str) -> Any:
    database = Database.open(empty_database_url)
    yield database
    database.close()


@pytest.fixture(autouse=True)
def known_types(monkeypatch: pytest.MonkeyPatch) -> None:
    # SQLAlchemy would warn that it does not recognize xid8 when it reads the schema back.
    monkeypatch.setitem(PGDialect.ischema_names, "xid8", TransactionId)


#: What only one of the databases has, by its kind and name; Alembic would miss it in the other.
ONLY_ON = {
    ("column", "xid"): "postgresql",
    ("foreign_key_constraint", "fk_sub_steps_execution_id"): "sqlite",
    ("foreign_key_constraint", "fk_events_execution_id"): "sqlite",
}


def is_ours(database: Database) -> Any:
    def include(item: Any, name: str | None, kind: str, reflected: bool, other: Any) -> bool:
        return reflected or ONLY_ON.get((kind, str(name)), database.dialect) == database.dialect

    return include


def test_the_migrated_schema_is_the_declared_one(empty: Database) -> None:
    migrations.upgrade(empty)
    with empty.reading() as connection:
        context = MigrationContext.configure(
            connection, opts={"compare_type": True, "compare_server_default": True, "include_object": is_ours(empty)}
        )
        assert compare_metadata(context, metadata) == []


def test_the_migrated_constraints_are_the_declared_ones(empty: Database) -> None:
    """Alembic does not compare CHECK constraints, and is told nothing of those that one database does without."""
    with empty.writing() as connection:
        metadata.create_all(connection)
    declared = constraints(empty)
    with empty.writing() as connection:
        metadata.drop_all(connection)
    migrations.upgrade(empty)
    assert constraints(empty) == declared
    assert declared["sub_steps"]


def constraints(database: Database) -> dict[str, Any]:
    with database.reading() as connection:
        inspector = sa.inspect(connection)
        found = {
            name: [*inspector.get_check_constraints(name), *inspector.get_foreign_keys(name)]
            for name in inspector.get_table_names()
        }
    return {name: sorted(map(str, checks)) for name, checks in found.items() if name != "alembic_version"}


def test_only_postgresql_trusts_that_the_execution_of_what_a_commit_adds_is_there(empty: Database) -> None:
    migrations.upgrade(empty)
    with empty.reading() as connection:
        found = sa.inspect(connection).get_multi_foreign_keys()
    of_execution = {name for (_, name), keys in found.items() if f"fk_{name}_execution_id" in {k["name"] for k in keys}}
    trusted = {"sub_steps", "events"} if empty.dialect == "postgresql" else set()
    assert of_execution == {"sub_steps", "events", "attempts", "commands", "human_inputs", "blobs"} - trusted


def test_the_migrated_tables_leave_the_declared_room_for_updates(empty: Database) -> None:
    """Which nothing else compares, and only PostgreSQL knows."""
    if empty.name.startswith("sqlite"):
        pytest.skip("rows of SQLite are updated in place")
    migrations.upgrade(empty)
    with empty.reading() as connection:
        found = sa.inspect(connection).get_multi_table_options()
    given = {name: options["postgresql_with"] for (_, name), options in found.items() if "postgresql_with" in options}
    declared = {table.name: table.dialect_options["postgresql"]["with"] for table in metadata.sorted_tables}
    assert given == {name: {"fillfactor": str(w["fillfactor"])} for name, w in declared.items() if w}
    assert set(given) == {"sub_steps", "dag_executions"}


def test_upgrading_again_changes_nothing(empty: Database) -> None:
    assert migrations.current(empty) is None
    with pytest.raises(Misconfigured, match="dagbok db upgrade"):
        migrations.check(empty)
    assert migrations.upgrade(empty) == migrations.head() == migrations.current(empty)
    assert migrations.upgrade(empty) == migrations.head()
    migrations.check(empty)


def test_head_is_the_newest_file_of_one_line(empty: Database) -> None:
    with empty.reading() as connection:
        script = ScriptDirectory.from_config(migrations.configuration(connection))
    assert script.get_heads() == [migrations.HEAD]
    assert script.get_bases() == ["0001"]


@pytest.mark.parametrize("moment", [1, 4, 9, 19])
def test_a_kill_during_a_migration_leaves_the_old_schema(empty: Database, empty_database_url: str, moment: int) -> None:
    with processes.running(KILLED, empty_database_url, str(moment)) as process:
        assert process.wait(30) == -9
    assert migrations.current(empty) is None
    with empty.reading() as connection:
        assert sa.inspect(connection).get_table_names() == []
    assert migrations.upgrade(empty) == migrations.head()


def test_processes_that_start_together_take_turns(empty: Database, empty_database_url: str) -> None:
    with (
        processes.running(UPGRADES, empty_database_url) as one,
        processes.running(UPGRADES, empty_database_url) as two,
        processes.running(UPGRADES, empty_database_url) as three,
    ):
        all_of_them = (one, two, three)
        assert [processes.line(process) for process in all_of_them] == ["ready"] * 3
        for process in all_of_them:
            assert process.stdin is not None
            process.stdin.write("\n")
            process.stdin.flush()
        assert [processes.line(process) for process in all_of_them] == [migrations.head()] * 3


def test_a_newer_schema_is_refused_only_where_it_says_so(database: Database) -> None:
    with database.writing() as connection:
        connection.execute(sa.text("UPDATE alembic_version SET version_num = '9999'"))
    assert migrations.upgrade(database) == "9999"
    migrations.check(database)
    with database.writing() as connection:
        connection.execute(sa.text("UPDATE schema_info SET compatible_from = 9998"))
    for refuses in (migrations.upgrade, migrations.check):
        with pytest.raises(SchemaTooNew, match="9998"):
            refuses(database)
