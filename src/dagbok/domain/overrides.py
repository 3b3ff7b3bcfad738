"""What somebody changes about a sub-task of an execution: other params, another tool, another model.

It stands beside the plan, which never changes: `{"params"?, "tool"?, "model"?, "edited"?}`. The last is what somebody
has put in place of the params while approving them: those were resolved, so it is taken as it is. What in it reads like
a reference came from a result, and is none; what reads like a secret is one only where it was one before.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from dagbok.domain import values
from dagbok.domain.task import Called, Task
from dagbok.domain.values import Json

FIELDS: Final = ("params", "tool", "model", "edited")
#: Of larger params the diary keeps the size; the sub-step has them.
TOLD_BYTES: Final = 16 * 1024


def merged(older: Mapping[str, Json], newer: Mapping[str, Json]) -> dict[str, Json]:
    """Return what stands after `newer` was said over `older`. Other fields are dropped.

    Params take the place of all that was said about params before, also of a model. Whatever is new takes the place of
    what somebody has edited: that was the whole of one call, which is not the one that is wanted now, and the new one
    was judged without it.
    """
    gone = ("model", "edited") if "params" in newer else ("edited",)
    both = {**{name: part for name, part in older.items() if name not in gone}, **newer}
    return {name: both[name] for name in FIELDS if name in both}


def told(said: Mapping[str, Json]) -> dict[str, Json]:
    """Return what the diary tells of an override."""
    kept = {name: said[name] for name in FIELDS if name in said}
    for name in ("params", "edited"):
        if name in kept and (size := len(values.encode(kept[name]).encode())) > TOLD_BYTES:
            del kept[name]
            kept[f"{name}Bytes"] = size
    return kept


def apply(task: Task, override: Mapping[str, Json]) -> Task:
    """Return the sub-task as it is called now.

    Args:
        task: As the plan has it.
        override: `params` in place of its params, `tool` of the name of its tool; `model` is the param `model`,
            whatever these say; `edited` stands over both.
    """
    call = task.tool_or_prompt
    name = override.get("tool", call.name)
    tool = name if task.action_type == "tool" else task.tool
    return task._replace(tool=tool, tool_or_prompt=Called(name, params(call.params, override)))


def params(planned: Mapping[str, Json], override: Mapping[str, Json]) -> dict[str, Json]:
    """Return the params that stand in place of those of the plan, as `apply` says."""
    if "edited" in override:
        return dict(override["edited"])
    said = dict(override.get("params", planned))
    return {**said, "model": override["model"]} if "model" in override else said
