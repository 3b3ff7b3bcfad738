"""A server that tells what goes on in it, and whose commits and tools go on when a test says: no test has to sleep."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from api.serving import Server, serving

PROGRAM = """
import asyncio, os, sys, threading
import sqlalchemy
import dagbok.api.server as server
from dagbok.settings import load
from dagbok.store.writer import Writer

opened = asyncio.Event()  # what the tool `hold` waits for
reads = 0  # statements about executions, of whoever reads
going_on = {"before": threading.Event(), "after": threading.Event()}  # of commits
held = 0
for event in going_on.values():
    event.set()

@sqlalchemy.event.listens_for(sqlalchemy.engine.Engine, "before_cursor_execute")
def count(connection, cursor, statement, *_):
    global reads
    reads += "dag_executions" in statement or "sub_steps" in statement

commit, make_app = Writer.commit, server.create_app

def held_commit(writer):
    global held
    for when in ("before", "after"):
        if not going_on[when].is_set():
            held += 1
        going_on[when].wait()
        if when == "before":
            commit(writer)

def memory_kib():
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) for line in file if line.startswith("VmRSS"))

def create_app(dagbok, **more):
    app = make_app(dagbok, **more)

    @app.get("/watched", include_in_schema=False)
    async def watched():
        executions = dagbok.scheduler._runs.values()
        waited_for = sum(run.settled is not None for run in executions)
        waiters = sum(len(run.settled._callbacks or ()) for run in executions if run.settled is not None)
        tasks = len(asyncio.all_tasks())
        return {"waiting": len(app.state.waiting), "reads": reads, "memory_kib": memory_kib(), "held": held,
                "waited_for": waited_for, "waiters": waiters, "tasks": tasks}

    @app.get("/watched/{what}/{how}", include_in_schema=False)
    async def let(what: str, how: str):
        event = opened if what == "tools" else going_on[what]
        event.set() if how == "on" else event.clear()

    return app

Writer.commit, server.create_app = held_commit, create_app
sys.exit(server.serve(load(port=0), on_ready=lambda url: print(url, flush=True)))
"""

#: Beside those of `serving`.
TOOLS = '''
import sys
from dagbok import tool

@tool(effect="pure")
async def hold() -> str:
    """Return once the test says so."""
    await sys.modules["__main__"].opened.wait()
    return "let go"
'''

Answer = tuple[int, dict[str, str], Any]


@dataclass
class Watched:
    """A watched server."""

    server: Server

    def state(self) -> dict[str, int]:
        found: dict[str, int] = self.server.client.get("/watched").json()
        return found

    def until(self, **wanted: int) -> dict[str, int]:
        """Return the state once it has these values, which it must before those who wait a minute give up."""
        deadline = time.monotonic() + 40
        while (found := self.state()) | wanted != found:
            assert time.monotonic() < deadline, f"{found} does not become {wanted}"
            time.sleep(0.01)
        return found

    def let(self, what: str, how: str) -> None:
        """Let `tools` go on, or commits `before` or `after` they are done; or hold them."""
        assert self.server.client.get(f"/watched/{what}/{how}").status_code == 200

    async def post(self, document: Any, **headers: str) -> Answer:
        return await self.ask("POST", "/api/v1/execute-dag", json.dumps(document).encode(), **headers)

    async def ask(self, method: str, path: str, body: bytes = b"", **headers: str) -> Answer:
        """Send a request on a connection of its own, and return status, headers and JSON of the answer."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.server.port, limit=2**24)
        try:
            writer.write(request(method, path, body, **headers))
            head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
            found = dict(line.lower().split(": ", 1) for line in head[1:] if line)
            data = await reader.readexactly(int(found.get("content-length", 0)))
            return int(head[0].split()[1]), found, json.loads(data) if data else None
        finally:
            writer.close()


def request(method: str, path: str, body: bytes = b"", **headers: str) -> bytes:
    """Return a request as bytes."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    standard = {"host": "localhost", "content-type": "application/json", "content-length": str(len(body))}
    lines = [f"{name}: {value}" for name, value in (standard | {"connection": "close"} | named).items()]
    return "\r\n".join([f"{method} {path} HTTP/1.1", *lines, "", ""]).encode("latin-1") + body


@contextmanager
def watched(database_url: str, folder: Path, **environment: str) -> Iterator[Watched]:
    """Run a watched server until the end of the block."""
    (folder / "watched_tools.py").write_text(TOOLS)
    tools = {"DAGBOK_TOOLS": f"{folder / 'api_tools.py'},{folder / 'watched_tools.py'}"}
    with serving(database_url, folder, PROGRAM, **tools, **environment) as server:
        yield Watched(server)
