"""Whether cost stays flat: per step in large plans, in memory while they wait, and until each of many has begun.

usage: python benchmarks/flat.py [DATABASE_URL] [--part cost|memory|delays] [--largest N] [--executions N] [--often]
                                 [--json]

`cost`: no-op plans of 1,000, 10,000 and 100,000 steps, in turns, in two shapes: `fan` (1 -> n -> 1) and `layers` (a
hundred, each step after two of the layer before). Wall and processor time per step, submission included, medians.
`memory`: what an engine's process grows by while a plan waits whose first steps do not end, per pending step: all that
the process took from the system, and what Python objects hold of it.
`delays`: 10,000 executions of 1 -> 2 -> 1 submitted at once: when the first step of each began.

Each part has a process of its own, and each plan its own words, so none is stored already. Python's collector of cycles
is set as `dagbok serve` and `dagbok run` set it, which a program of 100,000 steps should do as well; with `--often` it
stays as Python has it.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import itertools
import json
import os
import random
import resource
import statistics
import subprocess
import sys
import tempfile
import time
import tracemalloc
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from dagbok import Dagbok, ToolContext, tool
from dagbok.settings import Settings

RESULT = {"ok": True, "text": "x" * 150, "n": 1, "tags": ["a", "b"]}
#: Plan size -> how often it is run.
TIMES = {1_000: 15, 10_000: 5, 100_000: 2}
PARTS = ("cost", "memory", "delays")
#: New objects until Python looks for cycles among them. By default 700: then each batch of steps that runs outlives
#: several looks, counts as old, and makes Python go through all that there is.
YOUNG = 50_000

_NUMBERS = itertools.count()
_BEGAN: dict[str, float] = {}


@tool(effect="pure")
async def noop() -> dict[str, Any]:
    """Return about 200 bytes."""
    return RESULT


@tool(effect="pure")
async def note(context: ToolContext) -> dict[str, Any]:
    """Note when the first step of an execution began."""
    _BEGAN.setdefault(context.execution_id, time.perf_counter())
    return RESULT


@tool(effect="pure")
async def hang() -> None:
    """Never end."""
    await asyncio.Event().wait()


def _plan(edges: Iterable[tuple[int, Iterable[int]]], name: str) -> dict[str, Any]:
    tasks = [{"id": id, "tool_or_prompt": {"name": name}, "dependencies": list(above)} for id, above in edges]
    request = f"flat {os.getpid()}.{next(_NUMBERS)}"
    return {"original_request": request, "intent": {"primary": "benchmark"}, "sub_tasks": tasks}


def fan(steps: int, name: str = "noop") -> dict[str, Any]:
    """Return 1 -> steps - 2 -> 1."""
    edges = [(0, []), *((n, [0]) for n in range(1, steps - 1)), (steps - 1, range(1, steps - 1))]
    return _plan(edges, name)


def layers(steps: int, name: str = "noop") -> dict[str, Any]:
    """Return a hundred layers, each step after two of the layer before."""
    width, drawn = steps // 100, random.Random(1)
    edges = [
        (n, [] if n < width else drawn.sample(range((n // width - 1) * width, n // width * width), 2))
        for n in range(steps)
    ]
    return _plan(edges, name)


SHAPES: dict[str, Callable[..., dict[str, Any]]] = {"fan": fan, "layers": layers}


def _cpu_s() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def _rss_bytes() -> int:
    return int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1]) * os.sysconf("SC_PAGE_SIZE")


def _engine(url: str, **more: Any) -> Dagbok:
    settings = Settings(max_sub_tasks=10**6, max_plan_bytes=2**30, max_concurrency=5_000, close_grace_s=0)
    return Dagbok(url, tools=[noop, note, hang], settings=settings, **more)


async def cost(url: str, largest: int) -> list[dict[str, Any]]:
    """Return wall and processor time per step by shape and size."""
    sizes = [size for size in TIMES if size <= largest]
    runs: dict[tuple[str, int], list[tuple[float, float]]] = {(shape, size): [] for shape in SHAPES for size in sizes}
    async with _engine(url) as dagbok:
        await _run(dagbok, fan(1_000))  # brings the tables and statements along
        for turn in range(max(TIMES[size] for size in sizes)):
            for shape, size in runs:
                if turn < TIMES[size]:
                    runs[shape, size].append(await _run(dagbok, SHAPES[shape](size)))
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
    began, used = time.perf_counter(), _cpu_s()
    made = await dagbok.submit(text)
    await dagbok.service.wait(made.execution_id)
    return time.perf_counter() - began, _cpu_s() - used


async def memory(url: str, steps: int) -> list[dict[str, Any]]:
    """Return the bytes per pending step by shape."""
    found = []
    async with _engine(url) as dagbok:
        await dagbok.submit(layers(1_000, "hang"))
        for shape, make in SHAPES.items():
            grown = []
            for traced in (False, True):
                text = json.dumps(make(steps, "hang"))
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


async def delays(url: str, executions: int) -> list[dict[str, Any]]:
    """Return when the first steps of many executions began, after all were submitted at once."""
    plans = [_plan([(0, []), (1, [0]), (2, [0]), (3, [1, 2])], "note") for _ in range(executions)]
    async with _engine(url) as dagbok:
        await dagbok.run(_plan([(0, [])], "note"))
        _BEGAN.clear()
        began, used = time.perf_counter(), _cpu_s()
        made = await asyncio.gather(*map(dagbok.submit, plans))
        await asyncio.gather(*(dagbok.service.wait(each.execution_id) for each in made))
        wall, cpu = time.perf_counter() - began, _cpu_s() - used
    after = sorted(at - began for at in _BEGAN.values())
    assert len(after) == executions
    return [
        {
            "executions": executions,
            "first_s": after[0],
            "median_s": statistics.median(after),
            "last_s": after[-1],
            "wall_s": wall,
            "cpu_us": cpu / executions / 4 * 1e6,
        }
    ]


async def _measure(part: str, url: str, arguments: argparse.Namespace) -> list[dict[str, Any]]:
    if part == "cost":
        return await cost(url, arguments.largest)
    return await (memory(url, arguments.largest) if part == "memory" else delays(url, arguments.executions))


def _tell(part: str, rows: Sequence[dict[str, Any]]) -> None:
    if part == "cost":
        print(
            f"\n{'shape':8}{'steps':>9}{'wall us/step':>14}{'cpu us/step':>13}{'wall':>7}{'cpu':>7}   (of the smallest)"
        )
        for row in rows:
            first = next(each for each in rows if each["shape"] == row["shape"])
            ratios = f"{row['wall_us'] / first['wall_us']:6.2f}x{row['cpu_us'] / first['cpu_us']:6.2f}x"
            print(f"{row['shape']:8}{row['steps']:9,}{row['wall_us']:14.1f}{row['cpu_us']:13.1f}{ratios}")
    elif part == "memory":
        print(f"\n{'shape':8}{'steps':>9}{'process B/pending step':>25}{'objects B/pending step':>25}")
        for row in rows:
            print(f"{row['shape']:8}{row['steps']:9,}{row['rss_bytes']:25,.0f}{row['bytes']:25,.0f}")
    else:
        for row in rows:
            later = row["last_s"] / row["median_s"]
            print(f"\n{row['executions']:,} executions at once: the first step of the first began after")
            print(f"{row['first_s']:.2f} s, in the median {row['median_s']:.2f} s, of the last {row['last_s']:.2f} s:")
            print(
                f"{later:.2f}x the median. All ended after {row['wall_s']:.2f} s, {row['cpu_us']:.0f} us a step of CPU."
            )


def _apart(part: str, arguments: argparse.Namespace) -> list[dict[str, Any]]:
    """Measure one part in a process of its own."""
    with tempfile.TemporaryDirectory() as folder:
        url = arguments.url or f"sqlite:///{folder}/flat.db"
        command = [sys.executable, __file__, url, "--alone", "--part", part, "--largest", str(arguments.largest)]
        command += ["--executions", str(arguments.executions), *(["--often"] if arguments.often else [])]
        done = subprocess.run(command, stdout=subprocess.PIPE, check=True, text=True)
    rows: list[dict[str, Any]] = json.loads(done.stdout)
    return rows


if __name__ == "__main__":
    parser = argparse.ArgumentParser(usage=__doc__)
    parser.add_argument("url", nargs="?")
    parser.add_argument("--part", action="append", choices=PARTS)
    parser.add_argument("--largest", type=int, default=100_000, help="the largest plan; also that of `memory`")
    parser.add_argument("--executions", type=int, default=10_000)
    parser.add_argument("--often", action="store_true", help="leave Python's collector of cycles as it is")
    parser.add_argument("--json", action="store_true", help="print the figures as JSON")
    parser.add_argument("--alone", action="store_true", help="measure one part in this process")
    arguments = parser.parse_args()
    if arguments.alone:
        if not arguments.often:
            gc.set_threshold(YOUNG, *gc.get_threshold()[1:])
        print(json.dumps(asyncio.run(_measure(arguments.part[0], arguments.url, arguments))))
        sys.exit()
    figures = {part: _apart(part, arguments) for part in arguments.part or PARTS}
    if arguments.json:
        print(json.dumps(figures, indent=1))
    else:
        print((arguments.url or "sqlite").split(":")[0], end="")
        for part, rows in figures.items():
            _tell(part, rows)
