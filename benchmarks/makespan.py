"""How near the best makespan real task graphs come, against the clock, on a durable store. See README.md.

usage: PYTHONPATH=tests python benchmarks/makespan.py [DATABASE_URL]
"""

from __future__ import annotations

import asyncio
import statistics
import sys
import tempfile
import time

from dagbok import Dagbok, tool
from datasets import TimedGraph, asynchow, wfinstances

AT_ONCE = 50


@tool(effect="pure", timeout_seconds=60)
async def work(seconds: float) -> float:
    """Take the time a step took."""
    await asyncio.sleep(seconds)
    return seconds


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


def _tell(name: str, makespans: list[float], bound: float) -> None:
    ordered = sorted(makespans)
    over = sum(makespan > bound for makespan in ordered)
    print(
        f"{name}: {len(ordered)} graphs, makespan / best: median {statistics.median(ordered):.3f}, "
        f"p99 {ordered[int(len(ordered) * 0.99)]:.3f}, worst {ordered[-1]:.3f}; {over} over {bound:.2f}"
    )


async def main(url: str) -> None:
    async with Dagbok(url, tools=[work], max_concurrency=10_000) as dagbok:
        graphs = list(asynchow())
        makespans: list[float] = []
        for at in range(0, len(graphs), AT_ONCE):
            makespans += await asyncio.gather(*(_run(dagbok, graph) for graph in graphs[at : at + AT_ONCE]))
        _tell(f"asynchow, {AT_ONCE} at a time", makespans, 1.13)
        makespans = []
        for graph in wfinstances():
            makespans.append(await _run(dagbok, graph))
            print(f"  {graph.name}: {len(graph.seconds)} steps, {makespans[-1]:.3f}")
        _tell("wfinstances, one at a time", makespans, 1.15)


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        asyncio.run(main(sys.argv[1] if len(sys.argv) > 1 else f"sqlite:///{folder}/makespan.db"))
