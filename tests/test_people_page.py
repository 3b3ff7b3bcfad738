"""What docs/people.md shows works as it is written there."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest

from cli.program import Project, make_project
from dagbok.client import Client
from dagbok.domain import approval, doubt
from dagbok.domain.inbox import KINDS
from dagbok.domain.plan import SubTask

TEXT = (Path(__file__).parents[1] / "docs" / "people.md").read_text(encoding="utf-8")
EXAMPLES = dict(re.findall(r"<!-- test: (\w+) -->\n```\w*\n(.*?)```", TEXT, re.DOTALL))


@pytest.fixture
def project(tmp_path: Path) -> Project:
    (tmp_path / "plan.json").write_text(EXAMPLES["plan"])
    return make_project(tmp_path)


def _commands(example: str) -> list[tuple[str, list[str]]]:
    """Return each command of a session with the lines that it is said to print."""
    parts = re.split(r"^\$ ", example, flags=re.MULTILINE)[1:]
    return [(lines[0], lines[1:]) for lines in (part.rstrip("\n").split("\n") for part in parts)]


def _like(line: str) -> str:
    """Return the expression of a line in which `...` stands for anything, and gaps may have any width."""
    words = [re.escape(word).replace(r"\.\.\.", ".*") for word in line.split()]
    return r"\s+".join(words)


def test_every_block_is_run() -> None:
    assert TEXT.count("```") == 2 * len(EXAMPLES)
    assert set(EXAMPLES) == {"plan", "session", "http", "program"}


def test_the_session_goes_as_it_is_shown(project: Project) -> None:
    for command, shown in _commands(EXAMPLES["session"]):
        words, _, comment = command.partition("  #")
        done = project.call(*shlex.split(words)[1:])
        code = re.match(r" (\d+): ", comment)
        assert done.returncode == (int(code[1]) if code else 0), (command, done.stderr)
        printed = done.stdout + done.stderr
        for line in shown:
            assert re.search(_like(line), printed), (line, printed)
    assert (project.folder / "news.md").read_text() == "Version 2 is out!"


def test_http_goes_as_it_is_shown(project: Project) -> None:
    with project.serving("--workspace", str(project.folder)) as url, Client(url) as client:
        id = client.submit(EXAMPLES["plan"]).execution_id
        client.wait(id, timeout_s=20)
        for command, [shown] in _commands(EXAMPLES["http"]):
            words = shlex.split(command.replace("dag-exec_...", id))
            address = words[2].replace("localhost:3000", url)
            headers = {"content-type": "application/json"} if "-H" in words else {}
            body = words[words.index("-d") + 1].encode() if "-d" in words else None
            with urllib.request.urlopen(urllib.request.Request(address, body, headers), timeout=30) as answer:
                assert re.match(_like(shown), answer.read().decode())
        assert client.wait(id, timeout_s=20)["tone"].result == "festive"


def test_the_program_prints_what_it_says(project: Project) -> None:
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", EXAMPLES["program"]], cwd=project.folder, capture_output=True, text=True,
        timeout=60, env=project.environment(DAGBOK_WORKSPACE="."),
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == re.findall(r"print\(.*\)  # (.*)", EXAMPLES["program"])


def test_every_kind_decision_and_policy_is_told_of() -> None:
    told = set(re.findall(r"`(\w+)`", TEXT))
    assert told >= {*KINDS, *approval.DECISIONS, *doubt.DECISIONS}
    policies = json.dumps(SubTask.model_json_schema()["properties"]["on_timeout"])
    assert set(re.findall(r'"(fail|skip|default|remind)"', policies)) <= told
