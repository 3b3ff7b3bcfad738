"""The order of the nodes within each layer, such that few lines cross.

Barycenter sweeps (Sugiyama, Tagawa, Toda, "Methods for visual understanding of hierarchical system structures", 1981)
from two beginnings, the order given and the order of a depth-first walk; the best order seen is kept, so the result is
never worse than the one given. All of it is bounded: sweeps stop once they bring nothing, and large graphs get fewer.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from typing import Final

Layers = list[list[int]]
Neighbours = Sequence[Sequence[int]]

#: Sweeps from each beginning, at most, and without bringing anything.
_SWEEPS: Final = 12
_PATIENCE: Final = 2
#: Lines from which on only the better beginning is swept.
_LARGE: Final = 500
#: Lines looked at by all sweeps together; beyond, there are fewer of them.
_WORK: Final = 200_000
#: Comparisons of two neighbours in a layer that may be exchanged.
_SWITCHES: Final = 3_000


def order(layers: Layers, up: Neighbours, down: Neighbours) -> Layers:
    """Return the layers with their nodes ordered.

    Args:
        layers: The nodes of each layer, from above.
        up: Of each node those that it hangs on, all in the layer above its own.
        down: Of each node those that hang on it.
    """
    lines = sum(map(len, up)) + 1
    walked = _walked(layers, up, down)
    starts = sorted(((_count(start, down), start) for start in (layers, walked)), key=lambda pair: pair[0])
    fewest, best = starts[0]
    for crossings, start in starts if lines < _LARGE else starts[:1]:
        if not fewest:
            break
        found, crossings = _swept(start, crossings, up, down, sweeps=max(2, min(_SWEEPS, _WORK // lines)))
        if crossings < fewest:
            best, fewest = found, crossings
    best = [layer[:] for layer in best]
    if fewest:
        _switch(best, up, down)
    return best


def count(layers: Sequence[Sequence[int]], down: Neighbours) -> int:
    """Return how many pairs of lines cross between these layers."""
    return _count([list(layer) for layer in layers], down)


def _count(layers: Layers, down: Neighbours) -> int:
    place = _places(layers, len(down))
    return sum(_between(layer, down, place) for layer in layers)


def _between(layer: Sequence[int], down: Neighbours, place: list[int]) -> int:
    """Return the crossings below a layer: inversions among the ends of its lines, by insertion into a sorted list."""
    crossings = 0
    ends: list[int] = []
    for node in layer:
        below = down[node]
        if len(below) == 1:
            at = bisect_right(ends, place[below[0]])
            crossings += len(ends) - at
            ends.insert(at, place[below[0]])
            continue
        # From the right, so that lines of one node do not cross each other.
        for end in sorted((place[child] for child in below), reverse=True):
            at = bisect_right(ends, end)
            crossings += len(ends) - at
            ends.insert(at, end)
        if len(below) > 1:
            crossings -= len(below) * (len(below) - 1) // 2
    return crossings


def _places(layers: Layers, size: int) -> list[int]:
    place = [0] * size
    for layer in layers:
        for at, node in enumerate(layer):
            place[node] = at
    return place


def _swept(start: Layers, crossings: int, up: Neighbours, down: Neighbours, *, sweeps: int) -> tuple[Layers, int]:
    """Return the best order that sweeps down and up again come by, and its crossings."""
    layers = [layer[:] for layer in start]
    place = _places(layers, len(up))
    best, fewest, idle = start, crossings, 0
    for sweep in range(sweeps):
        hangs, rows = (up, layers[1:]) if sweep % 2 == 0 else (down, layers[-2::-1])
        for layer in rows:
            keys = {}
            for node in layer:
                near = hangs[node]
                if not near:
                    keys[node] = float(place[node])
                elif len(near) == 1:
                    keys[node] = float(place[near[0]])
                else:
                    keys[node] = sum([place[other] for other in near]) / len(near)
            layer.sort(key=keys.__getitem__)
            for at, node in enumerate(layer):
                place[node] = at
        crossings = sum(_between(layer, down, place) for layer in layers)
        idle += 1
        if crossings < fewest:
            best, fewest, idle = [layer[:] for layer in layers], crossings, 0
        if not fewest or idle > _PATIENCE:
            break
    return best, fewest


def _walked(layers: Layers, up: Neighbours, down: Neighbours) -> Layers:
    """Return each layer in the order in which a depth-first walk from above comes upon its nodes."""
    layer_of = [0] * len(up)
    for number, layer in enumerate(layers):
        for node in layer:
            layer_of[node] = number
    found: Layers = [[] for _ in layers]
    seen = [False] * len(up)
    stack = [node for layer in reversed(layers) for node in reversed(layer) if not up[node]]
    while stack:
        node = stack.pop()
        if not seen[node]:
            seen[node] = True
            found[layer_of[node]].append(node)
            stack += [child for child in reversed(down[node]) if not seen[child]]
    return found


def _switch(layers: Layers, up: Neighbours, down: Neighbours) -> None:
    """Exchange neighbours within layers while that takes crossings away."""
    place = _places(layers, len(up))
    left = _SWITCHES
    changed = True
    while changed and left > 0:
        changed = False
        for layer in layers:
            for at in range(len(layer) - 1):
                one, other = layer[at], layer[at + 1]
                left -= 1
                if left > 0 and _gain(one, other, (up, down), place) > 0:
                    layer[at], layer[at + 1] = other, one
                    place[one], place[other] = at + 1, at
                    changed = True


def _gain(left: int, right: int, sides: Sequence[Neighbours], place: list[int]) -> int:
    """Return how many crossings go away if two neighbours change places."""
    gain = 0
    for side in sides:
        if not side[left] or not side[right]:
            continue
        lefts, rights = sorted(place[n] for n in side[left]), sorted(place[n] for n in side[right])
        for end in lefts:
            # Now `end` crosses the lines of `right` that end before it, then those that end behind it.
            before = bisect_right(rights, end - 1)
            gain += before - (len(rights) - bisect_right(rights, end))
    return gain
