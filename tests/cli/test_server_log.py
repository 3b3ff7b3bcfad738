"""The log of `dagbok serve`, read where it is written: a file, a pipe that nobody reads, a terminal."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import pty
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2
import pytest

import pythons
from cli.program import TIMEOUT_S, Project, task
from dagbok.cli.server_log import MAX_TEXT_CHARS, server_log
from dagbok.outside import open_diary
from dagbok.settings import load
from dagbok.tools.secrets import Vault

HOSTILE = 'one\ntwo\r\nthree \x1b[2J\x1b]0;swap\x07 \x85 \u2028 \u202e {"level":"info"}'

TOOLS = '''
import logging, warnings
from dagbok import ToolContext, tool

@tool(effect="pure")
def shout(context: ToolContext, text: str, times: int = 1) -> str:
    """Log the text."""
    context.logger.warning("%s", text * times, extra={"my_text": text * times})
    logging.getLogger("somebody.else").warning("a library warns")
    logging.getLogger("somebody.else").info("a library talks")
    warnings.warn("Python warns")
    return "shouted"

@tool(effect="pure")
def broken(text: str) -> str:
    """Log words that do not fit their arguments, and values that no JSON holds."""
    logging.getLogger("dagbok.broken").warning("%d of %s", "text")
    circle = []
    circle.append(circle)
    class Rude:
        def __str__(self):
            raise RuntimeError("no")
    odd = {"circle": circle, "rude": Rude(), "number": 2**70, "lone": "\\ud800", "level": "mine", "keys": {(1, 2): 3}}
    logging.getLogger("dagbok.odd").warning("odd", extra=odd)
    try:
        raise ValueError(text)
    except ValueError:
        logging.getLogger("dagbok.raised").exception("it failed")
    return "told"
'''


@dataclass
class Serving:
    process: pythons.Process
    client: httpx2.Client

    def submit(self, *tasks: dict[str, Any], **headers: str) -> str:
        document = {"original_request": "Do it", "intent": {"primary": "do"}, "sub_tasks": tasks}
        answer = self.client.post("/api/v1/execute-dag", json=document, headers=headers)
        assert answer.status_code == 202, answer.text
        id: str = answer.json()["executionId"]
        return id

    def reached(self, id: str, *statuses: str) -> int:
        """Wait until the execution is in one of these states; return how many requests that took."""
        for count in range(1, 10_000):
            if self.client.get(f"/api/v1/dag-executions/{id}").json()["status"] in statuses:
                return count
            time.sleep(0.02)
        raise AssertionError(f"{id} does not become {statuses}")

    def run(self, *tasks: dict[str, Any], **headers: str) -> str:
        id = self.submit(*tasks, **headers)
        self.reached(id, "completed", "failed", "partial", "waiting")
        return id

    def stop(self) -> int:
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(TIMEOUT_S)


@contextlib.contextmanager
def serving(project: Project, stderr: Any, *arguments: str, **more: str) -> Iterator[Serving]:
    """Run `dagbok serve`; its stderr is the caller's."""
    (project.folder / "log_tools.py").write_text(TOOLS)
    process = pythons.start(
        *("-m", "dagbok", "serve", "--port", "0", *arguments),
        cwd=project.folder,
        env=project.environment(**{"DAGBOK_TOOLS": "./tools.py,./log_tools.py", **more}),
        stdout=subprocess.PIPE,
        stderr=stderr,
    )
    assert process.stdout is not None
    try:
        first = process.stdout.readline()
        assert "http://" in first, first
        with httpx2.Client(base_url=first.split()[-1], timeout=60, trust_env=False) as client:
            yield Serving(process, client)
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
                assert process.wait(TIMEOUT_S) == 0
    finally:
        process.kill()
        process.wait(TIMEOUT_S)
        process.stdout.close()


@contextlib.contextmanager
def logging_to_file(project: Project, *arguments: str, **more: str) -> Iterator[Serving]:
    with (project.folder / "server.log").open("ab") as file, serving(project, file, *arguments, **more) as server:
        yield server


def lines(project: Project) -> list[dict[str, Any]]:
    """Return the lines of the file, each parsed by itself."""
    data = (project.folder / "server.log").read_bytes()
    assert data.endswith(b"\n")
    return [json.loads(line) for line in data.decode().splitlines()]


def diary(found: list[dict[str, Any]]) -> Counter[tuple[str, int, str]]:
    return Counter((x["executionId"], x["seq"], x["event"]) for x in found if x["logger"] == "dagbok.diary")


def events(project: Project, *ids: str) -> Counter[tuple[str, int, str]]:
    with open_diary(load(database_url=project.url)) as reader:
        return Counter((id, row["seq"], row["type"]) for id in ids for row in reader.events(id, limit=1_000_000))


def test_each_event_of_the_diary_is_one_line(project: Project) -> None:
    with logging_to_file(project) as server:
        good = server.run(task(1, "say", text="a"), task(2, "say", 1, text="b"))
        bad = server.run(task(1, "boom", message=HOSTILE), task(2, "say", 1, text="b"), task(3, "say", text="c"))
        asked = server.run({**task("q", "human", prompt="Really?"), "action_type": "human"})
        server.client.post(f"/api/v1/dag-executions/{asked}/sub-steps/q/input", json={"input": "yes"})
        server.reached(asked, "completed")
    found = lines(project)
    assert diary(found) == events(project, good, bad, asked)
    told = {x["event"]: x for x in found if x.get("executionId") == bad}
    assert list(told["substep.failed"])[:4] == ["time", "level", "logger", "event"]
    assert told["substep.failed"].items() >= {"level": "warning", "taskId": "1", "attempt": 1}.items()
    assert told["substep.failed"]["errorCode"] == "tool_error"
    assert told["execution.partial"].items() >= {"level": "warning", "completed": 1, "skipped": 1}.items()
    assert told["substep.started"]["tool"] in ("boom", "say")
    assert told["execution.created"].items() >= {"level": "info", "seq": 1, "totalTasks": 3}.items()
    assert found[-1]["event"].startswith("stopping on SIGTERM") or found[-1]["logger"] == "dagbok.diary"


def test_what_a_stop_and_a_cancellation_without_an_owner_write_is_told_too(project: Project) -> None:
    with logging_to_file(project, DAGBOK_CLOSE_GRACE_S="0") as server:
        id = server.submit(task(1, "slow", seconds=600), task(2, "say", 1, text="b"))
        server.reached(id, "running")
    with logging_to_file(project, DAGBOK_TOOLS="") as server:
        assert server.client.post(f"/api/v1/dag-executions/{id}/cancel").status_code == 202
        server.reached(id, "cancelled")
    found = lines(project)
    assert diary(found) == events(project, id)
    assert {"substep.retrying", "execution.cancelled"} <= {x["event"] for x in found}
    assert [x for x in found if "has no tool say, slow" in x["event"]]


def test_hostile_text_breaks_no_line(project: Project) -> None:
    with logging_to_file(project) as server:
        server.run(task(1, "boom", message=HOSTILE), task(2, "shout", text=HOSTILE), task(3, "broken", text=HOSTILE))
        server.run(task(1, "shout", text="x" * 1024, times=1024), task(2, "broken", text="y" * 2**20))
        server.client.get("/nothing%0a%1b[2Jhere?secret=hunter2")
    data = (project.folder / "server.log").read_bytes()
    assert not [byte for byte in data if byte < 32 and byte != 10]
    assert max(map(len, data.split(b"\n"))) <= 16 * 1024
    for sign in ("\x85", "\u2028", "\u202e", "[2J", "swap", "hunter2"):
        assert sign not in data.decode(), repr(sign)
    found = lines(project)
    said = [x for x in found if x["logger"] == "dagbok.tool.shout"]
    assert said[0]["event"].startswith("one\ntwo\nthree")
    assert said[0].items() >= {"taskId": "2", "attempt": 1, "level": "warning"}.items()
    assert said[1]["myText"].startswith("xxx")
    assert said[1]["myText"].endswith("…")
    raised = [x["exception"] for x in found if x["logger"] == "dagbok.raised"]
    assert raised[0].startswith("Traceback (most recent call last):")
    assert "ValueError: one" in raised[0]
    assert raised[1].startswith("Traceback")
    assert raised[1].endswith("yyy")
    (odd,) = [x for x in found if x["logger"] == "dagbok.odd"][:1]
    assert odd.items() >= {"level": "warning", "event": "odd", "number": str(2**70), "lone": "\\ud800"}.items()
    assert "cannot be shown" in odd["rude"]
    assert [x for x in found if x["event"].startswith("%d of %s (its arguments cannot be shown")]


def test_other_libraries_are_heard_when_they_warn(project: Project) -> None:
    with logging_to_file(project) as server:
        server.run(task(1, "shout", text="hey"))
    found = lines(project)
    assert {x["event"] for x in found if x["logger"] == "somebody.else"} == {"a library warns"}
    assert any("Python warns" in x["event"] for x in found if x["logger"] == "py.warnings")
    assert {x["logger"].split(".")[0] for x in found} == {"dagbok", "somebody", "py"}


def test_a_higher_level_tells_less_and_debug_tells_of_health(project: Project) -> None:
    with logging_to_file(project, "--log-level", "warning") as server:
        server.run(task(1, "boom", message="no"))
    assert {x["level"] for x in lines(project)} == {"warning"}
    assert {x["event"] for x in lines(project)} == {"substep.failed", "execution.failed"}
    with logging_to_file(project, DAGBOK_LOG_LEVEL="debug") as server:
        server.client.get("/health")
    assert [x["path"] for x in lines(project) if x["event"] == "http.request"] == ["/health"]
    with logging_to_file(project) as server:
        server.client.get("/health/ready")
    assert not [x for x in lines(project) if x.get("path") == "/health/ready"]


def test_settings_of_the_log_that_are_none_are_refused(project: Project) -> None:
    done = project.run("serve", "--log-level", "loud", "--log-format", "xml")
    assert done.returncode == 2
    assert "log_level" in done.stderr
    assert "log_format" in done.stderr


def test_every_line_within_a_request_has_its_id_and_no_other(project: Project) -> None:
    ids = [f"request-{number}" for number in range(40)]
    with logging_to_file(project) as server, ThreadPoolExecutor(8) as threads:
        tasks = [task(number, "shout", text="a") for number in range(5)]
        made = dict(zip(threads.map(lambda mine: server.run(*tasks, **{"X-Request-Id": mine}), ids), ids, strict=True))
    found = lines(project)
    assert {x["executionId"]: x["requestId"] for x in found if x["event"] == "execution.created"} == made
    submissions = [x["requestId"] for x in found if x["event"] == "http.request" and x["method"] == "POST"]
    assert sorted(submissions) == sorted(ids)
    # The engine works for all at once; what it and the tools log is of no request, and must not seem to be.
    others = [x for x in found if x["event"] not in ("execution.created", "http.request")]
    assert not [x for x in others if "requestId" in x]
    assert len([x for x in others if x["logger"] == "dagbok.tool.shout"]) == 200


def test_a_fault_is_logged_under_the_id_of_its_answer(project: Project) -> None:
    (project.folder / "fault.py").write_text(
        "from dagbok import tool\nfrom dagbok.service import Service\n\n"
        "def broken(*_, **__):\n    raise RuntimeError('hunter2')\n\nService.list_executions = broken\n\n"
        "@tool(effect='pure')\ndef nothing() -> str:\n    'Do nothing.'\n    return ''\n"
    )
    with logging_to_file(project, DAGBOK_TOOLS="./fault.py") as server:
        answer = server.client.get("/api/v1/dag-executions?secret=1")
        assert answer.status_code == 500
    mine = [x for x in lines(project) if x.get("requestId") == answer.headers["x-request-id"]]
    assert [x["logger"] for x in mine] == ["dagbok.api", "dagbok.http"]
    assert "hunter2" in mine[0]["exception"]
    assert mine[1].items() >= {"level": "error", "status": 500, "method": "GET", "bytes": len(answer.content)}.items()
    assert mine[1]["path"] == "/api/v1/dag-executions"


def test_at_the_end_every_line_is_written(capfd: pytest.CaptureFixture[str]) -> None:
    """Those of the last batch too, which is neither full nor followed by a pause."""
    with server_log(format="json"):
        for number in range(5_000):
            logging.getLogger("dagbok.x").info("%d", number)
    assert [json.loads(line)["event"] for line in capfd.readouterr().err.splitlines()] == [*map(str, range(5_000))]


def test_a_secret_is_redacted_before_a_long_text_is_cut_to_wait(capfd: pytest.CaptureFixture[str]) -> None:
    secret = "TOPSECRETVALUE0123456789"
    with server_log(format="json", redact=Vault({"T": secret}).redact):
        start = len("Traceback (most recent call last):")
        for cut in (MAX_TEXT_CHARS // 4, MAX_TEXT_CHARS):  # where `both_ends` cuts, and where other strings are cut
            for before in range(cut - 320, cut, 10):
                text = f"{'q' * (before - start)}{secret}{'q' * 20_000}"
                try:
                    raise RuntimeError(text)
                except RuntimeError:
                    logging.getLogger("asyncio").exception("failed")
                logging.getLogger("asyncio").warning(text)
    seen = capfd.readouterr().err
    assert len(seen.splitlines()) == 128
    assert "TOPS" not in seen


def test_a_long_text_that_cannot_be_redacted_is_not_shown(capfd: pytest.CaptureFixture[str]) -> None:
    def redact(text: str) -> str:
        if len(text) > MAX_TEXT_CHARS:
            raise ZeroDivisionError
        return text

    with server_log(format="json", redact=redact):
        logging.getLogger("dagbok.x").warning("q" * 20_000)
    (line,) = capfd.readouterr().err.splitlines()
    assert json.loads(line)["event"] == "a text of 20,000 characters that cannot be shown: ZeroDivisionError"


# -- readers that are no good -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("blocking", [True, False])
def test_a_pipe_that_nobody_reads_holds_nothing_up_and_what_was_lost_is_told(project: Project, blocking: bool) -> None:
    ours, theirs = os.pipe()
    os.set_blocking(theirs, blocking)
    with serving(project, theirs) as server, os.fdopen(ours, encoding="utf-8") as reader:
        os.close(theirs)
        id = server.submit(*(task(number, "say", text="a") for number in range(6_000)))
        asked = server.reached(id, "completed")
        assert server.client.get("/health/ready").status_code == 200

        server.process.send_signal(signal.SIGTERM)
        found = [json.loads(line) for line in reader.read().splitlines()]
        assert server.process.wait(TIMEOUT_S) == 0
    lost = sum(x["dropped"] for x in found if x["logger"] == "dagbok.log")
    assert lost > 1_000
    told = [x for x in found if x["logger"] != "dagbok.log"]
    started_and_stopping = 2
    assert len(told) + lost == events(project, id).total() + asked + 1 + started_and_stopping


def test_a_server_ends_though_nobody_reads_its_log(project: Project) -> None:
    ours, theirs = os.pipe()
    with serving(project, theirs) as server:
        server.run(*(task(number, "say", text="a") for number in range(1_000)))
        assert server.stop() == 0
    os.close(theirs)
    os.close(ours)


def test_a_reader_that_went_away_is_no_fault(project: Project) -> None:
    ours, theirs = os.pipe()
    with serving(project, theirs) as server:
        os.close(theirs)
        os.close(ours)
        for _ in range(3):
            server.run(task(1, "shout", text="a"))
        assert server.client.get("/health/ready").status_code == 200
        assert server.stop() == 0


# -- on a terminal ----------------------------------------------------------------------------------------------------


def on_terminal(project: Project, work: Callable[[Serving], object], **more: str) -> str:
    """Return all that a terminal was sent by a server during `work`."""
    ours, theirs = pty.openpty()
    seen = bytearray()

    def read() -> None:
        with contextlib.suppress(OSError):  # EIO: nobody has the other end any more
            while part := os.read(ours, 65_536):
                seen.extend(part)

    with ThreadPoolExecutor(1) as thread:
        with serving(project, theirs, **more) as server:
            os.close(theirs)
            reading = thread.submit(read)
            work(server)
        reading.result(TIMEOUT_S)
    os.close(ours)
    return seen.decode().replace("\r\n", "\n")


def work(server: Serving) -> None:
    server.run(task(1, "boom", message=HOSTILE), task(2, "broken", text=HOSTILE))


def test_on_a_terminal_the_lines_are_for_people(project: Project) -> None:
    seen = on_terminal(project, work, NO_COLOR="1")
    assert not [sign for sign in seen if ord(sign) < 32 and sign != "\n"]
    assert "\u202e" not in seen
    (failed,) = [line for line in seen.splitlines() if "substep.failed" in line]
    assert "[warning" in failed
    assert "taskId=1" in failed
    assert "error='RuntimeError: one two three {" in failed
    assert not failed.startswith("{")
    assert "\n  Traceback (most recent call last):\n" in seen
    assert "/docs; the diary is" in seen


def test_on_a_terminal_the_lines_have_colours_that_are_ours_alone(project: Project) -> None:
    seen = on_terminal(project, work)
    assert "\x1b[1m" in seen
    assert "\x1b[2J" not in seen
    assert "\x1b]" not in seen
    assert "\x1b" not in on_terminal(project, work, TERM="dumb")
    plain = on_terminal(project, work, DAGBOK_LOG_FORMAT="json")
    assert all(json.loads(line)["level"] for line in plain.splitlines())


# -- only a program configures it -------------------------------------------------------------------------------------


def python(folder: Path, program: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=folder, capture_output=True, text=True, timeout=TIMEOUT_S, check=True
    )
    assert done.stderr == ""
    return done.stdout


def test_the_library_configures_no_logging_and_prints_none(project: Project) -> None:
    program = """
import asyncio, logging, sys
from dagbok import AsyncClient, Client, Dagbok, Plan, tool
assert "structlog" not in sys.modules
@tool(effect="pure")
def boom() -> str:
    'Fail.'
    raise RuntimeError("no")
async def main():
    async with Dagbok("sqlite:///embedded.db", tools=[boom]) as dagbok:
        plan = {"original_request": "x", "intent": {"primary": "x"}, "sub_tasks": [
            {"id": 1, "tool_or_prompt": {"name": "boom"}}]}
        print((await dagbok.run(plan)).status)
asyncio.run(main())
assert not logging.getLogger().handlers and not logging.getLogger("dagbok").handlers
assert logging.getLogger("dagbok").level == logging.NOTSET
"""
    assert python(project.folder, program) == "failed\n"


def test_a_program_that_configures_logging_has_the_diary_too(
    project: Project, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level("INFO", logger="dagbok"):
        project.call("run", project.plan(task(1, "say", text="a")))
    assert not [record for record in caplog.records if record.name == "dagbok.diary"], "`run` shows it in its own way"


def test_a_command_shows_failures_in_its_own_way_only(project: Project) -> None:
    done = project.run("run", project.plan(task(1, "boom", message="no")))
    assert done.returncode == 1
    assert "substep.failed" not in done.stderr
