"""`dagbok db prune`: deletes what ended long ago, says how much that was, and stops at any moment without harm."""

from __future__ import annotations

import re
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Final, NamedTuple

import orjson
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from dagbok.cli import render
from dagbok.cli.consent import must_agree
from dagbok.cli.terminal import is_terminal, line, note, out
from dagbok.cli.words import counted, database_name, local
from dagbok.domain.states import EXECUTION_ENDED, ExecutionStatus
from dagbok.errors import BadInput
from dagbok.outside import Pruner, find_owner, open_pruning
from dagbok.settings import Settings

_INTERRUPTED: Final = 130  # 128 + SIGINT, as a shell has it
_SPAN: Final = re.compile(r"([0-9]+(?:\.[0-9]+)?)([smhdw])")
_SECONDS: Final = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 7 * 86_400}
_LONGEST_S: Final = 36_500 * 86_400


class Done(NamedTuple):
    """What was deleted so far."""

    executions: int = 0
    freed_bytes: int | None = 0


def prune(
    older_than: str, statuses: Sequence[str], *, dry_run: bool, yes: bool, vacuum: bool, json: bool, settings: Settings
) -> int:
    """Delete old executions; return the exit code.

    Raises:
        BadInput: No such span of time, or no such state; nobody has agreed.
        Conflict: The space cannot be given back beside a running engine; the executions are deleted.
        NotFound, StoreUnavailable: There is no diary; it does not answer.
    """
    before_ms = int(time.time() * 1000) - span_ms(older_than)
    ended = _states(statuses)
    with open_pruning(settings, before_ms, ended) as pruner:
        number = pruner.count()
        named = f"{', '.join(sorted(ended))} " if ended else ""
        before = local(datetime.fromtimestamp(before_ms / 1000, UTC))
        what = f"{counted(number, f'{named}execution')} that ended before {before}"
        if dry_run:
            where = database_name(settings)
            _tell(f"{what} would be deleted from {where}.", Done(number, None), before_ms, json)
            return 0
        if number and not yes:
            must_agree(what, settings, several=number > 1, instead=", --dry-run only looks")
        done, interrupted = _delete(pruner, number)
        if interrupted:
            note(f"Interrupted. {counted(done.executions, 'execution')} deleted; the same command goes on.")
            return _INTERRUPTED
        freed = "" if done.freed_bytes is None else f"; {_size(done.freed_bytes)} are free for what comes"
        _tell(f"{counted(done.executions, f'{named}execution')} deleted{freed}.", done, before_ms, json)
        if vacuum:
            _vacuum(pruner, settings)
    return 0


def span_ms(text: str) -> int:
    """Return a span of time such as 30d, 12h, 90m or 1.5d in milliseconds. Raises BadInput."""
    found = _SPAN.fullmatch(text.strip().lower())
    if found is None:
        raise BadInput(f"{line(text, 40)!r} is no span of time; write 30d, 12h or 90m (w, d, h, m or s).")
    seconds = float(found[1]) * _SECONDS[found[2]]
    if seconds > _LONGEST_S:
        raise BadInput(f"{line(text, 40)!r} is too long; it is at most {_LONGEST_S // 86_400:,}d.")
    return round(seconds * 1000)


def _states(given: Sequence[str]) -> frozenset[ExecutionStatus]:
    words = {word.strip() for part in given for word in part.split(",")}
    if unknown := sorted(words - EXECUTION_ENDED):
        names = ", ".join(sorted(EXECUTION_ENDED))
        raise BadInput(f"`--status` is {line(unknown[0], 40)!r}; what ended is one of {names}.")
    return frozenset(map(ExecutionStatus, words))


def _delete(pruner: Pruner, number: int) -> tuple[Done, bool]:
    """Delete to the end, and return what that was, and whether somebody has stopped it before."""
    done, before = Done(), pruner.free_bytes()
    interrupted = False
    with _shown(number) as progress:
        try:
            for pruned in pruner.prune():
                freed = None if pruned.freed_bytes is None else (done.freed_bytes or 0) + pruned.freed_bytes
                done = Done(done.executions + pruned.executions, freed)
                if progress is not None:
                    progress.update(progress.task_ids[0], completed=done.executions)
        except KeyboardInterrupt:
            interrupted = True
    if before is not None:  # the file itself knows better
        done = done._replace(freed_bytes=max(0, (pruner.free_bytes() or 0) - before))
    return done, interrupted


def _vacuum(pruner: Pruner, settings: Settings) -> None:
    """Give the free space back. Raises Conflict where that would hold up an engine."""
    total = pruner.free_bytes()
    if total is None:
        note("PostgreSQL keeps the space and uses it again; VACUUM makes it ready for that, and holds up nobody.")
    with _shown(total or 0, "giving back") as progress:
        for left in pruner.vacuum(alone=find_owner(settings) is None):
            if progress is not None and total:
                progress.update(progress.task_ids[0], completed=total - left)
    if total is not None:
        note(f"{_size(total)} given back.")


@contextmanager
def _shown(total: int, what: str = "deleting") -> Iterator[Progress | None]:
    """Draw a bar on a terminal; None: nobody sees one."""
    if not is_terminal(sys.stderr):
        yield None
        return
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=render.console(sys.stderr), transient=True) as progress:
        progress.add_task(what, total=total)
        yield progress


def _tell(words: str, done: Done, before_ms: int, json: bool) -> None:
    if json:
        told = {"executions": done.executions, "freedBytes": done.freed_bytes, "endedBefore": before_ms}
        out(orjson.dumps(told).decode())
    else:
        out(words)


def _size(number: float) -> str:
    for unit in ("bytes", "KiB", "MiB"):
        if number < 1024:
            return f"{number:,.0f} {unit}"
        number /= 1024
    return f"{number:,.1f} GiB"
