"""How near the best makespan 999 everyday plans come, fifty at a time, against the clock. See README.md.

usage: PYTHONPATH=tests python -m benchmarks.everyday [DATABASE_URL]
"""

from __future__ import annotations

import asyncio
import statistics
import sys
import tempfile
import time

from benchmarks.subjects.tools import work
from dagbok import Dagbok
from datasets import TimedGraph, asynchow

AT_ONCE = 50
BOUND = 1.13


async def _run(dagbok: Dagbok, graph: TimedGraph) -> float:
    """Return the makespan of a graph that is scaled to a best of 1 s, from its first start to its end."""
    plan = graph.plan("work", 1 / graph.makespan)
    submitted = await dagbok.submit(plan)
    started = time.perf_counter()
    await dagbok.service.wait(submitted.execution_id)
    took = time.perf_counter() - started
    execution = await dagbok.get(submitted.execution_id)
    assert execution.status == "completed", execution.error
    assert execution.completed_tasks == len(execution.sub_steps) == len(graph.seconds)
    assert all(step.status == "completed" for step in execution.sub_steps)
    return took


async def main(url: str) -> None:
    async with Dagbok(url, tools=[work], max_concurrency=10_000) as dagbok:
        graphs = list(asynchow())
        makespans: list[float] = []
        for at in range(0, len(graphs), AT_ONCE):
            makespans += await asyncio.gather(*(_run(dagbok, graph) for graph in graphs[at : at + AT_ONCE]))
    makespans.sort()
    over = sum(makespan > BOUND for makespan in makespans)
    print(
        f"{len(makespans)} plans, {AT_ONCE} at a time, makespan / best: median {statistics.median(makespans):.3f}, "
        f"p99 {makespans[int(len(makespans) * 0.99)]:.3f}, worst {makespans[-1]:.3f}; {over} over {BOUND}"
    )


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        asyncio.run(main(sys.argv[1] if len(sys.argv) > 1 else f"sqlite:///{folder}/everyday.db"))
