"""Submitting with an idempotency key from a program: the library's own way, and what no HTTP client can provoke."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from dagbok import Dagbok, app, tool
from dagbok.domain.idempotency import request_hash
from dagbok.errors import BadInput, IdempotencyInFlight, IdempotencyKeyReused, OutcomeUnknown, StoreUnavailable
from dagbok.service import Service, Submitted
from dagbok.store.database import Database
from dagbok.submitting import Options
from store import diary
from store.faults import FaultyDatabase, away

PLAN = {"original_request": "Do it", "intent": {"primary": "do"}, "sub_tasks": [
    {"id": "1", "tool_or_prompt": {"name": "note", "params": {}}, "dependencies": []}
]}  # fmt: skip
OTHER = {**PLAN, "original_request": "Do something else"}

notes: list[str] = []


@tool(effect="once")
async def note() -> str:
    """Note that it was called."""
    notes.append("called")
    return "done"


@pytest.fixture(autouse=True)
def no_notes() -> None:
    notes.clear()


def test_the_same_call_again_is_the_same_execution_in_this_run_of_the_program_and_the_next(database_url: str) -> None:
    async def main() -> None:
        async with Dagbok(database_url, tools=[note]) as dagbok:
            first = await dagbok.run(PLAN, title="A", idempotency_key="k")
            again = await dagbok.submit(PLAN, title="A", idempotency_key="k")
            assert (again.execution_id, again.dag_id, again.replayed) == (first.id, first.dag_id, True)
            assert (again.original_request, again.total_tasks) == ("Do it", 1)
            with pytest.raises(IdempotencyKeyReused) as reused:
                await dagbok.submit(PLAN, title="B", idempotency_key="k")
            assert reused.value.execution_id == first.id
        async with Dagbok(database_url) as without_the_tool:
            assert await without_the_tool.run(PLAN, title="A", idempotency_key="k") == first

    asyncio.run(main())
    assert notes == ["called"]


@pytest.mark.parametrize("key", ["", "a b", "ä", "x" * 256])
def test_a_key_that_is_none_is_refused_before_anything_is_stored(database_url: str, key: str) -> None:
    async def main() -> None:
        async with Dagbok(database_url, tools=[note]) as dagbok:
            with pytest.raises(BadInput, match="idempotency key"):
                await dagbok.submit(PLAN, idempotency_key=key)
            assert await dagbok.list() == []

    asyncio.run(main())


@pytest.mark.parametrize("same", [True, False])
def test_where_another_process_was_faster_its_execution_counts_and_ours_does_not_run(
    database_url: str, database: Database, monkeypatch: pytest.MonkeyPatch, same: bool
) -> None:
    """It wrote between our look for the key and our commit: the index decides, and we believe it."""

    async def main() -> None:
        async with Dagbok(database_url, tools=[note]) as dagbok, diary.journal(database) as other_process:
            hash = request_hash("execute-dag", {"plan": PLAN if same else OTHER, "options": {}})
            faster = diary.new_execution(idempotency_key="k", request_hash=hash)
            prepare = dagbok.service._prepare
            looked = asyncio.Event()

            def prepare_slowly(*arguments: Any) -> Any:
                looked.set()
                asyncio.run_coroutine_threadsafe(written.wait(), loop).result()
                return prepare(*arguments)

            loop, written = asyncio.get_running_loop(), asyncio.Event()
            monkeypatch.setattr(dagbok.service, "_prepare", prepare_slowly)
            ours = asyncio.ensure_future(dagbok.service.submit(PLAN, Options(), large=True, idempotency_key="k"))
            await looked.wait()
            await other_process.create(faster)
            written.set()
            if same:
                submitted = await ours
                assert submitted.execution_id == faster.id  # type: ignore[union-attr]  # it is no clarification
                assert submitted.replayed  # type: ignore[union-attr]  # as above
            else:
                with pytest.raises(IdempotencyKeyReused, match=faster.id):
                    await ours
            assert [execution.id for execution in await dagbok.list()] == [faster.id]
            assert not dagbok.scheduler._runs

    asyncio.run(main())
    assert notes == []


def test_a_caller_that_gives_up_leaves_its_key_held_until_the_commit_is_decided(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Cancelled while its commit is under way: the execution will be, so the next with the key may not make another."""

    async def main() -> None:
        async with Dagbok(database_url, tools=[note]) as dagbok:
            journal = dagbok.service._journal
            asked, commit = asyncio.Event(), asyncio.get_running_loop().create_future()

            async def create_slowly(new: Any) -> Any:
                asked.set()
                await commit
                return await type(journal).create(journal, new)

            monkeypatch.setattr(journal, "create", lambda new: asyncio.ensure_future(create_slowly(new)))
            first = asyncio.ensure_future(dagbok.submit(PLAN, idempotency_key="k"))
            await asked.wait()
            first.cancel()
            with pytest.raises(asyncio.CancelledError):
                await first
            with pytest.raises(IdempotencyInFlight):
                await dagbok.submit(PLAN, idempotency_key="k")
            commit.set_result(None)
            while dagbok.service._keys._in_flight:
                await asyncio.sleep(0)
            second = await dagbok.submit(PLAN, idempotency_key="k")
            assert second.replayed
            assert (await dagbok.wait(second.execution_id)).status == "completed"

    asyncio.run(main())
    assert notes == ["called"]


def test_after_an_outage_whose_outcome_nobody_knew_the_retry_finds_out(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The commit happened and its answer was lost with the connection; the patience ended; the database came back."""

    async def main() -> None:
        async with Dagbok(database_url, tools=[note]) as dagbok:
            committer = dagbok.service._journal._committer
            faulty = FaultyDatabase(committer._database)
            committer.close()
            committer._database = faulty  # type: ignore[assignment]  # it is one, with faults
            lost = asyncio.Event()
            loop = asyncio.get_running_loop()

            def fault(committed: bool) -> None:
                if committed:
                    faulty.unreachable = 5  # about a second and a half of trying
                    loop.call_soon_threadsafe(lost.set)
                    raise away(faulty._database)

            faulty.faults.append(fault)
            with pytest.raises(OutcomeUnknown):
                await dagbok.submit(PLAN, idempotency_key="k")
            assert lost.is_set()
            while True:
                try:
                    second = await dagbok.submit(PLAN, idempotency_key="k")
                except (IdempotencyInFlight, StoreUnavailable):
                    await asyncio.sleep(0.01)
                else:
                    break
            assert second.replayed
            assert (await dagbok.wait(second.execution_id)).status == "completed"
            assert len(await dagbok.list()) == 1

    asyncio.run(main())
    assert notes == ["called"]


@pytest.mark.parametrize("seconds", [0, -1, float("nan"), float("inf"), 367 * 86_400, True, "10"])
def test_a_deadline_that_nobody_can_keep_is_refused_and_nothing_is_stored(database_url: str, seconds: Any) -> None:
    async def main() -> None:
        async with Dagbok(database_url, tools=[note]) as dagbok:
            with pytest.raises(BadInput) as refused:
                await dagbok.service.submit(PLAN, Options(deadline_seconds=seconds))
            assert refused.value.pointer == "/options/deadlineSeconds"
            assert await dagbok.list() == []

    asyncio.run(main())
    assert notes == []


def test_a_deadline_counts_from_the_submission_and_is_shown(database_url: str) -> None:
    async def main() -> None:
        async with Dagbok(database_url, tools=[note]) as dagbok:
            submitted = await dagbok.service.submit(PLAN, Options(deadline_seconds=90))
            assert isinstance(submitted, Submitted)
            execution = await dagbok.wait(submitted.execution_id)
            assert execution.status == "completed"
            assert execution.deadline_at is not None
            assert (execution.deadline_at - execution.created_at).total_seconds() == 90
            assert execution.options == {"deadlineSeconds": 90}

    asyncio.run(main())


@pytest.mark.parametrize(("sub_tasks", "characters"), [(1, 70_000), (200, 10), (1, 10)])
@pytest.mark.parametrize("as_text", [True, False])
def test_the_loop_goes_on_while_a_large_plan_is_prepared(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sub_tasks: int, characters: int, as_text: bool
) -> None:
    """Large by its number of sub-tasks, or by its text alone; a small one is not worth the way to a thread."""
    large = sub_tasks * characters > 1000
    threads: list[bool] = []
    for where, name in ((app, "parse"), (Service, "_prepare")):
        monkeypatch.setattr(where, name, _telling(getattr(where, name), threads))
    tasks = [{"id": id, "description": "x" * characters, "tool_or_prompt": {"name": "note"}} for id in range(sub_tasks)]
    document = {**PLAN, "sub_tasks": tasks}

    async def main() -> None:
        async with Dagbok(f"sqlite:///{tmp_path / 'dagbok.db'}", tools=[note]) as dagbok:
            submitted = await dagbok.submit(json.dumps(document) if as_text else document)
            assert submitted.total_tasks == sub_tasks

    asyncio.run(main())
    expected = [characters > 1000] if as_text else []
    assert threads == [*expected, large]


def _telling(call: Callable[..., Any], threads: list[bool]) -> Callable[..., Any]:
    def told(*given: Any) -> Any:
        threads.append(threading.current_thread() is not threading.main_thread())
        return call(*given)

    return told
