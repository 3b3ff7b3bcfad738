"""A plan as the engine keeps it: its sub-tasks (`dagbok.domain.task`), who waits for whom, and a few words of it.

`Plan` is what the agent wrote, all of it; it lives as JSON in the database, and in memory only while it is submitted.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from dagbok.domain import graph, submission
from dagbok.domain.graph import Graph
from dagbok.domain.plan import Plan
from dagbok.domain.task import Reading, Task, task_of


@dataclass(frozen=True, slots=True)
class Outline:
    """What an execution needs of its plan."""

    original_request: str
    title: str
    primary_intent: str
    synthesis_plan: str
    clarification_needed: bool
    clarification_query: str | None
    sub_tasks: Sequence[Task]
    graph: Graph  #: over the positions of `sub_tasks`


def of(plan: Plan, tasks: Sequence[Task] | None = None, shape: Graph | None = None) -> Outline:
    """Return what an execution needs of a plan that was checked.

    Args:
        plan: The plan.
        tasks: Its sub-tasks, where they are read already; the plan's own are not looked at then.
        shape: Who waits for whom, likewise.
    """
    tasks = [task_of(each) for each in plan.sub_tasks] if tasks is None else tasks
    shape = graph.build(submission.parents(tasks)) if shape is None else shape
    return Outline(
        plan.original_request, plan.title, plan.intent.primary, plan.synthesis_plan, plan.clarification_needed,
        plan.clarification_query, tasks, shape,
    )  # fmt: skip


def read(document: Mapping[str, Any]) -> Outline:
    """Return the plan of a document that was checked once."""
    tasks = Reading().all(document["sub_tasks"])
    read = [each for each in tasks if each is not None]
    if len(read) < len(tasks):  # what that is the model tells
        return of(Plan.model_validate(document))
    return of(head(document), read)


def head(document: Mapping[str, Any]) -> Plan:
    """Return the plan of a document without its sub-tasks. Raises Pydantic's ValidationError."""
    return Plan.model_validate({**document, "sub_tasks": []})
