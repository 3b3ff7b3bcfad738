"""Prefect: an asynchronous flow that awaits its tasks, against a local server of its own (`prefect server start`).

Stored: the states of each task run, by way of the server, in its SQLite file. Results are not, which is its default
and flatters it, as does that the graph is code. Of its forms the quickest are taken: tasks that are awaited, not
submitted or mapped, which were ten times slower. Processor time and memory include the server, which is half of it.
"""

from __future__ import annotations

import asyncio
import os
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path
from typing import Any

from benchmarks import program
from benchmarks.program import Measured, Orders
from benchmarks.workloads import RESULT, Graph, Unit

#: How long the server may take to make its tables and answer.
STARTS_WITHIN_S = 60.0

QUIET = {
    "PREFECT_LOGGING_LEVEL": "ERROR",
    "PREFECT_LOGGING_TO_API_ENABLED": "false",
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "DO_NOT_TRACK": "1",
}


class Flows:
    """Runs units by a server."""

    def __init__(self, server: int) -> None:
        from prefect import flow, task  # reads where its server is when it is imported

        self._server = server
        self._before = 0.0
        self._server_cpu_s: list[float] = []

        @task
        async def noop() -> dict[str, Any]:
            return RESULT

        @task
        async def work(seconds: float) -> dict[str, Any]:
            await asyncio.sleep(seconds)
            return RESULT

        async def run(graph: Graph) -> int:
            levels = graph.levels()
            if not graph.seconds:
                return sum([len(await asyncio.gather(*(noop() for _ in level))) for level in levels])
            return len(await program.by_readiness(graph.parents, lambda task: work(graph.seconds[task])))

        self._graph: Graph | None = None

        @flow
        async def whole() -> int:
            assert self._graph is not None, "prepared before it is run"
            return await run(self._graph)

        self._flow = whole

    async def prepare(self, unit: Unit) -> None:
        """Let the flow know its graph, and look what the server has used so far."""
        self._graph = unit.graph
        self._before = program.cpu_s_of(self._server)

    async def run(self, unit: Unit) -> list[int]:
        """Run all copies together."""
        return await asyncio.gather(*(self._flow() for _ in range(unit.copies)))

    async def check(self, unit: Unit, done: list[int]) -> None:
        """Count the results."""
        self._server_cpu_s.append(program.cpu_s_of(self._server) - self._before)
        program.expect(unit, sum(done))

    def more(self, measured: Measured) -> dict[str, Any]:
        """Add what the server took."""
        return {
            "cpu_s": measured.cpu_s + sum(self._server_cpu_s[-measured.timed :]),
            "peak_rss_mb": measured.peak_rss_mb + program.peak_rss_mb(self._server),
        }


@contextmanager
def served(url: str) -> Iterator[int]:
    """Start the server on an empty database, and yield its process."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as home:
        os.environ |= QUIET | {
            "PREFECT_HOME": home,
            "PREFECT_API_URL": f"http://127.0.0.1:{port}/api",
            "PREFECT_SERVER_DATABASE_CONNECTION_URL": url.replace("sqlite:///", "sqlite+aiosqlite:///"),
        }
        command = [sys.executable, "-m", "prefect", "server", "start", "--port", str(port), "--no-services"]
        log = Path(home) / "server.log"
        with log.open("wb") as output:
            server = subprocess.Popen(command, stdout=output, stderr=output)
        try:
            _await_answer(server, f"http://127.0.0.1:{port}/api/health", log)
            yield server.pid
        finally:
            server.terminate()
            server.wait()


def _await_answer(server: subprocess.Popen[bytes], url: str, log: Path) -> None:
    end = time.monotonic() + STARTS_WITHIN_S
    while server.poll() is None and time.monotonic() < end:
        with suppress(OSError), urllib.request.urlopen(url, timeout=1):
            return
        time.sleep(0.1)
    raise RuntimeError(f"Prefect's server did not start: {log.read_text(errors='replace')[-1000:]}")


@asynccontextmanager
async def opened(orders: Orders) -> AsyncIterator[Flows]:
    """Start the server."""
    with served(orders.url) as server:
        yield Flows(server)


if __name__ == "__main__":
    program.main(opened, "prefect")
