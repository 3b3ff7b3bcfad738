"""A PostgreSQL of the tests' own, from the machine's binaries (Debian's `postgresql`), in a temporary folder.

Durable as in production (fsync on), reachable by trust on loopback alone, stopped with the session that started it.
`initdb` refuses root, so root runs it as `postgres` or `nobody`.
"""

from __future__ import annotations

import itertools
import os
import pwd
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import psycopg

SUPERUSER = "dagbok"


class NoPostgres(Exception):
    """This machine has no PostgreSQL to start."""


@dataclass
class Server:
    """A running PostgreSQL."""

    port: int
    folder: Path
    _numbers: Iterator[int] = field(default_factory=itertools.count)

    def url(self, name: str = "postgres") -> str:
        return f"postgresql://{SUPERUSER}@127.0.0.1:{self.port}/{name}"

    def execute(self, statement: str) -> None:
        with psycopg.connect(self.url(), autocommit=True) as connection:
            connection.execute(statement.encode())

    def create_database(self, template: str | None = None) -> str:
        """Create a database, as a copy of `template` if given, and return its name."""
        name = f"test_{next(self._numbers)}"
        self.execute(f"CREATE DATABASE {name}" + (f" TEMPLATE {template}" if template else ""))
        return name

    def drop_database(self, name: str) -> None:
        self.execute(f"DROP DATABASE {name} WITH (FORCE)")


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
    data = folder / "data"
    port = _free_port()
    options = [
        "listen_addresses=127.0.0.1",
        f"port={port}",
        f"unix_socket_directories={folder}",
        "max_connections=100",
        *settings,
    ]

    def run(*command: str | Path) -> None:
        done = subprocess.run([*prefix, *map(str, command)], cwd=folder, capture_output=True, text=True, check=False)
        if done.returncode:
            log = folder / "log"
            tail = log.read_text()[-2000:] if log.exists() else ""
            raise RuntimeError(f"{command[0]} failed: {done.stderr or done.stdout}\n{tail}")

    try:
        run(programs / "initdb", "-D", data, "-U", SUPERUSER, "-A", "trust", "-E", "UTF8", "--locale=C", "--no-sync")
        # Without its own stdout (`-l`), the server would keep the pipe of `subprocess.run` open.
        run(
            programs / "pg_ctl",
            "-D",
            data,
            "-w",
            "-l",
            folder / "log",
            "-o",
            " ".join(f"-c {o}" for o in options),
            "start",
        )
        try:
            yield Server(port, folder)
        finally:
            run(programs / "pg_ctl", "-D", data, "-w", "-m", "immediate", "stop")
    finally:
        shutil.rmtree(folder, ignore_errors=True)


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
