"""`AsyncClient`: `Client` for an event loop, method by method; what each does is told there."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from datetime import datetime
from types import TracebackType
from typing import Literal, Self, TypeVar, overload

import httpx2

from dagbok import wire
from dagbok.client import calls
from dagbok.client.calls import TIMEOUT_S, Call, base_url_of
from dagbok.client.tries import Patience, Tries
from dagbok.domain.plan import Plan
from dagbok.domain.states import FailurePolicy
from dagbok.domain.values import Json

T = TypeVar("T")


class AsyncClient:
    """`Client` for an event loop."""

    def __init__(
        self,
        base_url: str | None = None,
        *,
        timeout_s: float = TIMEOUT_S,
        transport: httpx2.AsyncBaseTransport | None = None,
    ) -> None:
        """Prepare a client; see `Client`."""
        self.base_url = base_url_of(base_url)
        self._timeout_s = timeout_s
        self._http = httpx2.AsyncClient(base_url=self.base_url, transport=transport)

    async def __aenter__(self) -> Self:
        """Return the client, closed at the end of the block."""
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the connections."""
        await self.close()

    async def close(self) -> None:
        """Close the connections."""
        await self._http.aclose()

    async def _send(self, call: Call[T]) -> T:
        tries = Tries(call, self.base_url)
        while True:
            outcome: httpx2.Response | Exception
            try:
                outcome = await self._http.request(**call.request(self._timeout_s))
            except (httpx2.HTTPError, httpx2.InvalidURL) as exc:
                outcome = exc
            pause_s = tries.pause_s(outcome)
            if pause_s is None:
                return tries.result(outcome)
            await asyncio.sleep(pause_s)

    async def submit(
        self,
        plan: Plan | Json | str | bytes,
        *,
        title: str | None = None,
        labels: Mapping[str, str] | None = None,
        deadline_seconds: float | None = None,
        failure_policy: FailurePolicy | Literal["continue", "fail_fast"] | None = None,
        idempotency_key: str | None = None,
    ) -> wire.SubmitResponse:
        """See `Client.submit`."""
        options = calls.options(title, labels, deadline_seconds, failure_policy)
        submitted = await self._send(calls.submit(plan, options, idempotency_key))
        assert isinstance(submitted, wire.SubmitResponse), "nobody wished to wait"
        return submitted

    async def run(
        self,
        plan: Plan | Json | str | bytes,
        *,
        title: str | None = None,
        labels: Mapping[str, str] | None = None,
        deadline_seconds: float | None = None,
        failure_policy: FailurePolicy | Literal["continue", "fail_fast"] | None = None,
        idempotency_key: str | None = None,
        timeout_s: float | None = None,
    ) -> wire.Execution:
        """See `Client.run`."""
        patience = Patience(timeout_s)
        options = calls.options(title, labels, deadline_seconds, failure_policy)
        submitted = await self._send(calls.submit(plan, options, idempotency_key, patience.wait_s()))
        if isinstance(submitted, wire.Execution):
            return submitted
        patience.pause_s(submitted.execution_id)
        return await self.wait(submitted.execution_id, patience.left_s)

    async def get(self, execution_id: str) -> wire.Execution:
        """See `Client.get`."""
        return await self._send(calls.get(execution_id))

    async def list(
        self, limit: int = 50, offset: int = 0, status: str | None = None, *, cursor: str | None = None
    ) -> wire.ExecutionList:
        """See `Client.list`."""
        return await self._send(calls.list_(limit, offset, status, cursor))

    async def sub_steps(self, execution_id: str) -> Sequence[wire.SubStep]:
        """See `Client.sub_steps`."""
        return await self._send(calls.sub_steps(execution_id))

    async def result(self, execution_id: str, task_id: str) -> Json:
        """See `Client.result`."""
        return await self._send(calls.result(execution_id, task_id))

    @overload
    async def graph(self, execution_id: str, format: Literal["json"] = "json") -> wire.Graph: ...

    @overload
    async def graph(self, execution_id: str, format: Literal["mermaid", "dot", "svg"]) -> str: ...

    async def graph(self, execution_id: str, format: str = "json") -> wire.Graph | str:
        """See `Client.graph`."""
        return await self._send(calls.graph(execution_id, format))

    async def attempts(self, execution_id: str, task_id: str) -> Sequence[wire.Attempt]:
        """See `Client.attempts`."""
        return await self._send(calls.attempts(execution_id, task_id))

    async def human_inputs(
        self,
        *,
        status: Literal["open", "all"] = "open",
        kind: str | None = None,
        assignee: str | None = None,
        execution_id: str | None = None,
        due_before: datetime | None = None,
        limit: int = 50,
        cursor: str | None = None,
    ) -> wire.HumanInputList:
        """See `Client.human_inputs`."""
        return await self._send(
            calls.human_inputs(
                status=status, kind=kind, assignee=assignee, execution_id=execution_id, due_before=due_before,
                limit=limit, cursor=cursor,
            )
        )  # fmt: skip

    async def answer(
        self,
        execution_id: str,
        task_id: str,
        answer: Mapping[str, Json],
        *,
        number: int | None = None,
        by: str | None = None,
    ) -> wire.CommandResponse:
        """See `Client.answer`."""
        return await self._send(calls.answer(execution_id, task_id, answer, number, by))

    async def delete(self, execution_id: str, *, force: bool = False) -> wire.DeleteResponse:
        """See `Client.delete`."""
        return await self._send(calls.delete(execution_id, force))

    async def cancel(self, execution_id: str, *, by: str | None = None) -> wire.CommandResponse:
        """See `Client.cancel`."""
        return await self._send(calls.command(execution_id, "cancel", by))

    async def pause(self, execution_id: str, *, by: str | None = None) -> wire.CommandResponse:
        """See `Client.pause`."""
        return await self._send(calls.command(execution_id, "pause", by))

    async def resume(self, execution_id: str, *, by: str | None = None) -> wire.CommandResponse:
        """See `Client.resume`."""
        return await self._send(calls.command(execution_id, "resume", by))

    async def retry(
        self,
        execution_id: str,
        *,
        steps: Sequence[str] | None = None,
        overrides: Mapping[str, Json] | None = None,
        by: str | None = None,
    ) -> wire.ResumeResponse:
        """See `Client.retry`."""
        return await self._send(calls.retry(execution_id, steps, overrides, by))

    async def fork(
        self,
        execution_id: str,
        *,
        from_task: str | None = None,
        overrides: Mapping[str, Json] | None = None,
        plan: Plan | Json | str | bytes = None,
        by: str | None = None,
        idempotency_key: str | None = None,
    ) -> wire.ForkResponse:
        """See `Client.fork`."""
        return await self._send(calls.fork(execution_id, from_task, overrides, plan, by, idempotency_key))

    async def tools(self) -> Sequence[wire.ToolView]:
        """See `Client.tools`."""
        return await self._send(calls.tools())

    async def health(self) -> wire.Ready:
        """See `Client.health`."""
        return await self._send(calls.health())

    async def wait(self, execution_id: str, timeout_s: float | None = None) -> wire.Execution:
        """See `Client.wait`."""
        patience = Patience(timeout_s)
        while True:
            execution = await self._send(calls.settled(execution_id, patience.wait_s()))
            if execution is not None:
                return execution
            await asyncio.sleep(patience.pause_s(execution_id))
