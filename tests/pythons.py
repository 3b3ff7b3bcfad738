"""Python processes that begin with all of Dagbok imported: a fresh interpreter takes a second of a processor for that.

A process of its own (`nursery`) imports it once for all tests of a session and forks. What it forks is a process as any
other: pid, streams, folder, environment, signals, terminal, exit code; no lock, thread or connection is there before
it begins. It does not show that the program starts from nothing: tests of that run `sys.executable`.
"""

from __future__ import annotations

import atexit
import contextlib
import json
import os
import resource
import select
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import IO, Self

_NURSERY = Path(__file__).with_name("nursery.py")
#: A file object, `subprocess.PIPE` or `subprocess.DEVNULL`; None: the one of the tests.
Stream = int | IO[str] | IO[bytes] | None


class Process:
    """What `subprocess.Popen` is for a child of ours, with text in its pipes."""

    def __init__(self, status: int, stdin: IO[str] | None, stdout: IO[str] | None, stderr: IO[str] | None) -> None:
        self.stdin, self.stdout, self.stderr = stdin, stdout, stderr
        self.returncode: int | None = None
        self._status = os.fdopen(status)
        self._reading = threading.Lock()
        self.pid = int(self._line())

    def _line(self) -> str:
        line = self._status.readline()
        if not line:
            raise RuntimeError("the nursery is gone")
        return line

    def poll(self) -> int | None:
        return self._ended(0)

    def wait(self, timeout: float | None = None) -> int:
        code = self._ended(timeout)
        if code is None:
            raise subprocess.TimeoutExpired(str(self.pid), timeout or 0)
        return code

    def _ended(self, timeout: float | None) -> int | None:
        if self.returncode is None and (timeout is None or select.select([self._status], [], [], timeout)[0]):
            with self._reading:
                if self.returncode is None:
                    self.returncode = int(self._line())
                    self._status.close()
        return self.returncode

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            with contextlib.suppress(ProcessLookupError):  # it has ended, and we are about to hear of it
                os.kill(self.pid, number)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)

    def communicate(self, input: str = "", timeout: float | None = None) -> tuple[str, str]:
        """Write `input`, read all there is, and wait for the end."""
        deadline = None if timeout is None else time.monotonic() + timeout
        found = {stream: "" for stream in (self.stdout, self.stderr) if stream is not None}

        def read(stream: IO[str]) -> None:
            found[stream] = stream.read()

        readers = [threading.Thread(target=read, args=(stream,), daemon=True) for stream in found]
        for reader in readers:
            reader.start()
        if self.stdin is not None:
            with contextlib.suppress(BrokenPipeError):  # it did not want to know
                self.stdin.write(input)
                self.stdin.close()
        for reader in readers:
            reader.join(None if deadline is None else max(0.0, deadline - time.monotonic()))
            if reader.is_alive():
                raise subprocess.TimeoutExpired(str(self.pid), timeout or 0)
        self.wait(None if deadline is None else max(0.0, deadline - time.monotonic()))
        self._close()
        return found.get(self.stdout, "") if self.stdout else "", found.get(self.stderr, "") if self.stderr else ""

    def _close(self) -> None:
        for stream in (self.stdin, self.stdout, self.stderr):
            if stream is not None:
                with contextlib.suppress(BrokenPipeError):
                    stream.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._close()
        self.wait()


def start(
    *arguments: str,
    cwd: Path | None = None,
    env: Mapping[str, str] | None = None,
    stdin: Stream = None,
    stdout: Stream = None,
    stderr: Stream = None,
    terminal: bool = False,
    prefix: Sequence[str] = (),
) -> Process:
    """Start what `python ARGUMENTS` would: (`-W` ACTION) and `-m` MODULE or `-c` PROGRAM, and what these take.

    Args:
        terminal: Whether its standard input is the terminal of a session of its own, as that of a shell is.
        prefix: Of the command of a fresh interpreter, such as what takes rights away. There is a fresh one as well
            where `env` has another `PYTHONPATH`.
    """
    order = {
        "arguments": arguments,
        "cwd": str(cwd or Path.cwd()),
        "env": dict(os.environ if env is None else env),
        "terminal": terminal,
        "deaf": signal.getsignal(signal.SIGINT) is signal.SIG_IGN,
        "files": resource.getrlimit(resource.RLIMIT_NOFILE),
        "prefix": prefix,
    }
    ours: list[IO[str] | None] = []
    theirs: list[int] = []
    passing: list[int] = []  # that are ours only until they are passed on
    try:
        for number, (stream, mode) in enumerate(((stdin, "w"), (stdout, "r"), (stderr, "r"))):
            if stream == subprocess.PIPE:
                read, write = os.pipe()
                mine, other = (write, read) if mode == "w" else (read, write)
                ours.append(os.fdopen(mine, mode, encoding="utf-8"))
                passing.append(other)
                theirs.append(other)
                continue
            ours.append(None)
            if stream == subprocess.DEVNULL:
                passing.append(os.open(os.devnull, os.O_RDWR))
                theirs.append(passing[-1])
            elif stream is None:
                theirs.append(number)
            else:
                theirs.append(stream if isinstance(stream, int) else stream.fileno())
        status, tell = os.pipe()
        passing.append(tell)
        _nursery().order(order, [*theirs, tell])
    finally:
        for file in passing:
            os.close(file)
    return Process(status, *ours)


def run(
    *arguments: str,
    cwd: Path | None = None,
    env: Mapping[str, str] | None = None,
    input: str = "",
    timeout: float = 60,
    prefix: Sequence[str] = (),
) -> subprocess.CompletedProcess[str]:
    """Run what `python ARGUMENTS` would to its end, which has to come, and return all it said."""
    pipe = subprocess.PIPE
    process = start(*arguments, cwd=cwd, env=env, stdin=pipe, stdout=pipe, stderr=pipe, prefix=prefix)
    try:
        out, err = process.communicate(input, timeout)
    except BaseException:
        process.kill()
        raise
    assert process.returncode is not None
    return subprocess.CompletedProcess(arguments, process.returncode, out, err)


class _Nursery:
    """The process that forks, for as long as this one lives."""

    def __init__(self) -> None:
        self._control, theirs = socket.socketpair()
        env = {name: value for name, value in os.environ.items() if not name.startswith("DAGBOK_")}
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, str(_NURSERY), str(theirs.fileno())],
                stdin=subprocess.DEVNULL,
                env=env | {"PYTHONUTF8": "1"},
                pass_fds=[theirs.fileno()],
                start_new_session=True,  # Ctrl-C is for the tests, which end it
            )
        self._ordering = threading.Lock()
        atexit.register(self._end)

    def order(self, order: Mapping[str, object], files: Sequence[int]) -> None:
        text = json.dumps(order).encode()
        with self._ordering:
            socket.send_fds(self._control, [b"%8d" % len(text)], files)
            self._control.sendall(text)

    def _end(self) -> None:
        self._control.close()
        self._process.wait(30)


_only: list[_Nursery] = []


def _nursery() -> _Nursery:
    if not _only:
        _only.append(_Nursery())
    return _only[0]
