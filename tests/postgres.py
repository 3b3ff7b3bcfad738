"""A PostgreSQL of the tests' own, from the machine's binaries (Debian's `postgresql`), in a temporary folder.

Reachable by trust on loopback alone, stopped with the session that started it. Durable as in production where nothing
else is asked for; the one that most tests share does not wait for the disk (`LIGHT`), for they pull no plugs: what a
killed process has written is written.
`initdb` refuses root, so root runs it as `postgres` or `nobody`.
"""

from __future__ import annotations

import itertools
import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import psycopg

SUPERUSER = "dagbok"
LIGHT = ("fsync=off",)


class NoPostgres(Exception):
    """This machine has no PostgreSQL to start."""


@dataclass
class Server:
    """A PostgreSQL: running, unless a test stops it."""

    port: int
    folder: Path
    programs: Path  #: the folder of `pg_ctl`
    options: Sequence[str] = ()  #: settings, each as "name=value"
    prefix: Sequence[str] = ()  #: of commands, to run them as the server's user
    _numbers: Iterator[int] = field(default_factory=itertools.count)

    def url(self, name: str = "postgres") -> str:
        return f"postgresql://{SUPERUSER}@127.0.0.1:{self.port}/{name}"

    def execute(self, statement: str) -> None:
        with psycopg.connect(self.url(), autocommit=True) as connection:
            connection.execute(statement.encode())

    def create_database(self, template: str | None = None) -> str:
        """Create a database, as a copy of `template` if given, and return its name.

        Files are copied as they are: through the log, PostgreSQL's default, it takes twice the time of the processor.
        """
        name = f"test_{next(self._numbers)}"
        self.execute(f"CREATE DATABASE {name}" + (f" TEMPLATE {template} STRATEGY FILE_COPY" if template else ""))
        return name

    def rename_database(self, name: str) -> str:
        """Give a database that nobody uses another name, and return that."""
        other = f"test_{next(self._numbers)}"
        self.execute(f"ALTER DATABASE {name} RENAME TO {other}")
        return other

    def drop_database(self, name: str) -> None:
        self.execute(f"DROP DATABASE {name} WITH (FORCE)")

    def init(self) -> None:
        """Make the data folder."""
        arguments = ["-U", SUPERUSER, "-A", "trust", "-E", "UTF8", "--locale=C", "--no-sync"]
        self._run(self.programs / "initdb", "-D", self.folder / "data", *arguments)

    def start(self) -> None:
        """Start it and wait until it answers."""
        options = " ".join(f"-c {option}" for option in self.options)
        # Without its own stdout (`-l`), the server would keep the pipe of `subprocess.run` open.
        self._control("-w", "-l", self.folder / "log", "-o", options, "start")

    def stop(self, mode: str = "immediate") -> None:
        """Stop it: `fast` ends the sessions, `immediate` is a crash that is announced."""
        self._control("-w", "-m", mode, "stop")

    def kill(self) -> None:
        """End the postmaster and all its processes at once, and return when they are gone."""
        lines = (self.folder / "data" / "postmaster.pid").read_text().splitlines()
        postmaster = int(lines[0])
        children = Path(f"/proc/{postmaster}/task/{postmaster}/children").read_text().split()
        processes = [postmaster, *map(int, children)]
        for process in processes:
            with suppress(ProcessLookupError):
                os.kill(process, signal.SIGKILL)
        deadline = time.monotonic() + 30
        while any(_lives(process) for process in processes):
            assert time.monotonic() < deadline, "a killed process of PostgreSQL lives on"
            time.sleep(0.01)
        # Where nobody buries the dead, as in many a container, its pid looks alive to the next one.
        (self.folder / "data" / "postmaster.pid").unlink()
        for left in self.folder.glob(".s.PGSQL.*"):
            left.unlink()
        segment = lines[6].split()[1]  # of shared memory, which that file would have led the next one to
        subprocess.run(["ipcrm", "-m", segment], capture_output=True, check=False)

    def _control(self, *command: str | Path) -> None:
        self._run(self.programs / "pg_ctl", "-D", self.folder / "data", *command)

    def _run(self, *command: str | Path) -> None:
        words = [*self.prefix, *map(str, command)]
        done = subprocess.run(words, cwd=self.folder, capture_output=True, text=True, check=False)
        if done.returncode:
            log = self.folder / "log"
            tail = log.read_text()[-2000:] if log.exists() else ""
            raise RuntimeError(f"{command[0]} failed: {done.stderr or done.stdout}\n{tail}")


def binaries() -> Path:
    """Return the folder of `initdb` and `pg_ctl`, the newest version first.

    Raises:
        NoPostgres: There is none, or nobody to run it as.
    """
    if os.geteuid() == 0:
        _unprivileged()
    versions = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda path: -float(path.parts[-3]))
    if versions:
        return versions[0].parent
    if (found := shutil.which("initdb")) and shutil.which("pg_ctl"):
        return Path(found).resolve().parent
    raise NoPostgres("no PostgreSQL binaries in /usr/lib/postgresql/*/bin or PATH")


@contextmanager
def running(*settings: str) -> Iterator[Server]:
    """Start a server with `settings` ("name=value") above the defaults, and stop it at the end."""
    programs = binaries()
    folder = Path(tempfile.mkdtemp(prefix="dagbok-pg-"))
    prefix: list[str] = []
    if os.geteuid() == 0:
        user = _unprivileged()
        os.chown(folder, user.pw_uid, user.pw_gid)
        prefix = ["setpriv", f"--reuid={user.pw_uid}", f"--regid={user.pw_gid}", "--clear-groups"]
    port = _free_port()
    options = [
        "listen_addresses=127.0.0.1",
        f"port={port}",
        f"unix_socket_directories={folder}",
        "max_connections=100",
        *settings,
    ]
    server = Server(port, folder, programs, options, prefix)
    try:
        server.init()
        server.start()
        try:
            yield server
        finally:
            server.stop()
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _lives(process: int) -> bool:
    try:
        state = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"  # one that is dead and not yet buried by its parent holds nothing


def _unprivileged() -> pwd.struct_passwd:
    for name in ("postgres", "nobody"):
        try:
            return pwd.getpwnam(name)
        except KeyError:
            continue
    raise NoPostgres("neither a user `postgres` nor `nobody` for root to start PostgreSQL as")


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
