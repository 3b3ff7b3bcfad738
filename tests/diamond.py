"""A diamond of sub-tasks, and a tool that fails those that are broken: for tests of what runs again or does not."""

from __future__ import annotations

from collections import Counter
from typing import Any

import laws
from dagbok import Dagbok
from dagbok.domain.call import Call
from dagbok.errors import ToolError
from dagbok.service import Submitted
from dagbok.store.database import Database
from dagbok.testing import ScriptedTool


def task(id: str, *after: str, tool: str = "work", **more: Any) -> dict[str, Any]:
    params = more.pop("params", {})
    return {"id": id, "tool_or_prompt": {"name": tool, "params": params}, "dependencies": list(after), **more}


def plan(*tasks: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"original_request": "r", "intent": {"primary": "p"}, "sub_tasks": list(tasks), **more}


DIAMOND = (task("a"), task("b", "a"), task("c", "a"), task("d", "b", "c"))


class Tool:
    """Fails the tasks that are broken, and keeps a log of its own."""

    def __init__(self, effect: Any = "once", *broken: str, name: str = "work") -> None:
        self.broken = set(broken)
        self.log: Counter[str] = Counter()
        self.given: list[Any] = []
        self.tool = ScriptedTool(name, self._body, effect=effect)

    def _body(self, call: Call) -> Any:
        self.log[call.task_id] += 1
        self.given.append((call.task_id, dict(call.params)))
        if call.task_id in self.broken:
            raise ToolError("it is broken", code="tool_error", sent=False)
        return call.params.get("value", {"value": call.task_id})


async def submit(dagbok: Dagbok, document: dict[str, Any], **more: Any) -> str:
    submitted = await dagbok.submit(document, **more)
    assert isinstance(submitted, Submitted)
    return submitted.execution_id


def sound(database_url: str) -> None:
    database = Database.open(database_url)
    faults = [fault for written in laws.read(database).values() for fault in laws.broken(written)]
    database.close()
    assert faults == []
