"""The list of executions as clients and programs go through it, and the number of all that comes with it."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from api.inside import PATH, inside
from api.serving import Server, plan, task
from dagbok import AsyncClient, Client
from dagbok.errors import BadInput
from dagbok.store import totals


def test_clients_go_through_it_by_cursors(server: Server) -> None:
    ids = [server.submit(plan(task(1)))["executionId"] for _ in range(5)]
    with Client(server.url) as client:
        seen: list[str] = []
        page = client.list(limit=2)
        while True:
            seen += [execution.id for execution in page.executions]
            assert len(seen) <= 1_000, "the walk ends"
            assert not page.pagination.total_is_estimate
            if page.pagination.next_cursor is None:
                break
            ids.append(server.submit(plan(task(1)))["executionId"])
            page = client.list(limit=2, cursor=page.pagination.next_cursor)
        assert seen[:5] == ids[4::-1], "what was submitted meanwhile moves nothing"
        with pytest.raises(BadInput, match="`cursor` is none of this list") as refused:
            client.list(cursor="abc")
        assert refused.value.fields["pointer"] == "/cursor"

    async def main() -> None:
        async with AsyncClient(server.url) as client:
            first = await client.list(limit=1)
            second = await client.list(limit=1, cursor=first.pagination.next_cursor)
            assert [page.executions[0].id for page in (first, second)] == ids[:-3:-1]

    asyncio.run(main())


def test_where_it_is_an_estimate_the_number_of_all_says_so(database_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> None:
        async with inside(database_url) as api:
            ids = [await api.submit(task(1, "wait", seconds=0)) for _ in range(3)]
            for id in ids:
                await api.settled(id)

            async def told(**params: Any) -> tuple[int, bool]:
                of = (await api.client.get(PATH, params=params)).json()["pagination"]
                return of["total"], of["totalIsEstimate"]

            monkeypatch.setattr(totals, "EXACT_TOTAL", 3)
            assert await told() == (3, False)
            assert await told(status="completed", limit=1) == (3, False)
            monkeypatch.setattr(totals, "EXACT_TOTAL", 2)
            number, is_estimate = await told()
            assert (number >= 3, is_estimate) == (True, True)
            assert (await told(status="completed"))[1]
            assert await told(status="failed") == (0, False)
            page = await api.dagbok.page(limit=2)
            assert page.pagination.total_is_estimate
            last = await api.dagbok.page(limit=2, cursor=page.pagination.next_cursor)
            assert [one.id for one in (*page.executions, *last.executions)] == ids[::-1]
            assert last.pagination.next_cursor is None
            assert [one.id for one in await api.dagbok.list()] == ids[::-1]
            with pytest.raises(BadInput, match="give one of them"):
                await api.dagbok.page(offset=1, cursor=page.pagination.next_cursor)

    asyncio.run(main())
