"""Stand-ins behind the engine's ports that are for its own tests: tools of functions, a journal held back."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from dagbok.domain import outline
from dagbok.domain.call import Call
from dagbok.domain.execution import Execution
from dagbok.domain.ids import Epoch, ExecutionId
from dagbok.domain.outline import Outline
from dagbok.domain.records import Changes
from dagbok.domain.states import Effect
from dagbok.domain.task import Task
from dagbok.engine.ports import NO_SECRETS, Secrets
from dagbok.engine.scheduler import Scheduler
from dagbok.testing import FakeClock as FakeClock
from dagbok.testing.clock import quiet as quiet

Body = Callable[[Call], Awaitable[object]]


@dataclass
class FakeTool:
    name: str
    body: Body
    effect: Effect = Effect.PURE
    timeout_s: float = 300.0
    max_concurrency: int | None = None
    timer: bool = False
    idle_timeout_s: float | None = None
    retry: Mapping[str, Any] | None = None
    stoppable: bool = True

    async def __call__(self, call: Call) -> object:
        return await self.body(call)


async def _nothing(call: Call) -> object:
    return None


class FakeTools:
    def __init__(self, *tools: FakeTool) -> None:
        self.tools = {tool.name: tool for tool in tools}

    def get(self, name: str) -> FakeTool | None:
        return self.tools.get(name)


@dataclass
class FakeJournal:
    """Keeps what is appended; commits at once, or when `release` is called if `held`."""

    held: bool = False
    appended: list[Changes] = field(default_factory=list)
    waiting: list[asyncio.Future[None]] = field(default_factory=list)

    def append(self, changes: Changes) -> asyncio.Future[None]:
        loop = asyncio.get_running_loop()
        future: asyncio.Future[None] = loop.create_future()
        self.appended.append(changes)
        if self.held:
            self.waiting.append(future)
        else:
            loop.call_soon(lambda: None if future.done() else future.set_result(None))
        return future

    def release(self, error: Exception | None = None) -> None:
        waiting, self.waiting = self.waiting, []
        for future in waiting:
            if error is None:
                future.set_result(None)
            else:
                future.set_exception(error)

    def events(self) -> list[tuple[str, str | None]]:
        return [(event.type, event.task_id) for changes in self.appended for event in changes.events]


def task(
    id: str | int, *after: str | int, tool: str = "work", params: Mapping[str, Any] | None = None, **more: Any
) -> Any:
    """Return a sub-task of a plan."""
    return {
        "id": id,
        "tool_or_prompt": {"name": tool, "params": dict(params or {})},
        "dependencies": list(after),
        **more,
    }


def plan(*tasks: Any, **more: Any) -> Outline:
    return outline.read({"original_request": "test", "intent": {"primary": "test"}, "sub_tasks": list(tasks), **more})


_NUMBERS = itertools.count()


def execution(made: Outline, tools: FakeTools) -> Execution:
    def effect(task: Task) -> Effect:
        tool = tools.get(task.tool)
        return tool.effect if tool else Effect.PURE

    return Execution(ExecutionId(f"dag-exec_{next(_NUMBERS)}"), made, epoch=Epoch(1), effect_of=effect)


class Bench:
    """A scheduler with all of the above."""

    def __init__(
        self,
        *tools: FakeTool,
        max_concurrency: int = 1000,
        journal: FakeJournal | None = None,
        secrets: Secrets = NO_SECRETS,
        clock: FakeClock | None = None,
    ) -> None:
        self.clock = clock or FakeClock()
        self.tools = FakeTools(*tools)
        self.journal = journal or FakeJournal()
        self.scheduler = Scheduler(
            self.journal,
            self.tools,
            self.clock,
            max_concurrency=max_concurrency,
            max_result_bytes=1_000_000,
            secrets=secrets,
        )

    def add(self, made: Outline) -> Execution:
        made_execution = execution(made, self.tools)
        self.scheduler.add(made_execution)
        return made_execution

    def add_with_deadline(self, made: Outline, seconds: float) -> Execution:
        made_execution = execution(made, self.tools)
        made_execution.header.deadline_at = self.clock.now_ms() + round(seconds * 1000)
        self.scheduler.add(made_execution)
        return made_execution

    async def finish(self, *executions: Execution) -> None:
        await self.clock.run(self._ends(executions))

    async def _ends(self, executions: Iterable[Execution]) -> None:
        await asyncio.gather(*(self.scheduler.wait(each.id) for each in executions))

    async def run(self, *tasks: Any, **more: Any) -> Execution:
        made = self.add(plan(*tasks, **more))
        await self.finish(made)
        return made
