"""`python -m benchmarks [run | quick | report]`: what `make bench` and `make bench-quick` call. See README.md."""

from __future__ import annotations

import argparse
import sys
import time
from datetime import UTC, datetime

from benchmarks import machine, quick, report, results, rounds, scale
from benchmarks.databases import Databases
from benchmarks.subjects import BY_NAME, SUBJECTS
from benchmarks.workloads import WORKLOADS


def main() -> int:
    """Do what was asked."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("what", choices=["run", "quick", "report"], nargs="?", default="run")
    parser.add_argument("--workload", action="append", choices=list(WORKLOADS), help="only this one (repeatable)")
    parser.add_argument("--subject", action="append", choices=list(BY_NAME), help="only this one (repeatable)")
    parser.add_argument("--rounds", type=int, default=rounds.ROUNDS)
    parser.add_argument("--postgresql", metavar="URL", help="a server to use; without it a temporary one is started")
    parser.add_argument("--print", action="store_true", help="print the tables and write nothing")
    given = parser.parse_args()
    if given.what == "report":
        report.write(results.load())
        scale.write()
        return 0
    with Databases(given.postgresql) as databases:
        if given.what == "quick":
            return quick.run(databases)
        return _run(given, databases)


def _run(given: argparse.Namespace, databases: Databases) -> int:
    before = results.load() if results.FILE.exists() else None
    known = {(run["workload"], run["subject"]): run["took_s"] for run in before["runs"]} if before else {}
    found = results.Results(
        machine=machine.describe(databases.version()), date=datetime.now(UTC).date().isoformat(), runs=[]
    )
    began = time.monotonic()
    subjects = [subject for subject in SUBJECTS if not given.subject or subject.name in given.subject]
    found["runs"] = rounds.run(
        given.workload or WORKLOADS, subjects, databases, rounds=given.rounds, known_s=known, tell=_tell
    )
    print(f"Took {(time.monotonic() - began) / 60:.1f} min.")
    if given.print or given.workload or given.subject:  # part of it must not take the place of the whole
        print(report.tables(found))
    else:
        results.save(found)
        report.write(results.load())  # rounded, as whoever makes the page once more has them
        print("Wrote benchmarks/results.json and docs/benchmarks.md.")
    return 0


def _tell(line: str) -> None:
    print(line, flush=True)


if __name__ == "__main__":
    sys.exit(main())
