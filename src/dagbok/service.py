"""The use cases: what the API, the command line and the library all do, once.

`Diary` (`dagbok.diary`) reads and needs no engine; `Service` also submits and commands.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from functools import partial

from dagbok import forking, submitting
from dagbok.cluster.local import LocalWorker
from dagbok.diary import Diary, Row
from dagbok.domain import overriding, values
from dagbok.domain.answers import Calls
from dagbok.domain.execution import Execution
from dagbok.domain.ids import DagId, ExecutionId
from dagbok.domain.plan import HUMAN, Plan, read_id
from dagbok.domain.records import NewExecution
from dagbok.domain.secrets import Redactor
from dagbok.domain.states import EXECUTION_ENDED, Effect
from dagbok.domain.task import Task, read_task
from dagbok.domain.validate import Limits, Problem, check
from dagbok.domain.values import Json, JsonText
from dagbok.errors import Conflict, DagbokError, NotFound, OutcomeUnknown, StoreRejected, StoreUnavailable
from dagbok.forking import Forks, Wish
from dagbok.notify import transitions
from dagbok.settings import Settings
from dagbok.store.batch import Created
from dagbok.store.idempotency import Asked, Keys
from dagbok.store.journal import Journal
from dagbok.store.queries import Reader
from dagbok.store.readiness import Readiness
from dagbok.store.takeover import not_ended
from dagbok.submitting import Options, Terms, new_id, plan_hash
from dagbok.tools.registry import Registry

log = logging.getLogger("dagbok.service")

#: Sub-tasks from which on checking and preparing a plan, 10 µs each, is done in a thread, so that the loop goes on.
LARGE_PLAN = 200
#: The same for so much JSON, whatever it consists of: 8 MiB take 0.2 s.
LARGE_PLAN_CHARS = 64 * 1024
#: How long a submission waits for its commit; less if the database is known to be away.
SUBMIT_PATIENCE_S = 30
#: How long a deletion by force waits for the end of what it cancelled, and how often it looks.
ENDING_S = 10.0
_LOOK_S = 0.05
#: How long whoever asks something waits until it is applied; it is durable by then.
HEARING_S = 5


@dataclass(frozen=True, slots=True)
class Submitted:
    """A durable execution."""

    execution_id: ExecutionId
    dag_id: DagId
    original_request: str
    total_tasks: int
    replayed: bool = False  #: an earlier request with the same idempotency key made it


@dataclass(frozen=True, slots=True, kw_only=True)
class Fork(Submitted):
    """A durable execution that goes on from another one."""

    forked_from: ExecutionId
    reused_tasks: int  #: sub-tasks that are taken over, and do not run


@dataclass(frozen=True, slots=True)
class ClarificationNeeded:
    """The agent wants to ask before it plans; nothing runs."""

    query: str | None


class Service(Diary):
    """All use cases of a running engine. Call it on the engine's event loop."""

    def __init__(
        self,
        reader: Reader,
        *,
        journal: Journal,
        worker: LocalWorker,
        registry: Registry,
        settings: Settings,
        redactor: Redactor | None = None,
    ) -> None:
        super().__init__(reader)
        self.registry = registry
        self.settings = settings
        self.redactor = redactor or Redactor({})  # of the secrets that plans may name
        self._journal = journal
        self._worker = worker
        self._keys = Keys(reader)
        self._readiness = Readiness(reader)
        self._effect = partial(_effect, registry)

    def close(self) -> None:
        """End the thread that asks whether the database is there."""
        self._readiness.close()

    def check(self, plan: Json | Plan) -> list[Problem]:
        """Return every problem of a plan."""
        return check(plan, self.registry.schemas(), self._limits, self.redactor)

    async def submit(
        self,
        plan: Json | Plan,
        options: Options | None = None,
        *,
        large: bool = False,
        idempotency_key: str | None = None,
    ) -> Submitted | ClarificationNeeded:
        """Make a plan an execution that is durable and about to run.

        Args:
            plan: The document, or a `Plan`.
            options: What is asked beside it.
            large: Whether the caller knows it to be large, though it has few sub-tasks: it is then checked in a thread.
            idempotency_key: Where an execution was made with it, that one is returned and nothing is checked: what
                was accepted once is not judged by the tools of today. The key is free again once it is deleted.

        Raises:
            InvalidPlan, TooLarge: Nothing was stored.
            BadInput: An option holds the value of a secret.
            NotJson: The options, or the query of a clarification, hold what no database does.
            IdempotencyKeyReused, IdempotencyInFlight: The key came with another request; is under way.
            BadInput: The key is none.
            StoreUnavailable: The database is away; nothing was stored.
            StoreRejected, OutcomeUnknown: See `Journal.create`; with a key, trying again decides right.
        """
        document = plan.document() if isinstance(plan, Plan) else plan
        options = options or Options()
        asked, row = None, None
        if idempotency_key is not None:
            asked, row = await self._keys.find(idempotency_key, {"plan": document, "options": options.given()})
        if row is not None:
            return _replayed(row)
        if isinstance(document, dict) and document.get("clarification_needed") is True:
            query = document.get("clarification_query")
            values.check(query)
            return ClarificationNeeded(query if isinstance(query, str) else None)
        tasks = document.get("sub_tasks") if isinstance(document, dict) else None
        large = large or (isinstance(tasks, list) and len(tasks) >= LARGE_PLAN)
        with self._keys.alone(asked):
            return await self._submit(document, options, asked, large=large)

    async def submit_dag(
        self, dag_id: str, options: Options | None = None, *, idempotency_key: str | None = None
    ) -> Submitted:
        """Run the plan of a stored dag once more. Raises NotFound, and as `submit`: tools may have changed since."""
        options = options or Options()
        asked, row = await self._keys.find(idempotency_key, {"dagId": dag_id, "options": options.given()})
        if row is not None:
            return _replayed(row)
        text = await asyncio.to_thread(self.reader.plan, dag_id) if dag_id.startswith("dag_") else None
        if text is None:
            raise NotFound(f"There is no dag {dag_id!r}.", dag_id=dag_id)
        try:
            with self._keys.alone(asked):
                return await self._submit(values.decode(text), options, asked, large=True, dag_id=DagId(dag_id))
        except StoreRejected:
            if await asyncio.to_thread(self.reader.plan, dag_id) is not None:
                raise
            # It was deleted, with the last of its executions, just before this one was written.
            raise NotFound(f"There is no dag {dag_id!r}.", dag_id=dag_id) from None

    async def _submit(
        self, document: Json, options: Options, asked: Asked | None, *, large: bool, dag_id: DagId | None = None
    ) -> Submitted:
        text = None if large else submitting.encoded(document)
        if large or (text is not None and len(text) >= LARGE_PLAN_CHARS):
            self._readiness.expect()
            execution, new = await asyncio.to_thread(self._prepare, document, text, options, dag_id)
        else:
            execution, new = self._prepare(document, text, options, dag_id)
        return await self._create(execution, new, asked)

    async def _create(self, execution: Execution, new: NewExecution, asked: Asked | None) -> Submitted:
        """Make an execution durable, and run it. Of an idempotency key that was used, return what it made then."""
        if asked is not None:
            submitting.refuse_literals({"idempotencyKey": asked.key}, self.redactor)
            new = replace(new, idempotency_key=asked.key, request_hash=asked.request_hash)
        await self._ensure_available()
        written = self._journal.create(new)
        written.add_done_callback(partial(transitions.log_created, new))
        created = self._worker.submit(execution, written)
        if asked is not None:
            self._keys.committing(asked, written)
        look = asyncio.get_running_loop().call_later(1.0, self._look, created, new.id, SUBMIT_PATIENCE_S - 1)
        try:
            made = await created
        finally:
            look.cancel()
        if asked is not None and made.existing:  # another process was faster
            asked.must_be(made.request_hash, made.execution_id)
        return Submitted(made.execution_id, made.dag_id, new.original_request, new.total_tasks, made.existing)

    def _look(self, created: asyncio.Future[Created], execution_id: ExecutionId, seconds: int) -> None:
        """Give a submission up once the database is known to be away, or has not written it `seconds` from now."""
        if created.done():
            return
        if seconds and self.ready:
            asyncio.get_running_loop().call_later(1.0, self._look, created, execution_id, seconds - 1)
            return
        message = f"The database does not answer; {execution_id} runs if it is written after all."
        created.set_exception(OutcomeUnknown(f"{message} Look before you retry.", execution_id=execution_id))

    async def fork(
        self, execution_id: str, wish: Wish | None = None, *, by: str | None = None, idempotency_key: str | None = None
    ) -> Fork:
        """Make a new execution that goes on from another one: what is done there and does not change is taken over.

        The origin may be in any state; it stays as it is.

        Args:
            execution_id: The origin.
            wish: What is to be different; None: nothing but that what has not completed runs.
            by: Who asks; the diary keeps it.
            idempotency_key: As of `submit`.

        Raises:
            NotFound: No such execution, or it was deleted just now.
            Conflict: Nothing would run in the fork.
            BadInput, InvalidPlan, TooLarge: The wish cannot be; `problems` have pointers into it, such as
                "/overrides/2/params/url".
            IdempotencyKeyReused, IdempotencyInFlight, StoreUnavailable, OutcomeUnknown: As `submit`.
        """
        values.check(by)
        by = self.redactor.value(by)
        wish = await asyncio.to_thread((wish or Wish()).own)
        asked, row = await self._keys.find(idempotency_key, wish.request(execution_id))
        if row is not None:
            return await asyncio.to_thread(self._forked_before, row["id"])
        with self._keys.alone(asked):
            execution, new = await asyncio.to_thread(self._prepare_fork, execution_id, wish, by)
            try:
                made = await self._create(execution, new, asked)
            except StoreRejected:
                if new.new_dag or await asyncio.to_thread(self.reader.dag, new.dag_id) is not None:
                    raise
                raise NotFound(f"Execution {execution_id} was deleted just now.", execution_id=execution_id) from None
        if made.replayed:
            return await asyncio.to_thread(self._forked_before, made.execution_id)
        return Fork(**asdict(made), forked_from=ExecutionId(execution_id), reused_tasks=_reused(new.event.data))

    def _prepare_fork(self, execution_id: str, wish: Wish, by: str | None) -> tuple[Execution, NewExecution]:
        forked = Forks(self.reader, self._calls()).prepare(execution_id, wish)
        return forking.begin(
            forked, id=ExecutionId(new_id("dag-exec_")), dag_id=DagId(new_id("dag_")),
            plan_hash=plan_hash(forked.document), owner=self._worker.owner, by=by,
            now_ms=self._worker.clock.now_ms(), effect_of=self._effect,
        )  # fmt: skip

    def _forked_before(self, execution_id: str) -> Fork:
        """Return the fork that an earlier request with the same idempotency key made."""
        row, created = self.execution(execution_id), self.events(execution_id, limit=1)[0]
        return Fork(**asdict(_replayed(row)), forked_from=row["forked_from"], reused_tasks=_reused(created["data"]))

    async def wait(self, execution_id: str) -> None:
        """Return once the execution ended or waits for a person; at once if it does not run here."""
        await self._worker.wait(ExecutionId(execution_id))

    async def cancel(self, execution_id: str, *, by: str | None = None) -> int | None:
        """Ask for the end of an execution; durable when this returns, applied right after. Again, it changes nothing.

        Returns:
            The number of the command (see `Changes.commands`); None where nothing was left to ask.

        Raises:
            NotFound, Conflict: No such execution; it has ended otherwise.
            NotJson: `by` is what no database holds.
            StoreUnavailable: Nothing was written.
        """
        return await self._command(execution_id, "cancel", by)

    async def pause(self, execution_id: str, *, by: str | None = None) -> int | None:
        """Ask that an execution begins nothing more; what runs ends by itself. Again, it changes nothing.

        As `cancel`; Conflict: it has ended.
        """
        return await self._command(execution_id, "pause", by)

    async def resume(self, execution_id: str, *, by: str | None = None) -> int | None:
        """Let a paused execution go on. Of one that is not paused it changes nothing.

        As `cancel`; Conflict: it has ended.
        """
        return await self._command(execution_id, "resume", by)

    async def retry(
        self,
        execution_id: str,
        *,
        steps: Sequence[str] | None = None,
        overrides: Mapping[str, Json] | None = None,
        by: str | None = None,
    ) -> int | None:
        """Let what failed or was cancelled run again, with what it skipped, and the synthesis; see `Execution.retry`.

        Completed steps are kept. Returns as `cancel`.

        Args:
            execution_id: The execution.
            steps: Of these sub-tasks alone.
            overrides: By sub-task `{"params"?, "tool"?, "model"?}`, what it is called with from now on.
            by: Who asks.

        Raises:
            NotFound, Conflict: No such execution; it has not ended, or has completed.
            BadInput: `steps` names what cannot run again, or an override cannot stand; nothing was changed.
        """
        data: dict[str, Json] = {}
        if steps is not None:
            data["steps"] = [str(step) for step in steps]
            await asyncio.to_thread(self.check_lost, execution_id, data["steps"])
        if overrides:
            await asyncio.to_thread(self.judge, execution_id, "retry")
            data["overrides"] = await asyncio.to_thread(self._overrides, execution_id, overrides, data.get("steps"))
        return await self._command(execution_id, "retry", by, data)

    def _overrides(self, execution_id: str, given: Mapping[str, Json], steps: Sequence[str] | None) -> Json:
        """Return the overrides of a retry, with the effect of what each sub-task calls then. Raises BadInput."""
        wanted: dict[str, Json] = values.decode(values.encode({"overrides": dict(given)}))["overrides"]
        document = self.overridable(execution_id, wanted, steps)
        found = overriding.faults_of_all(
            document, wanted, tools=self.registry.schemas(), limits=self._limits, redactor=self.redactor
        )
        if found:
            raise overriding.refused(found)
        for item in overriding.write(document, wanted)["sub_tasks"]:
            if (id := read_id(item["id"])) is not None and id in wanted:
                wanted[id]["effect"] = self._effect(read_task(item)).value
        return wanted

    async def _command(
        self, execution_id: str, kind: str, by: str | None, data: Mapping[str, Json] | None = None
    ) -> int | None:
        values.check(by)
        by = self.redactor.value(by)
        if not await asyncio.to_thread(self.judge, execution_id, kind):
            return None
        await self._ensure_available()
        number = await self._journal.write_command(
            ExecutionId(execution_id), kind, data or {}, by, at_ms=self._worker.clock.now_ms()
        )
        await self.let_hear()
        return number

    async def answer(
        self,
        execution_id: str,
        task_id: str,
        answer: Mapping[str, Json],
        *,
        number: int | None = None,
        by: str | None = None,
    ) -> int:
        """Answer the open question of a sub-step; durable when this returns, applied right after.

        Returns the number of the command, as `cancel`.

        Args:
            execution_id: The execution.
            task_id: The sub-task that waits.
            answer: `{"input": value}` to a question of the plan; to an approval `{"decision": "approve" | "reject"}`,
                or `{"decision": "edit", "params": {...}}` with all params in place of those shown; to "did it happen?"
                `{"decision": "retry" | "succeeded" | "fail", "result"?: value}`.
            number: Of the question that was seen. A later one is about something else, perhaps, and is not answered.
            by: Who answers.

        Raises:
            NotFound, Conflict: No such sub-step; it does not wait, has its answer already, or its time was over.
            InvalidAnswer: The answer does not fit; nothing was changed.
        """
        # Before it is judged, because what is wrong with an answer is told with parts of it.
        values.check(by)
        answer, by = self.redactor.value(dict(answer)), self.redactor.value(by)
        data, wait = await asyncio.to_thread(
            self.judge_answer, execution_id, task_id, answer, self._calls, number=number
        )
        await self._ensure_available()
        number = await self._journal.write_command(
            ExecutionId(execution_id), "answer", data, by, at_ms=self._worker.clock.now_ms(), wait=wait
        )
        await self.let_hear()
        return number

    async def let_hear(self) -> None:
        """Let what is durable now be applied. It is accepted: whatever delays that is no error of who asked.

        The worker comes back to it by itself.
        """
        try:
            async with asyncio.timeout(HEARING_S):
                await self._worker.hear()
        except (DagbokError, TimeoutError) as exc:
            log.warning("what was asked is applied later: %r", exc)

    async def delete(self, execution_id: str, *, force: bool = False, by: str | None = None) -> int:
        """Remove an ended execution with all it wrote; return how many sub-steps went with it.

        With `force` one that has not ended is cancelled first, whoever owns it, and removed once it has.

        Raises:
            NotFound: No such execution.
            Conflict: It has not ended; with `force`, not within `ENDING_S`. It is being cancelled then: ask again.
        """
        if force:
            await self._end(execution_id, by)
        else:
            status = (await asyncio.to_thread(self.execution, execution_id))["status"]
            if status not in EXECUTION_ENDED:
                raise not_ended(execution_id, status)
        await self._ensure_available()
        # Judged again under its lock: somebody may retry it at this very moment.
        return await self._journal.delete(ExecutionId(execution_id), only_ended=True)

    async def _end(self, execution_id: str, by: str | None) -> None:
        """Cancel an execution and return once it has ended, durably."""
        try:
            async with asyncio.timeout(ENDING_S):
                if not await self._ended(execution_id):
                    with suppress(Conflict):  # it has ended by itself just now
                        await self.cancel(execution_id, by=by)
                while not await self._ended(execution_id):  # noqa: ASYNC110 - its owner may be another process
                    await asyncio.sleep(_LOOK_S)
        except TimeoutError:
            advice = "has not ended yet; delete it again in a moment"
            raise Conflict(
                f"Execution {execution_id} is being cancelled, and {advice}.", execution_id=execution_id
            ) from None

    async def _ended(self, execution_id: str) -> bool:
        return (await asyncio.to_thread(self.execution, execution_id))["status"] in EXECUTION_ENDED

    async def _ensure_available(self) -> None:
        # The journal would hold on until the database is back; a caller is better told to come again.
        if not await self.is_ready():
            raise StoreUnavailable("The database cannot be reached now; nothing was written. Try again later.")

    @property
    def ready(self) -> bool:
        """Whether the database answered the last time it was written to."""
        return self._journal.available

    async def is_ready(self) -> bool:
        """Return whether submissions can be taken now, asking the database if it was not asked for a while."""
        return self.ready and await self._readiness.ask()

    @property
    def _limits(self) -> Limits:
        return _limits(self.settings)

    def _calls(self) -> Calls:
        return calls_of(self.registry, self.settings, self.redactor)

    def _prepare(
        self, document: Json, text: JsonText | None, options: Options, dag_id: DagId | None
    ) -> tuple[Execution, NewExecution]:
        """Return the execution of a plan, and its rows. Takes its time for a large one."""
        terms = Terms(self.registry.schemas(), self._limits, self.redactor, self._effect, self._worker.owner)
        return submitting.begin(document, text, options, terms, dag_id=dag_id, now_ms=self._worker.clock.now_ms())


def calls_of(registry: Registry, settings: Settings, redactor: Redactor) -> Calls:
    """Return what there is to know of the tools before somebody's params may reach them."""
    return Calls(registry.schemas(), partial(_effect, registry), _limits(settings), redactor)


def _limits(settings: Settings) -> Limits:
    return Limits(settings.max_sub_tasks, settings.max_plan_bytes)


def _effect(registry: Registry, task: Task) -> Effect:
    tool = registry.get(task.tool)
    return Effect.PURE if task.tool == HUMAN or tool is None else tool.effect_of(task.tool_or_prompt.params)


def _replayed(row: Row) -> Submitted:
    return Submitted(row["id"], row["dag_id"], row["original_request"], row["total_tasks"], replayed=True)


def _reused(created: str | None) -> int:
    """Return how many sub-tasks a fork took over, as the first event of its diary tells."""
    return int(values.decode(created)["reused"]) if created else 0
