"""How many executions there are: counted up to a bound, estimated above it, at a cost that does not grow with them.

To count a million takes longer than all else a list does. PostgreSQL keeps statistics, and its planner tells what it
makes of them. SQLite keeps none; the rows at a few hundred places of the file say how many places hold a row, and how
many of these are in a state. The places stay the same as rows come, so that the figure does not jump from page to page.
Names both dialects, as `store/database.py` does.
"""

from __future__ import annotations

from typing import Final, NamedTuple

import orjson
import sqlalchemy as sa
from sqlalchemy import func, select

from dagbok.store.schema import dag_executions

#: Up to so many are counted.
EXACT_TOTAL: Final = 10_000
#: SQLite is asked about more than half as many rows, and at most so many.
_SAMPLES: Final = 512
#: Odd, so that its multiples meet every remainder of a power of two, in no order that rows might have.
_SCATTER: Final = 2_654_435_761
_ROW_NUMBER: Final = sa.literal_column("rowid", sa.Integer())
_ENDS: Final = (func.min, func.max)  # each by itself: of both at once SQLite would read all rows
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
    some = query.order_by(of.created_at.desc(), of.id.desc()).limit(bound + 1).subquery()
    counted = connection.execute(select(func.count()).select_from(some)).scalar_one()
    if counted <= bound:
        return Total(counted, False)
    estimate = _sampled if connection.dialect.name == "sqlite" else _planned
    return Total(max(bound + 1, estimate(connection, status)), True)


def _planned(connection: sa.Connection, status: str | None) -> int:
    """Return how many rows the planner of PostgreSQL expects."""
    if status is None:
        plan = connection.execute(sa.text(_EXPLAINED)).scalar_one()
    else:
        plan = connection.execute(sa.text(f"{_EXPLAINED} WHERE status = :status"), {"status": status}).scalar_one()
    return int(orjson.loads(plan)[0]["Plan"]["Plan Rows"])


def _sampled(connection: sa.Connection, status: str | None) -> int:
    """Return how many rows there are by those at some places of the range in which SQLite has numbered them."""
    first, last = (
        connection.execute(select(end(_ROW_NUMBER)).select_from(dag_executions)).scalar_one() for end in _ENDS
    )
    places = sample(first, last)
    # Written out: to bind hundreds of parameters takes twice as long as to look at the rows.
    found = f"SELECT count(*) FROM dag_executions WHERE rowid IN ({', '.join(map(str, places))})"  # noqa: S608 - numbers
    if status is None:
        number = int(connection.exec_driver_sql(found).scalar_one())
    else:  # `+`: not by the index of the states
        number = int(connection.exec_driver_sql(f"{found} AND +status = ?", (status,)).scalar_one())
    return round((last - first + 1) * number / len(places))


def sample(first: int, last: int) -> list[int]:
    """Return places from `first` to `last`, one in each stretch of a length that is a power of two.

    They stay when `last` grows, until the stretches double.
    """
    stretch = 1
    while (last - first + 1) > stretch * _SAMPLES:
        stretch *= 2
    scattered = (
        number * stretch + number * _SCATTER % stretch for number in range(first // stretch, last // stretch + 1)
    )
    return [place for place in scattered if first <= place <= last]
