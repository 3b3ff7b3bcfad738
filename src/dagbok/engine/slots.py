"""How many attempts may be under way, in all and per tool, and the steps that wait for their turn."""

from __future__ import annotations

from collections import defaultdict
from typing import Generic

from dagbok.engine.ports import ToolSpec
from dagbok.engine.ready import Owner, ReadyQueue


class Slots(Generic[Owner]):
    """The limits, and two kinds of queue: one for all, and one for each tool that is at its own limit.

    A step leaves its tool's line for the common one when the tool has room again. Whoever starts it may find the room
    taken by then, and lines it up again; what is never allowed is room for a tool whose steps all stand in its line. So
    whoever does not take the room after all passes it on.
    """

    def __init__(self, limit: int) -> None:
        self._free = limit
        self._ready: ReadyQueue[Owner] = ReadyQueue()
        self._running: defaultdict[str, int] = defaultdict(int)  # by tool that has a limit
        self._lines: dict[str, tuple[ToolSpec, ReadyQueue[Owner]]] = {}

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

    def line_up(self, tool: ToolSpec, owner: Owner, position: int, remaining: int) -> None:
        """Let a step wait until `tool` has room."""
        _, line = self._lines.setdefault(tool.name, (tool, ReadyQueue()))
        line.push(owner, position, remaining)

    def release(self, tool: ToolSpec) -> None:
        """Give back what `take` took."""
        self._free += 1
        if tool.max_concurrency is not None:
            self._running[tool.name] -= 1
            self.pass_on(tool)

    def pass_on(self, tool: ToolSpec) -> None:
        """Let others have the room of `tool` that a step whose turn it was did not take."""
        if tool.name in self._lines:
            self._let_pass(tool.name)

    def discard(self, owner: Owner) -> list[int]:
        """Forget all that waits of an execution, and return it; what it had been promised goes to others."""
        positions = self._ready.discard(owner)
        for name in list(self._lines):
            positions += self._lines[name][1].discard(owner)
            self._let_pass(name)
        return positions

    def _let_pass(self, name: str) -> None:
        tool, line = self._lines[name]
        room = (tool.max_concurrency or 0) - self._running[name]
        while room > 0 and line:
            self._ready.push(*line.pop())
            room -= 1
        if not line:
            del self._lines[name]
