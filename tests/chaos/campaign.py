"""The campaign: rounds of kills on both databases, until there are enough or the time is over.

    make chaos                            1,000 kills, the report printed and kept in docs/reliability.md
    make chaos KILLS=100
    PYTHONPATH=tests python -m chaos.campaign --database sqlite --seed 7 --kills 25     one round, repeated

Exits with 1 where a law was violated (the files of that round stay, and the command that repeats it is printed), with 3
where the time did not suffice. The report is kept only of a campaign that was complete and found nothing.
"""

from __future__ import annotations

import argparse
import random
import shutil
import sys
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import psycopg

import postgres
from chaos import report
from chaos.looks import Place, PostgreSQL, SQLite
from chaos.report import Setting
from chaos.round import Figures, Round
from chaos.zygote import Zygote

KILLS_PER_ROUND = 25


@dataclass
class Campaign:
    """What is asked, and what has come of it."""

    seed: int
    kills: int  # on each database
    deadline: float  # on the monotonic clock
    began: float = field(default_factory=time.monotonic)
    rounds: dict[str, list[Figures]] = field(default_factory=dict)
    failed: threading.Event = field(default_factory=threading.Event)
    _telling: threading.Lock = field(default_factory=threading.Lock)

    def done(self, kind: str) -> int:
        """Return the kills of a kind of database so far."""
        return sum(figures.counts["kills"] for figures in self.rounds[kind])

    @property
    def complete(self) -> bool:
        return all(self.done(kind) >= self.kills for kind in self.rounds)

    def run(self, kind: str, server: postgres.Server | None) -> None:
        """Run rounds on one kind of database, in a thread of its own."""
        for number in range(self.kills):  # more rounds than are ever needed
            left = self.kills - self.done(kind)
            if left <= 0 or self.failed.is_set() or time.monotonic() > self.deadline:
                return
            seed = self.seed + number
            folder = Path(tempfile.mkdtemp(prefix=f"dagbok-chaos-{kind.lower()}-{seed}-"))
            place: Place = SQLite(folder) if server is None else PostgreSQL(server)
            with Zygote() as zygote:  # a new one each, for none should grow old
                figures = Round(place, seed, min(left, KILLS_PER_ROUND), folder, zygote).run()
            self.rounds[kind].append(figures)
            if figures.violations:
                self.failed.set()
                self._accuse(kind, seed, figures, folder)
                return
            place.remove()
            shutil.rmtree(folder)
            self._tell()

    def _tell(self) -> None:
        with self._telling:
            minutes = (time.monotonic() - self.began) / 60
            done = {kind: self.done(kind) for kind in self.rounds}
            left = max((self.kills - kills) / (kills / minutes) if kills else 0.0 for kills in done.values())
            words = ", ".join(f"{kind} {kills:,} of {self.kills:,}" for kind, kills in done.items())
            rate = sum(done.values()) / minutes
            print(
                f"{minutes:5.1f} min: {words}; {rate:.0f} kills a minute, about {max(0, left):.0f} min left", flush=True
            )

    def _accuse(self, kind: str, seed: int, figures: Figures, folder: Path) -> None:
        with self._telling:
            print(f"\n{kind}, seed {seed}: {len(figures.violations)} violations; all files are in {folder}")
            for violation in figures.violations[:20]:
                print(f"  {violation}")
            print(f"  to repeat it: {command(kind, seed)}\n", flush=True)


def command(kind: str, seed: int, kills: int = KILLS_PER_ROUND) -> str:
    """Return the command that repeats a round."""
    return f"PYTHONPATH=tests python -m chaos.campaign --database {kind.lower()} --seed {seed} --kills {kills}"


def main() -> int:
    """Run a campaign as the command line asks for."""
    asked = _arguments()
    kinds = {"both": ("SQLite", "PostgreSQL"), "sqlite": ("SQLite",), "postgresql": ("PostgreSQL",)}[asked.database]
    seed = random.SystemRandom().randrange(10**6) if asked.seed is None else asked.seed
    each = -(-asked.kills // len(kinds))
    print(f"{asked.kills:,} kills on {' and '.join(kinds)}, seed {seed}, at most {asked.minutes:g} minutes", flush=True)
    campaign = Campaign(seed, each, time.monotonic() + 60 * asked.minutes, rounds={kind: [] for kind in kinds})
    version = ""
    with ThreadPoolExecutor(len(kinds)) as threads:
        running = []
        if "SQLite" in kinds:
            running.append(threads.submit(campaign.run, "SQLite", None))
        if "PostgreSQL" in kinds:
            with postgres.running() as server, psycopg.connect(server.url()) as connection:
                version = f"{connection.info.server_version // 10_000}.{connection.info.server_version % 10_000}"
                threads.submit(campaign.run, "PostgreSQL", server).result()
        for one in running:
            one.result()
    setting = Setting(datetime.now(UTC).date().isoformat(), seed, time.monotonic() - campaign.began, version)
    text = report.section(campaign.rounds, setting)
    print(text)
    if campaign.failed.is_set():
        return 1
    if not campaign.complete:
        print(f"{asked.minutes:g} minutes did not suffice for {asked.kills:,} kills; see --minutes", file=sys.stderr)
        return 3
    if asked.report is not None:
        report.keep(asked.report, text)
    return 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Kill real processes at random moments, and see that nothing is lost.")
    parser.add_argument("--kills", type=int, default=1000, help="in all [1000]")
    parser.add_argument("--database", choices=("both", "sqlite", "postgresql"), default="both")
    parser.add_argument("--seed", type=int, help="of the first round; each further one adds 1 [random]")
    parser.add_argument("--minutes", type=float, default=60, help="begin no further round after so long [60]")
    parser.add_argument("--report", type=Path, metavar="FILE", help="keep the report in this document")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
