"""`dagbok fork`, and `dagbok retry --override`: in this process, or at the server that has the database."""

from __future__ import annotations

import json
from pathlib import Path

from cli.program import Project, id_in, read_until, task


def _partial(project: Project) -> str:
    """Run a plan whose second step fails; return the execution's id."""
    first, second = task(1, "say", text="a"), task(2, "boom", 1, message="no")
    ended = project.run("run", project.plan(first, second, task(3, "say", 2, text="<Result from Task 2>")))
    assert ended.returncode == 3
    return id_in(ended.stderr)


OVERRIDE = '2={"tool": "say", "params": {"text": "<Result from Task 1>b"}}'


def test_what_is_done_is_taken_over_and_the_rest_runs_here(on_both: Project) -> None:
    project = on_both
    origin = _partial(project)
    forked = project.run("fork", origin, "--override", OVERRIDE, "--by", "ann")
    assert (forked.returncode, forked.stdout) == (0, "ab\n"), forked.stderr
    assert f"is a fork of {origin}, and takes over 1 sub-task." in forked.stderr
    assert "started    2   say" in forked.stderr
    assert "started    1" not in forked.stderr
    assert "completed  1" not in forked.stderr.partition("\n\n")[0]
    id = id_in(forked.stderr)
    shown = project.call("show", id)
    assert f"fork of  {origin}" in shown.stdout
    assert "Call say (taken from the execution it is a fork of)" in shown.stdout
    assert json.loads(project.call("show", origin, "--json").stdout)["status"] == "partial"
    refused = project.run("fork", id)
    assert (refused.returncode, "would run in this fork" in refused.stderr) == (2, True)


def test_a_fork_runs_from_a_sub_task_on_or_by_another_plan(project: Project) -> None:
    ended = project.call("run", project.plan(task(1, "say", text="a"), task(2, "say", 1, text="<Result from Task 1>b")))
    id = id_in(ended.stderr)
    again = project.call("fork", "latest", "--from", "2", "--quiet")
    assert (again.returncode, again.stdout, again.stderr) == (0, "ab\n", "")
    other = project.plan(task(1, "say", text="a"), task(2, "say", 1, text="<Result from Task 1>c"))
    forked = project.call("fork", id, "--plan", other, "--json")
    document = json.loads(forked.stdout)
    assert (document["forkedFrom"], document["finalResult"]) == (id, "ac")
    assert [step["attempt"] for step in document["subSteps"]] == [0, 1]
    named = [project.call("fork", id, "--from", "2", "--idempotency-key", "k", "--json").stdout for _ in range(2)]
    assert named[0] == named[1]


def test_a_retry_takes_overrides_from_the_command_line_and_from_a_file(project: Project) -> None:
    id = _partial(project)
    (project.folder / "two.json").write_text('{"params": {"text": "<Result from Task 1>b"}, "tool": "say"}')
    again = project.call("retry", id, "--override", "2=@two.json")
    assert (again.returncode, again.stdout) == (0, "ab\n"), again.stderr
    assert "Call boom (attempt 2, with other params, tool)" in project.call("show", id).stdout


def test_what_cannot_be_overridden_is_said_and_nothing_runs(project: Project) -> None:
    id = _partial(project)
    for arguments, words in (
        (("retry", id, "--override", "2"), "--override takes TASK={"),
        (("retry", id, "--override", '={"tool": "say"}'), "--override takes TASK={"),
        (("retry", id, "--override", "2={]"), "The override of '2': Malformed JSON at line 1"),
        (("retry", id, "--override", "2=@none.json"), "There is no file none.json"),
        (("retry", id, "--override", "2=@."), "cannot be read"),
        (("retry", id, "--override", OVERRIDE, "--override", OVERRIDE), "given twice"),
        (("retry", id, "--override", '1={"tool": "say"}'), "does not run again"),
        (("retry", id, "--override", '2={"params": {}}', "--override", '4={"tool": "x"}'), "2 problems"),
        (("retry", id, "--override", '2={"tool": "nothing"}'), "nothing"),
        (("fork", id, "--override", '2={"params": {}}'), "'message' is a required property"),
        (("fork", id, "--from", "3"), "has never run"),
        (("fork", id, "--from", "9"), "no sub-task '9'"),
        (("fork", "dag-exec_00000000-0000-7000-8000-000000000000"), "no execution"),
    ):
        refused = project.call(*arguments)
        assert refused.returncode == 2, (arguments, refused.stderr)
        assert words in refused.stderr, (arguments, refused.stderr)
        assert refused.stdout == ""
    listed = json.loads(project.call("list", "--json").stdout)["executions"]
    assert [(row["id"], row["status"], row["retryCount"]) for row in listed] == [(id, "partial", 0)]


def test_a_server_that_has_the_database_runs_it(on_both: Project) -> None:
    id = _partial(on_both)
    with on_both.serving():
        forked = on_both.run("fork", id, "--override", OVERRIDE, "--json")
        again = on_both.run("retry", id, "--override", OVERRIDE, "--json")
        refused = on_both.run("fork", id, "--from", "9")
    assert forked.returncode == 0, forked.stderr
    assert json.loads(forked.stdout)["forkedFrom"] == id
    assert "has the database and runs the fork" in forked.stderr
    assert "takes over 1 sub-task" in forked.stderr
    assert "completed  2" in forked.stderr
    assert "completed  1" not in forked.stderr
    assert again.returncode == 0, again.stderr
    assert json.loads(again.stdout)["subSteps"][1]["override"]["tool"] == "say"
    assert (refused.returncode, "no sub-task '9'" in refused.stderr) == (2, True)


def test_an_override_may_take_the_place_of_a_tool_that_is_gone(project: Project) -> None:
    id = _partial(project)
    (project.folder / "other.py").write_text(
        "from dagbok import tool\n\n@tool(effect='pure')\ndef say(text: str) -> str:\n    return text\n"
    )
    refused = project.run("retry", id, DAGBOK_TOOLS="./other.py")
    assert (refused.returncode, "not known here: boom" in refused.stderr) == (2, True), refused.stderr
    again = project.run("retry", id, "--override", OVERRIDE, DAGBOK_TOOLS="./other.py")
    assert (again.returncode, again.stdout) == (0, "ab\n"), again.stderr


def test_a_program_that_has_the_database_judges_overrides_by_its_own_tools(project: Project) -> None:
    id = _partial(project)
    with project.start("run", project.plan(task(1, "gate", file="open"))) as process:
        read_until(process, "started")
        refused = project.run("retry", id, "--override", OVERRIDE)
        project.open("open")
        process.communicate(timeout=60)
    assert refused.returncode == 2
    assert "(dagbok run) has the database, and overrides are judged by its tools" in refused.stderr


def test_a_finished_step_never_runs_again_whatever_kills_the_processes(project: Project) -> None:
    """The side log is a file that the tool itself writes, in three processes, of which two are killed."""
    calls = project.folder / "calls"
    plan = project.plan(
        task(1, "flaky", file=str(calls), times=0), task(2, "die", 1), task(3, "say", 2, text="<Result from Task 1>")
    )
    killed = project.run("run", plan)
    assert killed.returncode == -9
    id = id_in(killed.stderr)
    again = project.run("fork", id, "--override", '2={"tool": "die", "params": {}}')
    assert again.returncode == -9
    fork = project.run("fork", id, "--override", '2={"tool": "say", "params": {"text": "alive"}}')
    assert (fork.returncode, fork.stdout) == (0, "at last\n"), fork.stderr
    assert Path(calls).read_text() == "called\n"
