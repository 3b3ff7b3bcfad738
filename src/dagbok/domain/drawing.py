"""The picture of a graph, before any words: boxes in a size that suits the graph, twins gathered in frames, lines.

Many sub-tasks that wait for the same and free the same (a fan of 400 downloads) would make a picture 80,000 units wide
with a line for each. They are *twins*, and so are chains (fetch it, sum it up) that begin and end at the same: they
stand in rows and columns within a frame, which has the lines for all of them.
"""

from __future__ import annotations

import functools
import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Final, NamedTuple

from dagbok.domain import layout
from dagbok.domain.layout import Box, Spacing

Parents = tuple[tuple[int, ...], ...]
Points = tuple[tuple[int, int], ...]
#: Positions of which each hangs on the one before, and on nothing else.
Chain = tuple[int, ...]

#: More lines than this, with twins gathered, are no picture any more.
MAX_ROUTES: Final = 20_000
#: Dependencies that are looked at; a plan of 8 MiB may have two millions.
MAX_EDGES: Final = 200_000
#: So many twins are gathered; fewer stand beside each other.
_MIN_TWINS: Final = 6
_PADDING: Final = 10
#: A frame is about so many times as wide as it is high.
_ASPECT: Final = 2.0


class Size(NamedTuple):
    """How large a box is, and how far from others."""

    name: str
    width: int
    height: int
    gap: int  # between twins
    link: int  # between those of a chain of twins
    spacing: Spacing
    boxes: int  # in one layer, at most
    nodes: int  # in all, at most


#: The first that suits is taken: room for words, for the id, or for a colour only.
SIZES: Final = (
    Size("full", 212, 48, 12, 20, Spacing(across=24, down=46, bend=14, parts=48), boxes=20, nodes=600),
    Size("small", 92, 26, 8, 14, Spacing(across=12, down=44, bend=8, parts=32), boxes=100, nodes=2_500),
    Size("dot", 14, 14, 4, 8, Spacing(across=6, down=40, bend=4, parts=24), boxes=2**31, nodes=2**31),
)


class Frame(NamedTuple):
    """Twins, and the rectangle that they stand in."""

    box: Box
    chains: tuple[Chain, ...]


class Route(NamedTuple):
    """One line, for each of the sources to each of the targets."""

    sources: tuple[int, ...]
    targets: tuple[int, ...]
    points: Points


@dataclass(frozen=True, slots=True)
class Drawing:
    """Where everything stands."""

    size: Size
    boxes: Sequence[Box]  #: by position
    frames: Sequence[Frame]
    routes: Sequence[Route]
    width: int
    height: int


@functools.lru_cache(maxsize=8)
def draw(parents: Parents) -> Drawing | None:
    """Return the picture of a graph without cycles; None where it has too many lines for one.

    The last few are kept: while an execution runs, its states change and its graph does not.
    """
    if sum(map(len, parents)) > MAX_EDGES:
        return None
    groups = _groups(parents)
    group_of = {member: at for at, group in enumerate(groups) for chain in group for member in chain}
    above = [sorted({group_of[parent] for parent in parents[group[0][0]]}) for group in groups]
    if sum(map(len, above)) > MAX_ROUTES:
        return None
    widest, layers = _widest(above)
    size = next(size for size in SIZES if widest <= size.boxes and len(parents) <= size.nodes)
    placed = layout.arrange(above, [_extent(group, size) for group in groups], _spacing(size, widest, layers))
    boxes: list[Box] = [Box(0, 0, 0, 0)] * len(parents)
    frames: list[Frame] = []
    routes = [
        Route(tuple(c[-1] for c in groups[line.source]), tuple(c[0] for c in groups[line.target]), line.points)
        for line in placed.lines
    ]
    for group, box in zip(groups, placed.boxes, strict=True):
        if len(group) == 1:
            boxes[group[0][0]] = box
            continue
        frames.append(Frame(box, tuple(group)))
        for at, chain in enumerate(group):
            for member, cell in zip(chain, _cells(box, at, group, size), strict=True):
                boxes[member] = cell
            for source, target in pairwise(chain):
                x = boxes[source].x + size.width // 2
                ends = ((x, boxes[source].y + size.height), (x, boxes[target].y))
                routes.append(Route((source,), (target,), ends))
    return Drawing(size, boxes, frames, routes, placed.width, placed.height)


def _widest(above: Sequence[Sequence[int]]) -> tuple[int, int]:
    """Return how many groups stand in the widest layer of any part, and how many layers that part has."""
    layer_of = layout.layered(above)
    counts = [Counter(layer_of[group] for group in part) for part in layout.parts_of(above)]
    return max(((max(layers.values()), len(layers)) for layers in counts), default=(0, 0))


def _spacing(size: Size, widest: int, layers: int) -> Spacing:
    """Return the distances; layers of a wide graph are farther from each other, so that lines are not too flat."""
    width = widest * (size.width + size.spacing.across)
    down = min(max(size.spacing.down, width // (4 * max(1, layers))), 5 * size.spacing.down)
    return size.spacing._replace(down=down)


def _groups(parents: Parents) -> list[list[Chain]]:
    """Return all positions in groups, by their first: twins together where there are many, else each alone."""
    children: list[list[int]] = [[] for _ in parents]
    for position, above in enumerate(parents):
        for parent in above:
            children[parent].append(position)
    alike: dict[tuple[int, tuple[int, ...], tuple[int, ...]], list[Chain]] = {}
    for position, above in enumerate(parents):
        if len(above) == 1 and len(children[above[0]]) == 1:
            continue  # within the chain of another
        chain = [position]
        while len(below := children[chain[-1]]) == 1 and len(parents[below[0]]) == 1:
            chain.append(below[0])
        key = (len(chain), tuple(sorted(above)), tuple(below))
        alike.setdefault(key, []).append(tuple(chain))
    groups: list[list[Chain]] = []
    for chains in alike.values():
        groups += [chains] if len(chains) >= _MIN_TWINS else [[(member,)] for chain in chains for member in chain]
    return sorted(groups)


def _columns(group: Sequence[Chain], size: Size) -> int:
    width, height = size.width + size.gap, _stacked(group, size) + size.gap
    return max(1, min(len(group), math.ceil(math.sqrt(len(group) * _ASPECT * height / width))))


def _stacked(group: Sequence[Chain], size: Size) -> int:
    return len(group[0]) * (size.height + size.link) - size.link


def _extent(group: Sequence[Chain], size: Size) -> tuple[int, int]:
    if len(group) == 1:
        return size.width, size.height
    columns = _columns(group, size)
    rows = -(-len(group) // columns)
    width = columns * (size.width + size.gap) - size.gap
    height = rows * (_stacked(group, size) + size.gap) - size.gap
    return width + 2 * _PADDING, height + 2 * _PADDING


def _cells(frame: Box, at: int, group: Sequence[Chain], size: Size) -> list[Box]:
    """Return the boxes of one chain of a frame."""
    row, column = divmod(at, _columns(group, size))
    x = frame.x + _PADDING + column * (size.width + size.gap)
    y = frame.y + _PADDING + row * (_stacked(group, size) + size.gap)
    return [Box(x, y + down * (size.height + size.link), size.width, size.height) for down in range(len(group[0]))]
