"""`dagbok cancel` and `dagbok pause`: a wish becomes a row, and is applied by the engine, or here if there is none.

Both may be repeated, and given up (Ctrl-C): a wish that was written is applied sooner or later.
"""

from __future__ import annotations

import asyncio
import getpass
import time
from collections.abc import Mapping
from contextlib import suppress
from typing import Final, NamedTuple

from dagbok import wire
from dagbok.app import Vault
from dagbok.cli import render, summary
from dagbok.cli.beside import owner_words
from dagbok.cli.show import find
from dagbok.cli.terminal import note, redact_with
from dagbok.cli.words import counted, shown_id, shown_tool
from dagbok.domain import values
from dagbok.domain.states import EXECUTION_ENDED, ExecutionStatus, Reason, StepStatus
from dagbok.domain.values import Json
from dagbok.errors import BadInput, Conflict, Fenced, NotJson
from dagbok.outside import Commander, find_owner, open_commands
from dagbok.settings import Settings

#: How long an engine is waited for that should apply a command; it looks four times a second.
PATIENCE_S: Final = 10.0
#: Of the name of who asks, as over HTTP.
MAX_BY_CHARS: Final = 200
#: Between two looks.
_LOOK_S: Final = 0.1


class Wish(NamedTuple):
    """What somebody asks of an execution."""

    execution_id: str
    kind: str  # cancel | pause | resume | retry | answer
    by: str | None
    data: Mapping[str, Json] | None = None
    wait: str | None = None  # the question that it answers


def ask(kind: str, which: str, *, by: str | None, json: bool, settings: Settings) -> int:
    """Cancel or pause (`kind`) an execution and say what became of it; return the exit code.

    Raises:
        NotFound, BadInput: There is no such execution; several begin so.
        Conflict: It has ended, which the command cannot change.
    """
    secrets = Vault.load(settings)
    redact_with(secrets.redact)
    with open_commands(settings, secrets, command=f"dagbok {kind}") as (diary, commander):
        execution_id = find(diary, which, to=kind)
        wish = Wish(execution_id, kind, by)
        applied = not diary.judge(execution_id, kind) or deliver(commander, settings, wish)
        stopped = summary.load(diary, execution_id)
    if applied:
        _tell(stopped.execution, kind)
    if json:
        render.print_json(stopped.json)
    return 0


def deliver(commander: Commander, settings: Settings, wish: Wish) -> bool:
    """Make a wish a row and see that it is applied; return whether it is, having said who will if not.

    Raises:
        NotFound: The execution was deleted.
        Conflict: The question that it answers has an answer already, or its time was over.
        StoreUnavailable: The database does not answer; whether the row was written is not known.
    """
    number = commander.write(*wish)
    until = time.monotonic() + PATIENCE_S
    while not commander.is_applied(wish.execution_id, number):
        owner = find_owner(settings)
        left_s = until - time.monotonic()
        if left_s <= 0:
            who = owner_words(owner) if owner else "the next engine"
            note(f"The wish to {wish.kind} {wish.execution_id} is in the diary; {who} applies it as soon as it can.")
            return False
        if owner is None:
            with suppress(Fenced, TimeoutError):  # somebody else has it by now; the database does not answer
                asyncio.run(asyncio.wait_for(commander.apply(wish.execution_id), left_s))
                if find_owner(settings) is not None:  # it started meanwhile, and does not know that it was let go of
                    commander.write(wish.execution_id, "wake", None)
        else:
            time.sleep(_LOOK_S)
    return True


def who_asks(by: str | None) -> str | None:
    """Return who asks: `by`, or the name by which the system knows them; None: nobody knows. Raises BadInput."""
    try:
        by = by or getpass.getuser()
        values.check(by)
        if len(by) > MAX_BY_CHARS:
            raise BadInput(f"--by has {len(by):,} characters; at most {MAX_BY_CHARS} are kept.")
    except (OSError, KeyError, ImportError):  # a container without a user; the kind depends on the version of Python
        return None
    except NotJson as exc:
        raise BadInput(f"The name of who asks cannot be written down: {exc.message} Give another with --by.") from exc
    return by


def _tell(execution: wire.Execution, kind: str) -> None:
    if kind == "cancel":
        _tell_cancelled(execution)
    else:
        _tell_paused(execution)


def _tell_cancelled(execution: wire.Execution) -> None:
    if execution.status is not ExecutionStatus.CANCELLED:
        raise Conflict(f"Execution {execution.id} is {execution.status}; it ended before it could be cancelled.")
    done = f"{execution.completed_tasks:,} of {counted(execution.total_tasks, 'sub-task')} had completed"
    note(f"{execution.id} is cancelled; {done}.")
    for step in execution.sub_steps:
        if step.status is StepStatus.CANCELLED and step.error_code == Reason.OUTCOME_UNKNOWN:
            what = f"{shown_id(step.task_id)} {shown_tool(step.task_id, step.tool_or_prompt_name)}".strip()
            note(f"  {what} was cut off: nobody knows whether it happened, and it must not be repeated blindly.")


def _tell_paused(execution: wire.Execution) -> None:
    if execution.status in EXECUTION_ENDED:
        raise Conflict(f"Execution {execution.id} is {execution.status}; it ended before it could be paused.")
    running = sum(step.status is StepStatus.RUNNING for step in execution.sub_steps)
    still = f"; {counted(running, 'step')} still {'runs' if running == 1 else 'run'} to the end" if running else ""
    note(f"{execution.id} is paused{still}.")
