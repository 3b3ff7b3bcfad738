"""What would make a benchmark worthless unseen: work that was not done, rows that are not the same."""

from __future__ import annotations

import asyncio
import re
import sqlite3
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from benchmarks import program
from benchmarks.environments import PINS
from benchmarks.program import Incomplete, Orders
from benchmarks.subjects import SUBJECTS, dagbok_library, raw_rows
from benchmarks.subjects.dagbok_library import Library
from benchmarks.workloads import WORKLOADS, Unit, chain, fan, layers
from dagbok import Dagbok, tool
from dagbok.errors import ToolError
from dagbok.store import schema
from dagbok.store.database import Database

#: What differs from one run to the next.
_CHANCE = re.compile(r"(id|_id|_at|owner|xid|hash)$|^at$|^duration_ms$")
_TABLES = (schema.plans, schema.dags, schema.dag_executions, schema.sub_steps, schema.events)


@tool(effect="pure")
async def noop() -> dict[str, Any]:
    """Fail where the benchmark's tool does not."""
    raise ToolError("no")


async def _run(bench: program.Bench, unit: Unit) -> None:
    await bench.prepare(unit)
    await bench.check(unit, await bench.run(unit))


def test_a_run_of_dagbok_that_fails_has_no_time(tmp_path: Path) -> None:
    async def run() -> None:
        async with Dagbok(f"sqlite:///{tmp_path}/d.db", tools=[noop]) as dagbok:
            with pytest.raises(Incomplete, match="is failed"):
                await _run(Library(dagbok), Unit(fan(2)))

    asyncio.run(run())


def test_a_run_of_dagbok_that_completes_without_some_of_its_steps_has_no_time(tmp_path: Path) -> None:
    """What is skipped by choice counts as done for the execution; not for a benchmark."""

    class Skipping(Library):
        async def prepare(self, unit: Unit) -> None:
            await super().prepare(unit)
            for plan in self._plans:
                for task in plan["sub_tasks"]:
                    task["on_failure"] = "skip"

    async def run() -> None:
        async with Dagbok(f"sqlite:///{tmp_path}/d.db", tools=[noop]) as dagbok:
            with pytest.raises(Incomplete):
                await _run(Skipping(dagbok), Unit(fan(2)))

    asyncio.run(run())


def test_a_program_whose_warm_up_lacks_a_result_measures_nothing() -> None:
    class Lazy:
        async def prepare(self, unit: Unit) -> None: ...

        async def run(self, unit: Unit) -> int:
            return unit.steps - 1

        async def check(self, unit: Unit, done: int) -> None:
            program.expect(unit, done)

    @asynccontextmanager
    async def opened(_: Orders) -> AsyncIterator[Lazy]:
        yield Lazy()

    with pytest.raises(Incomplete, match="19 results of 20 steps"):
        asyncio.run(program.measure(opened, Orders("W1", "")))


@pytest.mark.parametrize(("takes_s", "whole"), [(0.3, 4), (0.6, 2), (1.5, 1), (2.5, 0)])
def test_a_program_is_warm_after_a_second_of_whole_runs_unless_one_takes_long(
    takes_s: float, whole: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    workload = WORKLOADS["W1"]()
    now, ran = 0.0, []
    monkeypatch.setattr(program, "perf_counter", lambda: now)

    class Steady:
        async def prepare(self, unit: Unit) -> None: ...

        async def run(self, unit: Unit) -> None:
            nonlocal now
            now += takes_s * unit.steps / workload.steps
            ran.append(unit)

        async def check(self, unit: Unit, done: None) -> None: ...

    @asynccontextmanager
    async def opened(_: Orders) -> AsyncIterator[Steady]:
        yield Steady()

    measured = asyncio.run(program.measure(opened, Orders("W1", "")))
    assert ran == [workload.warm_up, *[workload.units[0]] * whole, *workload.units]
    assert measured.wall_s == [[pytest.approx(takes_s)]]


def test_by_readiness_runs_each_task_once_and_after_its_parents() -> None:
    graph = layers(4, 5, 0.0)
    ended: list[str] = []

    async def step(task: str) -> str:
        assert set(graph.parents[task]) <= set(ended)
        await asyncio.sleep(0)
        ended.append(task)
        return task

    assert sorted(asyncio.run(program.by_readiness(graph.parents, step))) == sorted(graph.parents)
    assert len(ended) == len(set(ended))


def test_the_raw_limit_writes_what_dagbok_writes(empty_database_url: str, tmp_path: Path) -> None:
    """Otherwise it would be no limit of Dagbok's. More tasks than its ways for few rows are meant for."""
    unit = Unit(fan(max(raw_rows.MANY, raw_rows.GROUP)), 2)

    async def write(opened: program.Open, url: str) -> dict[str, list[str]]:
        async with opened(Orders("W3", url)) as bench:
            for _ in range(2):
                await _run(bench, unit)
        return _contents(url)

    raw = asyncio.run(write(raw_rows.opened, empty_database_url))
    own = asyncio.run(write(dagbok_library.opened, f"sqlite:///{tmp_path}/own.db"))
    assert raw == own
    assert len(own["plans"]) == 4, "each run and each copy has a plan of its own: no row is there from the warm-up"


def test_the_raw_limit_writes_the_columns_that_dagbok_writes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that wrote more would be slower than it has to be, and look like a limit all the same."""
    connect = sqlite3.connect
    said: list[str] = []

    def listening(*given: Any, **more: Any) -> sqlite3.Connection:
        connection: sqlite3.Connection = connect(*given, **more)
        connection.set_trace_callback(said.append)
        return connection

    monkeypatch.setattr(sqlite3, "connect", listening)

    async def updates(opened: program.Open, name: str) -> set[tuple[str, ...]]:
        async with opened(Orders("W3", f"sqlite:///{tmp_path}/{name}.db")) as bench:
            said.clear()  # what the tables took
            for unit in (Unit(chain(5)), Unit(fan(2 * raw_rows.GROUP))):
                await _run(bench, unit)
        return set(filter(None, map(_updated, said)))

    own = asyncio.run(updates(dagbok_library.opened, "own"))
    assert len(own) == 3
    assert asyncio.run(updates(raw_rows.opened, "raw")) == own


def _updated(statement: str) -> tuple[str, ...]:
    """Return the table that a statement updates, and the columns that it sets."""
    found = re.match(r"UPDATE (\w+) SET (.*?)\s(?:FROM|WHERE)\s", statement, re.DOTALL)
    return (found[1], *sorted(re.findall(r"(\w+)\s*=", found[2]))) if found else ()


def _contents(url: str) -> dict[str, list[str]]:
    """Return the rows of each table without what differs from one run to the next, in one order."""
    database = Database.open(url)
    try:
        with database.reading() as connection:
            return {table.name: _rows(connection, table) for table in _TABLES}
    finally:
        database.close()


def _rows(connection: sa.Connection, table: sa.Table) -> list[str]:
    kept = [column for column in table.c if column.name == "task_id" or not _CHANCE.search(column.name)]
    if table is schema.events:  # which of two quick steps ends first is chance
        kept.remove(table.c.seq)
    found = connection.execute(sa.select(*kept)).mappings()
    return sorted(re.sub(r'"durationMs": ?\d+', '"durationMs":0', str(dict(row))) for row in found)


def test_every_subject_has_a_program_and_known_workloads() -> None:
    for subject in SUBJECTS:
        assert set(subject.workloads) <= set(WORKLOADS)
        for workload in subject.workloads:
            assert (Path(program.__file__).parent / "subjects" / f"{subject.module_for(workload)}.py").is_file()
        assert not subject.environment or (PINS / f"{subject.environment}.txt").is_file()
