"""What a campaign was made of, in words: a table in Markdown, and the place in a document where it is kept."""

from __future__ import annotations

import os
import platform
import sqlite3
import statistics
import subprocess
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from chaos.round import Figures
from chaos.violations import Law

BEGIN, END = "<!-- campaign: begin (written by `make chaos`) -->", "<!-- campaign: end -->"


@dataclass(frozen=True)
class Setting:
    """What the figures stand for."""

    date: str
    seed: int
    seconds: float
    postgres: str  # its version; "" where it took no part


class Sum:
    """All rounds on one kind of database."""

    def __init__(self, rounds: Sequence[Figures]) -> None:
        self.rounds = len(rounds)
        self.counts = sum((figures.counts for figures in rounds), Counter[str]())
        self.moments = sum((figures.moments for figures in rounds), Counter[str]())
        self.openings_ms = sorted(ms for figures in rounds for ms in figures.openings_ms)
        self.laws = Counter(violation.law for figures in rounds for violation in figures.violations)
        self.seconds = sum(figures.seconds for figures in rounds)


def table(rounds: Mapping[str, Sequence[Figures]]) -> str:
    """Return the figures by kind of database."""
    sums = [Sum(of) for of in rounds.values()]
    lines = [f"| | {' | '.join(rounds)} |", f"|---|{'---:|' * len(sums)}"]

    def row(name: str, cells: Iterable[str]) -> None:
        lines.append(f"| {name} | {' | '.join(cells)} |")

    def count(name: str, key: str) -> None:
        row(name, (f"{one.counts[key]:,}" for one in sums))

    count("**processes killed by SIGKILL**", "kills")
    for moment, _ in sum((one.moments for one in sums), Counter[str]()).most_common():
        row(f"while {moment}", (f"{one.moments[moment]:,}" for one in sums))
    count("processes stopped by SIGTERM or SIGINT", "stops")
    row("databases, each made by its first victims", (f"{one.rounds:,}" for one in sums))
    count("executions", "executions")
    for status in ("completed", "partial", "failed", "cancelled"):
        count(f"of these {status}", f"executions {status}")
    count("of these ended by their deadline", "executions deadline")
    count("of these ended at their first failure (`fail_fast`)", "executions fail_fast")
    count("of these paused and resumed", "pauses")
    count("of these forks of others", "forks")
    count("retries of what was lost", "executions retried")
    count("steps", "steps")
    count("bodies of tools started", "start")
    count("of these again, for steps that had not ended", "started again")
    count("attempts cut off by a death", "attempts interrupted")
    count("attempts repeated after an error, with a back-off", "retries")
    count("steps given up after three of those (`crash_loop`)", "steps in crash_loop")
    count("questions: did it happen?", "questions did_it_happen")
    count("questions of plans to a person", "questions human")
    count("of these whose time was over", "questions timed_out")
    count("approvals asked for", "questions approval")
    count("of these given with other params", "edits")
    count("of these refused", "rejections")
    count("calls changed by people (edits and overrides)", "overrides")
    count("steps taken over by forks", "steps reused")
    count("timers", "timers")
    count("results over 1 MiB", "large results")
    count("lines of the diary", "events")
    row("start of a process that takes over, until it goes on: least, median, most", map(_openings, sums))
    for law in Law:
        row(f"**{law}**", (f"**{one.laws[law]}**" for one in sums))
    return "\n".join(lines)


def _openings(one: Sum) -> str:
    times = one.openings_ms
    return f"{times[0]:.0f}, {statistics.median(times):.0f}, {times[-1]:.0f} ms" if times else "none"


def section(rounds: Mapping[str, Sequence[Figures]], setting: Setting) -> str:
    """Return what the document keeps between its marks."""
    versions = [f"Python {platform.python_version()}", f"SQLite {sqlite3.sqlite_version}"]
    versions += [f"PostgreSQL {setting.postgres}"] if setting.postgres else []
    head = (
        f"{setting.date}, commit {_commit()}, seed {setting.seed}, {setting.seconds / 60:.0f} minutes; "
        f"{_machine()}; {', '.join(versions)}."
    )
    return f"{BEGIN}\n{head}\n\n{table(rounds)}\n{END}"


def keep(document: Path, text: str) -> None:
    """Put `text`, a `section`, in the place of the one in `document`. Raises ValueError where there is none."""
    before, begin, rest = document.read_text().partition(BEGIN)
    _, end, after = rest.partition(END)
    if not (begin and end):
        raise ValueError(f"{document} has no place for the report: {BEGIN} ... {END}")
    document.write_text(f"{before}{text}{after}")


def _commit() -> str:
    command = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty", "--exclude=*"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return done.stdout.strip() or "unknown"


def _machine() -> str:
    pages = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    kernel = f"{platform.system()} {platform.release().split('-')[0]}"
    return f"{os.cpu_count()} processors ({platform.machine()}), {pages / 2**30:.0f} GiB, {kernel}"
