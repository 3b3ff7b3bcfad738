"""The program `dagbok`: which commands there are, and what becomes of errors.

Only what `--help` needs is imported; each command imports its own when it runs. An error is one clear message on
stderr and an exit code, never a traceback; `DAGBOK_DEBUG=1` shows the traceback too.
"""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Annotated, Any, Final

import typer
from typer.core import TyperGroup

from dagbok import __version__
from dagbok.cli import keeping, looking, people, running
from dagbok.cli.collector import collecting_seldom
from dagbok.cli.terminal import clean, note, out, prepare
from dagbok.errors import BadInput, DagbokError, InvalidPlan, Stalled, TooLarge

#: Exit code by error, the first that fits. How an execution ended has codes of its own: `dagbok.cli.exit_codes`.
ERROR_CODES: Final[tuple[tuple[type[BaseException], int], ...]] = (
    (Stalled, 70),  # EX_SOFTWARE: a fault of Dagbok
    (DagbokError, 2),  # the input, the settings or the database do not allow it
    (KeyboardInterrupt, 130),  # 128 + SIGINT
    (BaseException, 70),
)

_HELP: Final = """Run plans of AI agents as DAGs and keep a durable diary of every step.

Exit codes of run, resume, retry and fork: 0 completed, 1 failed, 3 partial, 4 waiting for a
person or paused, 5 cancelled, 2 it could not be run, 6 the server that runs it went away,
128 + the number of the signal that interrupted it (130: Ctrl-C)."""

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


@app.callback(invoke_without_command=True)
def _root(version: Annotated[bool, typer.Option("--version", help="Print the version and exit.")] = False) -> None:
    if version:
        out(f"dagbok {__version__}")
        raise typer.Exit


#: In the order of `--help`; named as they are typed, but for a "_" that keeps them from being names of Python.
_COMMANDS: Final[tuple[Callable[..., None], ...]] = (
    running.run, running.resume, running.retry, running.fork, running.pause, running.cancel, keeping.delete,
    people.inbox, people.answer, looking.validate, running.serve, looking.list_, looking.show, looking.tools_,
)  # fmt: skip
for _command in _COMMANDS:
    app.command(name=_command.__name__.rstrip("_"))(_command)
for _command in (keeping.upgrade, keeping.current, keeping.prune):
    db.command()(_command)
app.add_typer(db, name="db")


def main() -> None:
    """Run the program and end the process with its exit code."""
    prepare()
    with _told(), collecting_seldom():
        app(prog_name="dagbok")


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
