"""What an execution was in memory is gone when it has ended, and not when Python next looks for circles."""

from __future__ import annotations

import asyncio
import gc
from pathlib import Path

from api.serving import plan, task
from dagbok import Dagbok, tool
from dagbok.domain.execution import Execution


@tool(effect="pure")
async def echo(value: int = 1) -> int:
    """Return the value."""
    return value


@tool(effect="pure")
async def broken() -> int:
    """Fail."""
    raise ValueError("broken")


def test_an_ended_execution_is_freed_at_once(tmp_path: Path) -> None:
    """A server collects garbage seldom: 10,000 steps in a circle would stay for long."""

    async def main() -> list[object]:
        async with Dagbok(f"sqlite:///{tmp_path / 'dagbok.db'}", tools=[echo, broken], retry_backoff_s=0) as dagbok:
            gc.collect()
            gc.disable()
            try:
                ended = [
                    (await dagbok.run(plan(task(1, "echo"), task(2, "echo", 1)))).id,
                    (await dagbok.run(plan(task(1, "echo"), task(2, "broken", 1)))).id,
                ]
                await asyncio.sleep(0)  # the turn that ended it goes
                # Of these alone: tests before this one may have left some that they still hold.
                return [found.id for found in gc.get_objects() if isinstance(found, Execution) and found.id in ended]
            finally:
                gc.enable()

    assert asyncio.run(main()) == []
