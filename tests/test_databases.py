"""Tests that borrow a database of PostgreSQL get one as if it were new, whatever those before them did to theirs."""

from __future__ import annotations

import psycopg
import pytest

import postgres
from databases import Lender


def run(server: postgres.Server, name: str, *statements: str) -> list[tuple[object, ...]]:
    with psycopg.connect(server.url(name), autocommit=True) as connection:
        for statement in statements:
            cursor = connection.execute(statement.encode())
        return cursor.fetchall() if cursor.description else []


def identity(server: postgres.Server, name: str) -> object:
    return run(server, name, "SELECT oid FROM pg_database WHERE datname = current_database()")[0][0]


@pytest.fixture
def lender(postgres_server: postgres.Server, postgres_template: str) -> Lender:
    return Lender(postgres_server, postgres_template)


PLAN = "INSERT INTO plans (hash, document, created_at) VALUES ('h', '{}', 1)"


def test_it_comes_without_rows_and_counts_from_one_under_a_new_name(
    postgres_server: postgres.Server, lender: Lender
) -> None:
    with lender.lent() as first:
        same = identity(postgres_server, first)
        left = psycopg.connect(postgres_server.url(first))  # of somebody who does not know that it is over
        run(postgres_server, first, PLAN, "SELECT setval('commands_id_seq', 7)")
    with lender.lent() as second:
        assert identity(postgres_server, second) == same
        assert second != first
        assert run(postgres_server, second, "SELECT count(*) FROM plans") == [(0,)]
        assert run(postgres_server, second, "SELECT nextval('commands_id_seq')") == [(1,)]
        with pytest.raises(psycopg.OperationalError):
            left.execute("SELECT 1")
        left.close()
        with pytest.raises(psycopg.OperationalError, match="does not exist"):
            run(postgres_server, first, "SELECT 1")
        assert run(postgres_server, second, "SELECT count(*) FROM alembic_version, schema_info") == [(1,)]
    with lender.lent() as third, lender.lent() as fourth:
        assert identity(postgres_server, third) == same != identity(postgres_server, fourth)
        again = run(postgres_server, third, "SELECT nextval('commands_id_seq')")
        assert again == [(1,)], "a number that was taken without a row"


@pytest.mark.parametrize(
    "touch",
    [
        "ALTER TABLE events ADD COLUMN more int",
        "ALTER TABLE events ADD CHECK (seq < 9)",
        "ALTER TABLE events RENAME TO elsewhere",
        "DROP TABLE alembic_version",
        "DROP INDEX ix_dags_plan_hash",
        "CREATE TABLE mine (id int)",
        "CREATE FUNCTION mine() RETURNS int LANGUAGE sql AS 'SELECT 1'",
        "UPDATE schema_info SET compatible_from = 9",
        "REVOKE ALL ON events FROM PUBLIC; GRANT SELECT ON events TO PUBLIC",
        "DO $$ BEGIN EXECUTE format('ALTER DATABASE %I SET lock_timeout = 1', current_database()); END $$",
        "DO $$ BEGIN EXECUTE format('ALTER DATABASE %I CONNECTION LIMIT 7', current_database()); END $$",
    ],
)
def test_one_that_was_changed_is_not_lent_again(postgres_server: postgres.Server, lender: Lender, touch: str) -> None:
    with lender.lent() as name:
        touched = identity(postgres_server, name)
        run(postgres_server, name, touch)
    with lender.lent() as name:
        assert identity(postgres_server, name) != touched


def test_one_that_nobody_may_use_any_more_is_not_lent_again(postgres_server: postgres.Server, lender: Lender) -> None:
    with lender.lent() as name:
        touched = identity(postgres_server, name)
        postgres_server.execute(f"ALTER DATABASE {name} ALLOW_CONNECTIONS false")
    with lender.lent() as name:
        assert identity(postgres_server, name) != touched
