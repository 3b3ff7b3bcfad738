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

from dagbok.domain import expressions
from dagbok.domain.ids import TaskId
from dagbok.domain.values import Json, as_text, encode
from dagbok.errors import BadReference, NotJson, TooLarge

# Possessive (`++`) and bounded, because params are text from outside: each character is looked at a bounded number of
# times, whatever a hostile megabyte repeats.
_REFERENCE = re.compile(
    r"<\s*+results?\s++(?:from|of)\s++(?:sub-?)?tasks?(?:\s*+:\s*+|\s++)(?P<ids>[^<>{}]++)>"
    r"|\{\{\s*+tasks(?:\.(?P<word>[\w-]++)|\[\s*+(?P<quote>['\"])(?P<quoted>[^<>{}]{1,200}?)(?P=quote)\s{0,9}+\])"
    r"\.result(?P<more>[\w-]*+)",
    re.IGNORECASE,
)
_SEPARATOR = re.compile(r",\s*+and\b|[,;&]|\band\b", re.IGNORECASE)
# What decides where a path ends: strings and literals are skipped, braces counted. None spans the start of another
# reference, which keeps a string of unclosed ones linear.
_IN_PATH = re.compile(
    "|".join(rf"{q}(?:[^{q}\\{{]|\\[^{{]|\{{(?!\{{))*+{q}" for q in "'\"`") + r"|\{\{|\}\}|[{}]", re.DOTALL
)

#: Keys and indexes, from the params down.
Path = tuple[str | int, ...]


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
            BadReference, TooLarge: See `expressions.search`.
        """
        values = [results[task] for task in self.tasks]
        value = values if self.several else values[0]
        return expressions.search(self.path, value) if self.path else value


def find(text: str) -> list[Reference]:
    """Return the references of a string, in order.

    Raises:
        BadReference: A path is no JMESPath.
    """
    if "<" not in text and "{{" not in text:
        return []
    found: list[Reference] = []
    at = 0
    while match := _REFERENCE.search(text, at):
        at = match.end()
        path = ""
        if match["ids"] is not None:
            names = (part.strip().strip("'\"# ") for part in _SEPARATOR.split(match["ids"]))
            ids = tuple(TaskId(name) for name in names if name)
        elif (closing := _closing(text, at)) is None:
            continue
        else:
            ids = (TaskId(match["word"] or match["quoted"]),)
            path, at = _path(text[at:closing], match["more"]), closing + 2
        if ids:
            found.append(Reference(ids, path, len(ids) > 1, match.start(), at))
    return found


def _closing(text: str, start: int) -> int | None:
    """Return where the `}}` of a reference stands whose path begins at `start`."""
    depth, at = 0, start
    end = len(text)
    while match := _IN_PATH.search(text, at):
        sign, at = match[0], match.end()
        if sign == "{{":
            end = match.start()
            break
        if sign == "{":
            depth += 1
        elif sign[0] == "}" and depth:
            depth, at = depth - 1, match.start() + 1
        elif sign == "}}":
            return match.start()
    closing = text.find("}}", start, end)  # quotes or braces that do not match: no path, as the parser will say
    return None if closing < 0 else closing


def _path(text: str, more: str) -> str:
    if more:
        raise BadReference(
            f"'.result{more}' is no part of a task; a reference reads {{{{ tasks.ID.result }}}}.", path=more
        )
    path = text.strip().removeprefix(".")
    path = f"@ {path}" if path.startswith("|") else path
    if path:
        expressions.compile_path(path)
    return path


def walk(params: Json) -> Iterable[tuple[Path, str]]:
    """Yield the path and text of every string below `params`; object keys are names, not values."""
    stack: list[tuple[Path, Any]] = [((), params)]
    while stack:
        path, item = stack.pop()
        if isinstance(item, str):
            yield path, item
        elif isinstance(item, dict):
            stack.extend(((*path, key), child) for key, child in item.items())
        elif isinstance(item, list):
            stack.extend(((*path, index), child) for index, child in enumerate(item))


def named(params: Json) -> list[TaskId]:
    """Return the tasks that `params` refers to, each once, in order of appearance per string.

    Raises:
        BadReference: A path is no JMESPath.
    """
    if not may_refer(params):
        return []
    return list(dict.fromkeys(task for _, text in walk(params) for ref in find(text) for task in ref.tasks))


def refers(params: Json) -> bool:
    """Whether `params` refer to a task at all. Raises as `named`, or finds a reference first."""
    return may_refer(params) and any(ref.tasks for _, text in walk(params) for ref in find(text))


def may_refer(params: Json) -> bool:
    """Whether a string below `params` has a sign of a reference, which costs less than to look for one."""
    if isinstance(params, str):
        return "<" in params or "{{" in params
    if isinstance(params, dict):
        return any(map(may_refer, params.values()))
    return isinstance(params, list) and any(map(may_refer, params))


def resolve(params: Json, results: Mapping[TaskId, Json], *, max_bytes: int) -> Json:
    """Return `params` with every reference replaced.

    Args:
        params: The params of a sub-task.
        results: The results it may name; None for a task skipped by choice.
        max_bytes: The bound on what references insert; ten references to one large result are ten copies of it.

    Raises:
        BadReference: A path cannot be applied to the result, or what it gives is no JSON.
        TooLarge: The references insert more than about `max_bytes` of JSON.
    """
    budget = _Budget(max_bytes)

    def replace(item: Json) -> Json:
        if isinstance(item, str):
            return _fill(item, results, budget)
        if isinstance(item, dict):
            return {key: replace(child) for key, child in item.items()}
        if isinstance(item, list):
            return [replace(child) for child in item]
        return item

    return replace(params)


class _Budget:
    """How much references may still insert, counted before it is copied."""

    def __init__(self, max_bytes: int) -> None:
        self.max_bytes = max_bytes
        self._left = max_bytes
        self._sizes: dict[int, int] = {}  # of whole results, by identity: they live in `results` as long as this

    def spend(self, size: int) -> None:
        self._left -= size
        if self._left < 0:
            message = f"The references of the params insert more than {self.max_bytes:,} bytes."
            raise TooLarge(message, limit=self.max_bytes)

    def spend_result(self, value: Json) -> None:
        size = self._sizes.get(id(value))
        if size is None:
            size = self._sizes[id(value)] = len(value) if isinstance(value, str) else len(encode(value))
        self.spend(size)

    def spend_path(self, value: Json) -> None:
        """Spend what a path gave. It may hold one thing many times over (`[@, @] | [@, @] | ...`), so stop in time."""
        stack = [value]
        while stack:
            item = stack.pop()
            if isinstance(item, dict):
                self.spend(2 + sum(len(key) + 4 for key in item))
                stack.extend(item.values())
            elif isinstance(item, list):
                self.spend(2 + len(item))
                stack.extend(item)
            else:
                self.spend(len(item) + 2 if isinstance(item, str) else 1)


def _fill(text: str, results: Mapping[TaskId, Json], budget: _Budget) -> Json:
    references = find(text)
    if not references:
        return text
    if len(references) == 1 and text[: references[0].start].strip() == "" == text[references[0].end :].strip():
        return _value(references[0], results, budget)
    pieces: list[str] = []
    at = 0
    for reference in references:
        value = _value(reference, results, budget)
        inserted = "\n\n".join(map(as_text, value)) if reference.several and not reference.path else as_text(value)
        pieces += (text[at : reference.start], inserted)
        at = reference.end
    return "".join((*pieces, text[at:]))


def _value(reference: Reference, results: Mapping[TaskId, Json], budget: _Budget) -> Json:
    if not reference.path:
        for task in reference.tasks:
            budget.spend_result(results[task])
        return reference.value(results)
    value = reference.value(results)
    budget.spend_path(value)
    try:
        encode(value)
    except NotJson as exc:
        message = f"The path {reference.path!r} gives what is not JSON. {exc.message}"
        raise BadReference(message, path=reference.path) from exc
    return value
