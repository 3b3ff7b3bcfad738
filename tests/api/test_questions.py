"""What a person is asked, and what there is to know before answering, comes with the sub-step that waits for them."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from api.inside import PATH, inside
from api.serving import task
from cli.program import Project, make_project
from dagbok import wire
from dagbok.domain.execution import Execution
from dagbok.domain.records import Changes
from dagbok.store.queries import Reader
from dagbok.tools.decorator import tool

_SCHEMA = {"type": "string", "maxLength": 3}


def _human(id: int, **params: Any) -> dict[str, Any]:
    return task(id, "human", prompt="Which one?", **params) | {"action_type": "human"}


def test_a_sub_step_comes_with_the_question_it_waits_for(database_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Read at once for all of them, and not at all where nothing waits."""
    reads: list[str] = []
    read = Reader.open_questions

    def counted(self: Reader, execution_id: str, **options: Any) -> Any:
        reads.append(execution_id)
        return read(self, execution_id, **options)

    monkeypatch.setattr(Reader, "open_questions", counted)

    async def main() -> None:
        async with inside(database_url) as api:
            asks = [_human(1, schema=_SCHEMA, assignee="ann"), _human(2), task(3, "wait", 1, seconds=0)]
            id = await api.submit(*asks)
            execution = await api.settled(id)
            reads.clear()
            steps = (await api.client.get(f"{PATH}/{id}/sub-steps")).json()["subSteps"]
            assert reads == [id]
            assert steps == execution["subSteps"] == (await api.get(id))["subSteps"]
            first, second, third = (step["question"] for step in steps)
            asked_at = first.pop("askedAt")
            assert first == {
                "number": 1, "kind": "human", "prompt": "Which one?", "schema": _SCHEMA, "assignee": "ann",
                "dueAt": None, "reminders": 0,
                "shown": None,
            }  # fmt: skip
            assert (second["schema"], second["assignee"], third) == (None, None, None)
            read_by_clients = wire.Execution.model_validate(execution)["1"].question
            assert read_by_clients is not None
            assert (read_by_clients.answer_schema, read_by_clients.asked_at.isoformat()[:19]) == (
                _SCHEMA, asked_at[:19],
            )  # fmt: skip

            for step in ("1", "2"):
                assert (await api.post(id, f"sub-steps/{step}/input", json={"input": "red"})).status_code == 202
            done = await api.settled(id)
            assert [step["question"] for step in done["subSteps"]] == [None, None, None]
            reads.clear()
            await api.get(id)
            assert reads == []

    asyncio.run(main())


@pytest.fixture
def project(tmp_path: Any, database_url: str) -> Project:
    return make_project(tmp_path, database_url)


def test_what_came_late_is_shown_to_whoever_is_asked(project: Project) -> None:
    go_on = asyncio.Event()

    @tool(effect="once", timeout_seconds=0.1)
    async def pay(to: str) -> dict[str, Any]:
        """Heed no cancellation."""
        while not go_on.is_set():
            try:
                await go_on.wait()
            except asyncio.CancelledError:
                continue
        return {"receipt": f"for {to}\n" * 100}

    def is_late(_: Execution, changes: Changes) -> bool:
        return any('"late"' in (question.shown or "") for question in changes.questions)

    async def main() -> str:
        async with inside(project.url, pay) as api:
            id = await api.submit(task(1, "pay", to="bob"))
            shown = (await api.settled(id))["subSteps"][0]["question"]["shown"]
            assert (shown["attempt"], shown["params"], "late" in shown) == (1, {"to": "bob"}, False)
            async with api.told(is_late):
                go_on.set()
            question = (await api.get(id))["subSteps"][0]["question"]
            assert question["shown"]["late"] == {"result": {"receipt": "for bob\n" * 100}}
            read = (await api.dagbok.get(id))["1"].question
            assert read is not None
            assert read.shown == question["shown"]
            return id

    id = asyncio.run(main())
    lines = project.call("show", id).stdout.splitlines()
    [at] = [number for number, words in enumerate(lines) if words.startswith("1 asks: Sub-task '1' (pay)")]
    assert lines[at + 1].startswith('  It has ended since, with: {"receipt":"for bob')
    assert len(lines[at + 1]) < 400
