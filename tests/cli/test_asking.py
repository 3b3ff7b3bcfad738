"""`dagbok cancel` and `dagbok pause`: applied by an engine elsewhere, or by the command where there is none."""

from __future__ import annotations

import getpass
import json
import os
import re
import signal
from typing import Any

import pytest

import pythons
from cli.program import Project, id_in, kill, read_until, task
from dagbok.cli import asking
from dagbok.client import Client
from dagbok.errors import Fenced
from dagbok.outside import Commander


def _gated(project: Project, tool: str = "gate", file: str = "a") -> str:
    """A plan whose second step waits for a file."""
    return project.plan(task(1, "say", text="a"), task(2, tool, 1, file=file), task(3, "say", 2, text="after"))


def _shown(project: Project, id: str) -> dict[str, Any]:
    document: dict[str, Any] = json.loads(project.call("show", id, "--json", "--events").stdout)
    return document


def test_another_process_that_runs_it_applies_both(on_both: Project) -> None:
    project = on_both
    process = project.start("run", _gated(project))
    id = id_in(read_until(process, "started", " 2 "))
    paused = project.run("pause", "latest", "--by", "ann")
    assert (paused.returncode, paused.stdout) == (0, "")
    assert paused.stderr == f"{id} is paused; 1 step still runs to the end.\n"
    again = project.run("pause", id)
    assert (again.returncode, again.stderr) == (0, paused.stderr)
    assert re.match(rf"{id}  paused  ", project.call("list").stdout)
    project.open("a")
    out, err = process.communicate(timeout=60)
    assert (process.returncode, out) == (4, "")
    assert re.search(r"s  paused     what runs ends by itself, and nothing more begins\n", err)
    assert "paused, 2 of 3 sub-tasks completed" in err
    assert f"Next: `dagbok resume {id}" in err
    shown = project.call("show", id).stdout
    assert re.search(r"^status +paused, 2 of 3", shown, re.MULTILINE)
    assert re.search(r"^paused +\d{4}-.* ago\)$", shown, re.MULTILINE)
    by = [event["data"] for event in _shown(project, id)["events"] if event["type"] == "execution.paused"]
    assert by == [{"by": "ann"}], "the second time says nothing new"

    process = project.start("run", _gated(project, "charge", "b"))
    seen = read_until(process, "started", " 2 ")
    id = id_in(seen[seen.rindex("dag-exec_") :])
    cancelled = project.run("cancel", id[:30], "--json")
    assert cancelled.returncode == 0
    assert json.loads(cancelled.stdout)["status"] == "cancelled"
    told = cancelled.stderr.splitlines()
    assert told[0] == f"{id} is cancelled; 1 of 3 sub-tasks had completed."
    assert told[1].startswith("  2 charge was cut off: nobody knows whether it happened")
    assert process.wait(60) == 5
    headline = r"^cancelled in \S+ \S+, 1 of 3 sub-tasks completed, 2 cancelled$"
    assert re.search(headline, process.communicate()[1], re.MULTILINE)


def test_a_server_applies_both(project: Project) -> None:
    with project.serving() as url, Client(url) as client:
        process = project.start("run", _gated(project))
        id = id_in(read_until(process, "started", " 2 "))
        assert "1 step still runs" in project.call("pause", id).stderr
        project.open("a")
        assert (process.wait(60), process.communicate()[0]) == (4, "")
        assert project.call("cancel", id).stderr == f"{id} is cancelled; 2 of 3 sub-tasks had completed.\n"
        assert client.get(id).status == "cancelled"


def test_without_any_engine_the_command_applies_itself(on_both: Project) -> None:
    """What a crash left is nobody's: the command closes what was open, as whoever goes on would."""
    project = on_both
    process = project.start("run", _gated(project))
    id = id_in(read_until(process, "started", " 2 "))
    kill(process)
    paused = project.call("pause", id)
    assert (paused.returncode, paused.stderr) == (0, f"{id} is paused.\n")
    execution = _shown(project, id)
    assert (execution["status"], execution["subSteps"][1]["status"]) == ("waiting", "pending")
    assert re.search(r"^ +attempt 1  .*  interrupted: The process", project.call("show", id).stdout, re.MULTILINE)
    by = [event["data"]["by"] for event in execution["events"] if event["type"] == "execution.paused"]
    assert by == [getpass.getuser()]
    assert project.call("cancel", id).stderr == f"{id} is cancelled; 1 of 3 sub-tasks had completed.\n"
    assert project.call("cancel", id).returncode == 0, "once more changes nothing"
    assert project.call("pause", id).stderr == (
        f"dagbok: Execution {id} is cancelled already; nothing is left to pause.\n"
    )


def test_where_an_engine_has_it_meanwhile_the_command_looks_again(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    process = project.start("run", _gated(project))
    id = id_in(read_until(process, "started", " 2 "))
    kill(process)
    apply = Commander.apply
    fenced: list[str] = []

    async def overtaken(self: Commander, execution_id: str) -> None:
        if not fenced:
            fenced.append(execution_id)
            raise Fenced
        await apply(self, execution_id)

    monkeypatch.setattr(Commander, "apply", overtaken)
    done = project.call("cancel", id)
    assert (done.returncode, fenced) == (0, [id])
    assert _shown(project, id)["status"] == "cancelled"


def test_a_once_step_that_a_crash_cut_off_is_named_when_it_is_cancelled(on_both: Project) -> None:
    project = on_both
    process = project.start("run", _gated(project, "charge"))
    id = id_in(read_until(process, "started", " 2 "))
    kill(process)
    done = project.call("cancel", id)
    assert done.returncode == 0
    assert (
        "\n  2 charge was cut off: nobody knows whether it happened, and it must not be repeated blindly.\n"
        in done.stderr
    )
    cut_off = _shown(project, id)["subSteps"][1]
    assert (cut_off["status"], cut_off["errorCode"]) == ("cancelled", "outcome_unknown")


def test_an_execution_that_has_ended_or_is_not_there_is_told(project: Project) -> None:
    nowhere = project.call("cancel", "latest")
    assert nowhere.returncode == 2
    assert "There is no diary" in nowhere.stderr
    assert not list(project.folder.glob("diary*"))
    id = id_in(project.call("run", project.plan(task(1, "say", text="x"))).stderr)
    before = _shown(project, id)
    long = project.call("pause", id, "--by", "x" * 201)
    assert (long.returncode, long.stderr) == (2, "dagbok: --by has 201 characters; at most 200 are kept.\n")
    for kind in ("cancel", "pause"):
        done = project.call(kind, id)
        assert (done.returncode, done.stdout) == (2, "")
        assert done.stderr == f"dagbok: Execution {id} is completed already; nothing is left to {kind}.\n"
        assert project.call(kind, "ffff").returncode == 2
    assert _shown(project, id) == before


@pytest.mark.parametrize("kind", ["cancel", "pause", "resume"])
def test_nothing_and_next_to_nothing_name_no_execution(project: Project, kind: str) -> None:
    """`dagbok cancel "$ID"` with ID unset would end whatever there is."""
    process = project.start("run", _gated(project))
    id = id_in(read_until(process, "started", " 2 "))
    kill(process)
    project.open("a")  # or `resume` would wait, were it to take it
    for empty in ("", "  ", "dag-exec_"):
        for command in (kind, "show"):
            done = project.call(command, empty)
            assert (done.returncode, done.stdout) == (2, "")
            assert done.stderr == (
                "dagbok: The ID is empty: is a variable unset? Give one of `dagbok list`, or `latest`.\n"
            )
    short = id.removeprefix("dag-exec_")[:5]
    done = project.call(kind, short)
    assert (done.returncode, done.stdout) == (2, "")
    assert f"{short!r} is too little of an ID to {kind} an execution by: give 6 characters" in done.stderr
    assert _shown(project, id)["status"] == "running"
    assert project.call("show", short).returncode == 0, "looking harms nobody"
    if kind != "resume":
        assert project.call(kind, id[: len("dag-exec_") + 6]).returncode == 0


def test_an_engine_that_hears_nothing_for_long_applies_it_later(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is durable; who asked is told who owes it."""
    process = project.start("run", _gated(project))
    id = id_in(read_until(process, "started", " 2 "))
    _stop(project, process, id)
    monkeypatch.setattr(asking, "PATIENCE_S", 0.3)
    asked = project.call("cancel", id)
    os.kill(process.pid, signal.SIGCONT)
    assert (asked.returncode, asked.stdout) == (0, "")
    assert asked.stderr == (
        f"The wish to cancel {id} is in the diary; process {process.pid} (dagbok run) applies it as soon as it can.\n"
    )
    assert process.wait(60) == 5
    process.communicate()


def test_an_engine_that_dies_before_it_hears_leaves_it_to_the_command(project: Project) -> None:
    process = project.start("run", _gated(project))
    id = id_in(read_until(process, "started", " 2 "))
    _stop(project, process, id)
    command = project.start("cancel", id)
    while not _pending(project, id):
        pass
    kill(process)
    _, err = command.communicate(timeout=60)
    assert (command.returncode, err) == (0, f"{id} is cancelled; 1 of 3 sub-tasks had completed.\n")


def _stop(project: Project, process: pythons.Process, id: str) -> None:
    """Let a process hear nothing more, but not while it holds the lock of a write."""
    while not _shown(project, id)["subSteps"][1]["progress"]:  # the last that it writes by itself
        pass
    os.kill(process.pid, signal.SIGSTOP)


def _pending(project: Project, id: str) -> bool:
    from dagbok.outside import open_diary
    from dagbok.settings import load

    with open_diary(load(database_url=project.url)) as diary:
        return bool(diary.reader.pending_commands([id]))
