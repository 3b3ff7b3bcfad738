"""Whatever people ask, in whatever order, of any plan: nothing is ever stuck, nothing illegal, nothing done twice.

Random sequences of cancel, pause, resume, retry (with overrides), answers (right and wrong), fork and delete, with time
that passes, engines that close and processes that die in between, on both databases. After it people are sensible: they
resume, and answer what is asked; then every execution ends.
"""

from __future__ import annotations

import asyncio
import os
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from random import Random
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import laws
from dagbok import Dagbok
from dagbok.domain.call import Call
from dagbok.domain.states import EXECUTION_ENDED
from dagbok.errors import BadInput, Conflict, InvalidAnswer, NotFound, ToolError
from dagbok.store.database import Database
from dagbok.testing import CrashingJournal, FakeClock, ScriptedTool, plans

LONG = os.environ.get("DAGBOK_CHAOS") == "1"
EFFECTS: Any = ("pure", "idempotent", "once")
#: What a command may be told; anything else is a fault.
NO = (Conflict, BadInput, InvalidAnswer, NotFound)


#: What may be said to each kind of question.
ANSWERS: dict[str, list[dict[str, Any]]] = {
    "human": [{"input": {"value": "said"}}],
    "approval": [
        {"decision": "approve"}, {"decision": "approve"}, {"decision": "reject"},
        {"decision": "edit", "params": {"n": 1}},
    ],
    "did_it_happen": [{"decision": "retry"}, {"decision": "succeeded"}, {"decision": "fail"}],
}  # fmt: skip


class Crowd:
    """People who ask things of the executions of one database, and the world that the tools act on."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.runner = asyncio.Runner()
        self.database = Database.open(url)

    def close(self) -> None:
        self.database.close()
        self.runner.close()

    def play(self, document: dict[str, Any], seed: int, moves: int) -> Counter[str]:
        """Let `moves` random things happen, and everything end; return what was done, and what was refused."""
        self.random = Random(seed)
        self.clock = FakeClock()
        self.document = document
        self.ids: list[str] = []
        self.bodies: Counter[tuple[str, str, int]] = Counter()
        self.done: Counter[str] = Counter()
        left = moves
        while left > 0:
            left -= self.runner.run(self._life(self._some_moves, left))
            self._judge()
        self.runner.run(self._life(self._end_all, 0))
        self._judge(at_the_end=True)
        return self.done

    async def _life(self, what: Callable[[Dagbok, int], Awaitable[int]], moves: int) -> int:
        """Let an engine live for a while, and close or die."""
        clock = self.clock = self.clock.next_process()
        crash = CrashingJournal()
        tools = [ScriptedTool(name, self._body, effect=name, clock=clock) for name in EFFECTS]
        engine = Dagbok(
            self.url, tools=tools, clock=clock, close_grace_s=0, tool_timeout_s=60,
            journal=lambda journal: crash.around(clock.watch(journal)),
        )  # fmt: skip
        async with asyncio.timeout(120), engine as dagbok:
            if not self.ids:
                self.ids.append((await dagbok.submit(self.document, failure_policy=self._policy())).execution_id)
            made = await what(dagbok, moves)
            if self.random.random() < 0.5:
                crash.crash()
        return made

    def _policy(self) -> Any:
        return self.random.choice(["continue", "continue", "fail_fast"])

    async def _body(self, call: Call) -> Any:
        self.bodies[call.execution_id, call.task_id, call.attempt] += 1
        mood = Random(f"{call.task_id} {call.attempt} {call.params}").choice(["works"] * 4 + ["slow", "fails", "late"])
        if mood in ("slow", "late"):
            await self.clock.sleep(5 if mood == "slow" else 9_999)  # longer than any attempt may take
        if mood == "fails":
            raise ToolError("no", code="refused")
        return {"value": call.task_id}

    # -- what people ask --------------------------------------------------------------------------------------------

    async def _some_moves(self, dagbok: Dagbok, most: int) -> int:
        moves = min(most, self.random.randint(1, 8))
        for _ in range(moves):
            name = self.random.choice(
                ["time"] * 3 + ["answer"] * 6 + ["pause", "resume", "retry", "retry", "fork"] * 2 + ["cancel", "delete"]
            )
            try:
                await getattr(self, f"_{name}")(dagbok, self.random.choice(self.ids))
                self.done[name] += 1
            except NO:
                self.done[f"{name} refused"] += 1
        return moves

    async def _time(self, dagbok: Dagbok, id: str) -> None:
        await self.clock.advance(self.random.choice([0.1, 3, 25, 70]))

    async def _pause(self, dagbok: Dagbok, id: str) -> None:
        await dagbok.pause(id)

    async def _resume(self, dagbok: Dagbok, id: str) -> None:
        await dagbok.resume(id)

    async def _cancel(self, dagbok: Dagbok, id: str) -> None:
        await dagbok.cancel(id)

    async def _delete(self, dagbok: Dagbok, id: str) -> None:
        if len(self.ids) > 1:
            await dagbok.delete(id)
            self.ids.remove(id)

    async def _retry(self, dagbok: Dagbok, id: str) -> None:
        tasks = [task["id"] for task in self.document["sub_tasks"] if task["tool_or_prompt"]["name"] in EFFECTS]
        some = self.random.sample(tasks, min(len(tasks), self.random.choice([0, 0, 1])))
        await dagbok.retry(id, overrides={task: {"params": {"n": self.random.random()}} for task in some} or None)

    async def _fork(self, dagbok: Dagbok, id: str) -> None:
        if len(self.ids) < 4:
            task = self.random.choice(self.document["sub_tasks"])["id"]
            forked = await dagbok.fork(id, from_task=self.random.choice([None, task]))
            self.ids.append(forked.execution_id)

    async def _answer(self, dagbok: Dagbok, id: str) -> None:
        waiting = [step for step in (await dagbok.get(id)).sub_steps if step.status == "waiting"]
        any_task = self.random.choice(self.document["sub_tasks"])["id"]
        task = self.random.choice(waiting).task_id if waiting and self.random.random() < 0.9 else any_task
        fitting = {step.task_id: ANSWERS[step.question.kind] for step in waiting if step.question is not None}
        wild = [answer for answers in ANSWERS.values() for answer in answers]
        answers = fitting.get(task, wild) if self.random.random() < 0.8 else wild
        await dagbok.answer(id, task, self.random.choice(answers))

    # -- how it ends ------------------------------------------------------------------------------------------------

    async def _end_all(self, dagbok: Dagbok, _: int) -> int:
        for id in self.ids:
            for _round in range(400):
                execution = await dagbok.get(id)
                if execution.status in EXECUTION_ENDED:
                    break
                if execution.paused_at is not None:
                    await dagbok.resume(id)
                for step in execution.sub_steps:
                    if step.status == "waiting":
                        await self._sensibly(dagbok, id, step)
                await self.clock.advance(30)
            else:
                raise AssertionError(f"{id} is stuck: {[(s.task_id, s.status, s.reason) for s in execution.sub_steps]}")
        return 1

    async def _sensibly(self, dagbok: Dagbok, id: str, step: Any) -> None:
        answers: dict[str, dict[str, Any]] = {
            "approval": {"decision": "approve"},
            "human": {"input": {"value": "said"}},
        }
        try:
            await dagbok.answer(id, step.task_id, answers.get(step.reason, {"decision": "succeeded"}))
        except NO:  # it has been answered, or was too late, by what happened before
            self.done["late"] += 1

    def _judge(self, *, at_the_end: bool = False) -> None:
        found = laws.read(self.database)
        for id in self.ids:
            written = found[id]
            assert laws.broken(written) == []
            assert written.ended or not at_the_end
            for task_id, step in written.steps.items():
                mine = {
                    attempt: count for (of, task, attempt), count in self.bodies.items() if (of, task) == (id, task_id)
                }
                if step["effect"] == "once":  # of others the start may not be durable when they begin
                    twice = [attempt for attempt, count in mine.items() if count > 1 or attempt > step["attempt"]]
                    assert not twice, f"{task_id}: attempts {twice} ran twice, or before their start was durable"
                if step["reason"] == "reused":
                    assert not mine, f"{task_id} was finished in the origin, and ran again"


@pytest.fixture
def crowd(database_url: str) -> Iterator[Crowd]:
    opened = Crowd(database_url)
    yield opened
    opened.close()


@settings(
    max_examples=300 if LONG else 5, deadline=None, derandomize=not LONG,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)  # fmt: skip
@given(
    document=plans(
        min_tasks=2, max_tasks=7, waits=st.sampled_from([0.5, 30]), approvals=True,
        answer_within=st.sampled_from([2, 40]), retries=st.sampled_from([{"max_attempts": 2}, {"backoff_seconds": 20}]),
    ),
    seed=st.integers(0, 9_999),
    moves=st.integers(5, 40),
)  # fmt: skip
def test_nothing_is_ever_stuck_or_illegal(crowd: Crowd, document: dict[str, Any], seed: int, moves: int) -> None:
    crowd.play(document, seed, moves)
