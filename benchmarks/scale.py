"""`reads.json` and `flat.json`: what is measured apart from the rest because it takes long, and its tables.

`reads.py` and `flat.py` measure. Their figures stand by database, in the order in which they were measured.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, Literal, TypedDict

from benchmarks import machine, page, results
from benchmarks.page import PAGE

FOLDER: Final = Path(__file__).parent
TITLES: Final = {"sqlite": "SQLite FULL", "postgresql": "PostgreSQL"}


class Found(TypedDict):
    """One of the files."""

    machine: dict[str, Any]
    date: str
    figures: dict[str, Any]  #: by database


def begin(postgresql: str | None) -> Found:
    """Return what is to be filled, with the machine as it is before; given the version of PostgreSQL."""
    return Found(machine=machine.describe(postgresql), date=datetime.now(UTC).date().isoformat(), figures={})


def kind_of(database: str) -> Literal["sqlite", "postgresql"]:
    """Return which database a URL, or a word for a new one, speaks of."""
    return "sqlite" if database.startswith("sqlite") else "postgresql"


def is_part(parser: argparse.ArgumentParser, given: argparse.Namespace) -> bool:
    """Return whether anything but the usual was asked for, which is the whole."""
    return any(value != parser.get_default(name) for name, value in vars(given).items() if name != "save")


def save(name: str, found: Found) -> None:
    """Write the file, and its tables into the page."""
    results.save(found, FOLDER / f"{name}.json")
    kept = load(name)  # rounded, as whoever makes the page once more has it
    assert kept is not None, "it was written just now"
    page.put(TABLES[name](kept), name, PAGE)
    print(f"Wrote benchmarks/{name}.json and docs/benchmarks.md.")


def load(name: str) -> Found | None:
    """Read the file; None: it was never measured."""
    path = FOLDER / f"{name}.json"
    if not path.exists():
        return None
    found: Found = json.loads(path.read_text(encoding="utf-8"))
    return found


def write() -> None:
    """Put the tables of what was measured into the page."""
    for name, tables in TABLES.items():
        if found := load(name):
            page.put(tables(found), name, PAGE)


def reads(found: Found) -> str:
    """Return the tables of `reads.json`, one for each database. Times are milliseconds."""
    head = ["", "library p50", "p99", "CPU", "HTTP p50", "p99", "CPU"]
    head += ["library beside a writer p50", "p99", "CPU", "HTTP, likewise p50", "p99"]
    parts = [page.measured_on(found["machine"], found["date"])]
    for database, figures in found["figures"].items():
        counted = f"{figures['executions']:,} executions{' (estimated)' if figures['estimated'] else ''}"
        rows = []
        for name, ways in figures["kinds"].items():
            row = [f"{way[key]:.1f}" for way in ways.values() for key in ("p50", "p99", "cpu")]
            rows.append([name, *row[:-1]])  # beside a writer, the server's time is not that of the reads alone
        parts += [
            f"{TITLES[database]}, {counted}, {figures['reads']} reads of each kind, in milliseconds:",
            page.table(head, rows),
        ]
    return "\n\n".join(parts)


def flat(found: Found) -> str:
    """Return the tables of `flat.json`, one for each of its parts that was measured."""
    parts = [page.measured_on(found["machine"], found["date"])]
    for name, (head, cells) in _FLAT.items():
        rows = [
            [TITLES[database], *cells(row, figures[name])]
            for database, figures in found["figures"].items()
            for row in figures.get(name, ())
        ]
        if rows:
            parts.append(page.table(["", *head], rows))
    return "\n\n".join(parts)


Row = Mapping[str, Any]


def _cost(row: Row, rows: Sequence[Row]) -> list[str]:
    first = next(each for each in rows if each["shape"] == row["shape"])
    ratios = [f"{row[key] / first[key]:.2f}x" for key in ("wall_us", "cpu_us")]
    return [row["shape"], f"{row['steps']:,}", f"{row['wall_us']:.1f} us", f"{row['cpu_us']:.1f} us", *ratios]


def _memory(row: Row, _: Sequence[Row]) -> list[str]:
    return [row["shape"], f"{row['steps']:,}", f"{row['rss_bytes']:,.0f} B", f"{row['bytes']:,.0f} B"]


def _delays(row: Row, _: Sequence[Row]) -> list[str]:
    seconds = [f"{row[key]:.2f} s" for key in ("first_s", "median_s", "last_s")]
    own = [f"{row[key]:.3f} s" for key in ("own_median_s", "own_p99_s", "own_worst_s")]
    return [f"{row['executions']:,}", *seconds, f"{row['last_s'] / row['median_s']:.2f}x", *own]


_FLAT: Final[dict[str, tuple[list[str], Callable[[Row, Sequence[Row]], list[str]]]]] = {
    "cost": (["shape", "steps", "wall a step", "CPU", "wall, by that of the smallest", "CPU"], _cost),
    "memory": (["shape", "steps", "process, a pending step", "of it Python's objects"], _memory),
    "delays": (
        ["executions at once", "first step of the first", "median", "of the last", "by the median",
         "after its own acceptance, median", "p99", "worst"], _delays,
    ),
}  # fmt: skip

TABLES: Final[Mapping[str, Callable[[Found], str]]] = {"reads": reads, "flat": flat}
