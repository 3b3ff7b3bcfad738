"""The program `dagbok` as its users start it: a process of its own, in a folder of its own, on a real SQLite file."""

from __future__ import annotations

import contextlib
import fcntl
import io
import json
import logging
import os
import pty
import re
import signal
import struct
import subprocess
import sys
import termios
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import pythons
from dagbok.cli.main import main

TIMEOUT_S = 60

TOOLS = '''
import asyncio
import os
import signal
import subprocess
from pathlib import Path

from dagbok import ToolContext, tool
from dagbok.errors import ToolError


@tool(effect="pure")
def say(text: str) -> str:
    """Return the text."""
    return text


@tool(effect="pure")
def repeat(text: str, times: int) -> str:
    """Return the text many times."""
    return text * times


@tool(effect="pure")
def boom(message: str) -> str:
    """Fail with the message."""
    raise RuntimeError(message)


@tool(effect="pure")
def noisy() -> str:
    """Print, and let a child print."""
    print("NOISE \\033[2J of a tool")
    subprocess.run(["echo", "NOISE of a child"], check=True)
    return "quiet"


@tool(effect="pure")
async def gate(context: ToolContext, file: str) -> str:
    """Wait until there is a file of that name."""
    context.progress("half way there", 0.5)
    while not Path(file).exists():
        await asyncio.sleep(0.02)
    return f"through {file}"


@tool(effect="once")
async def charge(context: ToolContext, file: str) -> str:
    """Charge a card once there is a file of that name."""
    return await gate(context, file)


@tool(effect="pure")
def die() -> None:
    """End the process that runs it, as a crash does."""
    os.kill(os.getpid(), signal.SIGKILL)


@tool(effect="pure")
def flaky(file: str, times: int) -> str:
    """Fail a few times: each call leaves a line in the file of that name."""
    with Path(file).open("a+") as calls:
        calls.seek(0)
        before = len(calls.readlines())
        calls.write("called\\n")
    if before < times:
        raise ToolError(f"the server was away for the {before + 1}. time", code="unavailable")
    return "at last"


@tool(effect="pure")
async def slow(context: ToolContext, seconds: float) -> str:
    """Take its time and report."""
    context.progress("half way there", 0.5)
    await asyncio.sleep(seconds)
    return "late"
'''


class _Stream(io.TextIOWrapper):
    def __init__(self) -> None:
        super().__init__(io.BytesIO(), encoding="utf-8")

    def getvalue(self) -> str:
        self.flush()
        assert isinstance(self.buffer, io.BytesIO)
        return self.buffer.getvalue().decode()


@dataclass
class Project:
    """A folder with tools and plans, where the program runs."""

    folder: Path
    database_url: str = ""  # else a file in the folder
    fresh: bool = False  # whether each command gets an interpreter that has imported nothing

    @property
    def url(self) -> str:
        return self.database_url or f"sqlite:///{self.folder / 'diary.db'}"

    def open(self, *gates: str) -> None:
        """Let the tools `gate` and `charge` through."""
        for name in gates:
            (self.folder / name).touch()

    def plan(self, *tasks: dict[str, Any], **more: Any) -> str:
        """Write a plan and return the name of its file."""
        document = {"original_request": "Do it", "intent": {"primary": "do"}, "sub_tasks": tasks, **more}
        name = f"plan{len(list(self.folder.glob('plan*.json')))}.json"
        (self.folder / name).write_text(json.dumps(document))
        return name

    def environment(self, **more: str) -> dict[str, str]:
        kept = ("PATH", "HOME", "LANG", "LC_ALL", "VIRTUAL_ENV", "PYTHONPATH")
        found = {name: os.environ[name] for name in kept if name in os.environ}
        mine = {"DAGBOK_DATABASE_URL": self.url, "DAGBOK_TOOLS": "./tools.py", "TERM": "xterm-256color"}
        return {**found, "PYTHONUTF8": "1", **mine, **more}

    def start(self, *arguments: str, **more: str) -> pythons.Process:
        return pythons.start(
            *("-m", "dagbok", *arguments),
            cwd=self.folder,
            env=self.environment(**more),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            prefix=("env",) if self.fresh else (),
        )

    def run(self, *arguments: str, input: str = "", **more: str) -> subprocess.CompletedProcess[str]:
        with self.start(*arguments, **more) as process, _ended_at_last(process):
            out, err = process.communicate(input)
        assert "Traceback" not in err, err
        assert process.returncode is not None
        return subprocess.CompletedProcess(arguments, process.returncode, out, err)

    def call(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run the same `main` in this process, for commands whose time is mostly the start of Python."""
        logger = logging.getLogger("dagbok")
        before = (logger.handlers[:], logger.level, logger.propagate)
        root = logging.getLogger()
        handlers = root.handlers[:]
        environment = {name: value for name, value in self.environment().items() if name.startswith(("DAGBOK", "TERM"))}
        code: object = None
        with (
            mock.patch.dict(os.environ, environment),
            mock.patch.object(sys, "argv", ["dagbok", *arguments]),
            contextlib.chdir(self.folder),
            contextlib.redirect_stdout(_Stream()) as out,
            contextlib.redirect_stderr(_Stream()) as err,
        ):
            try:
                main()
            except SystemExit as exc:
                code = exc.code
        logger.handlers, logger.propagate, root.handlers = before[0], before[2], handlers
        logger.setLevel(before[1])
        assert isinstance(code, int)
        return subprocess.CompletedProcess(arguments, code, out.getvalue(), err.getvalue())

    def on_terminal(
        self,
        *arguments: str,
        columns: int = 100,
        press: str = "",
        at: str = "half way",
        typed: Sequence[tuple[str, str | Callable[[], object]]] = (),
        **more: str,
    ) -> tuple[int, str]:
        """Run on a terminal of its own; return the exit code and every byte that it was sent.

        `press` is typed as soon as the words `at` are seen: those of a step that runs. Of `typed` each is, as soon as
        its words are seen behind those before; what is no text is called.
        """
        wanted = [*([(at, press)] if press else []), *typed]
        ours, theirs = pty.openpty()
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 40, columns, 0, 0))
        process = pythons.start(
            *("-m", "dagbok", *arguments),
            cwd=self.folder,
            env=self.environment(**more),
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            terminal=bool(wanted),  # Ctrl-C is for the terminal's own session
        )
        os.close(theirs)
        seen = bytearray()
        begin = 0
        with _ended_at_last(process), contextlib.suppress(OSError):  # EIO: nobody has the other end any more
            while part := os.read(ours, 65_536):
                seen += part
                while wanted and (found := seen.find(wanted[0][0].encode(), begin)) >= 0:
                    begin, keys = found + len(wanted[0][0].encode()), wanted.pop(0)[1]
                    if isinstance(keys, str):
                        os.write(ours, keys.encode())
                    else:
                        keys()
        os.close(ours)
        return process.wait(TIMEOUT_S), seen.decode().replace("\r\n", "\n")

    @contextlib.contextmanager
    def serving(self, *arguments: str, **more: str) -> Iterator[str]:
        """Run `dagbok serve` on a free port; yield its URL."""
        process = self.start("serve", "--port", "0", *arguments, **more)
        assert process.stdout is not None
        try:
            first = process.stdout.readline()
            assert "http://" in first, first + (process.stderr.read() if process.stderr else "")
            yield first.split()[-1]
        finally:
            process.send_signal(signal.SIGTERM)
            process.communicate(timeout=TIMEOUT_S)


@contextlib.contextmanager
def _ended_at_last(process: pythons.Process) -> Iterator[None]:
    """Kill a process that does not do what is waited for: a failed test is better than one that hangs."""
    timer = threading.Timer(TIMEOUT_S, process.kill)
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def read_until(process: pythons.Process, *words: str) -> str:
    """Return what a process writes to stderr, as soon as a line of it holds all `words`."""
    assert process.stderr is not None
    seen = ""
    with _ended_at_last(process):
        while line := process.stderr.readline():
            seen += line
            if all(word in line for word in words):
                return seen
    raise AssertionError(f"{words} did not come, but: {seen}")


def kill(process: pythons.Process) -> None:
    """End a process as a crash does."""
    process.kill()
    process.communicate(timeout=TIMEOUT_S)


def id_in(text: str) -> str:
    """Return the first id of an execution in a text."""
    found = re.search(r"dag-exec_[0-9a-f-]{36}", text)
    assert found is not None, text
    return found[0]


def make_project(folder: Path, database_url: str = "") -> Project:
    (folder / "tools.py").write_text(TOOLS)
    return Project(folder, database_url)


def task(id: str | int, name: str, *after: str | int, **params: Any) -> dict[str, Any]:
    """A sub-task that calls the tool `name`."""
    call = {"name": name, "params": params}
    return {"id": id, "description": f"Call {name}", "tool_or_prompt": call, "dependencies": list(after)}
