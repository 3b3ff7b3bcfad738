"""Where the boxes and lines of a graph go: in layers, each box below all that it hangs on.

The method of Sugiyama: layers by the longest path, boxes moved down where that shortens lines, long lines broken by one
bend a layer, few crossings (`dagbok.domain.crossings`), then x coordinates by which lines are short and long ones
straight: in each layer the least squares that keep order and distances, which is an isotonic regression (pool adjacent
violators; Barlow et al., "Statistical inference under order restrictions", 1972). Parts that hang together by no line
stand beside each other.

The same graph gives the same picture, to the unit; there is no chance in it, and no float in what comes back. Time and
memory are bounded in nodes and lines: where lines had more than `MAX_BENDS` bends in all, the longest go straight from
box to box.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import floor
from typing import Final, NamedTuple

from dagbok.domain import crossings, graph

#: Bends of one part of a graph; a chain of which each task needs the first would have millions.
MAX_BENDS: Final = 20_000
#: Passes over all layers that place boxes under and above what they hang on: two of these, more where nodes are few.
_PASSES: Final = 3
_MANY_PASSES: Final = 8
_FEW_NODES: Final = 2_000
#: How much straighter a line is kept between two of its bends, and at its ends.
_STRAIGHT: Final = (1.0, 2.0, 8.0)
#: The weight of a place that nothing asks for.
_IDLE: Final = 0.01


#: What a node hangs on, each with the weight of that line.
_Pull = list[tuple[int, float]]


class Box(NamedTuple):
    """A rectangle by its upper left corner; y grows downwards."""

    x: int
    y: int
    width: int
    height: int


class Line(NamedTuple):
    """From the bottom of a box to the top of another, through the points between."""

    source: int
    target: int
    points: tuple[tuple[int, int], ...]


class Spacing(NamedTuple):
    """Distances: between boxes of a layer, between layers, between bends, between parts."""

    across: int = 24
    down: int = 48
    bend: int = 12
    parts: int = 48


@dataclass(frozen=True, slots=True)
class Layout:
    """A drawn graph, its upper left corner at 0, 0."""

    boxes: Sequence[Box]  #: by position
    layers: Sequence[int]  #: of each position, 0 at the top of its part
    lines: Sequence[Line]  #: by target, then source
    width: int
    height: int


def arrange(parents: Sequence[Sequence[int]], sizes: Sequence[tuple[int, int]], spacing: Spacing) -> Layout:
    """Return where everything goes.

    Args:
        parents: Of each position those it hangs on; no cycle, none twice.
        sizes: Width and height of each box.
        spacing: The distances.
    """
    boxes: list[Box] = [Box(0, 0, 0, 0)] * len(parents)
    layers = [0] * len(parents)
    lines: list[Line] = []
    parts = []
    for members in parts_of(parents):
        index = {member: at for at, member in enumerate(members)}
        inner = [sorted(index[parent] for parent in parents[member]) for member in members]
        parts.append((members, _Part(inner, [sizes[member] for member in members], spacing)))
    corners, width, height = _shelved([(part.width, part.height) for _, part in parts], spacing)
    for (members, part), (x, y) in zip(parts, corners, strict=True):
        for member, box, layer in zip(members, part.boxes, part.layer_of, strict=False):
            boxes[member] = box._replace(x=box.x + x, y=box.y + y)
            layers[member] = layer
        for source, target, points in part.lines:
            moved = tuple((px + x, py + y) for px, py in points)
            lines.append(Line(members[source], members[target], moved))
    lines.sort(key=lambda line: (line.target, line.source))
    return Layout(boxes, layers, lines, width, height)


def parts_of(parents: Sequence[Sequence[int]]) -> list[list[int]]:
    """Return the positions that hang together, each part in order, the part of the first position first."""
    root = list(range(len(parents)))

    def find(at: int) -> int:
        while root[at] != at:
            root[at] = at = root[root[at]]
        return at

    for position, above in enumerate(parents):
        for parent in above:
            one, other = find(position), find(parent)
            root[max(one, other)] = min(one, other)
    found: dict[int, list[int]] = {}
    for position in range(len(parents)):
        found.setdefault(find(position), []).append(position)
    return list(found.values())


def _shelved(sizes: Sequence[tuple[int, int]], spacing: Spacing) -> tuple[list[tuple[int, int]], int, int]:
    """Return the corners of parts that stand beside each other, in rows about twice as wide as all are high."""
    area = sum((width + spacing.parts) * (height + spacing.parts) for width, height in sizes)
    limit = max([int((2 * area) ** 0.5), *(width for width, _ in sizes)])
    corners: list[tuple[int, int]] = []
    x = y = row = right = 0
    for width, height in sizes:
        if x and x + width > limit:
            x, y, row = 0, y + row + spacing.parts, 0
        corners.append((x, y))
        right, row = max(right, x + width), max(row, height)
        x += width + spacing.parts
    return corners, right, y + row


class _Part:
    """One part of a graph while it is laid out. Nodes are the positions, then the bends."""

    def __init__(self, parents: Sequence[Sequence[int]], sizes: Sequence[tuple[int, int]], spacing: Spacing) -> None:
        self._real = len(parents)
        self._spacing = spacing
        self._widths = [width for width, _ in sizes]
        self.layer_of = layered(parents)
        self._up: list[list[int]] = [[] for _ in parents]
        self._down: list[list[int]] = [[] for _ in parents]
        paths, free = self._bend(parents)
        layers: list[list[int]] = [[] for _ in range(max(self.layer_of) + 1)]
        for node, layer in enumerate(self.layer_of):
            layers[layer].append(node)
        self._layers = crossings.order(layers, self._up, self._down)
        heights = [max((sizes[n][1] for n in layer if n < self._real), default=0) for layer in self._layers]
        tops, y = [], 0
        for height in heights:
            tops.append(y)
            y += height + spacing.down
        self.height = y - spacing.down
        x = self._across()
        self.width = max(x[n] + self._width(n) for layer in self._layers for n in layer[-1:])
        self.boxes = [
            Box(x[node], tops[self.layer_of[node]] + (heights[self.layer_of[node]] - height) // 2, width, height)
            for node, (width, height) in enumerate(sizes)
        ]
        self.lines: list[Line] = []
        for path in paths:
            points = []
            for bend in path[1:-1]:
                layer = self.layer_of[bend]
                points += [(x[bend], tops[layer]), (x[bend], tops[layer] + heights[layer])]
            self._add_line(path[0], path[-1], points, tops, heights)
        for source, target in free:
            self._add_line(source, target, [], tops, heights)

    def _add_line(
        self, source: int, target: int, points: list[tuple[int, int]], tops: Sequence[int], heights: Sequence[int]
    ) -> None:
        one, other = self.boxes[source], self.boxes[target]
        start = (one.x + one.width // 2, one.y + one.height)
        end = (other.x + other.width // 2, other.y)
        # Straight out of the layer and into the other: there may be higher boxes beside.
        layer = self.layer_of[source]
        leaves = (start[0], tops[layer] + heights[layer])
        enters = (end[0], tops[self.layer_of[target]])
        self.lines.append(Line(source, target, tuple(dict.fromkeys((start, leaves, *points, enters, end)))))

    def _width(self, node: int) -> int:
        return self._widths[node] if node < self._real else 0

    def _bend(self, parents: Sequence[Sequence[int]]) -> tuple[list[list[int]], list[tuple[int, int]]]:
        """Add a bend for each layer that a line passes; return the lines as paths, and those left without bends."""
        layer_of = self.layer_of
        spans = [
            (layer_of[child] - layer_of[parent], child, parent)
            for child, above in enumerate(parents)
            for parent in above
        ]
        left = MAX_BENDS
        if sum(span for span, _, _ in spans) - len(spans) > left:
            spans.sort()
        paths, free = [], []
        for span, child, parent in spans:
            if span - 1 > left:
                free.append((parent, child))
                continue
            left -= span - 1
            path = [parent]
            for layer in range(layer_of[parent] + 1, layer_of[child]):
                path.append(len(layer_of))
                layer_of.append(layer)
                self._up.append([])
                self._down.append([])
            path.append(child)
            for one, other in pairwise(path):
                self._down[one].append(other)
                self._up[other].append(one)
            paths.append(path)
        return paths, free

    def _across(self) -> list[int]:
        """Return the left edge of each node, the least of them 0."""
        self._halves = [width / 2 for width in self._widths] + [0.0] * (len(self.layer_of) - self._real)
        center = [0.0] * len(self.layer_of)
        offsets: list[list[int]] = []
        for layer in self._layers:
            at, offset = 0, []
            for node, following in zip(layer, [*layer[1:], layer[-1]], strict=True):
                offset.append(at)
                center[node] = at + self._width(node) / 2
                boxes = node < self._real and following < self._real
                at += self._width(node) + (self._spacing.across if boxes else self._spacing.bend)
            offsets.append(offset)
            for node in layer:
                center[node] -= at / 2
        left = [0] * len(center)
        rows = list(zip(self._layers, offsets, strict=True))
        passes = max(_PASSES, min(_MANY_PASSES, _FEW_NODES // len(center)))
        above, below = self._pulls(self._up), self._pulls(self._down)
        both = [one + other for one, other in zip(above, below, strict=True)]
        for number, pulls in enumerate([*[above, below] * passes, both, both]):
            for layer, offset in rows if number % 2 == 0 else reversed(rows):
                self._place(layer, offset, pulls, center, left)
        least = min(left[layer[0]] for layer in self._layers)
        return [x - least for x in left]

    def _pulls(self, side: Sequence[Sequence[int]]) -> list[_Pull]:
        """Return of each node what it hangs on to that side, with weights."""
        real = self._real
        found: list[_Pull] = []
        for node, near in enumerate(side):
            bend = node >= real
            found.append([(other, _STRAIGHT[bend + (other >= real)]) for other in near])
        return found

    def _place(
        self,
        layer: Sequence[int],
        offset: Sequence[int],
        pulls: Sequence[_Pull],
        center: list[float],
        left: list[int],
    ) -> None:
        """Move the nodes of a layer as near as their order allows to the middle of what they hang on."""
        halves = self._halves
        blocks: list[tuple[float, float, int]] = []  # where, weight, members
        for node, shift in zip(layer, offset, strict=True):
            weight = total = 0.0
            for near, pull in pulls[node]:
                weight += pull
                total += pull * center[near]
            if weight:
                wish = total / weight - halves[node] - shift
            else:
                wish, weight = center[node] - halves[node] - shift, _IDLE
            members = 1
            while blocks and blocks[-1][0] > wish:
                where, heavy, many = blocks.pop()
                wish = (where * heavy + wish * weight) / (heavy + weight)
                weight += heavy
                members += many
            blocks.append((wish, weight, members))
        at = 0
        for where, _, members in blocks:
            whole = floor(where)  # the same for all of a block, and offsets are whole: distances stay exact
            for index in range(at, at + members):
                node = layer[index]
                left[node] = x = whole + offset[index]
                center[node] = x + halves[node]
            at += members


def layered(parents: Sequence[Sequence[int]]) -> list[int]:
    """Return the layer of each position: the longest path to it, or lower, where that makes its lines shorter."""
    children = graph.build(parents).children
    order = graph.topological(parents, children)
    layer = [0] * len(parents)
    for node in order:
        if parents[node]:
            layer[node] = max([layer[parent] for parent in parents[node]]) + 1
    for node in reversed(order):
        if len(children[node]) > len(parents[node]):
            layer[node] = min([layer[child] for child in children[node]]) - 1
    return layer
