"""Opens what is below one folder, and nothing else, whatever a path says and whoever moves files meanwhile.

A check of the path followed by an `open` of the same path can be raced: a folder becomes a link in between. Here each
component is opened by itself, relative to the folder opened before and never through a link; a link is read and its
target walked the same way. `..` goes back to the folder we came through, never above the workspace. Hard links and
mounts are not seen through: who may make those inside the workspace is trusted.
"""

from __future__ import annotations

import errno
import os
import stat
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from dagbok.errors import ToolError

MAX_LINKS = 40  # as Linux: more is a loop

_FOLDER: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
# Without O_NONBLOCK, opening a FIFO waits for a writer that may never come.
_FILE: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC

_CODES: Final = {
    errno.ENOENT: ("not_found", "does not exist"),
    errno.ENOTDIR: ("invalid_input", "goes through a file as if it were a folder"),
    errno.EISDIR: ("invalid_input", "is a folder"),
    errno.ENAMETOOLONG: ("invalid_input", "is too long"),
    errno.EACCES: ("permission_denied", "may not be opened by this process"),
    errno.EPERM: ("permission_denied", "may not be opened by this process"),
    errno.EROFS: ("permission_denied", "is on a read-only file system"),
    # Only a race brings us here: a folder or file became a link after we looked.
    errno.ELOOP: ("refused", "was changed into a link, or from one, while it was opened"),
}


@dataclass(frozen=True, slots=True)
class Place:
    """Where a path led: an open folder, and what is meant in it."""

    folder: int  #: file descriptor; valid inside the `with`
    name: str | None  #: in that folder; None: the folder itself is meant
    status: os.stat_result | None  #: of that name; None: nothing is there
    parts: tuple[str, ...]  #: the path from the workspace, links resolved

    @property
    def path(self) -> str:
        """The path from the workspace, links resolved; `.` for the workspace."""
        return "/".join(self.parts) or "."


@contextmanager
def place(workspace: Path, path: str, *, make_folders: bool = False) -> Iterator[Place]:
    """Walk to `path`, relative to the workspace or absolute inside it, and yield where it leads.

    Args:
        workspace: May itself be reached through links.
        path: The last component need not exist.
        make_folders: Make the missing folders on the way, durably.

    Raises:
        ToolError: `refused`: it leaves the workspace; `not_found`: a folder on the way is missing; others by cause.
    """
    if "\0" in path:
        raise refused(path, "holds a NUL character")
    try:
        root = workspace.resolve(strict=True)
        root_fd = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except (OSError, RuntimeError) as exc:  # RuntimeError: a loop of links, before Python 3.13
        raise ToolError(f"The workspace {str(workspace)!r} cannot be opened: {exc}.", code="misconfigured") from exc
    walk = _Walk(root, root_fd, path, make_folders)
    try:
        with translated(path):
            found = walk.run(_inside(path, (root, workspace.absolute()), path))
        yield found
    finally:
        walk.close()


def open_file(found: Place, path: str) -> int:
    """Return a descriptor of the regular file at `found`, which the caller closes.

    Raises:
        ToolError: `not_found`, `invalid_input` (a folder), `refused` (a FIFO, device or socket).
    """
    check_regular(found, path)
    if found.name is None or found.status is None:
        raise ToolError(f"The path {path!r} does not exist.", code="not_found")
    with translated(path):
        descriptor = os.open(found.name, _FILE, dir_fd=found.folder)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):  # changed since we looked
        os.close(descriptor)
        raise refused(path, "is no ordinary file")
    return descriptor


def check_regular(found: Place, path: str) -> None:
    """Raise ToolError if something other than an ordinary file is at `found`; nothing there is fine."""
    if found.name is None:
        raise ToolError(f"The path {path!r} is a folder.", code="invalid_input")
    # Before any open: opening a device may already do something.
    if found.status is not None and not stat.S_ISREG(found.status.st_mode):
        raise refused(path, "is no ordinary file (a FIFO, a device or a socket)")


def refused(path: str, why: str) -> ToolError:
    """Return the refusal of `path`."""
    return ToolError(f"The path {path[:300]!r} is refused: it {why}.", code="refused")


@contextmanager
def translated(path: str) -> Iterator[None]:
    """Turn what the system says about `path` into a ToolError with a code."""
    try:
        yield
    except OSError as exc:
        code, what = _CODES.get(exc.errno or 0, ("io_error", f"cannot be used: {exc.strerror or exc}"))
        raise ToolError(f"The path {path[:300]!r} {what}.", code=code) from exc
    except UnicodeEncodeError as exc:
        raise ToolError("The path holds a character that no file name can hold.", code="invalid_input") from exc


class _Walk:
    """The folders open on the way, the workspace first."""

    def __init__(self, root: Path, root_fd: int, path: str, make_folders: bool) -> None:
        self._root = root
        self._path = path
        self._make = make_folders
        self._stack = [root_fd]
        self._parts: list[str] = []
        self._links = 0

    def run(self, parts: list[str]) -> Place:
        pending = deque(parts)
        while pending:
            name = pending.popleft()
            if name == "..":
                self._up()
            elif name not in ("", "."):
                found = self._step(name, pending)
                if found is not None:
                    return found
        return Place(self._stack[-1], None, os.fstat(self._stack[-1]), tuple(self._parts))

    def close(self) -> None:
        while self._stack:
            os.close(self._stack.pop())

    def _step(self, name: str, pending: deque[str]) -> Place | None:
        """Go on by `name`; return a Place if that is the end."""
        here = self._stack[-1]
        try:
            status: os.stat_result | None = os.stat(name, dir_fd=here, follow_symlinks=False)
        except FileNotFoundError:
            status = None
        if status is not None and stat.S_ISLNK(status.st_mode):
            self._links += 1
            if self._links > MAX_LINKS:
                raise refused(self._path, "goes round in links")
            try:
                target = os.readlink(name, dir_fd=here)
            except OSError as exc:
                if exc.errno != errno.EINVAL:
                    raise
                raise OSError(errno.ELOOP, "changed from a link") from exc
            if target.startswith("/"):
                inside = _inside(target, (self._root,), self._path)
                while len(self._stack) > 1:
                    self._up()
                pending.extendleft(reversed(inside))
            else:
                pending.extendleft(reversed(target.split("/")))
            return None
        last = not any(part not in ("", ".") for part in pending)
        if status is None:
            if last:
                return Place(here, name, None, (*self._parts, name))
            if not self._make:
                raise FileNotFoundError(errno.ENOENT, "no such folder")
            self._make_folder(name)
        elif not stat.S_ISDIR(status.st_mode):
            if last and not pending:
                return Place(here, name, status, (*self._parts, name))
            raise NotADirectoryError(errno.ENOTDIR, "not a folder")
        try:
            self._stack.append(os.open(name, _FOLDER, dir_fd=here))
        except NotADirectoryError as exc:  # what Linux says of a link under these flags
            raise OSError(errno.ELOOP, "changed into a link") from exc
        self._parts.append(name)
        return None

    def _up(self) -> None:
        if len(self._stack) == 1:
            raise refused(self._path, "leaves the workspace")
        os.close(self._stack.pop())
        self._parts.pop()

    def _make_folder(self, name: str) -> None:
        try:
            os.mkdir(name, dir_fd=self._stack[-1])
        except FileExistsError:
            return  # somebody else made it meanwhile
        os.fsync(self._stack[-1])


def _inside(path: str, roots: tuple[Path, ...], shown: str) -> list[str]:
    """Return the components of `path` below the workspace."""
    if not path.startswith("/"):
        return path.split("/")
    parts = [part for part in path.split("/") if part not in ("", ".")]
    for root in roots:
        above = list(root.parts[1:])
        if parts[: len(above)] == above:
            return parts[len(above) :]
    raise refused(shown, "leaves the workspace")
