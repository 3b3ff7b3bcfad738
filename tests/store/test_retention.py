"""What ended long ago goes in batches, each whole, in the order in which they ended; nothing else does."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import contextmanager
from typing import Any

import pytest
import sqlalchemy as sa

from dagbok.domain.ids import ExecutionId
from dagbok.domain.states import ExecutionStatus
from dagbok.errors import StoreUnavailable
from dagbok.store import retention
from dagbok.store.database import Database
from dagbok.store.queries import Reader
from store import diary, processes
from store.test_deletion import rows

DAY_MS = 86_400_000

#: Prunes until it is killed in the middle of a batch: after so many statements that delete something.
KILLED = """
import os, signal, sys
import sqlalchemy as sa
from dagbok.store.database import Database
from dagbok.store.retention import Batch
database = Database.open(sys.argv[1])
left = int(sys.argv[2])
@sa.event.listens_for(database._engine, "after_cursor_execute")
def count(connection, cursor, statement, *_):
    global left
    left -= statement.startswith("DELETE")
    if not left:
        os.kill(os.getpid(), signal.SIGKILL)
last = None
while True:
    last = Batch(database, 2**60, after=last).run().last
    if last is None:
        break
"""


def fill(
    database: Database, ends: Sequence[int | None], *, status: str = "completed", tasks: int = 1
) -> list[ExecutionId]:
    """Write executions that ended at these times; None: not at all. Return their ids."""

    async def main() -> list[ExecutionId]:
        news = [diary.new_execution(tasks=map(str, range(tasks)), plan_hash=f"plan-{n}") for n in range(len(ends))]
        async with diary.journal(database) as journal:
            await asyncio.gather(*map(journal.create, news))
            for new, at in zip(news, ends, strict=True):
                if at is not None:
                    ended = diary.header(status, completed_at=at)
                    await journal.append(diary.changes(new.id, 1, diary.step("0"), header=ended, release=True))
        return [new.id for new in news]

    return asyncio.run(main())


def prune(database: Database, before_ms: int, **more: Any) -> list[int]:
    """Prune to the end and return how many executions each batch took."""
    taken: list[int] = []
    last = None
    while True:
        pruned = retention.Batch(database, before_ms, after=last, **more).run()
        if pruned.last is None:
            return taken
        taken.append(pruned.executions)
        last = pruned.last


def kept(database: Database, ids: Sequence[ExecutionId]) -> list[bool]:
    return [Reader(database).get_execution(id) is not None for id in ids]


def test_only_what_ended_before_that_time_goes(database: Database) -> None:
    ids = fill(database, [DAY_MS - 1, DAY_MS, None, DAY_MS + 1, 0])
    assert retention.count(database, DAY_MS) == 2
    assert prune(database, DAY_MS) == [2]
    assert kept(database, ids) == [False, True, True, True, False]
    assert retention.count(database, DAY_MS) == 0
    assert prune(database, 2**60) == [2]
    assert kept(database, ids) == [False, False, True, False, False]
    assert rows(database) == {"plans": 1, "dags": 1, "dag_executions": 1, "sub_steps": 1, "events": 1}


def test_only_those_in_the_states_that_are_named_go(database: Database) -> None:
    completed, failed = fill(database, [1, 1]), fill(database, [1], status="failed")
    wanted = {ExecutionStatus.FAILED, ExecutionStatus.PARTIAL}
    assert retention.count(database, DAY_MS, wanted) == 1
    assert prune(database, DAY_MS, statuses=wanted) == [1]
    assert kept(database, [*completed, *failed]) == [True, True, False]


def test_a_batch_is_bounded_in_rows_and_the_batches_take_all(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where many ended in the same millisecond, and where one alone has more rows than a batch may."""
    monkeypatch.setattr(retention, "BATCH_ROWS", 40)  # of executions with 8 rows, a few more with 50 sub-steps
    fill(database, [7] * 12)
    fill(database, [8], tasks=50)
    fill(database, [9] * 3)
    assert prune(database, DAY_MS) == [5, 5, 2, 1, 3]
    assert rows(database) == {}


def test_a_batch_is_found_by_its_index(database: Database) -> None:
    """SQLite would sort all that ended, for each batch anew, where it may look at the states first."""
    if not database.name.startswith("sqlite"):
        pytest.skip("the other one goes by statistics, which an empty database has none of")
    fill(database, [1])
    seen: list[tuple[str, Any]] = []
    listened = (
        database._engine,
        "before_cursor_execute",
        lambda _, __, text, values, *more: seen.append((text, values)),
    )
    sa.event.listen(*listened)
    retention.Batch(database, DAY_MS, statuses={ExecutionStatus.FAILED}, after=(0, ExecutionId(""))).run()
    sa.event.remove(*listened)
    text, values = next(each for each in seen if each[0].startswith("SELECT"))
    with database.reading() as connection:
        steps = [row[3] for row in connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {text}", values)]
    assert steps == ["SEARCH dag_executions USING INDEX ix_dag_executions_ended (completed_at>? AND completed_at<?)"]


def test_one_that_goes_on_again_meanwhile_stays(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever retries an execution at that very moment must not lose it."""
    ids = fill(database, [1, 2])
    batch = retention.Batch(database, DAY_MS)
    choose = batch._choose

    def choose_and_retry() -> Any:
        chosen = choose()
        fill_again = diary.changes(ids[1], 2, header=diary.header("running", completed_at=None))

        async def main() -> None:
            async with diary.journal(database) as journal:
                await journal.append(fill_again)

        asyncio.run(main())
        return chosen

    monkeypatch.setattr(batch, "_choose", choose_and_retry)
    assert batch.run().executions == 1
    assert kept(database, ids) == [False, True]


def test_a_batch_whose_outcome_nobody_knows_is_counted_once(database: Database) -> None:
    fill(database, [1, 2, 3])

    class Lost:
        """A database whose first commit happens, and nobody hears of it."""

        lost = False

        def __getattr__(self, name: str) -> Any:
            return getattr(database, name)

        @contextmanager
        def writing(self) -> Any:
            with database.writing() as connection:
                yield connection
            if not self.lost:
                self.lost = True
                raise StoreUnavailable

    batch = retention.Batch(Lost(), DAY_MS)  # type: ignore[arg-type] # stands in for a database
    with pytest.raises(StoreUnavailable):
        batch.run()
    assert batch.run().executions == 3
    assert rows(database) == {}


@pytest.mark.parametrize("statement", [1, 5, 9, 10, 14])
def test_a_kill_in_the_middle_of_a_batch_leaves_it_undone_and_the_next_one_goes_on(
    database: Database, database_url: str, statement: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An execution is there with all its rows, or it is gone with its dag and plan."""
    fill(database, [1] * 100)
    with processes.running(KILLED, database_url, str(statement)) as process:
        assert process.wait(30) == -9
    left = rows(database)
    number = left["dag_executions"]
    assert number == (100 if statement < 10 else 100 - retention.BATCH_ROWS // 8)
    assert left == {
        "plans": number, "dags": number, "dag_executions": number, "sub_steps": number, "events": 2 * number
    }  # fmt: skip
    assert sum(prune(database, DAY_MS)) == number
    assert rows(database) == {}
