"""How many attempts may be under way, in all and per tool, and the steps that wait for their turn."""

from __future__ import annotations

from collections import defaultdict
from typing import Generic

from dagbok.engine.ports import ToolSpec
from dagbok.engine.ready import Owner, ReadyQueue


class Slots(Generic[Owner]):
    """The limits, and two kinds of queue: one for all, and one for each tool that is at its own limit.

    A step leaves its tool's queue for the common one when the tool has room again. Whoever starts it may find the room
    taken by then, and parks it again; what is never allowed is room for a tool whose steps are all parked.
    """

    def __init__(self, limit: int) -> None:
        self._free = limit
        self._ready: ReadyQueue[Owner] = ReadyQueue()
        self._running: defaultdict[str, int] = defaultdict(int)  # by tool that has a limit
        self._parked: dict[str, tuple[ToolSpec, ReadyQueue[Owner]]] = {}

    def push(self, owner: Owner, position: int, remaining: int) -> None:
        """Let a step wait for its turn."""
        self._ready.push(owner, position, remaining)

    def pop(self) -> tuple[Owner, int] | None:
        """Return the step whose turn it is; None if none waits or no slot is free."""
        if not self._free or not self._ready:
            return None
        owner, position, _ = self._ready.pop()
        return owner, position

    def take(self, tool: ToolSpec) -> None:
        """Occupy a slot for a call of `tool`, which has room."""
        self._free -= 1
        if tool.max_concurrency is not None:
            self._running[tool.name] += 1

    def has_room(self, tool: ToolSpec) -> bool:
        """Return whether `tool` is below its own limit."""
        return tool.max_concurrency is None or self._running[tool.name] < tool.max_concurrency

    def park(self, tool: ToolSpec, owner: Owner, position: int, remaining: int) -> None:
        """Let a step wait until `tool` has room."""
        _, parked = self._parked.setdefault(tool.name, (tool, ReadyQueue()))
        parked.push(owner, position, remaining)

    def release(self, tool: ToolSpec) -> None:
        """Give back what `take` took."""
        self._free += 1
        if tool.max_concurrency is not None:
            self._running[tool.name] -= 1
            if tool.name in self._parked:
                self._unpark(tool.name)

    def discard(self, owner: Owner) -> None:
        """Forget all that waits of an execution; what it had been promised goes to others."""
        self._ready.discard(owner)
        for name in list(self._parked):
            self._parked[name][1].discard(owner)
            self._unpark(name)

    def _unpark(self, name: str) -> None:
        tool, parked = self._parked[name]
        room = (tool.max_concurrency or 0) - self._running[name]
        while room > 0 and parked:
            self._ready.push(*parked.pop())
            room -= 1
        if not parked:
            del self._parked[name]
