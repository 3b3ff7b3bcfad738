"""25 processes are killed at random moments, on each database; `make chaos` kills many more."""

from __future__ import annotations

import os
import random
from collections.abc import Iterator
from pathlib import Path

import pytest

import postgres
from chaos.campaign import KILLS_PER_ROUND, command
from chaos.looks import Place, PostgreSQL, SQLite
from chaos.round import Round
from chaos.zygote import Zygote


@pytest.fixture(params=["sqlite", "postgresql"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Place]:
    if request.param == "sqlite":
        yield SQLite(tmp_path)
        return
    server: postgres.Server = request.getfixturevalue("postgres_server")
    made = PostgreSQL(server)
    yield made
    made.remove()


def test_nothing_is_lost_and_nothing_done_runs_twice_though_processes_are_killed(place: Place, tmp_path: Path) -> None:
    seed = int(os.environ.get("DAGBOK_CHAOS_SEED") or random.SystemRandom().randrange(10**6))
    with Zygote() as zygote:
        figures = Round(place, seed, KILLS_PER_ROUND, tmp_path, zygote).run()
    told = "\n".join(map(str, figures.violations[:20]))
    assert not figures.violations, f"seed {seed}, files in {tmp_path}:\n{told}\nrepeat: {command(place.kind, seed)}"
    counts = figures.counts
    assert counts["kills"] >= KILLS_PER_ROUND
    # A campaign in which nothing happened would show nothing.
    assert counts["executions completed"]
    assert counts["attempts interrupted"]
    assert counts["started again"]
    assert counts["questions approval"]
