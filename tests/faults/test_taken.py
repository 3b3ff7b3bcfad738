"""An engine that loses its database to another one: it stops writing, says so, and ends."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import pytest

from dagbok import Dagbok
from dagbok.errors import DatabaseInUse, Fenced
from dagbok.store.database import Database
from faults import programs
from faults.programs import environment, until
from faults.proxy import through
from faults.witness import Witness, chains, plan, step

#: A URL for an engine, and the block in which another engine has taken its database.
Contested = tuple[str, Callable[[], AbstractContextManager[None]]]


@pytest.fixture(params=["sqlite", "postgresql"])
def contested(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Contested]:
    """The lock file is taken for a left-over and removed; the connections end, and others are faster."""
    if request.param == "sqlite":
        path = tmp_path / "dagbok.db"

        @contextmanager
        def take_file() -> Iterator[None]:
            with _held(f"sqlite:///{path}", (tmp_path / "dagbok.db.lock").unlink):
                yield

        yield f"sqlite:///{path}", take_file
        return
    direct = request.getfixturevalue("postgres_url")
    with through(direct) as (proxy, url):

        @contextmanager
        def take_session() -> Iterator[None]:
            proxy.refuse = True
            proxy.cut()
            with _held(direct, lambda: None):
                proxy.refuse = False
                yield

        yield url, take_session


@contextmanager
def _held(url: str, open_door: Callable[[], None]) -> Iterator[None]:
    database = Database.open(url)
    lock = database.engine_lock()
    while True:
        open_door()
        try:
            lock.acquire(command="the other")
        except DatabaseInUse:
            continue  # it was faster, and took its lock again
        break
    try:
        yield
    finally:
        lock.release()
        database.close()


def test_a_server_that_lost_its_database_ends(contested: Contested, tmp_path: Path) -> None:
    """Busy or idle: one that answers and can never write again is worse than one that a supervisor starts anew."""
    url, taken = contested
    busy = url.startswith("sqlite")
    env = environment(tmp_path, url) | {"DAGBOK_CLOSE_GRACE_S": "0"}
    with programs.running(env, "serve", "--port", "0") as process:
        assert process.stdout is not None
        answers_at = process.stdout.readline().split()[-1]
        if busy:
            document = tmp_path / "plan.json"
            document.write_text(json.dumps(plan(step("g", name="gate"))))
            assert programs.submit(answers_at, document)
            until((tmp_path / "ran").exists)
        with taken():
            _, words = process.communicate(timeout=60)
        assert process.returncode == 2, words
    assert f"in use by process {os.getpid()}" in words
    assert "(the other)" in words
    assert "Traceback" not in words


def test_a_run_that_lost_its_database_ends_and_says_how_it_goes_on(contested: Contested, tmp_path: Path) -> None:
    url, taken = contested
    document = tmp_path / "plan.json"
    document.write_text(json.dumps(plan(step("g", name="gate"), step("end", "g"))))
    with programs.running(environment(tmp_path, url), "run", str(document)) as process:
        until((tmp_path / "ran").exists)
        with taken():
            (tmp_path / "open").touch()
            _, words = process.communicate(timeout=60)
        assert process.returncode == 2, words
    assert f"in use by process {os.getpid()}" in words
    assert "goes on" in words
    assert programs.ran(tmp_path) == {"g": 1}


def test_whoever_waits_in_the_program_learns_it(contested: Contested) -> None:
    url, taken = contested
    told = Witness()

    async def main() -> None:
        async with Dagbok(url, tools=told.tools) as dagbok:

            async def hand_over(number: int) -> None:
                await begun.put(number)
                await enough.wait()

            begun: asyncio.Queue[int] = asyncio.Queue()
            enough = asyncio.Event()
            told.meanwhile = hand_over
            submitted = await dagbok.submit(chains(1, 2))
            await begun.get()
            with taken():
                enough.set()
                with pytest.raises(Fenced, match="the other"):
                    await asyncio.wait_for(dagbok.wait(submitted.execution_id), 60)
                assert not await dagbok.service.is_ready()

    asyncio.run(main())
    told.saw("0-0")
