"""Calls of tools without an engine: what the tests of this folder share."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any

from dagbok.domain.call import Call
from dagbok.domain.ids import ExecutionId, TaskId
from dagbok.domain.task import read_task
from dagbok.tools.registry import Registry, Tool

SUB_TASK = read_task({"id": "1", "tool_or_prompt": {"name": "x"}})


def make_call(
    params: dict[str, Any] | None = None,
    *,
    attempt: int = 1,
    report: Callable[[str, float | None], None] = lambda message, fraction: None,
) -> Call:
    fields = dict.fromkeys(inspect.signature(Call).parameters)
    fields.update(
        execution_id=ExecutionId("dag-exec_1"),
        task_id=TaskId("1"),
        attempt=attempt,
        revision=2,
        params=params or {},
        request="",
        sub_task=SUB_TASK,
        report=report,
        redact=str,
    )
    return Call(**fields)  # type: ignore[arg-type]  # the fields no tool of this folder reads are None


def run(thing: Any, workspace: Path | str = ".", **params: Any) -> Any:
    """Return what the tool makes of these params, each call in a loop and a registry of its own."""
    registry = Registry(workspace=workspace)
    try:
        return asyncio.run(call(registry.add(thing), **params))
    finally:
        registry.close()


async def call(made: Tool, **params: Any) -> Any:
    return await made(make_call(params))
