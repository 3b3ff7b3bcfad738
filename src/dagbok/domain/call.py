"""What passes between the engine and a tool: the call, and the reply of tools that know what they cost."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from dagbok.domain.ids import ExecutionId, TaskId
from dagbok.domain.plan import SubTask
from dagbok.domain.values import Json


@dataclass(frozen=True, slots=True)
class Missing:
    """A sub-task whose result a synthesis has to do without."""

    task_id: TaskId
    description: str
    status: str  # failed | skipped | cancelled
    error: str | None


@dataclass(slots=True)
class Call:
    """One attempt of one sub-step, as a tool sees it."""

    execution_id: ExecutionId
    task_id: TaskId
    attempt: int
    revision: int
    params: dict[str, Any]  # references replaced
    request: str  # the plan's original_request
    sub_task: SubTask
    load_results: Callable[[], Mapping[TaskId, Json]]  # see `results`
    report: Callable[[str, float | None], None]  # progress; safe to call from any thread
    synthesis_plan: str = ""
    missing: tuple[Missing, ...] = ()  # for the synthesis: what did not complete

    @property
    def results(self) -> Mapping[TaskId, Json]:
        """The results of its dependencies; of all that completed for the synthesis. Decoded when asked for."""
        return self.load_results()

    @property
    def idempotency_key(self) -> str:
        """The same for every attempt that means the same act; pass it on to whoever can recognise it."""
        return f"{self.execution_id}:{self.task_id}:{self.revision}"


class Charge(NamedTuple):
    """What an attempt cost."""

    usage: Mapping[str, Any] | None = None  # numbers by name; they add up in the execution
    cost_usd: float | None = None  # None: unknown, which is not 0
    model: str | None = None


#: What an attempt costs that calls no model.
NO_CHARGE = Charge()


@dataclass(frozen=True, slots=True)
class Reply:
    """A result with what it cost, see `Charge`. Tools that know no cost return the bare value."""

    value: Json
    usage: Mapping[str, Any] | None = None
    cost_usd: float | None = None
    model: str | None = None

    @property
    def charge(self) -> Charge:
        return Charge(self.usage, self.cost_usd, self.model)
