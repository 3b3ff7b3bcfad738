"""The commands that let executions run, hold them and end them: what they take from the command line.

Nothing but that is imported here, so that `--help` is quick; each command imports its own when it runs. The same holds
for `keeping`, `looking` and `people`.
"""

from __future__ import annotations

from typing import Annotated

import typer

from dagbok.cli.options import (
    By,
    Database,
    Execution,
    ExecutionJson,
    Model,
    Override,
    Plan,
    Quiet,
    Tools,
    Workspace,
    settings_of,
)


def run(
    plan: Plan,
    title: Annotated[str | None, typer.Option(help="A name for lists; else the plan's own.")] = None,
    deadline: Annotated[
        float | None, typer.Option(metavar="SECONDS", help="Cancel what has not ended so long after the start.")
    ] = None,
    fail_fast: Annotated[
        bool, typer.Option("--fail-fast", help="Cancel the rest as soon as a sub-task fails.")
    ] = False,
    idempotency_key: Annotated[
        str | None, typer.Option(metavar="KEY", help="Run once: the same plan with the same key shows what it did.")
    ] = None,
    json: ExecutionJson = False,
    quiet: Quiet = False,
    database: Database = None,
    tools: Tools = None,
    workspace: Workspace = None,
    model: Model = None,
) -> None:
    """Run a plan and print its result; everything else goes to stderr. Beside a server, the server runs it."""
    flags = {"tools": tools, "workspace": workspace, "model": model}
    settings = settings_of(database_url=database, **flags)
    from dagbok.cli.run import run as command

    raise typer.Exit(
        command(
            plan, title=title, deadline=deadline, fail_fast=fail_fast, key=idempotency_key, json=json, quiet=quiet,
            settings=settings, flags=flags,
        )
    )  # fmt: skip


def resume(
    execution: Annotated[
        str | None, typer.Argument(metavar="ID", help="An id, the start of one, or latest; none: all unfinished.")
    ] = None,
    by: By = None,
    json: Annotated[
        bool, typer.Option("--json", help="Print the execution as one JSON document; without ID a list of them.")
    ] = False,
    quiet: Quiet = False,
    database: Database = None,
    tools: Tools = None,
    workspace: Workspace = None,
    model: Model = None,
) -> None:
    """Go on with what was interrupted, or with one that is paused. A server goes on by itself."""
    flags = {"tools": tools, "workspace": workspace, "model": model}
    settings = settings_of(database_url=database, **flags)
    from dagbok.cli.asking import who_asks
    from dagbok.cli.resume import resume as command

    raise typer.Exit(command(execution, by=who_asks(by), json=json, quiet=quiet, settings=settings, flags=flags))


def retry(
    execution: Execution,
    step: Annotated[
        list[str] | None, typer.Option(metavar="TASK", help="Of these sub-tasks alone; may be repeated.")
    ] = None,
    override: Override = None,
    by: By = None,
    json: ExecutionJson = False,
    quiet: Quiet = False,
    database: Database = None,
    tools: Tools = None,
    workspace: Workspace = None,
    model: Model = None,
) -> None:
    """Run again what failed or was cancelled. So does what that skipped; what has completed is kept."""
    flags = {"tools": tools, "workspace": workspace, "model": model}
    settings = settings_of(database_url=database, **flags)
    from dagbok.cli.asking import who_asks
    from dagbok.cli.resume import retry as command

    by = who_asks(by)
    raise typer.Exit(
        command(
            execution, steps=step or [], overrides=override, by=by, json=json, quiet=quiet,
            settings=settings, flags=flags,
        )
    )  # fmt: skip


def fork(
    execution: Execution,
    from_: Annotated[
        str | None, typer.Option("--from", metavar="TASK", help="Run this sub-task again, and all that depends on it.")
    ] = None,
    override: Override = None,
    plan: Annotated[
        str | None, typer.Option(metavar="PLAN|-", help="Run this plan; what it has in common is taken over.")
    ] = None,
    by: By = None,
    idempotency_key: Annotated[
        str | None, typer.Option(metavar="KEY", help="Fork once: the same again with the same key shows what it did.")
    ] = None,
    json: ExecutionJson = False,
    quiet: Quiet = False,
    database: Database = None,
    tools: Tools = None,
    workspace: Workspace = None,
    model: Model = None,
) -> None:
    """Run an execution anew, taking over what does not change. The first one stays as it is, in whatever state."""
    flags = {"tools": tools, "workspace": workspace, "model": model}
    settings = settings_of(database_url=database, **flags)
    from dagbok.cli.asking import who_asks
    from dagbok.cli.fork import fork as command

    raise typer.Exit(
        command(
            execution, from_task=from_, overrides=override, plan=plan, by=who_asks(by), key=idempotency_key,
            json=json, quiet=quiet, settings=settings, flags=flags,
        )
    )  # fmt: skip


def pause(execution: Execution, by: By = None, json: ExecutionJson = False, database: Database = None) -> None:
    """Begin no more steps of an execution; those that run end."""
    _ask("pause", execution, by, json=json, database=database)


def cancel(execution: Execution, by: By = None, json: ExecutionJson = False, database: Database = None) -> None:
    """End an execution; what runs is cut off."""
    _ask("cancel", execution, by, json=json, database=database)


def serve(
    host: Annotated[str | None, typer.Option(help="The address to answer at [127.0.0.1] (DAGBOK_HOST)")] = None,
    port: Annotated[int | None, typer.Option(help="0 for any free one [3000] (DAGBOK_PORT)")] = None,
    insecure: Annotated[
        bool, typer.Option("--insecure", help="Let other computers call; all may do everything.")
    ] = False,
    log_level: Annotated[
        str | None, typer.Option(metavar="LEVEL", help="debug, info, warning or error [info] (DAGBOK_LOG_LEVEL)")
    ] = None,
    log_format: Annotated[
        str | None,
        typer.Option(metavar="FORMAT", help="json, text or auto: text on a terminal [auto] (DAGBOK_LOG_FORMAT)"),
    ] = None,
    database: Database = None,
    tools: Tools = None,
    workspace: Workspace = None,
    model: Model = None,
) -> None:
    """Serve the API, and go on with everything unfinished."""
    settings = settings_of(
        host=host, port=port, log_level=log_level, log_format=log_format,
        database_url=database, tools=tools, workspace=workspace, model=model,
    )  # fmt: skip
    from dagbok.cli.serve import serve as command

    raise typer.Exit(command(settings, insecure=insecure))


def _ask(kind: str, execution: str, by: str | None, *, json: bool, database: str | None) -> None:
    settings = settings_of(database_url=database)
    from dagbok.cli.asking import ask, who_asks

    raise typer.Exit(ask(kind, execution, by=who_asks(by), json=json, settings=settings))
