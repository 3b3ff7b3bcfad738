"""Approvals over HTTP: what is shown, what may be answered, and what somebody who comes too late is told."""

from __future__ import annotations

import asyncio
import re
from typing import Any

import pytest

from api.inside import Inside, inside
from api.serving import task
from dagbok.tools.decorator import tool

paid: list[tuple[str, int]] = []


@tool(effect=lambda params: "pure" if params.get("cents") == 0 else "once")
async def pay(to: str, cents: int) -> str:
    """Pay somebody."""
    paid.append((to, cents))
    return f"{to} has {cents}"


@tool(effect="pure")
async def find(whom: str) -> str:
    """Find somebody."""
    return whom


@pytest.fixture(autouse=True)
def nothing_paid() -> None:
    paid.clear()


def _asked(id: int, *after: int, **params: Any) -> dict[str, Any]:
    return task(id, "pay", *after, **params) | {"requires_approval": True, "description": "Pay them"}


async def _answer(api: Inside, id: str, task_id: str, **body: Any) -> tuple[int, dict[str, Any]]:
    answer = await api.post(id, f"sub-steps/{task_id}/input", json=body)
    return answer.status_code, answer.json()


#: Whoever edits has seen resolved params: what reads like a reference is a text by now.
EDITED = "<Result from Task 1>, and {{ of.nothing }}"


def test_it_runs_as_it_was_approved_or_edited_or_not_at_all(database_url: str) -> None:
    async def main() -> None:
        async with inside(database_url, pay, find) as api:
            id = await api.submit(
                task(1, "find", whom="bob"),
                _asked(2, 1, to="<Result from Task 1>", cents=5),
                _asked(3, to="cem", cents=7),
                _asked(4, to="dan", cents=9),
            )
            execution = await api.settled(id)
            question = execution["subSteps"][1]["question"]
            assert (question["kind"], question["dueAt"], question["reminders"]) == ("approval", None, 0)
            assert question["shown"] == {"tool": "pay", "params": {"to": "bob", "cents": 5}, "description": "Pay them"}
            assert paid == []
            assert (await _answer(api, id, "2", decision="approve", by="ann"))[0] == 202
            assert (await _answer(api, id, "3", decision="edit", params={"to": EDITED, "cents": 1}, by="ann"))[0] == 202
            assert (await _answer(api, id, "4", decision="reject"))[0] == 202
            done = await api.settled(id)
            assert [step["result"] for step in done["subSteps"]] == ["bob", "bob has 5", f"{EDITED} has 1", None]
            assert done["subSteps"][3]["errorCode"] == "rejected"
            assert sorted(paid) == [(EDITED, 1), ("bob", 5)]
            kept = (await api.client.get("/api/v1/human-inputs?status=all&kind=approval")).json()["humanInputs"]
            assert {item["taskId"]: (item["answer"], item["answeredBy"], item["outcome"]) for item in kept} == {
                "2": ({"decision": "approve"}, "ann", "answered"),
                "3": ({"decision": "edit", "params": {"to": EDITED, "cents": 1}}, "ann", "answered"),
                "4": ({"decision": "reject"}, None, "answered"),
            }

    asyncio.run(main())


@pytest.mark.parametrize(
    ("body", "pointers"),
    [
        ({"decision": "edit", "params": {"to": 1, "cents": "x", "why": 0}}, ["/params", "/params/cents", "/params/to"]),
        ({"decision": "edit", "params": [1]}, ["/params"]),
        ({"decision": "edit"}, ["/params"]),
        ({"decision": "approve", "params": {"to": "x", "cents": 1}}, ["/params"]),
        ({"decision": "succeeded"}, ["/decision"]),
        ({"decision": "perhaps"}, ["/decision"]),
        ({"input": "yes"}, ["/decision"]),
        ({}, ["/decision"]),
    ],
)
def test_what_is_no_answer_is_refused_with_every_place_and_changes_nothing(
    tmp_path: Any, body: dict[str, Any], pointers: list[str]
) -> None:
    async def main() -> None:
        async with inside(f"sqlite:///{tmp_path / 'd.db'}", pay, find) as api:
            id = await api.submit(task(1, "find", whom="bob"), _asked(2, to="bob", cents=5))
            await api.settled(id)
            events = api.events(id)
            status, problem = await _answer(api, id, "2", **body)
            assert status == 422
            assert problem["code"] in ("invalid_answer", "invalid_input")
            assert sorted(fault["pointer"] for fault in problem["errors"]) == pointers
            assert api.events(id) == events
            assert (await api.get(id))["subSteps"][1]["status"] == "waiting"

    asyncio.run(main())


def test_whoever_is_late_is_told_how_the_question_was_closed(database_url: str) -> None:
    async def main() -> None:
        async with inside(database_url, pay, find) as api:
            ask = task(1, "human", prompt="Well?") | {"action_type": "human"}
            in_time = {**ask, "id": 2, "timeout_seconds": 0.05}
            async with api.told(lambda execution, _: execution.steps[1].ended):
                id = await api.submit(ask, in_time, _asked(3, to="bob", cents=5), {**ask, "id": 4})
            status, problem = await _answer(api, id, "2", input="yes")
            told = rf"The question of sub-step '2' of {id} timed out at \S+Z; the sub-step is failed\."
            assert status == 409
            assert re.fullmatch(told, problem["detail"])
            first, second = await asyncio.gather(
                _answer(api, id, "1", input="yes", by="ann"), _answer(api, id, "1", input="no", by="ann")
            )
            assert sorted((first[0], second[0])) == [202, 409]
            late = max(first, second, key=lambda answer: answer[0])[1]["detail"]
            assert f"The question of sub-step '1' of {id} was answered by 'ann' at 2" in late
            assert (await api.post(id, "cancel", json={"by": "bob"})).status_code == 202
            await api.settled(id)
            status, problem = await _answer(api, id, "3", decision="approve")
            assert status == 409
            assert "was closed by 'bob', with its execution, at 2" in problem["detail"]
            assert problem["detail"].endswith("; the sub-step is cancelled.")
            assert paid == []

    asyncio.run(main())
