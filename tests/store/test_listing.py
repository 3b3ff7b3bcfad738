"""The list of executions: pages that nothing moves, a number of all that costs little, nothing read that is not shown.

On both databases, with some thousand rows where a plan, or a figure, depends on how many there are.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from functools import partial
from itertools import islice, pairwise
from typing import Any

import pytest
import sqlalchemy as sa

from dagbok.diary import Diary
from dagbok.domain.listing import Place
from dagbok.domain.states import ExecutionStatus
from dagbok.store import totals
from dagbok.store.database import Database
from dagbok.store.queries import Reader
from dagbok.store.schema import dag_executions
from store.diary import NOW, execution_id, header, journal, new_execution
from store.diary import changes as changed

ROWS = 6_000
#: The state of the n-th of every hundred.
STATES = "CASE WHEN i % 100 < 90 THEN 'completed' WHEN i % 100 < 99 THEN 'failed' ELSE 'waiting' END"


def _copy(database: Database, number: int, *, status: str = "'completed'", created_at: str = f"{NOW} + i / 3") -> None:
    """Write `number` executions like the first, from number 10,000,001 on; some are made at the same time."""
    own = {
        "id": "'dag-exec_' || CAST(10000000 + i AS TEXT) || '-0000-7000-8000-000000000000'",
        "status": status,
        "created_at": created_at,
        "completed_at": f"CASE WHEN {status} <> 'waiting' THEN {NOW} END",
    }
    names = [column.name for column in dag_executions.c]
    values = [own.get(name, f'"{name}"') for name in names]
    with database.writing() as connection:
        connection.execute(
            sa.text(
                f"INSERT INTO dag_executions ({', '.join(map(_quoted, names))}) "
                f"WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {number}) "
                f"SELECT {', '.join(values)} FROM dag_executions, n WHERE id = '{execution_id(1)}'"
            )
        )


def _quoted(name: str) -> str:
    return f'"{name}"'


def _looked_over(database: Database) -> bool:
    """Let PostgreSQL look at its rows, as it does by itself after a while. SQLite keeps no statistics."""
    if database.name.startswith("sqlite"):
        return False
    assert list(database.vacuum([dag_executions.name], alone=False)) == []
    with database.writing() as connection:
        connection.exec_driver_sql("ANALYZE dag_executions")
    return True


@pytest.fixture
def template(database: Database) -> Database:
    async def main() -> None:
        async with journal(database) as writing:
            await writing.create(new_execution(1, created_at=NOW - 1))

    asyncio.run(main())
    return database


# -- pages ------------------------------------------------------------------------------------------------------------


def _ids(database: Database, status: str | None) -> list[str]:
    of = dag_executions.c
    query = sa.select(of.id).order_by(of.created_at.desc(), of.id.desc())
    with database.reading() as connection:
        return list(connection.execute(query if status is None else query.where(of.status == status)).scalars())


@pytest.mark.parametrize("status", [None, "completed"])
@pytest.mark.parametrize("limit", [1, 7, 100])
def test_pages_hold_each_execution_once(template: Database, status: str | None, limit: int) -> None:
    _copy(template, 100, status=STATES)
    diary = Diary(Reader(template))
    seen: list[str] = []
    cursor: str | None = None
    while True:
        page = diary.list_executions(limit=limit, status=status, cursor=cursor)
        seen += [row["id"] for row in page.items]
        assert page.items, "no page is empty"
        assert len(seen) <= 1_000, "the walk ends"
        assert page.total == (101 if status is None else 90)
        cursor = page.next_cursor
        if cursor is None:
            break
        assert len(page.items) == limit
    assert seen == _ids(template, status), "and the last page says that it is, also where it is full"


@pytest.mark.parametrize("status", [None, "completed"])
@pytest.mark.parametrize("seed", range(3))
def test_nothing_that_is_written_between_pages_moves_them(template: Database, status: str | None, seed: int) -> None:
    """New ones come, also with a time in the past, as of a clock that was set back; states change; some are deleted."""
    _copy(template, 120, status=STATES)
    diary, chance = Diary(Reader(template)), random.Random(seed)
    before, gone, changed_state = _ids(template, status), set[str](), set[str]()
    seen: list[str] = []
    cursor: str | None = None
    while True:
        page = diary.list_executions(limit=chance.choice([1, 5, 20]), status=status, cursor=cursor)
        seen += [row["id"] for row in page.items]
        assert len(seen) <= 1_000, "the walk ends"
        cursor = page.next_cursor
        if cursor is None:
            break
        _insert(template, [NOW + 9_000, NOW + chance.randrange(40), NOW - 50])
        touched = chance.sample(_ids(template, None), 6)
        with template.writing() as connection:
            of = dag_executions.c
            connection.execute(
                sa.update(dag_executions).where(of.id.in_(touched[:3])).values(status="partial", completed_at=NOW)
            )
            # The last one that was seen is the place where the next page begins.
            deleted = [touched[3], seen[-1]]
            connection.execute(sa.delete(dag_executions).where(of.id.in_(deleted)))
        gone.update(deleted)
        changed_state.update(touched[:3])
    assert len(seen) == len(set(seen)), "none is seen twice"
    kept = [id for id in before if id not in gone and (status is None or id not in changed_state)]
    assert [id for id in seen if id in set(kept)] == kept, "none is missed, and all are in order"


def _insert(database: Database, times: list[int]) -> None:
    async def main() -> None:
        async with journal(database) as writing:
            for created_at in times:
                await writing.create(new_execution(created_at=created_at))

    asyncio.run(main())


def test_one_that_ends_during_a_walk_is_met_where_it_is_then(template: Database) -> None:
    """What is promised of a list of one state: nothing of those that come and go, but never one of them twice."""

    async def main() -> None:
        async with journal(template) as writing:
            for number in (2, 3, 4):
                await writing.create(new_execution(number))
            diary = Diary(Reader(template))
            first = await asyncio.to_thread(diary.list_executions, limit=2, status="pending")
            assert [row["id"] for row in first.items] == [execution_id(4), execution_id(3)]
            await writing.append(changed(execution_id(2), 1, header=header("running")))
            last = await asyncio.to_thread(diary.list_executions, limit=2, status="pending", cursor=first.next_cursor)
            assert ([row["id"] for row in last.items], last.next_cursor) == ([execution_id(1)], None)

    asyncio.run(main())


@pytest.mark.parametrize("status", [None, "completed"])
@pytest.mark.parametrize("offset", [0, 1, 89, 95, 101, 2**63 - 1])
def test_an_offset_passes_over_so_many_of_the_same_list(template: Database, status: str | None, offset: int) -> None:
    _copy(template, 100, status=STATES)
    diary = Diary(Reader(template))
    wanted = _ids(template, status)
    page = diary.list_executions(limit=10, offset=offset, status=status)
    assert [row["id"] for row in page.items] == wanted[offset : offset + 10]
    assert (page.next_cursor is None) is (offset + 10 >= len(wanted))
    if page.next_cursor is not None:
        behind = diary.list_executions(limit=10, status=status, cursor=page.next_cursor)
        assert [row["id"] for row in behind.items] == wanted[offset + 10 : offset + 20]


@pytest.mark.parametrize(("status", "pages"), [("completed", 3), ("failed", 1), ("waiting", 1), ("cancelled", 1)])
def test_whoever_goes_through_all_of_a_state_has_none_counted(template: Database, status: str, pages: int) -> None:
    states = "CASE WHEN i <= 201 THEN 'completed' WHEN i <= 301 THEN 'failed' ELSE 'waiting' END"
    _copy(template, 302, status=states)
    diary = Diary(Reader(template))
    seen: list[Any] = []
    heard = _statements(lambda: seen.extend(islice(diary.each_execution(ExecutionStatus(status)), 1_000)))
    assert [row["id"] for row in seen] == _ids(template, status)
    assert len(heard) == pages, "a statement for each page"
    shown = diary.list_executions(limit=3, status=status).items
    assert seen[:3] == shown, "they are shown as in the list"


def test_executions_are_found_by_the_start_of_their_id(template: Database) -> None:
    _copy(template, 300)
    reader = Reader(template)
    assert reader.beginning_with("dag-exec_100002", limit=3) == [
        f"dag-exec_100002{n}-0000-7000-8000-000000000000" for n in (99, 98, 97)
    ]
    assert reader.beginning_with("dag-exec_10000042-", limit=3) == ["dag-exec_10000042-0000-7000-8000-000000000000"]
    assert reader.beginning_with("dag-exec_10000042-0000-7000-8000-000000000000", limit=3) == [
        "dag-exec_10000042-0000-7000-8000-000000000000"
    ]
    assert len(reader.beginning_with("dag-exec_", limit=1000)) == 301
    assert reader.beginning_with("dag-exec_2", limit=3) == []
    assert reader.beginning_with("dag-exec_%", limit=3) == []


# -- the number of all ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("exact", "told"), [(301, (301, False)), (300, (301, True)), (500, (301, False))])
def test_up_to_the_bound_they_are_counted(template: Database, exact: int, told: tuple[int, bool]) -> None:
    _copy(template, 300)
    _looked_over(template)
    page = Reader(template).list_executions(limit=1, exact_total=exact)
    assert (page.total, page.total_is_estimate) == told


def test_above_the_bound_they_are_estimated(template: Database) -> None:
    _copy(template, ROWS, status=STATES)
    _looked_over(template)
    with template.reading() as connection:
        for status, share in ((None, 1.0), ("completed", 0.9), ("failed", 0.09)):
            number, is_estimate = totals.total(connection, status, exact=100)
            assert is_estimate
            assert number == pytest.approx(ROWS * share, rel=0.1), status
        assert totals.total(connection, "waiting", exact=100) == (60, False)
        assert totals.total(connection, "cancelled", exact=100) == (0, False)
        assert totals.total(connection, "waiting", exact=0)[0] >= 1


def test_an_estimate_is_never_of_fewer_than_were_counted(template: Database) -> None:
    """As where few are left of many, or where statistics are old."""
    _copy(template, ROWS)
    _looked_over(template)
    with template.writing() as connection:
        connection.exec_driver_sql(
            f"UPDATE dag_executions SET status = 'failed', completed_at = {NOW} WHERE created_at < {NOW} + 100"
        )
    with template.reading() as connection:
        number, is_estimate = totals.total(connection, "failed", exact=290)
        assert is_estimate
        assert number >= 291


def test_an_estimate_heeds_what_was_deleted(template: Database) -> None:
    """The first and the last remain, so that the range in which SQLite has numbered them does not shrink."""
    _copy(template, ROWS)
    with template.writing() as connection:
        connection.exec_driver_sql(f"DELETE FROM dag_executions WHERE created_at BETWEEN {NOW + 500} AND {NOW + 1500}")
    left = len(_ids(template, None))
    _looked_over(template)
    with template.reading() as connection:
        assert totals.total(connection, None, exact=100).number == pytest.approx(left, rel=0.1)
    assert left == pytest.approx(ROWS / 2, rel=0.01)


def test_what_is_left_of_long_ago_hides_nothing_of_today(template: Database) -> None:
    """One that has waited for long is never deleted, and far before all others in the numbers of SQLite's rows."""
    _copy(template, ROWS, status=STATES)
    if template.name.startswith("sqlite"):
        with template.writing() as connection:
            connection.exec_driver_sql(
                "UPDATE dag_executions SET rowid = rowid + 50000000 WHERE id LIKE '%-7000-8000-%'"
            )
            connection.exec_driver_sql(f"UPDATE dag_executions SET rowid = 1 WHERE id = '{execution_id(1)}'")
    _looked_over(template)
    with template.reading() as connection:
        assert totals.total(connection, None, exact=100).number == pytest.approx(ROWS, rel=0.1)
        assert totals.total(connection, "completed", exact=100).number == pytest.approx(0.9 * ROWS, rel=0.1)


def test_a_clock_that_was_set_back_hides_nothing_that_was_made_since(template: Database) -> None:
    """Those that were made before are the newest of the list, though SQLite has numbered them before the others."""
    ahead = 10**10
    _copy(template, ROWS, status=STATES, created_at=f"{NOW} + i / 3 + CASE WHEN i <= 1000 THEN {ahead} ELSE 0 END")
    _looked_over(template)
    with template.reading() as connection:
        assert totals.total(connection, None, exact=100).number == pytest.approx(ROWS, rel=0.1)
        assert totals.total(connection, "completed", exact=100).number == pytest.approx(0.9 * ROWS, rel=0.1)


@pytest.mark.parametrize("end", [2, 255, 257, 5_000, 1_000_000, 10**12])
def test_there_are_few_stretches_and_all_are_looked_at(end: int) -> None:
    stretches = totals.cut(1, end)
    assert (stretches[0].end, stretches[-1].start) == (end, 1)
    assert all(newer.start == older.end for newer, older in pairwise(stretches)), "nothing is left out between them"
    assert all(stretch.start <= stretch.place < stretch.end for stretch in stretches)
    assert all(end - older.end >= 15 * (older.end - older.start) for older in stretches if older.end < end - 10_000)
    assert len(stretches) <= 32 * (1 + (end // 256).bit_length())
    assert totals.cut(end, end) == []


def test_the_places_that_are_looked_at_stay_when_rows_come() -> None:
    places = [{stretch.place for stretch in totals.cut(1, end)} for end in (600_000, 600_100, 610_000)]
    assert len(places[0] - places[1]) <= 0.05 * len(places[0])
    assert len(places[0] - places[2]) <= 0.4 * len(places[0])
    kept = [stretch for stretch in totals.cut(1, 600_000) if stretch.start >= 50_000]
    assert set(kept) <= set(totals.cut(50_000, 600_000)), "so they do when the oldest are deleted"


# -- how they are read ------------------------------------------------------------------------------------------------


def _statements(read: Callable[[], object]) -> list[tuple[str, Any]]:
    heard: list[tuple[str, Any]] = []

    def hear(_: object, __: object, statement: str, parameters: Any, *___: object) -> None:
        if "dag_executions" in statement and not statement.startswith("EXPLAIN"):
            heard.append((statement, parameters))

    sa.event.listen(sa.engine.Engine, "before_cursor_execute", hear)
    try:
        read()
    finally:
        sa.event.remove(sa.engine.Engine, "before_cursor_execute", hear)
    return heard


NEWEST, STATE = "ix_dag_executions_newest", "ix_dag_executions_status"


@pytest.mark.parametrize("status", [None, "completed", "failed", "waiting", "cancelled"])
def test_no_page_is_sorted_or_looked_for(template: Database, status: str | None) -> None:
    """The list by its index, of a state by that of the states; so is the number of all, which reads no table."""
    _copy(template, ROWS, status=STATES)
    is_postgresql = _looked_over(template)
    reader = Reader(template)
    for after in (None, Place(NOW + 900, execution_id(5))):
        read = partial(reader.list_executions, limit=20, status=status, after=after, exact_total=40)
        page, count, *estimate = _plans(template, read)
        assert "LIMIT" in _statements(read)[1][0], "what is counted is bounded"
        if status is None:
            assert NEWEST in page
            _goes_straight(page)
        else:
            _finds_ids_first(page, STATE)
        assert ("Index Only Scan" if is_postgresql else "COVERING INDEX") in count
        assert (NEWEST if status is None else STATE) in count
        _goes_straight(count)
        if is_postgresql or not estimate:  # the planner of PostgreSQL is asked, and executes nothing
            assert not estimate
            continue
        *ends, looked_at = estimate
        assert all(" LIMIT " in statement for statement, _ in _statements(read)[2:])
        assert "TEMP B-TREE" not in "".join(estimate)
        assert "SCAN dag_executions" not in looked_at
        assert f"COVERING INDEX {NEWEST if status is None else STATE}" in looked_at
        assert "USING INTEGER PRIMARY KEY" in looked_at
        assert len(ends) == 3


@pytest.mark.parametrize("status", [None, "completed"])
def test_what_an_offset_passes_over_is_read_in_the_index_alone(template: Database, status: str | None) -> None:
    _copy(template, ROWS, status=STATES)
    _looked_over(template)
    reader = Reader(template)
    page = _plans(template, lambda: reader.list_executions(limit=20, offset=2_000, status=status, exact_total=40))[0]
    _finds_ids_first(page, NEWEST if status is None else STATE)


def test_the_start_of_an_id_is_looked_up(template: Database) -> None:
    _copy(template, ROWS)
    _looked_over(template)
    [plan] = _plans(template, lambda: Reader(template).beginning_with("dag-exec_1000004", limit=6))
    assert "pk_dag_executions" in plan or "sqlite_autoindex_dag_executions_1" in plan
    _goes_straight(plan)


def _plans(database: Database, read: Callable[[], object]) -> list[str]:
    """Return how each statement would be executed, a step a line; what belongs to a step is further to the right."""
    sqlite = database.name.startswith("sqlite")
    heard = _statements(read)
    plans = []
    with database.reading() as connection:
        for statement, parameters in heard:
            explained = connection.exec_driver_sql(
                ("EXPLAIN QUERY PLAN " if sqlite else "EXPLAIN ") + statement, parameters
            )
            lines = [("  " if row[1] else "") + row[-1] if sqlite else row[0] for row in explained]
            plans.append("\n".join(lines))
    return plans


def _goes_straight(plan: str) -> None:
    for word in ("TEMP B-TREE", "Sort", "Seq Scan", "Filter", "SCAN dag_executions\n"):
        assert word not in f"{plan}\n", plan


def _finds_ids_first(plan: str, index: str) -> None:
    """The page itself is put in order at the end, and nothing else is."""
    found = [line for line in plan.splitlines() if index in line]
    assert len(found) == 1, plan
    assert "Index Only Scan" in found[0] or "COVERING INDEX" in found[0], plan
    for word in ("Seq Scan", "Filter", "SCAN dag_executions\n", "  USE TEMP B-TREE"):
        assert word not in f"{plan}\n", plan
    assert "Sort" not in plan.partition("Limit")[2], plan
