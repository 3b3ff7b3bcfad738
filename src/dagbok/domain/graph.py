"""The shape of a plan: who waits for whom, by position, with each algorithm linear in tasks and edges.

Iterative throughout: a chain of 10,000 tasks is an ordinary plan, and deeper than Python's stack.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final

_DIGITS: Final = re.compile(r"([0-9]+)")
_SHORT: Final = 200  # characters: no number in them is slow to read
_RUNS: Final = re.compile(r"[0-9]+|[^0-9]+")  # of digits, and of all else


@dataclass(frozen=True, slots=True)
class Graph:
    """A directed acyclic graph over positions 0..n-1."""

    parents: Sequence[Sequence[int]]
    children: Sequence[Sequence[int]]
    #: Steps on the longest path from here to an end, itself included: what to start first when slots are scarce.
    remaining: Sequence[int]

    def sinks(self) -> list[int]:
        """Return the positions nothing depends on, in order."""
        return [position for position, children in enumerate(self.children) if not children]


def build(parents: Sequence[Sequence[int]]) -> Graph:
    """Return the graph of `parents`, which must hold no cycle (see `cycles`)."""
    children, ordered = _children(parents)
    return _built(parents, children, range(len(parents)) if ordered else topological(parents, children))


def acyclic(parents: Sequence[Sequence[int]]) -> Graph | None:
    """Return the graph of `parents`; None where they hold a cycle."""
    children, ordered = _children(parents)
    order = range(len(parents)) if ordered else topological(parents, children)
    return _built(parents, children, order) if len(order) == len(parents) else None


def _children(parents: Sequence[Sequence[int]]) -> tuple[list[Sequence[int]], bool]:
    """Return who waits for each, and whether each stands behind all that it waits for, as most plans are written.

    Tuples, because lists of one or two are half air.
    """
    found: list[list[int]] = [[] for _ in parents]
    ordered = True
    for position, above in enumerate(parents):
        for parent in above:
            found[parent].append(position)
            if parent >= position:
                ordered = False
    return [tuple(below) for below in found], ordered


def _built(parents: Sequence[Sequence[int]], children: Sequence[Sequence[int]], order: Sequence[int]) -> Graph:
    remaining = [1] * len(parents)
    for position in reversed(order):
        longest = remaining[position]
        for child in children[position]:
            if remaining[child] >= longest:
                longest = remaining[child] + 1
        remaining[position] = longest
    return Graph(parents, children, remaining)


def cycles(parents: Sequence[Sequence[int]]) -> list[list[int]]:
    """Return the members of each cycle from its lowest on, each waiting for the one before; empty for a DAG.

    One cycle is named per strongly connected component: mending it shows the next.
    """
    left = set(range(len(parents))).difference(topological(parents, _children(parents)[0]))
    found: list[list[int]] = []
    for start, component in _components(parents, left):
        # Each member has a parent in its own component, so walking up from anywhere ends in a cycle.
        trail: dict[int, int] = {}
        at = start
        while at not in trail:
            trail[at] = len(trail)
            at = next(parent for parent in parents[at] if parent in component)
        cycle = list(trail)[trail[at] :][::-1]
        lowest = cycle.index(min(cycle))
        found.append(cycle[lowest:] + cycle[:lowest])
    return found


def _components(parents: Sequence[Sequence[int]], left: set[int]) -> list[tuple[int, set[int]]]:
    """Return the strongly connected components of `left` that hold a cycle, each with its lowest member, in that order.

    Tarjan, "Depth-first search and linear graph algorithms", 1972, without recursion.
    """
    number: dict[int, int] = {}
    lowest: dict[int, int] = {}
    trail: list[int] = []  # visited, and not yet in a component
    placed: set[int] = set()
    found: list[tuple[int, set[int]]] = []
    for root in sorted(left):
        if root in number:
            continue
        calls = [(root, iter(parents[root]))]
        number[root] = lowest[root] = len(number)
        trail.append(root)
        while calls:
            at, above = calls[-1]
            for parent in above:
                if parent not in left or parent in placed:
                    continue
                if parent not in number:
                    number[parent] = lowest[parent] = len(number)
                    trail.append(parent)
                    calls.append((parent, iter(parents[parent])))
                    break
                lowest[at] = min(lowest[at], number[parent])
            else:
                calls.pop()
                if calls:
                    lowest[calls[-1][0]] = min(lowest[calls[-1][0]], lowest[at])
                if lowest[at] == number[at]:
                    component = {at}
                    while (member := trail.pop()) != at:
                        component.add(member)
                    placed |= component
                    if len(component) > 1 or at in parents[at]:
                        found.append((min(component), component))
    return sorted(found, key=lambda pair: pair[0])


def topological(parents: Sequence[Sequence[int]], children: Sequence[Sequence[int]]) -> list[int]:
    """Return the positions, each behind all that it waits for; those within or behind a cycle are left out."""
    unmet = [len(above) for above in parents]
    order = [position for position, count in enumerate(unmet) if not count]
    for position in order:  # grows while it is read
        for child in children[position]:
            unmet[child] -= 1
            if not unmet[child]:
                order.append(child)
    return order


def natural(ids: Iterable[str]) -> list[int]:
    """Return for each id its rank in natural order: 2 before 10, "a2" before "a10"."""
    keys = _natural_keys(list(ids))
    order = sorted(range(len(keys)), key=keys.__getitem__)  # which keeps equals in their order
    ranks = [0] * len(keys)
    for rank, position in enumerate(order):
        ranks[position] = rank
    return ranks


def _natural_keys(ids: list[str]) -> list[Any]:
    """Return for each id what sorts it among these."""
    if max(map(len, ids), default=0) > _SHORT:
        return list(map(natural_key, ids))
    together = "".join(ids)
    if together.isascii() and together.isdigit() and all(ids):
        return list(map(int, ids))
    keys: list[list[Any]] = list(map(_DIGITS.split, ids))  # texts and runs of digits in turns, a text first
    for key in keys:
        key[1::2] = map(int, key[1::2])
    return keys


def natural_key(text: str) -> tuple[tuple[int, int, str], ...]:
    """Return a sort key that compares runs of digits as numbers."""
    return tuple(map(_part, _RUNS.findall(text)))


def _part(run: str) -> tuple[int, int, str]:
    # Compared by length first, so that an id of 5,000 digits needs no conversion.
    digits = run.lstrip("0") or "0"
    return (0, len(digits), digits) if "0" <= run[0] <= "9" else (1, 0, run)
