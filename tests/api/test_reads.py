"""What is read for answers is read few at a time, and once for all who wait for the same; nothing stands behind it."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import httpx2
import pytest
from fastapi import Request, Response
from structlog.contextvars import bound_contextvars, get_contextvars

from api.serving import plan, task
from dagbok.api import answers
from dagbok.api.app import create_app
from dagbok.api.reads import MAX_READS, MAX_TOGETHER, Reads, Whole
from dagbok.app import Dagbok
from dagbok.service import LARGE_PLAN, Service
from dagbok.store import readiness
from dagbok.store.queries import Reader
from dagbok.tools.decorator import tool

CLIENTS = 60


def asked(encoding: str = "gzip") -> Request:
    return Request({"type": "http", "headers": [(b"accept-encoding", encoding.encode())]})


def whole(status: str) -> Whole:
    return status, answers.json(b'"' + b"x" * 2000 + b'"')


class Held:
    """Something that threads do once they are let."""

    def __init__(self) -> None:
        self.open = threading.Event()
        self.began = 0

    def make(self, status: str = "held") -> Callable[[], Whole]:
        def held() -> Whole:
            self.began += 1
            self.open.wait()
            return whole(status)

        return held

    async def until_begun(self, count: int) -> None:
        while self.began < count:
            await asyncio.sleep(0)


def test_waiters_of_one_execution_share_one_read_and_have_headers_of_their_own(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def main() -> None:
        opened, reads = asyncio.Event(), []

        @tool(effect="pure")
        async def hold() -> str:
            """Return once the test says so."""
            await opened.wait()
            return "let go" * 1000

        async with Dagbok(database_url, tools=[hold]) as dagbok:
            details = dagbok.service.details

            def counted(execution_id: str) -> Any:
                reads.append(execution_id)
                return details(execution_id)

            monkeypatch.setattr(dagbok.service, "details", counted)
            app = create_app(dagbok)
            transport = httpx2.ASGITransport(app)
            async with httpx2.AsyncClient(transport=transport, base_url="http://localhost") as client:

                def ask(number: int) -> asyncio.Future[httpx2.Response]:
                    wish = {"prefer": f"wait={number % 30 + 30}", "idempotency-key": "k"}
                    wish["accept-encoding"] = "gzip" if number % 3 else "identity"
                    if number % 2:
                        return asyncio.ensure_future(client.get(path, headers=wish))
                    document = plan(task(1, "hold"))
                    return asyncio.ensure_future(client.post("/api/v1/execute-dag", json=document, headers=wish))

                submitted = await dagbok.submit(plan(task(1, "hold")), idempotency_key="k")
                path = f"/api/v1/dag-executions/{submitted.execution_id}"
                asking = [ask(number) for number in range(CLIENTS)]
                while len(app.state.waiting) < CLIENTS:
                    await asyncio.sleep(0)
                opened.set()
                found = await asyncio.gather(*asking)
        for number, answer in enumerate(found):
            assert (answer.status_code, answer.json()) == (200, found[0].json())
            assert answer.json()["status"] == "completed"
            assert answer.headers["preference-applied"] == f"wait={number % 30 + 30}"
            assert answer.headers["etag"] == found[0].headers["etag"]
            assert answer.headers.get("content-encoding") == ("gzip" if number % 3 else None)
            assert answer.headers["vary"] == "Accept-Encoding"
            assert answer.headers.get("location") == (None if number % 2 else path)
            assert answer.headers["cache-control"] == ("no-cache" if number % 2 else "no-store")
        assert set(reads) == {submitted.execution_id}
        assert len(reads) <= MAX_READS + 2, "those that found a place at once, then one for each encoding"

    asyncio.run(main())


def test_who_comes_before_a_read_begins_shares_it_and_nobody_joins_one_under_way() -> None:
    """An answer must show what its client knew to be written when it asked."""

    async def main() -> None:
        reads, held = Reads(), Held()
        first = [asyncio.ensure_future(reads.whole(asked(), f"e{n}", held.make("old"))) for n in range(MAX_READS)]
        await held.until_begun(MAX_READS)
        later = [asyncio.ensure_future(reads.whole(asked(), "e0", held.make("new"))) for _ in range(9)]
        plain = asyncio.ensure_future(reads.whole(asked("identity"), "e0", held.make("new")))
        await asyncio.sleep(0)
        later.pop().cancel()  # one who leaves ends nothing for the others
        held.open.set()
        assert {(await answer)[0] for answer in first} == {"old"}
        found = [await answer for answer in later]
        assert [status for status, _ in found] == ["new"] * 8
        assert len({id(response) for _, response in found}) == 1
        assert found[0][1].headers["content-encoding"] == "gzip"
        assert "content-encoding" not in (await plain)[1].headers
        assert held.began == MAX_READS + 2

    asyncio.run(main())


def test_a_read_that_fails_fails_for_all_who_share_it_and_gives_its_place_back() -> None:
    def broken() -> Whole:
        raise LookupError("gone")

    async def main() -> None:
        reads = Reads()
        for _ in range(MAX_READS + 1):
            both = await asyncio.gather(*(reads.whole(asked(), "e", broken) for _ in range(2)), return_exceptions=True)
            assert [type(error) for error in both] == [LookupError] * 2
        assert (await reads.whole(asked(), "e", lambda: whole("fine")))[0] == "fine"

    asyncio.run(main())


def test_where_many_wait_a_thread_reads_several_and_each_fails_for_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    hops, ids = [], []
    to_thread = asyncio.to_thread

    async def counted(work: Callable[[], Any]) -> Any:
        hops.append(work)
        return await to_thread(work)

    def make(number: int) -> Whole:
        ids.append(get_contextvars())
        if number % 10 == 3:
            raise LookupError(number)
        return whole(str(number))

    monkeypatch.setattr(asyncio, "to_thread", counted)

    async def main() -> None:
        reads = Reads()
        with bound_contextvars(requestId="of another"):
            asking = [reads.whole(asked(), f"e{number}", partial(make, number)) for number in range(200)]
            found = await asyncio.gather(*asking, return_exceptions=True)
        for number, one in enumerate(found):
            if isinstance(one, BaseException):
                assert (type(one), one.args) == (LookupError, (number,))
                assert number % 10 == 3
            else:
                assert one[0] == str(number)
        assert 200 / MAX_TOGETHER <= len(hops) <= 200 / MAX_TOGETHER + 2 * MAX_TOGETHER
        assert {} in ids
        assert {"requestId": "of another"} not in ids

    asyncio.run(main())


@pytest.mark.parametrize("way", ["made", "whole"])
def test_reads_leave_threads_to_others(way: str) -> None:
    async def main() -> None:
        reads, held = Reads(), Held()

        def read(number: int) -> Any:
            if way == "whole":
                return reads.whole(asked(), f"e{number}", held.make())

            def make() -> Response:
                return held.make()()[1]

            return reads.made(asked(), make)

        reading = [asyncio.ensure_future(read(number)) for number in range(40)]
        await held.until_begun(MAX_READS)
        try:
            assert await asyncio.to_thread(lambda: held.began) == MAX_READS, "this thread was free"
        finally:
            held.open.set()
        await asyncio.gather(*reading)
        assert held.began == 40

    asyncio.run(main())


def test_threads_that_are_all_taken_do_not_look_like_an_absent_database(tmp_path: Path) -> None:
    async def main() -> None:
        async with Dagbok(f"sqlite:///{tmp_path / 'dagbok.db'}") as dagbok:
            held = Held()
            others = [asyncio.ensure_future(asyncio.to_thread(held.make())) for _ in range(50)]
            await held.until_begun(MAX_READS)
            try:
                assert await dagbok.service.is_ready()
            finally:
                held.open.set()
            await asyncio.gather(*others)

    asyncio.run(main())


def test_all_who_ask_whether_the_database_is_there_share_one_ping(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that does not answer in time is absent, and there again with its answer."""
    held, ping = Held(), Reader.ping

    def held_ping(reader: Reader) -> None:
        held.make()()
        ping(reader)

    monkeypatch.setattr(Reader, "ping", held_ping)
    monkeypatch.setattr(readiness, "READY_TIMEOUT_S", 0.01)

    async def main() -> None:
        async with Dagbok(f"sqlite:///{tmp_path / 'dagbok.db'}") as dagbok:
            ask = dagbok.service.is_ready
            assert not any(await asyncio.gather(*(ask() for _ in range(20))))
            assert not await ask()
            assert held.began == 1
            held.open.set()
            monkeypatch.setattr(readiness, "READY_TIMEOUT_S", 60.0)
            assert all(await asyncio.gather(*(ask() for _ in range(20))))
            assert held.began <= 2

    asyncio.run(main())


def test_the_database_is_asked_while_a_large_plan_is_checked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its submission goes on as soon as it is checked, and asks nothing anew."""
    asked, answered, pings = threading.Event(), threading.Event(), []
    ping, prepare = Reader.ping, Service._prepare

    def told_ping(reader: Reader) -> None:
        pings.append(reader)
        asked.set()
        ping(reader)

    def late_prepare(service: Service, *given: Any) -> Any:
        assert asked.wait(60)
        assert answered.wait(60)
        return prepare(service, *given)

    monkeypatch.setattr(Reader, "ping", told_ping)
    monkeypatch.setattr(Service, "_prepare", late_prepare)
    monkeypatch.setattr(readiness, "READY_FOR_S", 600.0)
    large = plan(*(task(id, "wait", seconds=600) for id in range(LARGE_PLAN)))

    async def main() -> None:
        async with Dagbok(f"sqlite:///{tmp_path / 'dagbok.db'}") as dagbok:
            submitted = asyncio.ensure_future(dagbok.submit(large))
            assert await asyncio.to_thread(asked.wait, 60)
            assert await dagbok.service.is_ready()
            answered.set()
            assert (await submitted).total_tasks == LARGE_PLAN
            assert len(pings) == 1

    asyncio.run(main())
