"""Dagbok runs agent plans as DAGs and keeps a durable diary of every step.

from dagbok import Dagbok, tool

@tool(effect="pure")
async def add(a: int, b: int) -> int:
    return a + b

async with Dagbok("sqlite:///diary.db", tools=[add]) as dagbok:
    execution = await dagbok.run(plan)
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dagbok.app import Dagbok
    from dagbok.client import AsyncClient, Client
    from dagbok.domain.plan import Plan
    from dagbok.tools.context import ToolContext
    from dagbok.tools.decorator import tool

__version__ = "0.1.0"

__all__ = ["AsyncClient", "Client", "Dagbok", "Plan", "ToolContext", "__version__", "tool"]

# Loaded when first asked for: a client needs no database driver, and `dagbok --help` needs neither.
_HOMES = {
    "AsyncClient": "dagbok.client",
    "Client": "dagbok.client",
    "Dagbok": "dagbok.app",
    "Plan": "dagbok.domain.plan",
    "ToolContext": "dagbok.tools.context",
    "tool": "dagbok.tools.decorator",
}


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(importlib.import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'dagbok' has no attribute {name!r}")
