"""The limit of the interpreter: the same graphs on asyncio alone. Nothing is kept, and nothing survives."""

from __future__ import annotations

import asyncio
import platform
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from benchmarks import program
from benchmarks.program import Measured, Orders
from benchmarks.workloads import RESULT, Unit


class Bare:
    """Runs units in memory."""

    async def prepare(self, unit: Unit) -> None:
        """Nothing is prepared."""

    async def run(self, unit: Unit) -> list[list[Any]]:
        """Run all copies together."""
        seconds = unit.graph.seconds

        async def step(task: str) -> dict[str, Any]:
            if seconds:
                await asyncio.sleep(seconds[task])
            return RESULT

        return await asyncio.gather(*(program.by_readiness(unit.graph.parents, step) for _ in range(unit.copies)))

    async def check(self, unit: Unit, done: list[list[Any]]) -> None:
        """Count the results."""
        program.expect(unit, sum(map(len, done)))

    def more(self, _: Measured) -> dict[str, Any]:
        """Tell what ran them."""
        return {"version": f"Python {platform.python_version()}"}


@asynccontextmanager
async def opened(orders: Orders) -> AsyncIterator[Bare]:
    """Nothing is opened."""
    yield Bare()


if __name__ == "__main__":
    program.main(opened)
