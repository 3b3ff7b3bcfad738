"""A full disk under SQLite: the process says so, answers what it can, and goes on by itself once there is room."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Iterator
from pathlib import Path

import pytest

from api.serving import Server, serving
from dagbok import Dagbok
from dagbok.errors import DatabaseInUse
from dagbok.store.database import Database
from dagbok.store.lock import FileLock
from faults import programs, witness
from faults.disks import Disk, small_disk
from faults.programs import dagbok, environment, is_ready, until
from faults.witness import Witness, chains, ids, plan, step

LOGGED = """
import logging, sys
from dagbok.api.server import serve
from dagbok.settings import load
logging.basicConfig(level=logging.INFO, stream=sys.stderr, format="%(message)s")
sys.exit(serve(load(port=0), on_ready=lambda url: print(url, flush=True)))
"""


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Disk]:
    with small_disk(tmp_path, 16, for_us=False) as made:
        yield made


def check_completed(disk: Disk, folder: Path, id: str, *, attempts: int = 1) -> None:
    witness.check_completed(f"sqlite:///{disk.copy_to(folder) / 'dagbok.db'}", id, attempts=attempts)


def gated(sizes: list[int]) -> dict[str, object]:
    """Return a plan whose results of these sizes come once the gate is open."""
    large = [step(f"{number}", "g", size=size) for number, size in enumerate(sizes)]
    return plan(step("g", name="gate"), *large, step("end", *(task["id"] for task in large)))


def submit_behind_gate(server: Server, folder: Path, sizes: list[int]) -> str:
    id: str = server.submit(gated(sizes))["executionId"]
    until((folder / "ran").exists)  # and so its start is durable, or part of what the next commit takes
    return id


def test_a_full_disk_is_told_and_waited_out(disk: Disk, tmp_path: Path) -> None:
    url = f"sqlite:///{disk.place / 'dagbok.db'}"
    sizes = [700_000] * 8
    with serving(url, tmp_path, LOGGED, prefix=disk.prefix, **environment(tmp_path, url)) as server:
        id = submit_behind_gate(server, tmp_path, sizes)
        disk.fill()
        (tmp_path / "open").touch()
        until(lambda: not is_ready(server))
        assert server.client.get(f"/api/v1/dag-executions/{id}").json()["status"] == "running"
        refused = server.client.post("/api/v1/execute-dag", json=chains(1, 1))
        assert (refused.status_code, refused.json()["code"]) == (503, "store_unavailable")
        assert int(refused.headers["retry-after"]) > 0
        assert server.process.poll() is None

        disk.free()
        assert server.ended(id)["status"] == "completed"
        assert is_ready(server)
        assert server.submit(chains(1, 1))
    check_completed(disk, tmp_path, id)
    assert set(programs.ran(tmp_path).values()) == {1}
    begin, end = programs.outages(tmp_path / "server.log")
    assert "holds on" in begin
    assert "disk is full" in begin
    assert "free some space" in begin
    assert str(disk.place / "dagbok.db") in begin
    assert "writes again, after" in end
    assert "Traceback" not in (tmp_path / "server.log").read_text()


def test_a_kill_while_the_disk_is_full_loses_nothing(disk: Disk, tmp_path: Path) -> None:
    url = f"sqlite:///{disk.place / 'dagbok.db'}"
    env = environment(tmp_path, url) | {"TEST_EFFECT": "idempotent"}
    with serving(url, tmp_path, LOGGED, prefix=disk.prefix, **env) as server:
        id = submit_behind_gate(server, tmp_path, [700_000] * 8)
        disk.fill()
        (tmp_path / "open").touch()
        until(lambda: not is_ready(server))
        server.process.kill()
        server.process.wait(10)
    again = dagbok(env, "serve", "--port", "0", prefix=disk.prefix)
    assert again.returncode == 2, again.stderr
    assert "free some space" in again.stderr
    disk.free()
    with serving(url, tmp_path, LOGGED, prefix=disk.prefix, **env) as server:
        assert server.ended(id)["status"] == "completed"
    check_completed(disk, tmp_path, id, attempts=2)
    assert programs.ran(tmp_path)["end"] == 1


def test_starting_on_a_full_disk_says_so_and_ends(disk: Disk, tmp_path: Path) -> None:
    """A supervisor starts it again; nobody has to guess why it does not answer."""
    old, new = disk.place / "dagbok.db", disk.place / "new.db"
    document = tmp_path / "plan.json"
    document.write_text(json.dumps(chains(1, 2)))
    ran = dagbok(environment(tmp_path, f"sqlite:///{old}"), "run", str(document), "--json", prefix=disk.prefix)
    id = json.loads(ran.stdout)["id"]
    disk.fill()
    for path in (old, new):
        done = dagbok(environment(tmp_path, f"sqlite:///{path}"), "serve", "--port", "0", prefix=disk.prefix)
        assert done.returncode == 2, done.stderr
        assert str(path) in done.stderr
        assert "full" in done.stderr
        assert "free some space" in done.stderr
        assert "Traceback" not in done.stderr
    disk.free()
    check_completed(disk, tmp_path, id)


def test_a_write_ahead_log_that_cannot_be_moved_into_the_file_does_no_harm(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The file has no room to grow when its turn comes; the log grows on, until the disk is full of it."""
    caplog.set_level(logging.INFO, "dagbok.journal")
    told = Witness()
    document = chains(1, 10, size=3_000_000)
    with small_disk(tmp_path, 80) as disk:
        url = f"sqlite:///{disk.place / 'dagbok.db'}"
        disk.fill(53 * 2**20)

        async def main() -> str:
            async with Dagbok(url, tools=told.tools) as dagbok:
                submitted = await dagbok.submit(document)
                await witness.held(dagbok)
                assert (disk.place / "dagbok.db-wal").stat().st_size > 1000 * 4096
                held = len(told.ran)
                disk.free()
                await asyncio.wait_for(dagbok.wait(submitted.execution_id), 60)
                assert held < 10
                return submitted.execution_id

        id = asyncio.run(main())
        told.saw(*ids(document))
        witness.check_completed(url, id)
    begin, end = witness.outages(caplog.records)
    assert "full" in begin
    assert "writes again" in end


def test_a_lock_file_without_room_for_words_is_a_lock(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Others see that the database is in use, but not by whom."""
    with small_disk(tmp_path, 16) as disk:
        path = disk.place / "dagbok.db"
        Database.open(f"sqlite:///{path}").close()
        lock, other = (FileLock(path, lambda: None) for _ in range(2))
        lock.acquire(command="engine")
        lock.release()
        disk.fill()
        lock.acquire(command="engine")
        assert "dagbok.db.lock cannot be written (No space left on device)" in caplog.text
        lock.set_url("http://127.0.0.1:3000")
        assert not lock.lost()
        with pytest.raises(DatabaseInUse, match="in use by another process"):
            other.acquire(command="engine")
        lock.release()
