"""The tries of a sub-step that did not end well, as `dagbok show` lists them below it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from dagbok import wire
from dagbok.cli.terminal import line
from dagbok.cli.words import shown_error, span
from dagbok.domain.states import AttemptOutcome

#: By task id, in order, as `Diary.details` brings them: the latest of each step.
Tries = Mapping[str, Sequence[Mapping[str, Any]]]
NO_TRIES: Final[Tries] = {}
#: More of one step are for `--json`.
_SHOWN: Final = 5


def attempts_of(step: wire.SubStep, tries: Tries) -> Iterator[tuple[str, str, str]]:
    """Yield number, duration and outcome of each try; what the step itself says is not said twice."""
    told = (step.attempt, step.error)
    shown = [row for row in tries.get(step.task_id, ()) if (row["number"], row["error"]) != told][-_SHOWN:]
    if shown and (earlier := shown[0]["number"] - 1):
        yield "", "", f"{earlier:,} earlier attempt{'' if earlier == 1 else 's'}"
    for row in shown:
        took = "" if row["started_at"] is None else span(max(0, row["completed_at"] - row["started_at"]))
        if took and row["outcome"] == AttemptOutcome.INTERRUPTED:
            took = f"at most {took}"  # its process died at some time before that was seen
        yield f"attempt {row['number']}", took, line(f"{row['outcome']}: {_error(row)}", 300)


def _error(row: Mapping[str, Any]) -> str:
    # The code of some outcomes is the same word.
    code = None if row["error_code"] == row["outcome"] else row["error_code"]
    return shown_error(code, row["error"])
