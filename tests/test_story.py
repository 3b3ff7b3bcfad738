"""Two hours of a plan that people step into, in seconds: with a death of the process between any two of its turns.

People approve, edit, reject, let time pass, are reminded, answer late, answer twice; what failed is retried with other
params, and from what came of it a fork goes on. The tools keep a log of their own, which is held against the rows.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

import laws
from dagbok import Dagbok
from dagbok.domain.call import Call
from dagbok.errors import Conflict, InvalidAnswer, ToolError
from dagbok.store.database import Database
from dagbok.testing import CrashingJournal, FakeClock, ScriptedTool

MINUTE_S = 60


def _task(id: str, tool: str, params: dict[str, Any], *after: str, **more: Any) -> dict[str, Any]:
    kind = "human" if tool == "human" else "tool"
    call = {"name": tool, "params": params}
    return {"id": id, "action_type": kind, "tool_or_prompt": call, "dependencies": list(after), **more}


PLAN = {
    "original_request": "Launch version 2",
    "intent": {"primary": "launch"},
    "sub_tasks": [
        _task("facts", "look", {"about": "version 2"}),
        _task("legal", "human", {"prompt": "May we?"}, timeout_seconds=10 * MINUTE_S, on_timeout="skip"),
        _task("budget", "human", {"prompt": "How much?", "schema": {"type": "integer"}, "assignee": "ann"},
              timeout_seconds=20 * MINUTE_S, on_timeout="remind"),
        _task("tone", "human", {"prompt": "How?", "schema": {"enum": ["plain", "loud"]}},
              timeout_seconds=30 * MINUTE_S, on_timeout="default", default="plain"),
        _task("draft", "look", {"about": "<Result from Task facts>", "tone": "<Result from Task tone>"}, "legal",
              requires_approval=True),
        _task("mail", "act", {"to": "all", "text": "<Result from Task draft>"}, requires_approval=True),
        _task("post", "act", {"to": "web", "text": "<Result from Task draft>"}, requires_approval=True),
        _task("thanks", "act", {"to": "web"}, "post"),
        _task("pay", "act", {"to": "nobody", "cents": "<Result from Task budget>"}),
    ],
    "synthesis_plan": "say what came of it",
}  # fmt: skip


class Story:
    """The world outside the engine: its database, its clock, what its tools have done, and those who look."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.clock = FakeClock()
        self.began_ms = self.clock.now_ms()
        self.log: list[tuple[str, str, dict[str, Any]]] = []  # execution, task, params of each body
        self.id = ""
        self.fork = ""

    async def turn(self, what: Callable[[Dagbok], Awaitable[None]]) -> None:
        """Let a process live for one turn of the story, and kill it."""
        clock = self.clock = self.clock.next_process()
        crash = CrashingJournal()
        tools = [
            ScriptedTool("look", self._body, effect="pure", clock=clock),
            ScriptedTool("act", self._body, effect="once", clock=clock),
        ]
        engine = Dagbok(
            self.url, tools=tools, clock=clock, close_grace_s=0, journal=lambda j: crash.around(clock.watch(j))
        )
        async with asyncio.timeout(60), engine as dagbok:
            await what(dagbok)
            crash.crash()
        database = Database.open(self.url)
        for written in laws.read(database).values():
            assert laws.broken(written) == []
        database.close()

    async def _body(self, call: Call) -> Any:
        self.log.append((call.execution_id, call.task_id, call.params))
        if call.params.get("to") == "nobody":
            raise ToolError("there is no account of that name", code="refused")
        return {"did": call.task_id, **call.params}

    def bodies(self, id: str, task_id: str) -> list[dict[str, Any]]:
        return [params for execution, task, params in self.log if (execution, task) == (id, task_id)]

    async def at(self, minutes: float) -> None:
        """Let time pass until so many minutes after the beginning."""
        await self.clock.advance((self.began_ms + minutes * MINUTE_S * 1000 - self.clock.now_ms()) / 1000)

    async def until(self, dagbok: Dagbok, id: str, **states: str) -> Any:
        """Return the execution once these sub-tasks stand so: a status, or a reason."""
        changed = asyncio.Event()
        end = dagbok.scheduler.subscribe(lambda *_: changed.set())
        try:
            while True:
                changed.clear()
                execution = await dagbok.get(id)
                if all(state in (execution[task].status, execution[task].reason) for task, state in states.items()):
                    return execution
                await changed.wait()
        finally:
            end()


def test_two_hours_of_people_and_accidents(database_url: str) -> None:
    asyncio.run(_story(Story(database_url)))


async def _story(story: Story) -> None:
    for turn in (
        _submit, _let_legal_be_late, _be_reminded, _go_on_by_default, _be_reminded_again, _answer_twice, _approve,
        _edit, _reject, _retry_with_an_override, _fork, _approve_in_the_fork, _look_back,
    ):  # fmt: skip
        await story.turn(lambda dagbok, turn=turn: turn(story, dagbok))  # type: ignore[misc]


async def _submit(story: Story, dagbok: Dagbok) -> None:
    story.id = (await dagbok.submit(PLAN)).execution_id
    await story.until(dagbok, story.id, facts="completed", legal="human", budget="human", tone="human")
    assert story.bodies(story.id, "facts") == [{"about": "version 2"}]


async def _let_legal_be_late(story: Story, dagbok: Dagbok) -> None:
    await story.at(10)
    execution = await story.until(dagbok, story.id, legal="chosen")
    assert (execution["legal"].status, execution["legal"].error_code) == ("skipped", "unanswered")
    with pytest.raises(Conflict, match="timed out at"):
        await dagbok.answer(story.id, "legal", {"input": "yes"}, by="carl")


async def _be_reminded(story: Story, dagbok: Dagbok) -> None:
    await story.at(20)
    await _reminded(story, dagbok, 1)


async def _go_on_by_default(story: Story, dagbok: Dagbok) -> None:
    await story.at(30)
    execution = await story.until(dagbok, story.id, draft="approval")
    assert (execution["tone"].status, execution["tone"].result) == ("completed", "plain")
    shown = execution["draft"].question.shown
    assert shown["params"] == {"about": {"did": "facts", "about": "version 2"}, "tone": "plain"}


async def _be_reminded_again(story: Story, dagbok: Dagbok) -> None:
    await story.at(40)
    await _reminded(story, dagbok, 2)


async def _reminded(story: Story, dagbok: Dagbok, times: int) -> None:
    async def reminders() -> int:
        asked = await dagbok.human_inputs(execution_id=story.id, assignee="ann")
        return asked.human_inputs[0].reminders

    changed = asyncio.Event()
    end = dagbok.scheduler.subscribe(lambda *_: changed.set())
    while await reminders() < times:
        await changed.wait()
        changed.clear()
    end()
    assert await reminders() == times


async def _answer_twice(story: Story, dagbok: Dagbok) -> None:
    with pytest.raises(InvalidAnswer):
        await dagbok.answer(story.id, "budget", {"input": "plenty"})
    await dagbok.answer(story.id, "budget", {"input": 500}, by="ann")
    with pytest.raises(Conflict, match="was answered by 'ann'"):
        await dagbok.answer(story.id, "budget", {"input": 900}, by="bob")
    execution = await story.until(dagbok, story.id, budget="completed", pay="failed")
    assert execution["budget"].result == 500
    assert story.bodies(story.id, "pay") == [{"to": "nobody", "cents": 500}]


async def _approve(story: Story, dagbok: Dagbok) -> None:
    assert story.bodies(story.id, "draft") == []
    await dagbok.answer(story.id, "draft", {"decision": "approve"}, by="ann")
    await story.until(dagbok, story.id, draft="completed", mail="approval", post="approval")
    assert len(story.bodies(story.id, "draft")) == 1


async def _edit(story: Story, dagbok: Dagbok) -> None:
    params = {"to": "friends", "text": "<Result from Task thanks>"}  # no reference: an edit is taken as it is
    await dagbok.answer(story.id, "mail", {"decision": "edit", "params": params}, by="bob")
    execution = await story.until(dagbok, story.id, mail="completed")
    assert story.bodies(story.id, "mail") == [params]
    assert execution["mail"].override == {"edited": params}


async def _reject(story: Story, dagbok: Dagbok) -> None:
    await story.at(60)
    await dagbok.answer(story.id, "post", {"decision": "reject"}, by="carl")
    execution = await story.until(
        dagbok, story.id, post="failed", thanks="dependency_failed", __SYNTHESIS__="completed"
    )
    assert (execution.status, execution["post"].error) == ("partial", "carl has rejected it.")
    assert (execution.completed_tasks, execution.failed_tasks, execution.skipped_tasks) == (5, 2, 2)
    for missing in ("post", "pay", "thanks"):
        assert missing in execution.final_result


async def _retry_with_an_override(story: Story, dagbok: Dagbok) -> None:
    await story.at(90)
    override = {"params": {"to": "printer", "cents": "<Result from Task budget>"}}
    await dagbok.retry(story.id, steps=["pay"], overrides={"pay": override}, by="ann")
    execution = await story.until(dagbok, story.id, pay="completed", __SYNTHESIS__="completed")
    assert story.bodies(story.id, "pay") == [{"to": "nobody", "cents": 500}, {"to": "printer", "cents": 500}]
    assert (execution.status, execution.retry_count, execution["pay"].attempt) == ("partial", 1, 2)
    assert (execution["post"].status, execution["thanks"].status) == ("failed", "skipped")


async def _fork(story: Story, dagbok: Dagbok) -> None:
    await story.at(100)
    fork = await dagbok.fork(story.id, overrides={"post": {"params": {"to": "web", "text": "short"}}}, by="ann")
    story.fork = fork.execution_id
    execution = await story.until(dagbok, story.fork, post="approval")
    reused = {step.task_id for step in execution.sub_steps if step.reason == "reused"}
    assert reused == {"facts", "budget", "tone", "draft", "mail", "pay"}
    assert (execution.forked_from, fork.reused_tasks, execution["legal"].reason) == (story.id, 7, "chosen")
    assert execution["mail"].override == {"edited": story.bodies(story.id, "mail")[0]}


async def _approve_in_the_fork(story: Story, dagbok: Dagbok) -> None:
    await story.at(120)
    await dagbok.answer(story.fork, "post", {"decision": "approve"}, by="carl")
    execution = await story.until(dagbok, story.fork, thanks="completed", __SYNTHESIS__="completed")
    assert (execution.status, execution.completed_tasks, execution.skipped_tasks) == ("completed", 8, 1)


async def _look_back(story: Story, dagbok: Dagbok) -> None:
    """Nothing that had finished ran again, in the one or the other; and who said what is kept."""
    ran = sorted((id == story.fork, task) for id, task, _ in story.log)
    assert ran == [
        (False, "draft"), (False, "facts"), (False, "mail"), (False, "pay"), (False, "pay"), (True, "post"),
        (True, "thanks"),
    ]  # fmt: skip
    kept = await dagbok.human_inputs(status="all", execution_id=story.id)
    told = {item.task_id: (item.kind, item.outcome, item.answered_by, item.answer) for item in kept.human_inputs}
    assert told == {
        "legal": ("human", "timed_out", None, None),
        "tone": ("human", "timed_out", None, None),
        "budget": ("human", "answered", "ann", 500),
        "draft": ("approval", "answered", "ann", {"decision": "approve"}),
        "mail": ("approval", "answered", "bob", {"decision": "edit", "params": story.bodies(story.id, "mail")[0]}),
        "post": ("approval", "answered", "carl", {"decision": "reject"}),
    }
    assert (await dagbok.human_inputs()).human_inputs == []
