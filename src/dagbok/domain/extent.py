"""How far the references of a JSON Schema lead: what each one names, and that following them all comes to an end.

A few lines of references to references make a schema with more places than any processor gets through, and one that
refers to itself without going into the instance is never done.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Final
from urllib.parse import unquote

NAMED: Final = ("properties", "$defs", "definitions", "dependentSchemas")  # keywords whose keys are names
VALUES: Final = ("enum", "const", "examples", "default")  # keywords that hold values, and no schemas
REFERENCES: Final = ("$ref", "$dynamicRef", "$recursiveRef")
#: Schemas within a schema, each counted as often as a reference leads to it; a recursion is counted once.
MOST: Final = 10_000
_DEEPEST = 200  # of schemas in schemas, references followed
_IN_PLACE = ("allOf", "anyOf", "oneOf", "not", "if", "then", "else", "dependentSchemas")
_DEFINITIONS = ("$defs", "definitions")  # apply only where they are referred to

_Edges = Callable[[dict[str, Any]], Iterator[Any]]


def target(schema: dict[str, Any], reference: object) -> dict[str, Any] | bool | None:
    """Return the schema that a reference names; None if it leads elsewhere, or to what is no schema."""
    if not isinstance(reference, str) or not (reference == "#" or reference.startswith("#/")):
        return None
    at: Any = schema
    names = False  # the keys of `at` are names, and no keywords
    for part in unquote(reference).split("/")[1:]:  # unquoted as a whole, as the validator does
        name = part.replace("~1", "/").replace("~0", "~")
        if isinstance(at, dict) and name in at and (names or name not in VALUES):
            at, names = at[name], not names and name in NAMED
        elif isinstance(at, list) and name.isdecimal() and int(name) < len(at):
            at = at[int(name)]
        else:
            return None
    return at if isinstance(at, dict | bool) and not names else None


def fault(schema: dict[str, Any]) -> str | None:
    """Return why `schema`, whose references all have a target, has no end or a far one; None if it has a near one."""

    def referred(item: dict[str, Any]) -> Iterator[Any]:
        return (target(schema, item[key]) for key in REFERENCES if key in item)

    def in_place(item: dict[str, Any]) -> Iterator[Any]:
        yield from referred(item)
        for key in _IN_PLACE:
            yield from _below(key, item.get(key))

    def everywhere(item: dict[str, Any]) -> Iterator[Any]:
        yield from referred(item)
        for key, child in item.items():
            if key not in (*VALUES, *_DEFINITIONS):
                yield from _below(key, child)

    nodes: dict[int, dict[str, Any]] = {}
    try:
        if _count(schema, everywhere, nodes, {}, may_turn=True) > MOST:
            return f"its references make more than {MOST:,} schemas of it"
        counts: dict[int, int] = {}
        for node in list(nodes.values()):
            _count(node, in_place, {}, counts, may_turn=False)
    except _TooFarError as exc:
        return str(exc)
    return None


class _TooFarError(Exception):
    pass


def _count(
    node: Any,
    edges: _Edges,
    opened: dict[int, dict[str, Any]],
    counts: dict[int, int],
    *,
    may_turn: bool,
    depth: int = 0,
) -> int:
    """Return how many schemas are reached from `node`; each is looked at once. `opened` gets all of them."""
    if not isinstance(node, dict):
        return 1
    if (known := counts.get(id(node))) is not None:
        return known
    if id(node) in opened:
        if not may_turn:
            raise _TooFarError("it refers to itself without going into the value, so it has no end")
        return 1
    if depth > _DEEPEST:
        raise _TooFarError(f"it nests deeper than {_DEEPEST} schemas, with its references followed")
    opened[id(node)] = node
    total = 1 + sum(_count(child, edges, opened, counts, may_turn=may_turn, depth=depth + 1) for child in edges(node))
    counts[id(node)] = total
    return total


def _below(key: str, child: Any) -> Iterator[Any]:
    """Yield the schemas that a keyword holds."""
    if isinstance(child, list):
        yield from (item for item in child if isinstance(item, dict))
    elif isinstance(child, dict):
        yield from child.values() if key in NAMED else (child,)
