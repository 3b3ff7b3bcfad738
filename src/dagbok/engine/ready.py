"""Steps that may start, in the order they should: executions take turns, and within one the longest path goes first."""

from __future__ import annotations

from collections import deque
from collections.abc import Hashable
from heapq import heappop, heappush
from typing import Generic, TypeVar

Owner = TypeVar("Owner", bound=Hashable)


class ReadyQueue(Generic[Owner]):
    """A fair priority queue: O(log n) per step, and no execution starves behind a large one."""

    def __init__(self) -> None:
        self._heaps: dict[Owner, list[tuple[int, int]]] = {}
        self._turns: deque[Owner] = deque()
        self._size = 0

    def __len__(self) -> int:
        return self._size

    def push(self, owner: Owner, position: int, remaining: int) -> None:
        """Add a step; `remaining` is the number of steps on its longest path to an end."""
        heap = self._heaps.get(owner)
        if heap is None:
            heap = self._heaps[owner] = []
            self._turns.append(owner)
        heappush(heap, (-remaining, position))
        self._size += 1

    def pop(self) -> tuple[Owner, int, int]:
        """Remove the step that should start next, and return it as it was pushed. Raises IndexError when empty."""
        owner = self._turns.popleft()
        heap = self._heaps[owner]
        negative, position = heappop(heap)
        self._size -= 1
        if heap:
            self._turns.append(owner)
        else:
            del self._heaps[owner]
        return owner, position, -negative

    def discard(self, owner: Owner) -> list[int]:
        """Remove all steps of an execution, and return them. Linear in executions: for an early end, or a pause."""
        heap = self._heaps.pop(owner, None)
        if heap is None:
            return []
        self._turns.remove(owner)
        self._size -= len(heap)
        return [position for _, position in heap]
