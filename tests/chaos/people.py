"""People: they look into the inbox and answer what is asked; some late, some never, now and then two at once.

They answer truthfully: whether a step that was cut off has happened is what its body wrote into the side log, be it in
the execution of which this one is a fork.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import random
import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from chaos import plans, sidelog
from chaos.engines import Engine
from chaos.plans import Task
from chaos.sidelog import SideLog
from chaos.tools import result_of
from dagbok.errors import Conflict, InvalidAnswer
from dagbok.wire import ExecutionSummary, HumanInput

#: From so long before the time of a question is over, somebody waits for the last moment.
_CLOSE_S = 0.12
_NAMES = itertools.count()


def name(what: str) -> str:
    """Return a name for one wish or answer of this process, which nobody else has."""
    return f"{what}-{os.getpid()}-{time.monotonic_ns()}-{next(_NAMES)}"


def plan_of(execution: ExecutionSummary) -> int:
    """Return the number of its plan."""
    return int((execution.labels or {})["plan"])


class People:
    """Those who answer, of one process."""

    def __init__(self, engine: Engine, log: SideLog, seed: int) -> None:
        self._engine, self._log, self._seed = engine, log, seed
        self._known: dict[str, ExecutionSummary] = {}

    async def look(self) -> list[HumanInput]:
        """Return what is in the inbox."""
        questions = await self._engine.questions()
        if any(question.execution_id not in self._known for question in questions):
            self._known.update({each.id: each for each in await self._engine.executions()})
        return [question for question in questions if question.execution_id in self._known]

    def is_of_a_fork(self, question: HumanInput) -> bool:
        return self._known[question.execution_id].forked_from is not None

    def chance(self, question: HumanInput, about: str) -> random.Random:
        """Return what decides about a question, the same whenever it is decided."""
        asks = self._known[question.execution_id]
        plan, fork = plan_of(asks), self.is_of_a_fork(question)
        return random.Random(f"{self._seed}/{about}/{plan}/{fork}/{question.task_id}/{question.number}")

    async def answer(self, questions: Sequence[HumanInput]) -> None:
        """Answer what is asked, or leave it for later."""
        if questions:
            told = _Told(self._log.path)
            await asyncio.gather(*(self._answer(question, told) for question in questions))

    async def _answer(self, question: HumanInput, told: _Told) -> None:
        task = plans.make(self._seed, plan_of(self._known[question.execution_id])).tasks[question.task_id]
        rng = self.chance(question, "answer")
        if not await self._wants_to(task, question, rng):
            return
        at_once = 2 if rng.random() < 0.12 else 1
        by = [name("answer") for _ in range(at_once)]
        answers = [self._say(task, question, told, each) for each in by]
        await asyncio.gather(*(self._send(question, *each) for each in zip(answers, by, strict=True)))

    async def _wants_to(self, task: Task, question: HumanInput, rng: random.Random) -> bool:
        """Return whether the time has come to answer."""
        if question.kind == "did_it_happen" or task.patience == "prompt":
            return True
        now = datetime.now(UTC)
        if question.kind == "approval":
            return (now - question.asked_at).total_seconds() > rng.uniform(0.05, 0.4)
        if task.patience == "reminded":
            return question.reminders > 0
        if task.patience == "never" or question.due_at is None:
            return False
        left_s = (question.due_at - now).total_seconds()
        if left_s > _CLOSE_S:
            return False
        await asyncio.sleep(max(0.0, left_s + rng.uniform(-0.012, 0.004)))
        return True

    async def _send(self, question: HumanInput, answer: Mapping[str, Any], by: str) -> None:
        step = {"execution": question.execution_id, "task": question.task_id}
        about = {**step, "question": question.number, "kind": question.kind, "by": by}
        self._log.write("answer", **about, answer=answer)
        try:
            await self._engine.answer(question.execution_id, question.task_id, answer, by)
        except Conflict:
            self._log.write("too late", **about)  # perhaps an answer of an earlier life waits to be applied
        except InvalidAnswer as exc:
            self._log.write("misplaced", **about, message=str(exc)[:300])  # another question is open by now
        else:
            self._log.write("answered", **about)

    def _say(self, task: Task, question: HumanInput, told: _Told, by: str) -> Mapping[str, Any]:
        if question.kind == "human":
            return {"input": task.answer()}
        if question.kind == "approval":
            if task.approval == "edit":
                return {"decision": "edit", "params": plans.edited(task, by)}
            # Who is asked once more, because it is to run again, may have changed his mind.
            changed = question.number > 1 and self.chance(question, "again").random() < 0.3
            return {"decision": "approve" if task.approval == "approve" or changed else "reject"}
        asked_about = (question.shown or {}).get("attempt")  # 0: the last one of what this is a fork of
        last = told.of([question.execution_id] if asked_about else self._origins(question.execution_id), task.id)
        if last is not None and last["what"] == "end":
            return {"decision": "succeeded", "result": result_of(task.id, last["digest"], task.kb)}
        if last is not None and last["what"] == "fail":
            return {"decision": "fail"}
        # It began and did not end, or never began: a person who knows that may try again, or leave it.
        return {"decision": "retry" if self.chance(question, "retry").random() < 0.7 else "fail"}

    def _origins(self, execution_id: str) -> list[str]:
        """Return the execution, and what it is a fork of."""
        found: list[str] = []
        at: str | None = execution_id
        while at is not None and at in self._known:
            found.append(at)
            at = self._known[at].forked_from
        return found


class _Told:
    """What each body has told, as the side log has it now."""

    def __init__(self, path: Path) -> None:
        self._lines: dict[tuple[str, str], Mapping[str, Any]] = {}
        for line in sidelog.read(path)[0]:
            if line["what"] in ("start", "end", "fail"):
                self._lines[line["execution"], line["task"]] = line

    def of(self, executions: list[str], task_id: str) -> Mapping[str, Any] | None:
        """Return the last word of a body, in the first of these executions in which it has said one."""
        return next((line for id in executions if (line := self._lines.get((id, task_id)))), None)
