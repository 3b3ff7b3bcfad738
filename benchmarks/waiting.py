"""What ten thousand executions cost that only wait for people: memory, processor time, and the start beside them.

usage: python -m benchmarks.waiting [DATABASE_URL] [--executions N] [--seconds S]

Half of the questions have no time limit, half of them one that is far off. One process submits them and goes on;
another one starts beside the rows. Each tells how much memory it has more than one without them, and the processor time
it takes while nothing happens.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from dagbok import Dagbok
from dagbok.store import migrations
from dagbok.store.database import Database

AT_ONCE = 200


def plan(number: int) -> dict[str, Any]:
    """Return a plan that asks somebody, and then does something."""
    task: dict[str, Any] = {
        "id": "q", "action_type": "human",
        "tool_or_prompt": {"name": "human", "params": {"prompt": f"Question {number}?", "schema": {"type": "string"}}},
    }  # fmt: skip
    if number % 2:
        task |= {"timeout_seconds": 30 * 86_400, "on_timeout": "remind"}
    after = {"id": "next", "tool_or_prompt": {"name": "extract_json", "params": {"data": "<Result from Task q>"}}}
    after["tool_or_prompt"]["params"]["expression"] = "@"  # type: ignore[index]
    return {"original_request": "wait", "intent": {"primary": "wait"}, "sub_tasks": [task, after]}


def rss_mb() -> float:
    """Return the resident memory of this process now."""
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def cpu_s() -> float:
    """Return the processor time that this process has taken."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


async def submit(dagbok: Dagbok, number: int) -> None:
    """Submit, and return once all of them wait."""
    for first in range(0, number, AT_ONCE):
        made = await asyncio.gather(*(dagbok.submit(plan(n)) for n in range(first, min(number, first + AT_ONCE))))
        await asyncio.gather(*(dagbok.service.wait(each.execution_id) for each in made))


async def live(url: str, number: int, seconds: float) -> None:
    """Open an engine, submit `number`, and tell what it costs to wait."""
    began = time.perf_counter()
    async with Dagbok(url) as dagbok:
        opened_s = time.perf_counter() - began
        await dagbok.run({**plan(0), "sub_tasks": [plan(0)["sub_tasks"][0]]})  # what the first one of all brings along
        gc.collect()
        before = rss_mb()
        began = time.perf_counter()
        await submit(dagbok, number)
        took_s = time.perf_counter() - began
        gc.collect()
        await asyncio.sleep(1)
        after, used = rss_mb(), cpu_s()
        await asyncio.sleep(seconds)
        used = cpu_s() - used
        print(f"{opened_s:.2f} {before:.1f} {after:.1f} {used / seconds * 100:.2f} {took_s:.1f}", flush=True)


def measured(url: str, number: int, seconds: float) -> list[float]:
    """Return what a process of its own tells: seconds to open, MiB before, MiB after, percent of a CPU, seconds."""
    command = [sys.executable, __file__, url, "--live", str(number), "--seconds", str(seconds)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return [float(word) for word in done.stdout.split()]


def main() -> None:
    """Run it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("url", nargs="?")
    parser.add_argument("--executions", type=int, default=10_000)
    parser.add_argument("--seconds", type=float, default=20.0)
    parser.add_argument("--live", type=int, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.live is not None:
        asyncio.run(live(given.url, given.live, given.seconds))
        return
    with tempfile.TemporaryDirectory() as folder:
        url = given.url or f"sqlite:///{folder}/waiting.db"
        database = Database.open(url)
        migrations.upgrade(database)
        database.close()
        opened, _, alone, idle, _ = measured(url, 0, given.seconds)
        print(f"without any: open in {opened:.2f} s, {alone:.1f} MiB, {idle:.2f} % of a processor")
        _, before, after, busy, took = measured(url, given.executions, given.seconds)
        print(f"{given.executions:,} submitted in {took:.1f} s: {after - before:+.1f} MiB, {busy:.2f} % of a processor")
        opened, _, beside, busy, _ = measured(url, 0, given.seconds)
        print(f"started beside them: open in {opened:.2f} s, {beside - alone:+.1f} MiB, {busy:.2f} % of a processor")


if __name__ == "__main__":
    main()
