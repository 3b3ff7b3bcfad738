"""`make bench-quick`: Dagbok alone, in less than a minute. Prints a table, writes nothing."""

from __future__ import annotations

import time

from benchmarks import rounds
from benchmarks.databases import Databases
from benchmarks.results import Run, stretch, summarize
from benchmarks.subjects import BY_NAME, Subject
from benchmarks.workloads import WORKLOADS

#: Repetitions in one process, after its warm-up. W5 takes 12 s each time, so that it is run on SQLite alone.
REPEAT = {"W1": 3, "W2": 3, "W3": 3, "W4": 3, "W5": 1, "W7": 3}


def run(databases: Databases) -> int:
    """Measure and print; return the exit code."""
    began = time.monotonic()
    full, postgresql = BY_NAME["dagbok-sqlite-full"], BY_NAME["dagbok-postgresql"]
    print(f"{'':4}{'':28}{'subject':22}{'steps/s':>9}{'wall s':>9}{'CPU ms/step':>13}{'peak MB':>9}")
    failed = False
    for name in REPEAT:
        for subject in (full, postgresql):
            if subject is postgresql and (databases.no_postgresql or name == "W5"):
                continue
            failed |= not _show(subject, name, databases)
    if databases.no_postgresql:
        print(f"No PostgreSQL: {databases.no_postgresql}.")
    print(
        f"Took {time.monotonic() - began:.0f} s. Compare on the same machine only, and not while it does other things."
    )
    return int(failed)


def _show(subject: Subject, name: str, databases: Databases) -> bool:
    workload = WORKLOADS[name]()
    if not workload.units:
        print(f"{name:4}left out: no recorded graphs beside the project")
        return True
    try:
        line = rounds.one(subject, name, databases, repeat=REPEAT[name])
    except rounds.Failed as exc:
        print(f"{name:4}{workload.title:28}{subject.name:22} {exc}")
        return False
    print(f"{name:4}{workload.title:28}{subject.name:22}" + _figures(summarize(workload, subject.name, [line], 0.0)))
    return True


def _figures(run: Run) -> str:
    wall_s = sorted(run["wall_s"])[len(run["wall_s"]) // 2]
    words = f"{run['steps_per_s']:9,.0f}{wall_s:9.3f}{run['cpu_ms_per_step']:13.3f}{run['peak_rss_mb']:9.0f}"
    if ratios := stretch(run):
        words += f"  {ratios[0]:.3f} of the critical path" + (f", worst {ratios[1]:.3f}" if "graphs" in run else "")
    if run["workload"] == "W7":
        words += f"  {run['executions_per_s']:,.0f} executions/s"
    return words
