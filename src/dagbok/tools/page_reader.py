"""Reads HTML in processes of its own (`markup`), because nothing else can be stopped when a page takes for ever."""

from __future__ import annotations

import asyncio
import os
import struct
import sys
from asyncio.subprocess import DEVNULL, PIPE, Process
from contextlib import suppress
from pathlib import Path
from typing import Any, Final, Self

import orjson

from dagbok.errors import ToolError

TIMEOUT_S: Final = 30.0  # for one page; the process has less of CPU time, so only a starved machine comes here

_PROGRAM = Path(__file__).with_name("markup.py")
#: What Python needs to start; what else is in the environment may be secret, and is no business of a page.
_ENVIRONMENT = frozenset(("PATH", "HOME", "LANG", "LC_ALL", "TZ", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH"))


class PageReader:
    """A few processes that read pages. They start when needed and end with the `async with`."""

    def __init__(self, *, processes: int = 1) -> None:
        self._turns = asyncio.Semaphore(processes)
        self._idle: list[Process] = []

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        while self._idle:
            await _end(self._idle.pop())

    async def read(self, html: str, *, url: str, max_chars: int, max_links: int) -> dict[str, Any]:
        """Return what `markup.read` returns.

        Raises:
            ToolError: `unreadable`: the page was too much for it.
        """
        request = orjson.dumps({"html": html, "url": url, "max_chars": max_chars, "max_links": max_links})
        async with self._turns:
            process = self._idle.pop() if self._idle else await _start()
            try:
                async with asyncio.timeout(TIMEOUT_S):
                    answer = await _ask(process, request)
            except BaseException as exc:
                # Whatever interrupted us: a process in the middle of a page is of no use to the next.
                await _end(process)
                if not isinstance(exc, TimeoutError | asyncio.IncompleteReadError | ConnectionError):
                    raise
                message = (
                    f"The page {url:.500} cannot be read: its HTML ({len(html):,} characters) takes more time or "
                    "memory than a page may. `http_request` gives it as it is."
                )
                raise ToolError(message, code="unreadable") from exc
            self._idle.append(process)
        found: dict[str, Any] = orjson.loads(answer)
        return found


async def _start() -> Process:
    kept = {name: value for name, value in os.environ.items() if name in _ENVIRONMENT or name.startswith("PYTHON")}
    # -P: the folder of the program is no place to import from; some of our modules are named as ones of Python.
    return await asyncio.create_subprocess_exec(
        sys.executable, "-P", "-B", str(_PROGRAM), stdin=PIPE, stdout=PIPE, stderr=DEVNULL, env=kept
    )


async def _ask(process: Process, request: bytes) -> bytes:
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(struct.pack(">I", len(request)))
    process.stdin.write(request)
    await process.stdin.drain()
    (size,) = struct.unpack(">I", await process.stdout.readexactly(4))
    return await process.stdout.readexactly(size)


async def _end(process: Process) -> None:
    assert process.stdout is not None
    # One that ended by itself is left alone: `kill` would take its exit status away from the loop, which then warns.
    if not process.stdout.at_eof():
        with suppress(ProcessLookupError):
            process.kill()
    await process.wait()
