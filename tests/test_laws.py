"""What holds for any plan, whatever fails and in whatever order steps end, on both databases.

Each example is an execution by the real scheduler, journal and reader; only the tools are scripted.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import laws
from dagbok.domain import outline
from dagbok.domain.call import Call
from dagbok.domain.events import Event, EventType
from dagbok.domain.execution import Execution
from dagbok.domain.ids import DagId, Epoch, ExecutionId
from dagbok.domain.records import NewExecution
from dagbok.domain.states import Effect
from dagbok.domain.values import encode
from dagbok.engine.clock import SystemClock
from dagbok.engine.scheduler import Scheduler
from dagbok.errors import ToolError
from dagbok.store.database import Database
from dagbok.store.journal import Journal
from dagbok.store.queries import Reader
from engine.fakes import FakeTool, FakeTools

_NUMBERS = itertools.count()


@dataclass
class Script:
    """One example: a plan, which of its steps fail, and how many turns of the loop each takes."""

    tasks: list[dict[str, Any]]
    fails: dict[str, bool]
    turns: dict[str, int]
    synthesis: bool
    slots: int
    started: list[str] = field(default_factory=list)


@st.composite
def scripts(draw: st.DrawFn) -> Script:
    count = draw(st.integers(1, 9))
    tasks = []
    for position in range(count):
        parents = draw(st.lists(st.integers(0, position - 1), unique=True, max_size=3)) if position else []
        policy = draw(st.sampled_from(["fail", "fail", "skip", "default"]))
        tool = draw(st.sampled_from(["pure", "once"]))
        tasks.append(
            {
                "id": f"t{position}",
                "tool_or_prompt": {"name": tool, "params": {"n": position}},
                "dependencies": [f"t{parent}" for parent in parents],
                "on_failure": policy,
                "default": {"instead": position},
            }
        )
    order = draw(st.permutations(tasks))
    ids = [f"t{position}" for position in range(count)]
    fails = dict(zip(ids, draw(st.lists(st.booleans(), min_size=count, max_size=count)), strict=True))
    turns = dict(zip(ids, draw(st.lists(st.integers(0, 6), min_size=count, max_size=count)), strict=True))
    return Script(order, fails, turns, draw(st.booleans()), draw(st.integers(1, 4)))


class World:
    """A real store for all examples of one test."""

    def __init__(self, database: Database) -> None:
        self.runner = asyncio.Runner()
        self.database = database
        self.reader = Reader(database)
        self.journal = Journal(database)
        self.runner.get_loop()
        self.runner.run(self._start())

    async def _start(self) -> None:
        self.journal.start()

    def close(self) -> None:
        self.runner.run(self.journal.close())
        self.runner.close()

    async def play(self, script: Script) -> ExecutionId:
        def committed(call: Call) -> None:
            for task in script.tasks:
                if task["id"] == call.task_id:
                    rows = {row["task_id"]: row for row in self.reader.sub_steps(call.execution_id)}
                    for parent in task["dependencies"]:
                        done = rows[parent]["status"] == "completed" or rows[parent]["reason"] == "chosen"
                        assert done, f"{call.task_id} started before {parent} was committed"
                    if task["tool_or_prompt"]["name"] == "once":
                        assert rows[call.task_id]["status"] == "running", "a once body ran before its start was durable"

        async def body(call: Call) -> object:
            committed(call)
            script.started.append(call.task_id)
            for _ in range(script.turns[call.task_id]):
                await asyncio.sleep(0)
            if script.fails[call.task_id]:
                raise ToolError(f"{call.task_id} was told to fail", code="scripted")
            return {"from": call.task_id}

        async def synthesise(call: Call) -> object:
            return f"{len(call.results)} results, {len(call.missing)} missing"

        tools = FakeTools(
            FakeTool("pure", body), FakeTool("once", body, effect=Effect.ONCE), FakeTool("__synthesis__", synthesise)
        )
        scheduler = Scheduler(
            self.journal, tools, SystemClock(), max_concurrency=script.slots, max_result_bytes=1_000_000
        )
        document = {
            "original_request": "law",
            "intent": {"primary": "law"},
            "sub_tasks": script.tasks,
            "synthesis_plan": "count" if script.synthesis else "",
        }
        plan = outline.read(document)
        execution = Execution(
            ExecutionId(f"dag-exec_law{next(_NUMBERS)}"),
            plan,
            epoch=Epoch(1),
            effect_of=lambda task: Effect.ONCE if task.tool == "once" else Effect.PURE,
        )
        now_ms = scheduler.clock.now_ms()
        await self.journal.create(
            NewExecution(
                id=execution.id,
                dag_id=DagId(f"dag_{execution.id}"),
                new_dag=True,
                plan_hash=execution.id,
                plan=encode(document),
                title="law",
                original_request="law",
                primary_intent="law",
                created_at=now_ms,
                total_tasks=len(plan.sub_tasks),
                steps=execution.new_steps(),
                event=Event(1, EventType.EXECUTION_CREATED.value, None, now_ms, None),
                owner="law",
            )
        )
        scheduler.add(execution)
        await scheduler.wait(execution.id)
        await scheduler.close(0)
        return execution.id


@pytest.fixture
def world(database: Database) -> Iterator[World]:
    opened = World(database)
    yield opened
    opened.close()


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(script=scripts())
def test_any_plan_ends_with_rows_counters_and_diary_that_agree(world: World, script: Script) -> None:
    id = world.runner.run(world.play(script))
    written = laws.read(world.database, id)[id]
    row, steps = written.execution, written.steps
    tasks = {task["id"]: task for task in script.tasks}
    own = [steps[task_id] for task_id in tasks]

    assert written.ended
    assert not laws.broken(written)
    for task_id in tasks:
        assert steps[task_id]["status"] == _expected(task_id, tasks, script)
        assert (script.started.count(task_id) == 1) == (steps[task_id]["attempt"] == 1)
    assert row["status"] == laws.whole(own)
    if script.synthesis and row["completed_tasks"]:
        missing = len(tasks) - row["completed_tasks"]
        assert row["final_result"] == f"{row['completed_tasks']} results, {missing} missing"


def _expected(task_id: str, tasks: dict[str, Any], script: Script) -> str:
    """The status a step must end in, by the words of the design and without a scheduler."""
    task = tasks[task_id]
    parents = [_expected(parent, tasks, script) for parent in task["dependencies"]]
    policies = [tasks[parent]["on_failure"] for parent in task["dependencies"]]
    for status, policy, parent in zip(parents, policies, task["dependencies"], strict=True):
        chosen = status == "skipped" and policy == "skip" and _ran(parent, tasks, script)
        if status in ("failed", "skipped") and not chosen:
            return "skipped"
    if not script.fails[task_id]:
        return "completed"
    return {"fail": "failed", "skip": "skipped", "default": "completed"}[task["on_failure"]]


def _ran(task_id: str, tasks: dict[str, Any], script: Script) -> bool:
    return task_id in script.started
