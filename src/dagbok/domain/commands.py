"""What somebody may ask of an execution, applied to its aggregate: cancel, pause, resume, answer, retry.

And what the engine itself asks: `late` tells what an attempt brought after it was given up (`dagbok.domain.doubt`);
`expire` closes a question whose time is over, as a command, so that of it and an answer one is first; `wake` asks for
nothing but that its owner looks at it.
"""

from __future__ import annotations

import logging

from dagbok.domain.execution import Execution
from dagbok.domain.records import Command
from dagbok.errors import Conflict

log = logging.getLogger("dagbok.engine")


def apply(execution: Execution, command: Command, now_ms: int) -> None:
    """Apply a command. One that no longer fits changes nothing; either way it is marked as applied."""
    try:
        if command.kind == "cancel":
            execution.cancel(now_ms, by=command.by)
        elif command.kind == "pause":
            execution.pause(now_ms, by=command.by)
        elif command.kind == "resume":
            execution.resume(now_ms, by=command.by)
        elif command.kind == "retry":
            only, overrides = command.data.get("steps"), command.data.get("overrides")
            execution.retry(now_ms, by=command.by, only=only, overrides=overrides)
        elif command.kind == "late":
            position = execution.index[command.data["taskId"]]
            execution.late(position, command.data["attempt"], command.data["brought"])
        elif command.kind == "answer":
            position = execution.index[command.data["taskId"]]
            number = command.data.get("question")
            execution.answer(position, command.data["answer"], now_ms, by=command.by, number=number)
        elif command.kind == "expire":
            execution.expire(execution.index[command.data["taskId"]], command.data["question"], now_ms)
        elif command.kind != "wake":
            log.warning("execution %s: the command %r is not known and changed nothing", execution.id, command.kind)
    except (Conflict, KeyError) as exc:
        log.info("execution %s: the command %s changed nothing: %s", execution.id, command.kind, exc)
    execution.applied(command.id)
