"""Steps per second through the whole engine and a durable store. See README.md.

usage: python benchmarks/steps.py [DATABASE_URL] [--repeat N] [--workload W1|W2|W3] [--log 2>FILE]
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import statistics
import tempfile
import time
from collections.abc import Iterable
from typing import Any

from dagbok import Dagbok, tool
from dagbok.cli.server_log import server_log

RESULT = {"ok": True, "text": "x" * 150, "n": 1, "tags": ["a", "b"]}


@tool(effect="pure")
async def noop() -> dict[str, Any]:
    """Return about 200 bytes."""
    return RESULT


def _plan(edges: Iterable[tuple[int, Iterable[int]]]) -> dict[str, Any]:
    tasks = [{"id": id, "tool_or_prompt": {"name": "noop"}, "dependencies": list(above)} for id, above in edges]
    return {"original_request": "benchmark", "intent": {"primary": "benchmark"}, "sub_tasks": tasks}


def fan(width: int) -> dict[str, Any]:
    """Return 1 -> width -> 1."""
    return _plan([(0, []), *((n, [0]) for n in range(1, width + 1)), (width + 1, range(1, width + 1))])


#: Name -> (plan, how many at once).
WORKLOADS = {
    "W1": (_plan((n, [n - 1] if n else []) for n in range(200)), 1),
    "W2": (fan(1000), 1),
    "W3": (fan(8), 200),
}


async def _measure(dagbok: Dagbok, plan: dict[str, Any], count: int) -> tuple[float, float]:
    """Return the seconds from submission to the end, and those of them after all were submitted."""
    started = time.perf_counter()
    submitted = await asyncio.gather(*(dagbok.submit(plan) for _ in range(count)))
    running = time.perf_counter()
    await asyncio.gather(*(dagbok.service.wait(each.execution_id) for each in submitted))
    ended = time.perf_counter()
    return ended - started, ended - running


async def main(url: str, repeat: int, names: list[str]) -> None:
    print(f"{url.split('://')[0]}, medians of {repeat}")
    async with Dagbok(url, tools=[noop], max_concurrency=5000) as dagbok:
        for name in names:
            plan, count = WORKLOADS[name]
            steps = len(plan["sub_tasks"]) * count
            await _measure(dagbok, plan, count)  # the first run warms the caches
            runs = [await _measure(dagbok, plan, count) for _ in range(repeat)]
            whole = statistics.median(run[0] for run in runs)
            print(
                f"{name}: {steps / whole:8,.0f} steps/s submitted and run ({whole * 1000:.0f} ms for {steps:,} steps)"
            )


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("url", nargs="?")
    parser.add_argument("--repeat", type=int, default=5)
    parser.add_argument("--workload", action="append", choices=list(WORKLOADS))
    parser.add_argument("--log", action="store_true", help="log on stderr as the server does, a line per event")
    arguments = parser.parse_args()
    log = server_log(format="json") if arguments.log else contextlib.nullcontext()
    with tempfile.TemporaryDirectory() as folder, log:
        database = arguments.url or f"sqlite:///{folder}/steps.db"
        asyncio.run(main(database, arguments.repeat, arguments.workload or list(WORKLOADS)))
