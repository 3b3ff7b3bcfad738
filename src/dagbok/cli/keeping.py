"""The commands for what is kept: the tables, and what is deleted of them."""

from __future__ import annotations

from typing import Annotated

import typer

from dagbok.cli.options import By, Database, Json, settings_of


def delete(
    executions: Annotated[list[str], typer.Argument(metavar="ID", help="Ids, starts of them, or latest.")],
    force: Annotated[bool, typer.Option("--force", help="Cancel first what has not ended.")] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    by: By = None,
    json: Json = False,
    database: Database = None,
) -> None:
    """Delete executions that have ended, with all they wrote."""
    settings = settings_of(database_url=database)
    from dagbok.cli.asking import who_asks
    from dagbok.cli.delete import delete as command

    raise typer.Exit(command(executions, force=force, yes=yes, by=who_asks(by), json=json, settings=settings))


def upgrade(database: Database = None) -> None:
    """Bring the tables up to date. Every engine does so when it starts."""
    settings = settings_of(database_url=database)
    from dagbok.cli.db import upgrade as command

    raise typer.Exit(command(settings))


def current(database: Database = None) -> None:
    """Say which schema the database has."""
    settings = settings_of(database_url=database)
    from dagbok.cli.db import current as command

    raise typer.Exit(command(settings))


def prune(
    older_than: Annotated[str, typer.Option(metavar="SPAN", help="Since its end: 30d, 12h, 90m, 2w.")],
    status: Annotated[
        list[str] | None, typer.Option(metavar="STATE", help="Only those that ended so, such as failed; repeatable.")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say how many there are.")] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    vacuum: Annotated[
        bool, typer.Option("--vacuum", help="Give the space back to the system, too; says so if that holds others up.")
    ] = False,
    json: Json = False,
    database: Database = None,
) -> None:
    """Delete executions that ended long ago. A few at a time, beside a running engine or without one."""
    settings = settings_of(database_url=database)
    from dagbok.cli.prune import prune as command

    raise typer.Exit(
        command(older_than, status or [], dry_run=dry_run, yes=yes, vacuum=vacuum, json=json, settings=settings)
    )
