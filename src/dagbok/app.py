"""The composition root: `Dagbok` opens database, journal, tools and engine, and closes them in the opposite order."""

from __future__ import annotations

import asyncio
import logging
import os
import sys
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import AsyncExitStack, suppress
from datetime import datetime
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, Literal, Self

import uuid_utils
from pydantic import ValidationError

from dagbok import views, wire
from dagbok.cluster.local import LocalWorker
from dagbok.cluster.retention import Retention
from dagbok.diary import Diary
from dagbok.domain.call import Call
from dagbok.domain.diagram import MEDIA_TYPES
from dagbok.domain.ids import SYNTHESIS_TOOL, ExecutionId
from dagbok.domain.plan import Plan
from dagbok.domain.records import Changes
from dagbok.domain.retry import Policy
from dagbok.domain.states import ExecutionStatus, FailurePolicy
from dagbok.domain.values import Json, parse
from dagbok.domain.wording import said
from dagbok.engine.clock import SystemClock
from dagbok.engine.containment import contain
from dagbok.engine.outcomes import failure, success
from dagbok.engine.ports import Clock, ToolSpec
from dagbok.engine.scheduler import Scheduler
from dagbok.errors import BadInput, Conflict, Misconfigured
from dagbok.forking import Wish
from dagbok.llm.extractive import HINT, NAME
from dagbok.llm.inference import Inference, Synthesis
from dagbok.llm.models import Models
from dagbok.notify import transitions
from dagbok.service import LARGE_PLAN_CHARS, ClarificationNeeded, Fork, Service, Submitted
from dagbok.settings import Settings, load
from dagbok.store import migrations
from dagbok.store.database import Database
from dagbok.store.journal import Journal
from dagbok.store.queries import Reader
from dagbok.submitting import Options
from dagbok.tools.egress import Egress
from dagbok.tools.mail import send_email_tool
from dagbok.tools.registry import Registry, Tool, as_tool
from dagbok.tools.secrets import Vault as Vault  # for those who may not look into `tools`
from dagbok.tools.tool import OnLate

if TYPE_CHECKING:
    from dagbok.llm.models import Model

log = logging.getLogger("dagbok")

#: Whoever asks something of an execution is told after so long at the latest: one that cannot be read back never
#: applies it, and a database that is away takes its time.
APPLY_PATIENCE_S: Final = 10.0


class _EngineTools:
    """The tools as the engine sees them: the registry, and the synthesis, which no plan may call."""

    def __init__(self, registry: Registry, synthesis: ToolSpec) -> None:
        self._registry = registry
        self._synthesis = synthesis

    def get(self, name: str) -> ToolSpec | None:
        return self._synthesis if name == SYNTHESIS_TOOL else self._registry.get(name)


class Dagbok:
    """An engine with its diary. Use it as an async context manager.

        async with Dagbok("sqlite:///diary.db", tools=[fetch]) as dagbok:
            execution = await dagbok.run(plan)
            print(execution.status, execution.final_result)

    Entering takes the database for this engine alone, brings its tables up to date, and goes on with whatever an
    earlier process left unfinished. Leaving lets what runs end for a few seconds; the rest goes on at the next start.
    """

    def __init__(
        self,
        database_url: str | None = None,
        *,
        tools: Iterable[Callable[..., Any] | Tool] = (),
        settings: Settings | None = None,
        secrets: Mapping[str, str] | Vault | None = None,
        recover: bool = True,
        command: str | None = None,
        model: str | Model | Sequence[Model] | None = None,
        clock: Clock | None = None,
        journal: Callable[[Journal], Journal] | None = None,
        **flags: Any,
    ) -> None:
        """Prepare an engine; nothing is opened yet.

        Args:
            database_url: `sqlite:///FILE` or `postgresql://...`; the setting where not given.
            tools: Functions, decorated with `@tool` or not, beside the tools that ship and those of the settings; also
                objects such as `dagbok.testing.ScriptedTool`.
            settings: Where given, the environment is not read for them.
            secrets: Values by name, above those of `DAGBOK_SECRET_*` and of the file in the settings; or all there are,
                as a `Vault`.
            recover: Whether to go on with what an earlier process left unfinished.
            command: How this program is named to others that find the database taken.
            model: A name as in the settings; or a model of pydantic-ai, which also answers where a plan names it
                (PROVIDER:MODEL), and which whoever made it closes. Of several the first is the default.
            clock: For tests: the time that the engine goes by, such as `dagbok.testing.FakeClock`.
            journal: For tests: returns what the engine writes by, given the real journal, such as
                `dagbok.testing.CrashingJournal(...).around`.
            flags: Any field of `Settings`, above the environment.
        """
        self._models = () if model is None or isinstance(model, str) else _listed(model)
        if model is not None:
            flags["model"] = self._models[0].model_id if self._models else model
        if settings is None:
            settings = load(database_url=database_url, **flags)
        elif database_url is not None or flags:
            settings = settings.model_copy(update={"database_url": database_url or settings.database_url, **flags})
        self.settings = settings
        self._tools = tuple(tools)
        self._secrets = secrets
        self._recover = recover
        self._clock = clock
        self._around = journal
        self._command = command or Path(sys.argv[0] or "python").name
        self._stack = AsyncExitStack()
        self._service: Service | None = None
        self._worker: LocalWorker | None = None

    @property
    def service(self) -> Service:
        """The use cases. Raises Misconfigured before the engine is open."""
        if self._service is None:
            raise Misconfigured("This engine is not open; use it as `async with Dagbok(...) as dagbok:`.")
        return self._service

    async def __aenter__(self) -> Self:
        """Open everything.

        Raises:
            DatabaseInUse: Another engine has the database; the message names it.
            Misconfigured, SchemaTooNew, StoreUnavailable: It cannot work; the message says why.
        """
        async with AsyncExitStack() as stack:
            await self._open(stack)
            self._stack = stack.pop_all()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close everything, in the opposite order."""
        await self._stack.aclose()

    async def _open(self, stack: AsyncExitStack) -> None:
        settings = self.settings
        models = Models(settings, self._models)
        stack.push_async_callback(models.aclose)
        registry = make_registry(settings, self._tools, models, on_late=self._hear_late)
        stack.callback(registry.close)
        given = self._secrets
        vault = given if isinstance(given, Vault) else await asyncio.to_thread(Vault.load, settings, over=given)
        stack.callback(vault.guard(registry.names()))
        await stack.enter_async_context(registry.home.egress)
        await stack.enter_async_context(registry.home.page_reader)
        await models.check()
        database = await asyncio.to_thread(
            Database.open, settings.database_url, synchronous=settings.sqlite_synchronous
        )
        stack.callback(database.close)
        self.lock = database.engine_lock()
        stack.callback(self.lock.release)
        await _to_the_end(partial(self.lock.acquire, command=self._command))
        await asyncio.to_thread(migrations.upgrade, database)
        reader = Reader(database)
        journal = Journal(database, lock=self.lock)
        journal.start()
        stack.push_async_callback(journal.close)
        writing = journal if self._around is None else self._around(journal)
        tools = _EngineTools(registry, Synthesis(models))
        scheduler = Scheduler(
            writing,
            tools,
            self._clock or SystemClock(),
            max_concurrency=settings.max_concurrency,
            max_result_bytes=settings.max_result_bytes,
            secrets=vault,
            retry=Policy(
                max_attempts=settings.retry_max_attempts,
                backoff_seconds=settings.retry_backoff_s,
                max_backoff_seconds=settings.retry_max_backoff_s,
            ),
        )
        scheduler.subscribe(transitions.log_changes)
        stack.callback(contain(asyncio.get_running_loop()))
        stack.push_async_callback(scheduler.close, settings.close_grace_s)
        owner = f"{self._command}:{os.getpid()}:{uuid_utils.uuid7()}"
        worker = self._worker = LocalWorker(scheduler, writing, reader, tools, owner=owner, secrets=vault)
        stack.push_async_callback(worker.close)
        self.scheduler = scheduler
        self._service = Service(
            reader, journal=writing, worker=worker, registry=registry, settings=settings, redactor=vault.redactor
        )
        stack.callback(self._service.close)
        if self._recover:
            for execution_id in await asyncio.to_thread(reader.left_behind, scheduler.clock.now_ms()):
                log.info("execution %s was left unfinished", execution_id)
        taken = await worker.start(recover=self._recover)
        if taken or scheduler.parked:
            log.info("unfinished executions: going on with %d, %d wait for a time", taken, len(scheduler.parked))
        if self._recover and settings.retention_days is not None:  # `dagbok run` ends with what it runs
            retention = Retention(writing, scheduler.clock, days=settings.retention_days)
            stack.push_async_callback(retention.close)
            retention.start()

    def _hear_late(self, call: Call, value: object, error: BaseException | None) -> None:
        """Take what an abandoned thread brought after all."""
        redactor = self.service.redactor
        if error is None:
            outcome = success(value, max_bytes=self.settings.max_result_bytes, redactor=redactor)
        else:
            outcome = failure(error, redactor)
        if self._worker is not None:
            self._worker.late(call, outcome)

    # -- what a program does ----------------------------------------------------------------------------------------

    async def submit(
        self,
        plan: Plan | Json | str | bytes,
        *,
        title: str | None = None,
        labels: dict[str, str] | None = None,
        deadline_seconds: float | None = None,
        failure_policy: FailurePolicy | Literal["continue", "fail_fast"] | None = None,
        idempotency_key: str | None = None,
    ) -> Submitted:
        """Make a plan (a `Plan`, its JSON, or the text of that) an execution that is durable and runs.

        With an `idempotency_key` (1-255 visible ASCII characters) the same call again returns the same execution,
        `replayed`, also after a restart, until that is deleted. What has not ended `deadline_seconds` (at most 366
        days) after the submission is cancelled; what completed counts. With the `failure_policy` fail_fast the first
        sub-task that fails ends the execution; else (`continue`) all that does not depend on it runs.

        Raises:
            InvalidPlan: With every problem in `problems`.
            IdempotencyKeyReused, IdempotencyInFlight: The key came with another plan; another call has it right now.
            MalformedJson, NotJson, TooLarge: Nothing was stored.
            BadInput: An option cannot be used.
            Conflict: The plan asks for a clarification; the message holds the question.
        """
        document = await _document(plan)
        options = _options(title=title, labels=labels, deadline_seconds=deadline_seconds, failure_policy=failure_policy)
        submitted = await self.service.submit(document, options, large=_is_long(plan), idempotency_key=idempotency_key)
        if isinstance(submitted, ClarificationNeeded):
            raise Conflict(
                f"The plan needs a clarification first: {submitted.query}", clarification_query=submitted.query
            )
        return submitted

    async def run(
        self,
        plan: Plan | Json | str | bytes,
        *,
        title: str | None = None,
        labels: dict[str, str] | None = None,
        deadline_seconds: float | None = None,
        failure_policy: FailurePolicy | Literal["continue", "fail_fast"] | None = None,
        idempotency_key: str | None = None,
    ) -> wire.Execution:
        """Submit a plan and return its execution once it has ended or waits for a person. Raises like `submit`."""
        submitted = await self.submit(
            plan, title=title, labels=labels, deadline_seconds=deadline_seconds, failure_policy=failure_policy,
            idempotency_key=idempotency_key,
        )  # fmt: skip
        return await self.wait(submitted.execution_id)

    async def wait(self, execution_id: str) -> wire.Execution:
        """Return an execution once it has ended, waits for a person, or is paused and nothing runs. Raises NotFound."""
        await self.service.wait(execution_id)
        return await self.get(execution_id)

    async def get(self, execution_id: str) -> wire.Execution:
        """Return an execution as it stands, with its sub-steps and their whole results. Raises NotFound."""
        return await asyncio.to_thread(read_execution, self.service, execution_id)

    async def graph(self, execution_id: str, format: str = "svg") -> str:
        """Return who waits for whom in an execution, with the states, as `svg`, `mermaid`, `dot` or `json` text.

        Raises:
            NotFound: There is no such execution.
            BadInput: There is no such format, or the graph is too large for it.
        """
        return await asyncio.to_thread(read_graph, self.service, execution_id, format)

    async def list(
        self, *, limit: int = 50, offset: int = 0, status: ExecutionStatus | str | None = None
    ) -> list[wire.ExecutionSummary]:
        """Return executions without their sub-steps, newest first; `page` goes on from there."""
        return (await self.page(limit=limit, offset=offset, status=status)).executions

    async def page(
        self,
        *,
        limit: int = 50,
        offset: int = 0,
        status: ExecutionStatus | str | None = None,
        cursor: str | None = None,
    ) -> wire.ExecutionList:
        """Return a page of the executions, newest first, with its `pagination`. See `Diary.list_executions`.

        Its `pagination.next_cursor` is the `cursor` of the page behind it; None: there is none.
        """
        read = partial(self.service.list_executions, limit=limit, offset=offset, status=status, cursor=cursor)
        return wire.ExecutionList.read(views.executions_json(await asyncio.to_thread(read)))

    async def human_inputs(
        self,
        *,
        status: str = "open",
        kind: str | None = None,
        assignee: str | None = None,
        execution_id: str | None = None,
        due_before: datetime | None = None,
        limit: int = 50,
        cursor: str | None = None,
    ) -> wire.HumanInputList:
        """Return a page of the inbox: what people are asked, of all executions. See `Diary.human_inputs`."""
        read = partial(
            self.service.human_inputs, status=status, kind=kind, assignee=assignee, execution_id=execution_id,
            due_before=due_before, limit=limit, cursor=cursor,
        )  # fmt: skip
        return wire.HumanInputList.read(views.human_inputs_json(await asyncio.to_thread(read)))

    async def answer(
        self,
        execution_id: str,
        task_id: str,
        answer: Mapping[str, Json],
        *,
        number: int | None = None,
        by: str | None = None,
    ) -> None:
        """Answer the question of a sub-step, and return once its execution goes on with that; see `Service.answer`."""
        await self._asked(self.service.answer(execution_id, task_id, answer, number=number, by=by), execution_id)

    async def take_over(self, *execution_ids: str) -> Sequence[str]:
        """Go on with unfinished executions that nobody runs; return those that now run here.

        For an engine that was opened with `recover=False`. One that needs a tool which is not known here stays as it
        is, with a warning. What somebody has asked of them meanwhile is applied.
        """
        if self._worker is None:
            raise Misconfigured("This engine is not open; use it as `async with Dagbok(...) as dagbok:`.")
        taken = await self._worker.take_over(map(ExecutionId, execution_ids))
        await self.service.let_hear()  # an answer, say: who waits for them next would be told that they wait for it
        return taken

    async def cancel(self, execution_id: str, *, by: str | None = None) -> wire.Execution:
        """End an execution and return it: what runs of it is cut off, what waits does not begin.

        Of one that is cancelled already nothing changes. `by` says who asks, for the diary.

        Raises:
            NotFound: There is no such execution.
            Conflict: It has ended otherwise, or the engine stops.
            NotJson: `by` is what no database holds.
            StoreUnavailable: The database is away; nothing was asked.
        """
        await self._asked(self.service.cancel(execution_id, by=by), execution_id)
        return await self.wait(execution_id)

    async def pause(self, execution_id: str, *, by: str | None = None) -> wire.Execution:
        """Let an execution begin nothing more, and return it as it stands then.

        What runs of it ends by itself: `wait` returns once nothing does, when the execution is `waiting` or has ended.
        Of one that is paused already nothing changes. Its deadline goes on. Raises as `cancel`.
        """
        await self._asked(self.service.pause(execution_id, by=by), execution_id)
        return await self.get(execution_id)

    async def resume(self, execution_id: str, *, by: str | None = None) -> wire.Execution:
        """Let a paused execution go on, and return it as it stands then. Raises as `cancel`.

        Of one that is not paused nothing changes.
        """
        await self._asked(self.service.resume(execution_id, by=by), execution_id)
        return await self.get(execution_id)

    async def retry(
        self,
        execution_id: str,
        *,
        steps: Sequence[str] | None = None,
        overrides: Mapping[str, Json] | None = None,
        by: str | None = None,
    ) -> wire.Execution:
        """Let what failed or was cancelled run again, with what that skipped, and return it as it stands then.

        `wait` returns once it has ended again. Completed steps are kept; see `Service.retry`. `overrides` say by
        sub-task what is called from now on: `{"params"?, "tool"?, "model"?}`. Raises as `cancel`, and BadInput where
        `steps` names what cannot run again, or an override cannot stand.
        """
        await self._asked(self.service.retry(execution_id, steps=steps, overrides=overrides, by=by), execution_id)
        return await self.get(execution_id)

    async def fork(
        self,
        execution_id: str,
        *,
        from_task: str | None = None,
        overrides: Mapping[str, Json] | None = None,
        plan: Plan | Json | str | bytes = None,
        by: str | None = None,
        idempotency_key: str | None = None,
    ) -> Fork:
        """Make a new execution that goes on from this one, and is durable and runs.

        What completed here is taken over, as far as it stands on nothing that changes: `from_task` and what depends on
        it, sub-tasks with `overrides`, or what is new in another `plan`, or differs. The origin may be in any state,
        and stays as it is. See `Service.fork`.

        Raises:
            NotFound: There is no such execution.
            Conflict: Nothing would run in the fork.
            BadInput, InvalidPlan, TooLarge: The wish cannot be; `problems` have pointers such as
                "/overrides/2/params/url".
            IdempotencyKeyReused, IdempotencyInFlight: As of `submit`.
        """
        wish = Wish(from_task, overrides or {}, await _document(plan))
        return await self.service.fork(execution_id, wish, by=by, idempotency_key=idempotency_key)

    async def delete(self, execution_id: str, *, force: bool = False, by: str | None = None) -> int:
        """Remove an execution with all it wrote, its dag and plan too if nobody else needs them.

        Returns how many sub-steps went with it. With `force` one that has not ended is cancelled first (`by` says who
        asks): what runs of it is cut off, and nobody will say whether a `once` step happened.

        Raises:
            NotFound: There is no such execution.
            Conflict: It has not ended; with `force`, not within ten seconds: it is being cancelled, ask again.
            StoreUnavailable: The database is away; nothing was removed.
        """
        return await self.service.delete(execution_id, force=force, by=by)

    async def _asked(self, asking: Awaitable[int | None], execution_id: str) -> None:
        """Ask something of an execution, and return once that is applied and durable, or `APPLY_PATIENCE_S` is over."""
        applied: set[int | None] = {None}  # nothing was left to ask
        told = asyncio.Event()

        def hear(_: object, changes: Changes) -> None:
            if changes.execution_id == execution_id:
                applied.update(changes.commands)
                told.set()

        unsubscribe = self.scheduler.subscribe(hear)  # before: it may be applied before its number is here
        try:
            number = await asking
            with suppress(TimeoutError):
                async with asyncio.timeout(APPLY_PATIENCE_S):
                    while number not in applied:
                        told.clear()
                        await told.wait()
        finally:
            unsubscribe()


def _listed(model: Model | Sequence[Model]) -> Sequence[Model]:
    listed = model if isinstance(model, Sequence) else (model,)
    if not listed:
        raise Misconfigured("model=[] holds no model; leave it out for the one of the settings.")
    return listed


async def _document(plan: Plan | Json | str | bytes) -> Plan | Json:
    """Return a plan of which the text may be given. What is long is read in a thread: the loop goes on."""
    if not isinstance(plan, str | bytes):
        return plan
    return await asyncio.to_thread(parse, plan) if _is_long(plan) else parse(plan)


def _is_long(plan: object) -> bool:
    return isinstance(plan, str | bytes) and len(plan) >= LARGE_PLAN_CHARS


def _options(**given: Any) -> Options:
    """Return what a program asks beside its plan. Raises BadInput."""
    try:
        options = wire.SubmitOptions(**given)
    except ValidationError as exc:
        fault = exc.errors()[0]
        name = ".".join(map(str, fault["loc"]))
        raise BadInput(f"The option {name} {said(fault)}.") from exc
    return Options(**dict(options))


async def _to_the_end(work: Callable[[], Any]) -> Any:
    """Run `work` in a thread; a cancellation waits for it, so that what it took can be given back."""
    task = asyncio.ensure_future(asyncio.to_thread(work))
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        await asyncio.wait([task])
        raise


def read_execution(diary: Diary, execution_id: str) -> wire.Execution:
    """Return an execution with its sub-steps and their whole results. Raises NotFound."""
    row, steps = diary.details(execution_id, whole=True)
    return wire.Execution.read(views.execution_json(row, steps))


def read_graph(diary: Diary, execution_id: str, format: str) -> str:
    """Return the graph of an execution in one of the formats of `dagbok.domain.diagram`. Raises NotFound, BadInput."""
    if format not in MEDIA_TYPES:
        raise BadInput(f"`format` is {format!r}; it is one of {', '.join(MEDIA_TYPES)}.", pointer="/format")
    _, diagram = diary.graph(execution_id)
    return views.graph_document(diagram, format).decode()


def model_hint(model: str | None) -> str | None:
    """Return how to get a real model, if `model` is the built-in offline one."""
    return HINT if model in (NAME, NAME.partition(":")[0]) else None


def make_registry(
    settings: Settings,
    tools: Iterable[Callable[..., Any] | Tool] = (),
    models: Models | None = None,
    *,
    on_late: OnLate | None = None,
) -> Registry:
    """Return the tools of these settings: those that ship, installed ones, modules of the settings, and `tools`.

    Without `models` of an engine the tools are there to be looked at, and `inference` is not to be called.

    Raises:
        Misconfigured: A module cannot be used, or two tools have one name.
    """
    registry = Registry(
        workspace=settings.workspace,
        timeout_s=settings.tool_timeout_s,
        max_threads=settings.max_concurrency,
        on_late=on_late,
        egress=Egress(
            allow=settings.egress_allow, timeout_s=settings.http_timeout_s, max_bytes=settings.max_response_bytes
        ),
    )
    registry.load_entry_points()
    registry.add(send_email_tool(settings))
    for module in settings.tools:
        registry.load_module(module)
    # Stand-ins last: they take the place of tools, wherever in the list those are.
    for made in sorted(map(as_tool, tools), key=lambda made: made.options.stand_in):
        registry.add(made)
    registry.add(Inference(models or Models(settings)))
    return registry
