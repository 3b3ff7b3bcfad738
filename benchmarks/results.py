"""`results.json`: what was measured, and the few figures that are computed of it. Standard library only."""

from __future__ import annotations

import json
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NotRequired, TypedDict

from benchmarks.workloads import Workload

FILE = Path(__file__).parent / "results.json"


class Run(TypedDict):
    """All rounds of a subject at a workload."""

    workload: str
    subject: str
    steps_per_s: float | None  #: by the median wall time; None: it did not finish, or could not be run
    wall_s: list[float]  #: of each round; of W5 the sum over its graphs
    cpu_ms_per_step: float | None  #: of the subject's own processes, not of a database server; the median
    peak_rss_mb: float | None  #: likewise; the largest
    version: str
    steps: int
    took_s: float  #: all rounds with start-up and warm-up
    note: NotRequired[str]  #: what the table has to say about it
    critical_path_s: NotRequired[float]  #: of W4 and W5: no run can be faster
    graphs: NotRequired[dict[str, list[float]]]  #: of W5: wall time of each graph in each round
    accepted_s: NotRequired[float]  #: of Dagbok: the median time until all was checked and durable, part of `wall_s`
    client_cpu_ms_per_step: NotRequired[float]  #: of W7: the client shares the processors
    executions_per_s: NotRequired[float]  #: where there are many


class Results(TypedDict):
    """The file."""

    machine: dict[str, Any]
    date: str
    runs: list[Run]


#: What a program printed for one round, and how long its process took.
Line = dict[str, Any]


def summarize(workload: Workload, subject: str, lines: Sequence[Line], took_s: float, note: str = "") -> Run:
    """Return a run of its rounds. Each line may hold several repetitions."""
    repetitions = [walls for line in lines for walls in line["wall_s"]]
    wall_s = [sum(walls) for walls in repetitions]
    critical_path_s = sum(unit.graph.critical_path_s() for unit in workload.units)
    run = Run(
        workload=workload.name,
        subject=subject,
        steps_per_s=None,
        wall_s=wall_s,
        cpu_ms_per_step=None,
        peak_rss_mb=None,
        version=lines[-1]["version"] if lines else "",
        steps=workload.steps,
        took_s=took_s,
    )
    if note:
        run["note"] = note
    if not lines:
        return run
    median = statistics.median(wall_s)
    run["steps_per_s"] = workload.steps / median
    run["cpu_ms_per_step"] = _per_step(workload, lines, "cpu_s")
    run["peak_rss_mb"] = max(line["peak_rss_mb"] for line in lines)
    if critical_path_s:
        run["critical_path_s"] = critical_path_s
    if len(workload.units) > 1:
        names = [unit.graph.name for unit in workload.units]
        run["graphs"] = {name: [walls[n] for walls in repetitions] for n, name in enumerate(names)}
    if "accepted_s" in lines[0]:
        units = len(workload.units)
        accepted = [
            line["accepted_s"][at : at + units] for line in lines for at in range(0, len(line["accepted_s"]), units)
        ]
        run["accepted_s"] = statistics.median(map(sum, accepted))
    if "client_cpu_s" in lines[0]:
        run["client_cpu_ms_per_step"] = _per_step(workload, lines, "client_cpu_s")
    if copies := sum(unit.copies for unit in workload.units if unit.copies > 1):
        run["executions_per_s"] = copies / median
    return run


def _per_step(workload: Workload, lines: Sequence[Line], key: str) -> float:
    each = [float(line[key]) / len(line["wall_s"]) for line in lines]
    return statistics.median(each) * 1000 / workload.steps


def save(results: Mapping[str, Any], path: Path = FILE) -> None:
    """Write the file, with figures that a person can read."""
    path.write_text(json.dumps(_rounded(results), indent=1) + "\n", encoding="utf-8")


def load(path: Path = FILE) -> Results:
    """Read the file."""
    results: Results = json.loads(path.read_text(encoding="utf-8"))
    return results


def find(results: Results, workload: str, subject: str) -> Run | None:
    """Return a run that has figures."""
    for run in results["runs"]:
        if (run["workload"], run["subject"]) == (workload, subject) and run["steps_per_s"] is not None:
            return run
    return None


def stretch(run: Run) -> tuple[float, float] | None:
    """Return wall time by critical path: of the median graph, and of the worst one; None where nothing takes time.

    The critical path of a graph of W5 is a second.
    """
    if "critical_path_s" not in run:
        return None
    if "graphs" not in run:
        ratio = statistics.median(run["wall_s"]) / run["critical_path_s"]
        return ratio, ratio
    one = run["critical_path_s"] / len(run["graphs"])
    ratios = [statistics.median(walls) / one for walls in run["graphs"].values()]
    return statistics.median(ratios), max(ratios)


def _rounded(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _rounded(child) for key, child in value.items()}
    if isinstance(value, list):
        return [_rounded(child) for child in value]
    return float(f"{value:.4g}") if isinstance(value, float) else value
