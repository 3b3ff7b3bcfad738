"""`--override TASK=JSON`: what a sub-task is to be called with, on the command line or in a file."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from dagbok.cli.terminal import clean, line
from dagbok.domain import values
from dagbok.domain.values import Json
from dagbok.errors import BadInput, MalformedJson, NotFound, NotJson

#: The id of a sub-task may hold a `=`, but no `{`.
_ARGUMENT: Final = re.compile(r"(?P<task>[^{]*?)=(?:@(?P<file>.+)|(?P<json>\{.*))", re.DOTALL)
_HOW: Final = """--override takes TASK={"params": {...}, "tool": "...", "model": "..."}, or TASK=@FILE with that"""


def read_overrides(given: Sequence[str] | None, *, max_bytes: int) -> dict[str, Json]:
    """Return the overrides by task id. What they may hold is judged where they are used.

    Raises:
        BadInput, MalformedJson, NotFound: One cannot be read, or a sub-task has two.
    """
    overrides: dict[str, Json] = {}
    for argument in given or ():
        found = _ARGUMENT.fullmatch(argument)
        if found is None or not found["task"].strip():
            raise BadInput(f"{_HOW}, not {line(argument, 60)!r}.")
        task, name = found["task"].strip(), f"The override of {line(found['task'], 60)!r}"
        if task in overrides:
            raise BadInput(f"{name} is given twice; put all of it into one.")
        text = found["json"] if found["file"] is None else _text(Path(found["file"]), max_bytes)
        try:
            overrides[task] = values.parse(text)
        except MalformedJson as exc:
            raise MalformedJson(f"{name}: {exc.message}", **exc.fields) from exc
        except NotJson as exc:
            raise BadInput(f"{name}: {exc.message}") from exc
    return overrides


def _text(path: Path, max_bytes: int) -> bytes:
    shown = clean(str(path))
    try:
        with path.open("rb") as file:
            data = file.read(max_bytes + 1)
    except FileNotFoundError as exc:
        raise NotFound(f"There is no file {shown}; {_HOW}.") from exc
    except (OSError, ValueError) as exc:  # a folder, no right to read it, a NUL in the name
        raise BadInput(f"{shown} cannot be read: {getattr(exc, 'strerror', None) or exc}.") from exc
    if len(data) > max_bytes:
        raise BadInput(f"{shown} has more than {max_bytes:,} bytes, the most a plan may have.")
    return data
