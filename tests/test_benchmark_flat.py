"""What `flat.py` counts, and which plans it runs."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from benchmarks import flat
from benchmarks.workloads import layers


def test_the_wait_of_an_execution_is_counted_from_its_own_acceptance(tmp_path: Path) -> None:
    """Counted from the beginning of all, a steady queue always ends at twice its median, whatever the engine does."""
    [row] = asyncio.run(flat.delays(f"sqlite:///{tmp_path}/d.db", 20, often=True))
    assert row["executions"] == 20
    assert 0 <= row["own_median_s"] <= row["own_p99_s"] <= row["own_worst_s"] < row["last_s"]


@pytest.mark.parametrize("shape", list(flat.SHAPES))
def test_a_flat_plan_has_as_many_steps_as_it_says_and_none_takes_time(shape: str) -> None:
    plan = flat.SHAPES[shape](1_000).plan("words", "hang")
    assert len(plan["sub_tasks"]) == 1_000
    assert {task["tool_or_prompt"]["name"] for task in plan["sub_tasks"]} == {"hang"}
    assert plan["original_request"] == "words"
    assert layers(2, 2).seconds == {}
