"""Calls as the engine would make them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from dagbok.domain.call import Call, Missing
from dagbok.domain.ids import SYNTHESIS, ExecutionId, TaskId
from dagbok.domain.refs import resolve
from dagbok.domain.task import Task, read_task
from dagbok.domain.values import Json
from dagbok.llm.inference import Inference
from dagbok.llm.models import Models
from dagbok.settings import Settings

EXECUTION = ExecutionId("dag-exec_1")


def models(model: str = "offline", **settings: Any) -> Models:
    """Return the models of an engine with these settings."""
    return Models(Settings(model=model, **settings))


def inference(model: str = "offline", **settings: Any) -> Inference:
    """Return the tool of an engine with these settings."""
    return Inference(models(model, **settings))


def inference_call(
    params: dict[str, Any],
    results: Mapping[str, Json] | None = None,
    *,
    description: str = "Summarise the page",
    request: str = "How do tides work?",
    expected: str | dict[str, Any] = "Three sentences",
    overridden: dict[str, Any] | None = None,
    reports: list[str] | None = None,
) -> Call:
    """Return a call of `inference` with its references replaced; `overridden` stands for params a person has put in."""
    given = {TaskId(task): value for task, value in (results or {}).items()}
    step = read_task(
        {
            "id": "9",
            "description": description,
            "action_type": "inference",
            "tool_or_prompt": {"name": "inference", "params": params},
            "expected_output": expected,
        }
    )
    resolved = overridden if overridden is not None else resolve(params, given, max_bytes=10**8)
    return _call(step, TaskId("9"), resolved, request, given, reports)


def synthesis_call(
    results: Mapping[str, Json],
    *,
    plan: str = "Explain the tides",
    request: str = "How do tides work?",
    missing: tuple[Missing, ...] = (),
    reports: list[str] | None = None,
) -> Call:
    step = read_task({"id": "__SYNTHESIS__", "tool_or_prompt": {"name": "__synthesis__"}})
    given = {TaskId(task): value for task, value in results.items()}
    call = _call(step, SYNTHESIS, {}, request, given, reports)
    call.synthesis_plan = plan
    call.missing = missing
    return call


def sub_task(id: str, description: str, *, tool: str = "read_file") -> Task:
    """Return a sub-task of the plan, as a call looks it up to say what a result is."""
    return read_task(
        {"id": id, "description": description, "tool_or_prompt": {"name": tool}}
        | ({"action_type": tool} if tool in ("inference", "human") else {})
    )


def lost(task: str, *, description: str = "", status: str = "failed", error: str | None = None) -> Missing:
    return Missing(TaskId(task), description, status, error)


def _call(
    step: Task,
    task: TaskId,
    params: dict[str, Any],
    request: str,
    results: dict[TaskId, Json],
    reports: list[str] | None,
) -> Call:
    return Call(
        execution_id=EXECUTION,
        task_id=task,
        attempt=1,
        revision=0,
        params=params,
        request=request,
        sub_task=step,
        load_results=lambda: results,
        report=lambda message, _fraction: reports.append(message) if reports is not None else None,
    )
