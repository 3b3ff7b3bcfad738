"""The engine deletes by itself what ended long ago: by its own clock, and while it does everything else."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import pytest

from dagbok import Dagbok
from dagbok.cluster import retention
from dagbok.errors import Misconfigured, StoreRejected
from dagbok.settings import load
from dagbok.store.journal import Journal
from dagbok.testing import FakeClock

DAY_S = 86_400


def _plan(*tasks: dict[str, Any]) -> dict[str, Any]:
    tasks = tasks or ({"id": 1, "tool_or_prompt": {"name": "extract_json", "params": {"data": 1, "expression": "@"}}},)
    return {"original_request": "r", "intent": {"primary": "p"}, "sub_tasks": list(tasks)}


def _engine(url: str, clock: FakeClock, **more: Any) -> Dagbok:
    return Dagbok(url, clock=clock, journal=clock.watch, **more)


def test_what_ended_long_ago_goes_and_nothing_else(database_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dagbok.store.retention.BATCH_ROWS", 20)  # two executions or three

    async def main() -> None:
        clock = FakeClock()
        async with _engine(database_url, clock, retention_days=1.5) as dagbok:
            old = [(await dagbok.run(_plan(), idempotency_key=f"key-{n}")).id for n in range(7)]
            question = {"id": 1, "action_type": "human", "tool_or_prompt": {"name": "human", "params": {"prompt": "?"}}}
            waits = (await dagbok.run(_plan(question))).id
            await clock.advance(DAY_S)
            young = (await dagbok.run(_plan())).id
            await clock.advance(DAY_S / 2 - 60)
            assert len(await dagbok.list()) == 9
            assert (await dagbok.submit(_plan(), idempotency_key="key-0")).execution_id == old[0]
            await clock.advance(2 * 3600)  # it looks once an hour
            assert {each.id for each in await dagbok.list()} == {waits, young}
            assert (await dagbok.submit(_plan(), idempotency_key="key-0")).execution_id not in old

    asyncio.run(main())


def test_without_the_setting_and_in_an_engine_that_goes_on_with_nothing_all_stays(database_url: str) -> None:
    async def main() -> None:
        clock = FakeClock()
        for more in ({}, {"retention_days": 0.01, "recover": False}):
            async with _engine(database_url, clock, **more) as dagbok:
                await dagbok.run(_plan())
                await clock.advance(DAY_S)
        async with _engine(database_url, clock) as dagbok:
            assert len(await dagbok.list()) == 2
        async with _engine(database_url, clock, retention_days=0.01) as dagbok:
            await clock.advance(0)  # what was due while no engine ran goes at once
            await clock.advance(60)
            assert await dagbok.list() == []

    asyncio.run(main())


def test_an_error_is_told_once_and_it_is_tried_again(
    database_url: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    refuses = True
    prune = Journal.prune

    def refusing(journal: Journal, before_ms: int, **more: Any) -> Any:
        if not refuses:
            return prune(journal, before_ms, **more)
        future = asyncio.get_running_loop().create_future()
        future.set_exception(StoreRejected("no"))
        return future

    monkeypatch.setattr(Journal, "prune", refusing)

    async def main() -> None:
        nonlocal refuses
        clock = FakeClock()
        with caplog.at_level(logging.INFO, "dagbok.retention"):
            async with _engine(database_url, clock, retention_days=1) as dagbok:
                await dagbok.run(_plan())
                await clock.advance(2 * DAY_S)
                assert len(await dagbok.list()) == 1
                refuses = False
                await clock.advance(3601)
                assert await dagbok.list() == []
        assert [record.levelname for record in caplog.records if record.name == "dagbok.retention"] == [
            "WARNING", "INFO"
        ]  # fmt: skip

    asyncio.run(main())


def test_closing_stops_it_between_two_batches(database_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """However much is left, and though its pause never ends: time stands still. The next engine goes on."""
    monkeypatch.setattr("dagbok.store.retention.BATCH_ROWS", 1)
    monkeypatch.setattr(retention, "_SHARE", 0.0)  # a disk that is slow for a moment makes no longer pause

    async def main() -> None:
        clock = FakeClock()
        async with _engine(database_url, clock) as dagbok:
            for _ in range(3):
                await dagbok.run(_plan())
        await clock.advance(DAY_S)
        async with _engine(database_url, clock, retention_days=0.5) as dagbok:
            await clock.timer_set(at_most=100 * retention.PAUSE_S)
            assert len(await dagbok.list()) == 2
        async with _engine(database_url, clock, retention_days=0.5) as dagbok:
            await clock.advance(3600)
            assert await dagbok.list() == []

    asyncio.run(main())


@pytest.mark.parametrize("days", ["0", "-1", "nan", "inf", "40000", "a month"])
def test_a_retention_that_makes_no_sense_is_refused(days: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DAGBOK_RETENTION_DAYS", days)
    with pytest.raises(Misconfigured, match="retention_days"):
        load()
