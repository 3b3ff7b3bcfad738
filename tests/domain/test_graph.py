"""Who waits for whom: cycles are named, depth costs no stack, order is natural."""

from __future__ import annotations

import time
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dagbok.domain import graph

edges = st.integers(1, 9).flatmap(
    lambda n: st.lists(st.lists(st.integers(0, n - 1), unique=True, max_size=4), min_size=n, max_size=n)
)


def reach(parents: Sequence[Sequence[int]]) -> list[set[int]]:
    """Return for each position all it waits for, by plain iteration."""
    found = [set(above) for above in parents]
    for _ in parents:
        found = [above | {far for near in above for far in found[near]} for above in found]
    return found


@pytest.mark.parametrize(
    ("parents", "cycles"),
    [
        ([], []),
        ([[]], []),
        ([[], [0], [0, 1]], []),
        ([[1], [0]], [[0, 1]]),
        ([[2], [0], [1]], [[0, 1, 2]]),
        ([[1], [2], [0]], [[0, 2, 1]]),
        ([[1], [0], [1]], [[0, 1]]),
        ([[1], [0], [3], [2]], [[0, 1], [2, 3]]),
        ([[1], [0], [0, 3], [2]], [[0, 1], [2, 3]]),
        ([[0]], [[0]]),
    ],
)
def test_each_cycle_is_named(parents: list[list[int]], cycles: list[list[int]]) -> None:
    """In the last but one a walk up from 2 leads into the other cycle first; its own was once not found."""
    assert graph.cycles(parents) == cycles


@given(edges)
def test_a_cycle_is_named_for_each_component_and_each_is_one(parents: list[list[int]]) -> None:
    above = reach(parents)
    components = {
        frozenset(b for b in range(len(parents)) if b in above[a] and a in above[b])
        for a in range(len(parents))
        if a in above[a]
    }
    found = graph.cycles(parents)
    assert len(found) == len(components)
    for cycle in found:
        assert len(set(cycle)) == len(cycle)
        for before, after in zip(cycle, [*cycle[1:], cycle[0]], strict=True):
            assert before in parents[after], "each waits for the one before"
    assert {next(c for c in components if cycle[0] in c) for cycle in found} == components


@given(edges)
def test_remaining_is_the_longest_path_to_an_end(parents: list[list[int]]) -> None:
    dag = [[parent for parent in above if parent < position] for position, above in enumerate(parents)]
    built = graph.build(dag)
    for position in reversed(range(len(dag))):
        children = [child for child, above in enumerate(dag) if position in above]
        assert list(built.children[position]) == children
        assert built.remaining[position] == 1 + max((built.remaining[child] for child in children), default=0)
    assert built.sinks() == [at for at in range(len(dag)) if not any(at in above for above in dag)]


@pytest.mark.parametrize("backwards", [False, True])
def test_a_chain_of_10_000_needs_no_stack(backwards: bool) -> None:
    count = 10_000
    chain = [[at + 1] if at + 1 < count else [] for at in range(count)]
    if not backwards:
        chain = [[at - 1] if at else [] for at in range(count)]
    built = graph.build(chain)
    assert sorted(built.remaining) == list(range(1, count + 1))
    assert graph.cycles(chain) == []


def test_a_ring_of_10_000_and_many_small_ones_are_found_in_time() -> None:
    """Quadratic would be minutes."""
    start = time.process_time()
    (ring,) = graph.cycles([[(at - 1) % 10_000] for at in range(10_000)])
    assert len(ring) == 10_000
    assert len(graph.cycles([[at ^ 1] for at in range(10_000)])) == 5_000
    tail = graph.cycles([[1], [0], *([at] for at in range(1, 9_999))])
    assert tail == [[0, 1]]
    dense = [[other for other in range(300) if other != at] for at in range(300)]
    assert len(graph.cycles(dense)) == 1
    assert time.process_time() - start < 5


@pytest.mark.parametrize(
    "ordered",
    [
        ["1", "2", "10", "11", "100"],
        ["a1", "a2", "a10", "b1"],
        ["1", "1a", "1b", "2", "a", "a1", "a1b", "a1b2", "a1b10", "b"],
        ["v1.2", "v1.10", "v2.0"],
        ["2", "9" * 5_000, "1" + "0" * 5_000],
        ["", "0", "a"],
        ["task 2", "task 10", "task x"],
    ],
)
def test_order_is_natural(ordered: list[str]) -> None:
    for ids in (ordered, ordered[::-1], sorted(ordered)):
        ranks = graph.natural(ids)
        assert [id for _, id in sorted(zip(ranks, ids, strict=True))] == ordered


def test_equals_in_natural_order_keep_the_plans_order() -> None:
    assert graph.natural(["01", "1", "001", "0"]) == [1, 2, 3, 0]


@given(
    st.lists(st.text(alphabet="019ab.٣", max_size=6), max_size=12)
    | st.lists(st.from_regex("[0-9]{1,3}", fullmatch=True), max_size=9)
)
def test_ids_that_are_quick_to_compare_are_ranked_as_all_others(ids: list[str]) -> None:
    last = "\U0010ffff" * 500  # too long for that, and so are then those beside it
    assert graph.natural([*ids, last]) == [*graph.natural(ids), len(ids)]


@given(st.lists(st.text(alphabet="019ab.٣", max_size=6), unique=True, max_size=12))
def test_natural_order_ranks_anything(ids: list[str]) -> None:
    assert sorted(graph.natural(ids)) == list(range(len(ids)))
