"""The shape of a plan: who waits for whom, by position, with each algorithm linear in tasks and edges.

Iterative throughout: a chain of 10,000 tasks is an ordinary plan, and deeper than Python's stack.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass


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
    children: list[list[int]] = [[] for _ in parents]
    for position, above in enumerate(parents):
        for parent in above:
            children[parent].append(position)
    remaining = [1] * len(parents)
    for position in reversed(_topological(parents, children)):
        for child in children[position]:
            if remaining[child] >= remaining[position]:
                remaining[position] = remaining[child] + 1
    return Graph(parents, children, remaining)


def cycles(parents: Sequence[Sequence[int]]) -> list[list[int]]:
    """Return the members of each cycle, in the order they wait for each other; empty for a DAG.

    One cycle is named per strongly connected component: mending it shows the next.
    """
    children: list[list[int]] = [[] for _ in parents]
    for position, above in enumerate(parents):
        for parent in above:
            children[parent].append(position)
    left = set(range(len(parents))).difference(_topological(parents, children))
    # What is left has an unmet parent that is left too, so walking up from anywhere ends in a cycle.
    found: list[list[int]] = []
    done: set[int] = set()
    for start in sorted(left):
        trail: dict[int, int] = {}
        at: int | None = start
        while at is not None and at not in done and at not in trail:
            trail[at] = len(trail)
            at = next((parent for parent in parents[at] if parent in left), None)
        if at is not None and at in trail:
            found.append(list(trail)[trail[at] :][::-1])
        done.update(trail)
    return found


def _topological(parents: Sequence[Sequence[int]], children: Sequence[Sequence[int]]) -> list[int]:
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
    listed = list(ids)
    order = sorted(range(len(listed)), key=lambda position: (natural_key(listed[position]), position))
    ranks = [0] * len(listed)
    for rank, position in enumerate(order):
        ranks[position] = rank
    return ranks


def natural_key(text: str) -> tuple[tuple[int, int, str], ...]:
    """Return a sort key that compares runs of digits as numbers."""
    parts: list[tuple[int, int, str]] = []
    run = ""
    for char in text:
        digit = "0" <= char <= "9"
        if run and digit != ("0" <= run[-1] <= "9"):
            parts.append(_part(run))
            run = ""
        run += char
    if run:
        parts.append(_part(run))
    return tuple(parts)


def _part(run: str) -> tuple[int, int, str]:
    # Compared by length first, so that an id of 5,000 digits needs no conversion.
    digits = run.lstrip("0") or "0"
    return (0, len(digits), digits) if "0" <= run[0] <= "9" else (1, 0, run)
