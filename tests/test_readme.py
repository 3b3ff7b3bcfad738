"""What the README shows works as it is written there."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

import dagbok
from dagbok.domain import diagram, mermaid, outline, submission
from dagbok.domain.validate import check
from dagbok.settings import Settings

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_the_program_of_the_readme_runs_and_prints_what_it_says(tmp_path: Path) -> None:
    program = re.search(r"<!-- test: library -->\n```python\n(.*?)```", README, re.DOTALL)
    assert program
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", program[1]], cwd=tmp_path, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("completed 26.0\n20.0 ")


def test_the_plan_of_the_readme_is_a_plan() -> None:
    text = re.search(r"```json\n(.*?)```", README, re.DOTALL)
    assert text
    anything = {"type": "object"}
    assert check(json.loads(text[1]), dict.fromkeys(("read_file", "write_file", "inference"), anything)) == []


def test_the_picture_of_the_readme_is_that_of_the_demo() -> None:
    plan = outline.read(json.loads((ROOT / "examples" / "briefing.json").read_text(encoding="utf-8")))
    tasks = [*plan.sub_tasks, submission.synthesis_task(plan.synthesis_plan)]
    rows = [
        {
            **dict.fromkeys(diagram.Node._fields),
            "task_id": task.id,
            "position": position,
            "description": task.description,
            "action_type": task.action_type,
            "tool_or_prompt_name": task.tool_or_prompt.name,
            "dependencies": json.dumps(submission.dependencies(task)),
            "status": "completed",
            "attempt": 1,
        }
        for position, task in enumerate(filter(None, tasks))
    ]
    row = {"id": "dag-exec_1", "title": plan.title, "status": "completed"}
    shown = re.search(r"```mermaid\n(.*?)```", README, re.DOTALL)
    assert shown
    assert shown[1] == mermaid.write(diagram.of(row, rows))


@pytest.mark.parametrize(
    "name", sorted(set(re.findall(r"DAGBOK_[A-Z_]+", README)) - {"DAGBOK_SECRET_", "DAGBOK_SECRET_NAME"})
)
def test_every_setting_the_readme_names_exists(name: str) -> None:
    assert name.removeprefix("DAGBOK_").lower() in Settings.model_fields


@pytest.mark.parametrize("path", re.findall(r"\]\((?!http)([^)]+)\)", README))
def test_every_file_the_readme_links_exists(path: str) -> None:
    assert (ROOT / path).exists()


def test_what_users_may_import_is_listed_once_and_all_of_it_loads() -> None:
    assert sorted(dagbok.__all__) == ["AsyncClient", "Client", "Dagbok", "Plan", "ToolContext", "__version__", "tool"]
    for name in dagbok.__all__:
        assert getattr(dagbok, name) is not None
