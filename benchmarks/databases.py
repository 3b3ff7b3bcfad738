"""An empty database for each run, on disks of the same kind: a new SQLite file, or a new database of one PostgreSQL.

The server is a temporary one from the machine's binaries, as it is shipped (fsync on, synchronous_commit on), unless a
URL of another one is given, in which databases named `dagbok_benchmark_...` are made and dropped.
"""

from __future__ import annotations

import itertools
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import TracebackType
from typing import Self
from urllib.parse import urlsplit, urlunsplit

import psycopg

from benchmarks.environments import ROOT
from benchmarks.subjects import Store

sys.path.append(str(ROOT / "tests"))  # which know how to start a PostgreSQL
from postgres import NoPostgres, running  # the line above makes it importable


class Databases:
    """Where runs find an empty database. A context manager."""

    def __init__(self, postgresql_url: str | None = None) -> None:
        self._given = postgresql_url
        self._server: str | None = None
        self._numbers = itertools.count()
        self._stack = ExitStack()
        #: Why there is no PostgreSQL; "" where there is one.
        self.no_postgresql = ""

    def __enter__(self) -> Self:
        """Start the server, if there is one to start."""
        self._folder = Path(self._stack.enter_context(tempfile.TemporaryDirectory(prefix="dagbok-bench-")))
        if self._given:
            self._server = self._given
            return self
        try:
            self._server = self._stack.enter_context(running()).url()
        except NoPostgres as exc:
            self.no_postgresql = str(exc)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop it, and remove all files."""
        self._stack.close()

    @contextmanager
    def empty(self, store: Store) -> Iterator[str]:
        """Yield the URL of a new database, and remove it; "" for a subject that keeps nothing."""
        number = next(self._numbers)
        if store == "sqlite":
            with tempfile.TemporaryDirectory(dir=self._folder) as folder:
                yield f"sqlite:///{folder}/run.db"
        elif store == "postgresql":
            assert self._server is not None, "asked before: no_postgresql"
            name = f"dagbok_benchmark_{number}"
            self._execute(f"CREATE DATABASE {name}")
            try:
                yield urlunsplit(urlsplit(self._server)._replace(path=f"/{name}"))
            finally:
                self._execute(f"DROP DATABASE {name} WITH (FORCE)")
        else:
            yield ""

    def version(self) -> str | None:
        """Return the version of the server."""
        return None if self._server is None else version_of(self._server)

    def _execute(self, statement: str) -> None:
        assert self._server is not None, "asked before: no_postgresql"
        with psycopg.connect(self._server, autocommit=True) as connection:
            connection.execute(statement.encode())


def version_of(url: str) -> str | None:
    """Return the version of the server at `url`."""
    with psycopg.connect(url) as connection:
        row = connection.execute("SHOW server_version").fetchone()
    return None if row is None else str(row[0]).split()[0]
