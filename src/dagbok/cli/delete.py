"""`dagbok delete`: executions go with all they wrote, beside an engine or without one.

All that is named is looked at before anything goes, so that a word that is wrong deletes nothing. What has not ended
goes only with `--force`, which cancels it first, by the ordinary command: whoever runs it cuts off what runs.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple

import orjson

from dagbok import wire
from dagbok.app import Vault
from dagbok.cli import render, summary
from dagbok.cli.asking import Wish, deliver
from dagbok.cli.beside import works_on
from dagbok.cli.consent import must_agree
from dagbok.cli.show import find
from dagbok.cli.terminal import line, note, redact_with
from dagbok.cli.words import aligned, counted
from dagbok.diary import Diary
from dagbok.domain.states import EXECUTION_ENDED
from dagbok.errors import Conflict
from dagbok.outside import Commander, find_owner, open_commands
from dagbok.settings import Settings

#: Of what is to go so many are named before somebody agrees, or told of.
_NAMED: Final = 10


class Gone(NamedTuple):
    """An execution that is deleted."""

    execution_id: str
    sub_steps: int


def delete(which: Sequence[str], *, force: bool, yes: bool, by: str | None, json: bool, settings: Settings) -> int:
    """Delete executions and say what went with them; return the exit code.

    Raises:
        NotFound, BadInput: There is no such execution; several begin so; nobody has agreed. Nothing was deleted.
        Conflict: One has not ended; or, with `force`, is being cancelled still. What went before is told.
    """
    secrets = Vault.load(settings)
    redact_with(secrets.redact)
    gone: list[Gone] = []
    with open_commands(settings, secrets, command="dagbok delete") as (diary, commander):
        meant = list(dict.fromkeys(find(diary, one, to="delete") for one in which))
        _must_have_ended(diary, meant, settings, force=force)
        if not yes:
            must_agree(
                counted(len(meant), "execution"), settings, several=len(meant) > 1, named=_named(diary, meant, settings)
            )
        try:
            for execution_id in meant:
                if force:
                    _end(diary, commander, settings, execution_id, by)
                gone.append(Gone(execution_id, commander.delete(execution_id)))
                note(f"{execution_id} is deleted, with {counted(gone[-1].sub_steps, 'sub-step')}.")
        finally:  # what is gone is told, whatever became of the rest
            if json:
                _print(gone)
    return 0


def _must_have_ended(diary: Diary, meant: Sequence[str], settings: Settings, *, force: bool) -> None:
    """Raise Conflict, which names them, if some have not ended and nothing is to be cancelled."""
    if force:
        return
    open_ = [id for id in meant if diary.execution(id)["status"] not in EXECUTION_ENDED]
    if not open_:
        return
    states = (f"{brief.id} is {render.state(brief, alive=alive)}" for brief, alive in _seen(diary, open_, settings))
    more = f" and {len(open_) - _NAMED:,} more have not ended" if len(open_) > _NAMED else ""
    raise Conflict(f"Nothing was deleted: {', '.join(states)}{more}. --force cancels first what has not ended.")


def _named(diary: Diary, meant: Sequence[str], settings: Settings) -> list[str]:
    """Return lines that say what would go, as it is now."""
    rows = [
        [brief.id, render.headline(brief, alive=alive), line(brief.title, 80)]
        for brief, alive in _seen(diary, meant, settings)
    ]
    more = len(meant) - _NAMED
    return [*aligned(rows), *([f"and {more:,} more"] if more > 0 else [])]


def _seen(diary: Diary, meant: Sequence[str], settings: Settings) -> list[tuple[wire.ExecutionSummary, bool]]:
    """Return the first of them, and of each whether an engine works on it."""
    owner = find_owner(settings)
    return [(summary.brief(diary, id), works_on(owner, diary.execution(id)["owner"])) for id in meant[:_NAMED]]


def _end(diary: Diary, commander: Commander, settings: Settings, execution_id: str, by: str | None) -> None:
    """Cancel what has not ended, and return once it has. Raises Conflict: not within a while; NotFound."""
    if diary.execution(execution_id)["status"] in EXECUTION_ENDED:
        return
    if not deliver(commander, settings, Wish(execution_id, "cancel", by)):
        raise Conflict(f"{execution_id} is being cancelled, and was not deleted; delete it again in a moment.")


def _print(gone: Sequence[Gone]) -> None:
    deleted = [
        {"executionId": execution_id, "cascadeInfo": {"relatedSubStepsDeleted": sub_steps}}
        for execution_id, sub_steps in gone
    ]
    render.print_json(orjson.dumps({"deleted": deleted}))
