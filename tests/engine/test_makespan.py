"""Dataflow on graphs nobody here wrote: with slots to spare, the makespan is the best there is, to the millisecond.

Time is the test's own, so the figures are exact; what the real clock and a real database add is measured in
`benchmarks/everyday.py`.
"""

from __future__ import annotations

import asyncio

import pytest

from dagbok.domain import outline
from dagbok.domain.call import Call
from dagbok.domain.states import ExecutionStatus
from datasets import TimedGraph, asynchow, wfinstances
from engine.fakes import Bench, FakeTool


async def _makespan_s(graph: TimedGraph, scale: float) -> float:
    async def work(call: Call) -> object:
        await bench.clock.sleep(call.params["seconds"])
        return None

    bench = Bench(FakeTool("work", work, timeout_s=1e12), max_concurrency=10_000)
    execution = bench.add(outline.read(graph.plan("work", scale)))
    await bench.finish(execution)
    assert execution.status is ExecutionStatus.COMPLETED
    return bench.clock.elapsed_s


def test_every_everyday_plan_takes_its_known_best_makespan() -> None:
    async def main() -> int:
        count = 0
        for graph in asynchow():
            assert await _makespan_s(graph, 1 / graph.makespan) == pytest.approx(1.0, abs=1e-4), graph.name
            count += 1
        return count

    assert asyncio.run(main()) == 999


def test_every_scientific_workflow_takes_its_critical_path() -> None:
    async def main() -> int:
        count = 0
        for graph in wfinstances():
            assert await _makespan_s(graph, 1 / graph.makespan) == pytest.approx(1.0, abs=1e-3), graph.name
            count += 1
        return count

    assert asyncio.run(main()) == 12
