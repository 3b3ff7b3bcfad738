"""The program `dagbok`: its commands and options, and what becomes of errors.

Only what `--help` needs is imported here; each command imports its own when it runs. An error is one clear message on
stderr and an exit code, never a traceback; `DAGBOK_DEBUG=1` shows the traceback too.
"""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer
from typer.core import TyperGroup

from dagbok import __version__
from dagbok.cli.terminal import clean, note, out, prepare
from dagbok.errors import BadInput, DagbokError, InvalidPlan, Stalled, TooLarge

if TYPE_CHECKING:
    from dagbok.settings import Settings

#: Exit code by error, the first that fits. How an execution ended has codes of its own: `dagbok.cli.exit_codes`.
ERROR_CODES: Final[tuple[tuple[type[BaseException], int], ...]] = (
    (Stalled, 70),  # EX_SOFTWARE: a fault of Dagbok
    (DagbokError, 2),  # the input, the settings or the database do not allow it
    (KeyboardInterrupt, 130),  # 128 + SIGINT
    (BaseException, 70),
)

_HELP: Final = """Run plans of AI agents as DAGs and keep a durable diary of every step.

Exit codes of run and resume: 0 completed, 1 failed, 3 partial, 4 waiting for a person or paused,
5 cancelled, 2 it could not be run, 6 the server that runs it went away, 128 + the number of
the signal that interrupted it (130: Ctrl-C)."""

#: What people type for the commands that there are.
_MEANT: Final = {
    "stop": "cancel",
    "kill": "cancel",
    "abort": "cancel",
    "rm": "delete",
    "remove": "delete",
    "forget": "delete",
    "start": "run",
    "submit": "run",
    "ls": "list",
    "status": "show",
    "get": "show",
    "logs": "show",
    "continue": "resume",
    "check": "validate",
    "rerun": "retry",
    "branch": "fork",
    "questions": "inbox",
    "approve": "answer",
    "reject": "answer",
    "reply": "answer",
}


class _Commands(TyperGroup):
    """The commands, which know what others are called elsewhere."""

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        if args and args[0] in _MEANT and args[0] not in self.commands:
            ctx.fail(f"No such command {args[0]!r}. Did you mean {_MEANT[args[0]]!r}?")
        return super().resolve_command(ctx, args)


# Help without markup: the same on a terminal and in a pipe, and nothing but text to load.
app = typer.Typer(
    cls=_Commands,
    help=_HELP,
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)
db = typer.Typer(help="The tables of the database.", no_args_is_help=True, rich_markup_mode=None)
app.add_typer(db, name="db")

Plan = Annotated[str, typer.Argument(metavar="PLAN|-", help="The plan: a JSON file, or - for standard input.")]
Database = Annotated[
    str | None,
    typer.Option("--database", "-d", metavar="URL", help="sqlite:///FILE or postgresql://... (DAGBOK_DATABASE_URL)"),
]
Tools = Annotated[
    list[str] | None,
    typer.Option("--tools", metavar="MODULE", help="A module or file with tools; repeatable (DAGBOK_TOOLS)"),
]
Workspace = Annotated[
    str | None, typer.Option(metavar="FOLDER", help="The folder that file tools may touch (DAGBOK_WORKSPACE)")
]
Model = Annotated[str | None, typer.Option(metavar="MODEL", help="PROVIDER:MODEL of model calls (DAGBOK_MODEL)")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON document.")]
ExecutionJson = Annotated[bool, typer.Option("--json", help="Print the whole execution as one JSON document.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Only the result, and errors.")]
Execution = Annotated[str, typer.Argument(metavar="ID", help="An id, the start of one, or latest.")]
Override = Annotated[
    list[str] | None,
    typer.Option(
        metavar="TASK=JSON|@FILE",
        help='Call a sub-task with something else: \'2={"params": {...}}\', "tool", "model"; may be repeated.',
    ),
]
By = Annotated[str | None, typer.Option(metavar="NAME", help="Who asks, for the diary [your login name].")]


@app.callback(invoke_without_command=True)
def _root(version: Annotated[bool, typer.Option("--version", help="Print the version and exit.")] = False) -> None:
    if version:
        out(f"dagbok {__version__}")
        raise typer.Exit


@app.command()
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
    settings = _settings(database_url=database, **flags)
    from dagbok.cli.run import run as command

    raise typer.Exit(
        command(
            plan, title=title, deadline=deadline, fail_fast=fail_fast, key=idempotency_key, json=json, quiet=quiet,
            settings=settings, flags=flags,
        )
    )  # fmt: skip


@app.command()
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
    settings = _settings(database_url=database, **flags)
    from dagbok.cli.asking import who_asks
    from dagbok.cli.resume import resume as command

    raise typer.Exit(command(execution, by=who_asks(by), json=json, quiet=quiet, settings=settings, flags=flags))


@app.command()
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
    settings = _settings(database_url=database, **flags)
    from dagbok.cli.asking import who_asks
    from dagbok.cli.resume import retry as command

    by = who_asks(by)
    raise typer.Exit(
        command(
            execution, steps=step or [], overrides=override, by=by, json=json, quiet=quiet,
            settings=settings, flags=flags,
        )
    )  # fmt: skip


@app.command()
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
    settings = _settings(database_url=database, **flags)
    from dagbok.cli.asking import who_asks
    from dagbok.cli.fork import fork as command

    raise typer.Exit(
        command(
            execution, from_task=from_, overrides=override, plan=plan, by=who_asks(by), key=idempotency_key,
            json=json, quiet=quiet, settings=settings, flags=flags,
        )
    )  # fmt: skip


@app.command()
def pause(execution: Execution, by: By = None, json: ExecutionJson = False, database: Database = None) -> None:
    """Begin no more steps of an execution; those that run end."""
    _ask("pause", execution, by, json=json, database=database)


@app.command()
def cancel(execution: Execution, by: By = None, json: ExecutionJson = False, database: Database = None) -> None:
    """End an execution; what runs is cut off."""
    _ask("cancel", execution, by, json=json, database=database)


@app.command()
def delete(
    executions: Annotated[list[str], typer.Argument(metavar="ID", help="Ids, starts of them, or latest.")],
    force: Annotated[bool, typer.Option("--force", help="Cancel first what has not ended.")] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    by: By = None,
    json: Json = False,
    database: Database = None,
) -> None:
    """Delete executions that have ended, with all they wrote."""
    settings = _settings(database_url=database)
    from dagbok.cli.asking import who_asks
    from dagbok.cli.delete import delete as command

    raise typer.Exit(command(executions, force=force, yes=yes, by=who_asks(by), json=json, settings=settings))


@app.command()
def inbox(
    assignee: Annotated[str | None, typer.Option(metavar="NAME", help="Only what is asked of them.")] = None,
    execution: Annotated[
        str | None, typer.Option(metavar="ID", help="Only of this execution: an id, the start of one, or latest.")
    ] = None,
    kind: Annotated[
        str | None, typer.Option(metavar="KIND", help="Only of this kind: human, approval, did_it_happen.")
    ] = None,
    everything: Annotated[
        bool, typer.Option("--all", help="What is closed, too, the newest first, with the answers.")
    ] = False,
    limit: Annotated[int, typer.Option(help="At most so many, 1 to 100.")] = 50,
    cursor: Annotated[str | None, typer.Option(metavar="CURSOR", help="Where the list before said it goes on.")] = None,
    json: Json = False,
    database: Database = None,
) -> None:
    """List what people are asked. Questions of plans, approvals, and whether something happened."""
    settings = _settings(database_url=database)
    from dagbok.cli.inbox import show_inbox as command

    raise typer.Exit(
        command(
            assignee=assignee, execution=execution, kind=kind, everything=everything, limit=limit, cursor=cursor,
            json=json, settings=settings,
        )
    )  # fmt: skip


@app.command()
def answer(
    execution: Execution,
    task: Annotated[
        str | None, typer.Argument(metavar="TASK", help="The sub-task that asks; none where it is the only one.")
    ] = None,
    value: Annotated[
        str | None,
        typer.Argument(metavar="ANSWER", help="Text, JSON, a decision such as approve or retry, or - for stdin."),
    ] = None,
    input: Annotated[
        str | None, typer.Option("--input", metavar="ANSWER", help="The same, where TASK is left out.")
    ] = None,
    approve: Annotated[bool, typer.Option("--approve", help="Let it run.")] = False,
    reject: Annotated[bool, typer.Option("--reject", help="Do not let it run.")] = False,
    edit: Annotated[
        str | None, typer.Option(metavar="PARAMS", help="Let it run with these params: JSON, a file, or - for stdin.")
    ] = None,
    decision: Annotated[
        str | None, typer.Option(metavar="WORD", help="Did it happen? retry, succeeded or fail.")
    ] = None,
    result: Annotated[
        str | None, typer.Option(metavar="RESULT", help="With succeeded: what it brought, text or JSON.")
    ] = None,
    by: By = None,
    json: ExecutionJson = False,
    database: Database = None,
    tools: Tools = None,
) -> None:
    """Answer what a plan asks. Without an answer it shows the question and asks. An engine or `resume` goes on."""
    settings = _settings(database_url=database, tools=tools)
    from dagbok.cli.answer import Given, decided
    from dagbok.cli.answer import answer as command
    from dagbok.cli.asking import who_asks

    given = Given(value, input, decided(decision, approve=approve, reject=reject, edit=edit is not None), edit, result)
    raise typer.Exit(command(execution, task, given, by=who_asks(by), json=json, settings=settings))


@app.command()
def validate(
    plan: Plan, json: Json = False, tools: Tools = None, workspace: Workspace = None, model: Model = None
) -> None:
    """Check a plan, and print every problem at once. Needs no database."""
    settings = _settings(tools=tools, workspace=workspace, model=model)
    from dagbok.cli.validate import validate as command

    raise typer.Exit(command(plan, json=json, settings=settings))


@app.command()
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
    settings = _settings(
        host=host, port=port, log_level=log_level, log_format=log_format,
        database_url=database, tools=tools, workspace=workspace, model=model,
    )  # fmt: skip
    from dagbok.cli.serve import serve as command

    raise typer.Exit(command(settings, insecure=insecure))


@app.command(name="list")
def list_(
    limit: Annotated[int, typer.Option(help="At most so many, 1 to 100.")] = 20,
    offset: Annotated[int, typer.Option(help="Leave out so many of the newest.")] = 0,
    status: Annotated[
        str | None, typer.Option(help="Only those in this state: failed, waiting, paused, interrupted, ...")
    ] = None,
    json: Json = False,
    database: Database = None,
) -> None:
    """List executions, newest first."""
    settings = _settings(database_url=database)
    from dagbok.cli.show import list_executions as command

    raise typer.Exit(command(limit=limit, offset=offset, status=status, json=json, settings=settings))


@app.command()
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
    settings = _settings(database_url=database)
    if graph or format is not None:
        if events:
            raise BadInput("--events goes with the steps; a graph has none.")
        if json and format not in (None, "json"):
            raise BadInput("--json and --format ask for two documents; take one.")
        from dagbok.cli.graph import show_graph

        raise typer.Exit(show_graph(execution, format or ("json" if json else None), settings))
    from dagbok.cli.show import show as command

    raise typer.Exit(command(execution, json=json, events=events, settings=settings))


@app.command(name="tools")
def tools_(json: Json = False, tools: Tools = None, workspace: Workspace = None, model: Model = None) -> None:
    """List the tools that plans may call."""
    settings = _settings(tools=tools, workspace=workspace, model=model)
    from dagbok.cli.tools import tools as command

    raise typer.Exit(command(json=json, settings=settings))


@db.command()
def upgrade(database: Database = None) -> None:
    """Bring the tables up to date. Every engine does so when it starts."""
    settings = _settings(database_url=database)
    from dagbok.cli.db import upgrade as command

    raise typer.Exit(command(settings))


@db.command()
def current(database: Database = None) -> None:
    """Say which schema the database has."""
    settings = _settings(database_url=database)
    from dagbok.cli.db import current as command

    raise typer.Exit(command(settings))


@db.command()
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
    """Delete executions that ended long ago, a few at a time, beside a running engine or without one."""
    settings = _settings(database_url=database)
    from dagbok.cli.prune import prune as command

    raise typer.Exit(
        command(older_than, status or [], dry_run=dry_run, yes=yes, vacuum=vacuum, json=json, settings=settings)
    )


def main() -> None:
    """Run the program and end the process with its exit code."""
    prepare()
    with _told():
        app(prog_name="dagbok")


def _ask(kind: str, execution: str, by: str | None, *, json: bool, database: str | None) -> None:
    settings = _settings(database_url=database)
    from dagbok.cli.asking import ask, who_asks

    raise typer.Exit(ask(kind, execution, by=who_asks(by), json=json, settings=settings))


def _settings(**flags: Any) -> Settings:
    from dagbok.settings import load

    if flags.get("tools"):
        flags["tools"] = tuple(flags["tools"])
    return load(**{name: value for name, value in flags.items() if value not in (None, [])})


@contextmanager
def _told() -> Iterator[None]:
    """Turn whatever is raised within into a message and an exit code."""
    try:
        yield
    except SystemExit:
        raise
    except BaseException as exc:
        if os.environ.get("DAGBOK_DEBUG", "") not in ("", "0"):
            note(clean("".join(traceback.format_exception(exc))), end="")
        _tell(exc)
        sys.exit(next(code for kind, code in ERROR_CODES if isinstance(exc, kind)))


def _tell(exc: BaseException) -> None:
    if isinstance(exc, KeyboardInterrupt):
        return
    if not isinstance(exc, DagbokError):
        words = clean(f"{type(exc).__name__}: {exc}").strip()
        note(f"dagbok: this should not happen: {words}\nDAGBOK_DEBUG=1 shows where; please report it.")
        return
    problems = exc.fields.get("problems", ())
    if isinstance(exc, InvalidPlan | TooLarge) and problems:
        from dagbok.cli.validate import print_problems

        note(f"dagbok: the plan cannot run: {'1 problem' if len(problems) == 1 else f'{len(problems):,} problems'}")
        print_problems(problems)
        return
    note(f"dagbok: {clean(exc.message)}")
    if isinstance(exc, BadInput) and len(problems) > 1:
        from dagbok.cli.validate import print_problems

        print_problems(problems)
