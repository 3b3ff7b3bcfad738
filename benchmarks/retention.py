"""What deleting old executions in the background costs those who write. See README.md.

usage: python -m benchmarks.retention [DATABASE_URL] [--old N] [--seconds S]

Steps per second of a steady load, and how long a small execution takes from submission to its end (p50, p99), first
without and then with the deletion of N old executions going on.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import tempfile
import time
from typing import Any

import sqlalchemy as sa

from benchmarks.subjects.tools import noop
from benchmarks.workloads import chain
from dagbok import Dagbok
from dagbok.cluster.retention import DAY_MS, Retention
from dagbok.store import schema
from dagbok.store.database import Database
from dagbok.store.retention import count
from dagbok.testing import FakeClock

CHAIN = chain(3).plan()
AT_ONCE = 4


def columns(table: sa.Table) -> list[sa.Column[Any]]:
    """Return the columns to copy: those that both databases have."""
    return [column for column in table.c if column.name != "xid"]


async def age(url: str, number: int) -> None:
    """Write old executions: a few by an engine of two days ago, the rest as copies of their rows."""
    clock = FakeClock(int(time.time() * 1000) - 2 * DAY_MS)
    async with Dagbok(url, tools=[noop], clock=clock) as dagbok:
        made = [(await dagbok.run({**CHAIN, "title": f"old {n}"})).id for n in range(10)]
    database = Database.open(url)
    with database.writing() as connection:
        rows: dict[str, list[dict[str, Any]]] = {
            table.name: [dict(row) for row in connection.execute(sa.select(*columns(table))).mappings()]
            for table in (schema.plans, schema.dags, schema.dag_executions, schema.sub_steps, schema.events)
        }
    for first in range(0, number, 1000):
        with database.writing() as connection:
            for table in (schema.plans, schema.dags, schema.dag_executions, schema.sub_steps, schema.events):
                copies = [
                    _copy(row, copy)
                    for copy in range(first // len(made), (first + 1000) // len(made))
                    for row in rows[table.name]
                ]
                connection.execute(sa.insert(table), copies)
    database.close()


def _copy(row: dict[str, Any], number: int) -> dict[str, Any]:
    named = {
        name: f"{value}-{number}" if name in ("id", "dag_id", "plan_hash", "hash", "execution_id") else value
        for name, value in row.items()
    }
    if "seq" in row:
        del named["id"]
    return named


async def load(dagbok: Dagbok, seconds: float) -> tuple[float, float, float]:
    """Return executions per second, and the p50 and p99 of one in milliseconds."""
    took: list[float] = []
    end = time.perf_counter() + seconds

    async def client() -> None:
        while (began := time.perf_counter()) < end:
            await dagbok.run(CHAIN)
            took.append((time.perf_counter() - began) * 1000)

    await asyncio.gather(*(client() for _ in range(AT_ONCE)))
    parts = statistics.quantiles(took, n=100)
    return len(took) / seconds, parts[49], parts[98]


async def main(url: str, old: int, seconds: float) -> None:
    await age(url, old)
    print(f"{url.split('://')[0]}, {old:,} old executions of 3 steps")
    async with Dagbok(url, tools=[noop]) as dagbok:
        await load(dagbok, 2)
        print("without: {:5.0f} executions/s, p50 {:5.1f} ms, p99 {:5.1f} ms".format(*await load(dagbok, seconds)))
        before = await _old(dagbok)
        retention = Retention(dagbok.service._journal, dagbok.scheduler.clock, days=1)
        began = time.perf_counter()
        retention.start()
        print("with:    {:5.0f} executions/s, p50 {:5.1f} ms, p99 {:5.1f} ms".format(*await load(dagbok, seconds)))
        deleted, took = before - await _old(dagbok), time.perf_counter() - began
        await retention.close()
        print(f"         {deleted:,} deleted meanwhile, {deleted / took:.0f}/s")


async def _old(dagbok: Dagbok) -> int:
    database = Database.open(dagbok.settings.database_url)
    try:
        return await asyncio.to_thread(count, database, dagbok.scheduler.clock.now_ms() - DAY_MS)
    finally:
        database.close()


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("url", nargs="?")
    parser.add_argument("--old", type=int, default=100_000)
    parser.add_argument("--seconds", type=float, default=20)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        database_url = arguments.url or f"sqlite:///{folder}/retention.db"
        asyncio.run(main(database_url, arguments.old, arguments.seconds))
