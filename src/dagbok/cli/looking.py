"""The commands that look and change nothing."""

from __future__ import annotations

from typing import Annotated

import typer

from dagbok.cli.options import Database, Json, Model, Plan, Tools, Workspace, settings_of
from dagbok.errors import BadInput


def validate(
    plan: Plan, json: Json = False, tools: Tools = None, workspace: Workspace = None, model: Model = None
) -> None:
    """Check a plan, and print every problem at once. Needs no database."""
    settings = settings_of(tools=tools, workspace=workspace, model=model)
    from dagbok.cli.validate import validate as command

    raise typer.Exit(command(plan, json=json, settings=settings))


def list_(
    limit: Annotated[int, typer.Option(help="At most so many, 1 to 100.")] = 20,
    offset: Annotated[int, typer.Option(help="Leave out so many of the newest.")] = 0,
    status: Annotated[
        str | None, typer.Option(help="Only those in this state: failed, waiting, paused, interrupted, ...")
    ] = None,
    cursor: Annotated[str | None, typer.Option(metavar="CURSOR", help="Where the list before said it goes on.")] = None,
    json: Json = False,
    database: Database = None,
) -> None:
    """List executions, newest first."""
    settings = settings_of(database_url=database)
    from dagbok.cli.show import list_executions as command

    raise typer.Exit(command(limit=limit, offset=offset, status=status, cursor=cursor, json=json, settings=settings))


def show(
    execution: Annotated[str, typer.Argument(metavar="ID", help="An id, the start of one, or latest.")] = "latest",
    events: Annotated[bool, typer.Option("--events", help="The lines of the diary, too.")] = False,
    graph: Annotated[
        bool, typer.Option("--graph", help="Draw who waits for whom instead; with --json, as JSON.")
    ] = False,
    format: Annotated[
        str | None, typer.Option(metavar="FORMAT", help="Write the graph as svg, mermaid, dot or json.")
    ] = None,
    json: Json = False,
    database: Database = None,
) -> None:
    """Show an execution: its steps, errors and result."""
    settings = settings_of(database_url=database)
    if graph or format is not None:
        if events:
            raise BadInput("--events goes with the steps; a graph has none.")
        if json and format not in (None, "json"):
            raise BadInput("--json and --format ask for two documents; take one.")
        from dagbok.cli.graph import show_graph

        raise typer.Exit(show_graph(execution, format or ("json" if json else None), settings))
    from dagbok.cli.show import show as command

    raise typer.Exit(command(execution, json=json, events=events, settings=settings))


def tools_(json: Json = False, tools: Tools = None, workspace: Workspace = None, model: Model = None) -> None:
    """List the tools that plans may call."""
    settings = settings_of(tools=tools, workspace=workspace, model=model)
    from dagbok.cli.tools import tools as command

    raise typer.Exit(command(json=json, settings=settings))
