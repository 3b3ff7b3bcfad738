"""`read_file`, `write_file` and `list_files`: the files of the workspace and no others."""

from __future__ import annotations

import fnmatch
import hashlib
import os
import re
import secrets
import stat
from collections.abc import Generator, Iterator
from contextlib import closing
from pathlib import Path
from typing import Annotated, Any, Final

import orjson
from pydantic import Field

from dagbok.domain import values
from dagbok.domain.values import Json
from dagbok.errors import ToolError
from dagbok.tools.confinement import Place, check_regular, open_file, place, refused, translated
from dagbok.tools.context import ToolContext
from dagbok.tools.decorator import tool

MIB = 2**20
MAX_READ_BYTES = 8 * MIB
MAX_ENTRIES = 200_000  # looked at by one listing; a folder tree beyond that is reported as truncated
MAX_PATTERN_PARTS = 64

FilePath = Annotated[str, Field(min_length=1, max_length=4096)]


@tool(effect="pure", aliases=("readFile",))
def read_file(
    context: ToolContext, path: FilePath, max_bytes: Annotated[int, Field(ge=1, le=MAX_READ_BYTES)] = MIB
) -> str:
    """Read a UTF-8 text file of the workspace.

    Args:
        path: Relative to the workspace.
        max_bytes: A larger file is an error; nothing is ever cut. At most 8 MiB.

    Returns:
        The text of the file.
    """
    with place(context.workspace, path) as found:
        descriptor = open_file(found, path)
    with translated(path), os.fdopen(descriptor, "rb") as file:
        size = os.fstat(file.fileno()).st_size
        # One byte more than allowed shows that a file has grown, or says 0 of itself as those of /proc do.
        data = b"" if size > max_bytes else file.read(max_bytes + 1)
    if size > max_bytes or len(data) > max_bytes:
        message = f"The file {path!r} has {max(size, len(data)):,} bytes, more than max_bytes={max_bytes:,}."
        raise ToolError(message, code="too_large", limit=max_bytes, size=max(size, len(data)))
    try:
        text = data.decode("utf-8-sig")  # a byte order mark is no text
    except UnicodeDecodeError as exc:
        raise ToolError(
            f"The file {path!r} is not UTF-8 text: byte {exc.start} cannot be read.", code="not_text"
        ) from exc
    if "\0" in text:
        raise ToolError(f"The file {path!r} is not text: it holds NUL characters.", code="not_text")
    return text


@tool(effect="idempotent", aliases=("writeFile",))
def write_file(context: ToolContext, path: FilePath, content: Json) -> dict[str, Any]:
    """Write a file of the workspace, whole: whoever reads it sees the old content or the new, also after a power cut.

    Folders on the way are made. A file that exists is replaced and keeps its permissions.

    Args:
        path: Relative to the workspace.
        content: Text is written as it is; any other JSON is written indented.

    Returns:
        {"path", "bytes", "sha256"} of what was written.
    """
    data = _as_bytes(content)
    with place(context.workspace, path, make_folders=True) as found:
        check_regular(found, path)
        if path.endswith("/"):
            raise ToolError(f"The path {path!r} names a folder, not a file.", code="invalid_input")
        with translated(path):
            _replace(found, data)
        written = found.path
    return {"path": written, "bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}


@tool(effect="pure", aliases=("listFiles",))
def list_files(
    context: ToolContext,
    pattern: Annotated[str, Field(min_length=1, max_length=1000)] = "**/*",
    path: FilePath = ".",
    limit: Annotated[int, Field(ge=1, le=10_000)] = 1000,
) -> dict[str, Any]:
    """List the files of the workspace that match a pattern.

    As in a shell, `*` and `**` do not match names that begin with a dot (`.git`, `.env`); a pattern part that begins
    with one does. Links are not listed, nor are names that are not UTF-8.

    Args:
        pattern: Relative to `path`: `*`, `?`, `[a-z]` within a name, `**` for any number of folders, at the end
            for all that is below.
        path: The folder to look in, relative to the workspace.
        limit: The most files to return.

    Returns:
        {"files": [{"path", "bytes"}], "truncated"}: sorted by path, which is relative to the workspace; `truncated`
        says that there may be more.
    """
    parts = _compile(pattern)
    with place(context.workspace, path) as found:
        if found.name is not None:
            if found.status is None:
                raise ToolError(f"The folder {path!r} does not exist.", code="not_found")
            raise ToolError(f"The path {path!r} is not a folder.", code="invalid_input")
        start = found.parts
    budget = [MAX_ENTRIES]
    files: list[dict[str, Any]] = []
    for name, size in _matches(context.workspace, start, parts, budget):
        if len(files) == limit:
            return {"files": files, "truncated": True}
        files.append({"path": name, "bytes": size})
    return {"files": files, "truncated": budget[0] < 0}


def _as_bytes(content: Json) -> bytes:
    if isinstance(content, str):
        try:
            return content.encode()
        except UnicodeEncodeError as exc:
            raise ToolError(
                "The content holds a lone surrogate, which UTF-8 cannot encode.", code="invalid_input"
            ) from exc
    values.encode(content)  # raises NotJson with the place; orjson alone would write NaN as null
    return orjson.dumps(content, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE)


def _replace(found: Place, data: bytes) -> None:
    """Put `data` at `found`, durably, in one step."""
    assert found.name is not None
    # Hidden, so that no listing shows it. Random: an abandoned attempt may still be writing when the next one starts.
    draft = f".dagbok-{secrets.token_hex(8)}.tmp"
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    descriptor = os.open(draft, flags, 0o666, dir_fd=found.folder)
    try:
        with os.fdopen(descriptor, "wb") as file:
            if found.status is not None:
                os.fchmod(file.fileno(), stat.S_IMODE(found.status.st_mode))
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(draft, found.name, src_dir_fd=found.folder, dst_dir_fd=found.folder)
    except BaseException:
        os.unlink(draft, dir_fd=found.folder)
        raise
    os.fsync(found.folder)


#: `**` in a compiled pattern.
_DEEP: Final = None
_Pattern = list[re.Pattern[str] | None]


def _compile(pattern: str) -> _Pattern:
    if pattern.startswith("/") or ".." in pattern.split("/") or "\0" in pattern:
        raise refused(pattern, "leaves the folder that is listed")
    parts = [part for part in pattern.split("/") if part not in ("", ".")]
    if len(parts) > MAX_PATTERN_PARTS:
        raise ToolError(f"The pattern has more than {MAX_PATTERN_PARTS} parts.", code="invalid_input")
    # `fnmatch` translates to atomic groups, so no pattern makes matching slow.
    hidden = "(?![.])"
    return [
        _DEEP if part == "**" else re.compile(("" if part.startswith(".") else hidden) + fnmatch.translate(part))
        for part in parts
    ]


def _matches(
    workspace: Path, start: tuple[str, ...], pattern: _Pattern, budget: list[int]
) -> Iterator[tuple[str, int]]:
    """Yield the files that match, sorted; `budget` is how many entries may be looked at, below 0 if too small."""
    # The states of a little automaton: how many parts of the pattern the path so far has used up. Folders that no
    # state survives are not opened. Each is opened from the workspace anew, so depth costs no open files.
    stack: list[tuple[tuple[str, ...], frozenset[int], int | None]] = [(start, _closure({0}, pattern), None)]
    while stack:
        parts, states, size = stack.pop()
        if size is not None:
            yield "/".join(parts), size
            continue
        found: list[tuple[tuple[str, ...], frozenset[int], int | None]] = []
        with closing(_entries(workspace, parts)) as entries:
            for name, status in entries:
                budget[0] -= 1
                if budget[0] < 0:
                    break
                after = _advance(states, name, pattern)
                if stat.S_ISDIR(status.st_mode) and any(state < len(pattern) for state in after):
                    found.append(((*parts, name), after, None))
                elif stat.S_ISREG(status.st_mode) and len(pattern) in after:
                    found.append(((*parts, name), after, status.st_size))
        stack.extend(sorted(found, key=lambda entry: entry[0], reverse=True))


def _entries(workspace: Path, parts: tuple[str, ...]) -> Generator[tuple[str, os.stat_result], None, None]:
    try:
        with place(workspace, "/".join(parts) or ".") as here:
            # A folder that became a link since it was seen would be listed under two names.
            if here.name is not None or here.parts != parts:
                return
            with os.scandir(here.folder) as entries:
                for entry in entries:
                    try:
                        entry.name.encode()
                        yield entry.name, entry.stat(follow_symlinks=False)
                    except (OSError, UnicodeEncodeError):
                        continue  # vanished, or not a name that JSON can hold
    except (ToolError, OSError):
        return  # vanished, or not ours to open: a listing shows what can be read


def _advance(states: frozenset[int], name: str, pattern: _Pattern) -> frozenset[int]:
    after: set[int] = set()
    for state in states:
        if state == len(pattern):
            continue
        part = pattern[state]
        if part is _DEEP:
            if not name.startswith("."):
                after.add(state)
        elif part.match(name):
            after.add(state + 1)
    return _closure(after, pattern)


def _closure(states: set[int], pattern: _Pattern) -> frozenset[int]:
    for state in range(min(states, default=0), len(pattern)):
        if state in states and pattern[state] is _DEEP:  # `**` also stands for no folder at all
            states.add(state + 1)
    return frozenset(states)
