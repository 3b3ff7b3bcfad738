"""The journal and the reader, the same on both databases: what is written is what is read."""

from __future__ import annotations

import asyncio

import pytest

from dagbok.domain.ids import DagId, TaskId
from dagbok.domain.records import AttemptRow, QuestionRow
from dagbok.domain.values import JsonText
from dagbok.errors import Conflict, Fenced, NotFound, OutcomeUnknown, StoreRejected
from dagbok.store import schema
from dagbok.store.database import Database
from dagbok.store.journal import Journal
from dagbok.store.queries import Reader
from store import diary


def test_a_new_execution_is_there_whole(database: Database) -> None:
    """One commit holds the plan, the dag, the execution, its steps and its first event."""
    new = diary.new_execution(labels=JsonText('{"team":"ö"}'), priority=3, deadline_at=diary.NOW + 9)

    async def main() -> None:
        async with diary.journal(database) as journal:
            created = await journal.create(new)
            assert (created.execution_id, created.dag_id, created.existing) == (new.id, new.dag_id, False)

    asyncio.run(main())
    reader = Reader(database)
    row = reader.get_execution(new.id)
    assert row is not None
    assert row["status"] == "pending"
    assert row["total_tasks"] == 3
    assert row["labels"] == '{"team":"ö"}'  # text, unparsed
    assert (row["epoch"], row["owner"], row["last_event_seq"], row["priority"]) == (1, "engine-1", 1, 3)
    assert [step["task_id"] for step in reader.sub_steps(new.id)] == ["1", "2", "10"]
    assert all(step["id"].startswith("sub-step_") for step in reader.sub_steps(new.id))
    assert [event["type"] for event in reader.events(new.id)] == ["execution.created"]
    assert reader.plan(new.id) == reader.plan(new.dag_id) == reader.plan(new.plan_hash) == new.plan
    dag = reader.dag(new.dag_id)
    assert dag is not None
    assert dag["title"] == new.title


def test_plans_and_dags_are_shared(database: Database) -> None:
    first = diary.new_execution()
    second = diary.new_execution(dag_id=first.dag_id, new_dag=False)

    async def main() -> None:
        async with diary.journal(database) as journal:
            await journal.create(first)
            await journal.create(second)

    asyncio.run(main())
    assert Reader(database).list_dags().total == 1
    assert Reader(database).list_executions().total == 2


def test_an_append_changes_rows_counters_and_diary_together(database: Database) -> None:
    new = diary.new_execution()
    ended = diary.changes(
        new.id,
        1,
        diary.step("1", result=JsonText('"ö"'), cost_usd=0.25, usage=JsonText('{"tokens":3}'), model="m"),
        diary.step("2", "skipped", reason="chosen"),
        diary.step("10", "failed", error="no", error_code="tool_error", input=JsonText('{"a":1}')),
        header=diary.header(
            "partial", completed_at=diary.NOW, completed_tasks=1, final_result="# Ö", total_cost_usd=0.25
        ),
        release=True,
    )

    async def main() -> None:
        async with diary.journal(database) as journal:
            await journal.create(new)
            await journal.append(ended)

    asyncio.run(main())
    with Reader(database).snapshot() as reader:
        row = reader.get_execution(new.id)
        steps = {step["task_id"]: step for step in reader.sub_steps(new.id)}
        assert row is not None
        assert (row["status"], row["final_result"], row["owner"], row["last_event_seq"]) == ("partial", "# Ö", None, 4)
        assert row["total_cost_usd"] == 0.25
        assert (steps["1"]["result"], steps["1"]["result_bytes"]) == ('"ö"', 4)
        assert steps["1"]["usage"] == '{"tokens":3}'
        assert steps["2"]["reason"] == "chosen"
        assert (steps["10"]["input"], steps["10"]["input_bytes"]) == ('{"a":1}', 7)
        assert [event["seq"] for event in reader.events(new.id, after_seq=2)] == [3, 4]
        assert [event["seq"] for event in reader.events(new.id, after_seq=1, limit=1)] == [2]
        assert reader.result(new.id, "1") == '"ö"'
        assert reader.result(new.id, "2") is None
        assert reader.unfinished() == []


def test_nothing_is_kept_in_memory_of_what_is_claimed_and_left_as_it_is(database: Database) -> None:
    """A process without a tool leaves what needs it, at every start, and may itself run for months."""
    new = diary.new_execution()

    async def main() -> None:
        async with diary.journal(database) as journal:
            await journal.create(new)
            for epoch in (2, 3):  # once it was its own, and once it was not
                assert (await journal.claim(new.id, "engine-2")).epoch == epoch
                assert journal._committer.known == {}
            await journal.append(diary.changes(new.id, 1, epoch=3))
            assert list(journal._committer.known) == [new.id], "what it writes it knows"
            with pytest.raises(StoreRejected):
                await journal.append(diary.changes(new.id, 2, diary.step("none"), epoch=3))
            assert journal._committer.known == {}, "and not once that is given up"

    asyncio.run(main())


def test_what_is_appended_during_a_commit_shares_the_next(database: Database) -> None:
    news = [diary.new_execution() for _ in range(50)]

    async def main() -> None:
        async with diary.journal(database) as journal:
            await asyncio.gather(*(journal.create(new) for new in news))
            before = journal.commits
            await asyncio.gather(*(journal.append(diary.changes(new.id, 1, diary.step("1"))) for new in news))
            assert journal.commits - before <= 3

    asyncio.run(main())


def test_closing_commits_what_was_appended(database: Database) -> None:
    new = diary.new_execution()

    async def main() -> None:
        journal = Journal(database)
        journal.start()
        created = journal.create(new)
        appended = journal.append(diary.changes(new.id, 1, diary.step("1")))
        await journal.close()
        assert created.done()
        assert appended.done()
        appended.result()
        with pytest.raises(OutcomeUnknown):
            await journal.append(diary.changes(new.id, 2, diary.step("2")))

    asyncio.run(main())
    assert len(Reader(database).events(new.id)) == 2


def test_claiming_returns_all_that_is_needed_to_go_on(database: Database) -> None:
    new = diary.new_execution(options=JsonText('{"x":1}'))
    large = JsonText('"' + "ö" * 2**20 + '"')
    asked = QuestionRow(TaskId("2"), 1, "human", "Sure?", None, "ann", None, diary.NOW, None, None, None, None)
    tries = [
        AttemptRow(TaskId("1"), number, outcome, "gone", "interrupted", diary.NOW, diary.NOW, None, None)
        for number, outcome in ((1, "interrupted"), (2, "failed"), (3, "interrupted"))
    ]
    first = diary.changes(
        new.id,
        1,
        diary.step("1", result=large, input=large),
        diary.step("2", "waiting", reason="human"),
        header=diary.header("waiting", started_at=diary.NOW, synthesis_result=large, duration_ms=7),
        attempts=tries,
        questions=[asked],
    )
    answered = asked._replace(closed_at=diary.NOW + 1, answer=JsonText("true"), answered_by="ann")
    second = diary.changes(new.id, 3, diary.step("2"), header=first.header, questions=[answered])

    async def main() -> None:
        async with diary.journal(database) as journal:
            await journal.create(new)
            await journal.append(first)
            stored = await journal.claim(new.id, "engine-2")
            assert (stored.epoch, stored.last_event_seq, stored.plan, stored.options) == (2, 3, new.plan, '{"x":1}')
            assert stored.header == first.header
            assert stored.created_at == new.created_at
            assert {row.task_id: row for row in stored.steps}[TaskId("1")] == first.steps[0]
            assert set(stored.effects) == {"1", "2", "10"}
            assert list(stored.questions) == [asked]
            assert stored.interruptions == {"1": 2}
            await journal.append(diary.changes(new.id, 3, epoch=2, questions=[answered], header=first.header))
            again = await journal.claim(new.id, "engine-3")
            assert (again.epoch, list(again.questions)) == (3, [answered])
            with pytest.raises(Fenced):
                await journal.append(second)
            with pytest.raises(NotFound):
                await journal.claim(diary.execution_id(99_999_999), "engine-3")

    asyncio.run(main())


@pytest.mark.parametrize("size", [2**20 - 1, 2**20, 2**20 + 1, 7 * 2**19])
def test_values_of_any_size_come_back_as_they_were(database: Database, size: int) -> None:
    """A chunk may end inside a character of several bytes."""
    text = JsonText('"' + "a" + "𝄞" * ((size - 3) // 4) + "b" * ((size - 3) % 4) + '"')
    assert len(text.encode()) == size
    new = diary.new_execution()
    with_value = diary.changes(
        new.id,
        1,
        diary.step("1", result=text, input=text),
        header=diary.header(final_result=text, synthesis_result=text),
    )
    small = diary.changes(new.id, 2, diary.step("1", result=JsonText("1")), header=diary.header(final_result="f"))

    async def main() -> None:
        async with diary.journal(database) as journal:
            await journal.create(new)
            await journal.append(with_value)
            reader = Reader(database)
            row = reader.get_execution(new.id)
            assert row is not None
            assert row["final_result"] == row["synthesis_result"] == text
            assert reader.result(new.id, "1") == text
            (listed,) = [step for step in reader.sub_steps(new.id) if step["task_id"] == "1"]
            assert (listed["result"], listed["result_bytes"], listed["input_bytes"]) == (None, size, size)
            (listed, *_) = reader.sub_steps(new.id, inline_bytes=2**20)
            assert listed["result"] == (text if size <= 2**20 else None)
            # The old value goes with the new one, its blob too.
            await journal.append(small)
            assert reader.result(new.id, "1") == "1"
            row = reader.get_execution(new.id)
            assert row is not None
            assert (row["final_result"], row["synthesis_result"]) == ("f", None)

    asyncio.run(main())
    assert rows_of(database, "blobs") == 0


def test_a_journal_that_knows_nothing_of_an_execution_still_replaces_its_blobs(database: Database) -> None:
    new = diary.new_execution()
    large = JsonText('"' + "a" * 2**21 + '"')

    async def main() -> None:
        async with diary.journal(database) as first:
            await first.create(new)
            await first.append(diary.changes(new.id, 1, diary.step("1", result=large)))
        async with diary.journal(database) as second:
            await second.append(diary.changes(new.id, 2, diary.step("1", result=JsonText("1"))))

    asyncio.run(main())
    assert rows_of(database, "blobs") == 0


def test_deleting_leaves_nothing_of_the_execution(database: Database) -> None:
    new, other = diary.new_execution(), diary.new_execution()
    large = JsonText('"' + "a" * 2**21 + '"')
    asked = QuestionRow(TaskId("2"), 1, "human", "Sure?", None, None, None, diary.NOW, None, None, None, None)
    tried = AttemptRow(TaskId("1"), 1, "failed", "no", "x", diary.NOW, diary.NOW, None, None)
    full = diary.changes(new.id, 1, diary.step("1", result=large), questions=[asked], attempts=[tried])

    async def main() -> None:
        async with diary.journal(database) as journal:
            await journal.create(new)
            await journal.create(other)
            await journal.append(full)
            await journal.write_command(new.id, "cancel", {}, "ann", at_ms=0)
            assert await journal.delete(new.id) == 3
            with pytest.raises(NotFound):
                await journal.delete(new.id)
            with pytest.raises(Fenced):
                await journal.append(diary.changes(new.id, 2, diary.step("2")))

    asyncio.run(main())
    left = {table.name: rows_of(database, table.name) for table in schema.metadata.sorted_tables}
    assert left == {
        "plans": 1, "dags": 1, "dag_executions": 1, "sub_steps": 3, "events": 1, "attempts": 0, "blobs": 0,
        "commands": 0, "human_inputs": 0, "schema_info": 1,
    }  # fmt: skip
    assert Reader(database).get_execution(new.id) is None
    assert Reader(database).sub_steps(new.id) == []


def test_the_same_idempotency_key_is_one_execution_however_many_ask_at_once(database: Database) -> None:
    """Within one journal, and across two, which stand for two processes."""
    asked = [diary.new_execution(idempotency_key="k", request_hash=f"h{n}") for n in range(20)]

    async def main() -> None:
        async with diary.journal(database) as one, diary.journal(database) as two:
            made = await asyncio.gather(*((one, two)[n % 2].create(new) for n, new in enumerate(asked)))
        assert len({created.execution_id for created in made}) == 1
        assert sorted(created.existing for created in made) == [False] + [True] * 19
        (first,) = [new for new, created in zip(asked, made, strict=True) if not created.existing]
        assert {created.request_hash for created in made} == {first.request_hash}
        assert {created.dag_id for created in made} == {first.dag_id}
        found = Reader(database).find_idempotent("k")
        assert found is not None
        assert found["id"] == first.id

    asyncio.run(main())
    assert Reader(database).list_executions().total == 1
    assert Reader(database).list_dags().total == 1
    assert Reader(database).find_idempotent("other") is None


def test_commands_wait_for_their_owner_and_a_question_takes_one_answer(database: Database) -> None:
    new, other = diary.new_execution(), diary.new_execution()
    reader = Reader(database)

    async def main() -> None:
        async with diary.journal(database) as journal:
            await journal.create(new)
            await journal.create(other)
            assert not reader.commands_changed()
            first = await journal.write_command(new.id, "answer", {"value": "ö"}, "ann", at_ms=0, wait="2#1")
            with pytest.raises(Conflict):
                await journal.write_command(new.id, "answer", {"value": 2}, "bob", at_ms=0, wait="2#1")
            second = await journal.write_command(other.id, "cancel", {}, None, at_ms=0)
            await journal.write_command(other.id, "cancel", {}, None, at_ms=0)
            with pytest.raises(NotFound):
                await journal.write_command(diary.execution_id(99_999_999), "cancel", {}, None, at_ms=0)
            assert reader.commands_changed()
            assert not reader.commands_changed()
            pending = reader.pending_commands([new.id])
            assert [(c.id, c.kind, c.data, c.by) for c in pending] == [(first, "answer", {"value": "ö"}, "ann")]
            assert [c.id for c in reader.pending_commands()][:2] == [first, second]
            await journal.append(diary.changes(new.id, 1, commands=[first]))
            assert reader.pending_commands([new.id]) == []
            assert not reader.commands_changed()

    asyncio.run(main())


def test_the_list_is_newest_first_in_pages_with_the_number_of_all(database: Database) -> None:
    news = [diary.new_execution() for _ in range(5)]
    same_time = diary.new_execution(created_at=news[4].created_at)

    async def main() -> None:
        async with diary.journal(database) as journal:
            await asyncio.gather(*(journal.create(new) for new in [*news, same_time]))
            await journal.append(diary.changes(news[0].id, 1, diary.step("1")))

    asyncio.run(main())
    reader = Reader(database)
    page = reader.list_executions(limit=3, offset=1)
    assert [row["id"] for row in page.items] == [news[4].id, news[3].id, news[2].id]
    assert (page.total, page.limit, page.offset) == (6, 3, 1)
    assert "plan" not in page.items[0]
    running = reader.list_executions(status="running")
    assert ([row["id"] for row in running.items], running.total) == ([news[0].id], 1)
    assert reader.counts() == {"pending": 5, "running": 1}
    assert [row["id"] for row in reader.unfinished()] == [new.id for new in [*news, same_time]]


def test_the_inbox_shows_open_questions_only(database: Database) -> None:
    new = diary.new_execution()
    asked = [
        QuestionRow(TaskId(task), 1, "human", "Sure?", None, None, None, diary.NOW + n, None, None, None, None)
        for n, task in enumerate(("10", "2"))
    ]
    closed = asked[0]._replace(closed_at=diary.NOW, answer=JsonText("1"), answered_by="ann")

    async def main() -> None:
        async with diary.journal(database) as journal:
            await journal.create(new)
            await journal.append(diary.changes(new.id, 1, questions=asked))
            assert [row["task_id"] for row in Reader(database).open_questions()] == ["10", "2"]
            await journal.append(diary.changes(new.id, 2, questions=[closed]))

    asyncio.run(main())
    assert [row["task_id"] for row in Reader(database).open_questions(new.id)] == ["2"]
    answered = Reader(database).question(new.id, "10")
    assert answered is not None
    assert (answered["answer"], answered["answered_by"]) == ("1", "ann")


def test_a_dag_that_does_not_exist_is_refused_with_the_words_of_the_database(database: Database) -> None:
    async def main() -> None:
        async with diary.journal(database) as journal:
            with pytest.raises(StoreRejected, match=r"(?i)foreign key"):
                await journal.create(diary.new_execution(dag_id=DagId("dag_none"), new_dag=False))

    asyncio.run(main())


def rows_of(database: Database, table: str) -> int:
    with database.reading() as connection:
        return int(connection.exec_driver_sql(f"SELECT count(*) FROM {table}").scalar_one())
