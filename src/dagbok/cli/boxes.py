"""A small graph drawn with the characters of a terminal: a box for each sub-step, lines downwards between them.

Boxes stand where `dagbok.domain.layout` has them, in columns of characters. Between two layers, sub-steps that free the
same share one horizontal line (a bus), and each bus enters a box at a column of its own: whoever follows a line
downwards, at each branch either way, comes to what waits for its beginning, and to nothing else. Lines that only cross
are drawn as bridges, `─│─`. Where two would lie on each other, there is no drawing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

from dagbok.domain import layout
from dagbok.domain.labels import columns
from dagbok.domain.layout import Spacing

_BOX: Final = 3  # rows
_GAP: Final = 2  # rows between layers while it is laid out; the real ones follow from the lines
_SPACING: Final = Spacing(across=3, down=_GAP, bend=2, parts=_GAP)  # odd, as widths are: middles meet

#: A line goes straight down into a box if that is so near to its middle.
_SLANT: Final = 3

_UP, _DOWN, _LEFT, _RIGHT = 1, 2, 4, 8
_LINES: Final = {
    _UP | _DOWN: "│", _LEFT | _RIGHT: "─", _DOWN | _RIGHT: "┌", _DOWN | _LEFT: "┐", _UP | _RIGHT: "└", _UP | _LEFT: "┘",
    _UP | _DOWN | _RIGHT: "├", _UP | _DOWN | _LEFT: "┤", _DOWN | _LEFT | _RIGHT: "┬", _UP | _LEFT | _RIGHT: "┴",
    _UP | _DOWN | _LEFT | _RIGHT: "┼",
}  # fmt: skip


class Span(NamedTuple):
    """Where a box is in a drawn line, to be coloured."""

    start: int
    end: int
    box: int


@dataclass(frozen=True, slots=True)
class Drawn:
    """Lines of text, and the parts of each that belong to boxes, in characters."""

    lines: Sequence[str]
    spans: Sequence[Sequence[Span]]


@dataclass(eq=False, slots=True)
class _Item:
    """What stands in a layer: a box, or a line that passes."""

    box: int | None
    left: int
    right: int  # the last column

    @property
    def middle(self) -> int:
        return (self.left + self.right) // 2


@dataclass(eq=False, slots=True)
class _Bus:
    """The lines from some items of a layer to the same items of the next."""

    sources: list[_Item]
    targets: list[_Item]
    entries: list[int]  # the column at which each target is entered
    track: int = -1  # -1: straight down

    @property
    def straight(self) -> bool:
        return len(self.sources) == len(self.entries) == 1 and self.sources[0].middle == self.entries[0]

    @property
    def exits(self) -> list[int]:
        return [source.middle for source in self.sources]

    @property
    def ends(self) -> tuple[int, int]:
        at = self.exits + self.entries
        return min(at), max(at)


def draw(parents: Sequence[Sequence[int]], labels: Sequence[str], *, width: int) -> Drawn | None:
    """Return a drawing at most `width` columns wide; None where there is none.

    Args:
        parents: Of each box those it hangs on; no cycle.
        labels: The words in each box, one line each.
        width: Columns.
    """
    # All of odd width, so that boxes of a chain have one middle.
    sizes = [((sum(map(columns, label)) + 4) | 1, _BOX) for label in labels]
    placed = layout.arrange(parents, sizes, _SPACING)
    if placed.width > width:
        return None
    rows, links = _rows(placed)
    canvas = _Canvas(placed.width + 1)  # a line may pass at the right of all boxes
    for row, items in enumerate(rows):
        buses = _buses(links[row - 1] if row else {})
        if buses is None or not _tracked(buses):
            return None
        canvas.channel(buses)
        canvas.layer(items, labels)
    drawn = canvas.drawn()
    return drawn if all(sum(map(columns, line)) <= width for line in drawn.lines) else None


def _rows(placed: layout.Layout) -> tuple[list[list[_Item]], list[dict[_Item, list[_Item]]]]:
    """Return what stands in each layer, and below each layer what its items lead to."""
    height = _BOX + _GAP
    count = (placed.height + _GAP) // height
    rows: list[list[_Item]] = [[] for _ in range(count)]
    links: list[dict[_Item, list[_Item]]] = [{} for _ in range(count)]
    boxes = []
    for number, box in enumerate(placed.boxes):
        boxes.append(_Item(number, box.x, box.x + box.width - 1))
        rows[box.y // height].append(boxes[-1])
    for line in placed.lines:
        above, row = boxes[line.source], placed.boxes[line.source].y // height
        for x, _ in line.points[1:-1:2]:
            bend = _Item(None, x, x)
            links[row].setdefault(above, []).append(bend)
            above, row = bend, row + 1
            rows[row].append(bend)
        links[row].setdefault(above, []).append(boxes[line.target])
    return rows, links


def _buses(links: Mapping[_Item, list[_Item]]) -> list[_Bus] | None:
    """Return the buses below a layer, with the columns of their ends; None where a box is too narrow for its own."""
    alike: dict[tuple[int, ...], _Bus] = {}
    for source, targets in links.items():
        key = tuple(sorted(map(id, targets)))
        alike.setdefault(key, _Bus([], targets, [])).sources.append(source)
    buses = sorted(alike.values(), key=lambda bus: (sum(bus.exits) / len(bus.exits), bus.exits))
    entering: dict[_Item, list[_Bus]] = {}
    for bus in buses:
        for target in bus.targets:
            entering.setdefault(target, []).append(bus)
    entries: dict[_Item, dict[int, int]] = {}
    for target, several in entering.items():
        found = _entries(target, several, [source.middle for source in links])
        if found is None:
            return None
        entries[target] = dict(zip(map(id, several), found, strict=True))
    for bus in buses:
        bus.entries = [entries[target][id(bus)] for target in bus.targets]
    return buses


def _entries(target: _Item, buses: Sequence[_Bus], exits: Sequence[int]) -> list[int] | None:
    """Return the columns at which buses enter a target, from the left, where no stranger's line comes down."""
    if target.box is None:
        return [target.middle]
    if len(buses) == 1:
        nearest = min(buses[0].exits, key=lambda x: abs(x - target.middle))
        if abs(nearest - target.middle) <= min(_SLANT, target.right - target.middle - 1):
            return [nearest]  # straight down
    strangers = set(exits).difference(*(bus.exits for bus in buses if len(bus.exits) == 1))
    free = [x for x in range(target.left + 1, target.right) if x not in strangers]
    found: list[int] = []
    for number in range(len(buses)):
        ideal = target.middle - (len(buses) - 1) + 2 * number
        after = free.index(found[-1]) + 1 if found else 0
        fitting = free[after : len(free) - (len(buses) - 1 - number)]
        if not fitting:
            return None
        found.append(min(fitting, key=lambda x: (abs(x - ideal), x)))
    return found


def _tracked(buses: Sequence[_Bus]) -> bool:
    """Give each bus a row of its own stretch; return whether that is possible without two lines on each other."""
    crooked = [bus for bus in buses if not bus.straight]
    #: Where one comes down at the column where another leaves from, it has to turn below that one's row.
    after = {
        bus: [other for other in crooked if other is not bus and set(other.exits) & set(bus.entries)] for bus in crooked
    }
    straight = {bus.entries[0] for bus in buses if bus.straight}
    if any(straight.intersection(bus.entries) for bus in crooked):
        return False
    waiting = list(crooked)
    while waiting:
        ready = next((bus for bus in waiting if not any(other in waiting for other in after[bus])), None)
        if ready is None:
            return False
        waiting.remove(ready)
        track = max((other.track + 1 for other in after[ready]), default=0)
        while any(other.track == track and _touch(other, ready) for other in crooked):
            track += 1
        ready.track = track
    return True


def _touch(one: _Bus, other: _Bus) -> bool:
    return one.ends[0] <= other.ends[1] + 1 and other.ends[0] <= one.ends[1] + 1


class _Canvas:
    """Rows of characters, from above."""

    def __init__(self, width: int) -> None:
        self._width = width
        self._lines: list[list[str]] = []
        self._spans: list[list[Span]] = []

    def drawn(self) -> Drawn:
        spans = []
        for line, row in zip(self._lines, self._spans, strict=True):
            # A wide character is one in the text, and an empty place beside it here.
            spans.append([Span(len("".join(line[: s.start])), len("".join(line[: s.end])), s.box) for s in row])
        return Drawn(["".join(line).rstrip() for line in self._lines], spans)

    def _add(self, count: int) -> list[list[str]]:
        added = [[" "] * self._width for _ in range(count)]
        self._lines += added
        self._spans += [[] for _ in added]
        return added

    def channel(self, buses: Sequence[_Bus]) -> None:
        """Add the rows between two layers, and the ends of the boxes above."""
        if not buses:
            return
        if self._lines:
            for bus in buses:
                for source in bus.sources:
                    if source.box is not None:
                        self._lines[-1][source.middle] = "┬"
        height = max(bus.track for bus in buses) + 1
        uprights: list[dict[int, int]] = [{} for _ in range(height)]  # what each column holds, by row
        levels: list[dict[int, int]] = [{} for _ in range(height)]
        for bus in buses:
            for x in bus.exits:
                for row in range(height if bus.track < 0 else bus.track + 1):
                    uprights[row][x] = uprights[row].get(x, 0) | _UP | (_DOWN if row != bus.track else 0)
            for x in bus.entries if bus.track >= 0 else ():
                for row in range(bus.track, height):
                    uprights[row][x] = uprights[row].get(x, 0) | _DOWN | (_UP if row != bus.track else 0)
            if bus.track >= 0:
                first, last = bus.ends
                for x in range(first, last + 1):
                    sides = (_LEFT if x > first else 0) | (_RIGHT if x < last else 0)
                    mine = x in bus.exits or x in bus.entries
                    levels[bus.track][x] = sides if mine else 0
        for row, line in enumerate(self._add(height)):
            for x, sides in levels[row].items():
                line[x] = "─" if not sides else line[x]
            for x, parts in uprights[row].items():
                line[x] = _LINES[parts | levels[row].get(x, 0)]
        (line,) = self._add(1)
        for bus in buses:
            for target, x in zip(bus.targets, bus.entries, strict=True):
                line[x] = "│" if target.box is None else "▼"

    def layer(self, items: Sequence[_Item], labels: Sequence[str]) -> None:
        """Add the boxes of a layer, and the lines that pass it."""
        top, middle, bottom = self._add(_BOX)
        start = len(self._spans) - _BOX
        for item in items:
            if item.box is None:
                top[item.left] = middle[item.left] = bottom[item.left] = "│"
                continue
            inner = item.right - item.left - 1
            top[item.left : item.right + 1] = ["╭", *"─" * inner, "╮"]
            bottom[item.left : item.right + 1] = ["╰", *"─" * inner, "╯"]
            words: list[str] = []
            for char in labels[item.box]:
                taken = columns(char)
                if taken:
                    words += [char, *[""] * (taken - 1)]
                elif words:
                    words[-1] += char
            words += [" "] * (inner - 1 - len(words))
            middle[item.left : item.right + 1] = ["│", " ", *words, "│"]
            for row in range(start, start + _BOX):
                self._spans[row].append(Span(item.left, item.right + 1, item.box))
