"""PostgreSQL stopped, killed, full, without rights, locked: the process says so once, and goes on once it can."""

from __future__ import annotations

import asyncio
import logging
import os
import random
import signal
import threading
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest

import postgres
from dagbok import Dagbok
from dagbok.domain.ids import ExecutionId
from dagbok.errors import StoreUnavailable
from dagbok.store.database import Database
from faults import witness
from faults.chaos import CHAOS, rounds
from faults.disks import small_disk
from faults.programs import environment, running, until
from faults.witness import QUESTION, Witness, chains, going, held, ids, plan, step

Break = Callable[[postgres.Server], None]


def crash(server: postgres.Server) -> None:
    server.kill()


def fast(server: postgres.Server) -> None:
    server.stop("fast")


def immediate(server: postgres.Server) -> None:
    server.stop("immediate")


@pytest.fixture(autouse=True)
def _lines(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "dagbok.journal")


def goes_on(url: str, document: dict[str, Any], trouble: Callable[[Dagbok], Awaitable[object]], *, at: int = 3) -> None:
    """Run a plan with `trouble` from its n-th body on; it has to complete, each body once, with nothing amiss."""
    told = Witness()

    async def main() -> str:
        async with Dagbok(url, tools=told.tools) as dagbok:
            troubles: list[asyncio.Task[object]] = []

            async def meanwhile() -> None:
                troubles.append(asyncio.ensure_future(trouble(dagbok)))

            told.meanwhile = lambda number: meanwhile() if number == at else None
            submitted = await dagbok.submit(document)
            await asyncio.wait_for(dagbok.wait(submitted.execution_id), 60)
            await troubles[0]
            return submitted.execution_id

    execution_id = asyncio.run(main())
    told.saw(*ids(document))
    witness.check_completed(url, execution_id)


def one_outage(records: list[logging.LogRecord], *words: str) -> None:
    """Fail unless the log tells of one outage, in these words."""
    begin, end = witness.outages(records)
    assert begin.startswith("The journal holds on until it can write: The database postgresql://")
    for word in words:
        assert word in begin
    assert end.startswith("The journal writes again, after ")


# -- stopped and killed -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("broken", [fast, immediate, crash], ids=lambda broken: broken.__name__)
@pytest.mark.parametrize("seed", rounds(1, 15))
def test_a_server_that_ends_in_a_run_is_awaited(
    breakable_server: postgres.Server, breakable_url: str, broken: Break, seed: int, caplog: pytest.LogCaptureFixture
) -> None:
    """Twice, at moments left to chance; the lock of the engine goes with it, and is taken again."""
    chance = random.Random(f"{broken.__name__} {seed}")
    told, document = Witness(), chains(4, 12)
    times = 2
    breaks = sorted(chance.sample(range(2, 46), times))

    one_at_a_time = threading.Lock()

    def restart() -> None:
        with one_at_a_time:
            broken(breakable_server)
            breakable_server.start()

    told.meanwhile = lambda number: asyncio.to_thread(restart) if number in breaks else None

    async def main() -> str:
        async with Dagbok(breakable_url, tools=told.tools) as dagbok:
            submitted = await dagbok.submit(document)
            await asyncio.wait_for(dagbok.wait(submitted.execution_id), 60)
            assert not dagbok.lock.lost()
            return submitted.execution_id

    execution_id = asyncio.run(main())
    told.saw(*ids(document))
    witness.check_completed(breakable_url, execution_id)
    lines = witness.outages(caplog.records)
    assert 2 <= len(lines) <= 2 * times
    assert all("holds on" in line for line in lines[::2])
    assert all("writes again" in line for line in lines[1::2])


@pytest.mark.skipif(not CHAOS, reason="takes a minute; DAGBOK_CHAOS=1 runs it")
def test_a_server_that_is_away_for_longer_than_any_bound_is_awaited(
    breakable_server: postgres.Server, breakable_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Of the pool, of a connection, of silence."""

    async def trouble(dagbok: Dagbok) -> None:
        await asyncio.to_thread(breakable_server.stop, "fast")
        await asyncio.sleep(45)
        await asyncio.to_thread(breakable_server.start)

    goes_on(breakable_url, chains(2, 5), trouble)
    one_outage(caplog.records)


def test_an_idle_engine_learns_of_an_outage_and_keeps_its_database(
    breakable_server: postgres.Server, breakable_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Nothing is written, and nobody asks: its lock must not lie there for others once the server is back."""

    async def main() -> None:
        async with Dagbok(breakable_url) as dagbok:
            breakable_server.stop("fast")
            await held(dagbok)
            breakable_server.start()
            await going(dagbok)
            assert not dagbok.lock.lost()

    asyncio.run(main())
    one_outage(caplog.records)


def test_a_server_that_is_away_at_the_start_is_told(breakable_server: postgres.Server, breakable_url: str) -> None:
    async def main() -> None:
        async with Dagbok(breakable_url):
            pass

    breakable_server.stop("fast")
    try:
        with pytest.raises(StoreUnavailable, match="Is the server running"):
            asyncio.run(main())
    finally:
        breakable_server.start()


# -- without rights, read-only, full ----------------------------------------------------------------------------------


@pytest.fixture
def as_app(breakable_server: postgres.Server, breakable_url: str) -> Iterator[str]:
    """The URL for a role that owns nothing, and has the rights it needs."""
    with psycopg.connect(breakable_url, autocommit=True) as owner:
        owner.execute("CREATE ROLE app LOGIN")
        _grant(owner)
    yield breakable_url.replace("dagbok@", "app@")
    with psycopg.connect(breakable_url, autocommit=True) as owner:
        owner.execute("DROP OWNED BY app")
        owner.execute("DROP ROLE app")


def _grant(owner: psycopg.Connection[Any]) -> None:
    owner.execute("GRANT ALL ON ALL TABLES IN SCHEMA public TO app")
    owner.execute("GRANT ALL ON ALL SEQUENCES IN SCHEMA public TO app")


def test_rights_that_are_revoked_fail_no_execution(
    breakable_url: str, as_app: str, caplog: pytest.LogCaptureFixture
) -> None:
    """The rows are as good as before; it was an operator's word that made the database refuse them."""

    async def trouble(dagbok: Dagbok) -> None:
        with psycopg.connect(breakable_url, autocommit=True) as owner:
            owner.execute("REVOKE UPDATE, INSERT ON ALL TABLES IN SCHEMA public FROM app")
            await held(dagbok)
            _grant(owner)

    goes_on(as_app, chains(2, 5), trouble)
    one_outage(caplog.records, "permission denied for table", "give this user the rights on the tables again (GRANT)")


def test_a_server_that_waits_for_the_database_while_it_opens_still_ends_when_it_is_told(
    breakable_url: str, as_app: str, tmp_path: Path
) -> None:
    """The first signal has to do: what a supervisor sends next is SIGKILL."""

    async def leave_something() -> None:
        async with Dagbok(breakable_url) as dagbok:
            await dagbok.run(plan(QUESTION))
            execution = (await dagbok.list())[0]
            await dagbok.service._journal.claim(ExecutionId(execution.id), "an engine that died")

    asyncio.run(leave_something())
    with psycopg.connect(breakable_url, autocommit=True) as owner:
        owner.execute("REVOKE UPDATE ON ALL TABLES IN SCHEMA public FROM app")
    with running(environment(tmp_path, as_app), "serve", "--port", "0") as process:
        assert process.stderr is not None
        assert any("The journal holds on" in line for line in process.stderr)
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0


def test_a_server_that_waits_for_a_migration_of_another_process_still_ends_when_it_is_told(
    breakable_server: postgres.Server, tmp_path: Path
) -> None:
    url = breakable_server.url(breakable_server.create_database())
    database = Database.open(url)
    with database.writing() as migrating, psycopg.connect(url, autocommit=True) as looking:
        database.serialize_migrations(migrating)
        with running(environment(tmp_path, url), "serve", "--port", "0") as process:
            waiting = "SELECT 1 FROM pg_locks WHERE locktype = 'advisory' AND NOT granted"
            until(lambda: looking.execute(waiting).fetchall())
            process.send_signal(signal.SIGTERM)
            assert process.wait(30) == 0
    database.close()


def test_a_table_that_is_gone_fails_no_execution(breakable_url: str, caplog: pytest.LogCaptureFixture) -> None:
    async def trouble(dagbok: Dagbok) -> None:
        with psycopg.connect(breakable_url, autocommit=True) as owner:
            owner.execute("ALTER TABLE events RENAME TO elsewhere")
            await held(dagbok)
            owner.execute("ALTER TABLE elsewhere RENAME TO events")

    goes_on(breakable_url, chains(2, 5), trouble)
    begin, _ = witness.outages(caplog.records)
    assert 'relation "events" does not exist' in begin
    assert "dagbok db upgrade" in begin


def test_a_server_that_becomes_read_only_is_awaited(
    breakable_server: postgres.Server, breakable_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    """By a default that holds for the sessions there are: it is not for us to say READ WRITE all the same."""

    async def trouble(dagbok: Dagbok) -> None:
        breakable_server.execute("ALTER SYSTEM SET default_transaction_read_only = on")
        breakable_server.execute("SELECT pg_reload_conf()")
        await held(dagbok)
        with psycopg.connect(breakable_url, autocommit=True) as owner:
            owner.execute("SET default_transaction_read_only = off")
            owner.execute("ALTER SYSTEM RESET default_transaction_read_only")
            owner.execute("SELECT pg_reload_conf()")

    goes_on(breakable_url, chains(2, 5), trouble)
    one_outage(caplog.records, "it is read-only: a standby, or default_transaction_read_only is on")


def test_a_session_that_was_read_only_is_not_kept(breakable_server: postgres.Server, breakable_url: str) -> None:
    """A default of the database reaches new sessions alone, and so does its end: old ones must go with the fault."""
    name = breakable_url.rpartition("/")[2]
    told = Witness()

    async def main() -> None:
        async with Dagbok(breakable_url, tools=told.tools) as dagbok:
            execution = await dagbok.run(chains(1, 1))
            breakable_server.execute(f"ALTER DATABASE {name} SET default_transaction_read_only = on")
            ended = f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{name}'"
            breakable_server.execute(f"{ended} AND application_name = 'dagbok'")  # the lock stays
            deleting = asyncio.ensure_future(dagbok.service.delete(execution.id))
            await held(dagbok)
            breakable_server.execute(f"ALTER DATABASE {name} RESET default_transaction_read_only")
            assert await asyncio.wait_for(deleting, 30) == 1

    asyncio.run(main())


def test_an_engine_does_not_start_on_a_read_only_server(breakable_server: postgres.Server, breakable_url: str) -> None:
    name = breakable_url.rpartition("/")[2]
    breakable_server.execute(f"ALTER DATABASE {name} SET default_transaction_read_only = on")

    async def main() -> None:
        async with Dagbok(breakable_url):
            pass

    with pytest.raises(StoreUnavailable, match="it is read-only, because default_transaction_read_only is on"):
        asyncio.run(main())


def test_a_limit_of_connections_is_awaited(
    breakable_server: postgres.Server, as_app: str, caplog: pytest.LogCaptureFixture
) -> None:
    async def trouble(dagbok: Dagbok) -> None:
        breakable_server.execute("ALTER ROLE app CONNECTION LIMIT 0")
        breakable_server.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'app'")
        await held(dagbok)
        breakable_server.execute("ALTER ROLE app CONNECTION LIMIT -1")

    goes_on(as_app, chains(2, 5), trouble)
    one_outage(caplog.records)


def test_a_database_that_is_renamed_is_awaited(
    breakable_server: postgres.Server, breakable_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    name = breakable_url.rpartition("/")[2]

    async def trouble(dagbok: Dagbok) -> None:
        breakable_server.execute(f"ALTER DATABASE {name} ALLOW_CONNECTIONS false")
        breakable_server.execute(
            f"SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE datname = '{name}'"
        )
        breakable_server.execute(f"ALTER DATABASE {name} RENAME TO elsewhere")
        await held(dagbok)
        breakable_server.execute(f"ALTER DATABASE elsewhere RENAME TO {name}")
        breakable_server.execute(f"ALTER DATABASE {name} ALLOW_CONNECTIONS true")

    goes_on(breakable_url, chains(2, 5), trouble)
    one_outage(caplog.records)


def test_a_full_disk_of_the_server_is_awaited(
    breakable_server: postgres.Server, breakable_template: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with small_disk(breakable_server.folder, 24) as disk:
        of = breakable_server.folder.stat()
        os.chown(disk.place, of.st_uid, of.st_gid)
        breakable_server.execute(f"CREATE TABLESPACE small LOCATION '{disk.place}'")
        breakable_server.execute(f"CREATE DATABASE small TEMPLATE {breakable_template} TABLESPACE small")

        async def trouble(dagbok: Dagbok) -> None:
            disk.fill()
            await held(dagbok)
            disk.free()

        try:
            wide = [step(f"w{number}", "s", size=300_000) for number in range(8)]
            goes_on(breakable_server.url("small"), plan(step("s"), *wide), trouble, at=1)
            one_outage(caplog.records, "No space left on device", "free some space on the server's disk")
        finally:
            breakable_server.drop_database("small")
            breakable_server.execute("DROP TABLESPACE small")


# -- locks of others --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("statement", ["LOCK TABLE sub_steps", "SELECT 1 FROM dag_executions FOR UPDATE"])
def test_a_lock_that_another_holds_for_long_is_awaited(
    breakable_server: postgres.Server, breakable_url: str, statement: str, caplog: pytest.LogCaptureFixture
) -> None:
    name = breakable_url.rpartition("/")[2]
    breakable_server.execute(f"ALTER DATABASE {name} SET lock_timeout = '200ms'")

    async def trouble(dagbok: Dagbok) -> None:
        with psycopg.connect(breakable_url) as other:
            other.execute("SET lock_timeout = 0")
            other.execute(statement.encode())
            await held(dagbok)

    goes_on(breakable_url, chains(2, 5), trouble)
    one_outage(caplog.records, "canceling statement due to lock timeout", "; another session has been holding a lock")
