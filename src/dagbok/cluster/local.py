"""Executions run in this process: handed over when submitted, taken over when an earlier process left them.

Taking over is claiming (the epoch grows, so the earlier owner cannot write any more), reading the rows, and going on.
Commands that others committed reach their execution here, whichever process wrote them.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Coroutine, Iterable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from typing import Any, Final, Protocol

from dagbok.cluster.alone import apply_and_release, redacted
from dagbok.cluster.expired import Expired, Question
from dagbok.cluster.timers import Due, Timers
from dagbok.domain import doubt, outline, values
from dagbok.domain.call import Call
from dagbok.domain.execution import Execution, restore
from dagbok.domain.ids import ExecutionId, TaskId
from dagbok.domain.plan import HUMAN
from dagbok.domain.records import Command, StoredExecution
from dagbok.domain.states import Reason
from dagbok.domain.values import Json
from dagbok.engine.outcomes import Outcome
from dagbok.engine.ports import NO_SECRETS, Clock, Journal, Secrets, Tools
from dagbok.engine.scheduler import Scheduler
from dagbok.errors import (
    DagbokError,
    Fenced,
    Misconfigured,
    NotFound,
    OutcomeUnknown,
    StoreRejected,
    StoreUnavailable,
)
from dagbok.store.batch import Created

log = logging.getLogger("dagbok.cluster")

#: How often the database is asked whether another process wrote a command.
POLL_INTERVAL_S: Final = 0.25
#: How often an execution is claimed that others claim as well.
CLAIMS: Final = 5
#: How long closing waits for a read under way.
CLOSE_TIMEOUT_S: Final = 2.0
#: The database is away, or somebody else's by now: what concerns more than one execution.
AWAY: Final = (StoreUnavailable, OutcomeUnknown, Misconfigured)


class OwningJournal(Journal, Protocol):
    """The journal, with what changes owners."""

    def claim(self, execution_id: ExecutionId, owner: str) -> asyncio.Future[StoredExecution]:
        """Make `owner` the owner and return all that is needed to go on. Raises NotFound."""
        ...

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
        """Write a command and return its number. Raises Conflict where another answers the question `wait` already."""
        ...


class Diary(Due, Protocol):
    """The part of the reader that finds what there is to do. Synchronous; called from threads."""

    def left_behind(self, now_ms: int) -> Sequence[ExecutionId]:
        """Return the executions that somebody should be running."""
        ...

    def parked(self) -> Sequence[ExecutionId]:
        """Return the executions that belong to nobody, wait for a time, and for no person."""
        ...

    def commands_changed(self) -> bool:
        """Return whether there may be new commands since the last call."""
        ...

    def question(self, execution_id: str, task_id: str) -> Mapping[str, Any] | None:
        """Return the latest question of a sub-step."""
        ...

    def pending_commands(self, execution_ids: Sequence[str] | None = None) -> list[Command]:
        """Return the commands not yet applied, oldest first."""
        ...


class LocalWorker:
    """Owns executions for one engine in this process."""

    def __init__(
        self,
        scheduler: Scheduler,
        journal: OwningJournal,
        diary: Diary,
        tools: Tools,
        *,
        owner: str,
        secrets: Secrets = NO_SECRETS,
    ) -> None:
        self.owner = owner
        self._scheduler = scheduler
        self._journal = journal
        self._diary = diary
        self._tools = tools
        self._redactor = secrets.redactor
        self._claiming = asyncio.Lock()  # one claim at a time: two of one execution would run it twice
        self._hearing = asyncio.Lock()  # one reader of commands at a time: two would apply each twice
        self._unheard = True  # whether commands may wait that were not applied
        self._applied: dict[int, ExecutionId] = {}  # commands whose commit may still be under way
        self._arriving: set[ExecutionId] = set()  # submissions whose commit is under way
        self._aborted: set[ExecutionId] = set()
        self._goes_on = False  # whether this engine runs what others left
        self._closing = asyncio.Event()
        self._timers = Timers(diary, self.clock, self.take_over)
        self._poll: asyncio.Task[None] | None = None
        self._rescues: set[asyncio.Task[None]] = set()
        self._asking: set[asyncio.Task[None]] = set()  # what the engine itself asks, by commands
        self._expired = Expired(self._write_expired, self.hear)
        scheduler.on_lost = self._lost
        scheduler.on_late = self.late
        scheduler.on_expired = self.expire

    @property
    def clock(self) -> Clock:
        """The clock of the engine."""
        return self._scheduler.clock

    async def start(self, *, recover: bool) -> int:
        """Go on with what an earlier process left, if `recover`, and begin to hear commands; return how much that was.

        With `recover` executions that wait leave the memory, and come back here when they are due.
        """
        taken: Sequence[ExecutionId] = ()
        if recover:
            self._goes_on = True
            self._scheduler.on_parked = self._timers.note
            taken = await self.take_over(await asyncio.to_thread(self._diary.left_behind, self.clock.now_ms()))
            self._scheduler.parked.update(await asyncio.to_thread(self._diary.parked))
            self._timers.start()
        self._poll = asyncio.get_running_loop().create_task(self._listen())
        return len(taken)

    async def close(self) -> None:
        """Stop hearing commands and taking over. The scheduler is closed by whoever opened it."""
        self._closing.set()
        tasks = [
            task for task in (self._poll, *self._timers.close(), *self._rescues, *self._asking) if task is not None
        ]
        if tasks:
            # A read goes on in its thread whatever becomes of the task; it gets the time to give its connection back.
            await asyncio.wait(tasks, timeout=CLOSE_TIMEOUT_S)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    # -- owning -----------------------------------------------------------------------------------------------------

    def submit(self, execution: Execution, committed: asyncio.Future[Created]) -> asyncio.Future[Created]:
        """Run an execution that names this worker as its owner, once its submission is `committed`.

        Where its idempotency key has an execution already, nothing was written of this one, and it does not run.

        Returns:
            What `committed` gives or raises, once the execution runs. Whatever becomes of this future, the execution
            runs: a caller that goes away must not leave a durable execution that nobody runs.
        """
        self._arriving.add(execution.id)
        arrived: asyncio.Future[Created] = asyncio.get_running_loop().create_future()
        committed.add_done_callback(partial(self._arrive, execution, arrived))
        return arrived

    def _arrive(
        self, execution: Execution, arrived: asyncio.Future[Created], committed: asyncio.Future[Created]
    ) -> None:
        self._arriving.discard(execution.id)
        try:
            created = committed.result()
            if not created.existing:
                self._scheduler.add(execution)
        except (Exception, asyncio.CancelledError) as exc:
            if not arrived.done():
                arrived.set_exception(exc)
                arrived.exception()  # retrieved: a caller that went away is no "never retrieved" warning
        else:
            if not arrived.done():
                arrived.set_result(created)

    async def wait(self, execution_id: ExecutionId) -> None:
        """Return once the execution ended or waits for a person; see `Scheduler.wait`."""
        await self._scheduler.wait(execution_id)

    async def take_over(self, execution_ids: Iterable[ExecutionId]) -> list[ExecutionId]:
        """Go on with unfinished executions; return those that now run here.

        One that needs a tool this process does not have, or that cannot be read, is left as it is, with a warning:
        better late than failed.
        """
        taken: list[ExecutionId] = []
        for execution_id in execution_ids:
            async with self._claiming:
                if self._scheduler.get(execution_id) is not None:
                    continue
                execution = await self._claim(execution_id)
                unknown = () if execution is None else self._unknown_tools(execution)
                if execution is None or execution.ended or unknown:
                    if unknown:
                        names = ", ".join(sorted(unknown))
                        log.warning("execution %s is left as it is: this process has no tool %s", execution_id, names)
                    self._scheduler.leave_out(execution_id)
                    continue
                self._scheduler.take_over(execution)
                taken.append(execution_id)
        return taken

    async def _claim(self, execution_id: ExecutionId) -> Execution | None:
        """Return an execution that nobody in this process runs, claimed; None if there is none to be had."""
        try:
            stored = await self._read_claimed(execution_id)
            return await asyncio.to_thread(_restored, stored)  # a large one takes a while
        except NotFound:
            return None  # deleted meanwhile
        except AWAY:
            raise
        except Exception:
            log.exception("execution %s cannot be read back, and is left as it is", execution_id)
            return None

    async def _read_claimed(self, execution_id: ExecutionId) -> StoredExecution:
        """Of two who claim at the same moment one is refused; who asks again has it, and the other one learns of it."""
        for _ in range(CLAIMS - 1):
            with suppress(Fenced):
                return await self._journal.claim(execution_id, self.owner)
        return await self._journal.claim(execution_id, self.owner)

    def _unknown_tools(self, execution: Execution, command: Command | None = None) -> set[str]:
        """Return the tools that an execution needs and this process does not have; once `command` is applied."""
        # Of one that has ended, what a retry would run again; it may bring other tools.
        given = {} if command is None or command.kind != "retry" else command.data.get("overrides") or {}
        names = {
            given.get(step.task.id, {}).get("tool", step.task.tool)
            for step in execution.steps
            if (not step.done if execution.ended else not step.ended)
        }
        return {name for name in names if name != HUMAN and self._tools.get(name) is None}

    # -- commands ---------------------------------------------------------------------------------------------------

    async def hear(self) -> None:
        """Apply the commands that wait."""
        async with self._hearing:
            self._unheard = True  # until all of it is done: what fails is tried again
            missed = False
            waiting = await asyncio.to_thread(self._diary.pending_commands)
            self._applied = {command.id: command.execution_id for command in waiting if command.id in self._applied}
            for command in waiting:
                if command.id in self._applied:
                    continue
                if await self._try(command):
                    self._applied[command.id] = command.execution_id
                else:
                    missed = True
            self._unheard = missed

    async def _try(self, command: Command) -> bool:
        """Apply one command; what is wrong with its execution is told, and keeps no other one waiting."""
        try:
            return await self._apply(command)
        except AWAY:
            raise
        except Exception:
            log.exception("execution %s: %r cannot be applied", command.execution_id, command.kind)
            return True  # to be tried again by the next owner

    async def _apply(self, command: Command) -> bool:
        """Apply one command; return whether that was done, or there is nothing to do."""
        command = redacted(command, self._redactor)
        if self._scheduler.get(command.execution_id) is not None:
            if self._scheduler.apply(command):
                return True
            # A commit away from being nobody's. Who asked is told that it is done; so it has to be, and soon.
            await self._scheduler.left(command.execution_id)
        if command.execution_id in self._arriving:
            return False  # claiming it now would fence the submission itself
        async with self._claiming:
            if self._scheduler.get(command.execution_id) is not None:
                return False
            execution = await self._claim(command.execution_id)
            if execution is None:
                return True
            # Read under the claim: who had it meanwhile may have applied it.
            asked = await asyncio.to_thread(self._diary.pending_commands, [command.execution_id])
            still = [command] if any(each.id == command.id for each in asked) else []
            begins = not execution.ended or (command.kind == "retry" and bool(still))
            if self._goes_on and begins and not self._unknown_tools(execution, *still):
                self._scheduler.take_over(execution, *still)
                return True
            # It ended, or is left for a process that has its tools, or that goes on with what was left.
            changes = apply_and_release(execution, still, self.clock.now_ms())
            await self._journal.append(changes)
            self._scheduler.tell(execution, changes)
            if execution.ended:
                self._scheduler.leave_out(execution.id)
            return True

    async def _listen(self) -> None:
        while not self._closing.is_set():
            try:
                if await asyncio.to_thread(self._diary.commands_changed) or self._unheard:
                    await self.hear()
            except DagbokError as exc:
                # The journal tells of an outage once; here it only means that commands wait a little longer.
                log.debug("commands cannot be read: %s", exc)
            except Exception:
                log.exception("a command cannot be applied; it is tried again")
            with suppress(TimeoutError):
                await asyncio.wait_for(self._closing.wait(), POLL_INTERVAL_S)

    # -- what the engine asks by itself -----------------------------------------------------------------------------

    def late(self, call: Call, outcome: Outcome) -> None:
        """Lay what an attempt brought, whose time was over, beside the question whether it happened.

        As a command: the execution may have left the memory.
        """
        self._ask(self._tell_late(call, outcome))

    def expire(self, execution_id: ExecutionId, task_id: TaskId, number: int) -> None:
        """Close a question whose time is over, unless it has its answer."""
        if not self._closing.is_set():
            self._hold(self._expired.add(Question(execution_id, task_id, number)))

    def _ask(self, asking: Coroutine[Any, Any, None]) -> None:
        if self._closing.is_set():
            asking.close()
            return
        self._hold(asyncio.get_running_loop().create_task(asking))

    def _hold(self, asking: asyncio.Task[None]) -> None:
        if asking not in self._asking:
            self._asking.add(asking)
            asking.add_done_callback(self._asking.discard)

    def _write_expired(self, question: Question) -> Awaitable[int]:
        execution_id, task_id, number = question
        data: dict[str, Json] = {"taskId": task_id, "question": number}
        return self._journal.write_command(
            execution_id, "expire", data, None, at_ms=self.clock.now_ms(), wait=f"{task_id}#{number}"
        )

    async def _tell_late(self, call: Call, outcome: Outcome) -> None:
        try:
            if not await self._is_asked(call):
                log.info("execution %s: task %s ended after its time; nobody asks", call.execution_id, call.task_id)
                return
            came = doubt.brought(outcome.result, outcome.code, outcome.message)
            data = {"taskId": call.task_id, "attempt": call.attempt, "brought": came}
            await self._journal.write_command(call.execution_id, "late", data, None, at_ms=self.clock.now_ms())
            await self.hear()
        except DagbokError as exc:
            log.warning("execution %s: what task %s brought late is lost: %s", call.execution_id, call.task_id, exc)

    async def _is_asked(self, call: Call) -> bool:
        execution = self._scheduler.get(call.execution_id)
        if execution is not None:  # its rows may not say so yet
            asked = execution.steps[execution.index[call.task_id]].question
            return asked is not None and asked.kind == doubt.KIND
        row = await asyncio.to_thread(self._diary.question, call.execution_id, call.task_id)
        return row is not None and row["kind"] == doubt.KIND and row["closed_at"] is None

    # -- what is lost -----------------------------------------------------------------------------------------------

    def _lost(self, execution_id: ExecutionId, error: BaseException) -> bool:
        """Hear again what a lost execution was asked; end one whose rows the database refuses, once.

        Returns whether it is ended, from what the database last accepted.
        """
        self._applied = {id: of for id, of in self._applied.items() if of != execution_id}
        self._unheard = True
        if not isinstance(error, StoreRejected) or execution_id in self._aborted:
            return False
        self._aborted.add(execution_id)
        task = asyncio.get_running_loop().create_task(self._abort(execution_id, error))
        self._rescues.add(task)
        task.add_done_callback(self._rescues.discard)
        return True

    async def _abort(self, execution_id: ExecutionId, error: StoreRejected) -> None:
        try:
            async with self._claiming:
                execution = await self._claim(execution_id)
                if execution is None:
                    self._scheduler.leave_out(execution_id, error)
                    return
                execution.abort(Reason.STORE_REJECTED, values.clean(error.message, 1000), self.clock.now_ms())
                self._scheduler.take_over(execution)
        except Exception as exc:
            log.exception("execution %s cannot be ended", execution_id)
            self._scheduler.leave_out(execution_id, exc)


def _restored(stored: StoredExecution) -> Execution:
    return restore(stored, outline.read(values.decode(stored.plan)))
