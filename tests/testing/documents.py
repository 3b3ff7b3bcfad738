"""Small plans."""

from __future__ import annotations

from typing import Any


def plan(*tasks: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"original_request": "test", "intent": {"primary": "test"}, "sub_tasks": list(tasks), **more}


def task(id: str, tool: str, *after: str, params: dict[str, Any] | None = None, **more: Any) -> dict[str, Any]:
    """Return a sub-task; `inference` by its action type."""
    return {
        "id": id,
        "action_type": "inference" if tool == "inference" else "tool",
        "tool_or_prompt": {"name": tool, "params": params or {}},
        "dependencies": list(after),
        **more,
    }
