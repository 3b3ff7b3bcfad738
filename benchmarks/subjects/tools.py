"""The tools that Dagbok's plans call, also for `dagbok serve --tools benchmarks.subjects.tools`."""

from __future__ import annotations

import asyncio
from typing import Any

from benchmarks.workloads import RESULT
from dagbok import tool


@tool(effect="pure")
async def noop() -> dict[str, Any]:
    """Return about 200 bytes."""
    return RESULT


@tool(effect="pure", timeout_seconds=60)
async def work(seconds: float) -> dict[str, Any]:
    """Take the time that a step took, and return about 200 bytes."""
    await asyncio.sleep(seconds)
    return RESULT
