"""`GET /human-inputs`: the inbox over HTTP, as the library and the clients have it."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from api.inside import inside
from api.serving import plan, task
from dagbok import AsyncClient, wire
from dagbok.client import Client
from dagbok.errors import BadInput

INBOX = "/api/v1/human-inputs"
SCHEMA = {"type": "string", "maxLength": 3}


def _human(id: str, **params: Any) -> dict[str, Any]:
    return task(id, "human", prompt=f"{id}?", **params) | {"action_type": "human"}


def test_it_holds_what_is_asked_and_then_what_became_of_it(database_url: str) -> None:
    async def main() -> None:
        async with inside(database_url) as api:
            id = await api.submit(_human("q", schema=SCHEMA, assignee="ann"), _human("r"), title="A title")
            await api.settled(id)
            page = (await api.client.get(INBOX)).json()
            first, second = page["humanInputs"]
            asked_at = first.pop("askedAt")
            assert datetime.fromisoformat(asked_at).utcoffset() == timedelta(0)
            assert first == {
                "executionId": id, "executionTitle": "A title", "taskId": "q", "number": 1, "kind": "human",
                "prompt": "q?", "schema": SCHEMA, "assignee": "ann", "shown": None, "dueAt": None, "reminders": 0,
                "closedAt": None, "outcome": None, "answer": None, "answeredBy": None,
            }  # fmt: skip
            assert second["taskId"] == "r"
            assert page["pagination"] == {"limit": 50, "count": 2, "nextCursor": None}

            await api.dagbok.answer(id, "q", {"input": "red"}, by="bob")
            assert [item["taskId"] for item in (await api.client.get(INBOX)).json()["humanInputs"]] == ["r"]
            closed = (await api.client.get(f"{INBOX}?status=all&assignee=ann&executionId={id}")).json()
            [item] = closed["humanInputs"]
            assert (item["answer"], item["answeredBy"], item["closedAt"] >= asked_at) == ("red", "bob", True)
            assert (await api.dagbok.human_inputs(status="all", assignee="ann")).human_inputs[0].answer == "red"

    asyncio.run(main())


@pytest.mark.parametrize(
    ("query", "pointer", "words"),
    [
        ("status=closed", "/status", "`status` is 'closed'; it has to be 'open' or 'all'."),
        ("kind=riddle", "/kind", "has to be 'human', 'approval' or 'did_it_happen'"),
        ("limit=0", "/limit", "`limit` is '0'; it has to be greater than or equal to 1."),
        ("limit=101", "/limit", "less than or equal to 100"),
        ("limit=many", "/limit", "has to be a whole number"),
        ("dueBefore=tomorrow", "/dueBefore", "`dueBefore` is 'tomorrow'; it "),
        ("dueBefore=2025-01-15T12:00:00", "/dueBefore", "timezone"),
        ("cursor=abc", "/cursor", "`cursor` is none of this list"),
        ("assignee=%00", "/assignee", "what no database holds"),
        ("execution_id=x", "/execution_id", "`execution_id` is 'x'; it is not known here."),
        ("colour=red", "/colour", "it is not known here"),
    ],
)
def test_a_filter_that_cannot_be_used_is_told_with_its_place(server: Any, query: str, pointer: str, words: str) -> None:
    answer = server.client.get(f"{INBOX}?{query}")
    assert answer.status_code == 422
    assert answer.headers["content-type"] == "application/problem+json"
    problem = answer.json()
    assert problem["code"] == "invalid_input"
    [fault] = problem["errors"]
    assert fault["pointer"] == pointer
    assert words in fault["detail"]


def test_clients_page_through_it(server: Any) -> None:
    id = server.submit(plan(*(_human(f"q{number}") for number in range(5)), title="Pages"))["executionId"]
    server.reached(id, "waiting")
    with Client(server.url) as client:
        seen: list[wire.HumanInput] = []
        cursor: str | None = None
        while True:
            page = client.human_inputs(execution_id=id, limit=2, cursor=cursor)
            assert page.pagination.count == len(page.human_inputs)
            seen += page.human_inputs
            cursor = page.pagination.next_cursor
            if cursor is None:
                break
        assert [item.task_id for item in seen] == [f"q{number}" for number in range(5)]
        assert not client.human_inputs(execution_id=id, due_before=datetime.now(UTC)).human_inputs
        assert client.answer(id, "q3", {"input": [1, None]}, by="ann").execution_id == id
        with pytest.raises(BadInput, match="`cursor` is none of this list") as refused:
            client.human_inputs(cursor="abc")
        assert refused.value.fields["pointer"] == "/cursor"

    async def main() -> None:
        async with AsyncClient(server.url) as client:
            await client.answer(id, "q4", {"input": "yes"})
            closed = await client.human_inputs(status="all", execution_id=id, limit=2)
            assert [item.task_id for item in closed.human_inputs] == ["q4", "q3"]

    asyncio.run(main())
    server.client.post(f"/api/v1/dag-executions/{id}/cancel")
