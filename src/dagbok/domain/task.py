"""A sub-task as the engine keeps it: what of it decides how it runs, and nothing of how it was spelled.

`SubTask` (`dagbok.domain.plan`) takes every spelling and gives back all that was written. That costs two kilobytes and
4 µs each, and a plan may have 100,000. So what is plainly written is read here, in a third of the time; the model reads
the rest, and alone decides what is wrong.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple

from pydantic import ValidationError

from dagbok.domain.ids import TaskId
from dagbok.domain.plan import SubTask
from dagbok.domain.values import Json


class Called(NamedTuple):
    """What a sub-task calls; see `plan.ToolOrPrompt`."""

    name: str
    params: Mapping[str, Any]  # shared with others, so never changed


class Task(NamedTuple):
    """The fields of `plan.SubTask`; `tool` is what it derives from them."""

    id: TaskId
    tool: str
    tool_or_prompt: Called
    dependencies: Sequence[TaskId] = ()
    description: str = ""
    thought: str = ""
    action_type: str = "tool"
    expected_output: str | Mapping[str, Any] = ""
    retry: Mapping[str, Any] = {}
    timeout_seconds: float | None = None
    idle_timeout_seconds: float | None = None
    on_failure: str = "fail"
    on_timeout: str = "fail"
    default: Json = None
    requires_approval: bool = False


def task_of(model: SubTask) -> Task:
    """Return what decides of a sub-task."""
    call = model.tool_or_prompt
    return Task(
        model.id, model.tool, Called(call.name, call.params), tuple(model.dependencies), model.description,
        model.thought, model.action_type, model.expected_output, model.retry, model.timeout_seconds,
        model.idle_timeout_seconds, model.on_failure, model.on_timeout, model.default, model.requires_approval,
    )  # fmt: skip


def read_task(item: Json) -> Task:
    """Return the sub-task of a document. Raises Pydantic's ValidationError."""
    return Reading().plain(item) or task_of(SubTask.model_validate(item))


class Reading:
    """Reads the sub-tasks of one document, which is JSON as `dagbok.domain.values` has it.

    Equal ids become one string, and calls of one tool without params one `Called`.
    """

    def __init__(self) -> None:
        self._ids: dict[str | int, TaskId] = {}  # as spelled; none that says "none"
        self._bare: dict[str, Called] = {}  # by tool

    def all(self, items: Sequence[Json]) -> list[Task | None]:
        """Return each sub-task; None for one that cannot be read."""
        return [self.plain(item) or _by_the_model(item) for item in items]

    def plain(self, item: Json) -> Task | None:
        """Return a sub-task as the model would read it; None where only the model can tell."""
        if type(item) is not dict:
            return None
        id, call = self._id(item.get("id")), self._called(item.get("tool_or_prompt"))
        if id is None or call is None:
            return None
        dependencies = self._dependencies(item.get("dependencies"))
        if dependencies is None:
            return None
        if len(item) == (3 if "dependencies" in item else 2):
            return Task(id, call.name, call, dependencies)
        if not _RARE.isdisjoint(item):
            return None
        description, thought, expected = item.get("description"), item.get("thought"), item.get("expected_output")
        action = item.get("action_type", "tool")
        if not (_is_text(description) and _is_text(thought) and type(action) is str and action in _ACTIONS):
            return None
        if not _is_text(expected) and type(expected) is not dict:
            return None
        tool = call.name if action == "tool" else action
        expected = "" if expected is None else expected
        return Task(id, tool, call, dependencies, description or "", thought or "", action, expected)

    def _id(self, value: Json) -> TaskId | None:
        if type(value) is not str and type(value) is not int:  # `True` is 1, also to a dict
            return None
        id = self._ids.get(value)
        if id is None:
            id = TaskId(str(value))
            if id is value and not _ID.fullmatch(id):  # a number is an id
                return None
            id = self._ids[value] = self._ids.setdefault(id, id)
        return id

    def _dependencies(self, value: Json) -> Sequence[TaskId] | None:
        if not value:
            return () if value is None or value == [] else None
        if type(value) is not list:
            return None
        if len(value) == 1:
            id = self._id(value[0])
            return None if id is None else (id,)
        if not _SPELLINGS.issuperset(map(type, value)):
            return None
        try:
            return tuple(map(self._ids.__getitem__, value))
        except KeyError:  # one that stands below it in the plan, or nowhere
            found = [self._id(name) for name in value]
            return tuple(name for name in found if name is not None) if None not in found else None

    def _called(self, call: Json) -> Called | None:
        if type(call) is not dict:
            return None
        name, params = call.get("name"), call.get("params")
        if type(name) is not str:
            return None
        if not params:
            if params is not None and params != {}:
                return None
            if (known := self._bare.get(name)) is not None:
                return known
        if not 1 <= len(name) <= 200:
            return None
        if params:
            return Called(name, params) if type(params) is dict else None
        return self._bare.setdefault(name, Called(name, {}))


# What an id is plainly spelled as; to a dict, 1, 1.0 and true are one key.
_SPELLINGS: Final = frozenset({str, int})
# As `plan.Id` has it, without the spaces around it that the model takes off, and without "none" (`plan.says_none`).
_ID: Final = re.compile(r"(?!\s|(?i:none)\Z)[^\x00-\x1f\x7f/<>{}]{1,200}(?<!\s)")
_ACTIONS: Final = frozenset({"tool", "inference", "human"})
_RARE: Final = SubTask.model_fields.keys() - {
    "id", "tool_or_prompt", "dependencies", "description", "thought", "action_type", "expected_output"
}  # fmt: skip


def _is_text(value: Json) -> bool:
    return value is None or type(value) is str


def _by_the_model(item: Json) -> Task | None:
    try:
        return task_of(SubTask.model_validate(item))
    except ValidationError:
        return None
