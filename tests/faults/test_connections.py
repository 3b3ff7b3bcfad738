"""Connections that end in the middle of something, or fall silent: what was written is found out, and all goes on."""

from __future__ import annotations

import asyncio
import itertools
import logging
import os
import random
import resource
import threading
from collections.abc import Callable, Coroutine, Iterator
from typing import Any

import pytest
import sqlalchemy as sa

import postgres
from dagbok import Dagbok
from dagbok.domain.states import ExecutionStatus
from dagbok.errors import Conflict, NotFound, OutcomeUnknown, StoreUnavailable
from dagbok.store import connections
from dagbok.store.database import Database
from faults import witness
from faults.chaos import rounds
from faults.proxy import Act, Link, Proxy, Rule, through
from faults.witness import QUESTION, Witness, chains, ids, plan, step
from store import diary


@pytest.fixture
def proxied(postgres_url: str) -> Iterator[tuple[Proxy, str]]:
    with through(postgres_url) as (proxy, url):
        yield proxy, url


def at_commits(choose: Callable[[int], Act]) -> Rule:
    """Return the rule that asks `choose` what becomes of the n-th COMMIT of the group commit."""
    numbers = itertools.count()

    def rule(link: Link, text: str, size: int) -> Act:
        return choose(next(numbers)) if link.writes and text == "COMMIT" else Act.PASS

    return rule


def every_other(act: Act) -> Callable[[int], Act]:
    return lambda number: Act.PASS if number % 2 else act


def completes(url: str, document: dict[str, object], told: Witness) -> str:
    """Run a plan and return the id of its execution, which has to complete."""

    async def main() -> str:
        async with Dagbok(url, tools=told.tools) as dagbok:
            submitted = await dagbok.submit(document)
            await asyncio.wait_for(dagbok.wait(submitted.execution_id), 60)
            return submitted.execution_id

    return asyncio.run(main())


@pytest.mark.parametrize("act", [Act.CUT_BEFORE, Act.CUT_AFTER, Act.CUT_WITHIN], ids=lambda act: act.name.lower())
def test_every_commit_may_lose_its_connection(
    proxied: tuple[Proxy, str], act: Act, caplog: pytest.LogCaptureFixture
) -> None:
    """The submission and each append: whether it happened or not, it is there once, and no body runs twice."""
    proxy, url = proxied
    caplog.set_level(logging.INFO, "dagbok.journal")
    proxy.rule = at_commits(every_other(act))
    told, document = Witness(), chains(2, 6)
    execution_id = completes(url, document, told)
    told.saw(*ids(document))
    witness.check_completed(url, execution_id)
    lines = witness.outages(caplog.records)
    assert len(lines) >= 10
    assert all("holds on" in line for line in lines[::2])
    assert all("writes again" in line for line in lines[1::2])


@pytest.mark.parametrize("seed", rounds(4, 60))
def test_connections_may_end_at_any_message(proxied: tuple[Proxy, str], seed: int) -> None:
    """The group commit's, a reader's, a claim's, the lock's."""
    proxy, url = proxied
    chance = random.Random(seed)
    breaking: list[bool] = []  # not empty once the submission is answered: its own patience is a second
    acts = [Act.CUT_BEFORE, Act.CUT_AFTER, Act.CUT_WITHIN]

    def rule(link: Link, text: str, size: int) -> Act:
        if breaking and chance.random() < 0.04:
            return chance.choice(acts)
        return Act.PASS

    proxy.rule = rule
    told, document = Witness(), chains(3, 8)

    def meanwhile(number: int) -> None:
        if chance.random() < 0.1:
            proxy.cut(lambda _: chance.random() < 0.5)

    told.meanwhile = meanwhile

    async def main() -> str:
        async with Dagbok(url, tools=told.tools) as dagbok:
            submitted = await dagbok.submit(document)
            breaking.append(True)
            await asyncio.wait_for(dagbok.service.wait(submitted.execution_id), 60)
            breaking.clear()
            return submitted.execution_id

    execution_id = asyncio.run(main())
    told.saw(*ids(document))
    witness.check_completed(url, execution_id)


@pytest.mark.parametrize("act", [Act.CUT_WITHIN, Act.CUT_AFTER], ids=lambda act: act.name.lower())
def test_a_large_statement_may_lose_its_connection(proxied: tuple[Proxy, str], act: Act) -> None:
    """Rows of a COPY, a statement over many rows, the pieces of a large value."""
    proxy, url = proxied
    cut: set[str] = set()

    def rule(link: Link, text: str, size: int) -> Act:
        kind = text.split(" (")[0]
        if link.writes and size > 30_000 and kind not in cut:
            cut.add(kind)
            return act
        return Act.PASS

    proxy.rule = rule
    told = Witness()
    wide = [step(f"w{number}", size=40_000) for number in range(30)]
    one_large = [step("l", *(f"w{number}" for number in range(30)), size=2_500_000)]
    many_large = [step(f"m{number}", "l", size=2_500_000) for number in range(8)]
    document = plan(*wide, *one_large, *many_large)
    execution_id = completes(url, document, told)
    told.saw(*ids(document))
    witness.check_completed(url, execution_id)
    assert len(cut) >= 3, cut


# -- calls with a transaction of their own ----------------------------------------------------------------------------


def once_at(act: Act, done: Callable[[Link], bool]) -> Rule:
    """Return the rule for the first COMMIT of a transaction that fits."""
    left = [act]

    def rule(link: Link, text: str, size: int) -> Act:
        return left.pop() if text == "COMMIT" and left and done(link) else Act.PASS

    return rule


def said(words: str) -> Callable[[Link], bool]:
    return lambda link: any(words in text for text in link.said)


CUTS = pytest.mark.parametrize("act", [Act.CUT_BEFORE, Act.CUT_AFTER], ids=lambda act: act.name.lower())


@CUTS
@pytest.mark.parametrize("key", [None, "a-key"])
def test_a_submission_is_there_once(proxied: tuple[Proxy, str], act: Act, key: str | None) -> None:
    proxy, url = proxied
    proxy.rule = once_at(act, said("INSERT INTO dag_executions"))
    told, document = Witness(), chains(1, 2)

    async def main() -> None:
        async with Dagbok(url, tools=told.tools) as dagbok:
            submitted = await dagbok.submit(document, idempotency_key=key)
            assert not submitted.replayed
            await asyncio.wait_for(dagbok.wait(submitted.execution_id), 30)
            if key is not None:
                again = await dagbok.submit(document, idempotency_key=key)
                assert (again.execution_id, again.replayed) == (submitted.execution_id, True)
            assert [row.id for row in await dagbok.list()] == [submitted.execution_id]

    asyncio.run(main())
    told.saw(*ids(document))


@CUTS
def test_an_answer_is_written_once_and_never_conflicts_with_itself(proxied: tuple[Proxy, str], act: Act) -> None:
    """Repeated blindly after a lost commit, it would be refused as the second answer to its question."""
    proxy, url = proxied

    async def main() -> str:
        async with Dagbok(url) as dagbok:
            submitted = await dagbok.submit(plan(QUESTION))
            await dagbok.service.wait(submitted.execution_id)
            proxy.rule = once_at(act, said("INSERT INTO commands"))
            await dagbok.answer(submitted.execution_id, "q", {"input": "well"}, by="ö")
            with pytest.raises(Conflict):
                await dagbok.answer(submitted.execution_id, "q", {"input": "worse"})
            assert (await dagbok.wait(submitted.execution_id)).status is ExecutionStatus.COMPLETED
            return submitted.execution_id

    assert witness.number_of_commands(url, asyncio.run(main())) == 1


@CUTS
def test_a_command_is_written_once(proxied: tuple[Proxy, str], act: Act) -> None:
    proxy, url = proxied

    async def main() -> str:
        async with Dagbok(url) as dagbok:
            submitted = await dagbok.submit(
                plan({"id": "w", "tool_or_prompt": {"name": "wait", "params": {"seconds": 600}}})
            )
            proxy.rule = once_at(act, said("INSERT INTO commands"))
            assert (await dagbok.cancel(submitted.execution_id)).status is ExecutionStatus.CANCELLED
            return submitted.execution_id

    assert witness.number_of_commands(url, asyncio.run(main())) == 1


@CUTS
def test_a_deletion_that_happened_is_told_as_one(proxied: tuple[Proxy, str], act: Act) -> None:
    """Repeated after a lost commit, it finds nothing; that is no reason to say there was nothing."""
    proxy, url = proxied
    told, document = Witness(), chains(1, 3)

    async def main() -> None:
        async with Dagbok(url, tools=told.tools) as dagbok:
            execution = await dagbok.run(document)
            proxy.rule = once_at(act, said("DELETE FROM dag_executions"))
            assert await dagbok.service.delete(execution.id) == 3
            with pytest.raises(NotFound):
                await dagbok.get(execution.id)

    asyncio.run(main())


@CUTS
def test_taking_over_may_lose_its_connection(proxied: tuple[Proxy, str], act: Act) -> None:
    proxy, url = proxied
    told, document = Witness(), chains(1, 3)
    document["sub_tasks"][0]["dependencies"] = ["q"]
    document["sub_tasks"].append(QUESTION)

    async def main() -> str:
        async with Dagbok(url, tools=told.tools) as dagbok:
            submitted = await dagbok.submit(document)
            await dagbok.service.wait(submitted.execution_id)
        proxy.rule = once_at(act, lambda link: not link.writes and said("UPDATE dag_executions")(link))
        async with Dagbok(url, tools=told.tools) as dagbok:
            await dagbok.answer(submitted.execution_id, "q", {"input": 1})
            await asyncio.wait_for(dagbok.wait(submitted.execution_id), 30)
        return submitted.execution_id

    execution_id = asyncio.run(main())
    told.saw("0-0", "0-1", "0-2")
    witness.check_completed(url, execution_id)


# -- silence ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Half a second takes the place of half a minute."""
    monkeypatch.setattr(connections, "SILENCE_S", 0.5)


def test_a_server_that_falls_silent_in_a_commit_is_not_waited_for_for_ever(
    proxied: tuple[Proxy, str], impatient: None, caplog: pytest.LogCaptureFixture
) -> None:
    """TCP sees nothing wrong: all that is sent is received, by somebody who passes nothing on."""
    proxy, url = proxied
    proxy.rule = at_commits(lambda number: Act.STALL if number in (2, 5) else Act.PASS)
    told, document = Witness(), chains(1, 5)
    execution_id = completes(url, document, told)
    told.saw(*ids(document))
    witness.check_completed(url, execution_id)
    lines = [line for line in witness.outages(caplog.records) if "holds on" in line]
    assert len(lines) == 2
    assert all("said nothing for" in line for line in lines)


def test_readers_that_wait_for_a_silent_server_are_freed(proxied: tuple[Proxy, str], impatient: None) -> None:
    """Readiness asks in one thread of its own: were that stuck, the engine would never be ready again."""
    proxy, url = proxied

    async def main() -> None:
        async with Dagbok(f"{url}?connect_timeout=2") as dagbok:
            assert await dagbok.service.is_ready()
            proxy.silent = True
            proxy.stall(lambda link: not link.locks)
            await until(dagbok.service.is_ready, False)
            proxy.silent = False
            await until(dagbok.service.is_ready, True)
            assert await dagbok.list() == []

    asyncio.run(main())


def test_closing_does_not_wait_for_a_silent_server(proxied: tuple[Proxy, str]) -> None:
    proxy, url = proxied
    database = Database.open(url)

    async def main() -> None:
        async with diary.journal(database, close_timeout_s=0.3) as journal:
            await journal.create(diary.new_execution(1))
            stalled = threading.Event()

            def rule(link: Link, text: str, size: int) -> Act:
                stalled.set()
                return Act.STALL

            proxy.rule = rule
            futures: list[asyncio.Future[Any]] = [
                journal.create(diary.new_execution(2)),
                journal.delete(diary.execution_id(1)),
            ]
            await asyncio.to_thread(stalled.wait, 10)
            await asyncio.wait_for(journal.close(), 15)
            for future in futures:
                with pytest.raises(OutcomeUnknown):
                    await future

    asyncio.run(main())
    database.close()


def test_a_server_that_takes_connections_and_never_answers_is_unavailable(proxied: tuple[Proxy, str]) -> None:
    proxy, url = proxied
    proxy.silent = True
    with pytest.raises(StoreUnavailable, match="timeout"):
        Database.open(f"{url}?connect_timeout=2")


# -- what the other side does not know --------------------------------------------------------------------------------


def test_an_engine_takes_its_lock_from_its_own_lost_session(proxied: tuple[Proxy, str]) -> None:
    """The server may learn hours later that the other side is gone; until then the engine would be in its own way."""
    proxy, url = proxied
    told, document = Witness(), chains(1, 4)
    told.meanwhile = lambda number: proxy.abandon(lambda link: link.locks) if number == 2 else None
    execution_id = completes(url, document, told)
    told.saw(*ids(document))
    witness.check_completed(url, execution_id)


def test_a_lock_is_let_go_before_its_session_ends(proxied: tuple[Proxy, str]) -> None:
    """The server ends a session when it comes to it; an engine that is opened again must not be in its own way."""
    proxy, url = proxied
    database = Database.open(url)
    first, second = database.engine_lock(), database.engine_lock()
    first.acquire(command="first")
    proxy.swallow_goodbyes = True
    first.release()
    second.acquire(command="second")
    second.release()
    database.close()


def test_a_transaction_that_lost_its_client_is_waited_out(
    postgres_server: postgres.Server, proxied: tuple[Proxy, str], caplog: pytest.LogCaptureFixture
) -> None:
    """It holds the rows that the next try needs, until the server ends it."""
    proxy, url = proxied
    caplog.set_level(logging.INFO, "dagbok.journal")
    name = url.rpartition("/")[2]
    for setting in ("lock_timeout = '200ms'", "idle_in_transaction_session_timeout = '700ms'"):
        postgres_server.execute(f"ALTER DATABASE {name} SET {setting}")
    proxy.rule = at_commits(lambda number: Act.ABANDON if number == 3 else Act.PASS)
    told, document = Witness(), chains(1, 5)
    execution_id = completes(url, document, told)
    told.saw(*ids(document))
    witness.check_completed(url, execution_id)
    assert [line.split(":")[0].split(", after")[0] for line in witness.outages(caplog.records)] == [
        "The journal holds on until it can write", "The journal writes again",
    ]  # fmt: skip


def test_the_server_is_told_how_long_to_wait_for_us(postgres_url: str) -> None:
    """For a lock, for a client that vanished; what the operator set for this user holds."""
    wanted = {
        "lock_timeout": "10s", "idle_in_transaction_session_timeout": "30s", "idle_session_timeout": "0",
        "tcp_keepalives_idle": "15", "tcp_keepalives_count": "3", "tcp_user_timeout": "30000",
    }  # fmt: skip
    url = sa.make_url(postgres_url)
    for options, expected in (("", wanted), ("-c lock_timeout=7s", wanted | {"lock_timeout": "7s"})):
        session = connections.connect_postgresql(url.set(query={"options": options}), "x", connections.Patience())
        found = dict(session.execute("SELECT name, current_setting(name) FROM pg_settings").fetchall())
        session.close()
        assert found.items() >= expected.items()


def test_a_lock_with_a_high_number_is_seen(postgres_url: str) -> None:
    """`select` knows no file above 1,023; a server with many clients has its lock there after an outage."""
    database = Database.open(postgres_url)
    lock = database.engine_lock()
    resource.setrlimit(resource.RLIMIT_NOFILE, (4096, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
    files = [os.open(os.devnull, os.O_RDONLY) for _ in range(1100)]
    try:
        lock.acquire(command="engine")
        assert not lock.lost()
    finally:
        for file in files:
            os.close(file)
        lock.release()
        database.close()


async def until(asked: Callable[[], Coroutine[Any, Any, bool]], wanted: bool) -> None:
    """Wait until that is the answer."""
    for _ in range(1000):
        if await asked() is wanted:
            return
        await asyncio.sleep(0.02)
    raise AssertionError("it does not come true")
