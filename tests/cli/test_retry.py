"""`dagbok retry`: what was lost runs again, in this process or at the server that has the database."""

from __future__ import annotations

import json
from pathlib import Path

from cli.program import Project, id_in, task


def _partial(project: Project) -> str:
    """Run a plan whose second step fails once; return the execution's id."""
    calls = project.folder / "calls"
    first, flaky = task(1, "say", text="a"), task(2, "flaky", file=str(calls), times=1) | {"retry": {"max_attempts": 1}}
    ended = project.run("run", project.plan(first, flaky, task(3, "say", 1, 2, text="<Result from Task 2>")))
    assert ended.returncode == 3
    return id_in(ended.stderr)


def test_what_was_lost_runs_again_here_and_the_rest_is_kept(on_both: Project) -> None:
    project = on_both
    id = _partial(project)
    again = project.run("retry", id)
    assert (again.returncode, again.stdout) == (0, "at last\n")
    assert "started    2   flaky        Call flaky (attempt 2)" in again.stderr
    assert "started    1" not in again.stderr
    shown = json.loads(project.call("show", id, "--json").stdout)
    assert (shown["status"], shown["retryCount"]) == ("completed", 1)
    refused = project.run("retry", id)
    assert refused.returncode == 2
    assert "is completed; what failed, is partial or was cancelled can be retried" in refused.stderr


def test_the_way_is_shown_where_something_was_lost(project: Project) -> None:
    id = _partial(project)
    shown = project.run("retry", id, "--step", "1")
    assert shown.returncode == 2
    assert "The sub-task '1' is completed; only what failed or was cancelled runs again." in shown.stderr
    Path(project.folder / "calls").unlink()
    failed = project.run("retry", "latest", "--step", "2")
    assert failed.returncode == 3
    assert f"`dagbok retry {id}`" in failed.stderr
    Path(project.folder / "calls").unlink()
    flags = ["--tools", "./tools.py", "--model", "offline:extractive"]
    failed = project.run("retry", "latest", "--step", "2", *flags)
    assert f"`dagbok retry {id} {' '.join(flags)}`" in failed.stderr, "as pasted, it knows the tools"


def test_a_server_that_has_the_database_runs_it(on_both: Project) -> None:
    id = _partial(on_both)
    with on_both.serving():
        again = on_both.run("retry", id, "--json")
    assert again.returncode == 0
    assert json.loads(again.stdout)["retryCount"] == 1
    assert "has the database and runs it" in again.stderr
