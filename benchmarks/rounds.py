"""The rounds: all subjects of a workload take turns, so that whatever the machine does meanwhile hits all alike.

A subject gets five rounds of a workload, each a process of its own on an empty database; fewer, but at least one, where
five would take more than forty seconds. A round that does not end in a minute (W6: two) is the last one. So
the whole is bounded, and the tables say how many rounds there were.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field

from benchmarks.databases import Databases
from benchmarks.environments import ROOT, NotInstalled, interpreter
from benchmarks.results import Line, Run, summarize
from benchmarks.subjects import Subject
from benchmarks.workloads import WORKLOADS, Workload

ROUNDS = 5
#: What a subject may take of a workload, start-up and warm-up included.
BUDGET_S = 40.0
LIMIT_S = {"W6": 120.0}
USUAL_LIMIT_S = 60.0

Tell = Callable[[str], None]


class Failed(Exception):
    """A round came to nothing; the message says why."""


@dataclass
class _Turn:
    """A subject at a workload, as far as it has come."""

    subject: Subject
    lines: list[Line] = field(default_factory=list)
    took_s: float = 0.0
    note: str = ""

    def has_another(self, rounds: int) -> bool:
        """Return whether it gets one more round."""
        done = len(self.lines)
        return not self.note and done < rounds and (not done or self.took_s * (done + 1) / done <= BUDGET_S)


def run(
    names: Iterable[str],
    subjects: Sequence[Subject],
    databases: Databases,
    *,
    rounds: int = ROUNDS,
    known_s: Mapping[tuple[str, str], float] | None = None,
    tell: Tell = print,
) -> list[Run]:
    """Measure the workloads `names` on all subjects that take part in them.

    Args:
        known_s: How long each subject took at each workload the last time, for telling how long is left.
    """
    plan = [(name, [each for each in subjects if name in each.workloads]) for name in names]
    left = {(name, each.name): (known_s or {}).get((name, each.name), 15.0) for name, group in plan for each in group}
    for environment in dict.fromkeys(each.environment for _, group in plan for each in group):
        with suppress(NotInstalled):  # its rounds tell why
            interpreter(environment)  # now, so that no round takes the time
    runs: list[Run] = []
    for name, group in plan:
        workload = WORKLOADS[name]()
        if not workload.units:
            tell(f"{name} is left out: no recorded graphs beside the project")
        elif group:
            runs += _workload(workload, group, databases, rounds, left, tell)
        for each in group:
            left.pop((name, each.name), None)
    return runs


def _workload(
    workload: Workload,
    group: Sequence[Subject],
    databases: Databases,
    rounds: int,
    left: dict[tuple[str, str], float],
    tell: Tell,
) -> list[Run]:
    turns = [_Turn(subject) for subject in group]
    tell(f"{workload.name}: {workload.title}; about {sum(left.values()) / 60:.0f} min left in all")
    for number in range(1, rounds + 1):
        for turn in turns:
            if not turn.has_another(rounds):
                continue
            began = time.monotonic()
            try:
                turn.lines.append(one(turn.subject, workload.name, databases))
                wall_s = sum(turn.lines[-1]["wall_s"][0])
                said = f"{workload.steps / wall_s:10,.0f} steps/s  {wall_s:7.3f} s"
            except (Failed, NotInstalled) as exc:
                turn.note = said = str(exc)
            took = time.monotonic() - began
            turn.took_s += took
            key = (workload.name, turn.subject.name)
            left[key] = max(0.0, left[key] - took)
            tell(f"  {number}/{rounds}  {turn.subject.name:27} {said}")
    return [summarize(workload, turn.subject.name, turn.lines, turn.took_s, _note(turn, rounds)) for turn in turns]


def _note(turn: _Turn, rounds: int) -> str:
    done = len(turn.lines)
    fewer = f"{done} round{'s' if done > 1 else ''}" if 0 < done < rounds else ""
    return "; ".join(filter(None, (turn.note, fewer)))


def one(subject: Subject, workload: str, databases: Databases, *, repeat: int = 1) -> Line:
    """Run one round and return its line.

    Raises:
        Failed: It did not end in time, or not well.
        NotInstalled: The peer cannot be installed.
    """
    if subject.store == "postgresql" and databases.no_postgresql:
        raise Failed(databases.no_postgresql)
    python = interpreter(subject.environment)
    with databases.empty(subject.store) as url:
        command = [python, "-m", f"benchmarks.subjects.{subject.module_for(workload)}", "--workload", workload]
        command += ["--url", url, "--variant", subject.variant, "--repeat", str(repeat)]
        return _read(_finished(command, LIMIT_S.get(workload, USUAL_LIMIT_S)))


def _finished(command: Sequence[str], limit_s: float) -> tuple[str, str]:
    # Nothing of what steers Dagbok or a peer here may reach a run, and nothing of the tests its imports.
    kept = {name: os.environ[name] for name in ("PATH", "HOME", "LANG", "TMPDIR") if name in os.environ}
    process = subprocess.Popen(
        command,
        cwd=ROOT,
        env=kept | {"PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        output, errors = process.communicate(timeout=limit_s)
    except subprocess.TimeoutExpired:
        raise Failed(f"did not end within {limit_s:.0f} s") from None
    finally:
        _end(process)
    if process.returncode:
        raise Failed(f"failed: {errors.strip().splitlines()[-1][:200] if errors.strip() else process.returncode}")
    return output, errors


def _end(process: subprocess.Popen[str]) -> None:
    """End a process with what it started, if it has not ended by itself."""
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()


def _read(printed: tuple[str, str]) -> Line:
    output, errors = printed
    lines = output.strip().splitlines()
    if not lines or not lines[-1].startswith("{"):
        raise Failed(f"said nothing of use: {(errors or output)[-200:]}")
    line: Line = json.loads(lines[-1])
    return line
