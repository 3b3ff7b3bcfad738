"""A graph drawn with characters is read back: following its lines downwards finds each edge, and nothing else."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import datasets
from dagbok.cli import boxes
from dagbok.cli.boxes import draw
from dagbok.domain.labels import columns

Edges = set[tuple[int, int]]
DOWN, LEFT, RIGHT = (0, 1), (-1, 0), (1, 0)

#: Where a line may lead that comes to this character going down, left, or right. Nothing goes up.
TURNS: dict[str, dict[tuple[int, int], list[tuple[int, int]]]] = {
    "│": {DOWN: [DOWN], LEFT: [LEFT], RIGHT: [RIGHT]},  # a bridge, for those that come from beside
    "─": {LEFT: [LEFT], RIGHT: [RIGHT]},
    "┌": {LEFT: [DOWN]},
    "┐": {RIGHT: [DOWN]},
    "└": {DOWN: [RIGHT], LEFT: []},
    "┘": {DOWN: [LEFT], RIGHT: []},
    "├": {DOWN: [DOWN, RIGHT], LEFT: [DOWN]},
    "┤": {DOWN: [DOWN, LEFT], RIGHT: [DOWN]},
    "┬": {LEFT: [LEFT, DOWN], RIGHT: [RIGHT, DOWN]},
    "┴": {DOWN: [LEFT, RIGHT], LEFT: [LEFT], RIGHT: [RIGHT]},
    "┼": {DOWN: [DOWN, LEFT, RIGHT], LEFT: [LEFT, DOWN], RIGHT: [RIGHT, DOWN]},
}


def read_back(lines: Sequence[str], labels: Sequence[str]) -> Edges:
    """Return the edges that a drawing shows. Each label is of narrow characters and stands once."""
    text = {(x, y): char for y, line in enumerate(lines) for x, char in enumerate(line)}
    place = {}
    for number, label in enumerate(labels):
        ((x, y),) = [(line.index(f"│ {label} "), y) for y, line in enumerate(lines) if f"│ {label} " in line]
        place[number] = (x, x + 1 + lines[y][x + 1 :].index("│"), y)
    found: Edges = set()
    for source, (left, right, y) in place.items():
        walks = [((x, y + 2), DOWN) for x in range(left, right) if text[x, y + 1] == "┬"]
        seen = set()
        while walks:
            (x, at), way = walks.pop()
            if ((x, at), way) in seen:
                continue
            seen.add(((x, at), way))
            if text[x, at] == "▼":
                (target,) = [n for n, (left, right, y) in place.items() if left < x < right and y == at + 2]
                found.add((source, target))
                continue
            walks += [((x + dx, at + dy), (dx, dy)) for dx, dy in TURNS[text[x, at]][way]]
    return found


def edges(parents: Sequence[Sequence[int]]) -> Edges:
    return {(parent, child) for child, above in enumerate(parents) for parent in above}


@st.composite
def graphs(draw: st.DrawFn) -> list[list[int]]:
    size = draw(st.integers(0, 14))
    return [sorted(draw(st.sets(st.integers(0, at - 1), max_size=3))) if at else [] for at in range(size)]


@given(graphs(), st.integers(0, 12))
@settings(max_examples=400)
def test_a_drawing_shows_each_edge_and_no_other(parents: list[list[int]], room: int) -> None:
    labels = [f"<{at}>".ljust(room, ".") for at in range(len(parents))]
    drawn = draw(parents, labels, width=10_000)
    if drawn is not None:
        assert read_back(drawn.lines, labels) == edges(parents)


def test_nearly_all_plans_of_people_are_drawn_and_read_back() -> None:
    drawn_ones = 0
    for graph in datasets.asynchow():
        index = {id: at for at, id in enumerate(graph.parents)}
        parents = [sorted({index[parent] for parent in above}) for above in graph.parents.values()]
        labels = [f"<{at}> run" for at in range(len(parents))]
        drawn = draw(parents, labels, width=120)
        if drawn is not None:
            drawn_ones += 1
            assert read_back(drawn.lines, labels) == edges(parents), graph.name
    assert drawn_ones > 990


def test_a_diamond() -> None:
    drawn = draw([[], [0], [0], [1, 2]], ["a", "b", "c", "d"], width=80)
    assert drawn is not None
    assert "\n".join(drawn.lines) == (
        "    ╭───╮\n"
        "    │ a │\n"
        "    ╰─┬─╯\n"
        "  ┌───┴───┐\n"
        "  ▼       ▼\n"
        "╭───╮   ╭───╮\n"
        "│ b │   │ c │\n"
        "╰─┬─╯   ╰─┬─╯\n"
        "  └───┬───┘\n"
        "      ▼\n"
        "    ╭───╮\n"
        "    │ d │\n"
        "    ╰───╯"
    )


def test_lines_that_cross_are_bridges() -> None:
    """Without them a crossing would look like a branch."""
    drawn = draw([[], [], [], [], [0, 3], [1, 2], [0, 2]], [f"<{at}>" for at in range(7)], width=80)
    assert drawn is not None
    assert "┼" not in "".join(drawn.lines)
    assert any("─│─" in line for line in drawn.lines)


def bus(exit: int, entry: int) -> boxes._Bus:
    return boxes._Bus([boxes._Item(None, exit, exit)], [boxes._Item(None, entry, entry)], [entry])


def test_lines_that_would_lie_on_each_other_are_not_drawn() -> None:
    """One leaves where the other comes down: it has to turn above it. Both ways at once it cannot be."""
    first, second = bus(0, 4), bus(4, 8)
    assert boxes._tracked([first, second])
    assert first.track > second.track
    assert not boxes._tracked([bus(0, 4), bus(4, 0)])
    assert not boxes._tracked([bus(0, 4), bus(4, 4)])


def test_each_bus_enters_a_box_at_a_column_of_its_own_beside_strangers() -> None:
    box = boxes._Item(0, 0, 10)
    several = [boxes._Bus([boxes._Item(None, x, x), boxes._Item(None, x + 1, x + 1)], [box], []) for x in (20, 30)]
    assert boxes._entries(box, several, [20, 30]) == [4, 6]
    assert boxes._entries(box, several, [4, 6, 20, 30]) == [3, 5]
    assert boxes._entries(box, several, [3, 4, 6, 20, 30]) == [5, 7]
    assert boxes._entries(box, several, [*range(9), 20, 30]) is None


def test_what_is_wider_than_the_terminal_is_not_drawn() -> None:
    labels = ["x" * 20] * 4
    assert draw([[]] * 4, labels, width=20) is None
    drawn = draw([[], [0], [0], [0]], labels, width=81)
    assert drawn is not None
    assert max(map(len, drawn.lines)) == 81
    assert draw([[], [0], [0], [0]], labels, width=80) is None


def test_wide_characters_and_marks_keep_the_borders_straight() -> None:
    labels = ["日本語", "e\u0301e\u0301", "abc", "👍 ok"]
    drawn = draw([[], [0], [1], [2]], labels, width=40)
    assert drawn is not None
    ends = {sum(map(columns, line)) for line in drawn.lines if line.endswith(("╮", "╯", "│")) and "─" in line}
    for top in range(0, len(drawn.lines), 4):
        widths = {sum(map(columns, line)) for line in drawn.lines[top : top + 3]}
        assert len(widths) == 1, drawn.lines[top : top + 3]
    assert ends


def test_the_parts_of_a_box_are_known_so_that_they_can_be_coloured() -> None:
    drawn = draw([[], [0], [0]], ["日本", "b", "c"], width=80)
    assert drawn is not None
    for line, spans in zip(drawn.lines, drawn.spans, strict=True):
        for start, end, _ in spans:
            assert line[start] in "╭│╰"
            assert line[end - 1] in "╮│╯"
    assert {box for spans in drawn.spans for _, _, box in spans} == {0, 1, 2}


@pytest.mark.parametrize("count", [0, 1])
def test_little_is_drawn_as_little(count: int) -> None:
    drawn = draw([[]] * count, ["a"] * count, width=80)
    assert drawn is not None
    assert len(drawn.lines) == 3 * count
