"""One engine per database: the lock that says so, and how others learn who holds it.

Two kinds, one behaviour. With a file: `flock` on `FILE.lock`, which holds the owner as JSON; the kernel lets go when
the process dies. With a server: an advisory lock of a session of its own, whose last query text is the owner as JSON,
where `pg_stat_activity` shows it to others; the server lets go when the session dies. Engines take it. Reads and
commands never do.

A lock that was lost (the session ended, the file was removed) is taken again before anything is written; where somebody
else has it by then, this engine is over.
"""

from __future__ import annotations

import errno
import fcntl
import json
import logging
import os
import select
import socket
import threading
import time
import weakref
from abc import ABC, abstractmethod
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Final, Protocol

import psycopg

from dagbok.errors import DatabaseInUse, Misconfigured, StoreUnavailable
from dagbok.store.connections import Backend, Patience, Session
from dagbok.store.owner import Owner as Owner
from dagbok.store.owner import in_use, is_dead, myself, read_words
from dagbok.store.trouble import words

# Any number does, as long as nobody else's program in the same database uses it: "dagbok" in ASCII.
_LOCK_KEY: Final = int.from_bytes(b"dagbok", "big")
_MARK: Final = "dagbok engine "  # begins the owner's words in the session's query text
# How long who has locked a file may take to say who it is.
_WORDS_S: Final = 1.0
# How long the server may take to see that a session is over whose process is.
_LET_GO_S: Final = 5.0
# How long the server may take to hear that we let go; a closing waits for it.
_GOODBYE_S: Final = 1.0
_FIND_OWNER: Final = """
    SELECT a.pid, a.backend_start, a.application_name, a.query FROM pg_locks l JOIN pg_stat_activity a ON a.pid = l.pid
    WHERE l.locktype = 'advisory' AND l.granted AND l.objsubid = 1
      AND (l.classid::bigint << 32) | l.objid::bigint = %s
      AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())
"""
_FIND_HINDRANCE: Final = """
    SELECT CASE WHEN pg_is_in_recovery() THEN 'it is a standby'
                WHEN current_setting('default_transaction_read_only') = 'on' THEN 'default_transaction_read_only is on'
           END
"""

log = logging.getLogger("dagbok.journal")


class EngineLock(Protocol):
    """The right to be the engine of a database. Its methods are safe to call from any thread."""

    def acquire(self, *, command: str, url: str | None = None) -> None:
        """Take the lock.

        Raises:
            DatabaseInUse: Somebody has it; the message and `owner` name them.
            Misconfigured: The lock file cannot be made or locked.
            StoreUnavailable: The database does not answer, or cannot be written.
        """
        ...

    def reacquire(self) -> None:
        """Take the lock again after it was lost, with the same words.

        Raises:
            DatabaseInUse: Somebody else has it now. This engine will never write again; `on_taken` tells.
            StoreUnavailable: The database does not answer, or cannot be written; or `release` was called.
        """
        ...

    def set_url(self, url: str) -> None:
        """Tell others where the API of this engine answers."""
        ...

    def lost(self) -> bool:
        """Return whether the lock is not held, as far as this can be known; cheap enough to ask before each commit."""
        ...

    def on_taken(self, tell: Callable[[DatabaseInUse], object]) -> None:
        """Call `tell`, from whatever thread learns it, once another engine has taken the lost lock."""
        ...

    def release(self) -> None:
        """Let go, so that only `acquire` takes it again. Does nothing if it is not held."""
        ...


class _Lock(ABC):
    """What both kinds have in common."""

    def __init__(self) -> None:
        # A server tells its URL from one thread while its journal looks from another. Two of them on one connection
        # take each other's answers, and a file that is let go may be somebody else's when it is written.
        self._guard = threading.Lock()
        self._owner: Owner = {}
        self._released = False
        self._taken: DatabaseInUse | None = None
        self._tell_taken: Callable[[DatabaseInUse], object] | None = None
        _LOCKS.add(self)

    def acquire(self, *, command: str, url: str | None = None) -> None:
        """See `EngineLock`."""
        with self._guard:
            self._released = False
            self._owner = myself(command, url)
            self._take()

    def reacquire(self) -> None:
        """See `EngineLock`."""
        try:
            with self._guard:
                if self._released:  # whoever writes on after that must neither write nor keep others out
                    raise StoreUnavailable("This engine has let go of its database.")
                self._take_again()
        except DatabaseInUse as exc:
            self._taken = exc
            if self._tell_taken is not None:
                self._tell_taken(exc)
            raise

    def set_url(self, url: str) -> None:
        """See `EngineLock`."""
        with self._guard:
            self._owner["url"] = url
            self._write()

    def lost(self) -> bool:
        """See `EngineLock`."""
        # Whoever has the guard finds out by themselves; a commit does not wait for that.
        if not self._guard.acquire(blocking=False):
            return False
        try:
            return self._is_lost()
        finally:
            self._guard.release()

    def on_taken(self, tell: Callable[[DatabaseInUse], object]) -> None:
        """See `EngineLock`."""
        self._tell_taken = tell
        if self._taken is not None:
            tell(self._taken)

    def release(self) -> None:
        """See `EngineLock`."""
        with self._guard:
            self._released = True
            self._let_go()

    def forget(self) -> None:
        """Drop what a forked child has of the lock, for good, without a word to others: its parent has it still."""
        self._guard = threading.Lock()  # a thread of the parent may have had it
        self._released = True
        self._drop_copy()

    # -- for whoever has the guard ------------------------------------------------------------------------------------

    @abstractmethod
    def _take(self) -> None:
        """Take the lock and write the owner's words. Raises as `acquire`."""

    @abstractmethod
    def _take_again(self) -> None:
        """Take the lock after it was lost. Raises as `reacquire`."""

    @abstractmethod
    def _is_lost(self) -> bool: ...

    @abstractmethod
    def _let_go(self) -> None: ...

    @abstractmethod
    def _write(self) -> None:
        """Write the owner's words where others read them, if the lock is held."""

    @abstractmethod
    def _drop_copy(self) -> None: ...


#: Kernel and server let go once the last copy of a file or socket is closed. Were it a child's, such as one of a
#: process pool in a tool, nobody could take over from an engine that was killed before that has ended.
_LOCKS: Final[weakref.WeakSet[_Lock]] = weakref.WeakSet()


def _forget_all() -> None:
    for lock in list(_LOCKS):
        lock.forget()


os.register_at_fork(after_in_child=_forget_all)


class FileLock(_Lock):
    """`EngineLock` on a file beside the database's."""

    def __init__(self, database: Path, show_writable: Callable[[], None]) -> None:
        """Make the lock of the file `database`; `show_writable` raises StoreUnavailable if that cannot be written."""
        super().__init__()
        self._database = database.resolve()
        self._path = _lock_path(database)
        self._show_writable = show_writable
        self._handle: int | None = None
        # Which file is locked, and which one the database's name stood for then.
        self._lock_file: tuple[int, int] | None = None
        self._database_file: tuple[int, int] | None = None

    def _take(self) -> None:
        self._handle = self._lock()
        # Of the file that is locked, not of its name, which may be another's by the time that we could write.
        self._lock_file = _identity(self._handle)
        try:
            self._show_writable()
        except BaseException:
            self._let_go()
            raise
        self._write()
        self._database_file = _identity(self._database)

    def _lock(self) -> int:
        """Return the lock file, open and locked."""
        while True:
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
                raise in_use(str(self._database), self._words_of_others()) from exc
            if _identity(handle) == _identity(self._path):
                return handle
            os.close(handle)  # it was removed before it was locked, and the next to come locks another

    def _words_of_others(self) -> Owner | None:
        """Return what the holder says of itself: written once it has the lock, so a moment later."""
        until = time.monotonic() + _WORDS_S
        while not (words := read_words(self._path)) and time.monotonic() < until:
            time.sleep(0.01)
        return words

    def _take_again(self) -> None:
        if _identity(self._database) != self._database_file:
            raise StoreUnavailable(
                f"The file {self._database} was removed or replaced while this engine used it; put it back, or start "
                "this engine anew with what is there now."
            )
        if self._handle is not None and _identity(self._path) == self._lock_file:
            return  # it was the database's file that was gone, and is back
        try:
            self._let_go()
            self._take()
        except DatabaseInUse:
            raise
        except Misconfigured as exc:
            raise StoreUnavailable(exc.message) from exc

    def _is_lost(self) -> bool:
        # The kernel takes it from dead processes only, but a file may be removed, and its name be given to another.
        return (
            self._handle is None
            or _identity(self._path) != self._lock_file
            or _identity(self._database) != self._database_file
        )

    def _let_go(self) -> None:
        if self._handle is not None:
            # The file stays: were it removed, a second process could hold the old one and a third lock a new one.
            handle, self._handle = self._handle, None
            with suppress(OSError):  # of a dead process the words say nothing either
                os.ftruncate(handle, 0)
            os.close(handle)

    def _drop_copy(self) -> None:
        handle, self._handle = self._handle, None
        if handle is not None:
            os.close(handle)  # and no more: what is unlocked through one copy is unlocked for all

    def _write(self) -> None:
        if self._handle is None:
            return
        data = json.dumps(self._owner).encode()
        try:
            written = os.pwrite(self._handle, data, 0)
            os.ftruncate(self._handle, written if written == len(data) else 0)
            if written != len(data):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        except OSError as exc:
            # The lock holds; only its words are missing.
            log.warning(
                "%s cannot be written (%s): others see that the database is in use, but not by whom.",
                self._path,
                exc.strerror,
            )


class SessionLock(_Lock):
    """`EngineLock` on a session of the server."""

    def __init__(self, connect: Callable[[str], Session], name: str) -> None:
        super().__init__()
        self._connect = connect
        self._name = name
        self._session: Session | None = None
        self._copy: Session | None = None  # a forked child's, which is of no use, and must not be ended
        self._backend: Backend | None = None  # of this session, or of the last

    def _take(self) -> None:
        # The server shows ASCII alone there.
        command = self._owner["command"][:20].encode("ascii", "replace").decode()
        try:
            session = self._connect(f"dagbok engine: {command}, pid {os.getpid()} on {socket.gethostname()}"[:63])
        except psycopg.Error as exc:
            raise self._unavailable(words(exc)) from exc
        try:
            hindrance = session.execute(_FIND_HINDRANCE).fetchone()
            if hindrance and hindrance[0]:
                raise self._unavailable(f"it is read-only, because {hindrance[0]}")
            self._lock(session)
            self._session, self._backend = session, session.backend()
            self._say()
        except psycopg.Error as exc:
            self._session = None
            session.close()
            raise self._unavailable(words(exc)) from exc
        except BaseException:
            session.close()
            raise

    def _lock(self, session: Session) -> None:
        """Take the lock in `session`, or raise DatabaseInUse or StoreUnavailable.

        A server may learn late that the other side of a session is gone, at worst from its keepalive. So our last one
        is ended, and one whose process seems to be no more is given a moment to end by itself.
        """
        if self._backend is not None:
            session.end(self._backend)
        deadline = time.monotonic() + _LET_GO_S
        while True:
            taken = session.execute("SELECT pg_try_advisory_lock(%s)", (_LOCK_KEY,)).fetchone()
            if taken and taken[0]:
                return
            late = time.monotonic() > deadline
            holder = _session_holder(session)
            if holder is None:
                pass  # it lets go in this moment
            elif holder[0] == self._backend:
                if late:
                    raise self._unavailable("the server does not end the last session of this engine")
            elif late or not is_dead(holder[1]):
                raise in_use(self._name, holder[1])
            time.sleep(0.02)

    def _take_again(self) -> None:
        self._let_go()
        self._take()

    def _is_lost(self) -> bool:
        session = self._session
        if session is None or session.closed:
            return True
        # Nobody talks to this session: something to read is a notice, or its last words, and then its end. Not
        # `select`, which knows no file above 1,023, and a server has more open.
        waiting = select.poll()
        waiting.register(session.fileno(), select.POLLIN)
        while waiting.poll(0):
            try:
                session.pgconn.consume_input()
            except psycopg.Error:
                return True
        return False

    def _let_go(self) -> None:
        if self._session is None:
            return
        session, self._session = self._session, None
        # The server ends a session some time after it is closed, and who opens the database next would be refused.
        session.patience = Patience(_GOODBYE_S)
        with suppress(psycopg.Error):  # then it is over when the server learns it
            session.execute("SELECT pg_advisory_unlock(%s)", (_LOCK_KEY,))
        session.close()

    def _drop_copy(self) -> None:
        if self._session is not None and not self._session.closed:
            # Something else takes the socket's number: the driver would say goodbye for the parent, too.
            nothing = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
            os.dup2(nothing, self._session.fileno(), inheritable=False)
            os.close(nothing)
        self._copy, self._session = self._session, None

    def _write(self) -> None:
        with suppress(psycopg.Error):  # a lost session is told by `lost`
            self._say()

    def _say(self) -> None:
        # The text of a session's last query is what `pg_stat_activity` shows of it, so the owner is said in a query. It
        # is ASCII, whatever the encoding of the database, and between dollars, where nothing needs an escape.
        if self._session is not None:
            told = _MARK + json.dumps(self._owner).replace("$", r"\u0024")
            self._session.execute(f"SELECT $${told}$$".encode())

    def _unavailable(self, what: str) -> StoreUnavailable:
        return StoreUnavailable(f"The database {self._name} is not available: {what}")


def read_file_owner(database: Path) -> Owner | None:
    """Return the living process that holds the lock of the file `database`, without touching the lock."""
    owner = read_words(_lock_path(database))
    return None if owner is None or "pid" not in owner or is_dead(owner, here=True) else owner


def read_session_owner(connect: Callable[[str], Session]) -> Owner | None:
    """Return the engine whose session holds the advisory lock.

    Raises:
        StoreUnavailable: The server does not answer.
    """
    try:
        with connect("dagbok") as session:
            holder = _session_holder(session)
            return holder[1] if holder else None
    except psycopg.Error as exc:
        raise StoreUnavailable(f"The database is not available: {words(exc)}") from exc


def _session_holder(session: Session) -> tuple[Backend, Owner] | None:
    """Return the session that holds the lock, and whose it is."""
    found = session.execute(_FIND_OWNER, (_LOCK_KEY,)).fetchone()
    if found is None:
        return None
    *backend, application_name, query = found
    # Without the right to see other roles' queries, the application name has to do.
    if query and _MARK in query:
        with suppress(ValueError):
            owner: Owner = json.loads(query[query.index(_MARK) + len(_MARK) : query.rindex("$$")])
            return Backend(*backend), owner
    return Backend(*backend), {"command": application_name or "unknown", "url": None}


def _lock_path(database: Path) -> Path:
    # Through symbolic links: two names of one file are one database.
    real = database.resolve()
    return real.with_name(real.name + ".lock")


def _identity(file: Path | int) -> tuple[int, int] | None:
    """Return which file a path stands for now, or a handle; None: there is none."""
    try:
        found = os.fstat(file) if isinstance(file, int) else file.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino
