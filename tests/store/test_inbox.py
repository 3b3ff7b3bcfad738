"""The inbox, read from rows: what each filter leaves, in which order, and pages that nothing moves."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import sqlalchemy as sa

from dagbok.diary import Diary
from dagbok.domain.records import QuestionRow
from dagbok.domain.values import JsonText
from dagbok.errors import Conflict
from dagbok.store import takeover
from dagbok.store.database import Database
from dagbok.store.queries import INLINE_BYTES, Reader
from store.diary import NOW, changes, execution_id, header, journal, new_execution

FIRST, SECOND = execution_id(1), execution_id(2)


def _asked(task_id: str, at: int, **columns: Any) -> QuestionRow:
    blank: dict[str, Any] = dict.fromkeys(QuestionRow._fields)
    base = {"task_id": task_id, "number": 1, "kind": "human", "prompt": f"{task_id}?", "reminders": 0}
    return QuestionRow(**(blank | base | {"asked_at": NOW + at} | columns))


def _closed(task_id: str, at: int, **columns: Any) -> QuestionRow:
    ended = {"closed_at": NOW + at + 5, "answer": JsonText('"yes"'), "answered_by": "bob", "outcome": "answered"}
    return _asked(task_id, at, **(ended | columns))


def _write(database: Database, *several: tuple[Any, int, list[QuestionRow]]) -> None:
    async def main() -> None:
        async with journal(database) as writing:
            for id, before, questions in several:
                if before == 1:
                    await writing.create(new_execution(1 if id == FIRST else 2))
                await writing.append(changes(id, before, header=header("waiting"), questions=questions))

    asyncio.run(main())


@pytest.fixture
def diary(database: Database) -> Diary:
    """Seven questions of two executions; those named `o...` are open. They are written in the order of their names."""
    first = [_asked("o1", 30, assignee="ann", due_at=NOW + 500), _closed("c2", 10), _asked("o3", 20, kind="approval")]
    second = [_closed("c4", 40, assignee="ann", due_at=NOW + 100), _asked("o5", 20, due_at=NOW + 900)]
    _write(database, (FIRST, 1, first), (SECOND, 1, second))
    return Diary(Reader(database))


def _seen(diary: Diary, **filters: Any) -> list[str]:
    return [row["task_id"] for row in diary.human_inputs(**filters).items]


def _at(ms: int) -> datetime:
    return datetime(1970, 1, 1, tzinfo=UTC) + timedelta(milliseconds=NOW + ms)


def test_what_is_open_comes_oldest_first_and_all_as_it_was_written_newest_first(diary: Diary) -> None:
    assert _seen(diary) == ["o3", "o5", "o1"]
    assert _seen(diary, status="all") == ["o5", "c4", "o3", "c2", "o1"]


@pytest.mark.parametrize(
    ("filters", "seen"),
    [
        ({"assignee": "ann"}, ["o1"]),
        ({"assignee": "ann", "status": "all"}, ["c4", "o1"]),
        ({"assignee": "Ann"}, []),
        ({"kind": "approval"}, ["o3"]),
        ({"kind": "did_it_happen", "status": "all"}, []),
        ({"execution_id": FIRST}, ["o3", "o1"]),
        ({"execution_id": SECOND, "status": "all"}, ["o5", "c4"]),
        ({"execution_id": "dag-exec_none"}, []),
        ({"due_before": _at(500)}, []),
        ({"due_before": _at(501)}, ["o1"]),
        ({"due_before": _at(9_999)}, ["o5", "o1"]),
        ({"due_before": _at(9_999), "status": "all", "assignee": "ann", "execution_id": SECOND}, ["c4"]),
    ],
)
def test_each_filter_leaves_what_fits_it(diary: Diary, filters: dict[str, Any], seen: list[str]) -> None:
    assert _seen(diary, **filters) == seen


def test_a_question_comes_with_all_that_is_known_of_it(diary: Diary) -> None:
    row = diary.human_inputs(status="all", assignee="ann").items[0]
    assert {name: value for name, value in row.items() if name != "id"} == {
        "execution_id": SECOND, "execution_title": "Title 2", "task_id": "c4", "number": 1, "kind": "human",
        "prompt": "c4?", "answer_schema": None, "assignee": "ann", "shown": None, "asked_at": NOW + 40,
        "due_at": NOW + 100, "closed_at": NOW + 45, "answer": '"yes"', "answered_by": "bob", "outcome": "answered",
        "reminders": 0,
    }  # fmt: skip


@pytest.mark.parametrize("status", ["open", "all"])
@pytest.mark.parametrize("written", [False, True])
def test_pages_hold_each_question_once_whatever_is_written_between_them(
    database: Database, diary: Diary, status: str, written: bool
) -> None:
    wanted = _seen(diary, status=status)
    seen: list[str] = []
    cursor: str | None = None
    for number in range(len(wanted)):
        page = diary.human_inputs(status=status, limit=1, cursor=cursor)
        seen += [row["task_id"] for row in page.items]
        cursor = page.next_cursor
        assert (cursor is None) is (number == len(wanted) - 1), "the last page says that it is"
        if not written:
            continue
        # What was seen is answered, and something new is asked, which is at the far end of both lists.
        new = [_asked(f"n{number}", 9_000 + number)] if status == "all" else []
        shown = next(row for row in page.items)
        closed = _closed(shown["task_id"], shown["asked_at"] - NOW)
        _write(database, (shown["execution_id"], 2 + _changes(database, shown["execution_id"]), [closed, *new]))
    assert seen == wanted


def _changes(database: Database, id: str) -> int:
    with database.reading() as connection:
        query = sa.text("SELECT last_event_seq FROM dag_executions WHERE id = :id")
        return int(connection.execute(query, {"id": id}).scalar_one()) - 2


@pytest.mark.parametrize(
    ("first", "by", "told"),
    [
        ("answer", "ann", r"was answered by 'ann' at 2026-\S+Z\."),
        ("answer", None, r"was answered at 2026-\S+Z\."),
        ("expire", None, r"timed out at 2026-\S+Z\."),
    ],
)
def test_of_two_that_close_a_question_the_second_is_told_of_the_first(
    database: Database, diary: Diary, first: str, by: str | None, told: str
) -> None:
    """Neither is applied yet, so the question itself does not know."""
    takeover.write_command(database, FIRST, first, {}, by, at_ms=NOW, wait="o#1#1")
    with pytest.raises(Conflict, match=rf"The question of sub-step 'o#1' of {FIRST} {told}"):
        takeover.write_command(database, FIRST, "answer", {}, "bob", at_ms=NOW + 1, wait="o#1#1")
    assert takeover.write_command(database, FIRST, "answer", {}, "bob", at_ms=NOW + 1, wait="o#1#2")


def test_what_is_large_does_not_come_with_a_list(database: Database) -> None:
    edge, over = JsonText(f'"{"x" * (INLINE_BYTES - 2)}"'), JsonText(f'"{"x" * (INLINE_BYTES - 1)}"')
    large = {"answer_schema": over, "shown": over, "answer": over, "prompt": "p" * (INLINE_BYTES + 1)}
    small = {"answer_schema": edge, "shown": edge, "answer": edge, "prompt": "p" * INLINE_BYTES}
    _write(database, (FIRST, 1, [_asked("large", 1, **large), _asked("small", 2, **small)]))
    first, second = Diary(Reader(database)).human_inputs().items
    assert {name: first[name] for name in large} == dict.fromkeys(large) | {"prompt": small["prompt"]}
    assert {name: second[name] for name in small} == small


def test_neither_list_reads_what_it_does_not_show(database: Database, diary: Diary) -> None:
    """The open inbox by its index, all by the numbers of the rows; no sorting of either."""
    statements: list[tuple[str, Any]] = []

    def hear(_: object, __: object, statement: str, parameters: Any, *___: object) -> None:
        statements.append((statement, parameters))

    sa.event.listen(sa.engine.Engine, "before_cursor_execute", hear)
    try:
        cursor = diary.human_inputs(limit=1).next_cursor
        diary.human_inputs(cursor=cursor)
        diary.human_inputs(status="all")
        cursor = diary.human_inputs(status="all", limit=1).next_cursor
        diary.human_inputs(status="all", cursor=cursor)
    finally:
        sa.event.remove(sa.engine.Engine, "before_cursor_execute", hear)
    asked = [each for each in statements if "human_inputs" in each[0]]
    assert len(asked) == 5
    sqlite = database.name.startswith("sqlite")
    for number, (statement, parameters) in enumerate(asked):
        plan = _plan(database, sqlite, statement, parameters)
        wanted = "ix_human_inputs_open" if number < 2 else ("pk_human_inputs", "PRIMARY KEY", "SCAN human_inputs")
        assert any(word in plan for word in ([wanted] if isinstance(wanted, str) else wanted)), plan
        assert "TEMP B-TREE" not in plan
        assert "Sort" not in plan


def _plan(database: Database, sqlite: bool, statement: str, parameters: Any) -> str:
    with database.reading() as connection:
        if not sqlite:  # a few rows are sorted sooner than an index is read
            for way in ("seqscan", "bitmapscan", "sort"):
                connection.exec_driver_sql(f"SET LOCAL enable_{way} = off")
        explain = "EXPLAIN QUERY PLAN " if sqlite else "EXPLAIN "
        return "\n".join(str(row[-1]) for row in connection.exec_driver_sql(explain + statement, parameters))
