"""The commands for what people are asked."""

from __future__ import annotations

from typing import Annotated

import typer

from dagbok.cli.options import By, Database, Execution, ExecutionJson, Json, Tools, settings_of


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
    settings = settings_of(database_url=database)
    from dagbok.cli.inbox import show_inbox as command

    raise typer.Exit(
        command(
            assignee=assignee, execution=execution, kind=kind, everything=everything, limit=limit, cursor=cursor,
            json=json, settings=settings,
        )
    )  # fmt: skip


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
    settings = settings_of(database_url=database, tools=tools)
    from dagbok.cli.answer import Given, decided
    from dagbok.cli.answer import answer as command
    from dagbok.cli.asking import who_asks

    given = Given(value, input, decided(decision, approve=approve, reject=reject, edit=edit is not None), edit, result)
    raise typer.Exit(command(execution, task, given, by=who_asks(by), json=json, settings=settings))
