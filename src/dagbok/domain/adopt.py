"""Beginning with what another execution has finished: the first state of a fork."""

from __future__ import annotations

from collections.abc import Mapping

from dagbok.domain import overrides, values
from dagbok.domain.ids import TaskId
from dagbok.domain.inquiry import Inquiry
from dagbok.domain.records import StepRow
from dagbok.domain.states import ENDED, Reason, StepStatus
from dagbok.domain.values import JsonText


class Adopt(Inquiry):
    """The operation on a new execution that nothing has happened to yet."""

    def adopt(
        self,
        finished: Mapping[TaskId, StepRow],
        doubtful: Mapping[TaskId, JsonText | None],
        now_ms: int,
        *,
        changed: Mapping[TaskId, JsonText] | None = None,
    ) -> None:
        """Take sub-steps over that need not run again, and ask about those of which nobody knows.

        Nothing of it ran here: no attempt is counted, and it costs nothing.

        Args:
            finished: The rows, by task, of another execution: completed, or skipped by choice, and with each all that
                it depends on.
            doubtful: `once` steps whose last attempt there may have happened, and its input. One that stands below
                what runs again is not asked about: it is to run again, too.
            now_ms: The time.
            changed: What stands beside the plan: the overrides that some of `finished` ran with, for who looks, and
                that of the synthesis, which has no place in a plan.
        """
        self._start(now_ms)
        for task_id, row in finished.items():
            position = self.index[task_id]
            assert self.steps[position].status is StepStatus.PENDING, f"{task_id} is taken over twice"
            self._take(position, row)
        for task_id, override in (changed or {}).items():
            step = self.steps[position := self.index[task_id]]
            step.override = values.decode(override)
            step.call(overrides.apply(self._planned(position), step.override), step.effect)
            self._unwritten.override(step)
        for task_id, input in doubtful.items():
            position = self.index[task_id]
            step = self.steps[position]
            if not step.unmet:
                step.input = input
                self._ask_whether(position, "It was cut off in the execution that this one is a fork of.", now_ms)
        self._unwritten.ready = [
            position
            for position, step in enumerate(self.steps)
            if not step.unmet and step.startable and position != self.synthesis
        ]
        self._settle(now_ms)

    def _take(self, position: int, row: StepRow) -> None:
        step = self.steps[position]
        status = StepStatus(row.status)
        assert status in ENDED, f"{row.task_id} is {status} and cannot be taken over"
        self._move(position, status)
        step.reason = Reason.REUSED if status is StepStatus.COMPLETED else row.reason
        step.input, step.result = row.input, row.result
        step.error, step.error_code, step.error_detail = row.error, row.error_code, row.error_detail
        step.started_at, step.completed_at, step.duration_ms = row.started_at, row.completed_at, row.duration_ms
        self.tally.end(status, step.reason)
        for child in self.graph.children[position]:
            self.steps[child].unmet -= 1
