"""Which columns the journal writes, and how many rows at once: whatever the way, what is read is the same."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from dagbok.domain.records import Changes, HeaderRow, StepRow
from dagbok.domain.values import JsonText
from dagbok.errors import StoreRejected
from dagbok.store.database import Database
from dagbok.store.queries import Reader
from store import diary, faults


@pytest.mark.parametrize("writer", ["the same", "another", "a new owner", "one that knew it before"])
def test_nothing_of_an_earlier_try_stays_on_a_row_that_ends_plainly(database: Database, writer: str) -> None:
    """Most rows are written in part, for nothing else of them ever changes; whoever does so has to be sure."""
    new = diary.new_execution(tasks=list(SOME))  # a sub-step for each column
    before = [diary.step(name, "pending")._replace(**{name: some}) for name, some in SOME.items()]
    plain = [diary.step(name, result=JsonText("1"), duration_ms=5) for name in SOME]

    async def main() -> None:
        async with diary.journal(database) as first:
            await first.create(new)
            if writer == "one that knew it before":
                async with diary.journal(database) as second:
                    claimed = (await second.claim(new.id, "engine-2")).epoch
                    await second.append(diary.changes(new.id, 1, *before, epoch=claimed))
                await first.append(diary.changes(new.id, 1 + len(SOME), *plain, epoch=claimed))
                return
            await first.append(diary.changes(new.id, 1, *before))
            if writer == "the same":
                await first.append(diary.changes(new.id, 1 + len(SOME), *plain))
                return
        async with diary.journal(database) as second:
            epoch = (await second.claim(new.id, "engine-2")).epoch if writer == "a new owner" else 1
            await second.append(diary.changes(new.id, 1 + len(SOME), *plain, epoch=epoch))

    asyncio.run(main())
    rows = {row["task_id"]: row for row in Reader(database).sub_steps(new.id)}
    for step in plain:
        assert {name: rows[step.task_id][name] for name in StepRow._fields} == step._asdict()
        assert (rows[step.task_id]["input_bytes"], rows[step.task_id]["result_bytes"]) == (None, 1)


#: Of each column something that it does not hold at the end.
SOME: dict[str, Any] = dict.fromkeys(StepRow._fields[2:-1], 7) | {
    "reason": "approved", "input": '{"a":1}', "result": "2", "error": "no", "error_code": "x",
    "error_detail": "more", "progress": '{"message":"m"}', "usage": '{"tokens":3}', "model": "m",
}  # fmt: skip


#: Headers one after the other, as far as they differ from the one before: counters alone, and more than these.
MOVES: list[dict[str, Any]] = [
    {"running_tasks": 1}, {"completed_tasks": 1, "duration_ms": 7}, {"status": "waiting", "paused_at": diary.NOW},
    {"waiting_tasks": 1}, {"status": "running", "paused_at": None}, {"skipped_tasks": 3, "failed_tasks": 2},
    {"wake_at": diary.NOW, "error": "no"}, {"total_usage": '{"tokens":3}', "total_cost_usd": 0.5}, {"wake_at": None},
    {"final_result": "# Ö"}, {"completed_tasks": 2}, {"final_result": "x" * 2**21, "synthesis_result": "y" * 2**21},
    {"completed_tasks": 3, "updated_at": diary.NOW + 1}, {"running_tasks": 0}, {"final_result": None},
    {"retry_count": 1, "synthesis_result": None}, {"completed_tasks": 4}, {"error": None}, {"wake_at": diary.NOW},
    {"wake_at": None}, {"running_tasks": 1}, {"wake_at": diary.NOW}, {"wake_at": None},
]  # fmt: skip


@pytest.mark.parametrize("lost", ["no answer is lost", "every other answer is lost", "each commit is lost"])
def test_a_header_is_whole_after_each_commit_whichever_part_of_it_was_written(
    database: Database, lost: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where only counters moved, only they are written. The journal must know what is durable, also after faults."""
    monkeypatch.setattr("dagbok.store.commit.FIRST_RETRY_S", 0.001)
    faulty: Any = faults.FaultyDatabase(database)
    new = diary.new_execution()

    def fail(committed: bool) -> None:
        if committed is (lost == "every other answer is lost"):
            raise faults.away(faulty)

    async def main() -> None:
        header = diary.header()
        async with diary.journal(faulty) as journal:
            await journal.create(new)
            for seq, moved in enumerate(MOVES, 1):
                header = header._replace(**moved)
                if lost == "each commit is lost" or (lost != "no answer is lost" and seq % 2):
                    faulty.faults.append(fail)
                await journal.append(diary.changes(new.id, seq, header=header))
                row = Reader(database).get_execution(new.id)
                assert row is not None
                assert {name: row[name] for name in HeaderRow._fields} == header._asdict()

    asyncio.run(main())


def test_rows_are_all_written_however_many_there_are(database: Database) -> None:
    """They go in groups of fixed sizes and what is left over; a row that is missing is missed in a group as well."""

    async def main() -> None:
        async with diary.journal(database) as journal:
            for count in (1, 3, 4, 5, 15, 16, 17, 63, 64, 65, 84, 150):
                tasks = [str(number) for number in range(count)]
                new = diary.new_execution(tasks=tasks)
                await journal.create(new)
                plain = [diary.step(task, result=JsonText(task)) for task in tasks]
                await journal.append(diary.changes(new.id, 1, *plain))
                with pytest.raises(StoreRejected, match="does not exist"):
                    await journal.append(diary.changes(new.id, 1 + count, *plain, diary.step("missing")))
                full = [diary.step(task, result=JsonText(task), error="no") for task in tasks]
                await journal.append(diary.changes(new.id, 1 + count, *full))
                rows = Reader(database).sub_steps(new.id)
                assert [(row["task_id"], row["result"], row["error"]) for row in rows] == [(t, t, "no") for t in tasks]
                assert len(Reader(database).events(new.id)) == 1 + 2 * count

    asyncio.run(main())


def test_on_sqlite_many_rows_are_few_calls_of_the_driver_and_each_finds_its_row_by_an_index(database: Database) -> None:
    """The driver lets go of the interpreter for each, and has to get it back."""
    if database.dialect != "sqlite":
        pytest.skip("PostgreSQL gets one statement for all rows")
    asked: list[str] = []

    class Traced(faults.FaultyDatabase):
        def writer(self) -> Any:
            writer = database.writer()
            writer._connection.set_trace_callback(asked.append)
            return writer

    tasks = [str(number) for number in range(1000)]
    new = diary.new_execution(tasks=tasks)

    async def main() -> None:
        traced: Any = Traced(database)
        async with diary.journal(traced) as journal:
            await journal.create(new)
            await journal.append(diary.changes(new.id, 1, *[diary.step(task) for task in tasks]))

    asyncio.run(main())
    assert len(asked) < 100  # of 3,001 rows
    updates = [text for text in asked if text.startswith("UPDATE sub_steps")]
    assert updates
    with database.reading() as connection:
        for text in updates:
            plan = connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {text}").all()
            assert any(line[3].startswith("SEARCH sub_steps USING") for line in plan)


def test_many_rows_take_the_fast_ways_and_read_the_same(database: Database) -> None:
    """Above `MANY_ROWS`, PostgreSQL gets COPY and one statement for all rows; nothing else may differ."""
    tasks = [str(number) for number in range(300)]
    awkward = '{"a":"tab\\t newline\\n quote\\" back\\\\slash ö 𝄞 \\u0001 \\\\N"}'
    texts = ["tab\t line\n \\N {} ö 𝄞", None, "", "NULL", '{"a",b}', "'$1' \x1f\r"]
    new = diary.new_execution(tasks=tasks)
    steps = [
        diary.step(
            task,
            result=JsonText(awkward) if number % 3 else None,
            error=texts[number % len(texts)],
            cost_usd=(0.1, None, -1e-300)[number % 3],
            duration_ms=(2**40, None, -(2**63))[number % 3],
        )
        for number, task in enumerate(tasks)
    ]

    async def main() -> None:
        async with diary.journal(database) as journal:
            await journal.create(new)
            await journal.append(diary.changes(new.id, 1, *steps))

    asyncio.run(main())
    rows = Reader(database).sub_steps(new.id)
    assert [StepRow(**{name: row[name] for name in StepRow._fields}) for row in rows] == steps
    assert len(Reader(database).events(new.id)) == 301


def test_many_executions_change_in_one_commit(database: Database) -> None:
    new = [diary.new_execution() for _ in range(40)]
    ended = diary.header("completed", completed_at=diary.NOW, total_cost_usd=0.25, final_result="Größe\n\\")

    def nth(number: int) -> Changes:
        more = {"header": ended, "release": True} if number % 2 else {"header": diary.header()}
        return diary.changes(new[number].id, 1, **more)

    async def main() -> int:
        async with diary.journal(database) as journal:
            await asyncio.gather(*map(journal.create, new))
            before = journal.commits
            await asyncio.gather(*(journal.append(nth(number)) for number in range(len(new))))
            return journal.commits - before

    assert asyncio.run(main()) == 1
    for number, each in enumerate(new):
        row = Reader(database).get_execution(each.id)
        assert row is not None
        found = (row["status"], row["owner"], row["last_event_seq"], row["final_result"], row["total_cost_usd"])
        expected = ("completed", None, 2, "Größe\n\\", 0.25) if number % 2 else ("running", "engine-1", 2, None, None)
        assert found == expected
