"""`dagbok answer`: applied by an engine elsewhere, or by the command where there is none; faults are told together."""

from __future__ import annotations

import getpass
import json
import re
from typing import Any

import pytest

from cli.program import Project, id_in, kill, read_until, task
from cli.test_inbox import approved, ask
from dagbok.app import Vault
from dagbok.cli import asking
from dagbok.client import Client
from dagbok.errors import Conflict, Fenced
from dagbok.outside import Commander, open_commands
from dagbok.settings import load

COLOURS = {"type": "string", "enum": ["red", "blue"]}


def _asks(project: Project, *tasks: dict[str, Any], **more: Any) -> str:
    """Run a plan until it asks, and return the id of its execution."""
    done = project.call("run", project.plan(*tasks, **more))
    assert done.returncode == 4, done.stderr
    return id_in(done.stderr)


def _shown(project: Project, id: str) -> dict[str, Any]:
    document: dict[str, Any] = json.loads(project.call("show", id, "--json", "--events").stdout)
    return document


def test_without_an_engine_the_answer_is_applied_here_and_resume_goes_on(on_both: Project) -> None:
    project = on_both
    id = _asks(project, ask("q", "Which?", schema=COLOURS), task("a", "say", "q", text="<Result from Task q> it is"))
    done = project.call("answer", id, "--input", "red")
    assert (done.returncode, done.stdout) == (0, "")
    first, second = done.stderr.splitlines()
    assert first == f"q of {id} has its answer."
    assert re.fullmatch(rf"Nobody runs it now; `\S*dagbok resume {id}( -d \S+)?` goes on\.", second)
    execution = _shown(project, id)
    assert [step["status"] for step in execution["subSteps"]] == ["pending", "completed"]
    answered = [event["data"] for event in execution["events"] if event["type"] == "substep.answered"]
    assert answered == [{"kind": "human", "by": getpass.getuser()}]
    again = project.call("answer", id, "q", "blue")
    told = rf"dagbok: The question of sub-step 'q' of {id} was answered by '\S+' at \S+Z; the sub-step is completed\.\n"
    assert again.returncode == 2
    assert re.fullmatch(told, again.stderr)
    assert project.call("resume", id).stdout == "red it is\n"


def test_a_server_applies_it_and_goes_on(project: Project) -> None:
    with project.serving() as url, Client(url) as client:
        plan = project.plan(ask("q", "Which?"), approved("s", "say", text="x"))
        id = client.submit((project.folder / plan).read_text()).execution_id
        client.wait(id, timeout_s=20)
        done = project.call("answer", id, "q", "yes", "--by", "ann")
        assert done.returncode == 0
        assert "1 more question waits for one: `" in done.stderr
        assert re.search(r"process \d+ \(dagbok serve\) goes on with it\.\n$", done.stderr)
        edited = project.call("answer", id, "--edit", '{"text": "y"}', "--json")
        assert edited.returncode == 0
        assert json.loads(edited.stdout)["id"] == id
        ended = client.wait(id, timeout_s=20)
        assert (ended.status, ended["q"].result, ended["s"].result) == ("completed", "yes", "y")
        items = client.human_inputs(status="all").human_inputs
        assert {item.task_id: item.answered_by for item in items} == {"q": "ann", "s": getpass.getuser()}


def test_who_has_seen_a_question_answers_no_later_one(project: Project) -> None:
    """While somebody thinks, the execution is cancelled and retried with other params: those nobody has approved."""
    with project.serving() as url, Client(url) as client:
        plan = project.plan(approved("s", "say", text="x"))
        id = client.submit((project.folder / plan).read_text()).execution_id
        client.wait(id, timeout_s=20)

        def change() -> None:
            client.cancel(id)
            client.wait(id, timeout_s=20)
            client.retry(id, overrides={"s": {"params": {"text": "y"}}})
            client.wait(id, timeout_s=20)

        code, seen = project.on_terminal("answer", id, typed=[("(Enter ", change), ("for later): ", "a\n")])
        assert code == 2
        assert f"The question of sub-step 's' of {id} was closed, with its execution, at" in " ".join(seen.split())
        with pytest.raises(Conflict, match="was closed"):
            client.answer(id, "s", {"decision": "approve"}, number=1)
        assert client.get(id).status == "waiting"
        client.answer(id, "s", {"decision": "approve"}, number=2)
        assert client.wait(id, timeout_s=20)["s"].result == "y"


def test_an_approval_is_approved_edited_or_rejected(project: Project) -> None:
    (project.folder / "params.json").write_text('{"text": "from a file"}')
    id = _asks(project, *(approved(name, "say", text=name) for name in "abcdef"))
    for words, stdin in (
        (["a", "approve"], ""),
        (["b", "--approve"], ""),
        (["c", "--reject"], ""),
        (["d", "--edit", "params.json"], ""),
        (["e", "--edit", "-"], '{"text": "from stdin"}'),
        (["f", "--decision", "approve"], ""),
    ):
        done = project.run("answer", id, *words, input=stdin) if stdin else project.call("answer", id, *words)
        assert done.returncode == 0, (words, done.stderr)
    assert project.call("resume", id).returncode == 3
    steps = {step["taskId"]: step for step in _shown(project, id)["subSteps"]}
    results = {name: step["result"] for name, step in steps.items()}
    assert results == {"a": "a", "b": "b", "c": None, "d": "from a file", "e": "from stdin", "f": "f"}
    assert steps["c"]["errorCode"] == "rejected"


def test_whether_it_happened_is_answered_with_what_it_brought(project: Project) -> None:
    process = project.start("run", project.plan(task(1, "charge", file="a"), task(2, "charge", file="a")))
    id = id_in(read_until(process, "started", " 2 "))
    kill(process)
    assert project.call("resume", id).returncode == 4
    assert project.call("answer", id, "1", "succeeded", "--result", '{"receipt": 7}').returncode == 0
    assert project.call("answer", id, "--decision", "fail").returncode == 0
    steps = _shown(project, id)["subSteps"]
    assert [(step["status"], step["result"]) for step in steps] == [("completed", {"receipt": 7}), ("failed", None)]


@pytest.fixture(scope="module")
def waiting(shared: Project) -> tuple[Project, str]:
    """An execution that waits for answers of all kinds but one; whoever uses it changes nothing."""
    list_of_two = {"type": "array", "items": {"type": "integer"}, "maxItems": 2}
    tasks = [ask("q", "Which?", schema=COLOURS), approved("s", "repeat", text="x", times=1)]
    return shared, _asks(shared, *tasks, ask("l", "Which two?", schema=list_of_two), task("z", "say", text="done"))


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["q", "green"], ["the answer to q does not fit, and nothing was changed:", "'green' is not one of"]),
        (["q", "green"], ['\nIts schema: {"type":"string","enum":["red","blue"]}\n']),
        (["l", '["a", "b", 3]'], ["/0: 'a' is not of type 'integer'", "/1: 'b' is not", "is too long"]),
        (
            ["s", "--edit", '{"times": "x", "y": 1}'],
            ["/params/times: ", "('y' was unexpected)", "'text' is a required"],
        ),
        (["s", "--edit", "[1]"], ["[1] cannot be read: No such file"]),
        (["s", "--edit", "tools.py"], ["Malformed JSON"]),
        (["s", "--decision", "edit"], ["/params: `params` is required with `edit`"]),
        (["s", "maybe"], ["'maybe' is no decision; it is one of approve, edit, reject."]),
        (["s", "--approve", "--reject"], ["There are several decisions: approve, reject. Give one."]),
        (["s", "approve", "--reject"], ["There are two answers, 'approve' and 'reject'; give one."]),
        (["s", "--approve", "--result", "5"], ["/result: `result` says nothing here"]),
        (["q", "--approve"], ["`input` is required"]),
        (["q", "red", "--input", "blue"], ["There are two answers, one behind the sub-task and one with --input"]),
        ([], ["3 questions wait for an answer: q, s, l. Say which, as in `"]),
        (["--input", "red"], ["3 questions wait for an answer"]),
        (["q"], ["There is no answer; put it behind `", "`: text or JSON."]),
        (["s"], ["`: approve, --edit PARAMS or reject."]),
        (["z", "x"], ["does not wait for an answer; it is completed."]),
        (["nope", "x"], ["has no sub-step 'nope'. What waits for an answer: q, s, l."]),
    ],
)
def test_what_is_no_answer_is_told_in_full_and_changes_nothing(
    waiting: tuple[Project, str], words: list[str], told: list[str]
) -> None:
    project, id = waiting
    before = _shown(project, id)
    done = project.call("answer", id, *words)
    assert (done.returncode, done.stdout) == (2, "")
    assert [part for part in told if part not in done.stderr] == [], done.stderr
    assert _shown(project, id) == before


def test_an_answer_in_the_place_of_the_sub_task_is_understood(project: Project) -> None:
    id = _asks(project, ask("q", "How many?"))
    done = project.call("answer", id, "a few")
    assert done.returncode == 2
    assert re.search(rf"To answer that one so: `\S*dagbok answer {id} q 'a few'( -d \S+)?`\n$", done.stderr)


def test_an_edit_needs_the_tool_here_which_can_be_named(project: Project) -> None:
    """Whoever has its schema alone can judge the params: `--tools` brings it."""
    id = _asks(project, approved("s", "say", text="x"))
    edit = ("answer", id, "s", "--edit", '{"text": "y"}')
    done = project.run(*edit, DAGBOK_TOOLS="")
    assert done.returncode == 2
    assert "calls the tool 'say', which is not known here" in done.stderr
    assert project.run(*edit, "--tools", "./tools.py", DAGBOK_TOOLS="").returncode == 0


def test_an_answer_that_comes_after_its_time_is_told_so(project: Project) -> None:
    asked = ask("q", "Now?", timeout_seconds=0.05) | {"on_timeout": "default", "default": "never mind"}
    done = project.call("run", project.plan(asked, task(1, "slow", seconds=0.2)))
    assert done.returncode == 0, done.stderr
    late = project.call("answer", "latest", "q", "yes")
    assert late.returncode == 2
    assert re.search(r"of dag-exec_\S+ timed out at \S+Z; the sub-step is completed\.\n$", late.stderr)


def test_of_two_answers_the_first_counts_though_nobody_has_applied_it(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def overtaken(_: Commander, __: str) -> None:
        raise Fenced

    id = _asks(project, ask("q", "Now?"))
    apply = Commander.apply
    monkeypatch.setattr(Commander, "apply", overtaken)
    monkeypatch.setattr(asking, "PATIENCE_S", 0.2)
    first = project.call("answer", id, "q", "first", "--by", "ann")
    assert first.returncode == 0
    assert first.stderr == (f"The wish to answer {id} is in the diary; the next engine applies it as soon as it can.\n")
    second = project.call("answer", id, "q", "second", "--by", "bob")
    assert second.returncode == 2
    assert f"The question of sub-step 'q' of {id} was answered by 'ann' at 2" in second.stderr
    monkeypatch.setattr(Commander, "apply", apply)
    assert project.call("resume", id).stdout == "first\n"


def test_a_line_that_a_terminal_cuts_off_is_not_taken_for_the_answer(project: Project) -> None:
    id = _asks(project, ask("q", "Well?"))
    long, longest = "x" * 4_200, "y" * 4_094
    typed = [("Enter for later): ", f"{long}\n"), ("takes lines of 4,094 bytes", ""), ("later): ", f"{longest}\n")]
    code, _ = project.on_terminal("answer", id, typed=typed)
    assert (code, _shown(project, id)["subSteps"][0]["result"]) == (0, longest)
    second = _asks(project, ask("q", "Well?"))
    assert project.run("answer", second, "q", "-", input=f"{long}\n").returncode == 0
    assert _shown(project, second)["subSteps"][0]["result"] == long


def test_an_answer_behind_the_end_of_its_execution_is_told_so(project: Project) -> None:
    """The wish to cancel was first, and both are applied at once."""
    id = _asks(project, ask("q", "Now?"))
    settings = load(database_url=project.url)
    with open_commands(settings, Vault.load(settings), command="test") as (_, commander):
        commander.write(id, "cancel", "bob")
    late = project.call("answer", id, "q", "yes")
    assert late.returncode == 2
    assert re.search(rf"sub-step 'q' of {id} was closed by 'bob', with its execution, at \S+Z\.\n$", late.stderr)


def test_on_a_terminal_it_asks_and_a_question_may_be_left(project: Project) -> None:
    id = _asks(project, ask("q", "Which?", schema=COLOURS))
    code, seen = project.on_terminal("answer", id, typed=[("Enter for later): ", "\n")])
    assert (code, "\nNothing was answered.\n" in seen) == (0, True)
    code, seen = project.on_terminal("answer", id, typed=[("Enter for later): ", "\x03")])
    assert (code, "Nothing was answered." in seen) == (130, True)
    typed = [("Enter for later): ", "green\n"), ("is not one of", ""), ("Enter for later): ", "2\n")]
    code, seen = project.on_terminal("answer", id, typed=typed)
    assert code == 0
    assert re.search(r"\nq asks:\n  Which\?\n   1  red\n   2  blue\n  One of these \(Enter for later\): green\n", seen)
    assert f"\nq of {id} has its answer.\n" in seen
    assert _shown(project, id)["subSteps"][0]["result"] == "blue"
