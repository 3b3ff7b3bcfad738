"""Submissions: from a plan and what is asked beside it, the execution that runs it, judged and with all its rows."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from typing import Any

import uuid_utils

from dagbok.domain import values
from dagbok.domain.events import Event, EventType
from dagbok.domain.execution import Execution
from dagbok.domain.ids import FIRST_EPOCH, DagId, ExecutionId
from dagbok.domain.plan import LONGEST_S
from dagbok.domain.records import NewExecution
from dagbok.domain.secrets import Redactor
from dagbok.domain.states import Effect, FailurePolicy
from dagbok.domain.task import Task
from dagbok.domain.validate import Limits, literals, read
from dagbok.domain.values import Json, JsonText
from dagbok.errors import BadInput


@dataclass(frozen=True, slots=True)
class Options:
    """What a submission may ask beside its plan."""

    title: str | None = None
    labels: Mapping[str, str] | None = None
    deadline_seconds: float | None = None  #: from the submission on; what has not ended by then is cancelled
    failure_policy: FailurePolicy | None = None  #: None: as `continue`

    def given(self) -> dict[str, Json]:
        """Return those that are asked for; an empty one asks for nothing."""
        return {name: value for name, value in asdict(self).items() if value}


_NOTHING_ASKED = Options()


@dataclass(frozen=True, slots=True)
class Terms:
    """What an engine judges all submissions by, and how it runs them."""

    tools: Mapping[str, Mapping[str, Any]]  #: JSON Schema of the params by tool name, aliases included
    limits: Limits
    redactor: Redactor
    effect_of: Callable[[Task], Effect]
    owner: str


def begin(
    document: Json, text: JsonText | None, options: Options, terms: Terms, *, dag_id: DagId | None, now_ms: int
) -> tuple[Execution, NewExecution]:
    """Return the execution of a plan, and the rows that make it exist.

    Args:
        document: The plan.
        text: The same as `encoded` wrote it, where that is at hand.
        options: What is asked beside it.
        terms: Of the engine.
        dag_id: Of the stored dag that is run once more; None: it becomes a new one.
        now_ms: The time.

    Raises:
        InvalidPlan, TooLarge: See `validate.read`.
        BadInput, NotJson: An option cannot be kept, or holds the value of a secret.
    """
    if options != _NOTHING_ASKED:
        values.check({"title": options.title, "labels": dict(options.labels or {})})
        refuse_literals(asdict(options), terms.redactor, "options")
    if text is None:
        text = encoded(document)
    if text is not None:  # the engine's own from here on: neither the caller nor a tool changes a plan that runs
        document = values.decode(text)
    plan = read(document, terms.tools, terms.limits, terms.redactor, text=text)
    execution_id = ExecutionId(new_id("dag-exec_"))
    execution = Execution(execution_id, plan, epoch=FIRST_EPOCH, effect_of=terms.effect_of)
    execution.fail_fast = options.failure_policy == FailurePolicy.FAIL_FAST
    if options.deadline_seconds is not None:
        execution.header.deadline_at = now_ms + _deadline_ms(options.deadline_seconds)
    new = NewExecution(
        id=execution_id,
        dag_id=dag_id or DagId(new_id("dag_")),
        new_dag=dag_id is None,
        plan_hash=plan_hash(document),
        plan=text or values.encode(document),
        title=options.title or plan.title or _shorten(plan.original_request),
        original_request=plan.original_request,
        primary_intent=plan.primary_intent,
        created_at=now_ms,
        total_tasks=len(plan.sub_tasks),
        steps=execution.new_steps(),
        event=Event(1, EventType.EXECUTION_CREATED.value, None, now_ms, None),
        owner=terms.owner,
        labels=values.encode(dict(options.labels)) if options.labels else None,
        options=_kept(options),
        deadline_at=execution.header.deadline_at,
    )
    return execution, new


def encoded(document: Json) -> JsonText | None:
    """Return a plan as JSON text; None: it is no JSON, which `begin` tells better."""
    with suppress(BadInput):
        return values.encode(document)
    return None


def refuse_literals(given: Json, redactor: Redactor, *path: str) -> None:
    """Raise BadInput if `given`, which is stored beside the plan, holds the value of a secret."""
    if faults := literals(given, redactor, *path):
        raise BadInput(faults[0].message, problems=faults, outside_plan=True)


def new_id(prefix: str) -> str:
    """Return a new id: `prefix` and a UUIDv7, so that ids sort by the time they were made."""
    return f"{prefix}{uuid_utils.uuid7()}"


def plan_hash(document: Json) -> str:
    """Return the content hash of a plan: the same for the same JSON, whatever the order of its keys."""
    return hashlib.sha256(values.canonical(document)).hexdigest()


def _kept(options: Options) -> JsonText | None:
    """Return the options that the execution goes by, for as long as it lives."""
    kept = {"deadlineSeconds": options.deadline_seconds, "failurePolicy": options.failure_policy}
    given = {name: value for name, value in kept.items() if value}
    return values.encode(given) if given else None


def _deadline_ms(seconds: float) -> int:
    if isinstance(seconds, bool) or not isinstance(seconds, int | float) or not 0 < seconds <= LONGEST_S:
        message = f"A deadline of {seconds!r:.50} seconds cannot be kept; it is more than 0 and at most {LONGEST_S:,}."
        raise BadInput(message, pointer="/options/deadlineSeconds", outside_plan=True)
    return max(1, round(seconds * 1000))


def _shorten(text: str, limit: int = 120) -> str:
    line = " ".join(text.split())
    return line if len(line) <= limit else f"{line[: limit - 1]}…"
