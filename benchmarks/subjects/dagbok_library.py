"""Dagbok as a library: submission (check, plan, rows) and run, on the clock from the first `submit` to the last end.

Settings are the defaults but for `max_concurrency`, which is above the width of every graph, and the limits of a plan,
which W6 exceeds.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from time import perf_counter
from typing import Any

from benchmarks import program
from benchmarks.program import Incomplete, Measured, Orders
from benchmarks.subjects.tools import noop, work
from benchmarks.workloads import Unit
from dagbok import Dagbok


class Library:
    """Runs units by an open engine."""

    def __init__(self, dagbok: Dagbok) -> None:
        self._dagbok = dagbok
        self._plans: list[dict[str, Any]] = []
        self._runs = itertools.count()
        self._accepted_s: list[float] = []

    async def prepare(self, unit: Unit) -> None:
        """Write the plans, as agents have done before they submit."""
        self._plans = unit.plans(next(self._runs))

    async def run(self, unit: Unit) -> list[str]:
        """Submit all, wait for all."""
        began = perf_counter()
        submitted = await asyncio.gather(*map(self._dagbok.submit, self._plans))
        self._accepted_s.append(perf_counter() - began)
        ids = [each.execution_id for each in submitted]
        await asyncio.gather(*(self._dagbok.service.wait(id) for id in ids))
        return list(ids)

    async def check(self, unit: Unit, done: list[str]) -> None:
        """Read every execution back."""
        results = 0
        for id in done:
            execution = await self._dagbok.get(id)
            if execution.status != "completed":
                raise Incomplete(f"{id} is {execution.status}: {execution.error}")
            results += sum(step.status == "completed" and step.result is not None for step in execution.sub_steps)
        program.expect(unit, results)

    def more(self, measured: Measured) -> dict[str, Any]:
        """Tell how long it took until all was accepted: checked, and durable."""
        return {"accepted_s": self._accepted_s[-measured.timed :]}


@asynccontextmanager
async def opened(orders: Orders) -> AsyncIterator[Library]:
    """Open an engine; the variant is SQLite's `synchronous`."""
    limits: dict[str, Any] = {"max_sub_tasks": 200_000, "max_plan_bytes": 2**26} if orders.workload == "W6" else {}
    if orders.variant:
        limits["sqlite_synchronous"] = orders.variant
    async with Dagbok(orders.url, tools=[noop, work], max_concurrency=10_000, **limits) as dagbok:
        yield Library(dagbok)


if __name__ == "__main__":
    program.main(opened, "dagbok")
