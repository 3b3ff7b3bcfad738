"""One execution in two statements says the same as the reads that each say a part of it."""

from __future__ import annotations

import asyncio
import sqlite3
from pathlib import Path
from typing import Any

import pytest

from api.serving import plan, task
from dagbok import Dagbok, tool
from dagbok.errors import StoreUnavailable
from dagbok.store.database import Database
from dagbok.store.queries import INLINE_BYTES


@tool(effect="pure")
async def text(size: int) -> str:
    """Return a text."""
    return "x" * size


@tool(effect="pure")
async def broken() -> str:
    """Fail."""
    raise ValueError("broken")


async def ran(url: str, *tasks: Any) -> tuple[Any, Any]:
    async with Dagbok(url, tools=[text, broken], retry_backoff_s=0) as dagbok:
        execution = await dagbok.run(plan(*tasks))
        reader = dagbok.service.reader
        by_parts = (
            reader.get_execution(execution.id),
            reader.sub_steps(execution.id),
            reader.attempts(execution.id, last=20),
        )
        return reader.whole(execution.id, last=20), by_parts


@pytest.mark.parametrize("size", [10, INLINE_BYTES, INLINE_BYTES + 1, 3 * 2**20])
def test_results_of_all_sizes_are_where_the_other_reads_find_them(database_url: str, size: int) -> None:
    whole, by_parts = asyncio.run(ran(database_url, task(1, "text", size=size)))
    assert whole == by_parts
    row, steps, attempts = whole
    assert len(row["final_result"]) == size
    assert (steps[0]["result"] is None) == (size + 2 > INLINE_BYTES)
    assert attempts == []


def test_failed_tries_come_along(database_url: str) -> None:
    whole, by_parts = asyncio.run(ran(database_url, task(1, "text", size=1), task(2, "broken", 1)))
    assert whole == by_parts
    assert [attempt["error"] for attempt in whole[2]] == ["ValueError: broken"]


def test_there_may_be_no_such_execution(database_url: str) -> None:
    async def main() -> None:
        async with Dagbok(database_url) as dagbok:
            assert dagbok.service.reader.whole("dag-exec_none", last=20) is None

    asyncio.run(main())


def test_a_connection_that_breaks_is_told_and_never_used_again(tmp_path: Path) -> None:
    database = Database.open(f"sqlite:///{tmp_path / 'dagbok.db'}")
    broken = sqlite3.OperationalError("disk I/O error")
    broken.sqlite_errorcode = sqlite3.SQLITE_IOERR
    with database.reading() as connection:
        with pytest.raises(StoreUnavailable, match="disk I/O error"), database.cursor(connection):
            raise broken
        assert connection.invalidated
    database.close()
