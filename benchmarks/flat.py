"""Whether cost stays flat: per step in large plans, in memory while they wait, and until each of many has begun.

usage: python -m benchmarks.flat [sqlite|postgresql|DATABASE_URL ...] [--part cost|memory|delays] [--largest N]
                                 [--executions N] [--often] [--save]

`cost`: no-op plans of 1,000, 10,000 and 100,000 steps, in turns, in two shapes: `fan` (1 -> n -> 1) and `layers` (a
hundred, each step after two of the layer before). Wall and processor time per step, submission included, medians.
`memory`: what an engine's process grows by while a plan waits whose first steps do not end, per pending step: all that
the process took from the system, and what Python objects hold of it. The first plan is told apart: the room that its
check took stays with the process, and those after it use it again.
`delays`: 10,000 executions of 1 -> 2 -> 1 submitted at once: when the first step of each began, counted from the
beginning of all, where a queue that is worked off steadily reaches its last in twice the median by arithmetic; and
counted from its own acceptance (`submit` returned), which tells whether what is accepted is also begun.

Each part has a process and, unless a URL is given, a database of its own, and each plan its own words, so none is
stored already. Python's collector of cycles is set as in all benchmarks (`program.collect_seldom`); with `--often` it
stays as Python has it. `--save` writes `flat.json`, and its tables into docs/benchmarks.md.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import itertools
import json
import os
import statistics
import subprocess
import sys
import time
import tracemalloc
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, nullcontext
from pathlib import Path
from typing import Any

from benchmarks import scale
from benchmarks.databases import Databases
from benchmarks.environments import ROOT
from benchmarks.program import collect_seldom, cpu_s
from benchmarks.subjects.tools import noop
from benchmarks.workloads import RESULT, Graph, fan, layers
from dagbok import Dagbok, ToolContext, tool
from dagbok.domain.ids import ExecutionId
from dagbok.settings import Settings

#: Plan size -> how often it is run.
TIMES = {1_000: 15, 10_000: 5, 100_000: 2}
PARTS = ("cost", "memory", "delays")
#: By name, of so many steps.
SHAPES: dict[str, Callable[[int], Graph]] = {
    "fan": lambda steps: fan(steps - 2),
    "layers": lambda steps: layers(100, steps // 100),
}

_NUMBERS = itertools.count()
_BEGAN: dict[str, float] = {}


@tool(effect="pure")
async def note(context: ToolContext) -> dict[str, Any]:
    """Note when the first step of an execution began."""
    _BEGAN.setdefault(context.execution_id, time.perf_counter())
    return RESULT


@tool(effect="pure")
async def hang() -> None:
    """Never end."""
    await asyncio.Event().wait()


def _plan(graph: Graph, tool: str = "noop") -> dict[str, Any]:
    return graph.plan(f"flat {os.getpid()}.{next(_NUMBERS)}", tool)


def _rss_bytes() -> int:
    return int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1]) * os.sysconf("SC_PAGE_SIZE")


@asynccontextmanager
async def _engine(url: str, often: bool) -> AsyncIterator[Dagbok]:
    settings = Settings(max_sub_tasks=10**6, max_plan_bytes=2**30, max_concurrency=5_000, close_grace_s=0)
    async with Dagbok(url, tools=[noop, note, hang], settings=settings) as dagbok:
        if not often:
            collect_seldom()
        yield dagbok


async def cost(url: str, largest: int, *, often: bool = False) -> list[dict[str, Any]]:
    """Return wall and processor time per step by shape and size."""
    sizes = [size for size in TIMES if size <= largest]
    runs: dict[tuple[str, int], list[tuple[float, float]]] = {(shape, size): [] for shape in SHAPES for size in sizes}
    async with _engine(url, often) as dagbok:
        await _run(dagbok, _plan(fan(998)))  # brings the tables and statements along
        for turn in range(max(TIMES[size] for size in sizes)):
            for shape, size in runs:
                if turn < TIMES[size]:
                    runs[shape, size].append(await _run(dagbok, _plan(SHAPES[shape](size))))
    return [
        {
            "shape": shape,
            "steps": size,
            "wall_us": statistics.median(wall for wall, _ in found) / size * 1e6,
            "cpu_us": statistics.median(cpu for _, cpu in found) / size * 1e6,
        }
        for (shape, size), found in runs.items()
    ]


async def _run(dagbok: Dagbok, plan: dict[str, Any]) -> tuple[float, float]:
    text = json.dumps(plan)  # as it comes from outside; a document that the caller keeps costs each garbage collection
    del plan
    gc.collect()  # what the last run left is not this one's
    began, used = time.perf_counter(), cpu_s()
    made = await dagbok.submit(text)
    await dagbok.service.wait(made.execution_id)
    return time.perf_counter() - began, cpu_s() - used


async def memory(url: str, steps: int, *, often: bool = False) -> list[dict[str, Any]]:
    """Return the bytes per pending step by shape."""
    found = []
    async with _engine(url, often) as dagbok:
        await dagbok.submit(_plan(layers(100, 10), "hang"))
        for shape, make in (("fan, the first", SHAPES["fan"]), *SHAPES.items()):
            grown = []
            for traced in (False, True):
                text = json.dumps(_plan(make(steps), "hang"))
                gc.collect()
                before = _rss_bytes()
                if traced:
                    tracemalloc.start()
                await dagbok.submit(text)
                await asyncio.sleep(0.5)
                gc.collect()
                grown.append(tracemalloc.get_traced_memory()[0] if traced else _rss_bytes() - before)
                tracemalloc.stop()
            found.append({"shape": shape, "steps": steps, "rss_bytes": grown[0] / steps, "bytes": grown[1] / steps})
    return found


async def delays(url: str, executions: int, *, often: bool = False) -> list[dict[str, Any]]:
    """Return when the first steps of many executions began that were submitted at once."""
    plans = [_plan(fan(2), "note") for _ in range(executions)]
    accepted: dict[str, float] = {}

    async with _engine(url, often) as dagbok:

        async def submit(plan: dict[str, Any]) -> ExecutionId:
            made = await dagbok.submit(plan)
            accepted[made.execution_id] = time.perf_counter()
            return made.execution_id

        await dagbok.run(_plan(Graph("one", {"0": []}), "note"))
        _BEGAN.clear()
        began, used = time.perf_counter(), cpu_s()
        made = await asyncio.gather(*map(submit, plans))
        await asyncio.gather(*map(dagbok.service.wait, made))
        wall, cpu = time.perf_counter() - began, cpu_s() - used
    assert _BEGAN.keys() == accepted.keys()
    after = sorted(at - began for at in _BEGAN.values())
    # A step may begin before who submitted it has gone on; then there was no wait.
    waited = sorted(max(0.0, at - accepted[id]) for id, at in _BEGAN.items())
    return [
        {
            "executions": executions,
            "first_s": after[0],
            "median_s": statistics.median(after),
            "last_s": after[-1],
            "own_median_s": statistics.median(waited),
            "own_p99_s": waited[len(waited) * 99 // 100],
            "own_worst_s": waited[-1],
            "wall_s": wall,
            "cpu_us": cpu / executions / 4 * 1e6,
        }
    ]


async def _measure(part: str, url: str, given: argparse.Namespace) -> list[dict[str, Any]]:
    if part == "cost":
        return await cost(url, given.largest, often=given.often)
    if part == "memory":
        return await memory(url, given.largest, often=given.often)
    return await delays(url, given.executions, often=given.often)


def _apart(part: str, url: str, given: argparse.Namespace) -> list[dict[str, Any]]:
    """Measure one part in a process of its own."""
    command = [sys.executable, "-m", "benchmarks.flat", url, "--alone", "--part", part]
    command += ["--largest", str(given.largest), "--executions", str(given.executions)]
    command += ["--often"] if given.often else []
    done = subprocess.run(command, stdout=subprocess.PIPE, check=True, text=True, cwd=ROOT)
    rows: list[dict[str, Any]] = json.loads(done.stdout)
    return rows


def main(arguments: Sequence[str] | None = None) -> None:
    """Do what was asked."""
    parser = argparse.ArgumentParser(usage=__doc__)
    parser.add_argument("databases", nargs="*", default=["sqlite", "postgresql"], help="of new ones the kind, or a URL")
    parser.add_argument("--part", action="append", choices=PARTS)
    parser.add_argument("--largest", type=int, default=100_000, help="the largest plan; also that of `memory`")
    parser.add_argument("--executions", type=int, default=10_000)
    parser.add_argument("--often", action="store_true", help="leave Python's collector of cycles as it is")
    parser.add_argument("--save", action="store_true", help="write flat.json and its tables: for the whole alone")
    parser.add_argument("--alone", action="store_true", help=argparse.SUPPRESS)  # measure one part in this process
    given = parser.parse_args(arguments)
    if given.alone:
        print(json.dumps(asyncio.run(_measure(given.part[0], given.databases[0], given))))
        return
    if given.save and scale.is_part(parser, given):
        parser.error("--save is for the whole: a part must not take its place")
    with Databases() as databases:
        if databases.no_postgresql and "postgresql" in given.databases:
            parser.error(databases.no_postgresql)
        found = scale.begin(databases.version())
        for database in given.databases:
            name = scale.kind_of(database)
            figures = found["figures"][name] = {}
            for part in given.part or PARTS:
                print(f"{part}, {name} ...", flush=True)
                with nullcontext(database) if "://" in database else databases.empty(name) as url:
                    figures[part] = _apart(part, url, given)
    print(scale.flat(found))
    if given.save:
        scale.save("flat", found)


if __name__ == "__main__":
    main()
