"""The API in the test's own process, over a real engine and database: tools and test can wait for each other."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import httpx2
from fastapi import FastAPI

from api.serving import plan
from dagbok.api.app import create_app
from dagbok.app import Dagbok
from dagbok.domain.execution import Execution
from dagbok.domain.records import Changes

PATH = "/api/v1/dag-executions"


@dataclass
class Inside:
    """An engine, its API, and a client of that."""

    dagbok: Dagbok
    app: FastAPI
    client: httpx2.AsyncClient

    async def submit(self, *tasks: dict[str, Any], **options: Any) -> str:
        """Submit a plan of these sub-tasks and return the id of its execution."""
        answer = await self.client.post("/api/v1/execute-dag", json={"plan": plan(*tasks), "options": options})
        assert answer.status_code == 202, answer.text
        id: str = answer.json()["executionId"]
        return id

    async def get(self, execution_id: str, **headers: str) -> dict[str, Any]:
        answer = await self.client.get(f"{PATH}/{execution_id}", headers=headers)
        assert answer.status_code == 200, answer.text
        found: dict[str, Any] = answer.json()
        return found

    async def settled(self, execution_id: str) -> dict[str, Any]:
        """Return the execution once the server says that it settled, and not only that the time is over."""
        answer = await self.client.get(f"{PATH}/{execution_id}", headers={"prefer": "wait=60"})
        assert answer.headers.get("preference-applied") == "wait=60", answer.text
        found: dict[str, Any] = answer.json()
        return found

    async def post(self, execution_id: str, what: str, **more: Any) -> httpx2.Response:
        return await self.client.post(f"{PATH}/{execution_id}/{what}", **more)

    def events(self, execution_id: str) -> list[Mapping[str, Any]]:
        """Return the diary of an execution."""
        return list(self.dagbok.service.events(execution_id))

    @asynccontextmanager
    async def told(self, when: Callable[[Execution, Changes], bool]) -> AsyncIterator[None]:
        """Return from the block once something is durable of which `when` says that it is what the block waits for."""
        heard = asyncio.Event()

        def hear(execution: Execution, changes: Changes) -> None:
            if when(execution, changes):
                heard.set()

        end = self.dagbok.scheduler.subscribe(hear)
        try:
            yield
            await asyncio.wait_for(heard.wait(), 60)
        finally:
            end()


@asynccontextmanager
async def inside(database_url: str, *tools: Callable[..., Any], **settings: Any) -> AsyncIterator[Inside]:
    """Open an engine with these tools and serve it to one client."""
    async with Dagbok(database_url, tools=tools, **settings) as dagbok:
        app = create_app(dagbok)
        transport = httpx2.ASGITransport(app)
        async with httpx2.AsyncClient(transport=transport, base_url="http://localhost") as client:
            yield Inside(dagbok, app, client)
