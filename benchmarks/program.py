"""What the programs of all subjects do alike: read their orders, warm up, time each unit, check it, print one line.

Standard library only: each peer's interpreter imports this. A program measures one workload in a process of its own,
so that its memory and processor time are its own, and starts from an empty database. What came of the work is checked
after the clock was stopped: a run in which something is missing has no time.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import resource
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from time import perf_counter
from typing import Any, Protocol

from benchmarks.workloads import WORKLOADS, Unit

#: A workload that should take no longer than this is run as a whole before the clock starts: of a run of a tenth of a
#: second, what happens only once is a good part (tables and logs grow, caches fill); of one of seconds it is not.
WHOLE_S = 2.0
#: It is run at least once, and until so long has passed: in a new SQLite file each commit lets the write-ahead log grow
#: until its first checkpoint, for which the file system has to find room: 0.17 ms instead of 0.10 for a small one.
WARM_S = 1.0


@dataclass(frozen=True)
class Orders:
    """What the orchestrator asks of a program."""

    workload: str
    url: str  #: of an empty database, `sqlite:///FILE` or `postgresql://...`; "" for those that keep nothing
    variant: str = ""  #: of the subject, such as a level of durability
    repeat: int = 1  #: how often, after one warm-up


class Incomplete(Exception):
    """Not all of the work was done."""


class Bench(Protocol):
    """A subject, ready to run."""

    async def prepare(self, unit: Unit) -> None:
        """Do what its users do once and not for each run, such as compiling a graph."""

    async def run(self, unit: Unit) -> object:
        """Run the unit to its durable end, and return what `check` needs. The clock runs."""

    async def check(self, unit: Unit, done: Any) -> None:
        """Raise Incomplete unless every task of the unit has its result."""


@dataclass
class Measured:
    """One line of a program."""

    wall_s: list[list[float]] = field(default_factory=list)  #: of each repetition, of each unit
    cpu_s: float = 0.0  #: of this process, user and system, while the clock ran
    peak_rss_mb: float = 0.0
    more: dict[str, Any] = field(default_factory=dict)  #: what only some programs know

    @property
    def timed(self) -> int:
        """How many runs of a unit were timed. Those before them were warm-ups."""
        return sum(map(len, self.wall_s))


Open = Callable[[Orders], AbstractAsyncContextManager[Bench]]


def main(opened: Open, *packages: str) -> None:
    """Run a program: the subject is what `opened` yields, its version those of `packages`."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--workload", required=True, choices=list(WORKLOADS))
    parser.add_argument("--url", default="")
    parser.add_argument("--variant", default="")
    parser.add_argument("--repeat", type=int, default=1)
    given = parser.parse_args()
    measured = asyncio.run(measure(opened, Orders(**vars(given))))
    line = {
        "wall_s": measured.wall_s,
        "cpu_s": measured.cpu_s,
        "peak_rss_mb": measured.peak_rss_mb,
        "version": ", ".join(f"{package} {version(package)}" for package in packages),
    }
    print(json.dumps(line | measured.more), flush=True)


async def measure(opened: Open, orders: Orders) -> Measured:
    """Warm up, and time each unit of the workload.

    Raises:
        Incomplete: Work was not done.
    """
    workload = WORKLOADS[orders.workload]()
    measured = Measured()
    async with opened(orders) as bench:
        expected_s = await _once(bench, workload.warm_up) * workload.steps / workload.warm_up.steps
        if expected_s <= WHOLE_S and len(workload.units) == 1:
            began = perf_counter()
            await _once(bench, workload.units[0])
            while perf_counter() - began < WARM_S:
                await _once(bench, workload.units[0])
        collect_seldom()
        for _ in range(orders.repeat):
            walls: list[float] = []
            for unit in workload.units:
                await bench.prepare(unit)
                began, cpu = perf_counter(), cpu_s()
                done = await bench.run(unit)
                walls.append(perf_counter() - began)
                measured.cpu_s += cpu_s() - cpu
                measured.peak_rss_mb = peak_rss_mb()  # before the check, which reads everything at once
                await bench.check(unit, done)
            measured.wall_s.append(walls)
        if more := getattr(bench, "more", None):
            measured.more = more(measured)
    return measured


def collect_seldom() -> None:
    """Do in every program what `dagbok serve` and `dagbok run` do, and any Python program that runs for long should.

    Python's collector of cycles goes through what the program has loaded again and again otherwise, for nothing, and
    whoever has loaded more looks slower.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 10, 10)


async def _once(bench: Bench, unit: Unit) -> float:
    """Run a unit that does not count, and return how long it took."""
    await bench.prepare(unit)
    began = perf_counter()
    done = await bench.run(unit)
    took = perf_counter() - began
    await bench.check(unit, done)
    return took


def expect(unit: Unit, results: int) -> None:
    """Raise Incomplete unless there are as many results as steps."""
    if results != unit.steps:
        raise Incomplete(f"{unit.graph.name}: {results} results of {unit.steps} steps")


def cpu_s() -> float:
    """Return the processor time that this process has taken, all its threads."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def cpu_s_of(process: int) -> float:
    """Return the processor time that another process has taken."""
    words = Path(f"/proc/{process}/stat").read_text(encoding="ascii", errors="replace").rpartition(")")[2].split()
    return (int(words[11]) + int(words[12])) / 100  # USER_HZ, which is 100 on every Linux


def peak_rss_mb(process: int | str = "self") -> float:
    """Return the most memory a process had. Not `ru_maxrss`, which counts what the process was forked from."""
    for line in Path(f"/proc/{process}/status").read_text(encoding="ascii", errors="replace").splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) / 1024
    raise OSError(f"the process {process} has no peak of memory to tell")


async def by_readiness(parents: Mapping[str, Sequence[str]], step: Callable[[str], Awaitable[Any]]) -> list[Any]:
    """Run `step` of each task once those of its parents have ended, and return all that came of them."""
    children: dict[str, list[str]] = {task: [] for task in parents}
    missing = {task: len(above) for task, above in parents.items()}
    for task, above in parents.items():
        for parent in above:
            children[parent].append(task)
    results: list[Any] = []

    async def run(task: str) -> None:
        results.append(await step(task))
        for child in children[task]:
            missing[child] -= 1
            if not missing[child]:
                group.create_task(run(child))

    async with asyncio.TaskGroup() as group:
        for task in [task for task, number in missing.items() if not number]:
            group.create_task(run(task))
    return results
