"""Fields of a plan that nobody heeds, though they look like some that would be.

A plan keeps what it brings: an unknown field is no problem, and often somebody's own. One that is called nearly as a
known one (`timeoutSeconds`, `retries`) is likely to be a wish, and whoever checks a plan should hear of it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

from dagbok.domain.plan import Plan, SubTask, ToolOrPrompt
from dagbok.domain.validate import Problem
from dagbok.domain.values import Json, pointer_to
from dagbok.domain.wording import nearest

#: Names that are compared; of those beyond, nobody hears. Comparing takes time.
MAX_NAMES: Final = 100


def overlooked(document: Json) -> list[Problem]:
    """Return the fields of a plan that may be misspelt, each with its place; of a plan that `check` finds right."""
    meant: dict[tuple[str, str], str | None] = {}
    found: list[Problem] = []
    for path, shape, given in _objects(document):
        for name in given:
            if name in shape.model_fields:
                continue
            key = (shape.__name__, name)
            if key not in meant and len(meant) < MAX_NAMES:
                meant[key] = nearest(name, shape.model_fields)
            if near := meant.get(key):
                message = f"`{name}` is not known here, and changes nothing. Did you mean {near!r}?"
                found.append(Problem(pointer_to(*path, name), "unknown_field", message))
    return found


def _objects(
    document: Json,
) -> Iterator[tuple[tuple[str | int, ...], type[Plan | SubTask | ToolOrPrompt], Mapping[str, Any]]]:
    yield (), Plan, document
    for position, task in enumerate(document["sub_tasks"]):
        yield ("sub_tasks", position), SubTask, task
        yield ("sub_tasks", position, "tool_or_prompt"), ToolOrPrompt, task["tool_or_prompt"]
