"""Committing, whatever it takes: fence, settle, repeat, split. The part of the journal that lives on its thread.

The first statement of a commit is the fence: it moves each execution from the event number its owner saw to the new
one, under the owner's epoch. Where it does not hold, or a commit ended without an answer, the rows themselves settle
what happened (`_settle`): nothing is lost, nothing is written twice, and an owner that lost its execution learns it. A
database that is away, full, locked or read-only is waited for, with a word in the log when that begins and when it is
over. Data that the database refuses fails its own execution alone.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any, Final

from dagbok.domain.records import Changes
from dagbok.errors import DagbokError, DatabaseInUse, Fenced
from dagbok.store.batch import Create, Created, FenceBroken, Item, Known, write, written
from dagbok.store.database import Database
from dagbok.store.lock import EngineLock
from dagbok.store.statements import Statements
from dagbok.store.writer import Writer

FIRST_RETRY_S: Final = 0.05
LAST_RETRY_S: Final = 2.0

log = logging.getLogger("dagbok.journal")

#: A future and what becomes of it: its result, or its exception.
Outcome = tuple[asyncio.Future[Any], Any]


class GivenUp(Exception):
    """The journal closes, and the database stays away."""


class Committer:
    """Commits batches on a connection of its own. For one thread, but for `give_up_in`, `closing` and `available`."""

    def __init__(self, database: Database, lock: EngineLock | None, tell: Callable[[Sequence[Outcome]], None]) -> None:
        self._database = database
        self._lock = lock
        self._tell = tell
        self._statements = Statements.of(database)
        self._writer: Writer | None = None
        self._dead: DatabaseInUse | None = None
        self._give_up_at = float("inf")
        self._away_since = 0.0  # by the monotonic clock; of use while not `available`
        #: Set by `give_up_in`.
        self.closing = threading.Event()
        #: Of the executions that this journal writes.
        self.known: Known = {}
        #: Whether the last contact with the database succeeded.
        self.available = True
        #: Commits so far.
        self.commits = 0

    def give_up_in(self, seconds: float) -> None:
        """Wait no longer than that for a database that is away, from now on."""
        self._give_up_at = time.monotonic() + seconds
        self._database.wait_no_longer_than(seconds)
        self.closing.set()

    def close(self) -> None:
        """Close the connection."""
        if self._writer is not None:
            self._writer.close()
            self._writer = None

    def keep_lock(self) -> None:
        """Take the engine's lock again if it was lost: an idle engine must not lose its database unseen."""
        if self._lock is None or self._dead is not None:
            return
        try:
            self._hold_lock()
            self._succeeded()  # also where nothing had to be taken: files that were away for a moment are back by now
        except DatabaseInUse:
            pass  # it was told
        except Exception as exc:  # whatever it is, the next commit meets it too, and somebody waits for that
            self._failed(exc)

    def call(self, run: Callable[[], Any], future: asyncio.Future[Any]) -> None:
        """Run something with a transaction of its own until the database answers, and tell its future.

        Raises:
            GivenUp: Nobody was told.
        """
        delay = FIRST_RETRY_S
        while True:
            try:
                self._hold_lock()
                result = run()
            except Exception as exc:
                if not self._database.is_away(exc):
                    self._tell([(future, self._as_ours(exc))])
                    return
                delay = self._wait(exc, delay)
            else:
                self._succeeded()
                self._tell([(future, result)])
                return

    def commit(self, batch: Sequence[Item]) -> None:
        """Commit `batch` (in the order of the execution ids) and tell its futures; halves of it where data is refused.

        Raises:
            GivenUp: Some of them were not told.
        """
        pending = [list(batch)]
        unsettled = False  # whether the fence broke, or a commit ended without an answer
        delay = FIRST_RETRY_S
        while pending:
            items = pending[-1]
            try:
                self._hold_lock()
                outcomes = self._transaction(items, settle=unsettled)
            except FenceBroken:
                self._roll_back()
                unsettled = True
            except Exception as exc:
                if isinstance(exc, DatabaseInUse):
                    outcomes = [(item.future, Fenced(str(exc))) for item in items]
                elif self._database.is_away(exc):
                    self.close()
                    unsettled = True
                    delay = self._wait(exc, delay)
                    continue
                else:
                    self._roll_back()
                    if len(items) > 1:
                        middle = len(items) // 2
                        pending[-1:] = [items[middle:], items[:middle]]
                        continue
                    self.known.pop(items[0].execution_id, None)  # given up, or learned anew
                    outcomes = [(items[0].future, self._as_ours(exc))]
                pending.pop()
                self._tell(outcomes)
            else:
                pending.pop()
                delay = FIRST_RETRY_S
                self._succeeded()
                self._tell(outcomes)

    def _transaction(self, items: Sequence[Item], *, settle: bool) -> list[Outcome]:
        """Write `items` in one transaction and return what became of each."""
        if self._writer is None:
            self._writer = self._database.writer()
        writer = self._writer
        writer.begin()
        outcomes: list[Outcome] = []
        if settle:
            items = self._settle(writer, items, outcomes)
        items = self._unused_keys(writer, items, outcomes)
        write(writer, self._statements, items, self.known)
        writer.commit()
        self.commits += 1
        for item in items:
            if isinstance(item, Create):
                outcomes.append((item.future, _created(item)))
                if item.new.start is not None:
                    written(item.new.start, self.known)
            else:
                outcomes.append((item.future, None))
                written(item.changes, self.known)
        return outcomes

    def _settle(self, writer: Writer, items: Sequence[Item], outcomes: list[Outcome]) -> list[Item]:
        """Lock the executions, put aside what is written already or can never be, and return the rest.

        Within the transaction that then writes the rest, so the fence holds now.
        """
        left: list[Item] = []
        for item in items:
            found = writer.select(self._statements.settle, (item.execution_id,))
            if isinstance(item, Create):
                if found:
                    outcomes.append((item.future, _created(item)))
                else:
                    left.append(item)
                continue
            changes = item.changes
            if found and tuple(found[0]) == (changes.epoch, changes.seq_before):
                left.append(item)  # progress alone moves no number; writing it twice is writing it once
            elif found and tuple(found[0]) == (changes.epoch, changes.seq_after):
                written(changes, self.known)
                outcomes.append((item.future, None))
            else:
                self.known.pop(item.execution_id, None)
                outcomes.append((item.future, _fenced(changes, found)))
        return left

    def _unused_keys(self, writer: Writer, items: Sequence[Item], outcomes: list[Outcome]) -> list[Item]:
        """Put aside the submissions whose idempotency key has its execution already, and return the rest.

        A process that inserts the same key right now is met by ON CONFLICT: the fence breaks, and we look again.
        """
        left: list[Item] = []
        for item in items:
            key = item.new.idempotency_key if isinstance(item, Create) else None
            found = [] if key is None else writer.select(self._statements.idempotent, (key,))
            if found:
                execution_id, dag_id, request_hash = found[0]
                outcomes.append((item.future, Created(execution_id, dag_id, True, request_hash)))
            else:
                left.append(item)
        return left

    def _hold_lock(self) -> None:
        if self._dead is not None:
            raise self._dead
        if self._lock is not None and self._lock.lost():
            try:
                self._lock.reacquire()
            except DatabaseInUse as exc:
                self._dead = exc
                self.available = False
                log.error("Another engine has taken the database; this journal writes no more: %s", exc)
                raise

    def _roll_back(self) -> None:
        if self._writer is not None:
            try:
                self._writer.rollback()
            except Exception:  # a connection that cannot roll back is of no use; its server does it
                self.close()

    def _wait(self, exc: BaseException, delay: float) -> float:
        """Wait before the next try, and return how long to wait before the one after it."""
        self._failed(exc)
        left = self._give_up_at - time.monotonic()
        if left <= 0:
            raise GivenUp from exc
        if self.closing.is_set():
            time.sleep(min(delay, left))
        else:
            self.closing.wait(delay)
        return min(2 * delay, LAST_RETRY_S)

    def _failed(self, exc: BaseException) -> None:
        if self.available:
            self.available = False
            self._away_since = time.monotonic()
            log.warning("The journal holds on until it can write: %s", self._database.translate(exc))

    def _succeeded(self) -> None:
        if not self.available:
            self.available = True
            log.info("The journal writes again, after %.1f s.", time.monotonic() - self._away_since)

    def _as_ours(self, exc: Exception) -> DagbokError:
        ours = self._database.translate(exc)
        if ours is not exc:
            ours.__cause__ = exc
        return ours


def _created(item: Create) -> Created:
    return Created(item.new.id, item.new.dag_id, False, item.new.request_hash)


def _fenced(changes: Changes, found: Sequence[tuple[Any, ...]]) -> Fenced:
    if found:
        epoch, seq = found[0]
        what = f"is at epoch {epoch}, event {seq}"
    else:
        what = "was deleted"
    return Fenced(
        f"Execution {changes.execution_id} {what}; nothing of epoch {changes.epoch} after event {changes.seq_before} "
        "was written.",
        execution_id=changes.execution_id,
    )
