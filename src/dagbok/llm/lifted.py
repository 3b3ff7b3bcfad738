"""Takes long results out of the params again, so that data stands among the results and not among the instructions.

The engine replaces references before a tool sees its params: "Summarise <Result from Task 1>" arrives with a whole web
page in the middle of it. A model should read the page as data, once, and the instructions as instructions. The plan
still holds the reference, so what was inserted is known exactly; nothing is guessed from the text.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import orjson

from dagbok.domain.ids import TaskId
from dagbok.domain.refs import Reference, find
from dagbok.domain.values import Json
from dagbok.errors import BadReference

INLINE_CHARS = 500  #: what a reference inserts stays in place up to this length


@dataclass(frozen=True, slots=True)
class Part:
    """A piece of a result that the params ask for by a path."""

    tasks: tuple[TaskId, ...]
    path: str
    value: Json


def text_of(value: Json) -> str:
    """Return what `dagbok.domain.values.as_text` returns, without its check: results and params have passed it."""
    return value if isinstance(value, str) else orjson.dumps(value).decode()


def lift(original: Json, resolved: Json, results: Mapping[TaskId, Json]) -> tuple[Json, list[Part]]:
    """Return `resolved` with each long inserted result replaced by a remark, and the parts that are no whole result.

    Where `resolved` is not what the references of `original` give (somebody has overridden the params), it stays as
    it is.
    """
    parts: dict[tuple[tuple[TaskId, ...], str], Part] = {}
    return _lift(original, resolved, results, parts), list(parts.values())


_Parts = dict[tuple[tuple[TaskId, ...], str], Part]


def _lift(original: Json, resolved: Json, results: Mapping[TaskId, Json], parts: _Parts) -> Json:
    if isinstance(original, str):
        try:
            return _lift_text(original, resolved, results, parts)
        except (BadReference, KeyError):  # not the plan's own text any more
            return resolved
    if isinstance(original, dict) and isinstance(resolved, dict):
        return {key: _lift(original.get(key), value, results, parts) for key, value in resolved.items()}
    if isinstance(original, list) and isinstance(resolved, list) and len(original) == len(resolved):
        return [_lift(was, value, results, parts) for was, value in zip(original, resolved, strict=True)]
    return resolved


def _lift_text(original: str, resolved: Json, results: Mapping[TaskId, Json], parts: _Parts) -> Json:
    references = find(original)
    if not references:
        return resolved
    if len(references) == 1 and original[: references[0].start].strip() == "" == original[references[0].end :].strip():
        value = references[0].value(results)
        if value != resolved or len(text_of(value)) <= INLINE_CHARS:
            return resolved
        return _remark(references[0], value, parts)
    if not isinstance(resolved, str):
        return resolved
    pieces: list[str] = []
    found: _Parts = {}
    at = read = 0
    for reference in references:
        value = reference.value(results)
        inserted = "\n\n".join(map(text_of, value)) if reference.several and not reference.path else text_of(value)
        before = original[at : reference.start]
        if not (resolved.startswith(before, read) and resolved.startswith(inserted, read + len(before))):
            return resolved
        pieces += (before, inserted if len(inserted) <= INLINE_CHARS else _remark(reference, value, found))
        read += len(before) + len(inserted)
        at = reference.end
    if resolved[read:] != original[at:]:
        return resolved
    parts.update(found)
    return "".join((*pieces, original[at:]))


def _remark(reference: Reference, value: Json, parts: _Parts) -> str:
    names = ", ".join(reference.tasks)
    whole = f"the results of tasks {names}" if reference.several else f"the result of task {names}"
    if not reference.path:
        return f"[{whole}, given below]"
    parts.setdefault((reference.tasks, reference.path), Part(reference.tasks, reference.path, value))
    return f"[{reference.path} of {whole}, given below]"
