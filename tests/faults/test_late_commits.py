"""A commit that ends long after its connection was cut, as PostgreSQL's do while a synchronous standby is away."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any

import psycopg
import pytest

from dagbok.store import connections
from dagbok.store.database import Database
from faults import witness
from store import diary


@pytest.mark.parametrize("wait", [None, "1#1"], ids=["command", "answer"])
def test_a_command_whose_commit_goes_on_after_it_was_cut_is_written_once(
    postgres_url: str, monkeypatch: pytest.MonkeyPatch, wait: str | None
) -> None:
    """The rows of the first try are not seen before its commit ends, so the second must wait for that."""
    monkeypatch.setattr(connections, "SILENCE_S", 0.5)
    database = Database.open(postgres_url)
    new = diary.new_execution()

    async def main() -> None:
        async with diary.journal(database) as journal:
            await journal.create(new)
            async with late_commits(postgres_url) as tries:
                asking = journal.write_command(new.id, "answer", {"value": "ö"}, "ann", at_ms=diary.NOW, wait=wait)
                await tries(2)
            assert await asyncio.wait_for(asking, 30) == 1

    asyncio.run(main())
    database.close()
    assert witness.number_of_commands(postgres_url, new.id) == 1


@asynccontextmanager
async def late_commits(url: str) -> AsyncIterator[Callable[[int], Coroutine[Any, Any, None]]]:
    """Let no commit of a command end within the block, given a function that waits for so many stuck transactions."""
    with psycopg.connect(url, autocommit=True) as other:
        other.execute("""
            CREATE FUNCTION late() RETURNS trigger LANGUAGE plpgsql AS
                'BEGIN PERFORM pg_advisory_xact_lock_shared(1); RETURN NULL; END'
        """)
        other.execute("""
            CREATE CONSTRAINT TRIGGER late AFTER INSERT ON commands DEFERRABLE INITIALLY DEFERRED
                FOR EACH ROW EXECUTE FUNCTION late()
        """)
        other.execute("SELECT pg_advisory_lock(1)")

        async def stuck(number: int) -> None:
            query = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = %s"
            async with asyncio.timeout(30):
                while other.execute(query, ("Lock",)).fetchall()[0][0] < number:
                    await asyncio.sleep(0.01)

        yield stuck
        other.execute("SELECT pg_advisory_unlock(1)")
