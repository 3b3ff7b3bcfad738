"""Those who step in: they let what was lost run again, with other params now and then, and fork what ended or runs."""

from __future__ import annotations

import random
import time
from collections.abc import Mapping, Sequence
from typing import Any

from chaos import plans, sidelog
from chaos.engines import Engine, Wish
from chaos.people import People, name, plan_of
from chaos.plans import Planned
from chaos.sidelog import SideLog
from dagbok.domain.states import EXECUTION_ENDED
from dagbok.errors import DagbokError
from dagbok.wire import ExecutionSummary, HumanInput, SubStep

#: What an execution is that lost something.
_LOST = ("failed", "partial", "cancelled")


class SteppingIn:
    """Those who step in, of one process."""

    def __init__(self, engine: Engine, log: SideLog, seed: int) -> None:
        self._engine, self._log, self._seed = engine, log, seed
        self._retried: set[tuple[str, int]] = set()  # executions, and how often they had been before
        self._forked: set[str] = set()

    async def repeat(self) -> None:
        """Ask once more for the forks of which nobody was told whether they were made."""
        lines, _ = sidelog.read(self._log.path)
        told = {line["by"] for line in lines if line["what"] in ("forked", "not forked")}
        for line in lines:
            if line["what"] == "fork":
                self._forked.add(line["execution"])
                if line["by"] not in told:
                    await self._ask_fork(
                        line["execution"], Wish(line["by"], line["from_task"], None, line["overrides"])
                    )

    async def look(self) -> bool:
        """Look once at what there is; return whether something was asked."""
        asked = False
        for execution in await self._engine.executions():
            planned = plans.make(self._seed, plan_of(execution))
            if await self._step_in(execution, planned):
                asked = True
        return asked

    async def doubt(self, questions: Sequence[HumanInput], people: People) -> None:
        """Fork some executions in which somebody is asked whether something has happened, before it is answered."""
        for question in questions:
            if question.kind != "did_it_happen" or question.execution_id in self._forked:
                continue
            # A fork of it asks the same, and would be forked for that, and so on.
            if not people.is_of_a_fork(question) and people.chance(question, "doubt").random() < 0.35:
                await self._fork(question.execution_id, Wish(name("fork")), ended=False)

    async def _step_in(self, execution: ExecutionSummary, planned: Planned) -> bool:
        is_fork, ended = execution.forked_from is not None, execution.status in EXECUTION_ENDED
        rng = random.Random(f"{self._seed}/step in/{planned.number}/{is_fork}/{execution.retry_count}")
        if not is_fork and execution.id not in self._forked and planned.forked == ("ended" if ended else "running"):
            wish = await self._wish(execution, planned, rng, anything=execution.status == "completed")
            await self._fork(execution.id, wish, ended=ended)
            return True
        time_ = (execution.id, execution.retry_count)
        retries = min(planned.retries, 1) if is_fork else planned.retries
        if execution.status in _LOST and execution.retry_count < retries and time_ not in self._retried:
            self._retried.add(time_)
            await self._retry(execution, planned, rng)
            return True
        return False

    # -- forks --------------------------------------------------------------------------------------------------------

    async def _wish(self, execution: ExecutionSummary, planned: Planned, rng: random.Random, *, anything: bool) -> Wish:
        """Return what is to be different; `anything`: at least that."""
        by = name("fork")
        steps = await self._engine.sub_steps(execution.id)
        ran = [
            step.task_id for step in steps if step.status in ("completed", "failed") and step.task_id in planned.tasks
        ]
        works = [task.id for task in planned.tasks.values() if task.kind == "work"]
        from_task, overrides = None, {}
        if ran and rng.random() < (1.0 if anything else 0.4):
            from_task = rng.choice(ran)
        if works and rng.random() < 0.4:
            overrides = {(id := rng.choice(works)): self._override(planned, id, by, rng)}
        return Wish(by, from_task, None, overrides)

    async def _fork(self, execution_id: str, wish: Wish, *, ended: bool) -> None:
        self._forked.add(execution_id)
        self._log.write(
            "fork", execution=execution_id, by=wish.by, from_task=wish.from_task, overrides=wish.overrides, ended=ended,
            at=time.time() * 1000,
        )  # fmt: skip
        await self._ask_fork(execution_id, wish)

    async def _ask_fork(self, execution_id: str, wish: Wish) -> None:
        try:
            made = await self._engine.fork(execution_id, wish)
        except DagbokError as exc:
            # One whose outcome nobody knows is asked for once more.
            what = "refused" if exc.code in ("outcome_unknown", "store_unavailable") else "not forked"
            self._log.write(what, execution=execution_id, by=wish.by, code=exc.code, message=str(exc)[:300])
        else:
            self._log.write("forked", execution=execution_id, by=wish.by, fork=made)

    # -- what was lost ------------------------------------------------------------------------------------------------

    async def _retry(self, execution: ExecutionSummary, planned: Planned, rng: random.Random) -> None:
        by = name("retry")
        steps = await self._engine.sub_steps(execution.id)
        lost = _lost(steps)
        named = None
        if lost and rng.random() < 0.3:
            done = {step.task_id for step in steps if _is_done(step)}
            first = [step.task_id for step in lost if done.issuperset(step.dependencies)]
            named = rng.sample(first, rng.randint(1, len(first))) if first else None
        again = [step.task_id for step in lost] if named is None else named
        works = [id for id in again if id in planned.tasks and planned.tasks[id].kind == "work"]
        overrides = {id: self._override(planned, id, by, rng) for id in works if rng.random() < 0.6}
        wish = Wish(by, None, named, overrides)
        self._log.write("retry", execution=execution.id, by=by, steps=named, overrides=overrides)
        try:
            await self._engine.retry(execution.id, wish)
        except DagbokError as exc:
            self._log.write("not retried", execution=execution.id, by=by, code=exc.code, message=str(exc)[:300])
        else:
            self._log.write("retried", execution=execution.id, by=by)

    def _override(self, planned: Planned, task_id: str, by: str, rng: random.Random) -> Mapping[str, Any]:
        task = planned.tasks[task_id]
        override: dict[str, Any] = {"params": plans.changed(planned, task, by)}
        if rng.random() < 0.3:
            override["tool"] = f"{task.effect}_{rng.choice(('on_loop', 'in_thread'))}"
        return override


def _lost(steps: Sequence[SubStep]) -> list[SubStep]:
    return [step for step in steps if step.status in ("failed", "cancelled") and step.task_id != "__SYNTHESIS__"]


def _is_done(step: SubStep) -> bool:
    return step.status == "completed" or (step.status == "skipped" and step.reason == "chosen")
