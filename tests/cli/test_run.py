"""`dagbok run`, as scripts use it: no terminal, results on stdout, all else on stderr, exit codes."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
from typing import Any
from unittest import mock

import pytest

from cli.program import Project, task
from dagbok import Dagbok
from dagbok.client import Client

QUESTION = {"id": "q", "action_type": "human", "tool_or_prompt": {"name": "human", "params": {"prompt": "May I?"}}}
CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f]")


def test_a_completed_plan_prints_its_result_and_nothing_else_on_stdout(project: Project) -> None:
    plan = project.plan(task(1, "say", text="hello"), task(2, "say", text="<Result from Task 1> world"), title="Greet")
    done = project.run("run", plan)
    assert (done.returncode, done.stdout) == (0, "hello world\n")
    happened = re.findall(r"^ +[\d.]+s  (\w+) +(\w+) +(\w+)", done.stderr, re.MULTILINE)
    assert happened == [(verb, id, "say") for id in "12" for verb in ("started", "completed")]
    assert "completed in" in done.stderr
    assert "diary.db" in done.stderr
    assert re.search(r"`dagbok show dag-exec_[0-9a-f-]{36}(?: -d sqlite:\S+)?`", done.stderr)
    assert "offline" not in done.stderr, "no model was asked"
    assert not CONTROL.search(done.stdout + done.stderr)


@pytest.mark.parametrize(
    ("tasks", "code", "said"),
    [
        ([task(1, "boom", message="bad luck")], 1, "tool_error: RuntimeError: bad luck"),
        ([task(1, "boom", message="bad"), task(2, "say", 1, text="x"), task(3, "say", text="y")], 3, "skipped"),
        ([QUESTION], 4, "q asks: May I?"),
    ],
    ids=["failed", "partial", "waiting"],
)
def test_the_exit_code_says_how_it_ended(shared: Project, tasks: list[dict[str, object]], code: int, said: str) -> None:
    done = shared.run("run", shared.plan(*tasks))
    assert done.returncode == code
    assert said in done.stderr


def test_a_plan_comes_from_standard_input_too(project: Project) -> None:
    text = (project.folder / project.plan(task(1, "say", text="from a pipe"))).read_text()
    done = project.run("run", "-", "--quiet", input=text)
    assert (done.returncode, done.stdout, done.stderr) == (0, "from a pipe\n", "")


def test_json_is_one_document_whatever_tools_print(project: Project) -> None:
    """Tools and their children share our stdout; a script that reads it must not meet them there."""
    done = project.run("run", project.plan(task(1, "noisy")), "--json")
    execution = json.loads(done.stdout)
    assert execution["status"] == "completed"
    assert [step["result"] for step in execution["subSteps"]] == ["quiet"]
    assert "NOISE  of a tool" in done.stderr
    assert "NOISE of a child" in done.stderr
    assert not CONTROL.search(done.stderr)
    assert execution == json.loads(project.call("show", "latest", "--json").stdout)


def test_what_tools_return_cannot_drive_the_terminal(project: Project) -> None:
    evil = "\x1b]0;owned\x07\x1b[2Jclean\x9b31m\u202eme\x7f"
    done = project.run("run", project.plan(task(1, "say", text=evil), title=f"T{evil}"), DAGBOK_TOOLS="./tools.py")
    assert done.stdout == "cleanme\n"
    failed = project.call("run", project.plan(task("1", "boom", message=evil)), "--json")
    assert not CONTROL.search(failed.stdout + failed.stderr + done.stderr)
    assert json.loads(failed.stdout)["subSteps"][0]["error"].endswith(evil), "the document keeps the value"
    listed = project.call("list")
    assert not CONTROL.search(listed.stdout)


def test_ctrl_c_leaves_the_execution_in_the_diary_and_says_who_goes_on(project: Project) -> None:
    plan = project.plan(task(1, "slow", seconds=0.5), task(2, "say", 1, text="after"))
    process = project.start("run", plan)
    assert process.stderr is not None
    while "started" not in process.stderr.readline():
        pass
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert (process.returncode, out) == (130, "")
    id = re.search(r"dag-exec_[0-9a-f-]{36}", err)
    assert id is not None
    assert f"`dagbok resume {id[0]}" in err
    assert "Traceback" not in err
    assert json.loads(project.call("show", id[0], "--json").stdout)["status"] == "running"
    # A server goes on with it.
    with project.serving() as url, Client(url) as client:
        ended = client.wait(id[0], timeout_s=20)
    assert (ended.status, ended["1"].attempt, ended["2"].result) == ("completed", 1, "after")


@pytest.mark.parametrize("key", [[], ["--idempotency-key", "today"]])
def test_ctrl_c_before_a_submission_is_answered_does_not_deny_it(
    project: Project, monkeypatch: pytest.MonkeyPatch, key: list[str]
) -> None:
    submit = Dagbok.submit

    async def stored(self: Dagbok, *plan: Any, **options: Any) -> None:
        await submit(self, *plan, **options)
        raise KeyboardInterrupt

    monkeypatch.setattr(Dagbok, "submit", stored)
    monkeypatch.setenv("DAGBOK_CLOSE_GRACE_S", "0.2")
    done = project.call("run", project.plan(task(1, "slow", seconds=30)), "--quiet", *key)
    assert done.returncode == 130
    where = " with the idempotency key today" if key else ""
    assert done.stderr == f"Interrupted. It may have been stored{where}; `dagbok list` shows it.\n"
    assert "dag-exec_" in project.call("list").stdout


def test_ctrl_c_before_a_submission_begins_says_so(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dagbok.cli.run.check_plan", mock.Mock(side_effect=KeyboardInterrupt))
    done = project.call("run", project.plan(task(1, "say", text="x")), "--quiet")
    assert (done.returncode, done.stderr) == (130, "Interrupted before anything was stored.\n")


def test_a_database_in_use_by_another_run_is_refused_with_its_name(project: Project) -> None:
    process = project.start("run", project.plan(task(1, "slow", seconds=20)))
    assert process.stderr is not None
    while "started" not in process.stderr.readline():
        pass
    done = project.run("run", project.plan(task(1, "say", text="x")))
    process.kill()
    process.communicate()
    assert done.returncode == 2
    assert f"process {process.pid}" in done.stderr
    assert "dagbok run" in done.stderr


def test_a_plan_that_asks_first_runs_nothing(project: Project) -> None:
    plan = project.plan(clarification_needed=True, clarification_query="Which\x1b[2J city?")
    done = project.run("run", plan)
    assert (done.returncode, done.stdout) == (4, "")
    assert "Which city?" in done.stderr
    assert not (project.folder / "diary.db").exists()


def test_the_offline_model_is_named_with_the_way_to_a_real_one(project: Project) -> None:
    ask = {"id": 1, "action_type": "inference", "tool_or_prompt": {"name": "inference", "params": {"prompt": "Hi."}}}
    done = project.run("run", project.plan(ask))
    assert done.returncode == 0
    assert "offline model" in done.stderr
    assert "DAGBOK_MODEL" in done.stderr


def test_json_holds_large_results_whole(project: Project) -> None:
    """Beyond 1 MiB the store keeps a result apart; who has no server has no second request to fetch it with."""
    done = project.run("run", project.plan(task(1, "repeat", text="xy", times=600_000)), "--json", "--quiet")
    assert json.loads(done.stdout)["subSteps"][0]["result"] == "xy" * 600_000


def test_a_large_plan_runs_as_quickly_as_it_is_told(project: Project) -> None:
    tasks = [task(id, "say", *([id - 1] if id % 10 else []), text="x") for id in range(2_000)]
    done = project.run("run", project.plan(*tasks))
    assert done.returncode == 0
    assert done.stderr.count("  started  ") == done.stderr.count("  completed  ") == 2_000


@pytest.mark.parametrize("closed", ["2>&-", "<&- >&- 2>&-"])
def test_closed_streams_are_no_error(shared: Project, closed: str) -> None:
    plan = shared.plan(task(1, "noisy"))
    command = [*("bash", "-c", f'"$0" -m dagbok run "$1" {closed}'), sys.executable, plan]
    done = subprocess.run(command, cwd=shared.folder, env=shared.environment(), capture_output=True, check=False)
    assert done.returncode == 0
    assert done.stdout == (b"" if "<" in closed else b"quiet\n")


def test_the_same_key_runs_once_however_often_it_is_called(project: Project) -> None:
    """A job that starts each hour what is to be done once a day."""
    plan = project.plan(task(1, "say", text="once"))
    first, second = (project.run("run", plan, "--json", "--idempotency-key", "today") for _ in range(2))
    assert (first.returncode, second.returncode) == (0, 0)
    assert json.loads(first.stdout)["id"] == json.loads(second.stdout)["id"]
    other = project.run("run", project.plan(task(1, "say", text="else")), "--idempotency-key", "today")
    assert other.returncode == 2
    assert "came with another request" in other.stderr
    assert project.run("run", plan, "--idempotency-key", "to day").returncode == 2


def test_a_key_whose_run_was_interrupted_says_where_it_stands(project: Project) -> None:
    plan = project.plan(task(1, "slow", seconds=30))
    process = project.start("run", plan, "--idempotency-key", "today")
    assert process.stderr is not None
    seen = ""
    while "started" not in seen:
        seen += process.stderr.readline()
    process.kill()
    process.communicate()
    again = project.run("run", plan, "--idempotency-key", "today")
    assert again.returncode == 2
    assert "An earlier run with this key left execution dag-exec_" in again.stderr
    assert "`dagbok resume dag-exec_" in again.stderr
