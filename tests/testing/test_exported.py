"""What users may import from the kit is listed once, and costs nobody who does not ask for it."""

from __future__ import annotations

import subprocess
import sys

import dagbok.testing

NAMES = [
    "Asked", "CrashingJournal", "FakeClock", "Hang", "ModelAnswer", "ScriptedModel", "ScriptedTool", "after",
    "json_values", "plans", "retry_policies", "texts",
]  # fmt: skip


def _run(code: str) -> str:
    ran = subprocess.run([sys.executable, "-W", "error", "-c", code], check=True, capture_output=True, text=True)
    return ran.stdout


def test_what_users_may_import_is_listed_once_and_all_of_it_loads() -> None:
    assert dagbok.testing.__all__ == NAMES
    for name in NAMES:
        found = getattr(dagbok.testing, name)
        assert found.__doc__, f"{name} has nothing to say for itself"


def test_a_program_that_does_not_test_loads_nothing_of_the_kit() -> None:
    code = """
import sys
import dagbok, dagbok.app, dagbok.cli.main
dagbok.Dagbok, dagbok.Client, dagbok.Plan, dagbok.tool
print([name for name in sys.modules if name == "hypothesis" or name.startswith("dagbok.testing")])
"""
    assert _run(code) == "[]\n"


def test_clock_and_tools_load_neither_hypothesis_nor_pydantic_ai() -> None:
    code = """
import sys
from dagbok.testing import CrashingJournal, FakeClock, Hang, ScriptedTool, after
print([name for name in ("hypothesis", "pydantic_ai") if name in sys.modules])
"""
    assert _run(code) == "[]\n"


def test_without_hypothesis_the_rest_works_and_a_strategy_says_what_to_install() -> None:
    code = """
import sys
sys.modules["hypothesis"] = None
from dagbok.errors import Misconfigured
from dagbok.testing import FakeClock, ScriptedModel
try:
    from dagbok.testing import plans
except Misconfigured as exc:
    print(exc)
"""
    assert _run(code) == "`plans` needs Hypothesis. Install it: pip install 'dagbok[testing]'\n"
