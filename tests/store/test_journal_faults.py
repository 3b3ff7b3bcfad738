"""The journal when things go wrong: other owners, lost answers, bad rows, a database that is away. The same on both."""

from __future__ import annotations

import asyncio
import logging
import threading
from typing import Any

import psycopg
import pytest

from dagbok.domain.records import Changes
from dagbok.domain.values import JsonText
from dagbok.errors import DatabaseInUse, Fenced, OutcomeUnknown, StoreRejected
from dagbok.store.database import Database
from dagbok.store.journal import Journal
from dagbok.store.queries import Reader
from store import diary, faults


@pytest.fixture
def faulty(database: Database) -> Any:
    return faults.FaultyDatabase(database)


def test_an_old_owner_writes_nothing_and_learns_it(database: Database) -> None:
    """Two journals stand for two processes; the batch's other executions go on."""
    taken, kept = diary.new_execution(), diary.new_execution()

    async def main() -> None:
        async with diary.journal(database) as old, diary.journal(database) as young:
            await old.create(taken)
            await old.create(kept)
            stored = await young.claim(taken.id, "engine-2")
            assert stored.epoch == 2
            refused = old.append(diary.changes(taken.id, 1, diary.step("1", result=JsonText('"old"'))))
            other = old.append(diary.changes(kept.id, 1, diary.step("1")))
            with pytest.raises(Fenced) as fenced:
                await refused
            assert fenced.value.execution_id == taken.id
            await other
            await young.append(diary.changes(taken.id, 1, diary.step("2"), epoch=2))

    asyncio.run(main())
    reader = Reader(database)
    assert [(step["task_id"], step["status"]) for step in reader.sub_steps(taken.id)] == [
        ("1", "pending"), ("2", "completed"), ("10", "pending"),
    ]  # fmt: skip
    assert len(reader.events(taken.id)) == len(reader.events(kept.id)) == 2


def test_an_owner_with_a_wrong_event_number_is_fenced_too(database: Database) -> None:
    new = diary.new_execution()

    async def main() -> None:
        async with diary.journal(database) as journal:
            await journal.create(new)
            with pytest.raises(Fenced):
                await journal.append(diary.changes(new.id, 5, diary.step("1")))

    asyncio.run(main())


def test_of_two_that_claim_at_once_each_gets_an_epoch_of_its_own_or_learns_it(database: Database) -> None:
    new = diary.new_execution()

    async def main() -> None:
        async with diary.journal(database) as one, diary.journal(database) as two:
            await one.create(new)
            for _ in range(10):
                claims = await asyncio.gather(one.claim(new.id, "a"), two.claim(new.id, "b"), return_exceptions=True)
                epochs = [claim.epoch for claim in claims if not isinstance(claim, BaseException)]
                assert len(set(epochs)) == len(epochs) >= 1
                assert all(isinstance(claim, Fenced) for claim in claims if isinstance(claim, BaseException))

    asyncio.run(main())


@pytest.mark.parametrize("happened", [True, False], ids=["commit-happened", "commit-did-not"])
def test_a_commit_without_an_answer_is_settled_by_the_rows(faulty: Any, happened: bool) -> None:
    """Both an append and a create: written once, acknowledged once."""
    old, new = diary.new_execution(), diary.new_execution()

    def lose(committed: bool) -> None:
        if committed is happened:
            raise faults.away(faulty)

    async def main() -> None:
        async with diary.journal(faulty) as journal:
            await journal.create(old)
            faulty.faults.append(lose)
            created, appended = journal.create(new), journal.append(diary.changes(old.id, 1, diary.step("1")))
            assert not (await created).existing
            await appended
            assert journal.available
            await journal.append(diary.changes(old.id, 2, diary.step("2")))

    asyncio.run(main())
    reader = Reader(faulty)
    assert [event["seq"] for event in reader.events(old.id)] == [1, 2, 3]
    assert len(reader.events(new.id)) == 1
    assert len(reader.sub_steps(new.id)) == 3


def test_progress_alone_may_be_written_twice(faulty: Any) -> None:
    """It moves no event number, so the rows cannot tell whether it happened; repeating it changes nothing."""
    new = diary.new_execution()

    def lose(committed: bool) -> None:
        if committed:
            raise faults.away(faulty)

    report = diary.step("1", "running", progress=JsonText('{"fraction":0.5}'))
    progress = diary.changes(new.id, 1, report, seq_after=1, events=())

    async def main() -> None:
        async with diary.journal(faulty) as journal:
            await journal.create(new)
            faulty.faults.append(lose)
            await journal.append(progress)

    asyncio.run(main())
    assert Reader(faulty).sub_steps(new.id)[0]["progress"] == '{"fraction":0.5}'


def bad_changes(kind: str, changes: Changes) -> Changes:
    rows = {
        "check": diary.step("1", "completed", completed_at=None),
        "word": diary.step("1", "nonsense"),
        "missing": diary.step("no-such-task"),
        "surrogate": diary.step("1", error="\ud800"),
        "integer": diary.step("1", duration_ms=2**70),
        "type": diary.step("1", error=object()),
    }
    return diary.changes(changes.execution_id, 1, rows[kind])


@pytest.mark.parametrize("kind", ["check", "word", "missing", "surrogate", "integer", "type"])
@pytest.mark.parametrize("many", [1, 40], ids=["few-rows", "many-rows"])
def test_refused_data_fails_its_own_execution_alone(faulty: Any, kind: str, many: int) -> None:
    news = [diary.new_execution() for _ in range(many + 2)]
    bad = {1, many} if many > 1 else {1}
    hold, held = threading.Event(), threading.Event()

    def wait(committed: bool) -> None:
        if not committed:
            held.set()
            assert hold.wait(10)

    async def main() -> None:
        async with diary.journal(faulty) as journal:
            await asyncio.gather(*(journal.create(new) for new in news))
            # While this commit is in flight, the others gather for one batch.
            faulty.faults.append(wait)
            first = journal.create(diary.new_execution())
            await asyncio.to_thread(held.wait, 10)
            good = [diary.changes(new.id, 1, diary.step("1")) for new in news]
            futures = [
                journal.append(bad_changes(kind, changes) if index in bad else changes)
                for index, changes in enumerate(good)
            ]
            hold.set()
            await first
            outcomes = await asyncio.gather(*futures, return_exceptions=True)
            assert [isinstance(outcome, StoreRejected) for outcome in outcomes] == [n in bad for n in range(len(news))]
            assert {outcome for outcome in outcomes if not isinstance(outcome, StoreRejected)} == {None}
            # Nothing was written of it, and its owner may go on with better rows.
            await journal.append(good[1])

    asyncio.run(main())


def test_the_words_of_the_database_reach_the_culprit(database: Database) -> None:
    new = diary.new_execution()

    async def main() -> None:
        async with diary.journal(database) as journal:
            await journal.create(new)
            with pytest.raises(StoreRejected, match="ck_sub_steps_state"):
                await journal.append(diary.changes(new.id, 1, diary.step("1", completed_at=None)))
            with pytest.raises(StoreRejected, match="ck_dag_executions_state"):
                await journal.append(diary.changes(new.id, 1, header=diary.header("completed")))

    asyncio.run(main())


def test_a_database_that_comes_back_gets_what_it_missed(faulty: Any, caplog: pytest.LogCaptureFixture) -> None:
    """Its outage is logged once at the start and once at the end, and readiness shows it."""
    new = diary.new_execution()
    seen: list[bool] = []
    caplog.set_level(logging.INFO, "dagbok.journal")

    def lose(committed: bool) -> None:
        if not committed:
            faulty.unreachable = 2
            raise faults.away(faulty)

    def look(committed: bool) -> None:
        seen.append(journals[0].available)

    journals: list[Any] = []

    async def main() -> None:
        async with diary.journal(faulty) as journal:
            journals.append(journal)
            faulty.faults.extend([lose, look])
            await journal.create(new)
            assert journal.available

    asyncio.run(main())
    assert seen == [False, False]
    assert [record.levelname for record in caplog.records] == ["WARNING", "INFO"]
    assert Reader(faulty).get_execution(new.id) is not None


def test_closing_gives_up_on_a_database_that_stays_away(faulty: Any) -> None:
    async def main() -> None:
        async with diary.journal(faulty, close_timeout_s=0.2) as journal:
            faulty.unreachable = 10**9
            futures: list[asyncio.Future[Any]] = [
                journal.create(diary.new_execution()),
                journal.claim(diary.execution_id(1), "x"),
            ]
            await journal.close()
            for future in futures:
                with pytest.raises(OutcomeUnknown):
                    await future

    asyncio.run(main())


def test_a_closing_that_is_cancelled_waits_for_what_is_being_written(faulty: Any) -> None:
    """Whoever cancelled it lets go of the lock next: nothing may be written after that."""
    hold, held = threading.Event(), threading.Event()

    def wait(committed: bool) -> None:
        if not committed:
            held.set()
            assert hold.wait(10)

    async def main() -> None:
        journal = Journal(faulty)
        journal.start()
        faulty.faults.append(wait)
        created = journal.create(diary.new_execution())
        await asyncio.to_thread(held.wait, 10)
        closing = asyncio.ensure_future(journal.close())
        ended = False
        for _ in range(3):  # as often as somebody likes
            await asyncio.sleep(0)
            closing.cancel()
            await asyncio.sleep(0)
            ended |= closing.done()
        hold.set()
        assert not ended
        with pytest.raises(asyncio.CancelledError):
            await closing
        assert not (await created).existing

    asyncio.run(main())


def test_killed_sessions_are_replaced(postgres_url: str) -> None:
    """PostgreSQL ends every session, the engine's lock too: the journal takes it again and goes on."""
    database = Database.open(postgres_url)
    news = [diary.new_execution() for _ in range(30)]
    lock = database.engine_lock()
    lock.acquire(command="test")

    def kill() -> None:
        with psycopg.connect(database.name, autocommit=True) as connection:
            connection.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                "WHERE datname = current_database() AND pid <> pg_backend_pid()"
            )

    async def main() -> None:
        async with diary.journal(database, lock=lock) as journal:
            await asyncio.gather(*(journal.create(new) for new in news))
            for seq in range(1, 6):
                futures = [journal.append(diary.changes(new.id, seq, diary.step("1", attempt=seq))) for new in news]
                await asyncio.to_thread(kill)
                await asyncio.gather(*futures)
            # The last kill may have come after the last write; the next one takes the lock again before it writes.
            await journal.append(diary.changes(news[0].id, 6, diary.step("1", attempt=6)))
            assert not lock.lost()

    asyncio.run(main())
    lock.release()
    for new in news:
        last = 7 if new is news[0] else 6
        assert [event["seq"] for event in Reader(database).events(new.id)] == list(range(1, last + 1))
    database.close()


def test_a_lock_taken_by_another_stops_all_writing(database: Database) -> None:
    class Stolen:
        def lost(self) -> bool:
            return True

        def reacquire(self) -> None:
            raise DatabaseInUse("Process 7 has it.")

    new = diary.new_execution()

    async def main() -> None:
        async with diary.journal(database, lock=Stolen()) as journal:
            with pytest.raises(Fenced, match="Process 7"):
                await journal.append(diary.changes(new.id, 1))
            with pytest.raises(DatabaseInUse):
                await journal.claim(new.id, "x")
            assert not journal.available

    asyncio.run(main())
