"""What a test of tools and plans needs, for whoever writes them: no sleeps, no network, no keys, and faults on demand.

The engine and the database of such a test are the real ones. What is scripted stands behind a port: time (`FakeClock`),
tools (`ScriptedTool`), and the death of the process at a chosen write (`CrashingJournal`).
"""

from __future__ import annotations

from dagbok.testing.clock import FakeClock
from dagbok.testing.journal import CrashingJournal
from dagbok.testing.script import Hang, after
from dagbok.testing.tools import ScriptedTool

__all__ = ["CrashingJournal", "FakeClock", "Hang", "ScriptedTool", "after"]
