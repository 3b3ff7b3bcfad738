from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from dagbok.llm.budget import halves, level

SIZES = st.lists(st.integers(0, 10_000), max_size=30)


@given(SIZES, st.integers(0, 50_000))
def test_the_shares_never_exceed_the_space(sizes: list[int], space: int) -> None:
    assert sum(min(size, level(sizes, space)) for size in sizes) <= space


@given(SIZES, st.integers(0, 50_000))
def test_the_share_is_as_large_as_it_can_be(sizes: list[int], space: int) -> None:
    share = level(sizes, space)
    if any(size > share for size in sizes):
        assert sum(min(size, share + 1) for size in sizes) > space


@given(SIZES, SIZES, st.integers(0, 50_000))
def test_two_groups_share_all_the_space_and_each_gets_its_least(
    first: list[int], second: list[int], space: int
) -> None:
    least = [sum(min(size, 160) for size in sizes) for sizes in (first, second)]
    if sum(least) > space:
        return
    one, other = halves(first, second, space, least=160)
    assert one + other == space
    assert one >= least[0]
    assert other >= least[1]
    if sum(first) + sum(second) <= space:
        assert one >= sum(first)
        assert other >= sum(second)
