"""`dagbok inbox`: what people are asked, as a table, as lines, and as JSON."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest

from cli.program import Project, id_in, task

OURS = re.compile(r"\x1b\[(?:[\d;]*m|\d*A|\d*G|2K|1A|\?25[lh])|\r")


def ask(id: str, prompt: str, **more: Any) -> dict[str, Any]:
    params: dict[str, Any] = {
        "prompt": prompt,
        **{name: more.pop(name) for name in ("schema", "assignee") if name in more},
    }
    return {"id": id, "action_type": "human", "tool_or_prompt": {"name": "human", "params": params}, **more}


def approved(id: str, name: str, **params: Any) -> dict[str, Any]:
    return {**task(id, name, **params), "requires_approval": True}


@pytest.fixture(scope="module")
def inbox(shared: Project) -> tuple[Project, str]:
    """One question for Ann, one that is due some time, one approval, and one that is answered."""
    plan = shared.plan(
        ask("q", "Which\none?", assignee="ann"), ask("r", "Now?", timeout_seconds=3600), approved("s", "say", text="x"),
        ask("t", "Red?"), title="A title",
    )  # fmt: skip
    id = id_in(shared.call("run", plan).stderr)
    assert shared.call("answer", id, "t", "a red one", "--by", "bob").returncode == 0
    return shared, id


def test_a_script_gets_a_line_each_with_the_oldest_first(inbox: tuple[Project, str]) -> None:
    project, id = inbox
    done = project.call("inbox")
    assert done.returncode == 0
    rows = [re.split(r"  +", row) for row in done.stdout.splitlines()]
    assert [[*row[:3], *row[4:]] for row in rows] == [
        [id, "q", "human", "ann", "open", "Which one?"],
        [id, "r", "human", "-", rows[1][5], "Now?"],
        [id, "s", "approval", "-", "open", "Sub-task 's' is about to call 'say'. May it?"],
    ]
    assert re.fullmatch(r"due in 59 m \d\d s", rows[1][5])
    assert re.search(r"^To answer: `\S*dagbok answer ID TASK", done.stderr)
    assert "text or JSON; or approve, --edit PARAMS or reject" in done.stderr


@pytest.mark.parametrize(
    ("filters", "tasks"),
    [
        (["--assignee", "ann"], ["q"]),
        (["--assignee", "cem"], []),
        (["--kind", "approval"], ["s"]),
        (["--execution", "latest", "--all"], ["t", "s", "r", "q"]),
        (["--limit", "1"], ["q"]),
    ],
)
def test_filters_leave_what_fits(inbox: tuple[Project, str], filters: list[str], tasks: list[str]) -> None:
    found = json.loads(inbox[0].call("inbox", "--json", *filters).stdout)
    assert sorted(item["taskId"] for item in found["humanInputs"]) == sorted(tasks)


def test_pages_follow_each_other_and_all_tells_who_answered_what(inbox: tuple[Project, str]) -> None:
    project, _ = inbox
    seen: list[str] = []
    more: list[str] = []
    while True:
        done = project.call("inbox", "--all", "--limit", "3", *more)
        seen += done.stdout.splitlines()
        found = re.search(r"There are more: --cursor (\S+)", done.stderr)
        if found is None:
            break
        more = ["--cursor", found[1]]
    assert len(seen) == 4
    assert [row for row in seen if re.search(r"  t +human .*  a red one by bob +Red\?$", row)]


def test_on_a_terminal_it_is_a_table_that_fits(inbox: tuple[Project, str]) -> None:
    _, seen = inbox[0].on_terminal("inbox", columns=90)
    lines = OURS.sub("", seen).splitlines()
    assert max(len(line) for line in lines if not line.startswith("To answer")) <= 90
    assert re.search(r"[0-9a-f-]{18} +q +question +Which one\? +ann +\d", lines[1])
    assert re.search(r" s +approval +May it call say\? C", lines[3])


def test_on_a_narrow_terminal_each_has_two_lines(inbox: tuple[Project, str]) -> None:
    _, seen = inbox[0].on_terminal("inbox", columns=60)
    lines = OURS.sub("", seen).splitlines()
    assert re.search(r"^[0-9a-f-]{18} q question ann *$", lines[0])
    assert (lines[1].rstrip(), lines[5].rstrip()) == ("  Which one?", "  May it call say? Call say")
    assert re.search(r"^[0-9a-f-]{18} r question due in 5\d m", lines[2])
    assert max(map(len, lines[:6])) <= 60


def test_an_empty_one_and_filters_that_cannot_be_used_are_told(project: Project) -> None:
    nowhere = project.call("inbox")
    assert (nowhere.returncode, "There is no diary" in nowhere.stderr) == (2, True)
    project.call("run", project.plan(task(1, "say", text="x")))
    empty = project.call("inbox")
    assert (empty.returncode, empty.stdout, empty.stderr) == (0, "", "Nobody is asked anything now.\n")
    assert json.loads(project.call("inbox", "--json").stdout)["humanInputs"] == []
    for words, told in (
        (["--kind", "riddle"], "--kind is 'riddle'; it is one of human, approval, did_it_happen."),
        (["--limit", "0"], "from 1 to 100"),
        (["--cursor", "abc"], "`cursor` is none of this list"),
        (["--execution", "ffffff"], "No execution has an id that begins with"),
    ):
        done = project.call("inbox", *words)
        assert (done.returncode, done.stdout, told in done.stderr) == (2, "", True), words


def test_hostile_text_reaches_no_terminal(project: Project) -> None:
    evil = "\x1b]0;owned\x07\x1b[2J\x9b31m[bold]x"
    project.call("run", project.plan(ask("q", evil, assignee=evil)))
    for words in (["inbox"], ["show"]):
        _, seen = project.on_terminal(*words)
        assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]", OURS.sub("", seen))
        assert "owned" not in seen
        assert "[bold]x" in seen
