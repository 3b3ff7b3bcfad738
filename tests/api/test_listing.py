"""The list of executions as clients and programs go through it."""

from __future__ import annotations

import asyncio

import pytest

from api.serving import Server, plan, task
from dagbok import AsyncClient, Client
from dagbok.errors import BadInput


def test_clients_go_through_it_by_cursors(server: Server) -> None:
    ids = [server.submit(plan(task(1)))["executionId"] for _ in range(5)]
    with Client(server.url) as client:
        seen: list[str] = []
        page = client.list(limit=2)
        while True:
            seen += [execution.id for execution in page.executions]
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
