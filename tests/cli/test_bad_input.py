"""Everything a person may get wrong: one clear message, exit code 2, never a traceback, and no database made."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from cli.program import Project, make_project, task

CASES: dict[str, tuple[list[str], str]] = {
    "missing file": (["run", "nowhere.json"], "There is no file nowhere.json"),
    "folder": (["run", "."], "is a folder"),
    "not json": (["run", "broken.json"], "broken.json: Malformed JSON at line 2, column 10"),
    "not utf-8": (["run", "latin.json"], "not UTF-8"),
    "empty": (["validate", "empty.json"], "empty.json is empty"),
    "no object": (["run", "list.json"], "A plan is a JSON object"),
    "too large": (["run", "large.json"], "more than 8,388,608 bytes"),
    "endless": (["validate", "/dev/zero"], "more than 8,388,608 bytes"),
    "deep": (["validate", "deep.json"], "200 levels"),
    "cycle": (["run", "cycle.json"], "cycle"),
    "unknown tool": (["run", "unknown.json"], "`dagbok tools` lists the tools"),
    "unknown command": (["rnu"], "No such command"),
    "unknown option": (["run", "x", "--nope"], "No such option"),
    "no such tool module": (["validate", "cycle.json", "--tools", "nowhere.py"], "nowhere.py"),
    "no such database kind": (["list", "-d", "mysql://x"], "use sqlite:///FILE"),
    "no such folder": (["run", "good.json", "-d", "sqlite:////no/such/folder/x.db"], "/no/such/folder"),
    "not a database": (["list", "-d", "sqlite:///good.json"], "cannot be opened as a database"),
    "bad status": (["list", "--status", "nope", "-d", "sqlite:///other.db"], "other.db"),
    "a deadline in the past": (["run", "good.json", "--deadline", "-1"], "--deadline is -1; it is in seconds"),
    "a deadline that is no time": (["run", "good.json", "--deadline", "nan"], "--deadline is nan"),
    "a deadline that is no number": (["run", "good.json", "--deadline", "soon"], "Invalid value for '--deadline'"),
    "cancel of nothing": (["cancel"], "Missing argument"),
    "a name that is no text": (["cancel", "latest", "--by", "a\udcff"], "Give another with --by."),
    "pause where nothing is": (["pause", "latest", "-d", "sqlite:///other.db"], "There is no diary at"),
    "resume where nothing is": (["resume", "-d", "sqlite:///other.db"], "There is no diary at"),
    "no server but here": (["serve", "--host", "0.0.0.0", "--port", "0"], "--insecure"),
}


#: Those that are tried by a process of its own; the others would show the same in more time.
PROCESSES = {"not json", "too large", "cycle"}

BROKEN = """
import dagbok.cli.plans

def broken(*_, **__):
    raise ZeroDivisionError("oh \\x1b[2J")

dagbok.cli.plans.load_plan = broken
"""


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory: pytest.TempPathFactory) -> dict[str, subprocess.CompletedProcess[str]]:
    project = make_project(tmp_path_factory.mktemp("bad"))
    folder = project.folder
    (folder / "broken.json").write_text('{\n  "a": 1 "b"}')
    (folder / "latin.json").write_bytes('{"a": "é"}'.encode("latin-1"))
    (folder / "empty.json").write_text(" \n")
    (folder / "list.json").write_text("[1]")
    (folder / "large.json").write_text(json.dumps({"original_request": "x" * 9 * 2**20}))
    (folder / "deep.json").write_text("[" * 100_000)
    document = {"original_request": "x", "intent": {"primary": "x"}}
    cycle = {**document, "sub_tasks": [task(1, "say", 2, text="x"), task(2, "say", 1, text="x")]}
    (folder / "cycle.json").write_text(json.dumps(cycle))
    (folder / "unknown.json").write_text(json.dumps({**document, "sub_tasks": [task(1, "sya", text="x")]}))
    (folder / "good.json").write_text(json.dumps({**document, "sub_tasks": [task(1, "say", text="x")]}))
    done = {
        case: (project.run if case in PROCESSES else project.call)(*arguments) for case, (arguments, _) in CASES.items()
    }
    assert not list(folder.glob("*.db*")), "a mistake made a database"
    return done


@pytest.mark.parametrize("case", CASES)
def test_a_mistake_is_told_in_one_message(case: str, outcomes: dict[str, subprocess.CompletedProcess[str]]) -> None:
    done = outcomes[case]
    assert CASES[case][1] in done.stderr
    assert (done.returncode, done.stdout) == (2, "")
    assert "Traceback" not in done.stderr


def test_malformed_json_shows_the_place(outcomes: dict[str, subprocess.CompletedProcess[str]]) -> None:
    *_, text, mark = outcomes["not json"].stderr.rstrip("\n").splitlines()
    assert text == '  2 |   "a": 1 "b"}'
    assert text[mark.index("^")] == '"'


def test_an_error_of_ours_is_one_line_and_debug_shows_the_rest(project: Project) -> None:
    """What should not happen is told shortly, with the way to see more."""
    (project.folder / "sitecustomize.py").write_text(BROKEN)
    here = {"PYTHONPATH": str(project.folder)}
    done = project.run("validate", "x", **here)
    assert done.returncode == 70
    assert done.stderr == (
        "dagbok: this should not happen: ZeroDivisionError: oh\nDAGBOK_DEBUG=1 shows where; please report it.\n"
    )
    with project.start("validate", "x", DAGBOK_DEBUG="1", **here) as process:
        assert "Traceback" in process.communicate(timeout=60)[1]
    assert process.returncode == 70


def test_a_full_disk_and_a_reader_that_goes_away(project: Project) -> None:
    """`> /dev/full` is told; `| head` is nobody's error."""
    plan = project.plan(task(1, "say", text="x"))
    full = '"$0" -m dagbok validate "$1" > /dev/full; echo $? >&2; '
    gone = '"$0" -m dagbok tools | true; echo "${PIPESTATUS[0]}" >&2'
    done = subprocess.run(
        ["bash", "-c", full + gone, sys.executable, plan],
        cwd=project.folder, env=project.environment(), capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.stderr.splitlines() == ["dagbok: The output cannot be written: No space left on device.", "2", "0"]
