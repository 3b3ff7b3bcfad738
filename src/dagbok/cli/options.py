"""The arguments and options that several commands share, and the settings that they make."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from dagbok.settings import Settings

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


def settings_of(**flags: Any) -> Settings:
    """Return the settings of this process: its flags, where they are given, before its environment.

    Raises:
        Misconfigured: One of them cannot be used.
    """
    from dagbok.settings import load

    if flags.get("tools"):
        flags["tools"] = tuple(flags["tools"])
    return load(**{name: value for name, value in flags.items() if value not in (None, [])})
