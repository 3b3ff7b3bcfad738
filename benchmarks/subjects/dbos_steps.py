"""DBOS Transact: an asynchronous workflow whose steps are `@DBOS.step()` functions, as its documentation writes them.

Stored: each workflow with its inputs and its end, each step's result as it ends. Not stored: that a step started.
What flatters it: the graph is code, so nothing is checked and no row per pending step is written; and steps run by
readiness, which numbers them as they come, while its documentation asks workflows for one order of steps, always the
same, or a recovery may not fit.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from dbos import DBOS

from benchmarks import program
from benchmarks.program import Orders
from benchmarks.workloads import RESULT, Graph, Unit

#: What the workflow runs. Its input is only a name: a graph as input would be stored and read, as a plan is.
GRAPHS: dict[str, Graph] = {}


@DBOS.step()
async def noop(task: str) -> dict[str, Any]:
    """Return about 200 bytes."""
    return RESULT


@DBOS.step()
async def work(task: str, seconds: float) -> dict[str, Any]:
    """Take the time that a step took, and return about 200 bytes."""
    await asyncio.sleep(seconds)
    return RESULT


@DBOS.workflow()
async def run(name: str) -> int:
    """Run a graph and return how many of its steps have a result."""
    graph = GRAPHS[name]
    if all(len(level) == 1 for level in graph.levels()):  # a loop, as one would write it
        return sum([bool(await noop(task)) for task in graph.parents])
    if not graph.seconds:  # so few levels that waiting for each costs nothing, and less than a task for each step
        return sum([sum(map(bool, await asyncio.gather(*map(noop, level)))) for level in graph.levels()])

    def step(task: str) -> Any:
        return work(task, graph.seconds[task])

    return sum(map(bool, await program.by_readiness(graph.parents, step)))


class Steps:
    """Runs units by the launched library."""

    async def prepare(self, unit: Unit) -> None:
        """Let the workflow know its graph."""
        GRAPHS[unit.graph.name] = unit.graph

    async def run(self, unit: Unit) -> list[int]:
        """Start all, wait for all."""
        if unit.copies == 1:
            return [await run(unit.graph.name)]
        handles = [await DBOS.start_workflow_async(run, unit.graph.name) for _ in range(unit.copies)]
        return [await handle.get_result() for handle in handles]

    async def check(self, unit: Unit, done: list[int]) -> None:
        """Count the results."""
        program.expect(unit, sum(done))


@asynccontextmanager
async def opened(orders: Orders) -> AsyncIterator[Steps]:
    """Launch it, with its own settings but for the log."""
    DBOS(config={"name": "benchmark", "system_database_url": orders.url, "log_level": "ERROR"})
    DBOS.launch()
    try:
        yield Steps()
    finally:
        DBOS.destroy()


if __name__ == "__main__":
    program.main(opened, "dbos")
