"""Random plans from a seed, and what the judge must know of each.

Plan `number` of a seed is always the same, so whoever meets its number (a victim that submits it, a person who answers
for it, the judge) makes it anew. The parents of a task come before it.
"""

from __future__ import annotations

import json
import random
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any, Literal

#: What a body fails with that is told to fail, and one that is told to fail for a while.
SCRIPTED, FLAKY = "scripted", "unavailable"
#: work: a tool of `chaos.tools`; late: one that takes longer than it may; the rest as the design calls them.
Kind = Literal["work", "late", "wait", "human", "inference"]
#: How a task uses a parent: waits for it, takes a part of its result, all of it, or a text about it.
Use = Literal["dependency", "part", "whole", "text"]

_SHAPES = ("chain", "fan", "layers", "random", "random")
_EFFECTS = ("pure", "idempotent", "once")
_POLICIES = ("fail", "skip", "default")

#: What is said to a task that asks whether it may run; "" for one that does not ask.
Approval = Literal["", "approve", "edit", "reject"]
#: When a question is answered: as soon as somebody sees it, about when its time is over, after a reminder, or never.
Patience = Literal["prompt", "close", "reminded", "never"]
_PATIENCE: tuple[Patience, ...] = ("prompt", "close", "close", "never", "never")


@dataclass(frozen=True)
class Task:
    """One sub-task, as its plan means it."""

    id: str
    kind: Kind
    parents: Mapping[str, Use]
    effect: str = "pure"
    fails: bool = False
    policy: str = "fail"
    kb: int = 0  # of its result
    seconds: float = 0.0  # of a timer
    flaky: int = 0  # so many attempts fail, and the next one does not
    retry: Mapping[str, Any] | None = None
    approval: Approval = ""
    timeout_s: float | None = None  # of a question
    on_timeout: str = "fail"
    patience: Patience = "prompt"  # of whoever answers it
    # What is called since somebody has changed that:
    more: tuple[str, ...] = ()  # inputs beside those of the plan
    given: tuple[str, ...] | None = None  # inputs in place of those of the plan

    def called(self, params: Mapping[str, Any], *, edited: bool = False) -> Task:
        """Return the task as it is called with these params; `edited`: they hold no references."""
        own = tuple(params["inputs"])
        if edited:
            return replace(self, fails=False, flaky=0, more=(), given=own)
        references = sum(use != "dependency" for use in self.parents.values())
        fails, flaky = params.get("fails", False), params.get("flaky", 0)
        return replace(self, fails=fails, flaky=flaky, more=own[references:], given=None)

    @property
    def code(self) -> str | None:
        """What it fails with, if it does."""
        return SCRIPTED if self.fails else FLAKY if self.flaky else "timeout" if self.kind == "late" else None

    @property
    def attempts(self) -> int:
        """How many attempts may fail before it is given up; see `docs/reliability.md`."""
        if self.retry is None:
            return 1
        codes = self.retry.get("retry_on")
        # What has failed half-way and may run once is only tried again where its plan names the code.
        named = (self.effect != "once" or self.code != SCRIPTED) if codes is None else self.code in codes
        return int(self.retry["max_attempts"]) if named else 1

    @property
    def default(self) -> Any:
        """What stands for its result where it failed and the plan has a default."""
        return {"digest": f"the default of {self.id}"}

    def answer(self) -> Any:
        """What a person answers to its question."""
        return {"digest": f"the answer to {self.id}"}

    def inputs(self, results: Mapping[str, Any]) -> list[Any]:
        """Return what its references stand for, said without the code under test."""
        if self.given is not None:
            return list(self.given)
        used = [_used(parent, use, results[parent]) for parent, use in self.parents.items() if use != "dependency"]
        return [*used, *self.more]


@dataclass(frozen=True)
class Planned:
    """One plan of the campaign."""

    number: int
    document: dict[str, Any]
    tasks: Mapping[str, Task]
    synthesis: bool
    key: str | None  # of idempotency; a submission without one is never repeated
    cancelled: bool  # somebody asks for its end while it runs
    paused: bool  # somebody pauses it for a while
    deadline_s: float | None
    fail_fast: bool
    retries: int  # so often somebody runs again what was lost
    forked: Literal["", "running", "ended"]  # when somebody forks it

    def params(self, task_id: str) -> dict[str, Any]:
        """Return the params of a task, as the plan has them."""
        return next(dict(t["tool_or_prompt"]["params"]) for t in self.document["sub_tasks"] if t["id"] == task_id)

    @property
    def labels(self) -> dict[str, str]:
        """How its execution is found in the database."""
        return {"plan": str(self.number)}

    @property
    def sinks(self) -> list[str]:
        used = {parent for task in self.tasks.values() for parent in task.parents}
        return [id for id in self.tasks if id not in used]


@lru_cache(maxsize=512)
def make(seed: int, number: int) -> Planned:
    """Return the plan of this number."""
    rng = random.Random(f"{seed}/plan/{number}")
    people = random.Random(f"{seed}/people/{number}")
    tasks = {task.id: _with_people(task, people) for task in _tasks(rng)}
    synthesis = rng.random() < 0.25
    document = {
        "original_request": f"Plan {number} of the campaign",
        "intent": {"primary": "to survive"},
        "sub_tasks": rng.sample([_document(task, rng) for task in tasks.values()], len(tasks)),
        "synthesis_plan": "Say what was found." if synthesis else "",
    }
    deadline_s = rng.uniform(0.2, 4.0) if rng.random() < 0.08 else None
    key = f"plan-{number}" if rng.random() < 0.75 else None
    cancelled, paused = rng.random() < 0.06, rng.random() < 0.12
    fail_fast = people.random() < 0.06
    retries = people.choices((0, 1, 2), (45, 38, 17))[0]
    if cancelled or deadline_s is not None or fail_fast:
        retries = max(retries, 1)  # what was cut off may have happened, and is to run again
    forked: Literal["", "running", "ended"] = people.choices(("", "running", "ended"), (70, 15, 15))[0]
    return Planned(
        number, document, tasks, synthesis, key, cancelled, paused, deadline_s, fail_fast, retries, forked
    )  # fmt: skip


def _tasks(rng: random.Random) -> list[Task]:
    count = rng.choice((rng.randint(5, 12), rng.randint(5, 25), rng.randint(20, 60)))
    shape = rng.choice(_SHAPES)
    return [_task(f"t{at}", _parents(at, count, shape, rng), rng) for at in range(count)]


def _parents(at: int, count: int, shape: str, rng: random.Random) -> list[str]:
    if at == 0:
        above: list[int] = []
    elif shape == "chain":
        above = [at - 1]
    elif shape == "fan":
        above = [0] if at < count - 1 else rng.sample(range(1, at), min(at - 1, 8)) if at > 1 else [0]
    elif shape == "layers":
        width = 4
        layer = at // width
        above = rng.sample(range((layer - 1) * width, layer * width), rng.randint(1, 3)) if layer else []
    else:
        above = rng.sample(range(at), min(at, rng.choice((0, 1, 1, 2, 3))))
    return [f"t{parent}" for parent in sorted(above)]


def _task(id: str, parents: list[str], rng: random.Random) -> Task:
    kind: Kind = rng.choices(("work", "late", "wait", "human", "inference"), (84, 1, 6, 5, 4))[0]
    uses: tuple[Use, ...] = ("dependency", "part", "part", "text", "whole")
    fails = kind == "work" and rng.random() < 0.03
    flaky = rng.randint(1, 3) if kind == "work" and not fails and rng.random() < 0.08 else 0
    # The default would do for time-outs and `unavailable`, but it pauses for a second and more.
    retries = kind == "late" or flaky or (fails and rng.random() < 0.3)
    return Task(
        id=id,
        kind=kind,
        parents={parent: rng.choice(uses) for parent in parents},
        effect=rng.choice(_EFFECTS) if kind in ("work", "late") else "pure",
        fails=fails,
        flaky=flaky,
        retry=_retry(rng) if retries else None,
        policy=rng.choice(_POLICIES) if fails or flaky or kind == "late" or rng.random() < 0.3 else "fail",
        kb=rng.randint(1_050, 1_600) if kind == "work" and rng.random() < 0.02 else rng.choice((0, 0, 1, 20)),
        seconds=round(rng.uniform(0.02, 1.2), 3) if kind == "wait" else 0.0,
    )


def _with_people(task: Task, rng: random.Random) -> Task:
    """Return a task that people have something to say about: an approval, a question whose time may be over."""
    if task.kind == "human":
        if rng.random() < 0.25:
            return task
        on_timeout = rng.choice(("fail", "skip", "default", "remind"))
        patience: Patience = "reminded" if on_timeout == "remind" else rng.choice(_PATIENCE)
        return replace(task, timeout_s=round(rng.uniform(0.1, 0.7), 3), on_timeout=on_timeout, patience=patience)
    if rng.random() > 0.12:
        return task
    approval: Approval = rng.choices(("approve", "edit", "reject"), (40, 45, 15))[0]
    if approval == "edit" and (task.kind != "work" or task.code):
        approval = "approve"  # what is to fail is to go on to do that
    return replace(task, approval=approval, patience=rng.choice(("prompt", "prompt", "close")))


def edited(task: Task, by: str) -> dict[str, Any]:
    """Return what somebody puts in place of the params of a task while approving it."""
    # What reads like a reference is a text there.
    return {"task": task.id, "inputs": [f"edited by {by}", "{{ tasks.t0.result }}"], "kb": task.kb}


def changed(planned: Planned, task: Task, by: str) -> dict[str, Any]:
    """Return what somebody calls a task with from now on: as it was, but that it works, and one input more."""
    inputs = [*planned.params(task.id)["inputs"], f"changed by {by}"]
    return {"task": task.id, "inputs": inputs, "kb": task.kb}


def _retry(rng: random.Random) -> dict[str, Any]:
    codes = rng.choice(({}, {"retry_on": [SCRIPTED, FLAKY, "timeout"]}, {"retry_on": [FLAKY]}))
    return {
        **codes,
        "max_attempts": rng.randint(1, 4),
        "backoff_seconds": rng.choice((0, 0.02, 0.1, 0.3)),
        "factor": rng.choice((1, 2)),
        "max_backoff_seconds": 0.5,
        "jitter": rng.choice((0, 0.5)),
    }


def _document(task: Task, rng: random.Random) -> dict[str, Any]:
    # A reference implies the dependency; half of the time it is named as well.
    refers = task.kind != "wait"  # a timer takes nothing from its parents, it only comes after them
    named = [p for p, use in task.parents.items() if not refers or use == "dependency" or rng.random() < 0.5]
    document: dict[str, Any] = {
        "id": task.id,
        "description": f"{task.kind} of {', '.join(task.parents) or 'nothing'}",
        "tool_or_prompt": _tool(task, rng),
        "dependencies": named,
        "on_failure": task.policy,
    }
    if task.kind in ("human", "inference"):
        document["action_type"] = task.kind
    if task.retry is not None:
        document["retry"] = task.retry
    if "default" in (task.policy, task.on_timeout):
        document["default"] = task.default
    if task.approval:
        document["requires_approval"] = True
    if task.timeout_s is not None:
        document |= {"timeout_seconds": task.timeout_s, "on_timeout": task.on_timeout}
    if task.kind == "late":
        document[rng.choice(("timeout_seconds", "idle_timeout_seconds"))] = 0.03
    return document


def _tool(task: Task, rng: random.Random) -> dict[str, Any]:
    references = [_reference(parent, use) for parent, use in task.parents.items() if use != "dependency"]
    if task.kind == "wait":
        return {"name": "wait", "params": {"seconds": task.seconds}}
    if task.kind == "human":
        return {"name": "human", "params": {"prompt": "Which is it?", "about": references}}
    if task.kind == "inference":
        return {"name": "inference", "params": {"prompt": "Tell what matters.", "about": references}}
    place = rng.choice(("on_loop", "in_thread"))
    quick = (0, 0, rng.uniform(1, 10), rng.uniform(5, 120))
    slow = task.kind == "late" or rng.random() < (0.15 if task.effect == "once" else 0.05)
    ms = rng.uniform(150, 500) if slow else rng.choice(quick)
    params = {"task": task.id, "inputs": references, "ms": round(ms, 1), "kb": task.kb, "fails": task.fails}
    if task.flaky:
        params["flaky"] = task.flaky
    if rng.random() < 0.15:
        params["reports"] = rng.randint(1, 4)
    return {"name": f"{task.effect}_{place}", "params": params}


def _reference(parent: str, use: Use) -> str:
    if use == "whole":
        return f"<Result from Task {parent}>"
    part = f"{{{{ tasks.{parent}.result.digest }}}}"
    return part if use == "part" else f"{parent} says {part}."


def _used(parent: str, use: Use, result: Any) -> Any:
    if use == "whole":
        return result
    part = result.get("digest") if isinstance(result, dict) else None
    return part if use == "part" else f"{parent} says {part if isinstance(part, str) else json.dumps(part)}."
