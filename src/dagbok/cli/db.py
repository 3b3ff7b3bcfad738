"""`dagbok db`: the tables of the database, by Dagbok's releases."""

from __future__ import annotations

from dagbok.cli.terminal import out
from dagbok.cli.words import database_name
from dagbok.outside import database_schema, upgrade_database
from dagbok.settings import Settings


def upgrade(settings: Settings) -> int:
    """Bring the tables up to date; return the exit code. Repeating it changes nothing."""
    before, after = upgrade_database(settings)
    if before == after:
        out(f"{database_name(settings)} has schema {after} already.")
    else:
        out(f"{database_name(settings)} went from {f'schema {before}' if before else 'no tables'} to schema {after}.")
    return 0


def current(settings: Settings) -> int:
    """Say which schema the database has; return the exit code."""
    has, newest = database_schema(settings)
    if has == newest:
        out(f"{database_name(settings)} has schema {has}, the newest of this release.")
    else:
        named = f"schema {has}" if has else "no tables of Dagbok"
        advice = "" if has and int(has) > int(newest) else "; `dagbok db upgrade` brings it there"
        out(f"{database_name(settings)} has {named}, this release has {newest}{advice}.")
    return 0
