"""The side log: one line per fact, appended by whichever process it concerns, in the order of the facts.

Each line is one `write` to a file opened for appending, so that lines of several processes do not mix and a line that
was written survives the death of its writer. A line *begins* with its line break: a death in the middle of a write (it
takes a line across two pages, and luck) then spoils its own line alone, which readers pass over. Nothing follows from
such a line: what it would have told had not begun, or was told to nobody.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import orjson

#: Names the file to tools that are loaded by a server.
VARIABLE = "CHAOS_SIDE_LOG"

Line = Mapping[str, Any]


class SideLog:
    """The writing end, for one process."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self._file = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o644)

    def write(self, what: str, **fields: Any) -> None:
        """Append a line. Safe from any thread."""
        line = {"what": what, "pid": os.getpid(), "ms": now_ms(), **fields}
        os.write(self._file, b"\n" + orjson.dumps(line))


def now_ms() -> float:
    """Return milliseconds on the clock that all processes of this machine share."""
    return time.clock_gettime(time.CLOCK_MONOTONIC) * 1000


def read(path: Path, offset: int = 0) -> tuple[list[dict[str, Any]], int]:
    """Return the lines from `offset` on, and where they end."""
    if not path.exists():
        return [], offset
    with path.open("rb") as file:
        file.seek(offset)
        data = file.read()
    return list(_lines(data)), offset + len(data)


def _lines(data: bytes) -> Iterator[dict[str, Any]]:
    for line in data.split(b"\n"):
        try:
            yield orjson.loads(line)
        except orjson.JSONDecodeError:
            continue  # empty, or cut off by a death
