"""`dagbok show --graph`: a drawing for people, a document for programs."""

from __future__ import annotations

import json
import re
from xml.etree import ElementTree

import pytest

from cli.program import Project, make_project, task

DRAWN = """\
A [bold]plan[/bold]: 4 sub-steps, ✓ 3 completed, ✗ 1 failed
         ╭───────────╮
         │ ✓ 1 · say │
         ╰─────┬─────╯
       ┌───────┴────────┐
       ▼                ▼
╭─────────────╮   ╭───────────╮
│ ✗ 2 · boom  │   │ ✓ 3 · say │
╰──────┬──────╯   ╰─────┬─────╯
       └────────┬───────┘
                ▼
         ╭─────────────╮
         │ ✓ synthesis │
         ╰─────────────╯
"""
COLOURS = re.compile(r"\x1b\[[\d;]*m")


@pytest.fixture(scope="module")
def diary(tmp_path_factory: pytest.TempPathFactory) -> Project:
    project = make_project(tmp_path_factory.mktemp("diary"))
    calls = (task(1, "say", text="x"), task(2, "boom", 1, message="no"), task(3, "say", 1, text="y"))
    project.call("run", project.plan(*calls, synthesis_plan="Sum it up", title="A [bold]plan[/bold]"))
    return project


def test_a_small_plan_is_drawn_plainly_into_a_pipe(diary: Project) -> None:
    done = diary.run("show", "latest", "--graph")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == DRAWN
    assert diary.call("show", "latest", "--graph").stdout == DRAWN


def test_on_a_terminal_each_box_has_the_colour_of_its_state(diary: Project) -> None:
    code, seen = diary.on_terminal("show", "latest", "--graph")
    assert code == 0
    row = next(line for line in seen.splitlines() if "2 · boom" in line)
    assert re.search(r"\x1b\[[\d;]*31m│ ✗ 2 · boom", row), "red"
    assert re.search(r"\x1b\[[\d;]*32m│ ✓ 3 · say", row), "green"
    plain = COLOURS.sub("", seen)
    assert plain == DRAWN
    _, seen = diary.on_terminal("show", "latest", "--graph", NO_COLOR="1")
    assert not re.search(r"\x1b\[(?:\d+;)*3[0-8]m", seen)


def test_a_narrow_terminal_gets_narrow_boxes(diary: Project) -> None:
    _, seen = diary.on_terminal("show", "latest", "--graph", columns=24)
    lines = COLOURS.sub("", seen).splitlines()[1:]
    boxes = [line for line in lines if "│ ✗ 2 │" in line]
    assert boxes, seen
    assert all(len(line) <= 24 for line in lines if "╭" in line)


def test_what_is_too_large_to_be_drawn_says_how_to_get_a_picture(project: Project) -> None:
    calls = [task(at, "say", text="x") for at in range(61)]
    project.call("run", project.plan(*calls, title="Many"))
    done = project.call("show", "latest", "--graph")
    assert done.returncode == 0
    assert done.stdout == "Many: 61 sub-steps, ✓ 61 completed\n"
    found = re.search(r"`(dagbok show dag-exec_\S+ --format svg.*) > graph\.svg`", done.stderr)
    assert found, done.stderr
    words = found[1].split()[1:]
    assert ElementTree.fromstring(project.call(*words).stdout).tag.endswith("svg")


@pytest.mark.parametrize("format", ["svg", "mermaid", "dot", "json"])
def test_a_format_is_written_as_the_server_would(diary: Project, format: str) -> None:
    done = diary.call("show", "latest", "--graph", "--format", format)
    assert (done.returncode, done.stderr) == (0, "")
    assert diary.call("show", "latest", "--format", format).stdout == done.stdout, "a format is a graph's"
    beginnings = {"svg": "<svg ", "mermaid": "---\ntitle: ", "dot": "digraph ", "json": '{"executionId":'}
    assert done.stdout.startswith(beginnings[format])
    if format == "json":
        assert diary.call("show", "latest", "--graph", "--json").stdout == done.stdout
        assert json.loads(done.stdout)["nodes"][0]["taskId"]


def test_what_cannot_be_is_refused(diary: Project) -> None:
    for words, said in (
        (("--format", "png"), "svg"),
        (("--graph", "--events"), "--events"),
        (("--format", "svg", "--json"), "--json"),
    ):
        done = diary.call("show", "latest", *words)
        assert (done.returncode, done.stdout) == (2, ""), words
        assert said in done.stderr
    assert diary.call("show", "dag-exec_ffff", "--graph").returncode == 2


def test_hostile_words_do_not_reach_the_terminal(project: Project) -> None:
    evil = "\x1b]0;owned\x07\x1b[2J\x9b31m\u202ename"
    call = {**task("1", "say", text="x"), "description": evil}
    project.call("run", project.plan(call, title=evil))
    for words in ((), ("--format", "svg"), ("--format", "mermaid"), ("--format", "dot"), ("--json",)):
        code, seen = project.on_terminal("show", "latest", "--graph", *words)
        assert code == 0
        assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202e]", COLOURS.sub("", seen)), words
