"""One engine per database: who comes second is told who is first. Real processes, on both databases."""

from __future__ import annotations

import fcntl
import itertools
import os
import threading
import time
from pathlib import Path

import psycopg
import pytest

from dagbok.errors import DatabaseInUse, StoreUnavailable
from dagbok.store import connections
from dagbok.store.database import Database, read_owner
from dagbok.store.lock import FileLock
from dagbok.store.queries import Reader
from dagbok.store.takeover import write_command
from store import diary, processes

ENGINE = """
import sys
from dagbok.store.database import Database
database = Database.open(sys.argv[1])
lock = database.engine_lock()
lock.acquire(command="dagbok serve --port 3000")
lock.set_url("http://127.0.0.1:3000")
print("held", flush=True)
sys.stdin.read()
"""

WITH_CHILD = """
import os, sys
from dagbok.store.database import Database
database = Database.open(sys.argv[1])
lock = database.engine_lock()
lock.acquire(command="engine")
child = os.fork()
if child == 0:
    print(lock.lost(), flush=True)
    lock.release()
    print("forked", flush=True)
    sys.stdin.read()
    os._exit(0)
os.waitpid(child, 0)
"""


def test_the_second_engine_learns_who_the_first_is(database: Database, database_url: str) -> None:
    with processes.running(ENGINE, database_url) as engine:
        assert processes.line(engine) == "held"
        with pytest.raises(DatabaseInUse) as refused:
            database.engine_lock().acquire(command="dagbok run")
        for word in (str(engine.pid), "dagbok serve --port 3000", "http://127.0.0.1:3000"):
            assert word in str(refused.value)
        assert refused.value.owner["pid"] == engine.pid
        owner = read_owner(database_url)
        assert owner is not None
        assert (owner["pid"], owner["url"]) == (engine.pid, "http://127.0.0.1:3000")
        engine.kill()
        engine.wait()
        # The kernel, or the server once it reads the end of the socket, lets go.
        deadline = time.monotonic() + 10
        while read_owner(database_url) is not None:
            assert time.monotonic() < deadline
        lock = database.engine_lock()
        lock.acquire(command="dagbok run")
        lock.release()


def test_a_forked_child_keeps_no_database_from_others(database: Database, database_url: str) -> None:
    """Such as one of a process pool in a tool, which lives on when the engine is killed. Nor does it let go for it."""
    with processes.running(WITH_CHILD, database_url) as engine:
        assert [processes.line(engine), processes.line(engine)] == ["True", "forked"]
        lock = database.engine_lock()
        with pytest.raises(DatabaseInUse, match=str(engine.pid)):
            lock.acquire(command="another")
        engine.kill()
        engine.wait()
        lock.acquire(command="another")
        lock.release()


def test_the_second_engine_of_one_process_is_refused_too(database: Database, database_url: str) -> None:
    first, second = database.engine_lock(), database.engine_lock()
    first.acquire(command="one")
    with pytest.raises(DatabaseInUse, match=f"{os.getpid()}.*one"):
        second.acquire(command="two")
    assert not first.lost()
    first.release()
    first.release()
    assert read_owner(database_url) is None
    second.acquire(command="two")
    owner = read_owner(database_url)
    assert owner is not None
    assert owner["command"] == "two"
    second.release()


@pytest.mark.parametrize(
    "command",
    [
        pytest.param("söker.py", id="umlaut"),
        pytest.param('my "app", it\'s', id="quotes"),
        pytest.param(r"a\b", id="backslash"),
        pytest.param("$$ $1 %s", id="dollars"),
        pytest.param("\udcff", id="no-text"),
        pytest.param("🪴" * 200, id="long"),
    ],
)
def test_the_words_of_an_owner_arrive_as_they_were(database: Database, database_url: str, command: str) -> None:
    lock = database.engine_lock()
    lock.acquire(command=command, url="http://127.0.0.1:3000")
    owner = read_owner(database_url)
    lock.release()
    assert owner is not None
    assert owner["command"] == command[: len(owner["command"])]
    assert len(owner["command"]) >= min(len(command), 30)
    assert (owner["pid"], owner["url"]) == (os.getpid(), "http://127.0.0.1:3000")


def test_reads_and_commands_never_take_the_lock(database: Database) -> None:
    lock = database.engine_lock()
    lock.acquire(command="engine")
    Reader(database).list_executions()
    with pytest.raises(Exception, match="There is no execution"):
        write_command(database, diary.execution_id(1), "cancel", {}, None, at_ms=0)
    lock.release()


def test_the_lock_file_of_a_dead_process_says_nothing(tmp_path: Path) -> None:
    """A pid that lives on as another process is told by its time of birth."""
    url = f"sqlite:///{tmp_path / 'dagbok.db'}"
    assert read_owner(url) is None
    for words in ('{"pid": 4194304, "command": "x"}', f'{{"pid": {os.getpid()}, "born": "1"}}', "", "{", "[]"):
        (tmp_path / "dagbok.db.lock").write_text(words)
        assert read_owner(url) is None


def test_a_lock_file_that_is_removed_while_its_engine_starts_holds_for_nobody(tmp_path: Path) -> None:
    """The start waits for other writers; the file that then has the name may be another engine's lock."""
    path = tmp_path / "dagbok.db"
    path.touch()
    second = FileLock(path, lambda: None)

    def wait_to_write() -> None:
        (tmp_path / "dagbok.db.lock").unlink()
        second.acquire(command="second")

    first = FileLock(path, wait_to_write)
    first.acquire(command="first")
    assert first.lost()
    assert not second.lost()
    with pytest.raises(DatabaseInUse, match="second"):
        first.reacquire()
    second.release()


def test_a_lock_file_that_is_removed_before_it_is_locked_is_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "dagbok.db"
    path.touch()
    flock, tries = fcntl.flock, itertools.count()

    def remove_first(handle: int, how: int) -> None:
        if next(tries) == 0:
            (tmp_path / "dagbok.db.lock").unlink()
        flock(handle, how)

    monkeypatch.setattr(fcntl, "flock", remove_first)
    lock = FileLock(path, lambda: None)
    lock.acquire(command="engine")
    assert not lock.lost()
    with pytest.raises(DatabaseInUse, match="engine"):
        FileLock(path, lambda: None).acquire(command="another")
    lock.release()


def test_two_names_of_one_file_are_one_database(tmp_path: Path) -> None:
    one = Database.open(f"sqlite:///{tmp_path / 'dagbok.db'}")
    (tmp_path / "link.db").symlink_to(tmp_path / "dagbok.db")
    two = Database.open(f"sqlite:///{tmp_path / 'link.db'}")
    lock = one.engine_lock()
    lock.acquire(command="one")
    with pytest.raises(DatabaseInUse):
        two.engine_lock().acquire(command="two")
    lock.release()
    one.close()
    two.close()


def test_a_session_that_ends_loses_the_lock_and_may_take_it_again(postgres_url: str) -> None:
    database = Database.open(postgres_url)
    lock = database.engine_lock()
    lock.acquire(command="engine", url="http://here")
    with psycopg.connect(postgres_url, autocommit=True) as connection:
        connection.execute(
            "SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity WHERE application_name LIKE 'dagbok engine%'"
            " AND datname = current_database()"
        )
    assert lock.lost()
    lock.reacquire()
    assert not lock.lost()
    owner = read_owner(postgres_url)
    assert owner is not None
    assert (owner["command"], owner["url"]) == ("engine", "http://here")
    lock.release()
    database.close()


def test_telling_the_url_and_looking_at_the_lock_do_not_meet(
    postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A server does both on one connection, from two threads: whoever takes the other's answer costs it the lock."""
    monkeypatch.setattr(connections, "SILENCE_S", 0.5)
    database = Database.open(postgres_url)
    lock = database.engine_lock()
    lock.acquire(command="engine")
    looks, told = [False], threading.Event()

    def look() -> None:
        while not told.is_set() and not looks[-1]:
            looks.append(lock.lost())

    looking = threading.Thread(target=look)
    looking.start()
    for number in range(200):
        lock.set_url(f"http://127.0.0.1:{number}")
    told.set()
    looking.join()
    assert not any(looks)
    assert not lock.lost()
    owner = read_owner(postgres_url)
    assert owner is not None
    assert owner["url"] == "http://127.0.0.1:199"
    lock.release()
    database.close()


def test_a_lock_that_was_released_is_not_taken_again_by_whoever_writes_on(
    database: Database, database_url: str
) -> None:
    """Nobody would ever let go of it."""
    lock = database.engine_lock()
    lock.acquire(command="engine")
    lock.release()
    assert lock.lost()
    with pytest.raises(StoreUnavailable, match="let go"):
        lock.reacquire()
    assert read_owner(database_url) is None
    lock.acquire(command="engine")
    assert not lock.lost()
    lock.release()
