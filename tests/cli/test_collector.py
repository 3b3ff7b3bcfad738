"""How seldom Python looks for cycles of garbage while an engine works in a program of ours."""

from __future__ import annotations

import gc
import json

from cli.program import Project, task
from dagbok.cli.collector import YOUNG, collecting_seldom, leave_out

TOOLS = '''
import gc
from dagbok import tool

@tool(effect="pure")
def collected() -> list[bool]:
    """Return whether collections are seldom, and pass over what was there before."""
    return [gc.get_threshold()[0] >= 10_000, gc.get_freeze_count() > 100_000]
'''


def test_a_plan_runs_with_few_collections(project: Project) -> None:
    (project.folder / "tools.py").write_text(TOOLS)
    ran = project.call("run", project.plan(task(1, "collected")), "--json")
    assert json.loads(ran.stdout)["subSteps"][0]["result"] == [True, True]


def test_afterwards_everything_is_collected_as_before() -> None:
    before = gc.get_threshold()
    with collecting_seldom():
        assert gc.get_threshold() == (YOUNG, *before[1:])
        leave_out()
        assert gc.get_freeze_count() > 0
    assert gc.get_threshold() == before
    assert gc.get_freeze_count() == 0
