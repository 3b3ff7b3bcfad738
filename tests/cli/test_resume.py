"""`dagbok resume`: what a crash, Ctrl-C or a pause left goes on; `run` names it and leaves it alone."""

from __future__ import annotations

import asyncio
import json
import re
import signal
from collections.abc import Sequence
from typing import Any

import pytest

from cli.program import Project, id_in, kill, read_until, task
from dagbok import Dagbok, tool
from dagbok.cli import exit_codes
from dagbok.client import Client
from dagbok.domain.states import ExecutionStatus


def _three(project: Project, gate: str, title: str = "Three steps", tool: str = "gate") -> str:
    """A plan whose second step waits for the file `gate`."""
    tasks = task(1, "say", text="a"), task(2, tool, 1, file=gate), task(3, "say", 2, text="after <Result from Task 2>")
    return project.plan(*tasks, title=title)


def _left_by_kill_9(project: Project, plan: str) -> str:
    """Run a plan, kill the process while the second step runs, and return the execution's id."""
    process = project.start("run", plan)
    seen = read_until(process, "started", " 2 ")
    kill(process)
    return id_in(seen[seen.rindex("dag-exec_") :])  # before it come those that are named


def _shown(project: Project, id: str) -> dict[str, Any]:
    document: dict[str, Any] = json.loads(project.call("show", id, "--json").stdout)
    return document


def test_after_kill_9_run_names_what_is_unfinished_and_resume_goes_on(on_both: Project) -> None:
    project = on_both
    first = _left_by_kill_9(project, _three(project, "a", "The first"))
    second = _left_by_kill_9(project, _three(project, "b", "The second"))
    other = project.run("run", project.plan(task(1, "say", text="x")))
    assert (other.returncode, other.stdout) == (0, "x\n")
    told = other.stderr.splitlines()
    assert re.fullmatch(r"2 executions are unfinished from earlier; `dagbok resume( -d \S+)?` goes on:", told[0])
    assert re.fullmatch(rf"  {second}  interrupted  \d+ s ago  The second", told[1])
    assert re.fullmatch(rf"  {first}  interrupted  \d+ s ago  The first", told[2])
    assert _shown(project, first)["status"] == "running", "run recovers nothing"
    project.open("a", "b")
    done = project.run("resume")
    assert done.returncode == 0
    rows = [re.sub(r" \(\d.* from start to end\)", "", row) for row in done.stdout.splitlines()]  # the death between
    assert [re.split("  +", row) for row in rows] == [
        [id, row_of(_shown(project, id)), title] for id, title in ((first, "The first"), (second, "The second"))
    ]
    for id in (first, second):
        short = id.partition("_")[2][:18]
        happened = re.findall(rf"^ +[\d.]+s  {short}  (\w+) +(.*)", done.stderr, re.MULTILINE)
        assert [verb for verb, _ in happened] == [
            "retrying",
            "started",
            "completed",
            "started",
            "completed",
            "completed",
        ]
        assert happened[0][1].endswith("it was cut off; attempt 2 follows")
        steps = {step["taskId"]: step for step in _shown(project, id)["subSteps"]}
        assert [steps[n]["attempt"] for n in "123"] == [1, 2, 1], "no completed step runs again"
    assert project.run("resume").stderr == "Nothing is unfinished.\n"


def row_of(execution: dict[str, Any]) -> str:
    """What a summary line says of an execution of three steps that completed."""
    seconds = execution["durationMs"]
    span = f"{seconds} ms" if seconds < 1000 else f"{seconds / 1000:.1f} s"
    return f"completed in {span}, 3 of 3 sub-tasks completed"


def test_resume_with_an_id_goes_on_with_that_one_and_looks_like_run(project: Project) -> None:
    first = _left_by_kill_9(project, _three(project, "a"))
    second = _left_by_kill_9(project, _three(project, "b"))
    project.open("a")
    done = project.run("resume", first)
    assert (done.returncode, done.stdout) == (0, "after through a\n")
    assert re.search(r"^ +[\d.]+s  retrying   2   gate +it was cut off; attempt 2 follows$", done.stderr, re.MULTILINE)
    assert "started    1 " not in done.stderr, "what was done before is no news"
    assert f"Next: `dagbok show {first}" in done.stderr
    assert _shown(project, second)["status"] == "running"
    project.open("b")
    short = second.partition("_")[2][:18]
    as_json = project.call("resume", short, "--json", "--quiet")
    assert (as_json.returncode, as_json.stderr) == (0, "")
    assert json.loads(as_json.stdout)["finalResult"] == "after through b"


def test_what_cannot_be_resumed_is_told(project: Project) -> None:
    none = project.call("resume")
    assert none.returncode == 2
    assert "There is no diary at" in none.stderr
    id = id_in(project.call("run", project.plan(task(1, "say", text="x"))).stderr)
    ended = project.call("resume", id)
    assert (ended.returncode, ended.stdout) == (2, "")
    assert re.fullmatch(
        rf"dagbok: Execution {id} is completed already; `dagbok show {id}( -d \S+)?` shows what came of it.\n",
        ended.stderr,
    )
    assert project.call("resume", "ffff").returncode == 2
    nothing = project.call("resume", "--json")
    assert (nothing.returncode, json.loads(nothing.stdout)["executions"]) == (0, [])


def test_a_once_step_that_was_cut_off_is_asked_about_and_not_repeated(on_both: Project) -> None:
    project = on_both
    id = _left_by_kill_9(project, _three(project, "a", tool="charge"))
    project.open("a")  # it would go through at once, were it begun again
    done = project.run("resume", id)
    assert (done.returncode, done.stdout) == (4, "")
    assert "waiting    2   charge       for a person to say whether it happened" in done.stderr
    assert "2 asks: Sub-task '2' (charge) must not be repeated blindly" in done.stderr
    again = project.call("resume")
    assert again.returncode == 4
    assert f"{id}  waiting for a person" in again.stdout
    assert "  2 asks: Sub-task '2' (charge)" in again.stdout
    assert _shown(project, id)["subSteps"][1]["attempt"] == 1


def test_what_waits_for_a_person_goes_on_with_the_rest_of_it(project: Project) -> None:
    """It was cut off in the middle of other work, though its state says that it waits."""
    ask = {"id": "q", "action_type": "human", "tool_or_prompt": {"name": "human", "params": {"prompt": "May I?"}}}
    process = project.start("run", project.plan(ask, task(2, "gate", file="a"), task(3, "say", 2, text="x")))
    id = id_in(read_until(process, "waiting", " q "))
    kill(process)
    assert _shown(project, id)["status"] == "waiting"
    project.open("a")
    done = project.call("resume")
    assert done.returncode == 4
    assert re.fullmatch(rf"{id}  waiting for a person, 2 of 3 .*\n  q asks: May I\?\n", done.stdout)


def test_a_tool_that_is_not_known_here_is_named_with_the_way_to_bring_it(project: Project) -> None:
    id = _left_by_kill_9(project, _three(project, "a"))
    project.open("a")
    one, all = (project.run("resume", *ids, DAGBOK_TOOLS="") for ids in ([id], []))
    assert (one.returncode, all.returncode) == (2, 2)
    words = f"dagbok: Execution {id} needs tools that are not known here: gate, say; --tools MODULE brings them.\n"
    assert words in one.stderr
    assert words in all.stderr
    assert f"{id}  unfinished" in all.stdout
    assert _shown(project, id)["status"] == "running", "better late than failed"
    done = project.run("resume", id, "--tools", "./tools.py", DAGBOK_TOOLS="")
    assert done.returncode == 0


def test_ctrl_c_says_how_to_go_on_with_the_same_tools(project: Project) -> None:
    plan, soon = _three(project, "a"), {"DAGBOK_CLOSE_GRACE_S": "0.2"}
    process = project.start("run", plan, "--tools", "./tools.py", DAGBOK_TOOLS="", **soon)
    read_until(process, "started", " 2 ")
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "Stopping: what runs has 0.2 s to end." in err
    go_on = re.search(r"Interrupted\. (dag-exec_\S+) stays in the diary; `dagbok (resume .*)` goes on\.", err)
    assert go_on is not None
    assert go_on[2].split()[:4] == ["resume", go_on[1], "--tools", "./tools.py"]
    for arguments in (go_on[2].split(), ["resume"]):
        process = project.start(*arguments, **soon)
        read_until(process, "started", " 2 ")
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=60)
        assert (process.returncode, out) == (130, "")
        again = r"Interrupted\. `dagbok resume( -d \S+)?` goes on\."
        assert re.search(again if arguments == ["resume"] else r"`dagbok resume dag-exec_", err)
    project.open("a")
    done = project.call("resume")
    assert done.returncode == 0
    assert _shown(project, go_on[1])["subSteps"][1]["attempt"] == 4, "put back each time, which is no crash"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_other_signals_that_end_a_process_do_as_ctrl_c_does(project: Project, number: signal.Signals) -> None:
    """`timeout`, systemd and CI send SIGTERM, a terminal that is closed SIGHUP; in the background SIGINT is ignored."""
    soon = {"DAGBOK_CLOSE_GRACE_S": "0.2"}
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        process = project.start("run", _three(project, "a"), **soon)
    finally:
        signal.signal(signal.SIGINT, before)
    read_until(process, "started", " 2 ")
    process.send_signal(signal.SIGINT)
    process.send_signal(number)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 128 + number
    assert "Stopping: what runs has 0.2 s to end." in err
    assert re.search(r"Interrupted\. (dag-exec_\S+) stays in the diary; `\S+ resume .*` goes on\.", err)
    process = project.start("resume", **soon)
    read_until(process, "started", " 2 ")
    process.send_signal(number)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 128 + number
    assert re.search(r"Interrupted\. `\S+ resume( -d \S+)?` goes on\.", err)
    assert _shown(project, "latest")["subSteps"][1]["status"] == "pending", "put back, and not cut off"


def test_the_second_signal_stops_at_once(project: Project) -> None:
    process = project.start("run", _three(project, "a"), DAGBOK_CLOSE_GRACE_S="600")
    read_until(process, "started", " 2 ")
    process.send_signal(signal.SIGTERM)
    read_until(process, "Stopping: what runs has 600 s to end.")
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 128 + signal.SIGTERM
    assert "Interrupted. " in err


def test_ctrl_c_during_a_long_wait_or_a_back_off_stops_at_once_and_loses_none_of_it(project: Project) -> None:
    """Nothing runs then, so nothing is waited for, and the due times stand in the rows."""
    again = {**task(1, "flaky", file="calls", times=9), "retry": {"max_attempts": 9, "backoff_seconds": 5_000}}
    plan = project.plan(again, task(2, "wait", seconds=5_000))
    process = project.start("run", plan)
    read_until(process, "retrying")
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "Stopping" not in err
    before = {step["taskId"]: step["nextAttemptAt"] for step in _shown(project, id_in(err))["subSteps"]}
    assert all(before.values())
    process = project.start("resume", "latest")
    read_until(process, "dag-exec_")
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "Stopping" not in err
    after = {step["taskId"]: step["nextAttemptAt"] for step in _shown(project, id_in(err))["subSteps"]}
    assert after == before


def test_a_paused_execution_goes_on_only_when_it_is_named(on_both: Project) -> None:
    project = on_both
    process = project.start("run", _three(project, "a"))
    id = id_in(read_until(process, "started", " 2 "))
    assert project.call("pause", id).returncode == 0
    kill(process)
    project.open("a")
    other = project.call("run", project.plan(task(1, "say", text="x")))
    assert re.search(rf"`dagbok resume ID( -d \S+)?` goes on:\n  {id}  paused ", other.stderr)
    all = project.call("resume")
    assert (all.returncode, all.stdout) == (0, "")
    assert re.fullmatch(r"1 execution is paused and stays so; `dagbok resume ID.*` goes on with one: \S+\n", all.stderr)
    assert _shown(project, id)["pausedAt"]
    done = project.call("resume", id, "--by", "ann")
    assert (done.returncode, done.stdout) == (0, "after through a\n")
    assert re.search(r"^ +[\d.]+s  resumed$", done.stderr, re.MULTILINE)
    events = json.loads(project.call("show", id, "--json", "--events").stdout)["events"]
    resumed = [event["data"] for event in events if event["type"] == "execution.resumed"]
    assert resumed == [{"by": "ann"}]


def test_beside_a_server_resume_lifts_the_pause_and_follows(project: Project) -> None:
    id = _left_by_kill_9(project, _three(project, "a"))
    with project.serving() as url, Client(url) as client:
        all = project.call("resume")
        assert (all.returncode, all.stdout) == (0, "")
        assert f"The server at {url} has the database, and goes on with all that is unfinished by itself." in all.stderr
        assert "still runs to the end" in project.call("pause", id).stderr
        project.open("a")
        assert client.wait(id, timeout_s=20).paused_at is not None
        done = project.call("resume", id, "--model", "openai:x")
        assert (done.returncode, done.stdout) == (0, "after through a\n")
        assert f"The server at {url} has the database and runs it." in done.stderr
        assert "--model changes nothing" in done.stderr
        assert re.search(r"^ +[\d.]+s  completed  3   say ", done.stderr, re.MULTILINE)
        assert project.call("resume", id).returncode == 2


def test_a_server_says_at_its_start_what_it_goes_on_with(project: Project) -> None:
    ids = [_left_by_kill_9(project, _three(project, "a")) for _ in range(2)]
    process = project.start("serve", "--port", "0", DAGBOK_CLOSE_GRACE_S="0.2")
    seen = read_until(process, "unfinished executions: going on with 2, 0 wait for a time")
    assert process.stdout is not None
    assert "http://" in process.stdout.readline(), "it has to be up: one that still starts may miss the signal"
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=60)
    assert all(f"execution {id} was left unfinished" in seen for id in ids)


def test_beside_another_engine_a_pause_is_lifted_and_nothing_is_run_twice(project: Project) -> None:
    """A library engine goes on by itself; whoever only runs has to end first."""
    paused = asyncio.Event()

    @tool(effect="pure")
    async def first() -> None:
        await paused.wait()

    plan = {"original_request": "r", "intent": {"primary": "p"}}
    tasks = [task(1, "first"), task(2, "extract_json", 1, data=1, expression="@")]

    async def main() -> None:
        async with Dagbok(project.url, tools=[first]) as dagbok:
            submitted = await dagbok.submit({**plan, "sub_tasks": tasks})
            await dagbok.service.pause(submitted.execution_id)
            paused.set()
            await dagbok.wait(submitted.execution_id)
            done = await asyncio.to_thread(project.run, "resume", submitted.execution_id)
            assert done.returncode == 0
            assert re.search(r"is not paused any more; process \d+ \(.*\) has the database and goes on\.", done.stderr)
            execution = await dagbok.wait(submitted.execution_id)
            assert execution.status is ExecutionStatus.COMPLETED

    asyncio.run(main())
    process = project.start("run", _three(project, "b"))
    id = id_in(read_until(process, "started", " 2 "))
    refused = project.call("resume", id)
    kill(process)
    assert refused.returncode == 2
    assert refused.stderr.startswith(f"dagbok: process {process.pid} (dagbok run) works on {id} already; `")
    assert f" show {id}" in refused.stderr


def test_of_many_unfinished_executions_the_newest_are_named_and_the_rest_counted(project: Project) -> None:
    @tool(effect="pure")
    async def gate(file: str) -> str:
        await asyncio.Event().wait()
        return file

    async def main() -> list[str]:
        async with Dagbok(project.url, tools=[gate], close_grace_s=0) as dagbok:
            plan = {"original_request": "r", "intent": {"primary": "p"}, "sub_tasks": [task(1, "gate", file="a")]}
            return [(await dagbok.submit(plan, title=f"No. {n}")).execution_id for n in range(7)]

    ids = asyncio.run(main())
    done = project.call("run", project.plan(task(1, "say", text="x")))
    assert re.findall(r"^  (dag-exec_\S+) ", done.stderr, re.MULTILINE) == ids[:1:-1]
    assert re.search(r"^  and 2 more: `dagbok list", done.stderr, re.MULTILINE)
    quiet = project.call("run", project.plan(task(1, "say", text="x")), "--quiet")
    assert quiet.stderr == ""


@pytest.mark.parametrize(
    ("statuses", "code"),
    [
        ([], 0),
        (["completed", "completed"], 0),
        (["completed", "waiting"], 4),
        (["waiting", "cancelled", "completed"], 5),
        (["cancelled", "partial"], 3),
        (["partial", "failed", "waiting"], 1),
        (["failed", "running"], 2),
        (["pending"], 2),
    ],
)
def test_the_exit_code_of_several_is_that_of_the_worst(statuses: Sequence[str], code: int) -> None:
    assert exit_codes.of_several(map(ExecutionStatus, statuses)) == code
