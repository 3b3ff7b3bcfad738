"""The program `dagbok` as an operator starts it, with tools that note each of their runs."""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import httpx2

import pythons
from api.serving import Server

#: `note` writes a line for each run into the side log; `gate` returns once its file is there.
TOOLS = '''
import asyncio, os
from pathlib import Path
from dagbok import tool

def ran(id):
    with (Path(os.environ["TEST_FOLDER"]) / "ran").open("a") as file:
        file.write(id + "\\n")

@tool(effect=os.environ.get("TEST_EFFECT", "once"))
async def note(id: str, size: int = 0) -> str:
    """Note that it ran, and return a text of that size."""
    ran(id)
    return id if not size else id[:1] * size

@tool(effect="idempotent")
async def gate(id: str) -> str:
    """Return once the gate is open."""
    ran(id)
    while not (Path(os.environ["TEST_FOLDER"]) / "open").exists():
        await asyncio.sleep(0.01)
    return id
'''


def environment(folder: Path, database_url: str) -> dict[str, str]:
    """Return the environment of a program with these tools, whose side log is in `folder`."""
    module = folder / "fault_tools.py"
    module.write_text(TOOLS)
    kept = {name: value for name, value in os.environ.items() if not name.startswith("DAGBOK_")}
    return kept | {
        "DAGBOK_DATABASE_URL": database_url,
        "DAGBOK_TOOLS": str(module),
        "DAGBOK_WORKSPACE": str(folder),
        "TEST_FOLDER": str(folder),
    }


def dagbok(env: Mapping[str, str], *arguments: str, prefix: tuple[str, ...] = ()) -> subprocess.CompletedProcess[str]:
    """Run the program to its end, which has to come."""
    return pythons.run("-m", "dagbok", *arguments, env=env, prefix=prefix)


@contextmanager
def running(env: Mapping[str, str], *arguments: str) -> Iterator[pythons.Process]:
    """Start the program, and end it with the block where it has not ended before."""
    pipe = subprocess.PIPE
    with pythons.start("-m", "dagbok", *arguments, env=env, stdout=pipe, stderr=pipe) as process:
        try:
            yield process
        finally:
            process.kill()


def ran(folder: Path) -> Counter[str]:
    """Return how often each body ran."""
    return Counter((folder / "ran").read_text().split())


def until(condition: Callable[[], object]) -> None:
    """Wait for what another process does."""
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline, "it does not come true"
        time.sleep(0.02)


def is_ready(server: Server) -> bool:
    return server.client.get("/health/ready").status_code == 200


def outages(log: Path) -> list[str]:
    """Return the lines about outages of a server's log, in order."""
    return [line for line in log.read_text().splitlines() if "The journal" in line]


def submit(url: str, document: Path) -> str:
    """Submit a plan to the server at `url` and return the id of its execution."""
    answer = httpx2.post(f"{url}/api/v1/execute-dag", json=json.loads(document.read_text()), trust_env=False)
    assert answer.status_code == 202, answer.text
    return str(answer.json()["executionId"])
