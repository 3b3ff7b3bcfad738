"""What docs/retry-and-fork.md shows works as it is written there."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path

import typer

from dagbok.cli.main import app
from dagbok.cli.overriding import read_overrides

PAGE = (Path(__file__).parents[1] / "docs" / "retry-and-fork.md").read_text(encoding="utf-8")


def test_its_program_prints_what_it_says(tmp_path: Path) -> None:
    found = re.search(r"<!-- test: library -->\n```python\n(.*?)```\n\nprints\n\n```\n(.*?)```", PAGE, re.DOTALL)
    assert found
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", found[1]], cwd=tmp_path, capture_output=True, text=True, timeout=60
    )
    assert (done.returncode, done.stdout) == (0, found[2]), done.stderr


def test_its_commands_are_commands(tmp_path: Path) -> None:
    (tmp_path / "four.json").write_text("{}")
    lines = re.findall(r"^dagbok .*$", PAGE, re.MULTILINE)
    assert len(lines) == 6
    commands = typer.main.get_group(app).commands
    for line in lines:
        _, name, *arguments = shlex.split(line.replace("@", f"@{tmp_path}/"), comments=True)
        given = commands[name].make_context(name, arguments).params
        overrides = read_overrides(given.get("override"), max_bytes=100)
        assert all(set(override) <= {"params", "tool", "model"} for override in overrides.values())
