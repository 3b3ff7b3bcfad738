"""What a process may do with a database of which it is not the engine: look, ask, bring the tables up to date.

None of it takes the engine's lock, so all of it works beside one that runs.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path

from dagbok.cluster.alone import Commander as Commander  # for those who may not look into `cluster`
from dagbok.cluster.pruning import Pruner as Pruner
from dagbok.diary import Diary
from dagbok.domain.states import ExecutionStatus
from dagbok.errors import NotFound
from dagbok.settings import Settings
from dagbok.store import migrations
from dagbok.store.database import Database, read_owner
from dagbok.store.lock import Owner as Owner
from dagbok.store.queries import Reader
from dagbok.tools.secrets import Vault


@contextmanager
def open_diary(settings: Settings) -> Iterator[Diary]:
    """Open a database to read, beside whatever engine owns it.

    Raises:
        NotFound: There are no tables yet: nothing ever ran here.
        Misconfigured, SchemaTooNew, StoreUnavailable: It cannot be read; the message says why.
    """
    with _current(settings) as database:
        yield Diary(Reader(database))


@contextmanager
def open_commands(settings: Settings, secrets: Vault, *, command: str) -> Iterator[tuple[Diary, Commander]]:
    """Open a database to read and to ask something of its executions, beside whatever engine owns it.

    `command` is how this program is named where it applies them itself. Raises like `open_diary`.
    """
    with _current(settings) as database:
        yield Diary(Reader(database)), Commander(database, redactor=secrets.redactor, command=command)


@contextmanager
def open_pruning(settings: Settings, before_ms: int, statuses: Collection[ExecutionStatus]) -> Iterator[Pruner]:
    """Open a database to delete what ended before that time, beside whatever engine owns it.

    Raises like `open_diary`.
    """
    with _current(settings) as database:
        yield Pruner(database, before_ms, statuses)


def find_owner(settings: Settings) -> Owner | None:
    """Return the engine that owns the database now, without disturbing it; None: nobody does."""
    return read_owner(settings.database_url)


def upgrade_database(settings: Settings) -> tuple[str | None, str]:
    """Bring the tables up to date, making the database if there is none; return the schema before and after.

    Raises:
        SchemaTooNew, StoreUnavailable: See `migrations.upgrade`.
    """
    database = Database.open(settings.database_url, synchronous=settings.sqlite_synchronous)
    try:
        return migrations.current(database), migrations.upgrade(database)
    finally:
        database.close()


def database_schema(settings: Settings) -> tuple[str | None, str]:
    """Return the schema that the database has (None: no tables), and the one of this release. Raises NotFound."""
    with _existing(settings) as database:
        return migrations.current(database), migrations.head()


@contextmanager
def _current(settings: Settings) -> Iterator[Database]:
    with _existing(settings) as database:
        if migrations.current(database) is None:
            raise NotFound(f"{database.name} holds no diary yet; `dagbok run PLAN.json` makes one.")
        migrations.check(database)
        yield database


@contextmanager
def _existing(settings: Settings) -> Iterator[Database]:
    # SQLite makes the file that is opened; one who only looks leaves nothing behind.
    kind, _, name = settings.database_url.partition(":///")
    path = Path(name.partition("?")[0])
    if kind == "sqlite" and name and not path.exists():
        raise NotFound(f"There is no diary at {path.absolute()} yet; `dagbok run PLAN.json` makes one.")
    database = Database.open(settings.database_url, synchronous=settings.sqlite_synchronous)
    try:
        yield database
    finally:
        database.close()
