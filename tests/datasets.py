"""Real inputs nobody of this project wrote, as plans. They lie beside it; where they are missing, tests are skipped."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

DATA = Path(__file__).resolve().parents[2] / "shared" / "data"


def folder(name: str) -> Path:
    """Return a folder of the data, or skip the test with one line."""
    path = DATA / name
    if not path.is_dir():
        pytest.skip(f"{name}: no data beside the project")
    return path


@dataclass(frozen=True)
class TimedGraph:
    """A task graph with durations, and the makespan that the best schedule needs."""

    name: str
    seconds: Mapping[str, float]
    parents: Mapping[str, list[str]]
    makespan: float

    def plan(self, tool: str, scale: float) -> dict[str, Any]:
        """Return the graph as a plan of `tool` calls that take their time times `scale`."""
        return {
            "original_request": self.name,
            "intent": {"primary": self.name},
            "sub_tasks": [
                {
                    "id": id,
                    "tool_or_prompt": {"name": tool, "params": {"seconds": seconds * scale}},
                    "dependencies": self.parents[id],
                }
                for id, seconds in self.seconds.items()
            ],
        }

    def critical_path(self) -> float:
        """Return the length of the longest path."""
        ends: dict[str, float] = {}
        stack = list(self.seconds)
        while stack:
            open_parents = [parent for parent in self.parents[stack[-1]] if parent not in ends]
            if open_parents:
                stack += open_parents
                continue
            id = stack.pop()
            ends[id] = self.seconds[id] + max((ends[parent] for parent in self.parents[id]), default=0.0)
        return max(ends.values())


def asynchow() -> Iterator[TimedGraph]:
    """Yield the 999 everyday plans with their known best makespan."""
    for path in sorted(folder("asynchow").glob("*.jsonl")):
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines()):
            row = json.loads(line)
            parents: dict[str, list[str]] = {id: [] for id in row["seconds"]}
            for before, after in row["edges"]:
                parents[after].append(before)
            yield TimedGraph(f"{path.stem}-{number}", row["seconds"], parents, row["gold_makespan_seconds"])


def wfinstances() -> Iterator[TimedGraph]:
    """Yield the task graphs of real scientific workflows, with their critical path as makespan."""
    for path in sorted(folder("wfinstances").glob("*.jsonl")):
        rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
        parents = {row["id"]: row["parents"] for row in rows}
        graph = TimedGraph(path.stem, {row["id"]: row["seconds"] for row in rows}, parents, 0.0)
        yield TimedGraph(graph.name, graph.seconds, graph.parents, graph.critical_path())


_LABEL = re.compile(r"\$(\w+?)((?:\.|\[)[^$]*)?\$")


def _quoted(path: str) -> str:
    """Return a path as JMESPath, where a name with a blank needs quotes."""
    return re.sub(r"\.([^.\[]*[^\w.\[][^.\[]*)", r'."\1"', path)


def nestful_plan(row: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return a nested sequence of calls as a plan, and the last call's arguments (`var_result`) with its references."""

    def translate(value: Any) -> Any:
        if isinstance(value, str):
            return _LABEL.sub(lambda match: f"{{{{ tasks.{match[1]}.result{_quoted(match[2] or '')} }}}}", value)
        if isinstance(value, dict):
            return {key: translate(child) for key, child in value.items()}
        if isinstance(value, list):
            return [translate(child) for child in value]
        return value

    calls = [call for call in row["output"] if call["name"] != "var_result"]
    last: dict[str, Any] = next((call["arguments"] for call in row["output"] if call["name"] == "var_result"), {})
    tasks = [
        {"id": call["label"], "tool_or_prompt": {"name": call["name"], "params": translate(call["arguments"])}}
        for call in calls
    ]
    result = {"id": "var_result", "tool_or_prompt": {"name": "collect", "params": {"values": translate(last)}}}
    plan = {
        "original_request": row["input"],
        "intent": {"primary": "nestful"},
        "sub_tasks": [*tasks, result],
    }
    return plan, last
