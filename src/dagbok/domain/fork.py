"""What a fork takes over from its origin, and what runs in it. Linear in sub-tasks and dependencies.

A fork is a new execution of the same plan, or of one that was changed. What had finished and stands on nothing that
changed is taken over, result and all; everything else runs. So what is taken over is closed upwards: with each sub-task
all that it depends on. A `once` step that may have happened in the origin, and would run here for no other reason than
that it did not finish, is asked about first.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from dagbok.domain import graph, submission, values
from dagbok.domain.ids import SYNTHESIS, TaskId
from dagbok.domain.outline import Outline
from dagbok.domain.overriding import Overrides
from dagbok.domain.plan import INFERENCE
from dagbok.domain.records import StepRow
from dagbok.domain.states import Effect, Reason, StepStatus
from dagbok.domain.task import Task

#: What a sub-step is that has run, or was asked about, whatever came of it.
_HAS_RUN: Final = frozenset({StepStatus.RUNNING, StepStatus.WAITING, StepStatus.COMPLETED, StepStatus.FAILED})


@dataclass(frozen=True, slots=True)
class Origin:
    """An execution as a fork sees it."""

    plan: Outline  #: with the overrides that stand (`standing`)
    rows: Mapping[TaskId, StepRow]  #: inputs and results may be left out
    effects: Mapping[TaskId, Effect]


@dataclass(frozen=True, slots=True)
class Split:
    """The sub-tasks of a fork, in the order of its plan."""

    reused: Sequence[TaskId]
    again: Sequence[TaskId]  #: all others
    doubtful: Sequence[TaskId]  #: those of `again` that are asked about first
    synthesis: bool  #: whether that has something to put together anew, though no sub-task runs


def standing(overrides: Mapping[TaskId, Mapping[str, Any]]) -> tuple[Overrides, Overrides]:
    """Return the overrides of an execution in two parts: those that belong into a plan, and what approvals edited.

    Whoever edits params while approving them has their references replaced already: what he wrote is good for that one
    run, and stays beside the plan.
    """
    for_plan: dict[str, Mapping[str, Any]] = {}
    beside: dict[str, Mapping[str, Any]] = {}
    for task_id, override in overrides.items():
        if "edited" in override:
            beside[task_id] = {"edited": override["edited"]}
            override = {name: value for name, value in override.items() if name != "edited"}
        if override:
            for_plan[task_id] = override
    return for_plan, beside


def has_run(row: StepRow) -> bool:
    """Whether a sub-step of the origin ever ran, so that one can fork from it."""
    return bool(row.attempt) or row.status in _HAS_RUN or _is_done(row)


def split(origin: Origin, plan: Outline, *, from_task: TaskId | None = None, synthesis_changed: bool = False) -> Split:
    """Return what the fork that runs `plan` takes over.

    Args:
        origin: The execution.
        plan: Of the fork.
        from_task: A sub-task that runs in any case, and all that depends on it.
        synthesis_changed: Whether something else than the plan says that the synthesis is another one.
    """
    tasks = plan.sub_tasks
    parents = plan.graph.parents
    before = {task.id: task for task in origin.plan.sub_tasks}
    same_request = origin.plan.original_request == plan.original_request
    kept = [False] * len(tasks)
    doubtful: set[int] = set()
    for position in graph.topological(parents, plan.graph.children):
        task, row = tasks[position], origin.rows.get(tasks[position].id)
        if row is None or task.id == from_task or not all(kept[parent] for parent in parents[position]):
            continue
        if not _is_same(before[task.id], task, row, same_request=same_request):
            continue
        if _is_done(row):
            kept[position] = True
        elif is_doubtful(row, origin.effects[task.id]):
            doubtful.add(position)
    reused = [task.id for position, task in enumerate(tasks) if kept[position]]
    again = [task.id for position, task in enumerate(tasks) if not kept[position]]
    return Split(
        reused,
        again,
        [tasks[position].id for position in sorted(doubtful)],
        bool(plan.synthesis_plan.strip())
        and any(origin.rows[id].status == StepStatus.COMPLETED for id in reused)
        and (synthesis_changed or from_task == SYNTHESIS or not _has_same_synthesis(origin, plan)),
    )


def is_doubtful(row: StepRow, effect: Effect) -> bool:
    """Whether nobody knows what a `once` step has done: it runs there now, or was cut off and nobody has said."""
    if effect is not Effect.ONCE:
        return False
    if row.status == StepStatus.WAITING:
        return row.reason == Reason.OUTCOME_UNKNOWN
    if row.status == StepStatus.CANCELLED:
        return row.error_code == Reason.OUTCOME_UNKNOWN
    return row.status == StepStatus.RUNNING or (row.status == StepStatus.FAILED and row.error_code == "crash_loop")


def _is_done(row: StepRow) -> bool:
    return row.status == StepStatus.COMPLETED or (row.status == StepStatus.SKIPPED and row.reason == Reason.CHOSEN)


def _is_same(before: Task, after: Task, row: StepRow, *, same_request: bool) -> bool:
    """Whether what a sub-step came to in the origin is what this sub-task would come to."""
    if after.tool == INFERENCE and not same_request:
        return False  # the model was told it
    return _equal(_definition(before, row), _definition(after, row))


def _definition(task: Task, row: StepRow) -> list[Any]:
    """Return what decides about the result of a sub-task; as JSON, so that `1` and `true` are two things."""
    call = task.tool_or_prompt
    decides: list[Any] = [task.action_type, task.tool, call.params, task.expected_output]
    decides.append(sorted(set(submission.dependencies(task))))
    if task.tool == INFERENCE:
        decides.append(task.description)  # which the model is told
    if row.error_code is not None:  # it failed, and this is what the plan made of that
        decides += [task.on_failure, task.on_timeout, task.default]
    return decides


def _has_same_synthesis(origin: Origin, plan: Outline) -> bool:
    row = origin.rows.get(SYNTHESIS)
    if row is None or row.status != StepStatus.COMPLETED:
        return False
    return _told(origin.plan) == _told(plan)


def _told(plan: Outline) -> list[Any]:
    """Return what a synthesis is told, beside the results."""
    return [plan.synthesis_plan, plan.original_request, [(task.id, task.description) for task in plan.sub_tasks]]


def _equal(one: Any, other: Any) -> bool:
    return values.canonical(one) == values.canonical(other)
