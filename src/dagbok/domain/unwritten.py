"""What changed in an execution since the last commit was taken: rows to write, and steps that it will free."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from dagbok.domain import values
from dagbok.domain.call import NO_CHARGE, Charge
from dagbok.domain.events import Event, EventType
from dagbok.domain.ids import Epoch, ExecutionId
from dagbok.domain.records import AttemptRow, Changes, HeaderRow, OverrideRow, QuestionRow
from dagbok.domain.step import Step
from dagbok.domain.values import JsonText


class Unwritten:
    """Collects in order; `take` hands everything over and starts anew."""

    def __init__(self, seq: int) -> None:
        self.seq = seq  # of the last event
        self.ready: list[int] = []  # steps that may start once this is committed
        self._taken_seq = seq
        self._clear()

    def __bool__(self) -> bool:
        return bool(self._events or self._dirty or self._commands or self._questions)  # the rest comes with these

    def touch(self, position: int, step: Step) -> None:
        """Write the step's row."""
        if not step.dirty:
            step.dirty = True
            self._dirty.append(position)

    def event(
        self, type: EventType, step: Step | None, now_ms: int, data: Mapping[str, Any] | JsonText | None = None
    ) -> None:
        """Write a line of the diary."""
        self.seq += 1
        task_id = None if step is None else step.task.id
        text = data if isinstance(data, str) else values.encode(data) if data else None
        self._events.append(Event(self.seq, type._value_, task_id, now_ms, text))

    def attempt(
        self, step: Step, outcome: str, code: str, message: str, now_ms: int, charge: Charge = NO_CHARGE
    ) -> None:
        """Keep the step's latest try, which did not end well."""
        usage = values.encode(charge.usage) if charge.usage else None
        self._attempts.append(
            AttemptRow(
                step.task.id, step.attempt, outcome, message, code, step.started_at, now_ms, usage, charge.cost_usd
            )
        )

    def question(self, row: QuestionRow) -> None:
        """Write a line of the inbox."""
        self._questions.append(row)

    def override(self, step: Step) -> None:
        """Write what stands in place of the plan's task."""
        self._overrides.append(OverrideRow(step.task.id, values.encode(step.override), step.effect.value))

    def command(self, id: int) -> None:
        """Mark a command as applied."""
        self._commands.append(id)

    def take(
        self, id: ExecutionId, epoch: Epoch, header: HeaderRow, steps: Sequence[Step], *, hold: bool, release: bool
    ) -> Changes:
        """Return everything since the last call; `hold`: but for the steps that may start."""
        rows = [steps[position].row(header.updated_at) for position in self._dirty]
        for position in self._dirty:
            steps[position].dirty = False
        changes = Changes(
            id,
            epoch,
            self._taken_seq,
            self.seq,
            header,
            rows,
            self._attempts,
            self._questions,
            self._events,
            self._commands,
            () if hold else self.take_ready(),
            self._overrides,
            release=release,
        )
        self._taken_seq = self.seq
        self._clear()
        return changes

    def take_ready(self) -> list[int]:
        """Return the steps that may start, and forget them."""
        ready, self.ready = self.ready, []
        return ready

    def _clear(self) -> None:
        self._dirty: list[int] = []
        self._events: list[Event] = []
        self._attempts: list[AttemptRow] = []
        self._questions: list[QuestionRow] = []
        self._commands: list[int] = []
        self._overrides: list[OverrideRow] = []
