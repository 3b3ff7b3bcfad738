"""A crash before and after every write of random plans: the next engine ends each of them right, on both databases.

The journal dies at write 1, 2, 3, ... of the same plan, until the plan ends without; the engine after it may die too.
Tools keep a log of their own. Time is a clock's that moves by itself, so back-offs and waits cost nothing.
"""

from __future__ import annotations

import asyncio
import os
from collections import Counter
from collections.abc import Iterator
from typing import Any, Literal

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import laws
from dagbok import Dagbok
from dagbok.domain.call import Call
from dagbok.domain.states import ENDED, EXECUTION_ENDED
from dagbok.errors import Conflict, OutcomeUnknown, ToolError
from dagbok.service import Submitted
from dagbok.store.database import Database
from dagbok.testing import CrashingJournal, FakeClock, ScriptedTool, plans

LONG = os.environ.get("DAGBOK_CHAOS") == "1"
When = Literal["before", "after"]

#: What a call does by the last digit of its number: most of them work.
_MOODS = ("works",) * 5 + ("slow", "passing", "refused", "unknown", "silent")


class World:
    """One database for all examples, and what the tools of one example say that they did."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.runner = asyncio.Runner()
        self.database = Database.open(url)
        self.seed = 0
        self.begin()

    def begin(self) -> None:
        self.clock = FakeClock()
        self.started: Counter[str] = Counter()  # bodies, by task
        self.acted: Counter[str] = Counter()  # those that had their effect
        self.excused: Counter[str] = Counter()  # tries that were known to have failed without it

    def close(self) -> None:
        self.database.close()
        self.runner.close()

    def tools(self) -> list[ScriptedTool]:
        return [ScriptedTool(name, self.body, effect=name, clock=self.clock) for name in ("pure", "idempotent", "once")]

    async def body(self, call: Call) -> Any:
        """Do what the mood of this call is; `once` acts are counted where they would be seen."""
        self.started[call.task_id] += 1
        mood = _MOODS[(self.seed + 7 * int(call.task_id[1:]) + 3 * self.started[call.task_id]) % len(_MOODS)]
        if mood in ("slow", "silent"):
            await self.clock.sleep(5 if mood == "slow" else 9_999)  # longer than any attempt may take
        if mood in ("passing", "refused"):
            self.excused[call.task_id] += 1
            raise ToolError("not now", code="unavailable" if mood == "passing" else "refused")
        self.acted[call.task_id] += 1
        if mood == "unknown":
            raise ToolError("the line broke", code="outcome_unknown")
        return {"value": call.task_id}

    # -- one life after the other -----------------------------------------------------------------------------------

    def live(self, document: dict[str, Any], deaths: list[tuple[int, When]]) -> tuple[str | None, int]:
        """Run a plan, dying as told, and return its execution (None: lost with its submission), and the deaths."""
        self.begin()
        id: str | None = None
        ended_before: dict[str, int] = {}
        for number, (at, when) in enumerate([*deaths, (None, "before")]):
            crash = CrashingJournal(at=at, when=when)
            id = self.runner.run(self._life(document, id, crash, first=number == 0))
            if id is None:
                return None, number + 1
            self._judge(id, ended_before)
            if not crash.crashed:
                return id, number
        raise AssertionError("the last life ended early")

    async def _life(
        self, document: dict[str, Any], id: str | None, crash: CrashingJournal, *, first: bool
    ) -> str | None:
        clock = self.clock = self.clock.next_process()
        dagbok = Dagbok(
            self.url, tools=self.tools(), clock=clock, close_grace_s=0, tool_timeout_s=60,
            journal=lambda journal: crash.around(clock.watch(journal)),
        )  # fmt: skip
        async with dagbok:
            try:
                if first:
                    submitted = await dagbok.submit(document)
                    assert isinstance(submitted, Submitted)
                    id = submitted.execution_id
                assert id is not None
                await self._until_ended(dagbok, id, crash)
            except OutcomeUnknown:
                assert crash.crashed
                if id is None:  # nobody was told of it; it may be there all the same
                    found = await dagbok.list(limit=1)
                    fresh = [each.id for each in found if each.status not in EXECUTION_ENDED]
                    return fresh[0] if fresh else None
        return id

    async def _until_ended(self, dagbok: Dagbok, id: str, crash: CrashingJournal) -> None:
        """Answer whatever is asked, truthfully, until it has ended."""
        while True:
            execution = await self.clock.run(dagbok.wait(id))
            if execution.status in EXECUTION_ENDED or crash.crashed:
                return
            for step in execution.sub_steps:
                if step.status != "waiting":
                    continue
                if step.reason == "human":
                    answer: dict[str, Any] = {"input": {"value": "said"}}
                elif self.acted[step.task_id]:
                    answer = {"decision": "succeeded", "result": {"value": step.task_id}}
                else:
                    answer = {"decision": "retry"}
                leave = answer.get("decision") == "retry"
                self.excused[step.task_id] += leave
                try:
                    await dagbok.answer(id, step.task_id, answer)
                except Conflict:  # it is answered already: by the last life, whose command is being applied
                    self.excused[step.task_id] -= leave

    def _judge(self, id: str, ended_before: dict[str, int]) -> None:
        written = laws.read(self.database, id)[id]
        assert laws.broken(written) == []
        for task_id, step in written.steps.items():
            if step["status"] in ENDED:
                before = ended_before.setdefault(task_id, self.started[task_id])
                assert self.started[task_id] == before, f"{task_id} had ended, and ran again"
            if step["effect"] == "once":
                assert self.acted[task_id] <= 1, f"{task_id} acted {self.acted[task_id]} times"
                assert self.started[task_id] <= 1 + self.excused[task_id], f"{task_id} ran without leave"


@pytest.fixture
def world(database_url: str) -> Iterator[World]:
    opened = World(database_url)
    yield opened
    opened.close()


@settings(
    max_examples=40 if LONG else 3, deadline=None, derandomize=not LONG,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)  # fmt: skip
@given(
    document=plans(
        min_tasks=2, max_tasks=6, policies=("fail", "skip", "default"), waits=st.sampled_from([0.5, 30]),
        retries=st.sampled_from([{"max_attempts": 2}, {"backoff_seconds": 0}, {"backoff_seconds": 60}]),
    ),
    seed=st.integers(0, 999),
)  # fmt: skip
def test_a_crash_before_or_after_any_write_of_any_plan_leaves_what_ends_right(
    world: World, document: dict[str, Any], seed: int
) -> None:
    world.seed = seed
    moments: list[tuple[int, When]] = [(at, when) for at in range(1, 200) for when in ("before", "after")]
    for moment in moments:
        id, deaths = world.live(document, [moment])
        assert id is not None or moment == (1, "before"), "what was accepted is lost"
        if not deaths:
            return
    raise AssertionError("it never ends without a death")


@settings(
    max_examples=60 if LONG else 6, deadline=None, derandomize=not LONG,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)  # fmt: skip
@given(
    document=plans(min_tasks=2, max_tasks=8, waits=st.sampled_from([0.5, 30])),
    seed=st.integers(0, 999),
    deaths=st.lists(st.tuples(st.integers(1, 9), st.sampled_from(["before", "after"])), min_size=2, max_size=6),
)
def test_life_after_life_may_end_early_and_the_last_one_ends_it_right(
    world: World, document: dict[str, Any], seed: int, deaths: list[tuple[int, When]]
) -> None:
    """Also while it takes over what the last one left."""
    world.seed = seed
    world.live(document, [(at + 1 if number == 0 else at, when) for number, (at, when) in enumerate(deaths)])
