"""How many executions there are: counted up to a bound, estimated above it, at a cost that does not grow with them.

To count a million takes longer than all else a list does. PostgreSQL keeps statistics, and its planner tells what it
makes of them. SQLite keeps none, but numbers rows as they are made, and where some are gone it leaves holes. So what is
behind those that were counted is cut into stretches, short ones first, and at one place in each it is seen how far the
next few reach: as densely, it is taken, they stand in all of it. What is left of long ago, such as an execution that
waits for a year, then costs those of today none of their places. The places stay the same as rows come, so that the
figure does not jump from page to page. Names both dialects, as `store/database.py` does.
"""

from __future__ import annotations

from typing import Any, Final, NamedTuple

import orjson
import sqlalchemy as sa
from sqlalchemy import func, select

from dagbok.store.schema import dag_executions

#: Up to so many are counted.
EXACT_TOTAL: Final = 10_000
#: A stretch is at least as long, by a power of two, as a share of what lies between it and those that were counted.
_SHARE: Final = 32
_SHORTEST: Final = 256
#: How many of the next rows are looked for at a place.
_NEXT: Final = 16
#: Odd, so that its multiples meet every remainder of a power of two, in no order that rows might have.
_SCATTER: Final = 2_654_435_761
_ROW_NUMBER: Final = sa.literal_column("rowid", sa.Integer())
#: The number of the last of the next rows at each place. By `created_at`, in whose order rows are numbered.
_REACHED: Final = f"""
WITH places(place) AS (VALUES {{places}})
SELECT (
    SELECT rowid FROM dag_executions
    WHERE {{of}}created_at >= (SELECT created_at FROM dag_executions WHERE rowid >= place ORDER BY rowid LIMIT 1)
    ORDER BY created_at, id LIMIT 1 OFFSET {_NEXT - 1}
) FROM places
"""  # noqa: S608 - a number
_EXPLAINED: Final = "EXPLAIN (FORMAT JSON) SELECT 1 FROM dag_executions"


class Total(NamedTuple):
    """How many there are, and whether that is an estimate."""

    number: int
    is_estimate: bool


def total(connection: sa.Connection, status: str | None, *, exact: int | None = None) -> Total:
    """Return how many executions there are, of a status or in all.

    Args:
        connection: One that reads.
        status: One of `ExecutionStatus`; None: all.
        exact: Up to so many are counted; an estimate is always larger. None: `EXACT_TOTAL`.
    """
    bound = EXACT_TOTAL if exact is None else exact
    of = dag_executions.c
    query = select(of.id) if status is None else select(of.id).where(of.status == status)
    # In the order of the list: the planner of PostgreSQL then reads the list's index, and not the table.
    listed = query.order_by(of.created_at.desc(), of.id.desc())
    counted = connection.execute(select(func.count()).select_from(listed.limit(bound + 1).subquery())).scalar_one()
    if counted <= bound:
        return Total(counted, False)
    if connection.dialect.name == "sqlite":
        last = listed.with_only_columns(_ROW_NUMBER, of.created_at).limit(1).offset(bound)
        return Total(max(counted, _sampled(connection, status, counted, last)), True)
    return Total(max(counted, _planned(connection, status)), True)


def _planned(connection: sa.Connection, status: str | None) -> int:
    """Return how many rows the planner of PostgreSQL expects."""
    if status is None:
        plan = connection.execute(sa.text(_EXPLAINED)).scalar_one()
    else:
        plan = connection.execute(sa.text(f"{_EXPLAINED} WHERE status = :status"), {"status": status}).scalar_one()
    return int(orjson.loads(plan)[0]["Plan"]["Plan Rows"])


def _sampled(connection: sa.Connection, status: str | None, counted: int, last: sa.Select[Any]) -> int:
    """Return how many rows there are: `counted`, of which `last` selects the oldest, and what is numbered before it."""
    oldest, created_at = connection.execute(last).one()
    numbered = select(_ROW_NUMBER, dag_executions.c.created_at).limit(1)
    first, _ = connection.execute(numbered.order_by(_ROW_NUMBER)).one()
    newest, made_at = connection.execute(numbered.order_by(_ROW_NUMBER.desc())).one()
    if made_at < created_at:  # the clock was set back: what was made since is in the list behind all that were counted
        oldest, counted = newest + 1, 0
    stretches = cut(first, oldest)
    if not stretches:
        return counted
    # Written out: to bind hundreds of parameters takes longer.
    reached = _REACHED.format(
        of="" if status is None else "status = ? AND ", places=", ".join(f"({stretch.place})" for stretch in stretches)
    )
    found = connection.exec_driver_sql(reached, () if status is None else (status,)).scalars()
    return round(counted + sum(map(_rows, stretches, found)))


class Stretch(NamedTuple):
    """Row numbers from `start` up to, and without, `end`."""

    start: int
    end: int
    place: int  #: the one of them where is looked


def cut(first: int, end: int) -> list[Stretch]:
    """Return stretches from `end` down to `first`, the longer the farther from `end`.

    They begin at multiples of their length, a power of two, so that they stay when `end` grows, until two become one.
    """
    stretches: list[Stretch] = []
    top = end
    while end > first:
        length = 1 << ((top - end) // _SHARE + _SHORTEST).bit_length() - 1
        number = (end - 1) // length
        start = max(number * length, first)
        place = number * length + number * _SCATTER % length
        stretches.append(Stretch(start, end, min(max(place, start), end - 1)))
        end = start
    return stretches


def _rows(stretch: Stretch, reached: int | None) -> float:
    """Return how many rows a stretch has if they stand in it as at its place, whose next ones reach to `reached`.

    One less than these by how far it is to the last: on average that is right, where all of them are too many (Haldane,
    "On a method of estimating frequencies", Biometrika 33, 1945).
    """
    if reached is None:  # fewer than that many follow
        return 0.0
    return (stretch.end - stretch.start) * (_NEXT - 1) / max(_NEXT - 1, reached - stretch.place)
