"""`validate`, `list`, `show`, `tools`, `db`, `--help`, `--version`: commands that run nothing."""

from __future__ import annotations

import json
import re
import statistics
import subprocess
import sys
import time
from datetime import UTC, datetime, timedelta
from unittest.mock import ANY, Mock

import pytest

import pythons
from cli.program import Project, id_in, kill, make_project, read_until, task
from cli.test_inbox import ask
from dagbok import __version__
from dagbok.cli.render import headline

COMMANDS = (
    "run", "resume", "retry", "fork", "pause", "cancel", "delete", "inbox", "answer", "validate", "serve", "list",
    "show", "tools", "db",
)  # fmt: skip

HELP = """
import sys
from dagbok.cli.main import main
sys.argv = ["dagbok", "--help"]
try:
    main()
except SystemExit:
    print(*sys.modules)
"""


@pytest.fixture(scope="module")
def diary(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """Three executions, the newest failed."""
    project = make_project(tmp_path_factory.mktemp("diary"))
    calls = {"one": task(1, "say", text="1"), "two": task(1, "say", text="2"), "three": task(1, "boom", message="no")}
    for title, call in calls.items():
        project.call("run", project.plan(call), "--title", title)
    return project


def test_waits_that_are_no_work_are_told_apart() -> None:
    begin = datetime(2026, 1, 1, tzinfo=UTC)
    ended = Mock(
        status="completed", started_at=begin, duration_ms=18, completed_tasks=2, total_tasks=2, failed_tasks=0,
        skipped_tasks=0, running_tasks=0, total_usage=None, total_cost_usd=None, paused_at=None,
    )  # fmt: skip
    ended.completed_at = begin + timedelta(milliseconds=900)
    assert headline(ended) == "completed in 18 ms, 2 of 2 sub-tasks completed"
    ended.completed_at = begin + timedelta(hours=2)
    assert headline(ended) == "completed in 18 ms, 2 of 2 sub-tasks completed (2 h 00 m from start to end)"


def test_list_is_newest_first_and_one_line_each(diary: Project) -> None:
    done = diary.run("list")
    rows = [re.split(r"  +", row) for row in done.stdout.splitlines()]
    assert [(row[1], row[2], row[-1]) for row in rows] == [
        ("failed", "0/1", "three"), ("completed", "1/1", "two"), ("completed", "1/1", "one"),
    ]  # fmt: skip
    page = diary.call("list", "--limit", "1", "--offset", "1", "--status", "completed")
    assert page.stdout.rstrip().endswith("one")
    assert json.loads(diary.call("list", "--json", "--limit", "2").stdout)["pagination"] == {
        "limit": 2, "offset": 0, "count": 2, "total": 3, "totalIsEstimate": False, "nextCursor": ANY,
    }  # fmt: skip
    first = diary.call("list", "--limit", "1", "--status", "completed")
    says = re.fullmatch(r"These are 1 of 2\. The next: --cursor (\S+)\n", first.stderr)
    assert says is not None
    second = diary.call("list", "--limit", "1", "--status", "completed", "--cursor", says[1])
    assert (second.stdout.rstrip().endswith("one"), second.stderr) == (True, "")
    for words in (["--cursor", says[1]], ["--status", "completed", "--cursor", says[1], "--offset", "1"]):
        assert diary.call("list", *words).returncode == 2
    wrong = diary.call("list", "--status", "nope")
    assert wrong.returncode == 2
    assert "partial" in wrong.stderr, "the words that are known"


def test_show_finds_the_latest_an_id_and_the_start_of_one(diary: Project) -> None:
    ids = [row.split()[0] for row in diary.call("list").stdout.splitlines()]
    latest = diary.run("show", "latest", "--events")
    assert "tool_error: RuntimeError: no" in latest.stdout
    assert "substep.failed" in latest.stdout
    assert ids[0] in latest.stdout
    assert ids[2] in diary.call("show", ids[2]).stdout
    assert ids[2] in diary.call("show", ids[2].removeprefix("dag-exec_")[:18]).stdout
    several = diary.call("show", ids[0][:12])
    assert several.returncode == 2
    assert all(id in several.stderr for id in ids)
    assert diary.call("show", "dag-exec_ffff").returncode == 2
    document = json.loads(diary.call("show", ids[1], "--json", "--events").stdout)
    assert document["finalResult"] == "2"
    assert [event["seq"] for event in document["events"]] == list(range(1, len(document["events"]) + 1))


def test_what_runs_is_told_from_what_was_left_behind(project: Project) -> None:
    def start(file: str) -> tuple[pythons.Process, str]:
        process = project.start("run", project.plan(task(1, "say", text="x"), task(2, "gate", 1, file=file)))
        return process, re.findall(r"^dag-exec_\S+", read_until(process, "started", " 2 "), re.MULTILINE)[0]

    process, left = start("a")
    kill(process)
    process, paused = start("b")
    assert project.call("pause", paused).returncode == 0
    kill(process)
    process, runs = start("c")
    rows = {row[0]: row[1:4] for row in (re.split("  +", row) for row in project.call("list").stdout.splitlines())}
    span = rows[runs].pop()
    assert rows == {left: ["interrupted", "1/2", "-"], paused: ["paused", "1/2", "-"], runs: ["running", "1/2"]}
    assert re.fullmatch(r"\d+ ms|\d+\.\d s", span)
    assert re.search(
        r"^status +running for \d.*, 1 of 2 .*, 1 running$", project.call("show", runs).stdout, re.MULTILINE
    )
    kill(process)
    interrupted = r"^status +interrupted, 1 of 2 sub-tasks completed, 1 under way$"
    assert re.search(interrupted, project.call("show", runs).stdout, re.MULTILINE)
    for state, ids in {"paused": [paused], "interrupted": [runs, left]}.items():
        listed = project.call("list", "--status", state).stdout.splitlines()
        assert [row.split()[:2] for row in listed] == [[id, state] for id in ids]
    second = json.loads(project.call("list", "--status", "interrupted", "--offset", "1", "--json").stdout)
    assert ([one["id"] for one in second["executions"]], second["pagination"]["total"]) == ([left], 2)
    first = json.loads(project.call("list", "--status", "interrupted", "--limit", "1", "--json").stdout)
    more = ["--cursor", first["pagination"]["nextCursor"]]
    second = json.loads(project.call("list", "--status", "interrupted", *more, "--json").stdout)
    assert [one["id"] for page in (first, second) for one in page["executions"]] == [runs, left]
    assert second["pagination"]["nextCursor"] is None
    assert project.call("list", "--status", "paused", "--limit", "0").returncode == 2
    project.open("a")
    assert project.call("resume", left).returncode == 0
    assert re.search(r"^ +attempt 1  at most \d.*  interrupted: ", project.call("show", left).stdout, re.MULTILINE)


def test_one_that_asks_and_was_left_in_the_middle_of_other_work_is_interrupted(project: Project) -> None:
    process = project.start("run", project.plan(ask("q", "Red?"), task(2, "charge", file="a")))
    id = id_in(read_until(process, "started", " 2 "))
    assert re.split("  +", project.call("list").stdout)[1] == "waiting"
    kill(process)
    assert re.split("  +", project.call("list").stdout)[1] == "interrupted"
    assert project.call("resume", id).returncode == 4
    assert re.split("  +", project.call("list").stdout)[1] == "waiting", "for two people"
    asked = project.on_terminal("inbox", columns=70)[1]
    assert "  Did it happen? Call charge" in asked
    assert project.call("answer", id, "q", "yes, red").returncode == 0
    assert re.search(r"^completed  q  human +Red\? yes, red$", project.call("show").stdout, re.MULTILINE)


def test_a_command_of_another_name_is_told(project: Project) -> None:
    done = project.call("stop", "latest")
    assert done.returncode == 2
    assert "No such command 'stop'. Did you mean 'cancel'?" in done.stderr
    assert "No such command 'nix'" in project.call("nix").stderr


def test_a_file_that_never_was_a_database_is_told_as_such(project: Project) -> None:
    (project.folder / "diary.db").write_text("hello\n" * 1000)
    done = project.call("list")
    assert done.returncode == 2
    assert "the file is no database; see that it is the right one, and if it was one, restore a backup" in done.stderr


def test_looking_makes_no_database(project: Project) -> None:
    for command in (["list"], ["show"], ["db", "current"]):
        done = project.call(*command)
        assert (done.returncode, done.stdout) == (2, "")
        assert "There is no diary at" in done.stderr
    assert not list(project.folder.glob("diary*"))


def test_db_upgrade_makes_the_tables_once(project: Project) -> None:
    assert "went from no tables to schema" in project.run("db", "upgrade").stdout
    assert "already" in project.call("db", "upgrade").stdout
    assert "the newest of this release" in project.call("db", "current").stdout
    assert project.call("list").stderr == "No executions.\n"


def test_validate_says_ok_with_figures_or_every_problem(project: Project) -> None:
    good = project.plan(
        task(1, "say", text="x"), task(2, "say", 1, text="x"), task(3, "say", text="<Result from Task 2>")
    )
    assert project.run("validate", good).stdout == "ok: 3 sub-tasks, longest path 3\n"
    bad = project.plan(task(1, "say"), task(2, "say", 7, text="x"))
    done = project.call("validate", bad)
    assert (done.returncode, done.stdout) == (2, "")
    assert [row.split()[:2] for row in done.stderr.splitlines()] == [
        ["/sub_tasks/0/tool_or_prompt/params", "invalid_params"],
        ["/sub_tasks/1/dependencies/0", "unknown_dependency"],
    ]
    found = json.loads(project.call("validate", bad, "--json").stdout)
    assert (found["valid"], [problem["code"] for problem in found["problems"]]) == (
        False, ["invalid_params", "unknown_dependency"],
    )  # fmt: skip
    assert not list(project.folder.glob("diary*"))


def test_validate_warns_of_what_looks_misspelt_and_calls_the_plan_right(project: Project) -> None:
    odd = project.plan({**task(1, "say", text="x"), "timeoutSeconds": -5, "team": "docs"})
    done = project.call("validate", odd)
    assert (done.returncode, done.stdout) == (0, "ok: 1 sub-task, longest path 1, 1 warning\n")
    assert done.stderr.split()[:2] == ["/sub_tasks/0/timeoutSeconds", "unknown_field"]
    assert "Did you mean 'timeout_seconds'?" in done.stderr
    found = json.loads(project.call("validate", odd, "--json").stdout)
    assert (found["valid"], found["problems"], len(found["warnings"])) == (True, [], 1)


def test_tools_name_effect_and_params(project: Project) -> None:
    row = next(row for row in project.call("tools").stdout.splitlines() if row.startswith("slow"))
    assert re.split(r"  +", row) == ["slow", "pure", "seconds: number", "Take its time and report."]
    found = {tool["function"]["name"]: tool for tool in json.loads(project.call("tools", "--json").stdout)}
    assert found["read_file"]["effect"] == "pure"


def test_help_says_what_each_command_does_in_a_whole_sentence(project: Project) -> None:
    told = project.call("--help").stdout.partition("Commands:\n")[2].splitlines()
    assert [row.split()[0] for row in told] == list(COMMANDS)
    assert all(row.endswith(".") and not row.endswith("...") for row in told), told
    assert max(map(len, told)) <= 80


def test_help_is_quick_and_loads_nothing_heavy(project: Project) -> None:
    """`dagbok --help` under 0.3 s; what costs that time is imported by the commands that need it."""
    took = []
    for _ in range(5):
        start = time.perf_counter()
        done = project.run("--help")
        took.append(time.perf_counter() - start)
    assert all(command in done.stdout for command in COMMANDS)
    assert statistics.median(took) < 0.6, "0.3 s on a quiet machine"
    loaded = subprocess.run([sys.executable, "-c", HELP], capture_output=True, text=True, check=True).stdout.split()
    heavy = {"fastapi", "sqlalchemy", "pydantic_ai", "pydantic", "httpx2", "uvicorn", "alembic", "rich", "asyncio"}
    assert not heavy & set(loaded)


def test_version(project: Project) -> None:
    assert project.run("--version").stdout == f"dagbok {__version__}\n"
