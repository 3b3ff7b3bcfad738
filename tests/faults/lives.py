"""One execution through the lives of several engines, each of which dies at a write it is told, but for the last.

The tools keep a log of their own, and what they do at each call is settled before. Time is a clock's that moves by
itself, so back-offs and waits cost nothing. After each life the rows and the log are held against each other.
"""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import Coroutine
from contextlib import suppress
from typing import Any, Literal

import laws
from dagbok import Dagbok
from dagbok.domain.call import Call
from dagbok.domain.states import ENDED, EXECUTION_ENDED
from dagbok.errors import Conflict, InvalidAnswer, NotFound, OutcomeUnknown, ToolError
from dagbok.service import Submitted
from dagbok.store.database import Database
from dagbok.testing import CrashingJournal, FakeClock, ScriptedTool

When = Literal["before", "after"]

EFFECTS: tuple[Literal["pure", "idempotent", "once"], ...] = ("pure", "idempotent", "once")

#: Every write that a test lets an engine die at, and both sides of it.
MOMENTS: list[tuple[int, When]] = [(at, when) for at in range(1, 200) for when in ("before", "after")]

#: What a person puts in place of params.
EDITED = {"n": 4711}

#: What a call does by the last digit of its number: most of them work.
_MOODS = ("works",) * 5 + ("slow", "passing", "refused", "unknown", "silent")


def about(result: Any) -> str:
    """Return what a text holds that refers to a value in it."""
    value = result.get("value") if isinstance(result, dict) else None
    return f"about {value if isinstance(value, str) else json.dumps(value)}"


class World:
    """One database for all examples, and what the tools of one example say that they did."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.runner = asyncio.Runner()
        self.database = Database.open(url)
        self.seed = 0
        self.retries = 0  # how often what was lost is to run again
        self.patience_s = 60.0  # of this test with one life, in real time
        self.begin()

    def begin(self) -> None:
        self.clock = FakeClock()
        self.started: Counter[str] = Counter()  # bodies, by task
        self.acted: Counter[str] = Counter()  # those that had their effect
        self.excused: Counter[str] = Counter()  # tries that were known to have failed without it
        self.tries: dict[str, int] = {}  # that each task may fail
        self.given: list[tuple[str, dict[str, Any]]] = []  # the params of each body
        self.reminded: set[str] = set()  # tasks of which people are reminded, whose time is never over

    def close(self) -> None:
        self.database.close()
        self.runner.close()

    def tools(self) -> list[ScriptedTool]:
        return [ScriptedTool(name, self.body, effect=name, clock=self.clock) for name in EFFECTS]

    async def body(self, call: Call) -> Any:
        """Do what the mood of this call is; `once` acts are counted where they would be seen."""
        self.started[call.task_id] += 1
        self.given.append((call.task_id, call.params))
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
        tasks = document["sub_tasks"]
        self.tries = {task["id"]: (task.get("retry") or {}).get("max_attempts", 3) for task in tasks}
        self.reminded = {task["id"] for task in tasks if task.get("on_timeout") == "remind"}
        id: str | None = None
        ended_before: dict[str, int] = {}
        for number, (at, when) in enumerate([*deaths, (None, "before")]):
            crash = CrashingJournal(at=at, when=when)
            id = self.runner.run(self._bounded(self._life(document, id, crash, first=number == 0)))
            if id is None:
                return None, number + 1
            self._judge(id, ended_before, last=not crash.crashed)
            if not crash.crashed:
                return id, number
        raise AssertionError("the last life ended early")

    async def _bounded(self, life: Coroutine[Any, Any, str | None]) -> str | None:
        try:
            async with asyncio.timeout(self.patience_s):
                return await life
        except TimeoutError:
            raise AssertionError("it goes on for ever, or not at all") from None
        except NotFound as exc:
            raise AssertionError("what was accepted is lost") from exc

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
            if crash.crashed:
                return
            if execution.status in EXECUTION_ENDED:
                if execution.status == "completed" or execution.retry_count >= self.retries:
                    return
                await self.clock.advance(1)  # attempts of before are told from those after by their time
                await self._or_dead(self._retry(dagbok, id), crash)
                continue
            for step in execution.sub_steps:
                if step.status != "waiting":
                    continue
                if step.reason == "human" and step.next_attempt_at is not None and self._is_silent(step.task_id):
                    await self.clock.advance(1)
                    continue
                if step.reason == "human":
                    answer: dict[str, Any] = {"input": {"value": "said"}}
                elif step.reason == "approval":
                    answer = self._decision(step.task_id, step.tool_or_prompt_name)
                elif self.acted[step.task_id]:
                    answer = {"decision": "succeeded", "result": {"value": step.task_id}}
                else:
                    answer = {"decision": "retry"}
                leave = answer.get("decision") == "retry"
                self.excused[step.task_id] += leave
                try:
                    await self._or_dead(dagbok.answer(id, step.task_id, answer), crash)
                # Answered already, by the last life, whose command was applied just now; it may ask another thing.
                except (Conflict, InvalidAnswer):
                    self.excused[step.task_id] -= leave

    def _is_silent(self, task_id: str) -> bool:
        """Whether nobody answers this question in time."""
        return task_id not in self.reminded and (self.seed + int(task_id[1:])) % 2 == 0

    def _decision(self, task_id: str, tool: str) -> dict[str, Any]:
        """What is said to a sub-task that asks whether it may run: always the same."""
        chance = (self.seed + int(task_id[1:])) % 6
        if chance == 0:
            return {"decision": "reject"}
        return {"decision": "edit", "params": EDITED} if self._is_edited(task_id, tool) else {"decision": "approve"}

    def _is_edited(self, task_id: str, tool: str) -> bool:
        return tool in EFFECTS and (self.seed + int(task_id[1:])) % 6 in (1, 2)

    async def _retry(self, dagbok: Dagbok, id: str) -> None:
        with suppress(Conflict):  # the last life asked for it, and it is being applied
            await dagbok.retry(id)

    async def _or_dead(self, asking: Coroutine[Any, Any, None], crash: CrashingJournal) -> None:
        """Wait for what was asked, but not for a dead engine to do it."""
        asked, dead = asyncio.ensure_future(asking), asyncio.ensure_future(crash.until_crashed())
        await asyncio.wait({asked, dead}, return_when=asyncio.FIRST_COMPLETED)
        dead.cancel()
        if crash.crashed:
            asked.cancel()
        with suppress(asyncio.CancelledError):
            await asked

    def _judge(self, id: str, ended_before: dict[str, int], *, last: bool) -> None:
        written = laws.read(self.database, id)[id]
        assert laws.broken(written) == []
        if last and written.execution["status"] != "completed":
            assert written.execution["retry_count"] == self.retries
        for task_id, step in written.steps.items():
            if step["status"] == "completed" or (step["status"] in ENDED and not self.retries):
                before = ended_before.setdefault(task_id, self.started[task_id])
                assert self.started[task_id] == before, f"{task_id} had ended, and ran again"
            if step["tool_or_prompt_name"] in EFFECTS and step["status"] == "completed" and step["error_code"] is None:
                assert json.loads(step["result"]) == {"value": task_id}
            if step["effect"] == "once":
                assert self.acted[task_id] <= 1, f"{task_id} acted {self.acted[task_id]} times"
                allowed = (1 + self.excused[task_id]) * (1 + self.retries)
                assert self.started[task_id] <= allowed, f"{task_id} ran without leave"
            self._judge_failures(written, task_id)
        asked = {row["task_id"] for row in written.questions if row["kind"] == "approval"}
        for task_id, params in self.given:
            if task_id in asked and self._is_edited(task_id, written.steps[task_id]["tool_or_prompt_name"]):
                assert params == EDITED, f"{task_id} was given what nobody has approved: {params}"
            for parent, given in params.items():
                if parent.startswith("of"):
                    result = json.loads(written.steps[f"t{parent[2:]}"]["result"] or "null")
                    assert given in (result, about(result)), f"{task_id} was given {given}, and not of {result}"

    def _judge_failures(self, written: laws.Written, task_id: str) -> None:
        """A step that failed by an error that passes has used up its tries; what a death cut off is none of them."""
        step, tries = written.steps[task_id], self.tries.get(task_id)
        if tries is None or step["effect"] == "once":  # of which a person may allow more
            return
        since = written.execution["last_retry_at"] or 0
        rows = [row for row in written.attempts if row["task_id"] == task_id and row["started_at"] >= since]
        if step["status"] in ENDED and not rows:
            return  # it ended before the retry, which kept it
        outcomes = [row["outcome"] for row in rows]
        failed = sum(outcome in ("failed", "timeout") for outcome in outcomes)
        went_well = step["status"] == "completed" and step["error_code"] is None
        assert failed <= tries - went_well, f"{task_id} has {tries} tries, {failed} failed, and it is {step['status']}"
        if step["status"] in ENDED and step["error_code"] in ("timeout", "unavailable"):
            assert failed == tries, f"{task_id} has {tries} tries, and was given up after {failed}"
