"""One engine per database: the lock that says so, and how others learn who holds it.

Two kinds, one behaviour. With a file: `flock` on `FILE.lock`, which holds the owner as JSON; the kernel lets go when
the process dies. With a server: an advisory lock of a session of its own, whose last query text is the owner as JSON,
where `pg_stat_activity` shows it to others; the server lets go when the session dies. Engines take it. Reads and
commands never do.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import select
import socket
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, Final, Protocol, TypedDict

import psycopg
from psycopg import sql

from dagbok.errors import DatabaseInUse, Misconfigured, StoreUnavailable

# Any number does, as long as nobody else's program in the same database uses it: "dagbok" in ASCII.
_LOCK_KEY: Final = int.from_bytes(b"dagbok", "big")
_MARK: Final = "dagbok engine "  # begins the owner's words in the session's query text
_FIND_OWNER: Final = """
    SELECT a.pid, a.application_name, a.query FROM pg_locks l JOIN pg_stat_activity a ON a.pid = l.pid
    WHERE l.locktype = 'advisory' AND l.granted AND l.objsubid = 1
      AND (l.classid::bigint << 32) | l.objid::bigint = %s
      AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())
"""


class Owner(TypedDict, total=False):
    """Who holds the lock, as far as it can be known."""

    pid: int
    host: str
    command: str
    url: str | None  #: where its API answers
    born: str | None  #: tells a process from a later one with the same pid


class EngineLock(Protocol):
    """The right to be the engine of a database."""

    def acquire(self, *, command: str, url: str | None = None) -> None:
        """Take the lock.

        Raises:
            DatabaseInUse: Somebody has it; the message and `owner` name them.
            StoreUnavailable: The server does not answer.
        """
        ...

    def reacquire(self) -> None:
        """Take the lock again after it was lost, with the same words. Raises like `acquire`."""
        ...

    def set_url(self, url: str) -> None:
        """Tell others where the API of this engine answers."""
        ...

    def lost(self) -> bool:
        """Return whether the lock is gone without `release`; cheap enough to ask before each commit."""
        ...

    def release(self) -> None:
        """Let go. Does nothing if it is not held."""
        ...


class FileLock:
    """`EngineLock` on a file."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._handle: int | None = None
        self._owner: Owner = {}

    def acquire(self, *, command: str, url: str | None = None) -> None:
        """See `EngineLock`."""
        try:
            handle = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        except OSError as exc:
            raise Misconfigured(f"The lock file {self._path} cannot be opened: {exc.strerror}.") from exc
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as exc:
            os.close(handle)
            if exc.errno not in (errno.EWOULDBLOCK, errno.EACCES):
                raise Misconfigured(f"The file system of {self._path} cannot lock: {exc.strerror}.") from exc
            raise _in_use(str(self._path).removesuffix(".lock"), _read_json(self._path)) from exc
        self._handle = handle
        self._owner = _myself(command, url)
        self._write()

    def reacquire(self) -> None:
        """See `EngineLock`."""
        self.acquire(command=self._owner["command"], url=self._owner.get("url"))

    def set_url(self, url: str) -> None:
        """See `EngineLock`."""
        self._owner["url"] = url
        self._write()

    def lost(self) -> bool:
        """See `EngineLock`."""
        return False  # the kernel takes it from dead processes only

    def release(self) -> None:
        """See `EngineLock`."""
        if self._handle is not None:
            # The file stays: were it removed, a second process could hold the old one and a third lock a new one.
            os.ftruncate(self._handle, 0)
            os.close(self._handle)
            self._handle = None

    def _write(self) -> None:
        if self._handle is not None:
            data = json.dumps(self._owner).encode()
            os.pwrite(self._handle, data, 0)
            os.ftruncate(self._handle, len(data))


class SessionLock:
    """`EngineLock` on a session of the server."""

    def __init__(self, connect: Callable[[str], psycopg.Connection[Any]], name: str) -> None:
        self._connect = connect
        self._name = name
        self._session: psycopg.Connection[Any] | None = None
        self._owner: Owner = {}

    def acquire(self, *, command: str, url: str | None = None) -> None:
        """See `EngineLock`."""
        self._owner = _myself(command, url)
        try:
            session = self._connect(f"dagbok engine: {command[:20]}, pid {os.getpid()} on {socket.gethostname()}"[:63])
        except psycopg.Error as exc:
            raise StoreUnavailable(f"The database {self._name} is not available: {_words(exc)}") from exc
        try:
            # The session has to outlive any silence.
            session.execute("SET idle_session_timeout = 0")
            taken = session.execute("SELECT pg_try_advisory_lock(%s)", (_LOCK_KEY,)).fetchone()
            if not (taken and taken[0]):
                raise _in_use(self._name, _session_owner(session))
            self._session = session
            self._tell()
        except psycopg.Error as exc:
            self._session = None
            session.close()
            raise StoreUnavailable(f"The database {self._name} is not available: {_words(exc)}") from exc
        except BaseException:
            session.close()
            raise

    def reacquire(self) -> None:
        """See `EngineLock`."""
        self.release()
        self.acquire(command=self._owner["command"], url=self._owner.get("url"))

    def set_url(self, url: str) -> None:
        """See `EngineLock`."""
        self._owner["url"] = url
        with suppress(psycopg.Error):  # a lost session is told by `lost`
            self._tell()

    def lost(self) -> bool:
        """See `EngineLock`."""
        session = self._session
        if session is None or session.closed:
            return True
        # Nobody talks to this session: something to read is a notice, or its last words, and then its end.
        while select.select([session.fileno()], [], [], 0)[0]:
            try:
                session.pgconn.consume_input()
            except psycopg.Error:
                return True
        return False

    def release(self) -> None:
        """See `EngineLock`."""
        if self._session is not None:
            self._session.close()
            self._session = None

    def _tell(self) -> None:
        # The text of a session's last query is what `pg_stat_activity` shows of it, so the owner is said in a query.
        if self._session is not None:
            self._session.execute(sql.SQL("SELECT {}").format(sql.Literal(_MARK + json.dumps(self._owner))))


def read_file_owner(path: Path) -> Owner | None:
    """Return the living process that holds the lock file at `path`, without touching the lock."""
    owner = _read_json(path)
    if owner is None or "pid" not in owner:
        return None
    try:
        os.kill(owner["pid"], 0)
    except ProcessLookupError:
        return None
    except PermissionError:
        pass  # somebody else's process, and alive
    # A pid comes round again, in containers at once; its time of birth does not.
    return owner if _born(owner["pid"]) == owner.get("born") else None


def read_session_owner(connect: Callable[[str], psycopg.Connection[Any]]) -> Owner | None:
    """Return the engine whose session holds the advisory lock.

    Raises:
        StoreUnavailable: The server does not answer.
    """
    try:
        with connect("dagbok") as session:
            return _session_owner(session)
    except psycopg.Error as exc:
        raise StoreUnavailable(f"The database is not available: {_words(exc)}") from exc


def _session_owner(session: psycopg.Connection[Any]) -> Owner | None:
    found = session.execute(_FIND_OWNER, (_LOCK_KEY,)).fetchone()
    if found is None:
        return None
    _, application_name, query = found
    # Without the right to see other roles' queries, the application name has to do.
    if query and _MARK in query:
        with suppress(ValueError):
            literal = query[query.index(_MARK) + len(_MARK) : query.rindex("'")].replace("''", "'")
            owner: Owner = json.loads(literal)
            return owner
    return {"command": application_name or "unknown", "url": None}


def _in_use(name: str, owner: Owner | None) -> DatabaseInUse:
    who = "another process"
    if owner:
        who = f"process {owner.get('pid', '?')}" + (f" on {owner['host']}" if owner.get("host") else "")
        who += f" ({owner.get('command', 'unknown')})"
        if owner.get("url"):
            who += f", which answers at {owner['url']}"
    advice = f"submit to {owner['url']} instead, or stop it first" if owner and owner.get("url") else "stop it first"
    return DatabaseInUse(f"The database {name} is in use by {who}; one engine owns a database: {advice}.", owner=owner)


def _myself(command: str, url: str | None) -> Owner:
    # 1,024 bytes of a query are shown; a command line may be longer.
    return {
        "pid": os.getpid(),
        "host": socket.gethostname(),
        "command": command[:200],
        "url": url,
        "born": _born(os.getpid()),
    }


def _born(pid: int) -> str | None:
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return None
    return stat.rpartition(")")[2].split()[
        19
    ]  # proc(5): starttime, counted from after the name, which may hold anything


def _read_json(path: Path) -> Owner | None:
    try:
        owner: Owner = json.loads(path.read_text())
    except (OSError, ValueError):
        return None
    return owner


def _words(exc: BaseException) -> str:
    return " ".join(str(exc).split())
