"""Executions run in this process: handed over when submitted, taken over when an earlier process left them.

Taking over is claiming (the epoch grows, so the earlier owner cannot write any more), reading the rows, and going on.
Commands that others committed reach their execution here, whichever process wrote them.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable, Sequence
from contextlib import suppress
from typing import Protocol

from dagbok.domain import values
from dagbok.domain.execution import Execution, restore
from dagbok.domain.ids import ExecutionId
from dagbok.domain.plan import HUMAN, Plan
from dagbok.domain.records import Command, StoredExecution
from dagbok.domain.states import Reason
from dagbok.engine.ports import Clock, Journal, Tools
from dagbok.engine.scheduler import Scheduler
from dagbok.errors import DagbokError, NotFound, StoreRejected

log = logging.getLogger("dagbok.cluster")

#: How often the database is asked whether another process wrote a command.
POLL_INTERVAL_S = 0.25
#: How long closing waits for a read under way.
CLOSE_TIMEOUT_S = 2.0


class OwningJournal(Journal, Protocol):
    """The journal, with what changes owners."""

    def claim(self, execution_id: ExecutionId, owner: str) -> asyncio.Future[StoredExecution]:
        """Make `owner` the owner and return all that is needed to go on. Raises NotFound."""
        ...


class Commands(Protocol):
    """The part of the reader that finds commands. Synchronous; called from threads."""

    def commands_changed(self) -> bool:
        """Return whether there may be new commands since the last call."""
        ...

    def pending_commands(self, execution_ids: Sequence[str] | None = None) -> list[Command]:
        """Return the commands not yet applied, oldest first."""
        ...


class LocalWorker:
    """Owns executions for one engine in this process."""

    def __init__(
        self, scheduler: Scheduler, journal: OwningJournal, commands: Commands, tools: Tools, *, owner: str
    ) -> None:
        self.owner = owner
        self._scheduler = scheduler
        self._journal = journal
        self._commands = commands
        self._tools = tools
        self._applied: set[int] = set()  # commands applied whose commit may still be under way
        self._closing = asyncio.Event()
        self._poll: asyncio.Task[None] | None = None
        self._rescues: set[asyncio.Task[None]] = set()
        scheduler.on_rejected = self._rescue

    def start(self) -> None:
        """Begin to hear commands of other processes."""
        self._poll = asyncio.get_running_loop().create_task(self._listen())

    async def close(self) -> None:
        """Stop hearing commands. The scheduler is closed by whoever opened it."""
        self._closing.set()
        tasks = [task for task in (self._poll, *self._rescues) if task is not None]
        if tasks:
            # A read goes on in its thread whatever becomes of the task; it gets the time to give its connection back.
            await asyncio.wait(tasks, timeout=CLOSE_TIMEOUT_S)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def hand_over(self, execution: Execution) -> None:
        """Run an execution whose submission named this worker as its owner and is durable."""
        self._scheduler.add(execution)

    @property
    def clock(self) -> Clock:
        """The clock of the engine."""
        return self._scheduler.clock

    async def wait(self, execution_id: ExecutionId) -> None:
        """Return once the execution ended or waits for a person; at once if it does not run here."""
        await self._scheduler.wait(execution_id)

    async def take_over(self, execution_ids: Iterable[ExecutionId]) -> list[ExecutionId]:
        """Go on with unfinished executions; return those that now run here.

        One that needs a tool this process does not have is left as it is, with a warning: better late than failed.
        """
        taken: list[ExecutionId] = []
        for execution_id in execution_ids:
            try:
                stored = await self._journal.claim(execution_id, self.owner)
            except NotFound:
                continue  # deleted meanwhile
            execution = _restored(stored)
            if execution.ended:
                continue
            if unknown := self._unknown_tools(execution):
                names = ", ".join(sorted(unknown))
                log.warning("execution %s is left as it is: this process has no tool %s", execution_id, names)
                continue
            self._scheduler.take_over(execution)
            taken.append(execution_id)
        if taken:
            await self.hear()
        return taken

    async def hear(self) -> None:
        """Apply the commands that wait. One for an execution that nobody runs is applied by claiming it."""
        for command in await asyncio.to_thread(self._commands.pending_commands):
            if command.id in self._applied:
                continue
            self._applied.add(command.id)
            if self._scheduler.get(command.execution_id) is not None or await self._claim_for(command):
                self._scheduler.apply(command)

    async def _claim_for(self, command: Command) -> bool:
        """Take over the execution of a command; return whether it runs here now."""
        try:
            stored = await self._journal.claim(command.execution_id, self.owner)
        except NotFound:
            return False  # deleted, with its commands
        execution = _restored(stored)
        if execution.ended:
            execution.applied(command.id)
            await self._journal.append(execution.take_changes(self.clock.now_ms()))
            return False
        self._scheduler.take_over(execution)
        return True

    def _unknown_tools(self, execution: Execution) -> set[str]:
        names = {step.task.tool for step in execution.steps if not step.ended}
        return {name for name in names if name != HUMAN and self._tools.get(name) is None}

    async def _listen(self) -> None:
        while not self._closing.is_set():
            try:
                if await asyncio.to_thread(self._commands.commands_changed):
                    await self.hear()
            except DagbokError as exc:
                # The journal tells of an outage once; here it only means that commands wait a little longer.
                log.debug("commands cannot be read: %s", exc)
            with suppress(TimeoutError):
                await asyncio.wait_for(self._closing.wait(), POLL_INTERVAL_S)

    def _rescue(self, execution_id: ExecutionId, error: StoreRejected) -> None:
        task = asyncio.get_running_loop().create_task(self._abort(execution_id, error))
        self._rescues.add(task)
        task.add_done_callback(self._rescues.discard)

    async def _abort(self, execution_id: ExecutionId, error: StoreRejected) -> None:
        """End an execution whose rows the database refuses, from what it last accepted."""
        try:
            stored = await self._journal.claim(execution_id, self.owner)
        except DagbokError as exc:
            log.error("execution %s cannot be ended: %s", execution_id, exc)
            self._scheduler.give_up(execution_id, error)
            return
        execution = _restored(stored)
        execution.abort(Reason.STORE_REJECTED, values.clean(error.message, 1000), self.clock.now_ms())
        self._scheduler.take_over(execution)


def _restored(stored: StoredExecution) -> Execution:
    return restore(stored, Plan.model_validate(values.decode(stored.plan)))
