"""The one writer of the diary in this process, with group commit and fencing.

One thread commits. All that was appended while the previous commit was in flight goes into the next one, across
executions, so the cost of a durable commit is shared by as many steps as happen to end meanwhile. Futures learn of it
by one call into the loop per commit. How a commit becomes certain is `store/commit.py`'s.
"""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final, TypeVar

from dagbok.domain.ids import ExecutionId
from dagbok.domain.records import Changes, NewExecution, StoredExecution
from dagbok.domain.values import Json
from dagbok.errors import OutcomeUnknown
from dagbok.store import repeats, retention, takeover
from dagbok.store.batch import Append, Create, Created, Item, size
from dagbok.store.commit import Committer, GivenUp, Outcome
from dagbok.store.database import Database
from dagbok.store.lock import EngineLock

MAX_ROWS: Final = 20_000  # of one commit, about; a single item may be larger
MAX_CHARS: Final = 64 * 2**20
LOOK_S: Final = 2.0  # how often an idle journal sees that its engine still has the database

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class _Call:
    """Something with a transaction of its own."""

    run: Callable[[], Any]
    future: asyncio.Future[Any]


class Journal:
    """`dagbok.engine.ports.Journal`, and the other writes of an engine. Use it from the loop that called `start`."""

    def __init__(self, database: Database, *, lock: EngineLock | None = None, close_timeout_s: float = 10.0) -> None:
        """Make a journal.

        Args:
            database: Migrated.
            lock: The engine's, held; where it is lost, it is taken again before anything is written.
            close_timeout_s: How long `close` waits for a database that is away.
        """
        self._database = database
        self._close_timeout_s = close_timeout_s
        self._committer = Committer(database, lock, self._tell)
        self._queue: deque[Item | _Call] = deque()
        self._wake = threading.Event()
        self._thread: threading.Thread | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._closed = False

    @property
    def available(self) -> bool:
        """Whether the last contact with the database succeeded."""
        return self._committer.available

    @property
    def commits(self) -> int:
        """How many batches were committed so far."""
        return self._committer.commits

    # -- for the loop -------------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Start the writer's thread. Call it on the loop that the futures belong to."""
        self._loop = asyncio.get_running_loop()
        self._thread = threading.Thread(target=self._run, name="dagbok-journal", daemon=True)
        self._thread.start()

    def append(self, changes: Changes) -> asyncio.Future[None]:
        """Write `changes` with the next group commit; the future is done once they are durable.

        At most one append per execution may be under way.

        Raises (in the future):
            Fenced: Another owner has the execution, or it was deleted; nothing was written.
            StoreRejected: The database refuses these rows; nothing was written.
            OutcomeUnknown: The journal closed before it could know.
        """
        future: asyncio.Future[None] = self._future()
        self._put(Append(changes, future))
        return future

    def create(self, new: NewExecution) -> asyncio.Future[Created]:
        """Make an execution exist: plan, dag, execution, sub-steps and first event in one commit.

        Where its idempotency key was used before, nothing is written and `Created.existing` is true.

        Raises (in the future):
            StoreRejected: The database refuses it.
            OutcomeUnknown: The journal closed before it could know.
        """
        future: asyncio.Future[Created] = self._future()
        self._put(Create(new, future))
        return future

    def claim(self, execution_id: ExecutionId, owner: str) -> asyncio.Future[StoredExecution]:
        """Make `owner` the execution's owner, with the next epoch, and read all that is needed to go on.

        Raises (in the future):
            NotFound: There is no such execution.
            Fenced: Somebody else claimed it at the same moment.
        """

        def run() -> StoredExecution:
            stored = takeover.claim(self._database, execution_id, owner)
            # Of what an earlier owner wrote. The first append learns it anew: not all that is claimed is written.
            self._committer.known.pop(execution_id, None)
            return stored

        return self._call(run)

    def delete(self, execution_id: ExecutionId, *, only_ended: bool = False) -> asyncio.Future[int]:
        """Delete an execution with all its rows and return how many sub-steps it had. Its owner is fenced.

        Raises (in the future):
            NotFound: There is no such execution.
            Conflict: It has not ended, and only then it was to be deleted.
        """
        deleting = repeats.Deletion(self._database, execution_id, only_ended=only_ended)

        def run() -> int:
            number = deleting.run()
            self._committer.known.pop(execution_id, None)
            return number

        return self._call(run)

    def prune(self, before_ms: int, *, after: retention.Place | None = None) -> asyncio.Future[retention.Pruned]:
        """Delete a few of the executions that ended before `before_ms`, behind those of the batch before (`after`)."""
        return self._call(retention.Batch(self._database, before_ms, after=after).run)

    def write_command(
        self,
        execution_id: ExecutionId,
        kind: str,
        data: Mapping[str, Json],
        by: str | None,
        *,
        at_ms: int,
        wait: str | None = None,
    ) -> asyncio.Future[int]:
        """Write a command (`takeover.write_command`), once, and return its number.

        Raises (in the future):
            NotFound: There is no such execution.
            Conflict: The question `wait` has an answer already, another one.
        """
        return self._call(repeats.Asking(self._database, execution_id, kind, data, by, at_ms, wait).run)

    async def close(self) -> None:
        """Commit what was appended, stop the thread and close its connection.

        Where the database stays away for `close_timeout_s`, what is left fails with OutcomeUnknown. A cancellation
        waits for the thread as well: whoever goes on after it lets go of the engine's lock.
        """
        self._closed = True
        thread, self._thread = self._thread, None
        if thread is None:
            return
        self._committer.give_up_in(self._close_timeout_s)
        self._wake.set()
        await _to_the_end(asyncio.get_running_loop().run_in_executor(None, thread.join))
        # The thread's last words to the loop come before this.
        await asyncio.sleep(0)

    def _future(self) -> asyncio.Future[Any]:
        assert self._loop is not None, "start() comes first"
        return self._loop.create_future()

    def _call(self, run: Callable[[], T]) -> asyncio.Future[T]:
        future: asyncio.Future[T] = self._future()
        self._put(_Call(run, future))
        return future

    def _put(self, item: Item | _Call) -> None:
        if self._closed:
            item.future.set_exception(OutcomeUnknown("The journal is closed; nothing was written."))
            return
        self._queue.append(item)
        if not self._wake.is_set():
            self._wake.set()

    # -- the writer's thread ------------------------------------------------------------------------------------------

    def _run(self) -> None:
        try:
            while True:
                while not self._wake.wait(LOOK_S):
                    self._committer.keep_lock()
                self._wake.clear()
                # Read before the queue: what was put before the closing is still seen.
                closing = self._committer.closing.is_set()
                while items := self._take():
                    self._handle(items)
                if closing:
                    return
        except GivenUp:
            pass
        finally:
            self._committer.close()
            self._tell([(item.future, OutcomeUnknown()) for item in self._queue])

    def _take(self) -> list[Item | _Call]:
        """Take from the queue what goes into one commit: executions once each, within the bounds; or one call."""
        queue = self._queue
        if queue and isinstance(queue[0], _Call):
            return [queue.popleft()]
        taken: list[Item | _Call] = []
        executions: set[str] = set()
        keys: set[str] = set()
        rows = chars = 0
        while queue and not isinstance(item := queue[0], _Call):
            key = item.new.idempotency_key if isinstance(item, Create) else None
            if item.execution_id in executions or key in keys:
                break
            more_rows, more_chars = size(item)
            if taken and (rows + more_rows > MAX_ROWS or chars + more_chars > MAX_CHARS):
                break
            rows, chars = rows + more_rows, chars + more_chars
            executions.add(item.execution_id)
            if key is not None:
                keys.add(key)
            taken.append(queue.popleft())
        return taken

    def _handle(self, items: Sequence[Item | _Call]) -> None:
        try:
            if isinstance(items[0], _Call):
                self._committer.call(items[0].run, items[0].future)
            else:
                batch = [item for item in items if not isinstance(item, _Call)]
                self._committer.commit(sorted(batch, key=lambda item: item.execution_id))
        except GivenUp:
            # Those that were told already ignore this.
            self._tell([(item.future, OutcomeUnknown()) for item in items])
            raise

    def _tell(self, outcomes: Sequence[Outcome]) -> None:
        if outcomes and self._loop is not None:
            with suppress(RuntimeError):  # the loop is closed; nobody waits any more
                self._loop.call_soon_threadsafe(_resolve, outcomes)


async def _to_the_end(work: asyncio.Future[None]) -> None:
    """Wait for `work`, however often somebody cancels that, and raise the cancellation then."""
    cancelled: asyncio.CancelledError | None = None
    while not work.done():
        try:
            await asyncio.shield(work)
        except asyncio.CancelledError as exc:
            cancelled = exc
    if cancelled is not None:
        raise cancelled


def _resolve(outcomes: Sequence[Outcome]) -> None:
    for future, outcome in outcomes:
        if future.done():  # its caller went away
            continue
        if isinstance(outcome, Exception):
            future.set_exception(outcome)
        else:
            future.set_result(outcome)
