"""How long the reads of a large diary take, through the library and over HTTP. See README.md.

usage: python -m benchmarks.reads [sqlite|postgresql|DATABASE_URL ...] [--executions N] [--reads N] [--save]

Without a URL a database of each kind is made, filled (`million.py`), measured and deleted; PostgreSQL is started from
the machine's binaries, as the tests do. Each read is made at places of the list that are drawn anew, first while nobody
writes and then while another process has one execution of ten sub-steps after the other run: p50 and p99 of the time
that passes, and the processor time of one, which other programs disturb less. Over HTTP it is that of the server; what
PostgreSQL itself takes is in neither. `--save` writes `reads.json`, and its tables into docs/benchmarks.md.
"""

from __future__ import annotations

import argparse
import os
import random
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager, nullcontext
from functools import partial
from pathlib import Path
from typing import Any, Final, NamedTuple

import httpx2

sys.path.append(str(Path(__file__).parents[1] / "tests"))

import postgres  # the line above makes it importable
from benchmarks import scale
from benchmarks.databases import version_of
from benchmarks.million import SHARES, generate, plan
from dagbok import views
from dagbok.diary import Diary
from dagbok.domain.listing import Place
from dagbok.store import migrations
from dagbok.store.database import Database
from dagbok.store.queries import Reader

_ROOT: Final = Path(__file__).parents[1]
_LIST: Final = "/api/v1/dag-executions"
_TICK_S: Final = 1 / os.sysconf("SC_CLK_TCK")


class Read(NamedTuple):
    """One kind of read: how the library makes it, how HTTP asks for it."""

    name: str
    query: Callable[[], dict[str, Any] | str]  # of the list, or the id of one


class Took(NamedTuple):
    """What so many of one kind took, in milliseconds."""

    p50: float
    p99: float
    cpu: float  # of one, on average
    cpu_p99: float  # of the library; the figures of another process are too coarse for that


def kinds(places: Sequence[tuple[Place, str]], chance: random.Random) -> list[Read]:
    """Return what is measured, at places of the list drawn from `places`."""

    def behind(status: str | None) -> dict[str, Any]:
        place = chance.choice(places)[0]
        return {"cursor": place.cursor(status)} | ({} if status is None else {"status": status})

    return [
        Read("first page", dict),
        Read("deep page by cursor", lambda: behind(None)),
        *(Read(f"first page, {status}", partial(dict, status=status)) for status in (*SHARES, "pending")),
        Read("deep page, completed", lambda: behind("completed")),
        Read("deep page, failed", lambda: behind("failed")),
        Read("one with its sub-steps", lambda: chance.choice(places)[1]),
    ]


def by_library(diary: Diary, asked: dict[str, Any] | str) -> bytes:
    """Return what the service makes of it, as the JSON of the answer."""
    if isinstance(asked, str):
        return views.execution_json(*diary.details(asked))
    return views.executions_json(diary.list_executions(**asked))


def by_http(client: httpx2.Client, asked: dict[str, Any] | str) -> bytes:
    answer = client.get(f"{_LIST}/{asked}") if isinstance(asked, str) else client.get(_LIST, params=asked)
    assert answer.status_code == 200, answer.text
    return answer.content


def measure(read: Read, call: Callable[[Any], bytes], cpu_s: Callable[[], float], number: int) -> Took:
    """Make a read so often, and some before that which do not count."""
    for _ in range(max(3, number // 20)):
        call(read.query())
    took: list[float] = []
    worked: list[float] = []
    for _ in range(number):
        asked = read.query()
        began, began_s = time.perf_counter(), cpu_s()
        call(asked)
        worked.append((cpu_s() - began_s) * 1000)
        took.append((time.perf_counter() - began) * 1000)
    parts = statistics.quantiles(took, n=100)
    return Took(parts[49], parts[98], statistics.fmean(worked), statistics.quantiles(worked, n=100)[98])


def places_of(diary: Diary, executions: int, chance: random.Random) -> list[tuple[Place, str]]:
    """Return some executions all over the list."""
    found = []
    for _ in range(200):
        [row] = diary.list_executions(limit=1, offset=chance.randrange(executions)).items
        found.append((Place(row["created_at"], row["id"]), row["id"]))
    return found


@contextmanager
def served(url: str) -> Iterator[tuple[httpx2.Client, int]]:
    """Start a server on the database; yield a client of its executions, and its process id."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "dagbok", "serve", "--database", url, "--port", str(port), "--tools"]
    command.append("benchmarks.million")
    process = subprocess.Popen(command, cwd=_ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        address = f"http://127.0.0.1:{port}"
        _until_ready(address, process)
        with httpx2.Client(base_url=address, timeout=60) as client:
            yield client, process.pid
    finally:
        process.terminate()
        process.wait(60)


def _until_ready(address: str, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 60
    while True:
        assert process.poll() is None, "the server has ended"
        try:
            if httpx2.get(f"{address}/health/ready").status_code == 200:
                return
        except httpx2.TransportError:
            assert time.monotonic() < deadline, "the server does not answer"
        time.sleep(0.05)


@contextmanager
def writing(client: httpx2.Client) -> Iterator[None]:
    """Let another process submit one execution after the other to the server."""
    address = str(client.base_url).rstrip("/")
    process = subprocess.Popen([sys.executable, "-m", "benchmarks.reads", "--write", address], cwd=_ROOT)
    try:
        yield
        assert process.poll() is None, "the writer has ended"
    finally:
        process.terminate()
        process.wait(60)


def write(address: str) -> None:
    """Submit executions, one after the other, until somebody ends this process."""
    with httpx2.Client(base_url=f"{address}/api/v1", timeout=60, headers={"prefer": "wait=20"}) as client:
        while True:
            assert client.post("/execute-dag", json=plan("completed")).status_code == 200


def cpu_of(process: int) -> Callable[[], float]:
    def seconds() -> float:
        fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) * _TICK_S

    return seconds


def measure_all(url: str, number: int) -> dict[str, Any]:
    """Return what so many reads of each kind took, each in four ways."""
    chance = random.Random(1)
    with closing(Database.open(url)) as database:
        diary = Diary(Reader(database))
        page = diary.list_executions(limit=1)
        places = places_of(diary, page.total - 1, chance)
        found: dict[str, dict[str, dict[str, float]]] = {}
        with served(url) as (client, server):
            ways: Sequence[tuple[str, Callable[[Any], bytes], Callable[[], float]]] = (
                ("library", lambda asked: by_library(diary, asked), time.thread_time),
                ("http", lambda asked: by_http(client, asked), cpu_of(server)),
            )
            reads = kinds(places, chance)
            for beside in ("", "_beside_writer"):
                with writing(client) if beside else nullcontext():
                    for read in reads:
                        for way, call, cpu_s in ways:
                            took = measure(read, call, cpu_s, number)
                            found.setdefault(read.name, {})[way + beside] = took._asdict()
    return {"executions": page.total, "estimated": page.total_is_estimate, "reads": number, "kinds": found}


def fill(url: str, executions: int) -> None:
    """Fill a database, unless it is full."""
    with closing(Database.open(url)) as database:
        migrations.upgrade(database)
        is_empty = not Reader(database).list_executions(limit=1).items
    if is_empty:
        began, cpu = time.perf_counter(), time.process_time()
        generate(url, executions)
        print(
            f"written in {time.perf_counter() - began:.0f} s ({time.process_time() - cpu:.0f} s of Python)", flush=True
        )


@contextmanager
def database_of(kind: str) -> Iterator[str]:
    """Yield the URL of a new database of a kind, which is deleted at the end, or the one that was given; that stays."""
    if "://" in kind:
        yield kind
    elif kind == "sqlite":
        with tempfile.TemporaryDirectory() as folder:
            yield f"sqlite:///{folder}/reads.db"
    else:
        with postgres.running("shared_buffers=512MB", "max_wal_size=4GB") as server:
            yield server.url(server.create_database())


def main() -> None:
    """Do what was asked."""
    parser = argparse.ArgumentParser()
    parser.add_argument("databases", nargs="*", default=["sqlite", "postgresql"], help="of new ones the kind, or a URL")
    parser.add_argument("--executions", type=int, default=1_000_000)
    parser.add_argument("--reads", type=int, default=300, help="of each kind")
    parser.add_argument("--save", action="store_true", help="write reads.json and its tables: for the whole alone")
    parser.add_argument("--write", metavar="ADDRESS", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.write:
        write(given.write)
    if given.save and scale.is_part(parser, given):
        parser.error("--save is for the whole: a part must not take its place")
    found = scale.begin(None)
    for kind in given.databases:
        with database_of(kind) as url:
            name = scale.kind_of(kind)
            print(f"{name}, {given.executions:,} executions of 10 sub-steps ...", flush=True)
            if name != "sqlite":
                found["machine"]["postgresql"] = version_of(url)
            fill(url, given.executions)
            found["figures"][name] = measure_all(url, given.reads)
    print(scale.reads(found))
    if given.save:
        scale.save("reads", found)


if __name__ == "__main__":
    main()
