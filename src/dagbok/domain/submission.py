"""From the plan to the steps of an execution: who waits for whom, the synthesis as last step, the first rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from dagbok.domain import graph, refs, values
from dagbok.domain.ids import SYNTHESIS, SYNTHESIS_TOOL, TaskId
from dagbok.domain.plan import Plan, SubTask
from dagbok.domain.records import NewStep, StoredExecution
from dagbok.domain.states import FailurePolicy
from dagbok.domain.step import Step


def dependencies(task: SubTask) -> list[TaskId]:
    """Return the tasks a sub-task waits for: those it names, then those its params refer to, each once."""
    return list(dict.fromkeys((*task.dependencies, *refs.named(task.tool_or_prompt.params))))


def parents(tasks: Sequence[SubTask]) -> list[list[int]]:
    """Return for each sub-task the positions it waits for."""
    index: Mapping[TaskId, int] = {task.id: position for position, task in enumerate(tasks)}
    return [[index[name] for name in dependencies(task)] for task in tasks]


def synthesis_task(plan: Plan) -> SubTask | None:
    """Return the synthesis as a sub-task; None for a plan without one."""
    if not plan.synthesis_plan.strip():
        return None
    tool = {"name": SYNTHESIS_TOOL, "params": {}}
    return SubTask.model_validate({"id": SYNTHESIS, "description": plan.synthesis_plan, "tool_or_prompt": tool})


def allowed_ms(stored: StoredExecution) -> int | None:
    """Return how long a stored execution may take from its submission on; None: there is no deadline.

    As it was asked for: the time from `created_at` to `deadline_at` is another, once the deadline followed a clock that
    was set back.
    """
    seconds = (values.decode(stored.options) if stored.options else {}).get("deadlineSeconds")
    return None if seconds is None else max(1, round(seconds * 1000))


def fails_fast(stored: StoredExecution) -> bool:
    """Return whether the first failure is to end a stored execution."""
    options = values.decode(stored.options) if stored.options else {}
    return bool(options.get("failurePolicy") == FailurePolicy.FAIL_FAST)


def new_steps(steps: Sequence[Step]) -> list[NewStep]:
    """Return the rows of all steps, positioned in natural order of their ids, the synthesis last."""
    ranks = graph.natural(step.task.id for step in steps if step.task.id != SYNTHESIS)
    return [_new_step(step, rank) for step, rank in zip(steps, [*ranks, len(ranks)], strict=False)]


def _new_step(step: Step, position: int) -> NewStep:
    task = step.task
    expected = task.expected_output
    return NewStep(
        task_id=task.id,
        position=position,
        description=task.description,
        thought=task.thought,
        action_type="inference" if task.id == SYNTHESIS else task.action_type,
        tool_or_prompt_name=task.tool_or_prompt.name,
        tool_or_prompt_params=values.encode(task.tool_or_prompt.params),
        expected_output=expected if isinstance(expected, str) else values.encode(expected),
        dependencies=values.encode(dependencies(task)),
        effect=step.effect.value,
    )
