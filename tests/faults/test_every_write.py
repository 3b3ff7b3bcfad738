"""A crash before and after every write of random plans: the next engine ends each of them right, on both databases.

The journal dies at write 1, 2, 3, ... of the same plan, until the plan ends without; the engine after it may die too.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dagbok.testing import plans
from faults.lives import MOMENTS, When, World

LONG = os.environ.get("DAGBOK_CHAOS") == "1"
#: What people are asked, beside questions that wait for ever.
PEOPLE: dict[str, Any] = {"approvals": True, "answer_within": st.sampled_from([2, 20])}


@pytest.fixture
def world(database_url: str) -> Iterator[World]:
    opened = World(database_url)
    yield opened
    opened.close()


@settings(
    max_examples=40 if LONG else 2, deadline=None, derandomize=not LONG,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)  # fmt: skip
@given(
    document=plans(
        min_tasks=2, max_tasks=6, policies=("fail", "skip", "default"), waits=st.sampled_from([0.5, 30]),
        retries=st.sampled_from([{"max_attempts": 2}, {"backoff_seconds": 0}, {"backoff_seconds": 60}]), **PEOPLE,
    ),
    seed=st.integers(0, 999),
)  # fmt: skip
def test_a_crash_before_or_after_any_write_of_any_plan_leaves_what_ends_right(
    world: World, document: dict[str, Any], seed: int
) -> None:
    world.seed = seed
    for moment in MOMENTS:
        id, deaths = world.live(document, [moment])
        assert id is not None or moment == (1, "before"), "what was accepted is lost"
        if not deaths:
            return
    raise AssertionError("it never ends without a death")


@settings(
    max_examples=60 if LONG else 6, deadline=None, derandomize=not LONG,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)  # fmt: skip
@given(
    document=plans(min_tasks=2, max_tasks=8, waits=st.sampled_from([0.5, 30]), **PEOPLE),
    seed=st.integers(0, 999),
    deaths=st.lists(st.tuples(st.integers(1, 9), st.sampled_from(["before", "after"])), min_size=2, max_size=6),
)
def test_life_after_life_may_end_early_and_the_last_one_ends_it_right(
    world: World, document: dict[str, Any], seed: int, deaths: list[tuple[int, When]]
) -> None:
    """Also while it takes over what the last one left."""
    world.seed = seed
    world.live(document, [(at + 1 if number == 0 else at, when) for number, (at, when) in enumerate(deaths)])


@settings(
    max_examples=40 if LONG else 2, deadline=None, derandomize=not LONG,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)  # fmt: skip
@given(document=plans(min_tasks=2, max_tasks=5, waits=st.sampled_from([0.5, 30]), **PEOPLE), seed=st.integers(0, 999))
def test_what_was_lost_runs_again_once_however_often_it_is_killed(
    world: World, document: dict[str, Any], seed: int
) -> None:
    """Retried twice, with a death at every write before, in and after that; what has completed stays."""
    world.seed, world.retries = seed, 2
    for moment in MOMENTS:
        id, deaths = world.live(document, [moment])
        assert id is not None or moment == (1, "before"), "what was accepted is lost"
        if not deaths:
            return
    raise AssertionError("it never ends without a death")
