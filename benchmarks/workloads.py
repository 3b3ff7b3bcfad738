"""The task graphs that every subject runs, as data. Standard library only: each peer's interpreter imports this.

A unit is one graph, submitted so many times together, and timed from the submission to its last end. A workload is one
unit, or several that are timed one after the other. Tasks are named by numbers in text; in W5, as their authors did.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

#: Graphs that somebody else recorded, beside the project; W5 is left out where they are missing.
RECORDED = Path(__file__).resolve().parents[2] / "shared" / "data" / "wfinstances"

#: What a task returns, about 200 bytes as JSON.
RESULT: dict[str, Any] = {"ok": True, "text": "x" * 150, "n": 1, "tags": ["a", "b"]}


@dataclass(frozen=True)
class Graph:
    """Tasks, each after its parents, and how long each takes (nothing, unless said)."""

    name: str
    parents: Mapping[str, Sequence[str]]
    seconds: Mapping[str, float] = field(default_factory=dict)

    def critical_path_s(self) -> float:
        """Return the length of the longest path: no run can be faster. Parents stand before their children."""
        ends: dict[str, float] = {}
        for task, above in self.parents.items():
            ends[task] = self.seconds.get(task, 0.0) + max((ends[parent] for parent in above), default=0.0)
        return max(ends.values())

    def levels(self) -> list[list[str]]:
        """Return the tasks by the length of the longest way to them. Parents stand before their children."""
        level: dict[str, int] = {}
        for task, above in self.parents.items():
            level[task] = 1 + max((level[parent] for parent in above), default=-1)
        levels: list[list[str]] = [[] for _ in range(1 + max(level.values()))]
        for task, number in level.items():
            levels[number].append(task)
        return levels

    def scaled(self, critical_path_s: float) -> Graph:
        """Return the same graph with all times changed alike."""
        factor = critical_path_s / self.critical_path_s()
        return Graph(self.name, self.parents, {task: seconds * factor for task, seconds in self.seconds.items()})

    def plan(self, request: str = "", tool: str = "noop") -> dict[str, Any]:
        """Return the graph as a plan whose tasks call `tool`, or `work` where they take time, for `request`."""
        tasks = [
            {
                "id": task,
                "tool_or_prompt": (
                    {"name": "work", "params": {"seconds": self.seconds[task]}} if self.seconds else {"name": tool}
                ),
                "dependencies": list(above),
            }
            for task, above in self.parents.items()
        ]
        return {"original_request": request or self.name, "intent": {"primary": "benchmark"}, "sub_tasks": tasks}


@dataclass(frozen=True)
class Unit:
    """What is timed at once."""

    graph: Graph
    copies: int = 1  #: executions of the graph, submitted together

    @property
    def steps(self) -> int:
        """How many tasks have to end."""
        return len(self.graph.parents) * self.copies

    def plans(self, run: int) -> list[dict[str, Any]]:
        """Return the plan of each copy. Each has words of its own in each run, so that none is stored already."""
        return [self.graph.plan(f"{self.graph.name}, copy {copy} of run {run}") for copy in range(self.copies)]


@dataclass(frozen=True)
class Workload:
    """What is measured under one name."""

    name: str
    title: str
    units: Sequence[Unit]
    warm_up: Unit  #: run before the clock starts: caches, first connections, code that is imported late

    @property
    def steps(self) -> int:
        """How many tasks have to end, in all."""
        return sum(unit.steps for unit in self.units)


def chain(length: int) -> Graph:
    """Return 1 -> 1 -> 1 ..."""
    return _graph(f"chain of {length:,}", ((n, [n - 1] if n else []) for n in range(length)))


def fan(width: int) -> Graph:
    """Return 1 -> width -> 1."""
    middle = range(1, width + 1)
    return _graph(f"1 -> {width:,} -> 1", [(0, []), *((n, [0]) for n in middle), (width + 1, middle)])


def layers(number: int, width: int, seconds: float = 0.0, *, seed: int = 1) -> Graph:
    """Return layers of tasks that each wait for two of the layer above, drawn by chance (`seed`)."""
    chance = random.Random(seed)
    rows = [range(layer * width, (layer + 1) * width) for layer in range(number)]
    edges = [
        (task, chance.sample(rows[layer - 1], 2) if layer else []) for layer in range(number) for task in rows[layer]
    ]
    graph = _graph(f"{number} layers of {width}", edges)
    return Graph(graph.name, graph.parents, dict.fromkeys(graph.parents, seconds)) if seconds else graph


def recorded(folder: Path = RECORDED) -> list[Graph]:
    """Return graphs of real workflows, each with a critical path scaled to one second; none without their folder."""
    return [_read(path).scaled(1.0) for path in sorted(folder.glob("*.jsonl"))]


def _read(path: Path) -> Graph:
    rows = {row["id"]: row for row in map(json.loads, path.read_text(encoding="utf-8").splitlines())}
    order: dict[str, None] = {}  # parents before their children, which the files do not promise
    stack = list(reversed(rows))
    while stack:
        missing = [parent for parent in rows[stack[-1]]["parents"] if parent not in order]
        if missing:
            stack += missing
        else:
            order[stack.pop()] = None
    return Graph(
        path.stem,
        {task: list(rows[task]["parents"]) for task in order},
        {task: float(rows[task]["seconds"]) for task in order},
    )


def _graph(name: str, edges: Iterable[tuple[int, Iterable[int]]]) -> Graph:
    return Graph(name, {str(task): [str(parent) for parent in above] for task, above in edges})


def _w5() -> Workload:
    return Workload(
        "W5", "recorded, critical path 1 s", [Unit(graph) for graph in recorded()], Unit(layers(3, 10, 0.01))
    )


#: Each made when asked for: W6 is large, and W5 is read from files.
WORKLOADS: Mapping[str, Callable[[], Workload]] = {
    "W1": lambda: Workload("W1", "chain of 200", [Unit(chain(200))], Unit(chain(20))),
    "W2": lambda: Workload("W2", "1 -> 1,000 -> 1", [Unit(fan(1000))], Unit(fan(50))),
    "W3": lambda: Workload("W3", "200 x (1 -> 8 -> 1)", [Unit(fan(8), 200)], Unit(fan(8), 10)),
    "W4": lambda: Workload("W4", "10 layers of 50 x 50 ms", [Unit(layers(10, 50, 0.05))], Unit(layers(3, 10, 0.01))),
    "W5": _w5,
    "W6": lambda: Workload("W6", "one plan of 100,000", [Unit(fan(99_998))], Unit(fan(1000))),
    "W7": lambda: Workload("W7", "W3 over HTTP", [Unit(fan(8), 200)], Unit(fan(8), 20)),
}
