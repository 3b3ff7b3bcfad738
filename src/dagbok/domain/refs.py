"""References: how the params of one sub-task hold the results of others.

    "<Result from Task 1>"                         the result of 1, with its JSON type
    "Compare: <Results from Tasks 1, 2>"           inside a longer string: as text
    "{{ tasks.1.result.items[0].url }}"            a part of it; the path is JMESPath
    "{{ tasks['fetch page'].result | length(@) }}" ids that are not plain words go in quotes

A string that is one reference keeps the JSON type of the result (several tasks: a list, in the order named); inside a
longer string a result becomes text (JSON for what is no string). Results are inserted once and never read for
references again: what a web page says can not make a plan read another result.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import jmespath
from jmespath.exceptions import JMESPathError

from dagbok.domain.ids import TaskId
from dagbok.domain.values import Json, as_text
from dagbok.errors import BadReference, TooLarge

_REFERENCE = re.compile(
    r"<\s*results?\s+(?:from|of)\s+(?:sub-?)?tasks?\s*:?\s+(?P<ids>[^<>{}]+?)\s*>"
    r"|\{\{\s*tasks(?:\.(?P<word>[\w-]+)|\[\s*(?P<quote>['\"])(?P<quoted>.+?)(?P=quote)\s*\])\.result(?P<path>.*?)\s*\}\}",
    re.IGNORECASE | re.DOTALL,
)
_SEPARATOR = re.compile(r"\s*(?:,\s*and\b|,|;|&|\band\b)\s*", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Reference:
    """One reference inside a string."""

    tasks: tuple[TaskId, ...]  # at least one, in the order named
    path: str  # JMESPath, "" for the whole result
    several: bool  # spelled for several tasks: its value is a list
    start: int  # where it stands in the string
    end: int

    def value(self, results: Mapping[TaskId, Json]) -> Json:
        """Return what the reference stands for.

        Raises:
            BadReference: The JMESPath expression cannot be read or applied.
        """
        values = [results[task] for task in self.tasks]
        value = values if self.several else values[0]
        return _search(self.path, value) if self.path else value


def find(text: str) -> list[Reference]:
    """Return the references of a string, in order.

    Raises:
        BadReference: A path is no JMESPath.
    """
    if "<" not in text and "{{" not in text:
        return []
    found: list[Reference] = []
    for match in _REFERENCE.finditer(text):
        if match["ids"] is not None:
            ids = tuple(TaskId(part.strip("'\"# ")) for part in _SEPARATOR.split(match["ids"]) if part.strip("'\"# "))
            path = ""
        else:
            ids = (TaskId(match["word"] or match["quoted"]),)
            path = match["path"].strip().removeprefix(".")
            path = f"@{path}" if path.startswith(("|", "[")) else path
            _compile(path)
        if ids:
            found.append(Reference(ids, path, len(ids) > 1, match.start(), match.end()))
    return found


def walk(params: Json) -> Iterable[tuple[tuple[str | int, ...], str]]:
    """Yield the path and text of every string below `params`; object keys are names, not values."""
    stack: list[tuple[tuple[str | int, ...], Any]] = [((), params)]
    while stack:
        path, item = stack.pop()
        if isinstance(item, str):
            yield path, item
        elif isinstance(item, dict):
            stack.extend(((*path, key), child) for key, child in item.items())
        elif isinstance(item, list):
            stack.extend(((*path, index), child) for index, child in enumerate(item))


def resolve(params: Json, results: Mapping[TaskId, Json], *, max_bytes: int) -> Json:
    """Return `params` with every reference replaced.

    Args:
        params: The params of a sub-task.
        results: The results it may name; None for a task skipped by choice.
        max_bytes: The bound on text that references insert; ten references to one large result are ten copies of it.

    Raises:
        BadReference: A path cannot be applied to the result.
        TooLarge: The references insert more than `max_bytes` characters.
    """
    budget = [max_bytes]

    def replace(item: Json) -> Json:
        if isinstance(item, str):
            return _fill(item, results, budget, max_bytes)
        if isinstance(item, dict):
            return {key: replace(child) for key, child in item.items()}
        if isinstance(item, list):
            return [replace(child) for child in item]
        return item

    return replace(params)


def _fill(text: str, results: Mapping[TaskId, Json], budget: list[int], max_bytes: int) -> Json:
    references = find(text)
    if not references:
        return text
    if len(references) == 1 and text[: references[0].start].strip() == "" == text[references[0].end :].strip():
        return references[0].value(results)
    pieces: list[str] = []
    at = 0
    for reference in references:
        value = reference.value(results)
        inserted = "\n\n".join(map(as_text, value)) if reference.several and not reference.path else as_text(value)
        budget[0] -= len(inserted)
        if budget[0] < 0:
            raise TooLarge(f"The references of the params insert more than {max_bytes:,} characters.", limit=max_bytes)
        pieces += (text[at : reference.start], inserted)
        at = reference.end
    return "".join((*pieces, text[at:]))


def _compile(path: str) -> Any:
    try:
        return jmespath.compile(path) if path else None
    except (JMESPathError, RecursionError) as exc:
        raise BadReference(f"{path!r} is no JMESPath expression: {exc}", path=path) from exc


def _search(path: str, value: Json) -> Json:
    try:
        return _compile(path).search(value)
    except (JMESPathError, TypeError, ValueError, RecursionError) as exc:
        raise BadReference(f"The path {path!r} cannot be applied to the result: {exc}", path=path) from exc
