"""What a tool may know about its call. A parameter annotated `ToolContext` receives it; plans never see it."""

from __future__ import annotations

import logging
import math
from collections.abc import MutableMapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dagbok.domain.call import Call
from dagbok.domain.ids import ExecutionId, TaskId
from dagbok.domain.values import clean
from dagbok.tools.egress import Egress
from dagbok.tools.page_reader import PageReader

if TYPE_CHECKING:
    _Adapter = logging.LoggerAdapter[logging.Logger]  # generic to type checkers; subscripting it costs at run time
else:
    _Adapter = logging.LoggerAdapter

MAX_MESSAGE_CHARS = 500


class ToolLogger(_Adapter):
    """A logger whose records carry the ids of the call, beside what the tool gives as `extra`."""

    def process(self, msg: Any, kwargs: MutableMapping[str, Any]) -> tuple[Any, MutableMapping[str, Any]]:
        """Put the ids under the `extra` of the call (the standard adapter would drop the tool's own)."""
        kwargs["extra"] = {**(self.extra or {}), **(kwargs.get("extra") or {})}
        return msg, kwargs


@dataclass(frozen=True, slots=True)
class ToolContext:
    """One attempt, as a tool sees it. Safe to use from any thread."""

    call: Call  #: everything the engine handed over, for tools such as `inference` that need more
    workspace: Path  #: the folder that file tools may touch, absolute
    egress: Egress  #: the guarded way to the network, for every tool that fetches what a plan names
    page_reader: PageReader  #: reads HTML in processes; `async with context.page_reader.here() as reader:`
    logger: ToolLogger  #: `dagbok.tool.NAME`; its records carry `execution_id`, `task_id` and `attempt`

    @property
    def execution_id(self) -> ExecutionId:
        """The execution this call belongs to."""
        return self.call.execution_id

    @property
    def task_id(self) -> TaskId:
        """The sub-task this call runs."""
        return self.call.task_id

    @property
    def attempt(self) -> int:
        """Which try this is, from 1."""
        return self.call.attempt

    @property
    def idempotency_key(self) -> str:
        """The same for every attempt that means the same act; pass it on to whoever can recognise it."""
        return self.call.idempotency_key

    def progress(self, message: str, fraction: float | None = None) -> None:
        """Tell whoever watches how far the tool is. Not kept in the diary; the last one stays on the sub-step.

        Args:
            message: Cut to 500 characters; what no JSON string holds (NUL, lone surrogates) is escaped.
            fraction: Of the whole, moved into 0..1; None when unknown.

        Raises:
            ValueError: The fraction is NaN.
        """
        if fraction is not None:
            fraction = float(fraction)
            if math.isnan(fraction):
                raise ValueError("progress: the fraction is NaN; give a number from 0 to 1, or None when it is unknown")
            fraction = min(1.0, max(0.0, fraction))
        self.call.report(clean(self.redact(str(message)), MAX_MESSAGE_CHARS), fraction)

    def redact(self, text: str) -> str:
        """Return `text` with `[secret NAME]` in the place of each known secret.

        The engine does so with all it is given. A tool needs it before it cuts text that may hold a secret: of half a
        value nobody knows what it was.
        """
        return self.call.redact(text)


def context_of(call: Call, *, tool: str, workspace: Path, egress: Egress, page_reader: PageReader) -> ToolContext:
    """Return the context of `call` for the tool named `tool`."""
    ids = {"execution_id": call.execution_id, "task_id": call.task_id, "attempt": call.attempt}
    logger = ToolLogger(logging.getLogger(f"dagbok.tool.{tool}"), ids)
    return ToolContext(call, workspace, egress, page_reader, logger)
