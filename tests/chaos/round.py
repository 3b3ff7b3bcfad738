"""One round: so many kills of one database, then a last run that nobody disturbs, all of it before a judge."""

from __future__ import annotations

import os
import random
import signal
import statistics
import time
from collections import Counter
from dataclasses import dataclass, field
from math import inf
from pathlib import Path
from typing import Literal

from chaos import sidelog
from chaos.judge import Judge
from chaos.looks import Look, Place
from chaos.plans import make
from chaos.victim import Job
from chaos.violations import Law, Violation
from chaos.zygote import Zygote

#: A victim gets new plans as long as fewer executions are unfinished.
_ENOUGH = 8
#: How long a victim may take to die, and to stop when asked to.
_DIE_S, _STOP_S = 30.0, 60.0
#: How long the last victim may take to end everything.
FINISH_S = 60.0
#: How long a victim takes to open on a fast machine, until it is known better.
_OPENING_S = {"embedded": 0.06, "served": 0.08, "fresh": 0.8}
#: A round with so many lives to each kill has victims that die by themselves.
_LIVES_PER_KILL = 4

#: Lines of the side log that tell of what has to be durable by then. What was told too early is lost right after them.
_DURABLE = ("accepted", "answered", "forked", "retried", "start")

#: kill: after a time. line: right after so many more of those lines. stop: properly, by a signal. stop and kill: while
#: it stops.
End = Literal["kill", "line", "stop", "stop and kill"]


@dataclass(frozen=True)
class Life:
    """What is to become of one victim."""

    kind: str
    end: End
    after_s: float
    lines: int = 0
    signal: signal.Signals = signal.SIGTERM
    kill_after_s: float = 0.0  # of a stop
    successor: bool = False  # the next victim waits for the lock before this one is dead


@dataclass
class Figures:
    """What a round was made of."""

    kind: str  # of database
    counts: Counter[str] = field(default_factory=Counter)
    moments: Counter[str] = field(default_factory=Counter)  # of kills
    openings_ms: list[float] = field(default_factory=list)  # from the start of a process to an engine that goes on
    violations: list[Violation] = field(default_factory=list)
    size_bytes: int = 0
    seconds: float = 0.0


@dataclass
class _Victim:
    """A process under way."""

    life: Life
    job: Job
    pid: int
    errors: Path
    started_ms: float
    before: Look | None  # the database it was started on, as far as known
    caller: int = 0
    predecessor: _Victim | None = None  # that lived when it was started
    died_ms: float = 0.0  # when it was killed
    opened: bool = False  # as far as it has told

    @property
    def takes_over(self) -> bool:
        return self.before is not None and any(not written.ended for written in self.before.executions.values())


class Round:
    """Runs one round. Files go to `folder`; they stay for whoever looks into a violation."""

    def __init__(
        self,
        place: Place,
        seed: int,
        kills: int,
        folder: Path,
        zygote: Zygote,
        *,
        breakage: str = "",
        finish_s: float = FINISH_S,
    ) -> None:
        self._place, self._kills, self._folder, self._zygote = place, kills, folder, zygote
        self._seed, self._breakage, self._finish_s = seed, breakage, finish_s
        self._rng = random.Random(f"{seed}/round")
        self._log = folder / "side.log"
        self._judge = Judge(seed, self._log)
        self._next_plan = 1
        self._lives = 0
        self._look: Look | None = None
        self._tables = False  # whether somebody has made them
        self._opened_s = {kind: [guess] for kind, guess in _OPENING_S.items()}
        self.figures = Figures(place.kind)

    def run(self) -> Figures:
        """Return the figures, violations among them; the first one ends the round."""
        began = time.monotonic()
        figures, victim = self.figures, None
        while figures.counts["kills"] < self._kills and not self._judge.violations:
            if self._lives > _LIVES_PER_KILL * self._kills:
                self._judge.accuse(Law.PROCESS, "victims end before they are killed")
                break
            victim = self._outlive(victim or self._start(self._draw()))
            if victim is None:
                self._see()
        if victim is not None:
            self._end(victim, signal.SIGKILL)
        if not self._judge.violations:
            self._finish()
        figures.violations = self._judge.violations
        figures.counts += self._judge.counts
        figures.seconds = time.monotonic() - began
        return figures

    # -- what is to happen ---------------------------------------------------------------------------------------------

    def _draw(self) -> Life:
        rng = self._rng
        kind = rng.choices(("embedded", "served", "fresh"), (70, 26, 4))[0]
        if self._breakage and kind == "fresh":
            kind = "served"  # an interpreter of its own would be whole
        opening_s = self._opening_s(kind)
        end: End = rng.choices(("kill", "line", "stop", "stop and kill"), (40, 38, 10, 12))[0]
        # Some die while they open, some in the midst of work, some after it; nobody makes the tables in peace.
        early, part, later_s = rng.random() < 0.3, rng.random(), rng.uniform(0, 0.6)
        if not self._tables:
            end = "kill"
            after_s = opening_s * (0.3 + 0.7 * part) * 1.5**self._lives  # later and later, until they are there
        else:
            after_s = opening_s * part if early else opening_s + later_s
        return Life(
            kind,
            end,
            after_s if end != "line" else opening_s + 0.7,
            lines=rng.randint(1, 60),
            signal=rng.choice((signal.SIGTERM, signal.SIGINT)),
            kill_after_s=rng.uniform(0, 0.25),
            successor=rng.random() < 0.12 and end != "stop",
        )

    def _opening_s(self, kind: str) -> float:
        """Return how long the last ones took to open: a slow machine must not kill them all before they work."""
        return statistics.median(self._opened_s[kind][-5:])

    def _start(self, life: Life, *, again: bool = True, most: int = 5, until: str = "killed") -> _Victim:
        """Start a victim with at most so many new plans, and `again` those whose answer was lost."""
        rng = self._rng
        plans = self._unanswered() if again else ()
        unfinished = sum(not w.ended for w in self._look.executions.values()) if self._look else 0
        count = min(rng.choice((1, 2, 3, 5)), most if unfinished < _ENOUGH else 0)
        plans += tuple(range(self._next_plan, self._next_plan + count))
        self._next_plan += count
        job = Job(
            life.kind, self._place.url, str(self._log), self._seed, plans, until, breakage=self._breakage,
            max_concurrency=rng.choice((2, 64)), close_grace_s=rng.choice((0.0, 0.0, 0.05, 0.3)),
            park_after_s=rng.choice((0.02, 0.2, 5.0)),
        )  # fmt: skip
        self._lives += 1
        errors = self._folder / f"{self._lives}-{life.kind}.err"
        started_ms = sidelog.now_ms()
        pid = self._zygote.fork(job, errors)
        victim = _Victim(life, job, pid, errors, started_ms, self._look)
        if life.kind != "embedded":
            called = Job("caller", job.url, job.log, job.seed, job.plans, until, server=pid)
            victim.caller = self._zygote.fork(called, errors.with_suffix(".caller.err"))
        self.figures.counts["processes"] += 1
        self._look = None
        return victim

    def _unanswered(self) -> tuple[int, ...]:
        """Return the plans that were submitted with a key and whose answer was lost: to be submitted again."""
        lines, _ = sidelog.read(self._log)
        answered = {line["plan"] for line in lines if line["what"] == "accepted"}
        asked = {line["plan"] for line in lines if line["what"] == "intend"} - answered
        return tuple(sorted(number for number in asked if make(self._seed, number).key))

    # -- what happens --------------------------------------------------------------------------------------------------

    def _outlive(self, victim: _Victim) -> _Victim | None:
        """Let a victim live and die; return its successor, if there is one already."""
        life, successor = victim.life, None
        if life.end == "line":
            self._wait_for_lines(life.lines, life.after_s)
        else:
            time.sleep(life.after_s)
        if life.end in ("stop", "stop and kill"):
            self._signal(victim.pid, life.signal)
        if life.end == "stop":
            self._end(victim, None)
            return None
        if life.end == "stop and kill":
            time.sleep(life.kill_after_s)
        if life.successor:
            following = self._draw()
            successor = self._start(Life("embedded", "kill", following.after_s), again=False)
            successor.predecessor = victim
            time.sleep(self._rng.uniform(0.2, 2.5) * self._opening_s("embedded"))
        self._end(victim, signal.SIGKILL)
        return successor

    def _wait_for_lines(self, lines: int, at_most_s: float) -> None:
        deadline = time.monotonic() + at_most_s
        offset = self._log.stat().st_size if self._log.exists() else 0
        seen = 0
        while seen < lines and time.monotonic() < deadline:
            time.sleep(0.0005)  # the log of another process gives no signal
            found, offset = sidelog.read(self._log, offset)
            seen += sum(line["what"] in _DURABLE for line in found)

    def _end(self, victim: _Victim, number: signal.Signals | None) -> None:
        """Kill a victim and its caller, or see it end by itself, and hear its last words."""
        if number is not None:
            victim.died_ms = sidelog.now_ms()
            self._signal(victim.pid, number)
        code = self._zygote.wait(victim.pid, _DIE_S if number is not None else _STOP_S)
        if code is None:
            self._dump(victim.pid)
            self._judge.accuse(Law.PROCESS, f"{victim.pid} ({victim.life.kind}) does not end; see {victim.errors}")
            self._signal(victim.pid, signal.SIGKILL)
            code = self._zygote.wait(victim.pid, _DIE_S)
        if victim.caller:
            self._signal(victim.caller, signal.SIGKILL)
            self._hear_caller(victim, self._zygote.wait(victim.caller, _DIE_S))
        self._hear(victim, code)

    def _signal(self, pid: int, number: signal.Signals) -> None:
        os.kill(pid, number)  # a process that has ended is a zombie until it is waited for, so the pid is its own

    def _dump(self, pid: int) -> None:
        """Let a process write the stacks of its threads."""
        self._signal(pid, signal.SIGUSR1)
        time.sleep(0.5)

    def _hear(self, victim: _Victim, code: int | None) -> None:
        """Count how a victim ended, and accuse it of what it should not have said."""
        counts, kind = self.figures.counts, victim.life.kind
        words = victim.errors.read_text(errors="replace") if victim.errors.exists() else ""
        told = [line for line in sidelog.read(self._log)[0] if line.get("of", line["pid"]) == victim.pid]
        phases = {line["phase"]: line["ms"] for line in told if line["what"] == "phase"}
        victim.opened = "open" in phases
        # Where nobody listens to SIGINT yet, Python itself has the last word, and some more.
        early = victim.life.signal is signal.SIGINT and victim.life.end.startswith("stop") and "open" not in phases
        interrupted = early and (code in (130, -signal.SIGINT) or words.rstrip().endswith("KeyboardInterrupt"))
        locked_out = code == 2 and "is in use by" in words
        counts[f"processes {kind}"] += 1
        counts["locked out"] += locked_out or "locked out" in phases
        if code == -signal.SIGKILL:
            counts["kills"] += 1
            self.figures.moments[_moment([*phases], victim)] += 1
        elif interrupted or code in (0, 130, -signal.SIGTERM, -signal.SIGINT):
            counts["stops"] += 1
        elif not locked_out:
            self._judge.accuse(Law.PROCESS, f"a {kind} victim ended with {code}; see {victim.errors}: {words[-600:]}")
        if "Traceback" in words and not interrupted:
            self._judge.accuse(Law.PROCESS, f"a {kind} victim told of an error; see {victim.errors}: {words[-600:]}")
        before = victim.predecessor
        # One that stops gives the lock back by itself, and one that has not opened may not have had it yet.
        lived = before is not None and before.life.end in ("kill", "line") and phases.get("open", inf) < before.died_ms
        lived = lived and before is not None and before.opened
        if before is not None and lived:
            self._judge.accuse(Law.TWO, f"{victim.pid} opened the database, and {before.pid} was not dead yet")
        if "open" in phases and before is None:
            opened_ms = phases["open"] - victim.started_ms
            self._opened_s[kind].append(opened_ms / 1000)
            if victim.takes_over:
                self.figures.openings_ms.append(opened_ms)

    def _hear_caller(self, victim: _Victim, code: int | None) -> None:
        errors = victim.errors.with_suffix(".caller.err")
        if code not in (0, -signal.SIGKILL):  # 0: it noticed before we did that its server is dead
            words = errors.read_text(errors="replace")[-600:]
            self._judge.accuse(Law.PROCESS, f"a client ended with {code}; see {errors}: {words}")

    def _see(self) -> Look:
        look = self._place.look(self._log.stat().st_size if self._log.exists() else 0)
        self._look, self._tables = look, look.tables
        self._judge.see(look)
        self.figures.size_bytes = look.size_bytes
        return look

    def _finish(self) -> None:
        """Let one victim end everything, and another see that nothing is left to do."""
        if self._look is None:
            self._see()
        for new in (1, 0):
            look = self._finished(new)
            if self._judge.violations:
                return
        self._judge.count(look)

    def _finished(self, new: int) -> Look:
        victim = self._start(Life("embedded", "stop", 0.0), most=new, until="ended")
        code = self._zygote.wait(victim.pid, self._finish_s)
        if code is None:
            self._dump(victim.pid)
            self._signal(victim.pid, signal.SIGKILL)
            self._zygote.wait(victim.pid, _DIE_S)
            self._judge.accuse(Law.STUCK, f"not everything ends within {self._finish_s:g} s; see {victim.errors}")
        self._hear(victim, 0 if code is None else code)
        look = self._look = self._place.look(self._log.stat().st_size)
        self._judge.finish(look)
        return look


def _moment(phases: list[str], victim: _Victim) -> str:
    """Return what a victim was doing when it was killed, as far as it had told."""
    last = phases[-1] if phases else "starting"
    if last == "opening":
        if victim.before is not None and not victim.before.tables:
            return "making the tables"
        if victim.takes_over:
            return "taking over"
    return {"open": "working", "locked out": "waiting for the lock"}.get(last, last)
