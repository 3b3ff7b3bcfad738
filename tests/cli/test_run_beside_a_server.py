"""`dagbok run` where a server has the database: the server runs the plan, and it looks the same."""

from __future__ import annotations

import json
import re
import signal
import threading
from collections.abc import Iterator

import pytest

from cli.program import Project, kill, read_until, task
from dagbok.cli import following
from dagbok.client import Client


@pytest.fixture(scope="module")
def url(shared: Project) -> Iterator[str]:
    with shared.serving() as url:
        yield url


def test_the_server_runs_it_and_the_exit_code_and_lines_are_the_same(shared: Project, url: str) -> None:
    plan = shared.plan(task(1, "say", text="x"), task(2, "boom", message="no"), task(3, "slow", 1, seconds=0.3))
    done = shared.run("run", plan, "--model", "openai:x")
    assert done.returncode == 3
    assert f"The server at {url} has the database" in done.stderr
    assert "--model changes nothing" in done.stderr
    verbs = re.findall(r"^ +[\d.]+s  (\w+) +(\w+)", done.stderr, re.MULTILINE)
    ended = [("completed", "1"), ("failed", "2"), ("completed", "3")]
    assert sorted(verbs) == sorted([*ended, ("started", "1"), ("started", "2"), ("started", "3")])
    assert json.loads(done.stdout) == {"3": "late"}


def test_json_is_the_whole_execution_with_large_results(shared: Project, url: str) -> None:
    """The API leaves results over 64 KiB to another request; a script should not need one."""
    done = shared.run("run", shared.plan(task(1, "say", text="x" * 100_000)), "--json", "--quiet")
    assert (done.returncode, done.stderr) == (0, "")
    assert json.loads(done.stdout)["subSteps"][0]["result"] == "x" * 100_000


def test_a_plan_the_server_refuses_is_told_with_every_problem(shared: Project, url: str) -> None:
    done = shared.run("run", shared.plan(task(1, "nix"), task(2, "say", 9, text="x")))
    assert done.returncode == 2
    assert "\n/sub_tasks/0/tool_or_prompt/name  unknown_tool" in done.stderr
    assert "unknown_dependency" in done.stderr


def test_cancelled_elsewhere_ends_with_its_own_code(shared: Project, url: str) -> None:
    process = shared.start("run", shared.plan(task(1, "slow", seconds=30)))
    assert process.stderr is not None
    seen = ""
    while "started" not in seen:
        seen += process.stderr.readline()
    with Client(url) as client:
        client.cancel(re.search(r"dag-exec_[0-9a-f-]{36}", seen)[0])  # type: ignore[index]  # it is there
    _, err = process.communicate(timeout=30)
    assert process.returncode == 5
    assert "cancelled" in err


def test_ctrl_c_leaves_the_server_at_it(shared: Project, url: str) -> None:
    process = shared.start("run", shared.plan(task(1, "slow", seconds=1.2)))
    assert process.stderr is not None
    seen = ""
    while "started" not in seen:
        seen += process.stderr.readline()
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=30)
    assert process.returncode == 130
    assert "the server goes on with it" in err
    with Client(url) as client:
        assert client.get(re.search(r"dag-exec_[0-9a-f-]{36}", err)[0]).status == "running"  # type: ignore[index]  # as above


def test_the_same_key_shows_what_the_first_run_did(shared: Project, url: str) -> None:
    plan = shared.plan(task(1, "say", text="once"))
    first, second = (shared.run("run", plan, "--json", "--idempotency-key", "2025-01-15") for _ in range(2))
    assert (first.returncode, second.returncode) == (0, 0)
    assert first.stdout == second.stdout
    other = shared.run("run", shared.plan(task(1, "say", text="else")), "--idempotency-key", "2025-01-15")
    assert other.returncode == 2
    assert "came with another request" in other.stderr


def test_a_server_that_starts_again_is_found_again(project: Project) -> None:
    """A deployment restarts it, here at another port: the execution goes on, and so does who waits for it."""
    server = project.start("serve", "--port", "0")
    assert server.stdout is not None
    assert "http://" in server.stdout.readline()
    process = project.start("run", project.plan(task(1, "gate", file="a")))
    seen = read_until(process, "started")
    kill(server)
    seen += read_until(process, "The server is away: ")
    with project.serving() as url:
        seen = read_until(process, f"The server is back, at {url}.")
        assert "away" not in seen, "once is enough"
        project.open("a")
        out, _ = process.communicate(timeout=60)
    assert (process.returncode, out) == (0, "through a\n")


@pytest.mark.parametrize("command", ["run", "resume"])
def test_a_server_that_stays_away_has_an_exit_code_of_its_own(
    project: Project, monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    monkeypatch.setattr(following, "PATIENCE_S", 0.5)
    plan = project.plan(task(1, "gate", file="a"), task(2, "die", 1))
    server = project.start("serve", "--port", "0")
    assert server.stdout is not None
    url = server.stdout.readline().split()[-1]
    if command == "resume":
        with Client(url) as client:
            client.pause(client.submit((project.folder / plan).read_text()).execution_id)
    project.open("a")
    buried = threading.Thread(target=server.communicate)  # a process that nobody has waited for is not gone
    buried.start()
    done = project.call(*(["resume", "latest"] if command == "resume" else ["run", plan]))
    buried.join()
    assert (done.returncode, done.stdout) == (6, "")
    assert done.stderr.count("The server is away: ") == 1
    assert re.search(
        r"^The server is still away\. dag-exec_\S+ is in the diary; it goes on as soon as a server starts again, or "
        r"with `\S+ resume dag-exec_.*`\.$",
        done.stderr,
        re.MULTILINE,
    )
