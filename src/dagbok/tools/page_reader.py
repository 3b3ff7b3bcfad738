"""Reads HTML in processes of its own (`markup`), because nothing else can be stopped when a page takes for ever.

An engine has one reader, so however many pages are asked for, there are as many processes as it has processors. They
start when needed, go on for a few seconds for the next page, and end when their input does, so also with an engine that
is killed.
"""

from __future__ import annotations

import asyncio
import os
import struct
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any, Final, Self

import orjson

from dagbok.errors import ToolError

START_S: Final = 60.0  # for a process to be ready: 0.5 s of work
TIMEOUT_S: Final = 60.0  # for one page; the process has 20 s of CPU time, so only a starved machine comes here
IDLE_S: Final = 10.0  # how long a process waits for its next page; it holds 65 MB
PROCESSES: Final = min(8, max(2, os.cpu_count() or 2))

_PROGRAM = Path(__file__).with_name("markup.py")
# It finds the same packages as we do, wherever ours come from. The folder of the program is no place to import from
# (-P): some of our modules are named as ones of Python.
_BEGIN = "import runpy, sys; sys.path[:] = sys.argv[2:]; runpy.run_path(sys.argv[1], run_name='__main__')"
_FLAGS: Final = {"isolated": "-I", "ignore_environment": "-E", "no_user_site": "-s", "no_site": "-S"}
#: What Python needs to start; what else is in the environment may be secret, and is no business of a page.
_ENVIRONMENT = frozenset(("PATH", "HOME", "LANG", "LC_ALL", "TZ", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH"))
_SAID: Final = 500  # characters of what a process said that did not start


class PageReader:
    """The processes that read pages for one event loop, the one of its `async with`. Cheap to make."""

    def __init__(self, *, processes: int = PROCESSES, idle_s: float = IDLE_S) -> None:
        self._most = processes
        self._idle_s = idle_s
        self._loop: asyncio.AbstractEventLoop | None = None
        self._turns = asyncio.Semaphore(processes)
        self._started: list[Process] = []  # but those that are known to have ended
        self._idle: dict[Process, asyncio.TimerHandle] = {}  # and when each is ended; the last used comes last

    async def __aenter__(self) -> Self:
        if self._loop is not None:
            raise RuntimeError("this PageReader is open already")
        self._loop = asyncio.get_running_loop()
        self._turns = asyncio.Semaphore(self._most)
        return self

    async def __aexit__(self, *_: object) -> None:
        self._loop = None
        for timer in self._idle.values():
            timer.cancel()
        self._idle.clear()
        started, self._started = self._started, []
        for process in started:  # all of them before any wait, which may be cancelled
            _kill(process)
        for process in started:
            await process.wait()

    @asynccontextmanager
    async def here(self) -> AsyncIterator[PageReader]:
        """Yield this reader if it is open in this event loop, else another for as long as the `async with`."""
        if self._loop is asyncio.get_running_loop():
            yield self
        else:
            async with PageReader(processes=self._most) as own:
                yield own

    async def read(self, html: str, *, url: str, max_chars: int, max_links: int) -> dict[str, Any]:
        """Return what `markup.read` returns, once it is this page's turn.

        Raises:
            ToolError: `unreadable`: the page was too much for its process; `timeout`: it took longer than a page
                does, on a machine that has other things to do; `unavailable`: no process can be started.
        """
        if self._loop is not asyncio.get_running_loop():
            raise RuntimeError("this PageReader is not open in this event loop; see `here`")
        request = orjson.dumps({"html": html, "url": url, "max_chars": max_chars, "max_links": max_links})
        async with self._turns:
            process = self._waiting() or await self._start()
            try:
                async with asyncio.timeout(TIMEOUT_S):
                    answer = await _ask(process, request)
            except BaseException as exc:
                # Whatever interrupted us: a process in the middle of a page is of no use to the next.
                _kill(process)
                await process.wait()
                if isinstance(exc, TimeoutError | asyncio.IncompleteReadError | ConnectionError):
                    raise _failure(exc, url.partition("?")[0], len(html)) from exc
                raise
            self._keep(process)
        found: dict[str, Any] = orjson.loads(answer)
        return found

    def _waiting(self) -> Process | None:
        while self._idle:
            process, timer = self._idle.popitem()
            timer.cancel()
            if process.returncode is None:
                return process
        return None

    async def _start(self) -> Process:
        process = await _start()
        self._started = [one for one in self._started if one.returncode is None]
        self._started.append(process)
        return process

    def _keep(self, process: Process) -> None:
        if self._loop is None:
            return  # closed meanwhile, which has ended it
        self._idle[process] = self._loop.call_later(self._idle_s, self._expire, process)

    def _expire(self, process: Process) -> None:
        del self._idle[process]
        _kill(process)


async def _start() -> Process:
    """Return a process that is ready for a page."""
    kept = {name: value for name, value in os.environ.items() if name in _ENVIRONMENT or name.startswith("PYTHON")}
    flags = [flag for name, flag in _FLAGS.items() if getattr(sys.flags, name)]
    command = [*flags, "-P", "-B", "-c", _BEGIN, str(_PROGRAM), *filter(None, sys.path)]
    try:
        # In a session of its own: Ctrl-C in a terminal is for the engine, which may go on for a while.
        process = await asyncio.create_subprocess_exec(
            sys.executable or "python", *command, stdin=PIPE, stdout=PIPE, stderr=PIPE, env=kept, start_new_session=True
        )
    except OSError as exc:
        raise ToolError(f"No process could be started to read the page: {exc}.", code="unavailable") from exc
    assert process.stdout is not None
    assert process.stderr is not None
    try:
        async with asyncio.timeout(START_S):
            await process.stdout.readexactly(1)
    except BaseException as exc:
        _kill(process)
        said = (await process.stderr.read()).decode("utf-8", "replace").strip()
        await process.wait()
        if not isinstance(exc, TimeoutError | asyncio.IncompleteReadError):
            raise
        why = f"was not ready within {START_S:g} s" if isinstance(exc, TimeoutError) else "ended at once"
        message = f"The process that was to read the page {why} (status {process.returncode}): {said[-_SAID:]}"
        raise ToolError(message, code="unavailable") from exc
    return process


async def _ask(process: Process, request: bytes) -> bytes:
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(struct.pack(">I", len(request)))
    process.stdin.write(request)
    await process.stdin.drain()
    (size,) = struct.unpack(">I", await process.stdout.readexactly(4))
    return await process.stdout.readexactly(size)


def _kill(process: Process) -> None:
    assert process.stdout is not None
    # One that ended by itself is left alone: `kill` would take its exit status away from the loop, which then warns.
    if process.returncode is None and not process.stdout.at_eof():
        with suppress(ProcessLookupError):
            process.kill()


def _failure(exc: BaseException, shown: str, size: int) -> ToolError:
    if isinstance(exc, TimeoutError):
        message = (
            f"The page {shown:.500} was not read within {TIMEOUT_S:g} s; the machine may have too much to do. "
            "It can be tried again."
        )
        return ToolError(message, code="timeout")
    message = (
        f"The page {shown:.500} cannot be read: its HTML ({size:,} characters) takes more time or memory than a page "
        "may. `http_request` gives it as it is."
    )
    return ToolError(message, code="unreadable")
