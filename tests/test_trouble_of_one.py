"""What is wrong with one execution, or with one command, keeps no other waiting, and loses nothing that was asked."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from dagbok import Dagbok
from dagbok.domain.ids import ExecutionId
from dagbok.domain.secrets import Redactor
from dagbok.domain.states import ExecutionStatus
from dagbok.errors import Fenced, NotJson, StoreUnavailable
from dagbok.outside import Commander
from dagbok.store.database import Database
from dagbok.store.takeover import write_command
from dagbok.testing import FakeClock, Hang, ScriptedTool
from store import processes

HOUR_S = 3600


def _plan(*tasks: dict[str, Any]) -> dict[str, Any]:
    return {"original_request": "r", "intent": {"primary": "p"}, "sub_tasks": list(tasks)}


def _wait(seconds: float, *after: int) -> dict[str, Any]:
    return {"id": 1, "tool_or_prompt": {"name": "wait", "params": {"seconds": seconds}}, "dependencies": list(after)}


def _work(id: int = 2, *after: int) -> dict[str, Any]:
    return {"id": id, "tool_or_prompt": {"name": "work"}, "dependencies": list(after)}


QUESTION = {"id": "q", "action_type": "human", "tool_or_prompt": {"name": "human", "params": {"prompt": "Well?"}}}


async def _has_left(dagbok: Dagbok, execution_id: str) -> None:
    left = asyncio.Event()
    tell = dagbok.scheduler.on_parked
    assert tell is not None

    def parked(wake_at: int | None) -> None:
        tell(wake_at)
        left.set()

    dagbok.scheduler.on_parked = parked
    while dagbok.scheduler.get(ExecutionId(execution_id)) is not None:
        left.clear()
        await left.wait()
    dagbok.scheduler.on_parked = tell


@pytest.fixture
def commander(database_url: str) -> Iterator[Commander]:
    database = Database.open(database_url)
    yield Commander(database, redactor=Redactor({}), command="test")
    database.close()


def test_one_that_cannot_be_read_back_leaves_the_others_their_timers_commands_and_starts(tmp_path: Path) -> None:
    file = tmp_path / "dagbok.db"
    url = f"sqlite:///{file}"
    large = ScriptedTool("work", lambda _: "x" * 1_200_000, effect="pure")
    ids: list[str] = []

    async def main() -> None:
        clock = FakeClock()
        async with Dagbok(url, tools=[large], clock=clock, journal=clock.watch) as dagbok:
            for _ in range(3):
                ids.append((await dagbok.submit(_plan(_work(), _wait(HOUR_S, 2)))).execution_id)
                await _has_left(dagbok, ids[-1])
                await clock.advance(1)
            broken, sound, cancelled = ids
            with sqlite3.connect(file) as connection:
                connection.execute("UPDATE blobs SET data = x'ff' WHERE execution_id = ?", (broken,))
            connection.close()
            database = Database.open(url)
            await asyncio.to_thread(write_command, database, ExecutionId(broken), "cancel", {}, None, at_ms=0)
            await asyncio.to_thread(write_command, database, ExecutionId(cancelled), "cancel", {}, None, at_ms=0)
            database.close()
            assert (await dagbok.wait(cancelled)).status is ExecutionStatus.CANCELLED
            assert (await clock.run(dagbok.wait(sound))).status is ExecutionStatus.COMPLETED
        async with Dagbok(url, tools=[large], clock=clock) as dagbok:
            submitted = await dagbok.submit(_plan(_work()))
            assert (await dagbok.wait(submitted.execution_id)).status is ExecutionStatus.COMPLETED

    asyncio.run(main())


def test_a_command_that_is_refused_leaves_the_others_to_be_applied(tmp_path: Path) -> None:
    file = tmp_path / "dagbok.db"
    url = f"sqlite:///{file}"

    async def main() -> None:
        async with Dagbok(url) as dagbok:
            one, other = [(await dagbok.submit(_plan(QUESTION))).execution_id for _ in range(2)]
            await dagbok.wait(one)
            await dagbok.wait(other)
        with sqlite3.connect(file) as connection:
            connection.execute(
                "CREATE TRIGGER refuses BEFORE UPDATE ON dag_executions WHEN NEW.status = 'cancelled'"
                f" AND NEW.id = '{one}' BEGIN SELECT RAISE(ABORT, 'no'); END"
            )
        connection.close()
        async with Dagbok(url, recover=False) as dagbok:
            await dagbok.service.cancel(one)  # it is durable, so it is accepted
            assert (await dagbok.cancel(other)).status is ExecutionStatus.CANCELLED
            assert (await dagbok.get(one)).status is ExecutionStatus.WAITING

    asyncio.run(main())


def test_what_is_durable_is_accepted_though_the_database_goes_away_right_then(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def main() -> None:
        async with Dagbok(database_url) as dagbok:
            id = (await dagbok.submit(_plan(QUESTION))).execution_id
            await dagbok.wait(id)
            reads = dagbok.service.reader.pending_commands
            left = 1

            def away(*ids: Any) -> Any:
                nonlocal left
                left -= 1
                if left >= 0:
                    raise StoreUnavailable("It went away just now.")
                return reads(*ids)

            monkeypatch.setattr(dagbok.service.reader, "pending_commands", away)
            await dagbok.answer(id, "q", {"input": "yes"})
            assert (await dagbok.wait(id)).status is ExecutionStatus.COMPLETED
            assert left < 0

    asyncio.run(main())


def test_a_name_that_no_database_holds_is_refused_before_the_answer_is_written(database_url: str) -> None:
    async def main() -> None:
        async with Dagbok(database_url) as dagbok:
            id = (await dagbok.submit(_plan(QUESTION))).execution_id
            await dagbok.wait(id)
            with pytest.raises(NotJson):
                await dagbok.answer(id, "q", {"input": "yes"}, by="a\0b")
            await dagbok.answer(id, "q", {"input": "yes"}, by="ann")
            assert (await dagbok.wait(id)).status is ExecutionStatus.COMPLETED

    asyncio.run(main())


def test_a_command_that_somebody_else_applied_meanwhile_is_not_applied_again(
    database_url: str, commander: Commander
) -> None:
    async def main() -> None:
        clock = FakeClock()
        async with Dagbok(database_url, clock=clock) as dagbok:
            id = (await dagbok.submit(_plan(_wait(HOUR_S)))).execution_id
            await _has_left(dagbok, id)
            worker = dagbok._worker
            assert worker is not None
            read = asyncio.Event()
            loop = asyncio.get_running_loop()
            reads = dagbok.service.reader.pending_commands

            def tells(*ids: Any) -> Any:
                found = reads(*ids)
                if found:
                    loop.call_soon_threadsafe(read.set)
                return found

            dagbok.service.reader.pending_commands = tells  # type: ignore[assignment]
            async with worker._claiming:  # others are taken over
                await asyncio.to_thread(commander.write, id, "pause", None)
                hearing = asyncio.ensure_future(worker.hear())
                await read.wait()
                await commander.apply(id)
                await asyncio.to_thread(commander.write, id, "resume", None)
                await commander.apply(id)
            await hearing
            await _has_left(dagbok, id)
            kinds = [event["type"] for event in dagbok.service.events(id)]
            assert kinds.count("execution.paused") == 1
            assert dagbok.service.execution(id)["paused_at"] is None

    asyncio.run(main())


class _Refused:
    """A journal that is told at its first claim that somebody else was faster."""

    def __init__(self, journal: Any) -> None:
        self._journal = journal
        self._claims = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._journal, name)

    def claim(self, id: ExecutionId, owner: str) -> Any:
        self._claims += 1
        if self._claims > 1:
            return self._journal.claim(id, owner)
        refused = asyncio.get_running_loop().create_future()
        refused.set_exception(Fenced("Somebody else was faster.", execution_id=id))
        return refused


def test_of_two_who_claim_at_once_the_engine_asks_again(database_url: str) -> None:
    async def main() -> None:
        hangs = ScriptedTool("work", [Hang()], effect="pure")
        async with Dagbok(database_url, tools=[hangs], close_grace_s=0) as dagbok:
            id = (await dagbok.submit(_plan(_work()))).execution_id
            await hangs.called()
        works = ScriptedTool("work", [1], effect="pure")
        async with Dagbok(database_url, tools=[works], journal=_Refused) as dagbok:  # type: ignore[arg-type]
            assert (await dagbok.wait(id)).status is ExecutionStatus.COMPLETED

    asyncio.run(main())


class _Held:
    """A journal whose commits of commands wait until they are let go."""

    def __init__(self, journal: Any) -> None:
        self.journal = journal
        self.goes_on = asyncio.Event()

    def __getattr__(self, name: str) -> Any:
        return getattr(self.journal, name)

    def append(self, changes: Any) -> Any:
        if not changes.commands:
            return self.journal.append(changes)

        async def later() -> None:
            await self.goes_on.wait()
            await self.journal.append(changes)

        return asyncio.ensure_future(later())


def test_what_was_asked_of_an_execution_that_was_lost_is_asked_again(database_url: str, commander: Commander) -> None:
    """Whoever took it died before they had applied anything."""

    async def main() -> None:
        held: list[_Held] = []

        def holding(journal: Any) -> Any:
            held.append(_Held(journal))
            return held[0]

        hangs = ScriptedTool("work", [Hang(), Hang()], effect="pure")
        async with Dagbok(database_url, tools=[hangs], journal=holding, close_grace_s=0) as dagbok:
            id = ExecutionId((await dagbok.submit(_plan(_work()))).execution_id)
            await hangs.called()
            await asyncio.to_thread(commander.write, id, "cancel", "ann")
            assert dagbok._worker is not None
            await dagbok._worker.hear()  # applied in memory; its commit is under way
            await held[0].journal.claim(id, "somebody who dies")
            lost = asyncio.ensure_future(dagbok.scheduler.wait(id))
            await asyncio.sleep(0)
            held[0].goes_on.set()
            with pytest.raises(Fenced):
                await lost
            cancelled = asyncio.Event()
            dagbok.scheduler.subscribe(lambda execution, _: cancelled.set() if execution.ended else None)
            if not dagbok.service.reader.pending_commands([id]):
                cancelled.set()
            await cancelled.wait()
            assert (await dagbok.get(id)).status is ExecutionStatus.CANCELLED

    asyncio.run(main())


@pytest.mark.parametrize("then", ["cancelled", "due"])
def test_those_who_wait_for_one_that_cannot_run_here_are_told(database_url: str, then: str) -> None:
    async def main() -> None:
        clock = FakeClock()
        works = ScriptedTool("work", [1], effect="pure")
        async with Dagbok(database_url, tools=[works], clock=clock) as dagbok:
            id = (await dagbok.submit(_plan(_wait(HOUR_S), _work(2, 1)))).execution_id
            await _has_left(dagbok, id)
        async with Dagbok(database_url, clock=clock) as dagbok:  # which does not have the tool
            if then == "cancelled":
                assert (await dagbok.cancel(id)).status is ExecutionStatus.CANCELLED
            else:
                waiting = asyncio.ensure_future(dagbok.wait(id))
                await clock.timer_set(at_least=HOUR_S)
                await clock.advance(HOUR_S)
                assert (await waiting).status is ExecutionStatus.RUNNING

    asyncio.run(main())


DIES = """
import asyncio, os, sys
from dagbok import Dagbok, tool

def die() -> None:
    os.kill(os.getpid(), 9)

async def main():
    async with Dagbok(sys.argv[1], tools=[tool(effect="pure")(die)], command="dies") as dagbok:
        if len(sys.argv) == 2:
            await dagbok.submit({
                "original_request": "r", "intent": {"primary": "p"},
                "sub_tasks": [{"id": 1, "tool_or_prompt": {"name": "die"}}],
            })
        for row in await dagbok.list():
            execution = await dagbok.wait(row.id)
            print(execution["1"].error_code, flush=True)

asyncio.run(main())
"""


def test_a_tool_that_kills_its_process_at_once_fails_in_the_end(database_url: str) -> None:
    """Where an earlier process died, no body begins before its start is durable: else every start would end so."""
    deaths = 0
    for life in range(6):
        with processes.running(DIES, database_url, *["again"] * (life > 0)) as process:
            said, ended = processes.line(process), process.wait(30)
        if ended == 0:
            break
        assert ended == -9
        deaths += 1
    assert (said, ended) == ("crash_loop", 0)
    assert 3 <= deaths <= 4
