"""What somebody may ask of an execution, applied to its aggregate: cancel, pause, resume, answer, retry.

And `late`, by which the engine itself tells what an attempt brought after it was given up (`dagbok.domain.doubt`); and
`wake`, which asks for nothing but that its owner looks at it.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable

from dagbok.domain.execution import Execution
from dagbok.domain.records import Command
from dagbok.errors import Conflict

log = logging.getLogger("dagbok.engine")


def apply(execution: Execution, command: Command, now_ms: int, *, unstarted: Iterable[int] = ()) -> None:
    """Apply a command. One that no longer fits changes nothing; either way it is marked as applied.

    `unstarted`: see `Execution.cancel`.
    """
    try:
        if command.kind == "cancel":
            execution.cancel(now_ms, by=command.by, unstarted=unstarted)
        elif command.kind == "pause":
            execution.pause(now_ms, by=command.by)
        elif command.kind == "resume":
            execution.resume(now_ms, by=command.by)
        elif command.kind == "retry":
            execution.retry(now_ms, by=command.by, only=command.data.get("steps"))
        elif command.kind == "late":
            position = execution.index[command.data["taskId"]]
            execution.late(position, command.data["attempt"], command.data["brought"])
        elif command.kind == "answer":
            position = execution.index[command.data["taskId"]]
            execution.answer(position, command.data["answer"], now_ms, by=command.by)
        elif command.kind != "wake":
            log.warning("execution %s: the command %r is not known and changed nothing", execution.id, command.kind)
    except (Conflict, KeyError) as exc:
        log.info("execution %s: the command %s changed nothing: %s", execution.id, command.kind, exc)
    execution.applied(command.id)
