"""Dagbok served: `dagbok serve` in a process of its own, and here a client that posts plans with `Prefer: wait`.

The client runs on the same processors as the server, so it is kept thin: HTTP/1.1 as bytes over connections that are
open before the clock starts, one request at a time on each. Its processor time is told apart. An answer is looked into
only after the clock has stopped.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any
from urllib.parse import urlsplit

from benchmarks import program
from benchmarks.program import Incomplete, Measured, Orders
from benchmarks.workloads import Unit

WAIT_S = 20

Connection = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class Served:
    """Runs units by a server."""

    def __init__(self, url: str, server: int) -> None:
        parts = urlsplit(url)
        self._host, self._port = parts.hostname, parts.port
        self._server = server
        self._connections: list[Connection] = []
        self._requests: list[bytes] = []
        self._runs = itertools.count()
        self._before = 0.0
        self._server_cpu_s: list[float] = []

    async def prepare(self, unit: Unit) -> None:
        """Write the requests, and open as many connections as there are executions."""
        self._requests = [self._request(plan) for plan in unit.plans(next(self._runs))]
        while len(self._connections) < unit.copies:
            self._connections.append(await asyncio.open_connection(self._host, self._port))
        self._before = program.cpu_s_of(self._server)

    def _request(self, plan: dict[str, Any]) -> bytes:
        body = json.dumps(plan).encode()
        head = (
            f"POST /api/v1/execute-dag HTTP/1.1\r\nHost: {self._host}:{self._port}\r\nPrefer: wait={WAIT_S}\r\n"
            f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
        )
        return head.encode() + body

    async def run(self, unit: Unit) -> list[tuple[bytes, bytes]]:
        """Post all together, and return all answers."""
        return await asyncio.gather(*map(self._post, self._connections, self._requests))

    async def _post(self, connection: Connection, request: bytes) -> tuple[bytes, bytes]:
        reader, writer = connection
        writer.write(request)
        head = await reader.readuntil(b"\r\n\r\n")
        length = next(
            int(line.partition(b":")[2]) for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")
        )
        return head, await reader.readexactly(length)

    async def check(self, unit: Unit, done: list[tuple[bytes, bytes]]) -> None:
        """Read every answer: it holds the whole execution, ended."""
        self._server_cpu_s.append(program.cpu_s_of(self._server) - self._before)
        results = 0
        for head, body in done:
            execution: dict[str, Any] = json.loads(body)
            if not head.startswith(b"HTTP/1.1 200") or execution.get("status") != "completed":
                raise Incomplete(f"{head.decode()}{body.decode()[:500]}")
            steps = execution["subSteps"]
            results += sum(step["status"] == "completed" and step["result"] is not None for step in steps)
        program.expect(unit, results)

    def more(self, measured: Measured) -> dict[str, Any]:
        """Tell what the server took; this process is the client."""
        return {
            "cpu_s": sum(self._server_cpu_s[-measured.timed :]),
            "peak_rss_mb": program.peak_rss_mb(self._server),
            "client_cpu_s": measured.cpu_s,
        }

    def close(self) -> None:
        """Close the connections."""
        for _, writer in self._connections:
            writer.close()


@contextmanager
def served(url: str) -> Iterator[tuple[str, int]]:
    """Start a server on an empty database; yield its URL and process."""
    command = [sys.executable, "-m", "dagbok", "serve", "--port", "0", "--database", url]
    command += ["--tools", "benchmarks.subjects.tools"]
    server = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    try:
        assert server.stdout is not None, "it was asked for"
        line = server.stdout.readline()  # "Dagbok answers at URL", once it does
        if "http://" not in line:
            raise RuntimeError("dagbok serve did not start")
        yield line.split()[-1], server.pid
    finally:
        server.send_signal(signal.SIGTERM)
        server.wait()


@asynccontextmanager
async def opened(orders: Orders) -> AsyncIterator[Served]:
    """Start a server and its client."""
    with served(orders.url) as (url, process):
        bench = Served(url, process)
        try:
            yield bench
        finally:
            bench.close()


if __name__ == "__main__":
    program.main(opened, "dagbok")
