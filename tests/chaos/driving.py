"""Those who use the engine: they submit plans, answer questions, ask for the end of some executions.

They do so through the library inside a victim, or over HTTP from a process of their own, and write into the side log
what they are about to do and what was accepted. They answer truthfully: whether a step that was cut off has happened is
what its body wrote into the side log.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

import httpx2
import orjson

from chaos import plans, sidelog
from chaos.plans import Planned
from chaos.sidelog import SideLog
from chaos.tools import result_of
from dagbok import AsyncClient, Dagbok
from dagbok.errors import Conflict, DagbokError
from dagbok.service import Submitted

#: Between two looks of a person into the inbox.
_LOOK_S = 0.02


@dataclass(frozen=True)
class Question:
    """A sub-step that waits for a person."""

    execution_id: str
    task_id: str
    plan: int
    kind: str  # human | did_it_happen


class Engine(Protocol):
    """An engine, from inside or over HTTP."""

    async def submit(self, planned: Planned) -> tuple[str, bool]:
        """Return the execution's id, and whether an earlier submission made it."""
        ...

    async def cancel(self, execution_id: str) -> None: ...

    async def pause(self, execution_id: str) -> None: ...

    async def resume(self, execution_id: str) -> None: ...

    async def answer(self, question: Question, answer: Mapping[str, Any]) -> None: ...

    async def questions(self) -> Iterable[Question]: ...

    async def unfinished(self) -> int: ...


class Embedded:
    """The engine of this process."""

    def __init__(self, dagbok: Dagbok) -> None:
        self._dagbok = dagbok
        self._submissions: set[asyncio.Task[Submitted]] = set()

    async def settle(self) -> None:
        """Let the submissions under way end, one way or the other, while the engine is open."""
        if self._submissions:
            await asyncio.wait(self._submissions, timeout=5)

    async def submit(self, planned: Planned) -> tuple[str, bool]:
        submitting = self._dagbok.submit(
            planned.document,
            labels=planned.labels,
            deadline_seconds=planned.deadline_s,
            idempotency_key=planned.key,
        )
        task = asyncio.ensure_future(submitting)
        self._submissions.add(task)
        task.add_done_callback(self._submissions.discard)
        task.add_done_callback(lambda done: done.cancelled() or done.exception())
        made = await asyncio.shield(task)
        return made.execution_id, made.replayed

    async def cancel(self, execution_id: str) -> None:
        await self._dagbok.cancel(execution_id)

    async def pause(self, execution_id: str) -> None:
        await self._dagbok.pause(execution_id)

    async def resume(self, execution_id: str) -> None:
        await self._dagbok.resume(execution_id)

    async def answer(self, question: Question, answer: Mapping[str, Any]) -> None:
        await self._dagbok.answer(question.execution_id, question.task_id, answer, by="chaos")

    async def questions(self) -> Iterable[Question]:
        return await asyncio.to_thread(self._questions)

    def _questions(self) -> list[Question]:
        reader = self._dagbok.service.reader
        found = []
        for row in reader.open_questions():
            labels = orjson.loads((reader.get_execution(row["execution_id"]) or {})["labels"])
            found.append(Question(row["execution_id"], row["task_id"], int(labels["plan"]), row["kind"]))
        return found

    async def unfinished(self) -> int:
        return len(await asyncio.to_thread(self._dagbok.service.unfinished))


class Served:
    """The engine of a server."""

    def __init__(self, url: str, client: AsyncClient, http: httpx2.AsyncClient) -> None:
        self._url, self._client, self._http = url, client, http

    async def submit(self, planned: Planned) -> tuple[str, bool]:
        made = await self._client.submit(
            planned.document,
            labels=planned.labels,
            deadline_seconds=planned.deadline_s,
            idempotency_key=planned.key,
        )
        return made.execution_id, False

    async def cancel(self, execution_id: str) -> None:
        await self._client.cancel(execution_id)

    async def pause(self, execution_id: str) -> None:
        await self._client.pause(execution_id)

    async def resume(self, execution_id: str) -> None:
        await self._client.resume(execution_id)

    async def answer(self, question: Question, answer: Mapping[str, Any]) -> None:
        path = f"{self._url}/api/v1/dag-executions/{question.execution_id}/sub-steps/{question.task_id}/input"
        answered = await self._http.post(path, json={**answer, "by": "chaos"})
        if answered.status_code == 409:
            raise Conflict("answered already")
        answered.raise_for_status()

    async def questions(self) -> Iterable[Question]:
        found = []
        for execution in (await self._client.list(limit=100, status="waiting")).executions:
            for step in await self._client.sub_steps(execution.id):
                if step.status == "waiting":
                    kind = "did_it_happen" if step.reason == "outcome_unknown" else "human"
                    found.append(Question(execution.id, step.task_id, int((execution.labels or {})["plan"]), kind))
        return found

    async def unfinished(self) -> int:
        lists = [await self._client.list(limit=1, status=status) for status in ("pending", "running", "waiting")]
        return sum(page.pagination.total for page in lists)


class Driver:
    """Uses one engine for as long as it lives."""

    def __init__(self, engine: Engine, log: SideLog, seed: int, breathe_s: float = 0.0) -> None:
        self._engine, self._log, self._seed = engine, log, seed
        self._breathe_s = breathe_s

    async def until_all_ended(self) -> None:
        """Return once nothing is unfinished."""
        while await self._engine.unfinished():
            await self._look_into_inbox()
            await asyncio.sleep(_LOOK_S)  # as a person would look again; nobody tells another process

    async def answer_for_ever(self) -> None:
        """Answer what is asked, until cancelled."""
        while True:
            await self._look_into_inbox()
            await asyncio.sleep(_LOOK_S)

    async def submit(self, numbers: Iterable[int]) -> None:
        """Submit plans, one after the other, and cancel or pause those that are to be."""
        async with asyncio.TaskGroup() as others:
            for number in numbers:
                planned = plans.make(self._seed, number)
                self._log.write("intend", plan=number)
                try:
                    execution_id, replayed = await self._engine.submit(planned)
                except DagbokError as exc:
                    self._log.write("refused", plan=number, code=exc.code, message=str(exc))
                    continue
                self._log.write("accepted", plan=number, execution=execution_id, replayed=replayed)
                if planned.cancelled:
                    others.create_task(self._cancel(number, execution_id))
                if planned.paused:
                    others.create_task(self._pause(number, execution_id))
                await asyncio.sleep(self._breathe_s)

    async def resume_all(self) -> None:
        """Let go on what somebody paused who did not live to do that."""
        lines, _ = sidelog.read(self._log.path)
        last = {line["execution"]: line["what"] for line in lines if line["what"] in ("pause", "resumed")}
        for execution_id, what in last.items():
            if what == "pause":
                await self._ask("resume", execution_id)

    async def _cancel(self, number: int, execution_id: str) -> None:
        await asyncio.sleep(random.Random(f"{self._seed}/cancel/{number}").uniform(0, 0.3))
        await self._ask("cancel", execution_id)

    async def _pause(self, number: int, execution_id: str) -> None:
        rng = random.Random(f"{self._seed}/pause/{number}")
        await asyncio.sleep(rng.uniform(0, 0.2))
        await self._ask("pause", execution_id)
        await asyncio.sleep(rng.uniform(0, 0.4))
        await self._ask("resume", execution_id)

    async def _ask(self, what: Literal["cancel", "pause", "resume"], execution_id: str) -> None:
        """Ask something of an execution that is durable once it is accepted."""
        ways = {"cancel": self._engine.cancel, "pause": self._engine.pause, "resume": self._engine.resume}
        self._log.write(what, execution=execution_id)
        try:
            await ways[what](execution_id)
        except DagbokError as exc:
            self._log.write("refused", execution=execution_id, code=exc.code, message=str(exc))
        else:
            self._log.write(f"{what}d" if what != "cancel" else "cancelled", execution=execution_id)

    async def _look_into_inbox(self) -> None:
        questions = list(await self._engine.questions())
        if not questions:
            return
        told = _Told(self._log.path)
        for question in questions:
            answer = self._answer(question, told)
            self._log.write("answer", execution=question.execution_id, task=question.task_id, answer=answer)
            try:
                await self._engine.answer(question, answer)
            except Conflict:
                continue  # an answer of an earlier life waits to be applied
            self._log.write("answered", execution=question.execution_id, task=question.task_id)

    def _answer(self, question: Question, told: _Told) -> dict[str, Any]:
        task = plans.make(self._seed, question.plan).tasks[question.task_id]
        if question.kind == "human":
            return {"input": task.answer()}
        last = told.of(question)
        if last is not None and last["what"] == "end":
            return {"decision": "succeeded", "result": result_of(task.id, last["digest"], task.kb)}
        if last is not None and last["what"] == "fail":
            return {"decision": "fail"}
        # It began and did not end, or never began: a person who knows that may try again, or leave it.
        rng = random.Random(f"{self._seed}/{question.plan}/{question.task_id}/{told.starts(question)}")
        return {"decision": "retry" if rng.random() < 0.7 else "fail"}


class _Told:
    """What each body has told, as the side log has it now."""

    def __init__(self, path: Path) -> None:
        self._lines: dict[tuple[str, str], list[Mapping[str, Any]]] = {}
        for line in sidelog.read(path)[0]:
            if line["what"] in ("start", "end", "fail"):
                self._lines.setdefault((line["execution"], line["task"]), []).append(line)

    def of(self, question: Question) -> Mapping[str, Any] | None:
        """Return its last word."""
        lines = self._lines.get((question.execution_id, question.task_id), [])
        return lines[-1] if lines else None

    def starts(self, question: Question) -> int:
        """Return how often it has started."""
        lines = self._lines.get((question.execution_id, question.task_id), [])
        return sum(line["what"] == "start" for line in lines)
