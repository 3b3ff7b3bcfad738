"""Deliberate faults of the engine, to prove that the campaign finds them.

    PYTHONPATH=tests python -m chaos.breakages [NAME ...]

Each is put into every victim of a round (`apply`); the program runs rounds on SQLite until one is caught, and prints by
what. It exits with 1 if a fault stays unseen. Tests of faults break the engine in their own process (`broken`).
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from dagbok.app import Dagbok
from dagbok.cluster.local import LocalWorker
from dagbok.cluster.timers import Timers
from dagbok.domain import fork, rerun, trying
from dagbok.domain.execution import Execution
from dagbok.domain.states import AttemptOutcome, Effect
from dagbok.domain.step import Step
from dagbok.domain.unwritten import Unwritten
from dagbok.engine.scheduler import Scheduler
from dagbok.store import commit, takeover
from dagbok.store.commit import Committer
from dagbok.store.lock import FileLock

Function = Callable[..., Any]
BREAKAGES: dict[str, Callable[[], None]] = {}


_MENDS: list[Callable[[], None]] = []  # what takes back the breakages of this process


def apply(name: str) -> None:
    """Break this process; "" leaves it whole."""
    if name:
        BREAKAGES[name]()


@contextmanager
def broken(name: str) -> Iterator[None]:
    """Break this process for a while."""
    try:
        apply(name)
        yield
    finally:
        while _MENDS:
            _MENDS.pop()()


def _breakage(breaks: Callable[[], None]) -> Callable[[], None]:
    BREAKAGES[breaks.__name__] = breaks
    return breaks


def _patch(owner: Any, name: str, around: Callable[[Function], Function]) -> None:
    _set(owner, name, around(getattr(owner, name)))


def _set(owner: Any, name: str, value: Any) -> None:
    _MENDS.append(partial(setattr, owner, name, getattr(owner, name)))
    setattr(owner, name, value)


def _stored(change: Callable[[Any], Any]) -> None:
    """Let taking over see other rows than are stored."""
    _patch(Execution, "restore", lambda restore: lambda self, stored: restore(self, change(stored)))


# -- taking over ------------------------------------------------------------------------------------------------------


@_breakage
def forgets_completed_steps() -> None:
    def forget(row: Any) -> Any:
        return row._replace(status="pending", attempt=0, result=None) if row.status == "completed" else row

    _stored(lambda stored: replace(stored, steps=[forget(row) for row in stored.steps]))


@_breakage
def forgets_results() -> None:
    _stored(lambda stored: replace(stored, steps=[row._replace(result=None) for row in stored.steps]))


@_breakage
def reads_one_chunk_of_a_large_result() -> None:
    def around(join: Function) -> Function:
        return lambda *args: {name: text[: 2**20 - 1] + '"}' for name, text in join(*args).items()}

    _patch(takeover, "join_blobs", around)


@_breakage
def forgets_what_is_ready() -> None:
    def around(restore: Function) -> Function:
        def broken(self: Any, stored: Any) -> None:
            restore(self, stored)
            self._unwritten.ready.clear()

        return broken

    _patch(Execution, "restore", around)


@_breakage
def forgets_open_questions() -> None:
    _stored(lambda stored: replace(stored, questions=()))


@_breakage
def repeats_steps_that_may_run_once() -> None:
    def around(interrupt: Function) -> Function:
        def broken(self: Any, position: int, now_ms: int) -> None:
            self.steps[position].effect = Effect.IDEMPOTENT
            interrupt(self, position, now_ms)

        return broken

    _patch(Execution, "_interrupt", around)


@_breakage
def takes_what_was_cut_off_for_done() -> None:
    def broken(self: Any, position: int, now_ms: int) -> None:
        self.complete(position, "null", now_ms)

    _patch(Execution, "_interrupt", lambda _: broken)


@_breakage
def leaves_cut_off_attempts_open() -> None:
    _patch(Execution, "_interrupt", lambda _: lambda *args: None)


@_breakage
def writes_no_cut_off_attempts() -> None:
    def around(attempt: Function) -> Function:
        def broken(self: Any, step: Any, outcome: str, *args: Any, **named: Any) -> None:
            if outcome != AttemptOutcome.INTERRUPTED:
                attempt(self, step, outcome, *args, **named)

        return broken

    _patch(Unwritten, "attempt", around)


@_breakage
def never_gives_up_a_crash_loop() -> None:
    _set(trying, "MAX_INTERRUPTIONS", 1_000)


@_breakage
def sets_no_timer_again() -> None:
    def around(restore: Function) -> Function:
        def broken(self: Any, stored: Any) -> None:
            restore(self, stored)
            self.agenda._heap.clear()

        return broken

    _patch(Execution, "restore", around)


@_breakage
def begins_timers_anew() -> None:
    def anew(row: Any) -> Any:
        return row._replace(next_attempt_at=None) if row.status == "running" else row

    _stored(lambda stored: replace(stored, steps=[anew(row) for row in stored.steps]))


@_breakage
def forgets_back_offs() -> None:
    def forget(row: Any) -> Any:
        return row._replace(next_attempt_at=None) if row.status == "pending" else row

    _stored(lambda stored: replace(stored, steps=[forget(row) for row in stored.steps]))


@_breakage
def forgets_approvals() -> None:
    def forget(row: Any) -> Any:
        return row._replace(reason=None) if row.reason == "approved" else row

    _stored(lambda stored: replace(stored, steps=[forget(row) for row in stored.steps]))


@_breakage
def forgets_overrides() -> None:
    _stored(lambda stored: replace(stored, overrides={}))


@_breakage
def lets_no_time_be_over() -> None:
    _set(LocalWorker, "expire", lambda *_: None)


@_breakage
def forgets_what_a_fork_took_over() -> None:
    def forget(row: Any) -> Any:
        anew = {"status": "pending", "reason": None, "result": None, "completed_at": None}
        return row._replace(**anew) if row.reason == "reused" else row

    _stored(lambda stored: replace(stored, steps=[forget(row) for row in stored.steps]))


@_breakage
def counts_failures_anew() -> None:
    _stored(lambda stored: replace(stored, failures={}))


@_breakage
def counts_deaths_as_failures() -> None:
    def change(stored: Any) -> Any:
        counted = Counter(stored.failures) + Counter(stored.interruptions)
        return replace(stored, failures=counted)

    _stored(change)


@_breakage
def forgets_pauses() -> None:
    _stored(lambda stored: replace(stored, header=stored.header._replace(paused_at=None)))


@_breakage
def forgets_deadlines() -> None:
    _stored(lambda stored: replace(stored, header=stored.header._replace(deadline_at=None)))


@_breakage
def never_wakes_what_was_parked() -> None:
    _patch(Timers, "_ring", lambda _: lambda self: None)


@_breakage
def parks_without_a_time() -> None:
    def around(release: Function) -> Function:
        def broken(self: Any, now_ms: int) -> Any:
            changes = release(self, now_ms)
            return replace(changes, header=changes.header._replace(wake_at=None))

        return broken

    _patch(Execution, "release", around)


@_breakage
def takes_over_the_first_alone() -> None:
    def around(take_over: Function) -> Function:
        async def broken(self: Any, ids: Any) -> Any:
            return await take_over(self, list(ids)[:1])

        return broken

    _patch(LocalWorker, "take_over", around)


@_breakage
def recovers_nothing() -> None:
    def around(init: Function) -> Function:
        return lambda self, *args, **named: init(self, *args, **{**named, "recover": False})

    _patch(Dagbok, "__init__", around)


# -- running ----------------------------------------------------------------------------------------------------------


@_breakage
def starts_dependents_before_the_commit() -> None:
    def around(append: Function) -> Function:
        def broken(self: Any, run: Any) -> None:
            self._enqueue(run, run.execution.take_ready())
            self._turn_soon()
            append(self, run)

        return broken

    _patch(Scheduler, "_append", around)


@_breakage
def starts_once_bodies_before_their_start_is_durable() -> None:
    def around(append: Function) -> Function:
        def broken(self: Any, run: Any) -> None:
            for attempt in run.launches:
                attempt.start()
            run.launches = []
            append(self, run)

        return broken

    _patch(Scheduler, "_append", around)


@_breakage
def puts_once_bodies_back_when_it_stops() -> None:
    def around(suspend: Function) -> Function:
        def broken(self: Any, run: Any, now_ms: int) -> None:
            for position in run.attempts:
                run.execution.steps[position].effect = Effect.IDEMPOTENT
            suspend(self, run, now_ms)

        return broken

    _patch(Scheduler, "_suspend", around)


# -- people ----------------------------------------------------------------------------------------------------------


@_breakage
def asks_nobody_whether_it_may_run() -> None:
    _set(Step, "needs_approval", property(lambda self: False))


@_breakage
def runs_what_was_rejected() -> None:
    def around(decide: Function) -> Function:
        def broken(self: Any, position: int, answer: Any, *args: Any) -> None:
            decide(self, position, {"decision": "approve"} if answer["decision"] == "reject" else answer, *args)

        return broken

    _patch(Execution, "_decide_approval", around)


@_breakage
def drops_answers_whose_time_was_over_when_they_are_applied() -> None:
    def around(answer: Function) -> Function:
        def broken(self: Any, position: int, said: Any, now_ms: int, **named: Any) -> None:
            asked = self.steps[position].question
            if asked is None or asked.due_at is None or now_ms < asked.due_at:
                answer(self, position, said, now_ms, **named)
            elif self.steps[position].task.on_timeout != "remind":
                self.expire(position, asked.number, now_ms)

        return broken

    _patch(Execution, "answer", around)


@_breakage
def takes_a_second_answer() -> None:
    def around(write_command: Function) -> Function:
        def broken(database: Any, id: Any, kind: str, *args: Any, wait: str | None = None, **named: Any) -> Any:
            return write_command(database, id, kind, *args, wait=None if kind == "answer" else wait, **named)

        return broken

    _patch(takeover, "write_command", around)


@_breakage
def forgets_the_overrides_of_a_retry() -> None:
    _patch(Execution, "_overridden", lambda _: lambda *args: {})


@_breakage
def repeats_what_was_cut_off_when_it_is_retried() -> None:
    _set(rerun, "_is_doubtful", lambda step: False)


@_breakage
def runs_in_a_fork_what_may_have_happened() -> None:
    _set(fork, "is_doubtful", lambda row, effect: False)


@_breakage
def takes_over_in_a_fork_what_stands_on_what_changed() -> None:
    def around(is_same: Function) -> Function:
        return lambda before, after, row, **named: True

    _patch(fork, "_is_same", around)


# -- writing ----------------------------------------------------------------------------------------------------------


@_breakage
def says_durable_before_the_commit() -> None:
    def around(transaction: Function) -> Function:
        def broken(self: Any, items: Any, *, settle: bool) -> Any:
            self._tell([(item.future, commit._created(item) if hasattr(item, "new") else None) for item in items])
            return transaction(self, items, settle=settle)

        return broken

    _patch(Committer, "_transaction", around)


@_breakage
def writes_events_in_a_transaction_of_their_own() -> None:
    class Between:
        """Commits before the events are written."""

        def __init__(self, writer: Any, statements: Any) -> None:
            self._writer, self._statements = writer, statements

        def run(self, statement: Any, rows: Any) -> int:
            if statement is self._statements.event:
                self._writer.commit()
                self._writer.begin()
            return int(self._writer.run(statement, rows))

    def around(write: Function) -> Function:
        return lambda writer, statements, *args: write(Between(writer, statements), statements, *args)

    _patch(commit, "write", around)


@_breakage
def marks_commands_as_applied_before_they_are() -> None:
    def around(write_command: Function) -> Function:
        def broken(database: Any, *args: Any, **named: Any) -> int:
            number: int = write_command(database, *args, **named)
            with database.writing() as connection:
                connection.exec_driver_sql(f"UPDATE commands SET applied_at = at WHERE id = {number} AND id % 2 = 0")
            return number

        return broken

    _patch(takeover, "write_command", around)


@_breakage
def takes_commands_before_they_are_durable() -> None:
    def around(call: Function) -> Function:
        def broken(self: Any, run: Any, future: Any) -> None:
            if run.__qualname__ == "Asking.run":
                self._tell([(future, 0)])
                time.sleep(0.02)
            call(self, run, future)

        return broken

    _patch(Committer, "call", around)


@_breakage
def migrates_in_several_transactions() -> None:
    from alembic.operations import Operations

    def around(create_index: Function) -> Function:
        def broken(self: Any, *args: Any, **named: Any) -> Any:
            made = create_index(self, *args, **named)
            self.get_bind().exec_driver_sql("COMMIT")
            self.get_bind().exec_driver_sql("BEGIN IMMEDIATE")
            return made

        return broken

    _patch(Operations, "create_index", around)


@_breakage
def ignores_the_lock() -> None:
    def broken(self: Any, *, command: str, url: str | None = None) -> None:
        self._handle = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        self._owner = {"pid": os.getpid(), "command": command, "url": url}
        self._write()

    _patch(FileLock, "acquire", lambda _: broken)


# -- the proof --------------------------------------------------------------------------------------------------------


def main() -> int:
    """Run the breakages that are named, or all of them."""
    parser = argparse.ArgumentParser(description="Prove that the kill -9 campaign finds faults.")
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of: {', '.join(BREAKAGES)}")
    parser.add_argument("--rounds", type=int, default=8, help="at most so many rounds of 25 kills each [8]")
    asked = parser.parse_args()
    missed = [name for name in asked.names or BREAKAGES if not _caught(name, asked.rounds)]
    print(f"not caught: {', '.join(missed)}" if missed else "all of them were caught")
    return 1 if missed else 0


def _caught(name: str, rounds: int) -> bool:
    # Imported here: victims import this module, and need none of that.
    from chaos.looks import SQLite
    from chaos.round import Round
    from chaos.zygote import Zygote

    kills = 0
    for seed in range(1, rounds + 1):
        with tempfile.TemporaryDirectory(prefix="dagbok-chaos-") as folder, Zygote() as zygote:
            place = SQLite(Path(folder))
            figures = Round(place, seed, 25, Path(folder), zygote, breakage=name, finish_s=20).run()
            kills += figures.counts["kills"]
            if figures.violations:
                words = " ".join(str(figures.violations[0]).split())
                print(f"{name}: round {seed}, after {kills} kills: {words[-300:]}", flush=True)
                return True
    print(f"{name}: NOT caught in {rounds} rounds, {kills} kills", flush=True)
    return False


if __name__ == "__main__":
    sys.exit(main())
