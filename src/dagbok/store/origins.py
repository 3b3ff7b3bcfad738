"""Reading the execution that a fork begins with, at one moment: its rows first, then the values that are taken over.

Two reads, because only the rows tell which values those are, and there may be gigabytes of others.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy import select

from dagbok.domain import values
from dagbok.domain.ids import ExecutionId, TaskId
from dagbok.domain.records import StepRow
from dagbok.domain.states import Effect
from dagbok.domain.values import JsonText
from dagbok.store.batch import input_name, result_name
from dagbok.store.queries import Reader, Row, join_blobs
from dagbok.store.schema import dag_executions, plans, sub_steps

#: The values of a row, which are read for those that are taken over alone.
_VALUES: Final = ("input", "result")
#: Names in one query; databases take thousands, not any number.
_AT_ONCE: Final = 500


@dataclass(frozen=True, slots=True)
class Stored:
    """What an execution was at one moment, but for its values."""

    row: Row  #: of `dag_executions`, the columns that a fork inherits
    document: JsonText  #: its plan
    steps: Mapping[TaskId, StepRow]  #: without inputs and results
    effects: Mapping[TaskId, Effect]
    overrides: Mapping[TaskId, Mapping[str, Any]]


class Origins:
    """Executions of one moment. For one thread."""

    def __init__(self, connection: sa.Connection) -> None:
        self._connection = connection

    def load(self, execution_id: str) -> Stored | None:
        """Return an execution; None: there is none."""
        of = dag_executions.c
        columns = [of.id, of.dag_id, of.plan_hash, of.title, of.labels, of.options, of.priority, of.status]
        query = select(*columns, plans.c.document).join(plans).where(of.id == execution_id)
        row = self._connection.execute(query).mappings().one_or_none()
        if row is None:
            return None
        steps: dict[TaskId, StepRow] = {}
        effects: dict[TaskId, Effect] = {}
        overrides: dict[TaskId, Mapping[str, Any]] = {}
        names = [sa.null().label(name) if name in _VALUES else sub_steps.c[name] for name in StepRow._fields]
        query = select(*names, sub_steps.c.effect, sub_steps.c.override)
        for *cells, effect, override in self._connection.execute(
            query.where(sub_steps.c.execution_id == execution_id).order_by(sub_steps.c.position)
        ):
            step = StepRow(*cells)
            steps[step.task_id], effects[step.task_id] = step, Effect(effect)
            if override is not None:
                overrides[step.task_id] = values.decode(override)
        return Stored(dict(row), row["document"], steps, effects, overrides)

    def with_values(self, execution_id: str, steps: Sequence[StepRow]) -> dict[TaskId, StepRow]:
        """Return rows of `load` with their inputs and results, by task."""
        of = sub_steps.c
        columns = (of.task_id, of.input, of.result, of.input_bytes, of.result_bytes)
        found: dict[TaskId, StepRow] = {}
        large: list[str] = []
        for start in range(0, len(steps), _AT_ONCE):
            wanted = {step.task_id: step for step in steps[start : start + _AT_ONCE]}
            query = select(*columns).where(of.execution_id == execution_id, of.task_id.in_(list(wanted)))
            for row in self._connection.execute(query):
                found[row.task_id] = wanted[row.task_id]._replace(input=row.input, result=row.result)
                if row.input is None and row.input_bytes is not None:
                    large.append(input_name(row.task_id))
                if row.result is None and row.result_bytes is not None:
                    large.append(result_name(row.task_id))
        for start in range(0, len(large), _AT_ONCE):
            names = large[start : start + _AT_ONCE]
            for name, text in join_blobs(self._connection, ExecutionId(execution_id), *names).items():
                column, _, id = name.partition(":")
                step = found[TaskId(id)]
                found[TaskId(id)] = step._replace(result=text) if column == "result" else step._replace(input=text)
        return found


@contextmanager
def opened(reader: Reader) -> Iterator[Origins]:
    """Yield the executions as they are at one moment."""
    with reader.connected() as connection:
        yield Origins(connection)
