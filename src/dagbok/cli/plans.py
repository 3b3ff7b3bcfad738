"""Where a plan comes from: a file or standard input, bounded, with the place shown where it is no JSON."""

from __future__ import annotations

import sys
from pathlib import Path

from dagbok.cli.terminal import clean, note
from dagbok.domain.values import Json, read
from dagbok.errors import BadInput, MalformedJson, NotFound, TooLarge

STDIN = "-"


def load_plan(source: str, *, max_bytes: int) -> Json:
    """Return the JSON of the file `source`, or of standard input for `-`.

    Raises:
        NotFound, BadInput: There is no such file, or it cannot be read.
        TooLarge: It has more than `max_bytes`.
        MalformedJson: The message shows the line.
    """
    data = _bytes(source, max_bytes + 1)
    name = _name(source)
    if len(data) > max_bytes:
        raise TooLarge(f"{name} has more than {max_bytes:,} bytes, the most a plan may have.", limit=max_bytes)
    if not data.strip():
        raise BadInput(f"{name} is empty; a plan is a JSON object.")
    try:
        return read(data)
    except MalformedJson as exc:
        raise MalformedJson(f"{name}: {exc.message}{_excerpt(data, exc)}", **exc.fields) from exc
    except BadInput as exc:
        raise BadInput(f"{name}: {exc.message}") from exc


def _bytes(source: str, limit: int) -> bytes:
    if source == STDIN:
        if sys.stdin is None:
            raise BadInput("Standard input is closed; give the plan as a file.")
        if sys.stdin.isatty():
            note("Reading the plan from the keyboard; end it with Ctrl-D.")
        return sys.stdin.buffer.read(limit)
    try:
        with Path(source).open("rb") as file:
            return file.read(limit)
    except FileNotFoundError as exc:
        raise NotFound(f"There is no file {_name(source)}. A plan is a JSON file, or `-` for standard input.") from exc
    except IsADirectoryError as exc:
        raise BadInput(f"{_name(source)} is a folder; give the JSON file of a plan.") from exc
    except OSError as exc:
        raise BadInput(f"{_name(source)} cannot be read: {exc.strerror}.") from exc
    except ValueError as exc:  # a NUL in the name
        raise BadInput(f"{_name(source)} is no file name: {exc}.") from exc


def _name(source: str) -> str:
    return "Standard input" if source == STDIN else clean(source)


def _excerpt(data: bytes, exc: MalformedJson) -> str:
    """Return the line that is no JSON with a mark under the place, as further lines of the message."""
    line, column = exc.fields.get("line"), exc.fields.get("column")
    lines = data.decode("utf-8-sig", "replace").split("\n")
    if not line or not column or line > len(lines):
        return ""
    start = max(0, column - 60)
    before = clean(lines[line - 1][start : column - 1].replace("\t", " "))
    after = clean(lines[line - 1][column - 1 : column + 20].replace("\t", " ")).rstrip()
    number = f"{line:,}"
    return f"\n  {number} | {before}{after}\n  {' ' * len(number)} | {' ' * len(before)}^"
