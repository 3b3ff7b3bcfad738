"""Recovery that is broken on purpose, in one way after the other: crashes at every write of one plan show each.

What needs a kill in the middle of a transaction, or more deaths than one, is shown by `chaos.breakages`.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from chaos.breakages import broken
from faults.lives import MOMENTS, World

#: Each, and the seed of what the tools do that shows it first.
BREAKAGES = {
    "forgets_completed_steps": 0,
    "forgets_results": 0,
    "forgets_what_is_ready": 0,
    "forgets_open_questions": 0,
    "repeats_steps_that_may_run_once": 0,
    "takes_what_was_cut_off_for_done": 0,
    "leaves_cut_off_attempts_open": 0,
    "writes_no_cut_off_attempts": 0,
    "sets_no_timer_again": 0,
    "forgets_back_offs": 1,
    "counts_failures_anew": 3,
    "never_wakes_what_was_parked": 0,
    "parks_without_a_time": 0,
    "recovers_nothing": 0,
    "starts_once_bodies_before_their_start_is_durable": 0,
    "says_durable_before_the_commit": 0,
    "forgets_approvals": 0,
    "forgets_overrides": 0,
    "lets_no_time_be_over": 0,
}


def _task(id: str, name: str, params: dict[str, Any], *after: str, **more: Any) -> dict[str, Any]:
    return {"id": id, "tool_or_prompt": {"name": name, "params": params}, "dependencies": list(after), **more}


#: One of each: what recovery has to bring back.
PLAN: dict[str, Any] = {
    "original_request": "one of each",
    "intent": {"primary": "test"},
    "sub_tasks": [
        _task("t0", "idempotent", {}, retry={"max_attempts": 2, "backoff_seconds": 60}),
        _task("t1", "once", {"of0": "{{ tasks.t0.result }}"}),
        _task("t2", "wait", {"seconds": 30}, "t0"),
        _task("t3", "pure", {"of2": "{{ tasks.t2.result }}"}, "t1", on_failure="skip"),
        _task("t4", "human", {"prompt": "Which?"}, "t0", action_type="human"),
        _task("t5", "pure", {"of4": "{{ tasks.t4.result }}"}, "t3"),
        _task("t6", "human", {"prompt": "When?"}, action_type="human", timeout_seconds=20, on_timeout="skip"),
        _task("t7", "idempotent", {"of0": "{{ tasks.t0.result }}"}, requires_approval=True),
    ],
}


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    opened = World(f"sqlite:///{tmp_path}/dagbok.db")
    yield opened
    opened.close()


def crash_everywhere(world: World) -> None:
    """Let one life after the other crash at every write of the plan, until one does not."""
    for moment in MOMENTS:
        _, deaths = world.live(PLAN, [moment])
        if not deaths:
            return


@pytest.mark.parametrize("seed", sorted(set(BREAKAGES.values())))
def test_of_an_engine_that_is_whole_nothing_is_seen(world: World, seed: int) -> None:
    world.seed = seed
    crash_everywhere(world)


@pytest.mark.parametrize("name", BREAKAGES)
def test_it_is_seen(world: World, name: str) -> None:
    world.seed = BREAKAGES[name]
    world.patience_s = 3  # a whole life takes a tenth of a second
    with broken(name), pytest.raises(AssertionError):
        crash_everywhere(world)
