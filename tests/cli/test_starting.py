"""A server starts with what it needs, and nothing that takes its time: seen in a real process, as it answers."""

from __future__ import annotations

import contextlib
from dataclasses import replace

import httpx2
import pytest

from cli.program import Project, task
from dagbok.store import migrations
from dagbok.store.database import Database

TOOLS = '''
import gc
import sys
from dagbok import tool

@tool(effect="pure")
def loaded() -> dict[str, object]:
    """Return what this process has loaded, and how it collects garbage."""
    return {
        "modules": sorted(sys.modules),
        "seldom": gc.get_threshold()[0] >= 10_000,
        "left_out": gc.get_freeze_count() > 100_000,
    }
'''

#: Each takes 15 ms or more to import, and is for what a server may never be asked.
NOT_NEEDED = {
    "alembic", "anthropic", "dagbok.cli.render", "dagbok.client", "ddgs", "hypothesis", "lxml", "markdown_it", "openai",
    "pydantic_ai", "rich.markdown", "trafilatura",
}  # fmt: skip


@pytest.fixture
def migrated(project: Project) -> Project:
    (project.folder / "tools.py").write_text(TOOLS)
    with contextlib.closing(Database.open(project.url)) as database:
        migrations.upgrade(database)
    return replace(project, fresh=True)


def test_a_server_loads_nothing_heavy_before_it_is_asked_and_collects_garbage_seldom(migrated: Project) -> None:
    plan = {"original_request": "x", "intent": {"primary": "x"}, "sub_tasks": [task(1, "loaded")]}
    with migrated.serving() as url:
        ready = httpx2.get(f"{url}/health/ready")
        ran = httpx2.post(f"{url}/api/v1/execute-dag", json=plan, headers={"prefer": "wait=30"})
    assert ready.status_code == 200
    found = ran.json()["subSteps"][0]["result"]
    assert NOT_NEEDED.isdisjoint(found["modules"]), NOT_NEEDED.intersection(found["modules"])
    assert found["seldom"]
    assert found["left_out"]
