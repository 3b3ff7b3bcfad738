"""A deletion takes all that only the deleted executions needed, and nothing that somebody else is about to need."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import pytest
import sqlalchemy as sa

from dagbok.domain.ids import DagId, ExecutionId, TaskId
from dagbok.domain.records import AttemptRow, Changes, NewExecution, QuestionRow
from dagbok.domain.values import JsonText
from dagbok.errors import Conflict, Fenced
from dagbok.store import deletion, schema, takeover
from dagbok.store.database import Database
from dagbok.store.queries import Reader
from dagbok.store.writer import Statement, Writer
from store import diary


def rows(database: Database) -> dict[str, int]:
    """Return how many rows each table has that has any."""
    with database.reading() as connection:
        counts = {
            table.name: connection.execute(sa.select(sa.func.count()).select_from(table)).scalar_one()
            for table in schema.metadata.sorted_tables
        }
    del counts["schema_info"]
    return {name: count for name, count in counts.items() if count}


def create(database: Database, *new: NewExecution) -> None:
    async def main() -> None:
        async with diary.journal(database) as journal:
            await asyncio.gather(*map(journal.create, new))

    asyncio.run(main())


def remove(database: Database, *ids: str) -> deletion.Removed:
    with database.writing() as connection:
        return deletion.remove(connection, list(map(ExecutionId, ids)), measured_by=database)


def test_a_deletion_leaves_no_row_in_any_table(database: Database) -> None:
    new = diary.new_execution()
    large = JsonText('"' + "a" * 2**21 + '"')
    asked = QuestionRow(TaskId("2"), 1, "human", "Sure?", None, None, None, diary.NOW, None, None, None, None)
    tried = AttemptRow(TaskId("1"), 1, "failed", "no", "x", diary.NOW, diary.NOW, None, None)

    async def main() -> None:
        async with diary.journal(database) as journal:
            await journal.create(new)
            changes = diary.changes(new.id, 1, diary.step("1", result=large), questions=[asked], attempts=[tried])
            await journal.append(changes)
            await journal.write_command(new.id, "cancel", {}, "ann", at_ms=0)

    asyncio.run(main())
    assert set(rows(database)) == {table.name for table in schema.metadata.sorted_tables} - {"schema_info"}
    removed = remove(database, new.id, "dag-exec_nobody")
    assert (set(removed.ids), removed.sub_steps) == ({new.id}, 3)
    if database.name.startswith("postgresql"):
        assert removed.freed_bytes is not None
        assert removed.freed_bytes > 2**14, "a large value counts as it is stored, packed"
    assert rows(database) == {}


def test_a_plan_stays_for_as_long_as_an_execution_or_a_dag_refers_to_it(database: Database) -> None:
    one, two = diary.new_execution(), diary.new_execution()
    other = diary.new_execution(plan_hash="another-plan")
    create(database, one, two, other)
    remove(database, one.id)
    assert (rows(database)["plans"], rows(database)["dags"]) == (2, 2)
    remove(database, two.id)
    assert (rows(database)["plans"], rows(database)["dags"]) == (1, 1)
    assert Reader(database).plan(other.id) == other.plan
    remove(database, other.id)
    assert rows(database) == {}


def test_a_dag_goes_with_the_last_of_its_executions(database: Database) -> None:
    first = diary.new_execution()
    again = diary.new_execution(dag_id=first.dag_id, new_dag=False)
    create(database, first)
    create(database, again)
    remove(database, first.id)
    assert Reader(database).plan(first.dag_id) == first.plan
    remove(database, again.id)
    assert rows(database) == {}


def test_a_dag_that_was_planned_stays_with_its_plan(database: Database) -> None:
    """Its planning has cost something, and whoever made it may run it again."""
    new = diary.new_execution()
    create(database, new)
    with database.writing() as connection:
        connection.execute(sa.update(schema.dags).values(planning_attempts=1))
    remove(database, new.id)
    assert rows(database) == {"plans": 1, "dags": 1}


def test_one_that_has_not_ended_stays_where_only_ended_ones_may_go(database: Database) -> None:
    new = diary.new_execution()
    create(database, new)
    with pytest.raises(Conflict, match=r"is pending; cancel it .* or delete it with force"):
        takeover.delete(database, new.id, only_ended=True)
    before = rows(database)
    with database.writing() as connection:
        assert not deletion.remove(connection, [new.id], *deletion.ended_before(2**60)).ids
    assert rows(database) == before


# -- at the same moment -----------------------------------------------------------------------------------------------


class Side:
    """Work in a thread of its own, and whether it waits for a lock."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._pool = ThreadPoolExecutor(1)
        self._future: Future[Any] | None = None

    def start(self, *work: Any) -> None:
        self._future = self._pool.submit(*work)

    def until_it_waits(self) -> None:
        """Return once it is done, or waits for what this process holds. SQLite does not tell of those who wait."""
        deadline = time.monotonic() + 30
        while self._database.name.startswith("postgresql") and not (self._future and self._future.done()):
            with self._database.reading() as connection:
                waiting = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'"
                if connection.exec_driver_sql(f"{waiting} AND datname = current_database()").scalar_one():
                    return
            assert time.monotonic() < deadline, "it neither ends nor waits"
            time.sleep(0.01)

    def result(self) -> Any:
        assert self._future is not None
        return self._future.result(30)


@contextmanager
def side(database: Database) -> Iterator[Side]:
    made = Side(database)
    yield made
    made._pool.shutdown()


def test_a_plan_is_not_taken_from_under_a_submission_that_found_it(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The submission has seen that the plan is there, and wrote nothing yet that refers to it."""
    old, new = diary.new_execution(), diary.new_execution()
    create(database, old)
    run, met = Writer.run, threading.Event()

    with side(database) as deleting:

        def held(writer: Writer, statement: Statement, values: Sequence[tuple[Any, ...]]) -> int:
            if "INTO dags" in statement.text and not met.is_set():
                met.set()
                deleting.start(remove, database, old.id)
                deleting.until_it_waits()
            return run(writer, statement, values)

        monkeypatch.setattr(Writer, "run", held)
        create(database, new)
        assert deleting.result().ids == {old.id}
    assert met.is_set()
    assert Reader(database).plan(new.id) == new.plan
    assert (rows(database)["plans"], rows(database)["dags"]) == (1, 1)


@pytest.mark.parametrize("again", [False, True], ids=["a new dag", "a stored dag"])
def test_a_submission_that_comes_during_a_deletion_writes_the_plan_anew(database: Database, again: bool) -> None:
    """Or, of a dag that is gone, is refused; nothing is written by halves."""
    old = diary.new_execution()
    create(database, old)
    more: dict[str, Any] = {"dag_id": old.dag_id, "new_dag": False} if again else {}
    new = diary.new_execution(**more)

    with side(database) as submitting:
        with database.writing() as connection:
            deletion.remove(connection, [old.id])
            submitting.start(create, database, new)
            submitting.until_it_waits()
        if again:
            with pytest.raises(Exception, match=r"FOREIGN KEY|foreign key"):
                submitting.result()
        else:
            submitting.result()
    expected = {} if again else {"plans": 1, "dags": 1, "dag_executions": 1, "sub_steps": 3, "events": 1}
    assert rows(database) == expected


def append(database: Database, changes: Changes) -> None:
    async def main() -> None:
        async with diary.journal(database) as journal:
            await journal.append(changes)

    asyncio.run(main())


def test_a_commit_that_comes_during_a_deletion_leaves_no_row_behind(database: Database) -> None:
    """On PostgreSQL nothing but its fence keeps an event from being written for an execution that is gone."""
    new = diary.new_execution()
    create(database, new)
    with side(database) as appending:
        with database.writing() as connection:
            deletion.remove(connection, [new.id])
            appending.start(append, database, diary.changes(new.id, 1, diary.step("1")))
            appending.until_it_waits()
        with pytest.raises(Fenced, match="was deleted"):
            appending.result()
    assert rows(database) == {}


def test_a_deletion_that_comes_during_a_commit_takes_what_that_writes(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    new = diary.new_execution()
    create(database, new)
    run, met = Writer.run, threading.Event()

    with side(database) as deleting:

        def held(writer: Writer, statement: Statement, values: Sequence[tuple[Any, ...]]) -> int:
            if "UPDATE sub_steps" in statement.text and values and not met.is_set():
                met.set()  # the fence holds the execution, and its events come last
                deleting.start(remove, database, new.id)
                deleting.until_it_waits()
            return run(writer, statement, values)

        monkeypatch.setattr(Writer, "run", held)
        append(database, diary.changes(new.id, 1, diary.step("1")))
        assert deleting.result().ids == {new.id}
    assert met.is_set()
    assert rows(database) == {}


def test_two_that_delete_the_last_two_executions_of_a_plan_leave_no_plan(database: Database) -> None:
    """Each sees the other's, which is not gone yet, and could leave the plan to it."""
    one, two = diary.new_execution(), diary.new_execution(dag_id=DagId("dag_of_both"))
    create(database, one, two)
    with side(database) as other:
        with database.writing() as connection:
            deletion.remove(connection, [one.id])
            other.start(remove, database, two.id)
            other.until_it_waits()
        other.result()
    assert rows(database) == {}


def test_many_submissions_and_deletions_of_one_plan_never_meet(database: Database) -> None:
    made: list[NewExecution] = [diary.new_execution() for _ in range(120)]
    create(database, made[0])
    created = threading.Semaphore(1)
    refused: list[BaseException] = []

    def delete_all() -> None:
        for new in made:
            try:
                assert created.acquire(timeout=10), "a submission failed"
                remove(database, new.id)
            except BaseException as exc:
                refused.append(exc)

    async def main() -> None:
        async with diary.journal(database) as journal:
            for new in made[1:]:
                await journal.create(new)
                created.release()

    thread = threading.Thread(target=delete_all, daemon=True)
    thread.start()
    asyncio.run(main())
    thread.join(60)
    assert refused == []
    assert rows(database) == {}
