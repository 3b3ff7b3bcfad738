"""What passes between the engine and a tool: the call, and the reply of tools that know what they cost."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from dagbok.domain import values
from dagbok.domain.ids import ExecutionId, TaskId
from dagbok.domain.task import Task
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
    params: dict[str, Any] = field(repr=False)  # references replaced, secrets filled in
    request: str  # the plan's original_request
    sub_task: Task
    load_results: Callable[[], Mapping[TaskId, Json]]  # see `results`
    report: Callable[[str, float | None], None]  # progress; safe to call from any thread
    synthesis_plan: str = ""
    missing: tuple[Missing, ...] = ()  # for the synthesis: what did not complete
    look_up: Callable[[TaskId], Task | None] = lambda _: None  # a sub-task of the plan, to say what a result is
    redact: Callable[[str], str] = str  # text without values of secrets; for what is cut before the engine sees it

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

    def kept(self) -> Charge:
        """Return it as far as it is one: an amount that is no finite number is left out and loses no result."""
        usage = {name: amount for name, amount in (self.usage or {}).items() if _is_amount(amount) and _is_name(name)}
        model = None if self.model is None else values.clean(str(self.model), 200)
        return Charge(usage or None, self.cost_usd if _is_amount(self.cost_usd) else None, model)


#: What an attempt costs that calls no model.
NO_CHARGE = Charge()

#: No attempt uses more of anything; 10,000 of this still add up to an integer of 64 bits.
MAX_AMOUNT = 2**48


@dataclass(frozen=True, slots=True)
class Reply:
    """A result with what it cost, see `Charge`. Tools that know no cost return the bare value."""

    value: Json
    usage: Mapping[str, Any] | None = None
    cost_usd: float | None = None
    model: str | None = None

    @property
    def charge(self) -> Charge:
        """What it cost, as the tool says it."""
        return Charge(self.usage, self.cost_usd, self.model)


def _is_amount(value: object) -> bool:
    return type(value) in (int, float) and math.isfinite(value) and abs(value) <= MAX_AMOUNT  # type: ignore[arg-type]


def _is_name(value: object) -> bool:
    return type(value) is str and next(values.faults(value), None) is None
