"""What an execution has to do at a time: timers that end, and attempts whose back-off is over.

The rows hold the due times (`next_attempt_at`); this is the order of them. An entry whose step has gone another way
meanwhile is left in the heap and passed over later, so that nothing is ever searched.
"""

from __future__ import annotations

from collections.abc import Sequence
from heapq import heappop, heappush

from dagbok.domain.step import Step


class Agenda:
    """Due times of steps. O(log n) each."""

    def __init__(self, steps: Sequence[Step]) -> None:
        self._steps = steps
        self._heap: list[tuple[int, int]] = []

    def add(self, position: int) -> None:
        """Take in the due time of a step, which has one."""
        due_at = self._steps[position].next_attempt_at
        assert due_at is not None
        heappush(self._heap, (due_at, position))

    @property
    def next_at(self) -> int | None:
        """The earliest due time."""
        heap = self._heap
        while heap:
            due_at, position = heap[0]
            if self._steps[position].next_attempt_at == due_at:
                return due_at
            heappop(heap)
        return None

    def pop(self, now_ms: int) -> int | None:
        """Remove a step that is due and return it; None if none is."""
        due_at = self.next_at
        return None if due_at is None or due_at > now_ms else heappop(self._heap)[1]
