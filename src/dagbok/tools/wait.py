"""`wait`: a pause in a plan. The engine keeps its due time in the diary and no task; called directly, it sleeps."""

from __future__ import annotations

import asyncio
from typing import Annotated

from pydantic import Field

from dagbok.domain.plan import LONGEST_S
from dagbok.tools.decorator import tool


# Longer than the longest wait, so that a runner that does call it does not cut it off.
@tool(effect="pure", timer=True, timeout_seconds=LONGEST_S + 60)
async def wait(seconds: Annotated[float, Field(ge=0, le=LONGEST_S, allow_inf_nan=False)]) -> dict[str, float]:
    """Wait before the sub-tasks that depend on this one go on.

    Args:
        seconds: How long, at most 366 days. A restart does not begin it anew.

    Returns:
        {"waited_seconds"}.
    """
    await asyncio.sleep(seconds)
    return {"waited_seconds": seconds}
