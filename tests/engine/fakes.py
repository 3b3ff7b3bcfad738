"""Stand-ins behind the engine's ports: time a test moves, tools it scripts, a journal it can hold back."""

from __future__ import annotations

import asyncio
import heapq
import itertools
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from dagbok.domain.call import Call
from dagbok.domain.execution import Execution
from dagbok.domain.ids import Epoch, ExecutionId
from dagbok.domain.plan import Plan, SubTask
from dagbok.domain.records import Changes
from dagbok.domain.states import Effect
from dagbok.engine.ports import NO_SECRETS, Secrets, Timer
from dagbok.engine.scheduler import Scheduler


class FakeTimer:
    def __init__(self, callback: Callable[[], None]) -> None:
        self.callback: Callable[[], None] | None = callback

    def cancel(self) -> None:
        self.callback = None


class FakeClock:
    """Time stands still until `advance` or `run` moves it to the next timer."""

    def __init__(self, now_ms: int = 1_800_000_000_000) -> None:
        self.now_us = now_ms * 1000
        self._timers: list[tuple[int, int, FakeTimer]] = []
        self._numbers = itertools.count()

    def now_ms(self) -> int:
        return self.now_us // 1000

    def call_later(self, delay_s: float, callback: Callable[[], None]) -> Timer:
        timer = FakeTimer(callback)
        heapq.heappush(self._timers, (self.now_us + round(delay_s * 1e6), next(self._numbers), timer))
        return timer

    async def sleep(self, seconds: float) -> None:
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.call_later(seconds, lambda: None if future.done() else future.set_result(None))
        await future

    def ring(self) -> bool:
        """Move to the next timer and ring it; return whether there was one."""
        while self._timers:
            due, _, timer = heapq.heappop(self._timers)
            if timer.callback is not None:
                self.now_us = max(self.now_us, due)
                timer.callback()
                return True
        return False

    async def run(self, done: asyncio.Future[Any]) -> None:
        """Ring timers, letting all that follows from each happen, until `done`."""
        idle = 0
        while not done.done():
            await quiet()
            idle = 0 if done.done() or self.ring() else idle + 1
            assert idle < 20, "nothing is due and nothing is decided"
        done.result()


async def quiet(turns: int = 12) -> None:
    """Let the loop go round until what was scheduled without a timer has happened."""
    for _ in range(turns):
        await asyncio.sleep(0)


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


def plan(*tasks: Any, **more: Any) -> Plan:
    return Plan.model_validate(
        {"original_request": "test", "intent": {"primary": "test"}, "sub_tasks": list(tasks), **more}
    )


_NUMBERS = itertools.count()


def execution(made: Plan, tools: FakeTools) -> Execution:
    def effect(task: SubTask) -> Effect:
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
    ) -> None:
        self.clock = FakeClock()
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

    def add(self, made: Plan) -> Execution:
        made_execution = execution(made, self.tools)
        self.scheduler.add(made_execution)
        return made_execution

    def add_with_deadline(self, made: Plan, seconds: float) -> Execution:
        made_execution = execution(made, self.tools)
        made_execution.header.deadline_at = self.clock.now_ms() + round(seconds * 1000)
        self.scheduler.add(made_execution)
        return made_execution

    async def finish(self, *executions: Execution) -> None:
        await self.clock.run(asyncio.ensure_future(self._ends(executions)))

    async def _ends(self, executions: Iterable[Execution]) -> None:
        await asyncio.gather(*(self.scheduler.wait(each.id) for each in executions))

    async def run(self, *tasks: Any, **more: Any) -> Execution:
        made = self.add(plan(*tasks, **more))
        await self.finish(made)
        return made
