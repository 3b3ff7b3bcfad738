"""The history of the schema: Alembic, one line for both databases, run at start-up and by `dagbok db upgrade`.

All that is pending runs in one explicit transaction that takes its lock first: two processes that start together take
turns, and a process killed in the middle leaves the old schema. An up-to-date database costs two small reads and no
import of Alembic. A database of a newer release is refused only where that release says so:
`schema_info.compatible_from` is the oldest schema whose programs may still work on it.
"""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any, Final

import sqlalchemy as sa

from dagbok.errors import Misconfigured, SchemaTooNew, StoreRejected
from dagbok.store.database import Database

HEAD: Final = "0006"  # the newest revision; a test compares it with the files

# Alembic keeps the migration under way in its modules, so a process runs one at a time, whatever the database.
_ALEMBIC: Final = threading.Lock()


def head() -> str:
    """Return the revision this release works with."""
    return HEAD


def current(database: Database) -> str | None:
    """Return the revision of `database`; None: it holds no tables of Dagbok."""
    return _read(database)[0]


def check(database: Database) -> None:
    """Return if this release can work on `database` as it is.

    Raises:
        Misconfigured: It lacks tables; `dagbok db upgrade` mends that.
        SchemaTooNew: A newer release wrote it and allows no older one.
    """
    revision, compatible_from = _read(database)
    _refuse_newer(database, compatible_from)
    if revision is None or int(revision) < int(HEAD):
        has = f"schema {revision}" if revision else "no tables of Dagbok"
        raise Misconfigured(
            f"The database {database.name} has {has}, this release needs {HEAD}; run `dagbok db upgrade`."
        )


def upgrade(database: Database) -> str:
    """Bring `database` to this release's schema and return the revision it then has. Repeating it changes nothing.

    Raises:
        SchemaTooNew: A newer release wrote it and allows no older one.
        StoreUnavailable: The database does not answer; the schema is the old or the new one, nothing between.
    """
    revision, compatible_from = _read(database)
    _refuse_newer(database, compatible_from)
    if revision is not None and int(revision) >= int(HEAD):
        return revision
    # Imported here: every start would pay for it, and nearly none needs it.
    from alembic import command

    with _ALEMBIC, database.writing() as connection:
        database.serialize_migrations(connection)
        command.upgrade(configuration(connection), "head")
    return HEAD


def configuration(connection: sa.Connection) -> Any:
    """Return Alembic's configuration for a connection whose transaction the caller commits."""
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent).replace("%", "%%"))
    config.attributes["connection"] = connection
    return config


def _read(database: Database) -> tuple[str | None, int]:
    try:
        with database.reading() as connection:
            revision = connection.execute(sa.text("SELECT version_num FROM alembic_version")).scalar()
            compatible_from = connection.execute(sa.text("SELECT compatible_from FROM schema_info")).scalar()
    except (Misconfigured, StoreRejected):  # no such table
        return None, 0
    return revision, compatible_from or 0


def _refuse_newer(database: Database, compatible_from: int) -> None:
    if compatible_from > int(HEAD):
        raise SchemaTooNew(
            f"The database {database.name} needs a release of Dagbok with schema {compatible_from:04} or newer; "
            f"this one has {HEAD}. Upgrade this program.",
            compatible_from=compatible_from,
        )
