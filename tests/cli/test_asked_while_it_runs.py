"""`dagbok run` and `dagbok resume ID` ask the person at the terminal: at once, while the rest goes on."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cli.program import Project, id_in, kill, read_until, task
from cli.test_inbox import OURS, approved, ask
from dagbok.cli import questions
from dagbok.cli.desk import Desk
from dagbok.domain.ids import TaskId
from dagbok.domain.records import QuestionRow
from dagbok.settings import Settings
from store import diary

LATER = "Enter for later): "
Typed = list[tuple[str, str | Callable[[], object]]]
_CONTROLS = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")


def _shown(project: Project, id: str = "latest") -> dict[str, Any]:
    document: dict[str, Any] = json.loads(project.call("show", id, "--json").stdout)
    return document


def test_a_question_is_asked_as_soon_as_it_opens_and_siblings_go_on(project: Project) -> None:
    """The gate is opened by what follows from the answers, so nothing waited for the other."""
    plan = project.plan(
        task("slow", "gate", file="a"), ask("q", "Which?\nThink."), ask("r", "After <Result from Task q>?"),
        title="Two questions",
    )  # fmt: skip
    typed: Typed = [(LATER, "red\n"), ("After red?", ""), (LATER, "no\n"), ("half way", lambda: project.open("a"))]
    code, seen = project.on_terminal("run", plan, typed=typed)
    plain = OURS.sub("", seen)
    assert code == 0
    assert "\nq asks:\n  Which?\n  Think.\n  Your answer (Enter for later): red\n" in plain
    assert "\nr asks:\n  After red?\n  Your answer (Enter for later): no\n" in plain
    assert seen.count("\x1b[?25l") == seen.count("\x1b[?25h"), "the picture gave way, and the cursor with it"
    assert "needs no answer" not in plain, "it is no news to whoever gave it"
    assert [step["result"] for step in _shown(project)["subSteps"]] == ["red", "no", "through a"]


def test_an_approval_is_edited_in_the_editor_until_it_fits(project: Project) -> None:
    editor = project.folder / "editor"
    editor.write_text(
        '#!/bin/sh\ncp "$1" before; echo EDITOR >&2; [ -f wrong ] && echo \'{"text": "y"}\' > "$1" ||'
        ' { touch wrong; echo \'{"text": 1}\' > "$1"; }\n'
    )
    editor.chmod(0o700)
    typed = [("[a]pprove / [e]dit / [r]eject (Enter for later): ", "e\n"), ("1 is not of type", ""), (LATER, "e\n")]
    plan = project.plan({**approved("s", "say", text="x"), "description": "Say it \x1b[2J loud"})
    code, seen = project.on_terminal("run", plan, typed=typed, EDITOR=str(editor))
    plain = OURS.sub("", seen)
    assert code == 0, plain
    asked = "\ns asks:\n  Sub-task 's' is about to call 'say'. May it?\n  Say it loud\n  {\n    \"text\": \"x\"\n  }\n"
    assert asked in plain
    assert json.loads((project.folder / "before").read_text()) == {"text": 1}, "what was wrong is not typed again"
    assert _shown(project)["subSteps"][0]["result"] == "y"


def test_params_too_long_to_be_shown_say_so_and_are_edited_whole(project: Project) -> None:
    editor = project.folder / "editor"
    editor.write_text('#!/bin/sh\nsed -i s/late/early/ "$1"\n')
    editor.chmod(0o700)
    plan = project.plan(approved("s", "say", text="x" * 20_000 + "late"))
    typed = [("[e]dit opens it whole in $EDITOR", ""), (LATER, "e\n"), ("too long for a line", ""), (LATER, "\n")]
    code, seen = project.on_terminal("run", plan, typed=typed)
    assert (code, "more characters" in seen) == (4, True)
    code, seen = project.on_terminal("resume", "latest", typed=[(LATER, "e\n")], EDITOR=str(editor))
    assert (code, _shown(project)["subSteps"][0]["result"]) == (0, "x" * 20_000 + "early")


def test_without_an_editor_params_are_a_line_and_a_no_is_a_no(project: Project) -> None:
    typed = [
        (LATER, "maybe\n"), ("is no decision", ""), (LATER, "e\n"), ("All params, as JSON: ", "\n"),
        ("Nothing was changed.", ""), (LATER, "e\n"), ("All params, as JSON: ", '{"text": "y"}\n'), (LATER, "r\n"),
    ]  # fmt: skip
    plan = project.plan(approved("a", "say", text="x"), approved("b", "say", text="x"))
    code, seen = project.on_terminal("run", plan, typed=typed)
    assert code == 3
    assert '  Now: {"text":"x"}\n' in OURS.sub("", seen)
    steps = _shown(project)["subSteps"]
    assert [(step["result"], step["errorCode"]) for step in steps] == [("y", None), (None, "rejected")]


def test_whether_it_happened_is_asked_by_resume(project: Project) -> None:
    process = project.start("run", project.plan(task("c", "charge", file="a"), task("d", "charge", file="a")))
    id = id_in(read_until(process, "started", " d "))
    kill(process)
    project.open("a")
    typed = [
        ("[r]etry / [s]ucceeded / [f]ail (Enter for later): ", "s\n"), ("(Enter for none): ", '{"receipt": 7}\n'),
        (LATER, "r\n"),
    ]  # fmt: skip
    code, _ = project.on_terminal("resume", id, typed=typed)
    assert code == 0
    assert [step["result"] for step in _shown(project, id)["subSteps"]] == [{"receipt": 7}, "through a"]


def test_what_an_earlier_run_has_left_open_is_asked_by_resume(project: Project) -> None:
    id = id_in(project.call("run", project.plan(ask("q", "Now?"))).stderr)
    code, _ = project.on_terminal("resume", id, typed=[(LATER, "now\n")])
    assert (code, _shown(project, id)["finalResult"]) == (0, "now")


def test_what_is_left_is_not_asked_again_and_how_to_answer_is_said(project: Project) -> None:
    schema = {"type": "boolean"}
    plan = project.plan(ask("q", "Now?"), ask("r", "Sure?", schema=schema), task("s", "say", "r", text="so"))
    typed = [("\nq asks:", ""), (LATER, "\n"), ("[y]es / [n]o (Enter for later): ", "y\n")]
    code, seen = project.on_terminal("run", plan, typed=typed)
    plain = OURS.sub("", seen)
    assert code == 4
    assert plain.count("q asks:\n") == 1
    id = id_in(plain)
    short = id.removeprefix("dag-exec_")[:18]
    assert re.search(rf"^To answer:\n  \S*dagbok answer {short} q( -d \S+)?\n", plain, re.MULTILINE)
    assert re.search(rf"^  then `\S*dagbok resume {short}( -d \S+)?` goes on$", plain, re.MULTILINE)
    assert [step["result"] for step in _shown(project, id)["subSteps"]] == [None, True, "so"]


def test_ctrl_c_at_a_question_interrupts_the_run(project: Project) -> None:
    plan = project.plan(ask("q", "Now?"), task("slow", "gate", file="a"))
    code, seen = project.on_terminal("run", plan, typed=[(LATER, "\x03")], DAGBOK_CLOSE_GRACE_S="0.2")
    assert code == 130
    assert re.search(r"\nInterrupted\. dag-exec_\S+ stays in the diary; `\S*dagbok resume ", OURS.sub("", seen))
    assert seen.count("\x1b[?25l") == seen.count("\x1b[?25h")
    assert _shown(project)["subSteps"][0]["status"] == "waiting"


def test_a_question_that_is_answered_elsewhere_is_taken_back(project: Project) -> None:
    def elsewhere() -> None:
        assert project.call("answer", "latest", "q", "theirs").returncode == 0

    code, seen = project.on_terminal("run", project.plan(ask("q", "Now?")), typed=[(LATER, elsewhere)])
    assert code == 0
    assert "\n  q needs no answer any more: the question is closed.\n" in OURS.sub("", seen)
    assert _shown(project)["subSteps"][0]["result"] == "theirs"


def test_what_was_typed_before_a_question_does_not_answer_it(project: Project) -> None:
    """A yes that was meant for something else must not approve."""
    plan = project.plan(task("slow", "gate", file="a"), {**approved("s", "say", text="x"), "dependencies": ["slow"]})
    typed: Typed = [("half way", "a\n"), ("half way", lambda: project.open("a")), (LATER, "\n")]
    code, seen = project.on_terminal("run", plan, typed=typed)
    assert (code, "s asks:" in OURS.sub("", seen)) == (4, True)


def test_beside_a_server_the_same_is_asked_and_the_server_goes_on(project: Project) -> None:
    with project.serving():
        typed = [(LATER, "green\n"), ("is not one of", ""), (LATER, "1\n"), ("[r]eject", ""), (LATER, "a\n")]
        schema = {"enum": ["red", "blue"]}
        plan = project.plan(
            ask("q", "Which?", schema=schema), {**approved("s", "say", text="x"), "dependencies": ["q"]}
        )
        code, seen = project.on_terminal("run", plan, typed=typed)
        assert (code, "needs no answer" in seen) == (0, False), seen
        assert [step["result"] for step in _shown(project)["subSteps"]] == ["red", "x"]
        assert json.loads(project.call("inbox", "--all", "--json").stdout)["humanInputs"][0]["answeredBy"]


def test_nobody_is_asked_in_a_pipe_nor_where_only_results_are_wanted(project: Project) -> None:
    plan = project.plan(ask("q", "Now?"))
    assert project.run("run", plan, input="yes\n").returncode == 4
    code, seen = project.on_terminal("run", plan, "--quiet")
    assert (code, "asks" in seen) == (4, False)


def test_hostile_questions_do_not_reach_the_terminal(project: Project) -> None:
    evil = "\x1b]0;owned\x07\x1b[2J\x9b31m\u202eshown[bold]"
    schema = {"enum": [evil, "ok"]}
    plan = project.plan(
        ask("q", f"{evil}\nsecond line", schema=schema, assignee=evil), approved("s", "say", text=evil), title=evil
    )
    code, seen = project.on_terminal(
        "run", plan, typed=[(LATER, "2\n"), (LATER, "e\n"), ("as JSON: ", "\n"), (LATER, "\n")]
    )
    plain = OURS.sub("", seen)
    assert code == 4
    assert not _CONTROLS.search(plain)
    assert "\u202e" not in plain
    assert "owned" not in re.sub(r'"text": ?".*"', "", plain), "only as the escapes of JSON"
    assert "second line" in plain


def test_a_file_of_the_editor_is_for_nobody_else(project: Project) -> None:
    editor = project.folder / "editor"
    editor.write_text('#!/bin/sh\nstat -c %a "$(dirname "$1")" > mode; echo "$1" > name\n')
    editor.chmod(0o700)
    plan = project.plan(approved("s", "say", text="x"))
    project.on_terminal(
        "run", plan, typed=[(LATER, "e\n"), ("Nothing was changed.", ""), (LATER, "\n")], VISUAL=str(editor)
    )
    assert (project.folder / "mode").read_text() == "700\n"
    assert not Path((project.folder / "name").read_text().strip()).exists()


def test_what_opens_while_the_diary_is_read_is_not_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is read is older than what is heard meanwhile."""
    row = QuestionRow(TaskId("q"), 1, "human", "Sure?", None, None, None, diary.NOW, None, None, None, None)
    asked = diary.changes(diary.execution_id(1), 1, questions=[row])
    found: list[list[Any]] = [[], [questions.of_row(row)]]

    async def main() -> None:
        desk = Desk(asked.execution_id, Settings())
        loop = asyncio.get_running_loop()

        async def hear() -> None:
            desk._hear(None, asked)

        def read(_: Desk) -> list[Any]:
            if len(found) == 2:
                asyncio.run_coroutine_threadsafe(hear(), loop).result(60)
            return found.pop(0)

        monkeypatch.setattr(Desk, "_read", read)
        await desk.load()
        opened = desk._next()
        assert opened is not None
        assert opened.key == ("q", 1)

    asyncio.run(main())
