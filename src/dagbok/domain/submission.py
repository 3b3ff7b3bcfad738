"""From the plan to the steps of an execution: who waits for whom, the synthesis as last step, the first rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from dagbok.domain import graph, refs, values
from dagbok.domain.ids import SYNTHESIS, SYNTHESIS_TOOL, TaskId
from dagbok.domain.records import NewStep, StoredExecution
from dagbok.domain.states import FailurePolicy
from dagbok.domain.step import Step
from dagbok.domain.task import Called, Task
from dagbok.domain.values import JsonText


def dependencies(task: Task) -> list[TaskId]:
    """Return the tasks a sub-task waits for: those it names, then those its params refer to, each once."""
    params = task.tool_or_prompt.params
    return list(dict.fromkeys((*task.dependencies, *refs.named(params)) if params else task.dependencies))


def parents(tasks: Sequence[Task]) -> list[Sequence[int]]:
    """Return for each sub-task the positions it waits for, in the order of its `dependencies`."""
    index: Mapping[TaskId, int] = {task.id: position for position, task in enumerate(tasks)}
    return [tuple(index[name] for name in dependencies(task)) for task in tasks]


def synthesis_task(synthesis_plan: str) -> Task | None:
    """Return the synthesis as a sub-task; None for a plan without one."""
    if not synthesis_plan.strip():
        return None
    return Task(SYNTHESIS, SYNTHESIS_TOOL, Called(SYNTHESIS_TOOL, {}), description=synthesis_plan)


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


def new_steps(steps: Sequence[Step], parents: Sequence[Sequence[int]]) -> list[NewStep]:
    """Return the rows of all steps, positioned in natural order of their ids, the synthesis last.

    Args:
        steps: In the plan's order.
        parents: What each of them waits for, but the synthesis.
    """
    ids = [step.task.id for step in steps]
    ranks = graph.natural(ids[: len(parents)])
    rows = [
        _new_step(step, rank, values.text([ids[parent] for parent in above]) if above else _NO_DEPENDENCIES)
        for step, rank, above in zip(steps, ranks, parents, strict=False)
    ]
    return rows + [_new_step(last, len(ranks), _NO_DEPENDENCIES) for last in steps[len(ranks) :]]


def _new_step(step: Step, position: int, dependencies: JsonText) -> NewStep:
    task = step.task
    call, expected = task.tool_or_prompt, task.expected_output
    return NewStep(
        task.id,
        position,
        task.description,
        task.thought,
        "inference" if task.id == SYNTHESIS else task.action_type,
        call.name,
        values.text(call.params) if call.params else _NO_PARAMS,
        expected if isinstance(expected, str) else values.text(expected),
        dependencies,
        step.effect._value_,
    )


_NO_PARAMS, _NO_DEPENDENCIES = JsonText("{}"), JsonText("[]")
