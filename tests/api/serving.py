"""A real server in a process of its own, on loopback and a free port, over a real database file."""

from __future__ import annotations

import http.client
import json
import os
import signal
import socket
import subprocess
import textwrap
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx2

import pythons

#: Tools with ends a test decides: `gate` returns when its file exists, and notes each of its starts.
TOOLS = '''
import asyncio
from pathlib import Path
from dagbok.tools.decorator import tool

@tool(effect="pure")
async def echo(value: object = None) -> object:
    """Return the value."""
    return value

@tool(effect="pure")
async def large(size: int) -> str:
    """Return a long text."""
    return "x" * size

@tool(effect="idempotent")
async def gate(folder: str) -> str:
    """Return once the gate is open."""
    with (Path(folder) / "starts").open("a") as file:
        file.write("start\\n")
    while not (Path(folder) / "open").exists():
        await asyncio.sleep(0.01)
    return "through"
'''

PROGRAM = """
import sys
from dagbok.api.server import serve
from dagbok.settings import load
sys.exit(serve(load(port=0), on_ready=lambda url: print(url, flush=True)))
"""


@dataclass
class Server:
    """A running server."""

    process: pythons.Process
    url: str
    client: httpx2.Client

    @property
    def port(self) -> int:
        port = urlsplit(self.url).port
        assert port is not None
        return port

    def stop(self, number: signal.Signals = signal.SIGTERM) -> int:
        self.process.send_signal(number)
        return self.process.wait(30)

    def submit(self, document: Any, status: int = 202) -> dict[str, Any]:
        answer = self.client.post("/api/v1/execute-dag", json=document)
        assert answer.status_code == status, answer.text
        body: dict[str, Any] = answer.json()
        return body

    def post_raw(self, body: bytes | str, **headers: str) -> httpx2.Response:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        content = body if isinstance(body, bytes) else body.encode("utf-8", "surrogatepass")
        return self.client.post(
            "/api/v1/execute-dag", content=content, headers={"content-type": "application/json"} | named
        )

    def ended(self, execution_id: str) -> dict[str, Any]:
        """Return the execution once nothing of it goes on by itself."""
        return self.reached(execution_id, "completed", "failed", "partial", "cancelled", "waiting")

    def reached(self, execution_id: str, *statuses: str) -> dict[str, Any]:
        """Return the execution once it is in one of these states."""
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            body: dict[str, Any] = self.client.get(f"/api/v1/dag-executions/{execution_id}").json()
            if body["status"] in statuses:
                return body
            time.sleep(0.02)
        raise AssertionError(f"{execution_id} does not become {statuses}: {body['status']}")

    def send(self, *lines: str, body: bytes = b"") -> tuple[int, dict[str, str], bytes]:
        """Send a request exactly as written and return what comes back."""
        with socket.create_connection(("127.0.0.1", self.port), 20) as sock:
            sock.sendall("\r\n".join([*lines, "", ""]).encode("latin-1") + body)
            answer = http.client.HTTPResponse(sock, method=lines[0].split()[0])
            answer.begin()
            data = answer.read()
            headers = {name.lower(): value for name, value in answer.getheaders()}
            answer.close()
            return answer.status, headers, data


@contextmanager
def serving(
    database_url: str,
    folder: Path,
    program: str = PROGRAM,
    *,
    prefix: Sequence[str] = (),
    **environment: str,
) -> Iterator[Server]:
    """Run a server until the end of the block, where it has to stop cleanly if it still runs.

    Args:
        prefix: Of the command, such as what takes rights away; it starts a fresh interpreter.
    """
    module = folder / "api_tools.py"
    module.write_text(textwrap.dedent(TOOLS))
    errors = (folder / "server.log").open("ab")
    env = {name: value for name, value in os.environ.items() if not name.startswith("DAGBOK_")}
    env |= {"DAGBOK_DATABASE_URL": database_url, "DAGBOK_TOOLS": str(module), "DAGBOK_WORKSPACE": str(folder)}
    process = pythons.start(
        *("-W", "error", "-c", program),
        stdout=subprocess.PIPE,
        stderr=errors,
        env=env | environment,
        cwd=folder,
        prefix=prefix,
    )
    try:
        assert process.stdout is not None
        url = process.stdout.readline().strip()
        assert url, (folder / "server.log").read_text()
        with httpx2.Client(base_url=url, timeout=60, trust_env=False) as client:
            server = Server(process, url, client)
            yield server
        if process.poll() is None:
            assert server.stop() == 0, (folder / "server.log").read_text()
    finally:
        if process.poll() is None:
            process.kill()
            process.wait(10)
        if process.stdout is not None:
            process.stdout.close()
        errors.close()


def plan(*tasks: dict[str, Any], **more: Any) -> dict[str, Any]:
    """Return a plan of these sub-tasks."""
    return {"original_request": "Test it", "intent": {"primary": "test"}, "sub_tasks": list(tasks), **more}


def task(id: str | int, name: str = "echo", *after: str | int, **params: Any) -> dict[str, Any]:
    """Return a sub-task that calls a tool."""
    return {"id": id, "tool_or_prompt": {"name": name, "params": params}, "dependencies": list(after)}


def dumps(value: Any) -> str:
    """Return JSON as a sloppy client writes it: NaN and all."""
    return json.dumps(value, ensure_ascii=False)
