"""What people do to the files of a running engine: move them, write-protect them, write into them, end its lock."""

from __future__ import annotations

import asyncio
import logging
import os
import sqlite3
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from api.serving import serving
from dagbok import Dagbok
from dagbok.errors import DatabaseInUse
from dagbok.store import connections, journal
from faults import witness
from faults.programs import dagbok, environment, until
from faults.witness import QUESTION, Witness, chains, going, held, ids, plan, step

# -- without the right to write ---------------------------------------------------------------------------------------

#: Root may write what it may not, unless it gives that right up.
UNPRIVILEGED = ("setpriv", "--bounding-set=-all") if os.geteuid() == 0 else ()


@pytest.fixture
def closed_diary(tmp_path: Path) -> Iterator[Path]:
    """The file of a diary that nobody uses, alone in its folder with its lock."""
    path = tmp_path / "closed" / "dagbok.db"
    path.parent.mkdir()

    async def main() -> None:
        async with Dagbok(f"sqlite:///{path}", tools=Witness().tools) as dagbok:
            await dagbok.run(chains(1, 2))

    asyncio.run(main())
    yield path
    path.parent.chmod(0o755)


@pytest.mark.parametrize(
    ("what", "mode", "words"),
    [
        ("dagbok.db", 0o444, "dagbok.db is not available: attempt to write a readonly database; let this user write"),
        (".", 0o555, "dagbok.db cannot be opened as a database: attempt to write a readonly database; let this user"),
        ("dagbok.db.lock", 0o444, "dagbok.db.lock cannot be opened: Permission denied"),
    ],
)
def test_an_engine_that_may_not_write_says_so_at_its_start(
    closed_diary: Path, tmp_path: Path, what: str, mode: int, words: str
) -> None:
    """It used to start, and to hold on for ever at its first write."""
    (closed_diary.parent / what).chmod(mode)
    env = environment(tmp_path, f"sqlite:///{closed_diary}")
    started = dagbok(env, "serve", "--port", "0", prefix=UNPRIVILEGED)
    assert started.returncode == 2
    assert words in started.stderr
    if what == "dagbok.db":  # reading needs no such right
        listed = dagbok(env, "list", prefix=UNPRIVILEGED)
        assert (listed.returncode, "completed" in listed.stdout) == (0, True), listed.stderr


def test_rights_taken_from_a_running_engine_do_not_stop_it(tmp_path: Path) -> None:
    """The system asks for them when a file is opened, and the engine has its files open: what is true is tested."""
    place = tmp_path / "place"
    place.mkdir()
    url = f"sqlite:///{place / 'dagbok.db'}"
    env = environment(tmp_path, url)
    with serving(url, tmp_path, prefix=UNPRIVILEGED, **env) as server:
        id = server.submit(plan(step("g", name="gate"), step("end", "g")))["executionId"]
        until((tmp_path / "ran").exists)
        for name in ("dagbok.db", "dagbok.db-wal", "dagbok.db-shm"):
            (place / name).chmod(0o444)
        place.chmod(0o555)
        (tmp_path / "open").touch()
        assert server.ended(id)["status"] == "completed"
        place.chmod(0o755)
        for name in ("dagbok.db", "dagbok.db-wal", "dagbok.db-shm"):
            (place / name).chmod(0o644)
    witness.check_completed(url, id)


@pytest.mark.parametrize("name", ["dagbok.db-wal", "dagbok.db"])
def test_files_that_become_immutable_are_waited_for(
    tmp_path: Path, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    """As on a disk that the system makes read-only, open files included."""
    caplog.set_level(logging.INFO, "dagbok.journal")
    url = f"sqlite:///{tmp_path / 'dagbok.db'}"
    told, document = Witness(), chains(2, 4)
    document["sub_tasks"].append(QUESTION)

    async def main() -> str:
        async with Dagbok(url, tools=told.tools) as dagbok:
            execution_id = (await dagbok.submit(document)).execution_id
            await dagbok.service.wait(execution_id)
        told.ran.clear()
        async with Dagbok(url, tools=told.tools) as dagbok:
            with immutable(tmp_path / name):
                answering = asyncio.ensure_future(dagbok.answer(execution_id, "q", {"input": 1}))
                if name.endswith("-wal"):
                    await held(dagbok)
                else:
                    await asyncio.wait([answering], timeout=1)
            await answering
            await asyncio.wait_for(dagbok.wait(execution_id), 60)
        return execution_id

    execution_id = asyncio.run(main())
    witness.check_completed(url, execution_id)


@contextmanager
def immutable(path: Path) -> Iterator[None]:
    """Keep everybody from writing the file, those who have it open too."""
    done = subprocess.run(["chattr", "+i", path], capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"no file can be made immutable here: {done.stderr.strip()}")
    try:
        yield
    finally:
        subprocess.run(["chattr", "-i", path], check=True)


# -- moved, removed ---------------------------------------------------------------------------------------------------


def test_a_file_that_is_moved_away_is_missed_until_it_is_back(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """SQLite would write on into the file that nobody can find any more, and make an empty one for new readers."""
    caplog.set_level(logging.INFO, "dagbok.journal")
    path, away = tmp_path / "dagbok.db", tmp_path / "away.db"
    told, document = Witness(), chains(1, 6)

    async def main() -> str:
        async with Dagbok(f"sqlite:///{path}", tools=told.tools) as dagbok:

            async def move(number: int) -> None:
                if number == 3:
                    path.rename(away)

            told.meanwhile = move
            submitted = await dagbok.submit(document)
            await held(dagbok)
            assert not path.exists()
            assert not await dagbok.service.is_ready()
            away.rename(path)
            await asyncio.wait_for(dagbok.wait(submitted.execution_id), 60)
            return submitted.execution_id

    execution_id = asyncio.run(main())
    told.saw(*ids(document))
    witness.check_completed(f"sqlite:///{path}", execution_id)
    begin, end = witness.outages(caplog.records)
    assert f"{path} was removed or replaced" in begin
    assert "writes again" in end


def test_an_idle_engine_sees_that_its_file_is_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """As when its disk is mounted again: nothing has to be taken back, and nobody writes."""
    monkeypatch.setattr(journal, "LOOK_S", 0.05)
    caplog.set_level(logging.INFO, "dagbok.journal")
    path, away = tmp_path / "dagbok.db", tmp_path / "away.db"

    async def main() -> None:
        async with Dagbok(f"sqlite:///{path}") as dagbok:
            path.rename(away)
            await held(dagbok)
            away.rename(path)
            await going(dagbok)

    asyncio.run(main())
    begin, end = witness.outages(caplog.records)
    assert f"{path} was removed or replaced" in begin
    assert "writes again" in end


def test_nothing_is_written_beside_a_file_that_took_the_place_of_another(tmp_path: Path) -> None:
    """A backup that was put back under a running engine: what the engine knows is not what is there."""
    path = tmp_path / "dagbok.db"
    told = Witness()

    async def main() -> None:
        async with Dagbok(f"sqlite:///{path}", tools=told.tools, close_grace_s=0) as dagbok:
            execution = await dagbok.run(chains(1, 1))
            backup = sqlite3.connect(tmp_path / "backup.db")
            with sqlite3.connect(path) as connection:
                connection.backup(backup)
            backup.close()
            connection.close()
            (tmp_path / "backup.db").rename(path)
            later = asyncio.ensure_future(dagbok.run(chains(1, 1)))
            await held(dagbok)
            later.cancel()
            await asyncio.gather(later, return_exceptions=True)
            dagbok.service._journal._close_timeout_s = 0.1
        async with Dagbok(f"sqlite:///{path}", tools=told.tools) as dagbok:
            assert [row.id for row in await dagbok.list()] == [execution.id]

    asyncio.run(main())
    witness.check_integrity(path)


def test_a_lock_file_that_is_removed_is_made_again(tmp_path: Path) -> None:
    """Whoever takes it for a left-over must not let a second engine in."""
    path = tmp_path / "dagbok.db"

    async def main() -> None:
        async with Dagbok(f"sqlite:///{path}") as dagbok:
            (tmp_path / "dagbok.db.lock").unlink()
            assert dagbok.lock.lost()
            await dagbok.submit(plan(QUESTION))
            assert not dagbok.lock.lost()
            with pytest.raises(DatabaseInUse, match=str(os.getpid())):
                async with Dagbok(f"sqlite:///{path}"):
                    pass

    asyncio.run(main())


# -- written by others ------------------------------------------------------------------------------------------------


def test_a_program_that_keeps_the_file_locked_is_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Such as the shell of SQLite after BEGIN IMMEDIATE, for longer than SQLite itself waits."""
    monkeypatch.setattr(connections, "BUSY_TIMEOUT_S", 0.1)
    caplog.set_level(logging.INFO, "dagbok.journal")
    path = tmp_path / "dagbok.db"
    told, document = Witness(), chains(1, 6)

    async def main() -> str:
        async with Dagbok(f"sqlite:///{path}", tools=told.tools) as dagbok:
            other = sqlite3.connect(path, isolation_level=None, check_same_thread=False)

            async def lock(number: int) -> None:
                if number == 3:
                    other.execute("BEGIN IMMEDIATE")

            told.meanwhile = lock
            submitted = await dagbok.submit(document)
            await held(dagbok)
            assert (await dagbok.get(submitted.execution_id)).status == "running"
            other.execute("ROLLBACK")
            other.close()
            await asyncio.wait_for(dagbok.wait(submitted.execution_id), 60)
            return submitted.execution_id

    execution_id = asyncio.run(main())
    told.saw(*ids(document))
    witness.check_completed(f"sqlite:///{path}", execution_id)
    begin, end = witness.outages(caplog.records)
    assert "database is locked; another program has been writing to it" in begin
    assert "writes again" in end
