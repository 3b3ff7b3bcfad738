"""Boxes below what they hang on, none over another, and the same graph as the same picture."""

from __future__ import annotations

import random
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import datasets
from dagbok.domain import crossings, drawing, layout
from dagbok.domain.drawing import Drawing, Parents
from dagbok.domain.layout import Box, Spacing

SPACING = Spacing(across=24, down=46, bend=14, parts=48)

Graph = list[list[int]]


@st.composite
def graphs(draw: st.DrawFn, most: int = 24) -> Graph:
    """Graphs without cycles, whose positions are in no useful order."""
    size = draw(st.integers(0, most))
    parents = [draw(st.sets(st.integers(0, at - 1), max_size=4)) if at else set() for at in range(size)]
    moved = draw(st.permutations(range(size)))
    graph: Graph = [[] for _ in range(size)]
    for at, above in enumerate(parents):
        graph[moved[at]] = sorted(moved[parent] for parent in above)
    return graph


@st.composite
def sized(draw: st.DrawFn) -> tuple[Graph, list[tuple[int, int]]]:
    graph = draw(graphs())
    side = st.integers(1, 300)
    return graph, [(draw(side), draw(side)) for _ in graph]


def apart(one: Box, other: Box) -> bool:
    return (
        one.x + one.width <= other.x
        or other.x + other.width <= one.x
        or one.y + one.height <= other.y
        or other.y + other.height <= one.y
    )


def check_boxes(boxes: list[Box], width: int, height: int) -> None:
    assert all(apart(one, other) for at, one in enumerate(boxes) for other in boxes[:at])
    assert all(box.x >= 0 and box.y >= 0 for box in boxes)
    assert all(box.x + box.width <= width and box.y + box.height <= height for box in boxes)


@given(sized())
def test_every_box_is_below_all_it_hangs_on_and_over_no_other(given: tuple[Graph, list[tuple[int, int]]]) -> None:
    graph, sizes = given
    placed = layout.arrange(graph, sizes, SPACING)
    check_boxes(list(placed.boxes), placed.width, placed.height)
    assert [(box.width, box.height) for box in placed.boxes] == sizes
    assert {(line.source, line.target) for line in placed.lines} == {
        (parent, child) for child, above in enumerate(graph) for parent in above
    }
    for line in placed.lines:
        above, below = placed.boxes[line.source], placed.boxes[line.target]
        assert above.y + above.height < below.y
        assert placed.layers[line.source] < placed.layers[line.target]
        assert line.points[0] == (above.x + above.width // 2, above.y + above.height)
        assert line.points[-1] == (below.x + below.width // 2, below.y)
        assert all(y < next_y or (x, y) == (next_x, next_y) for (x, y), (next_x, next_y) in pairwise(line.points))


@given(sized())
def test_no_line_passes_through_a_box(given: tuple[Graph, list[tuple[int, int]]]) -> None:
    """Bends keep off the boxes of their layers; between layers there are no boxes."""
    placed = layout.arrange(*given, SPACING)
    for line in placed.lines:
        for (x, y), (next_x, next_y) in pairwise(line.points):
            left, right = min(x, next_x), max(x, next_x)
            for at, box in enumerate(placed.boxes):
                beside = right <= box.x or box.x + box.width <= left
                above_or_below = next_y <= box.y or box.y + box.height <= y
                assert at in (line.source, line.target) or beside or above_or_below


@given(sized(), st.randoms(use_true_random=False))
def test_the_order_in_which_parents_are_named_changes_nothing(
    given: tuple[Graph, list[tuple[int, int]]], chance: random.Random
) -> None:
    graph, sizes = given
    shuffled = [chance.sample(above, len(above)) for above in graph]
    assert layout.arrange(shuffled, sizes, SPACING) == layout.arrange(graph, sizes, SPACING)


@st.composite
def ordered_layers(draw: st.DrawFn) -> tuple[list[list[int]], Graph, Graph]:
    sizes = draw(st.lists(st.integers(1, 7), min_size=1, max_size=5))
    numbers = iter(range(sum(sizes)))
    layers = [[next(numbers) for _ in range(size)] for size in sizes]
    up: Graph = [[] for _ in range(sum(sizes))]
    down: Graph = [[] for _ in range(sum(sizes))]
    for above, below in pairwise(layers):
        for one in above:
            for other in below:
                if draw(st.booleans()):
                    down[one].append(other)
                    up[other].append(one)
    return [draw(st.permutations(layer)) for layer in layers], up, down


def crossed(layers: list[list[int]], down: Graph) -> int:
    """Count crossings as the definition says it."""
    place = {node: at for layer in layers for at, node in enumerate(layer)}
    lines = [[(place[one], place[other]) for one in layer for other in down[one]] for layer in layers]
    return sum(a < c and d < b for pairs in lines for a, b in pairs for c, d in pairs)


@given(ordered_layers())
@settings(max_examples=400)
def test_crossings_are_counted_right_and_never_more_than_in_the_order_given(
    given: tuple[list[list[int]], Graph, Graph],
) -> None:
    layers, up, down = given
    before = [layer[:] for layer in layers]
    found = crossings.order(layers, up, down)
    assert layers == before, "what is given stays as it is"
    assert [sorted(layer) for layer in found] == [sorted(layer) for layer in layers]
    assert crossings.count(layers, down) == crossed(layers, down)
    assert crossings.count(found, down) == crossed(found, down) <= crossed(layers, down)


def test_a_graph_that_needs_no_crossing_gets_none() -> None:
    layers = [[0, 1, 2], [3, 4, 5], [6, 7, 8]]
    down: Graph = [[5], [3], [4], [6], [8], [7], [], [], []]
    up: Graph = [[], [], [], [1], [2], [0], [3], [5], [4]]
    assert crossings.count(layers, down) > 0
    assert crossings.count(crossings.order(layers, up, down), down) == 0


def test_a_chain_is_one_straight_line() -> None:
    placed = layout.arrange([[], [0], [1], [2]], [(10, 5), (30, 5), (20, 5), (10, 5)], SPACING)
    assert {box.x + box.width // 2 for box in placed.boxes} == {15}
    assert placed.layers == [0, 1, 2, 3]


def test_a_long_line_beside_a_chain_is_straight() -> None:
    placed = layout.arrange([[], [0], [1], [2], [0, 3]], [(40, 10)] * 5, SPACING)
    (line,) = (line for line in placed.lines if (line.source, line.target) == (0, 4))
    assert len({x for x, _ in line.points[2:-2]}) == 1


def test_what_is_needed_late_stands_late() -> None:
    assert layout.layered([[], [0], [1], [2], [], [3, 4]]) == [0, 1, 2, 3, 3, 4]


def test_bends_are_bounded() -> None:
    """A chain of which each needs the first: 2,000 tasks would have two million bends."""
    size = 2_000
    graph: Graph = [[], [0], *([0, at - 1] for at in range(2, size))]
    placed = layout.arrange(graph, [(10, 10)] * size, SPACING)
    assert len(placed.lines) == 2 * size - 3
    assert sum(len(line.points) for line in placed.lines) < 2 * layout.MAX_BENDS + 4 * len(placed.lines)
    with_bends = [line.target for line in placed.lines if len(line.points) > 2]
    assert with_bends == list(range(2, 2 + len(with_bends))), "the longest are those that go straight"
    assert len(with_bends) > 150


# -- with twins ---------------------------------------------------------------------------------------------------


def drawn(graph: Graph) -> Drawing:
    found = drawing.draw(tuple(map(tuple, graph)))
    assert found is not None
    return found


@st.composite
def fans(draw: st.DrawFn) -> Graph:
    """Graphs with chains beside each other, some of them twins."""
    graph = draw(graphs(8))
    for _ in range(draw(st.integers(1, 3))):
        above = draw(st.sets(st.integers(0, len(graph) - 1), max_size=2)) if graph else set()
        tails = []
        for _ in range(draw(st.integers(1, 14))):
            graph.append(sorted(above))
            for _ in range(draw(st.sampled_from([0, 0, 1, 1, 2]))):
                graph.append([len(graph) - 1])
            tails.append(len(graph) - 1)
        if draw(st.booleans()):
            graph.append(tails)
    return graph


@given(fans())
def test_twins_stand_in_frames_and_all_else_holds_for_them_too(graph: Graph) -> None:
    found = drawn(graph)
    check_boxes(list(found.boxes), found.width, found.height)
    told = {(source, target) for route in found.routes for source in route.sources for target in route.targets}
    edges = {(parent, child) for child, above in enumerate(graph) for parent in above}
    assert told == edges
    assert sum(len(route.sources) * len(route.targets) for route in found.routes) == len(edges), "each told once"
    for parent, child in edges:
        assert found.boxes[parent].y + found.boxes[parent].height < found.boxes[child].y
    children = [[child for child, above in enumerate(graph) if at in above] for at in range(len(graph))]
    framed = set()
    for box, chains in found.frames:
        assert len({(tuple(graph[c[0]]), tuple(children[c[-1]]), len(c)) for c in chains}) == 1
        for member in (member for chain in chains for member in chain):
            framed.add(member)
            inner = found.boxes[member]
            assert box.x < inner.x
            assert box.y < inner.y
            assert inner.x + inner.width < box.x + box.width
            assert inner.y + inner.height < box.y + box.height
    loose = [found.boxes[at] for at in range(len(graph)) if at not in framed]
    frames = [frame.box for frame in found.frames]
    assert all(apart(frame, box) for frame in frames for box in loose)


def test_a_fan_of_a_hundred_is_a_block_and_not_a_row() -> None:
    found = drawn([[], *([0] for _ in range(100)), list(range(1, 101))])
    assert len(found.routes) == 2
    assert found.size.name == "full"
    assert 1 < found.width / found.height < 3


def test_boxes_shrink_where_there_are_many_in_a_layer() -> None:
    def pairs(count: int) -> Graph:
        return [[], *([at] for at in range(count)), *([at, at + 1] for at in range(1, count))]

    comb: Graph = [[], *([0] for _ in range(60)), *([at, at + 1] for at in range(1, 60))]
    assert drawn(comb).size.name == "small"
    comb = [[], *([0] for _ in range(300)), *([at, at + 1] for at in range(1, 300))]
    assert drawn(comb).size.name == "dot"
    assert drawn(pairs(5)).size.name == "full"


def test_too_many_lines_are_no_picture() -> None:
    """A plan of 8 MiB may name two million dependencies."""
    size = 700
    dense: Parents = tuple(tuple(range(at)) for at in range(size))
    assert sum(map(len, dense)) > drawing.MAX_EDGES
    assert drawing.draw(dense) is None
    assert drawing.draw(dense[:250]) is None
    assert drawing.draw(dense[:150]) is not None


def test_ten_thousand_sub_tasks_are_drawn() -> None:
    chance = random.Random(7)
    graph = [sorted({chance.randrange(max(0, at - 200), at) for _ in range(2)}) if at else [] for at in range(10_000)]
    found = drawn(graph)
    assert len(found.boxes) == 10_000
    assert drawing.draw(tuple(map(tuple, graph))) is found, "kept for the next who asks"


def test_nothing_is_drawn_as_nothing() -> None:
    found = drawn([])
    assert (found.width, found.height, found.boxes, found.routes) == (0, 0, [], [])


@pytest.mark.parametrize("name", ["wfinstances", "asynchow"])
def test_real_graphs_are_drawn_without_overlap(name: str) -> None:
    for graph in datasets.wfinstances() if name == "wfinstances" else datasets.asynchow():
        index = {id: at for at, id in enumerate(graph.parents)}
        parents = tuple(tuple(sorted({index[p] for p in above})) for above in graph.parents.values())
        found = drawing.draw(parents)
        assert found is not None
        check_boxes(list(found.boxes), found.width, found.height)
        for child, above in enumerate(parents):
            assert all(found.boxes[parent].y < found.boxes[child].y for parent in above)
