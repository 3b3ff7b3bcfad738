"""Forks: from an execution and what is to be different, the new execution that goes on from there.

`Forks` judges the wish and reads what is taken over, both at one moment; `begin` makes the execution, with all of that
from its first commit on. The origin is only read, in whatever state it is.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any

from dagbok.domain import fork, outline, overriding, values
from dagbok.domain.answers import Calls
from dagbok.domain.events import Event, EventType
from dagbok.domain.execution import Execution
from dagbok.domain.fork import Origin, Split
from dagbok.domain.ids import FIRST_EPOCH, SYNTHESIS, DagId, ExecutionId, TaskId
from dagbok.domain.outline import Outline
from dagbok.domain.overriding import Overrides
from dagbok.domain.plan import Plan, read_id
from dagbok.domain.records import NewExecution, StepRow
from dagbok.domain.states import Effect, FailurePolicy
from dagbok.domain.task import Task
from dagbok.domain.validate import Limits, Problem, check, read
from dagbok.domain.values import Json
from dagbok.errors import BadInput, Conflict, InvalidPlan, NotFound, TooLarge
from dagbok.store.origins import Origins, Stored, opened
from dagbok.store.queries import Reader


@dataclass(frozen=True, slots=True)
class Wish:
    """What is to be different in a fork. `overrides` and `plan` exclude each other."""

    from_task: str | None = None  #: a sub-task that runs again, and all that depends on it
    overrides: Mapping[str, Json] = field(default_factory=dict)  #: by sub-task, beside those that stand
    plan: Json = None  #: in place of the origin's

    def own(self) -> Wish:
        """Return the wish as it will stay, whatever its caller does to his plan. Raises NotJson, but not for the plan.

        What is wrong with that is told with all else that is.
        """
        told = values.decode(values.encode({"fromTask": self.from_task, "overrides": dict(self.overrides)}))
        plan = self.plan.document() if isinstance(self.plan, Plan) else self.plan
        with suppress(BadInput):
            plan = values.decode(values.encode(plan))
        return Wish(told["fromTask"], told["overrides"], plan)

    def request(self, execution_id: str) -> dict[str, Json]:
        """Return what is asked, for the hash of an idempotency key."""
        return {
            "forkOf": execution_id, "fromTask": self.from_task, "overrides": dict(self.overrides), "plan": self.plan
        }  # fmt: skip


@dataclass(frozen=True, slots=True)
class Forked:
    """A fork that can begin."""

    origin: Stored
    document: dict[str, Json]
    plan: Outline
    title: str
    split: Split
    finished: Mapping[TaskId, StepRow]  #: what is taken over, whole
    doubtful: Mapping[TaskId, StepRow]  #: what is asked about first
    beside: Overrides  #: that stand beside the plan: what an approval has edited, and the model of the synthesis
    from_task: str | None


class Forks:
    """Judges wishes against executions. Synchronous; for any thread."""

    def __init__(self, reader: Reader, calls: Calls) -> None:
        self._reader = reader
        self._tools = calls.schemas
        self._limits = calls.limits
        self._redactor = calls.redactor

    def prepare(self, execution_id: str, wish: Wish) -> Forked:
        """Return the fork of an execution.

        Raises:
            NotFound: No such execution.
            BadInput, InvalidPlan, TooLarge: The wish cannot be; `problems` have pointers into it, such as
                "/overrides/2/params", "/plan/sub_tasks/0", "/fromTask".
            Conflict: Nothing would run in it: all has completed, and nothing of it changes.
        """
        with opened(self._reader) as origins:
            stored = origins.load(execution_id)
            if stored is None:
                raise NotFound(f"There is no execution {execution_id!r}.", execution_id=execution_id)
            return self._prepare(origins, stored, wish)

    def _prepare(self, origins: Origins, stored: Stored, wish: Wish) -> Forked:
        for_plan, beside = fork.standing(stored.overrides)
        before = overriding.write(values.decode(stored.document), for_plan)
        origin = Origin(outline.read(before), stored.steps, stored.effects)
        document, plan = self._changed(before, wish)
        self._check_from_task(origin, plan, wish.from_task)
        from_task = None if wish.from_task is None else TaskId(wish.from_task)
        asked = {} if wish.plan is not None else for_plan.get(SYNTHESIS, {})
        asks = {**asked, **wish.overrides.get(SYNTHESIS, {})}
        split = fork.split(origin, plan, from_task=from_task, synthesis_changed=asks != asked)
        if not split.again and not split.synthesis:
            raise Conflict(
                f"Nothing of {stored.row['id']} would run in this fork: all of it has completed, and nothing changes. "
                "Name fromTask, or give overrides or a plan that change something.",
                execution_id=stored.row["id"],
            )
        if wish.plan is None:
            self._check_what_runs(document, split)
        finished = origins.with_values(stored.row["id"], [stored.steps[id] for id in split.reused])
        doubtful = origins.with_values(stored.row["id"], [stored.steps[id] for id in split.doubtful])
        for id, row in doubtful.items():
            if row.input is None and id in beside:  # what was called is what somebody has edited, not the plan's
                doubtful[id] = row._replace(input=values.encode(beside[id]["edited"]))
        kept = {id: override for id, override in beside.items() if id in finished}
        if asks and plan.synthesis_plan.strip():
            kept[SYNTHESIS] = asks
        renamed = wish.plan is not None and plan.title not in ("", origin.plan.title)
        title = plan.title if renamed else stored.row["title"]
        return Forked(stored, document, plan, title, split, finished, doubtful, kept, wish.from_task)

    def _changed(self, before: dict[str, Json], wish: Wish) -> tuple[dict[str, Json], Outline]:
        """Return the plan of the fork."""
        if wish.plan is None:
            found = overriding.faults_of_all(
                before, wish.overrides, tools=self._tools, limits=self._limits, redactor=self._redactor
            )
            if found:
                raise overriding.refused(found)
            document = overriding.write(before, wish.overrides)
            return document, outline.read(document)
        if wish.overrides:
            message = "Give either a plan or overrides; a plan says all of it."
            raise _refused(Problem("/overrides", "bad_value", message))
        if isinstance(wish.plan, dict) and wish.plan.get("clarification_needed") is True:
            message = "The plan asks for a clarification first; a fork runs."
            raise _refused(Problem("/plan/clarification_needed", "bad_value", message))
        try:
            plan = read(wish.plan, self._tools, self._limits, self._redactor)
        except (InvalidPlan, TooLarge) as exc:
            moved = tuple(replace(each, pointer=f"/plan{each.pointer}") for each in exc.fields.get("problems", ()))
            raise type(exc)(exc.message, **{**exc.fields, "problems": moved}) from exc
        return wish.plan, plan

    def _check_from_task(self, origin: Origin, plan: Outline, from_task: str | None) -> None:
        if from_task is None:
            return
        shown = self._redactor.text(from_task)[:200]
        row = origin.rows.get(TaskId(from_task))
        new = {SYNTHESIS} if plan.synthesis_plan.strip() else set()
        if row is None:
            problem = Problem("/fromTask", "unknown_task", f"There is no sub-task {shown!r} in the execution.")
        elif not fork.has_run(row):
            message = f"Sub-task {shown!r} has never run, it is {row.status}; fork from one that has."
            problem = Problem("/fromTask", "never_ran", message)
        elif from_task not in new and all(task.id != from_task for task in plan.sub_tasks):
            problem = Problem("/fromTask", "unknown_task", f"There is no sub-task {shown!r} in the plan of the fork.")
        else:
            return
        raise _refused(problem)

    def _check_what_runs(self, document: dict[str, Json], split: Split) -> None:
        """Raise InvalidPlan where a sub-task that is to run cannot: by the tools of today, which are not those of then.

        What is taken over is not judged again. The limits were met when the plan was accepted.
        """
        size = len(values.encode(document).encode())
        room = Limits(max(self._limits.sub_tasks, len(document["sub_tasks"])), max(self._limits.plan_bytes, size))
        again = frozenset(split.again)
        found = []
        for problem in check(document, self._tools, room, self._redactor):
            match problem.pointer.split("/"):
                case ["", "sub_tasks", at, "tool_or_prompt", *_] if (
                    read_id(document["sub_tasks"][int(at)]["id"]) in again
                ):
                    found.append(replace(problem, pointer=""))
        if found:
            raise InvalidPlan(f"The plan cannot run any more: {found[0].message}", problems=found)


def begin(
    forked: Forked,
    *,
    id: ExecutionId,
    dag_id: DagId,
    plan_hash: str,
    owner: str,
    by: str | None,
    now_ms: int,
    effect_of: Callable[[Task], Effect],
) -> tuple[Execution, NewExecution]:
    """Return the execution, and what makes it durable, whole, in one commit.

    `dag_id`: of a new dag, which is stored where the plan is not the origin's.
    """
    origin, plan = forked.origin.row, forked.plan
    execution = Execution(id, plan, epoch=FIRST_EPOCH, effect_of=effect_of)
    options: dict[str, Any] = values.decode(origin["options"]) if origin["options"] else {}
    execution.fail_fast = options.get("failurePolicy") == FailurePolicy.FAIL_FAST
    if (seconds := options.get("deadlineSeconds")) is not None:  # which begins anew, as that of a retry
        execution.header.deadline_at = now_ms + max(1, round(seconds * 1000))
    new_steps = execution.new_steps()
    execution.adopt(
        forked.finished,
        {task_id: row.input for task_id, row in forked.doubtful.items()},
        now_ms,
        changed={TaskId(task_id): values.encode(override) for task_id, override in forked.beside.items()},
    )
    start = execution.take_changes(now_ms)
    for position in start.ready:  # they begin once that is durable, by the submission
        execution.hold(position)
    told = {"forkedFrom": origin["id"], "fromTask": forked.from_task, "reused": len(forked.finished), "by": by}
    data = values.encode({name: value for name, value in told.items() if value is not None})
    same = plan_hash == origin["plan_hash"]
    return execution, NewExecution(
        id=id,
        dag_id=origin["dag_id"] if same else dag_id,
        new_dag=not same,
        plan_hash=plan_hash,
        plan=values.encode(forked.document),
        title=forked.title,
        original_request=plan.original_request,
        primary_intent=plan.primary_intent,
        created_at=now_ms,
        total_tasks=len(plan.sub_tasks),
        steps=new_steps,
        event=Event(1, EventType.EXECUTION_CREATED.value, None, now_ms, data),
        owner=owner,
        labels=origin["labels"],
        options=origin["options"],
        priority=origin["priority"],
        deadline_at=execution.header.deadline_at,
        forked_from=origin["id"],
        start=start,
    )


def _refused(problem: Problem) -> BadInput:
    return BadInput(problem.message, problems=(problem,))
