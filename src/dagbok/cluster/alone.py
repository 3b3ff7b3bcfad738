"""Commands of a process that is no engine: rows, which the engine applies; where there is none, applied here.

Whoever finds no engine claims the execution, applies what waits for it, and leaves it to nobody again. No lock is taken
for that: where an engine starts in between, one of the two is fenced. Either it is this process, which then leaves the
command to the engine; or it is the engine, which gives up one execution just as the command is applied to it.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterable, Mapping
from typing import Final

import uuid_utils

from dagbok.domain import commands, outline, values
from dagbok.domain.execution import Execution, restore
from dagbok.domain.ids import ExecutionId
from dagbok.domain.records import Changes, Command
from dagbok.domain.secrets import Redactor
from dagbok.domain.values import Json
from dagbok.engine.clock import SystemClock
from dagbok.store import takeover
from dagbok.store.database import Database
from dagbok.store.journal import Journal
from dagbok.store.queries import Reader

#: How long giving up waits for a database that went away.
CLOSE_TIMEOUT_S: Final = 2.0


def apply_and_release(execution: Execution, pending: Iterable[Command], now_ms: int) -> Changes:
    """Apply commands to a claimed execution that is not to run here, and return the changes that let go of it.

    What an earlier owner left open is closed first, as whenever an execution is taken over: nobody runs it.
    """
    if not execution.ended:
        execution.take_over(now_ms)
    for command in pending:
        commands.apply(execution, command, now_ms)
    return execution.release(now_ms)


def redacted(command: Command, redactor: Redactor) -> Command:
    """Return a command without secrets: whoever wrote it may not know those of this process."""
    return command._replace(data=redactor.value(command.data), by=redactor.value(command.by))


class Commander:
    """Asks something of the executions of one database, beside whatever engine owns it."""

    def __init__(self, database: Database, *, redactor: Redactor, command: str) -> None:
        self._database = database
        self._reader = Reader(database)
        self._redactor = redactor
        self._clock = SystemClock()
        self._owner = f"{command}:{os.getpid()}:{uuid_utils.uuid7()}"

    def write(
        self,
        execution_id: str,
        kind: str,
        by: str | None,
        data: Mapping[str, Json] | None = None,
        wait: str | None = None,
    ) -> int:
        """Make a command durable and return its number. Raises NotJson for `by`, and as `takeover.write_command`."""
        by = self._redactor.value(by)
        values.check(by)
        return takeover.write_command(
            self._database, ExecutionId(execution_id), kind, data or {}, by, at_ms=self._clock.now_ms(), wait=wait
        )

    def is_applied(self, execution_id: str, number: int) -> bool:
        """Return whether an owner has applied a command, or the execution is gone. Raises StoreUnavailable."""
        return all(command.id != number for command in self._reader.pending_commands([execution_id]))

    def delete(self, execution_id: str) -> int:
        """Delete an execution that has ended, with all it wrote; return how many sub-steps went with it.

        Raises:
            NotFound, Conflict: There is none; it has not ended.
            StoreUnavailable: The database does not answer; whether it was deleted is not known.
        """
        return takeover.delete(self._database, ExecutionId(execution_id), only_ended=True)

    async def apply(self, execution_id: str) -> None:
        """Apply all commands that wait for an execution which no engine owns.

        Raises:
            NotFound: It was deleted meanwhile.
            Fenced: Somebody else has it by now, and applies them.
            OutcomeUnknown: The database went away; whoever owns it next applies what was not applied.
        """
        journal = Journal(self._database, close_timeout_s=CLOSE_TIMEOUT_S)
        journal.start()
        try:
            stored = await journal.claim(ExecutionId(execution_id), self._owner)
            execution = restore(stored, outline.read(values.decode(stored.plan)))
            # Read under the claim: what is written from now on, somebody else applies.
            pending = await asyncio.to_thread(self._reader.pending_commands, [execution_id])
            known = [redacted(command, self._redactor) for command in pending]
            await journal.append(apply_and_release(execution, known, self._clock.now_ms()))
        finally:
            await journal.close()
