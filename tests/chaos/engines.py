"""An engine as those who use it see it: the library inside a victim, or a server over HTTP."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import httpx2

from chaos.plans import Planned
from dagbok import AsyncClient, Dagbok
from dagbok.errors import Conflict, InvalidAnswer
from dagbok.service import Submitted
from dagbok.wire import ExecutionSummary, HumanInput, SubStep


@dataclass(frozen=True)
class Wish:
    """What is to be different in a fork, or when what was lost runs again."""

    by: str  # who asks: a name of its own for each time; the key of a fork
    from_task: str | None = None
    steps: Sequence[str] | None = None
    overrides: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)


class Engine(Protocol):
    """An engine, from inside or over HTTP."""

    async def submit(self, planned: Planned) -> tuple[str, bool]:
        """Return the execution's id, and whether an earlier submission made it."""
        ...

    async def cancel(self, execution_id: str) -> None: ...

    async def pause(self, execution_id: str) -> None: ...

    async def resume(self, execution_id: str) -> None: ...

    async def retry(self, execution_id: str, wish: Wish) -> None: ...

    async def fork(self, execution_id: str, wish: Wish) -> str:
        """Return the id of the new execution."""
        ...

    async def answer(self, execution_id: str, task_id: str, answer: Mapping[str, Any], by: str) -> None:
        """Answer. Raises Conflict and InvalidAnswer."""
        ...

    async def questions(self) -> Sequence[HumanInput]: ...

    async def executions(self) -> Sequence[ExecutionSummary]: ...

    async def sub_steps(self, execution_id: str) -> Sequence[SubStep]: ...

    async def unfinished(self) -> int: ...


class Embedded:
    """The engine of this process."""

    def __init__(self, dagbok: Dagbok) -> None:
        self._dagbok = dagbok
        self._submissions: set[asyncio.Task[Any]] = set()

    async def settle(self) -> None:
        """Let the submissions under way end, one way or the other, while the engine is open."""
        if self._submissions:
            await asyncio.wait(self._submissions, timeout=5)

    async def submit(self, planned: Planned) -> tuple[str, bool]:
        submitting = self._dagbok.submit(
            planned.document,
            labels=planned.labels,
            deadline_seconds=planned.deadline_s,
            failure_policy="fail_fast" if planned.fail_fast else None,
            idempotency_key=planned.key,
        )
        made: Submitted = await self._to_the_end(asyncio.ensure_future(submitting))
        return made.execution_id, made.replayed

    async def _to_the_end(self, task: asyncio.Task[Any]) -> Any:
        self._submissions.add(task)
        task.add_done_callback(self._submissions.discard)
        task.add_done_callback(lambda done: done.cancelled() or done.exception())
        return await asyncio.shield(task)

    async def cancel(self, execution_id: str) -> None:
        await self._dagbok.cancel(execution_id)

    async def pause(self, execution_id: str) -> None:
        await self._dagbok.pause(execution_id)

    async def resume(self, execution_id: str) -> None:
        await self._dagbok.resume(execution_id)

    async def retry(self, execution_id: str, wish: Wish) -> None:
        await self._dagbok.retry(execution_id, steps=wish.steps, overrides=wish.overrides, by=wish.by)

    async def fork(self, execution_id: str, wish: Wish) -> str:
        forking = self._dagbok.fork(
            execution_id, from_task=wish.from_task, overrides=wish.overrides, by=wish.by, idempotency_key=wish.by
        )
        made: Submitted = await self._to_the_end(asyncio.ensure_future(forking))
        return made.execution_id

    async def answer(self, execution_id: str, task_id: str, answer: Mapping[str, Any], by: str) -> None:
        await self._dagbok.answer(execution_id, task_id, answer, by=by)

    async def questions(self) -> Sequence[HumanInput]:
        return (await self._dagbok.human_inputs(limit=100)).human_inputs

    async def executions(self) -> Sequence[ExecutionSummary]:
        return await self._dagbok.list(limit=100)

    async def sub_steps(self, execution_id: str) -> Sequence[SubStep]:
        return (await self._dagbok.get(execution_id)).sub_steps

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
            failure_policy="fail_fast" if planned.fail_fast else None,
            idempotency_key=planned.key,
        )
        return made.execution_id, False

    async def cancel(self, execution_id: str) -> None:
        await self._client.cancel(execution_id)

    async def pause(self, execution_id: str) -> None:
        await self._client.pause(execution_id)

    async def resume(self, execution_id: str) -> None:
        await self._client.resume(execution_id)

    async def retry(self, execution_id: str, wish: Wish) -> None:
        await self._client.retry(execution_id, steps=wish.steps, overrides=wish.overrides, by=wish.by)

    async def fork(self, execution_id: str, wish: Wish) -> str:
        made = await self._client.fork(
            execution_id, from_task=wish.from_task, overrides=wish.overrides, by=wish.by, idempotency_key=wish.by
        )
        return made.execution_id

    async def answer(self, execution_id: str, task_id: str, answer: Mapping[str, Any], by: str) -> None:
        # Not by the client, which would ask again where the answer was lost.
        path = f"{self._url}/api/v1/dag-executions/{execution_id}/sub-steps/{task_id}/input"
        answered = await self._http.post(path, json={**answer, "by": by})
        if answered.status_code == 409:
            raise Conflict(answered.text)
        if answered.status_code == 422:
            raise InvalidAnswer(answered.text)
        answered.raise_for_status()

    async def questions(self) -> Sequence[HumanInput]:
        return (await self._client.human_inputs(limit=100)).human_inputs

    async def executions(self) -> Sequence[ExecutionSummary]:
        return (await self._client.list(limit=100)).executions

    async def sub_steps(self, execution_id: str) -> Sequence[SubStep]:
        return await self._client.sub_steps(execution_id)

    async def unfinished(self) -> int:
        lists = [await self._client.list(limit=1, status=status) for status in ("pending", "running", "waiting")]
        return sum(page.pagination.total for page in lists)
