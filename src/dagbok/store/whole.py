"""One execution whole, as it is answered thousands of times a second: two statements, on the driver's own cursor.

Whoever waits within a request reads the execution back when it has ended, so this read costs as much as a step that
runs. It is compiled once per database; and what few executions have (large results, tries that failed) is asked for
only where the first statement says that it is there.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import sqlalchemy as sa
from sqlalchemy import bindparam, select

from dagbok.store.batch import FINAL_RESULT, SYNTHESIS_RESULT
from dagbok.store.database import Database
from dagbok.store.schema import attempts, blobs, dag_executions, sub_steps

Row = Mapping[str, Any]


class Found(NamedTuple):
    """An execution as it stands; `steps` by position, their large results None."""

    row: dict[str, Any]
    steps: list[dict[str, Any]]
    has_blobs: bool  #: whether a final or synthesis result lies beside the row
    has_attempts: bool  #: whether any try did not end well


class Whole:
    """The statements of one database. For any thread."""

    def __init__(self, database: Database) -> None:
        self._database = database
        id, inline_bytes = bindparam("p_id", type_=sa.Text), bindparam("p_inline_bytes", type_=sa.Integer)
        beside = blobs.c.execution_id == id, blobs.c.name.in_([sa.literal_column(f"'{name}'") for name in _RESULTS])
        there = [
            sa.exists().where(*beside).label("has_blobs"),
            sa.exists().where(attempts.c.execution_id == id).label("has_attempts"),
        ]
        self._row_names = [column.name for column in dag_executions.c]
        self._row = database.statement(select(dag_executions, *there).where(dag_executions.c.id == id), "id")
        columns = [column for column in sub_steps.c if column.name != "result"]
        small = sa.case((sub_steps.c.result_bytes <= inline_bytes, sub_steps.c.result)).label("result")
        self._step_names = [*(column.name for column in columns), "result"]
        steps = select(*columns, small).where(sub_steps.c.execution_id == id).order_by(sub_steps.c.position)
        self._steps = database.statement(steps, "id", "inline_bytes")

    def find(self, connection: sa.Connection, execution_id: str, *, inline_bytes: int) -> Found | None:
        """Return an execution, whose large results are not joined; None where there is none."""
        with self._database.cursor(connection) as cursor:
            cursor.execute(self._row.text, (execution_id,))
            row = cursor.fetchone()
            if row is None:
                return None
            cursor.execute(self._steps.text, (execution_id, inline_bytes))
            steps = [dict(zip(self._step_names, step, strict=True)) for step in cursor.fetchall()]
        *values, has_blobs, has_attempts = row
        return Found(dict(zip(self._row_names, values, strict=True)), steps, bool(has_blobs), bool(has_attempts))


_RESULTS = (FINAL_RESULT, SYNTHESIS_RESULT)
