"""Reading what somebody types while an event loop goes on, and letting them write more in an editor of theirs.

The terminal hands over whole lines, so a line is read when it is there, and waiting for it blocks nothing and can be
given up at any time (a thread in `input()` could not). It keeps 4,095 bytes of a line; more is for an editor or a file.
"""

from __future__ import annotations

import asyncio
import os
import shlex
import sys
import tempfile
import termios
from contextlib import suppress
from pathlib import Path
from typing import Final

from dagbok.cli.terminal import is_terminal, note
from dagbok.errors import BadInput

#: What a terminal keeps of a line (N_TTY_BUF_SIZE of Linux, without the end); of a longer one the rest is lost.
_LINE_BYTES: Final = 4_095


def is_there() -> bool:
    """Return whether somebody can be asked: they see what is written, and type."""
    return sys.stdin is not None and sys.stdin.isatty() and is_terminal(sys.stderr)


async def read_line(prompt: str) -> str:
    """Ask for a line and return it without its end; empty also where somebody says that there is nothing (Ctrl-D).

    What was typed before it was asked for is no answer to it, and is dropped.

    Raises:
        BadInput: It is longer than a terminal takes, so that nobody knows how it ended.
    """
    loop, number = asyncio.get_running_loop(), sys.stdin.fileno()
    with suppress(termios.error):
        termios.tcflush(number, termios.TCIFLUSH)
    note(prompt, end="")
    there = asyncio.Event()
    loop.add_reader(number, there.set)
    try:
        await there.wait()
    except asyncio.CancelledError:
        note()
        raise
    finally:
        loop.remove_reader(number)
    data = os.read(number, 2 * _LINE_BYTES)
    if not data.endswith(b"\n"):
        note()
    if len(data.rstrip(b"\r\n")) >= _LINE_BYTES:
        more = "`dagbok answer ID TASK -` reads more from standard input"
        raise BadInput(f"A terminal takes lines of {_LINE_BYTES - 1:,} bytes; {more}.")
    return data.decode(errors="replace").strip("\r\n")


def takes(text: str) -> bool:
    """Return whether a text can be typed on one line."""
    return len(text.encode()) < _LINE_BYTES


def read_word() -> str:
    """Wait for a line and return it in small letters, without what surrounds it; empty where there is none (Ctrl-D)."""
    text = sys.stdin.readline()
    if not text.endswith("\n"):
        note()
    return text.strip().lower()


def editor() -> list[str] | None:
    """Return the command of the editor that somebody has chosen; None: they have not."""
    words = os.environ.get("VISUAL") or os.environ.get("EDITOR") or ""
    try:
        return shlex.split(words) or None
    except ValueError:
        return None


async def edit(command: list[str], text: str) -> str:
    """Let somebody edit a text in their editor, and return what they leave. Raises BadInput: it cannot be used."""
    with tempfile.TemporaryDirectory(prefix="dagbok-") as folder:  # for nobody else's eyes
        path = Path(folder) / "params.json"
        path.write_text(text, encoding="utf-8")
        try:
            # Standard output may be a file, or kept for the result.
            process = await asyncio.create_subprocess_exec(*command, str(path), stdout=sys.stderr.fileno())
        except OSError as exc:
            raise BadInput(f"The editor {shlex.join(command)} cannot be started: {exc.strerror}.") from exc
        try:
            code = await process.wait()
        except asyncio.CancelledError:
            with suppress(ProcessLookupError):
                process.terminate()
            await process.wait()
            raise
        if code != 0:
            raise BadInput(f"The editor {shlex.join(command)} has ended with {code}; nothing was taken.")
        try:
            return path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as exc:
            raise BadInput(f"What the editor left cannot be read: {exc}.") from exc
