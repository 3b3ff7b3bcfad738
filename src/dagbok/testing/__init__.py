"""What a test of tools and plans needs, for whoever writes them: no sleeps, no network, no keys, and faults on demand.

The engine and the database of such a test are the real ones. What is scripted stands behind a port: time (`FakeClock`),
tools and models (`ScriptedTool`, `ScriptedModel`), and the death of the process at a chosen write (`CrashingJournal`).
Hypothesis strategies (`plans`, ...) need `pip install 'dagbok[testing]'`. `docs/testing.md` shows all of it at work.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from dagbok.errors import Misconfigured
from dagbok.testing.clock import FakeClock
from dagbok.testing.journal import CrashingJournal
from dagbok.testing.script import Hang, after
from dagbok.testing.tools import ScriptedTool

if TYPE_CHECKING:
    from dagbok.testing.models import Asked, ModelAnswer, ScriptedModel
    from dagbok.testing.strategies import json_values, plans, retry_policies, texts

__all__ = [
    "Asked",
    "CrashingJournal",
    "FakeClock",
    "Hang",
    "ModelAnswer",
    "ScriptedModel",
    "ScriptedTool",
    "after",
    "json_values",
    "plans",
    "retry_policies",
    "texts",
]

# Loaded when first asked for: pydantic-ai takes its time, and not everybody has Hypothesis.
_HOMES = {
    "Asked": "models",
    "ModelAnswer": "models",
    "ScriptedModel": "models",
    "json_values": "strategies",
    "plans": "strategies",
    "retry_policies": "strategies",
    "texts": "strategies",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'dagbok.testing' has no attribute {name!r}")
    try:
        home = importlib.import_module(f"dagbok.testing.{_HOMES[name]}")
    except ModuleNotFoundError as exc:
        if exc.name != "hypothesis":
            raise
        raise Misconfigured(f"`{name}` needs Hypothesis. Install it: pip install 'dagbok[testing]'") from exc
    return getattr(home, name)
