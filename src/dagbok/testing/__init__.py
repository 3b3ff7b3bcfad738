"""What a test of tools and plans needs, for whoever writes them: no sleeps, no network, no keys, and faults on demand.

The engine and the database of such a test are the real ones. What is scripted stands behind a port: time (`FakeClock`)
and tools (`ScriptedTool`).
"""

from __future__ import annotations

from dagbok.testing.clock import FakeClock
from dagbok.testing.script import Hang, after
from dagbok.testing.tools import ScriptedTool

__all__ = ["FakeClock", "Hang", "ScriptedTool", "after"]
