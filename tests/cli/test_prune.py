"""`dagbok db prune`: only what is meant goes, beside an engine or without one, and stopping it does no harm."""

from __future__ import annotations

import json
import re
import signal
import time
from pathlib import Path

import pytest

from cli.program import Project, make_project, task
from dagbok.store import retention
from dagbok.store.database import Database
from store.test_deletion import rows
from store.test_retention import fill

DAY_MS = 86_400_000


def filled(project: Project, number: int = 3) -> Database:
    """Make a diary with executions that ended three days ago, and as many that failed then."""
    assert project.call("db", "upgrade").returncode == 0
    database = Database.open(project.url)
    at = int(time.time() * 1000) - 3 * DAY_MS
    fill(database, [at] * number)
    fill(database, [at] * number, status="failed")
    return database


def test_it_deletes_what_ended_long_ago_and_nothing_younger(on_both: Project) -> None:
    database = filled(on_both)
    assert on_both.call("run", on_both.plan(task(1, "say", text="young")), "-q").returncode == 0
    looked = on_both.call("db", "prune", "--older-than", "2d", "--dry-run")
    assert (looked.returncode, looked.stdout.startswith("6 executions that ended before")) == (0, True)
    none = on_both.call("db", "prune", "--older-than", "4d", "--yes")
    assert none.stdout.startswith("0 executions deleted")
    failed = on_both.call("db", "prune", "--older-than", "48h", "--status", "failed,partial", "--yes")
    assert failed.stdout.startswith("3 failed, partial executions deleted")
    assert rows(database)["dag_executions"] == 4
    told = json.loads(on_both.call("db", "prune", "--older-than", "2d", "--yes", "--json").stdout)
    assert (told["executions"], told["freedBytes"] >= 0) == (3, True)
    assert rows(database)["dag_executions"] == rows(database)["dags"] == rows(database)["plans"] == 1
    database.close()


@pytest.mark.parametrize("span", ["30", "d", "-1d", "1y", "1e3d", "40000d", "", "3 0d"])
def test_what_is_no_span_of_time_is_refused(shared: Project, span: str) -> None:
    refused = shared.call("db", "prune", f"--older-than={span}", "--yes")
    assert refused.returncode == 2
    assert "span of time" in refused.stderr or "too long" in refused.stderr


def test_a_state_that_is_no_end_is_refused(shared: Project) -> None:
    refused = shared.call("db", "prune", "--older-than", "1d", "--status", "running", "--yes")
    assert (refused.returncode, "cancelled, completed, failed, partial" in refused.stderr) == (2, True)


def test_nothing_goes_without_a_yes(project: Project) -> None:
    database = filled(project)
    refused = project.run("db", "prune", "--older-than", "1d")
    assert (refused.returncode, "--yes" in refused.stderr) == (2, True)
    code, seen = project.on_terminal("db", "prune", "--older-than", "1d", press="n\n", at="[y/N]")
    assert (code, "Nothing was deleted." in seen) == (2, True)
    assert rows(database)["dag_executions"] == 6
    code, seen = project.on_terminal("db", "prune", "--older-than", "1d", press="y\n", at="[y/N]")
    assert (code, "6 executions deleted" in seen) == (0, True)
    assert rows(database) == {}
    database.close()


def test_it_works_beside_a_server(on_both: Project) -> None:
    database = filled(on_both, 30)
    with on_both.serving():
        done = on_both.run("db", "prune", "--older-than", "1d", "--yes")
        assert (done.returncode, done.stdout.startswith("60 executions deleted")) == (0, True), done.stderr
        assert on_both.run("run", on_both.plan(task(1, "say", text="still here"))).stdout == "still here\n"
    assert rows(database)["dag_executions"] == 1
    database.close()


def test_ctrl_c_stops_it_and_the_same_command_goes_on(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    """As a signal between two batches: what was deleted is gone, what was not is whole."""
    database = filled(project, 40)
    run = retention.Batch.run
    batches = 0

    def interrupted(batch: retention.Batch) -> retention.Pruned:
        nonlocal batches
        if batches == 2:
            signal.raise_signal(signal.SIGINT)
        batches += 1
        return run(batch)

    monkeypatch.setattr(retention.Batch, "run", interrupted)
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored where the tests run in the background
    try:
        stopped = project.call("db", "prune", "--older-than", "1d", "--yes")
    finally:
        signal.signal(signal.SIGINT, before)
    assert (stopped.returncode, "the same command goes on" in stopped.stderr) == (130, True)
    found = re.search(r"(\d+) executions deleted", stopped.stderr)
    assert found is not None
    left = 80 - int(found[1])
    assert 0 < left < 80
    counts = rows(database)
    assert (counts.pop("plans") > 0, counts) == (
        True,
        {"dags": left, "dag_executions": left, "sub_steps": left, "events": 2 * left},
    )
    monkeypatch.undo()
    assert project.call("db", "prune", "--older-than", "1d", "--yes").stdout.startswith(f"{left} executions deleted")
    assert rows(database) == {}
    database.close()


def test_the_space_is_given_back_where_that_holds_up_nobody(project: Project) -> None:
    database = filled(project, 200)
    file = project.folder / "diary.db"
    with project.serving():
        refused = project.run("db", "prune", "--older-than", "1d", "--status", "failed", "--yes", "--vacuum")
        assert (refused.returncode, "stop the engine first" in refused.stderr) == (2, True)
        assert refused.stdout.startswith("200 failed executions deleted")
    database.close()
    assert project.run("db", "prune", "--older-than", "1d", "--yes", "--vacuum").returncode == 0
    small = file.stat().st_size
    filled(project, 200).close()
    with project.serving():  # from now on in small steps
        done = project.run("db", "prune", "--older-than", "1d", "--yes", "--vacuum")
        assert (done.returncode, "given back" in done.stderr) == (0, True), done.stderr
    assert file.stat().st_size < small + 100_000


def test_vacuum_on_postgresql_says_what_it_does(tmp_path: Path, postgres_url: str) -> None:
    project = make_project(tmp_path, postgres_url)
    filled(project).close()
    done = project.run("db", "prune", "--older-than", "1d", "--yes", "--vacuum")
    assert (done.returncode, "uses it again" in done.stderr) == (0, True), done.stderr
