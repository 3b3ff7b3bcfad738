"""The one loop: starts what is ready, hears what ended, and lets nothing follow from what is not yet durable.

Dataflow, never layers. Each event changes an aggregate; once a turn of the event loop, what changed is handed to the
journal (one append per execution under way, so everything that happens meanwhile rides in the next); when the append
is durable, the steps it made ready may start. The body of a `once` tool starts after its own start is durable, all
others at once, so that start and end of a quick step share a commit.

Not safe to call from other threads.
"""

from __future__ import annotations

import asyncio
import contextvars
import logging
from collections.abc import Callable, Sequence
from typing import Any

from dagbok.domain import commands, secrets, values
from dagbok.domain.call import Call
from dagbok.domain.execution import Execution
from dagbok.domain.ids import ExecutionId
from dagbok.domain.plan import HUMAN
from dagbok.domain.records import Changes, Command
from dagbok.domain.states import Effect, ExecutionStatus, StepStatus
from dagbok.engine import prepare
from dagbok.engine.ports import NO_SECRETS, Clock, Journal, Secrets, Tools, ToolSpec
from dagbok.engine.run import Run, settle
from dagbok.engine.runner import Attempt, Outcome, failure
from dagbok.engine.slots import Slots
from dagbok.errors import Conflict, DagbokError, Fenced, NotFound, OutcomeUnknown, Stalled, StoreRejected, ToolError

log = logging.getLogger("dagbok.engine")

#: A step's progress is kept at most this often.
PROGRESS_INTERVAL_S = 0.25
#: How long closing waits for commits under way (a database may be away), and for bodies to heed their cancellation.
CLOSE_COMMITS_S, CLOSE_BODIES_S = 10.0, 1.0

Listener = Callable[[Execution, Changes], None]


class Scheduler:
    """Runs executions until they end or wait for a person."""

    def __init__(
        self,
        journal: Journal,
        tools: Tools,
        clock: Clock,
        *,
        max_concurrency: int,
        max_result_bytes: int,
        secrets: Secrets = NO_SECRETS,
    ) -> None:
        self.clock = clock
        self._journal = journal
        self._tools = tools
        self._slots: Slots[Run] = Slots(max_concurrency)
        self._max_bytes = max_result_bytes
        self._secrets = secrets
        self._runs: dict[ExecutionId, Run] = {}
        self._dirty: dict[Run, None] = {}
        self._turn_due = False
        self._hand_over_due = False
        self._closing = False
        # The engine's own: what is done for one execution must not be logged as part of another's request.
        self._context = contextvars.copy_context()
        self._listeners: list[Listener] = []
        self._orphans: set[asyncio.Task[None]] = set()  # bodies that ended for us, but not yet for Python
        self._waiters: dict[ExecutionId, asyncio.Future[None]] = {}  # of executions between rejection and rescue
        #: Called when the database refuses an execution's rows; expected to end it by `take_over` or to `give_up`.
        self.on_rejected: Callable[[ExecutionId, StoreRejected], None] | None = None

    # -- owning -----------------------------------------------------------------------------------------------------

    def add(self, execution: Execution) -> None:
        """Own a new execution whose submission is durable. After `close` it is left to the next start."""
        if not self._closing:
            run = self._own(execution)
            self._enqueue(run, execution.take_ready())
            self._turn_soon()

    def take_over(self, execution: Execution) -> None:
        """Own an execution that an earlier owner left: close its open attempts and go on."""
        if self._closing:
            return
        run = self._own(execution)
        run.settled = self._waiters.pop(execution.id, None)
        now_ms = self.clock.now_ms()
        for position in execution.take_over(now_ms):
            due_at = execution.steps[position].next_attempt_at or now_ms
            self._set_timer(run, position, due_at - now_ms)
        if execution.changed:
            self._changed(run)  # its ready steps start once the closed attempts are durable
        else:
            self._enqueue(run, execution.take_ready())
            self._check(run)
            self._turn_soon()

    def _own(self, execution: Execution) -> Run:
        assert execution.id not in self._runs, f"{execution.id} runs here already"
        run = self._runs[execution.id] = Run(execution)
        return run

    def get(self, id: ExecutionId) -> Execution | None:
        """Return an execution in memory."""
        run = self._runs.get(id)
        return run.execution if run else None

    def subscribe(self, listener: Listener) -> Callable[[], None]:
        """Call `listener` with all changes after they are durable; return what ends that."""
        self._listeners.append(listener)
        return lambda: self._listeners.remove(listener)

    async def wait(self, id: ExecutionId) -> None:
        """Return once the execution has ended or waits for a person, durably; at once if it is not in memory.

        Raises:
            Conflict: The engine has stopped, or stops.
            Stalled, StoreError: The execution cannot go on in this process.
        """
        run = self._runs.get(id)
        if run is not None:
            if run.waits_for_a_person:
                return
            if run.settled is None:
                run.settled = asyncio.get_running_loop().create_future()
            await asyncio.shield(run.settled)
        elif id in self._waiters:
            await asyncio.shield(self._waiters[id])
        elif self._closing:
            raise _stopped(id)

    def apply(self, command: Command) -> None:
        """Apply a command to an execution in memory; see `commands.apply`.

        Raises:
            NotFound: The execution is not in memory.
        """
        run = self._runs.get(command.execution_id)
        if run is None:
            raise NotFound(f"Execution {command.execution_id} is not run here.", execution_id=command.execution_id)
        commands.apply(run.execution, command, self.clock.now_ms())
        if run.execution.ended:
            self._drop(run)
        self._changed(run)

    # -- starting ---------------------------------------------------------------------------------------------------

    def _enqueue(self, run: Run, positions: Sequence[int]) -> None:
        for position in positions:
            if self._needs_no_slot(run, position):
                self._start(run, position)
            else:
                self._slots.push(run, position, run.execution.remaining(position))
                run.queued += 1

    def _needs_no_slot(self, run: Run, position: int) -> bool:
        name = run.execution.steps[position].task.tool
        if name == HUMAN:
            return True
        tool = self._tools.get(name)
        return tool is not None and tool.timer

    def _dispatch(self) -> None:
        while not self._closing and (turn := self._slots.pop()) is not None:
            run, position = turn
            run.queued -= 1
            self._start(run, position)

    def _start(self, run: Run, position: int) -> None:
        """Begin an attempt, ask a person, set a timer, park the step, or fail it: whatever its turn brings."""
        execution = run.execution
        step = execution.steps[position]
        if step.status is not StepStatus.PENDING or execution.ended or self._closing:
            return  # cancelled or skipped while it stood in the queue
        try:
            tool = self._tools.get(step.task.tool)
            if tool is None and step.task.tool != HUMAN:
                message = (
                    f"The tool {step.task.tool!r} is not known to this process; start it with the module that has it."
                )
                raise ToolError(message, code="unknown_tool")
            if tool is not None and not self._slots.has_room(tool):
                self._slots.park(tool, run, position, execution.remaining(position))
                run.queued += 1
                return
            resolved = prepare.resolve(execution, position, max_bytes=self._max_bytes, redactor=self._secrets.redactor)
            if tool is None:
                self._ask(run, position, prepare.question(resolved.params))
            elif tool.timer:
                self._begin_timer(run, position, prepare.seconds(resolved.params), resolved)
            else:
                self._begin(run, position, tool, resolved)
        except DagbokError as exc:
            outcome = failure(exc, self._secrets.redactor)
            execution.fail(position, outcome.code, outcome.message, self.clock.now_ms())
        except Exception as exc:
            log.exception("execution %s: step %s cannot start", execution.id, step.task.id)
            outcome = failure(exc, self._secrets.redactor)
            execution.fail(position, "engine_error", outcome.message, self.clock.now_ms(), detail=outcome.detail)
        self._changed(run)

    def _begin(self, run: Run, position: int, tool: ToolSpec, resolved: prepare.Resolved) -> None:
        execution = run.execution
        step = execution.steps[position]
        if secrets.may_have(step.task.tool):
            secrets.fill(step.task.tool_or_prompt.params, resolved.params, self._secrets.get)
        execution.begin(position, self.clock.now_ms(), input=resolved.input)

        def done(attempt: Attempt, outcome: Outcome) -> None:
            self._finished(run, position, attempt, outcome)

        attempt = Attempt(
            self._call(run, position, resolved.params), tool, clock=self.clock,
            timeout_s=step.task.timeout_seconds or tool.timeout_s, max_bytes=self._max_bytes,
            redactor=self._secrets.redactor, done=done,
        )  # fmt: skip
        run.attempts[position] = attempt
        self._slots.take(tool)
        if step.effect is Effect.ONCE:
            run.launches.append(attempt)
        else:
            attempt.start()

    def _call(self, run: Run, position: int, params: dict[str, Any]) -> Call:
        execution = run.execution
        step = execution.steps[position]
        loop = asyncio.get_running_loop()
        number = step.attempt
        redact = self._secrets.redactor.text

        def report(message: str, fraction: float | None) -> None:
            message = redact(message)
            loop.call_soon_threadsafe(self._reported, run, position, number, message, fraction)

        synthesis = position == execution.synthesis
        return Call(
            execution.id, step.task.id, number, step.revision, params, execution.plan.original_request, step.task,
            lambda: execution.results(position), report,
            execution.plan.synthesis_plan if synthesis else "", execution.missing() if synthesis else (),
            execution.look_up, redact,
        )  # fmt: skip

    def _ask(self, run: Run, position: int, question: prepare.Question) -> None:
        run.execution.ask(
            position, "human", question.prompt, self.clock.now_ms(),
            answer_schema=question.schema, assignee=question.assignee,
        )  # fmt: skip

    def _begin_timer(self, run: Run, position: int, seconds: float, resolved: prepare.Resolved) -> None:
        now_ms = self.clock.now_ms()
        delay_ms = int(seconds * 1000)
        run.execution.begin(position, now_ms, input=resolved.input, due_at=now_ms + delay_ms)
        self._set_timer(run, position, delay_ms)

    def _set_timer(self, run: Run, position: int, delay_ms: int) -> None:
        def ring() -> None:
            del run.timers[position]
            step = run.execution.steps[position]
            waited_ms = (step.next_attempt_at or 0) - (step.started_at or 0)
            result = values.encode({"waited_seconds": waited_ms / 1000})
            run.execution.complete(position, result, self.clock.now_ms())
            self._changed(run)

        run.timers[position] = self.clock.call_later(max(0.0, delay_ms / 1000), ring)

    # -- hearing ----------------------------------------------------------------------------------------------------

    def _finished(self, run: Run, position: int, attempt: Attempt, outcome: Outcome) -> None:
        self._free(run, position, attempt)
        execution, now_ms = run.execution, self.clock.now_ms()
        try:
            if outcome.result is not None:
                execution.complete(position, outcome.result, now_ms, outcome.charge)
            else:
                execution.fail(
                    position, outcome.code, outcome.message, now_ms, outcome.charge,
                    detail=outcome.detail, outcome=outcome.kind,
                )  # fmt: skip
        except Exception as exc:
            log.exception("execution %s: the outcome of step %s cannot be taken", execution.id, attempt.call.task_id)
            self._lose(run, Stalled(f"Execution {execution.id} cannot go on: {exc!r}", execution_id=execution.id))
            return
        self._changed(run)

    def _free(self, run: Run, position: int, attempt: Attempt) -> None:
        del run.attempts[position]
        run.progress.pop(position, None)
        self._slots.release(attempt.tool)
        if attempt.task is not None and not attempt.task.done():
            self._orphans.add(attempt.task)
            attempt.task.add_done_callback(self._orphans.discard)

    def _reported(self, run: Run, position: int, attempt: int, message: str, fraction: float | None) -> None:
        step = run.execution.steps[position]
        if step.attempt != attempt or step.status is not StepStatus.RUNNING:
            return
        if position in run.progress:
            run.progress[position] = (message, fraction)  # the last of an interval is kept at its end
            return
        run.progress[position] = None
        run.execution.report(position, values.encode({"message": message, "fraction": fraction}))
        self._changed(run)
        self.clock.call_later(PROGRESS_INTERVAL_S, lambda: self._progress_due(run, position, attempt))

    def _progress_due(self, run: Run, position: int, attempt: int) -> None:
        latest = run.progress.pop(position, None)
        if latest is not None:
            self._reported(run, position, attempt, *latest)

    # -- committing -------------------------------------------------------------------------------------------------

    def _changed(self, run: Run) -> None:
        self._dirty[run] = None
        self._turn_soon()

    def _turn_soon(self) -> None:
        if not self._turn_due:
            self._turn_due = True
            asyncio.get_running_loop().call_soon(self._turn, context=self._context)

    def _turn(self) -> None:
        self._turn_due = False
        self._dispatch()
        if self._dirty and not self._hand_over_due:
            # One turn later: the bodies just started run first, so a quick step's start and end share one row update.
            self._hand_over_due = True
            asyncio.get_running_loop().call_soon(self._hand_over)

    def _hand_over(self) -> None:
        self._hand_over_due = False
        dirty, self._dirty = self._dirty, {}
        for run in dirty:
            if run.append is None and run.execution.changed:
                self._append(run)

    def _append(self, run: Run) -> None:
        changes = run.execution.take_changes(self.clock.now_ms())
        launches, run.launches = run.launches, []
        run.append = self._journal.append(changes)
        run.append.add_done_callback(lambda done: self._appended(run, changes, launches, done))

    def _appended(self, run: Run, changes: Changes, launches: list[Attempt], done: asyncio.Future[None]) -> None:
        run.append = None
        if self._runs.get(changes.execution_id) is not run:
            return  # given up meanwhile
        error = OutcomeUnknown() if done.cancelled() else done.exception()
        if error is not None:
            self._lose(run, error)
            return
        if not self._closing:
            for attempt in launches:
                attempt.start()
        self.tell(run.execution, changes)
        if changes.release:
            del self._runs[changes.execution_id]
            run.settle(None)
        else:
            self._enqueue(run, changes.ready)
            if run.execution.changed:
                self._dirty[run] = None
            else:
                self._check(run)
        self._turn_soon()

    def tell(self, execution: Execution, changes: Changes) -> None:
        """Call the listeners with changes that are durable. What this scheduler writes, it tells by itself."""
        for listener in tuple(self._listeners):
            try:
                listener(execution, changes)
            except Exception:
                log.exception("a listener failed; execution %s goes on", changes.execution_id)

    def _check(self, run: Run) -> None:
        """Wake those who wait, if all depends on a person now; give up if nothing runs and nothing is decided."""
        if not run.idle or self._closing:
            return
        if run.execution.status is ExecutionStatus.WAITING:
            run.settle(None)
            return
        id = run.execution.id
        self._lose(run, Stalled(f"Execution {id} has nothing that runs and is not decided.", execution_id=id))

    # -- losing and closing -----------------------------------------------------------------------------------------

    def give_up(self, execution_id: ExecutionId, error: BaseException) -> None:
        """Tell those who wait that an execution whose rows were rejected could not be ended either."""
        settle(self._waiters.pop(execution_id, None), error)

    def _lose(self, run: Run, error: BaseException) -> None:
        """Give up an execution: cut its bodies off, and tell those who wait."""
        id = run.execution.id
        if self._runs.get(id) is run:
            del self._runs[id]
        self._drop(run)
        self._dirty.pop(run, None)
        level = logging.WARNING if isinstance(error, Fenced | OutcomeUnknown) else logging.ERROR
        log.log(level, "execution %s is given up here: %s", id, error)
        self._turn_soon()  # its slots are free
        if self.on_rejected is None or self._closing or not isinstance(error, StoreRejected):
            run.settle(error)
            return
        # Those who wait hear of the end that follows.
        self._waiters[id] = run.settled or asyncio.get_running_loop().create_future()
        self.on_rejected(id, error)

    def _drop(self, run: Run) -> None:
        """Forget all that runs or is queued of an execution; its bodies are cut off."""
        self._slots.discard(run)  # before its slots are freed: they are for others
        run.queued = 0
        for position, attempt in list(run.attempts.items()):
            attempt.drop()
            self._free(run, position, attempt)
        for timer in run.timers.values():
            timer.cancel()
        run.timers.clear()
        run.launches.clear()

    async def close(self, grace_s: float) -> None:
        """Stop: start nothing more, give what runs `grace_s` to end, and leave the rest to the next owner.

        What is cut off and may run again is put back; of a `once` body the row says `running`, which is the truth.
        """
        self._closing = True
        for run in self._runs.values():
            for timer in run.timers.values():
                timer.cancel()
        bodies = [a.task for run in self._runs.values() for a in run.attempts.values() if a.task is not None]
        if bodies:
            await asyncio.wait(bodies, timeout=grace_s)
        now_ms = self.clock.now_ms()
        for run in self._runs.values():
            self._suspend(run, now_ms)
        await self._flush()
        for run in list(self._runs.values()):
            run.settle(_stopped(run.execution.id))
        for id in list(self._waiters):
            self.give_up(id, _stopped(id))
        await self._bury()

    def _suspend(self, run: Run, now_ms: int) -> None:
        cut_off = [
            position
            for position, attempt in run.attempts.items()
            if attempt.task is None or run.execution.steps[position].effect is not Effect.ONCE
        ]
        self._drop(run)
        for position in cut_off:
            if run.execution.steps[position].status is StepStatus.RUNNING:
                run.execution.suspend(position, now_ms)
        self._dirty[run] = None

    async def _flush(self) -> None:
        """Hand over until all is durable, within `CLOSE_COMMITS_S`: the rest is as if the process had died."""
        deadline = asyncio.get_running_loop().time() + CLOSE_COMMITS_S
        while (left := deadline - asyncio.get_running_loop().time()) > 0:
            self._dirty.update(dict.fromkeys(self._runs.values()))
            self._hand_over()
            appends = [run.append for run in self._runs.values() if run.append is not None]
            if not appends:
                return
            await asyncio.wait(appends, timeout=left)
            await asyncio.sleep(0)  # what their callbacks scheduled comes first

    async def _bury(self) -> None:
        """Let cut-off bodies end. One that swallows its cancellation must not keep the program from ending."""
        if self._orphans:
            await asyncio.wait(set(self._orphans), timeout=CLOSE_BODIES_S)
        for task in self._orphans:
            log.warning("a tool did not end when it was cancelled; it is left behind: %s", task.get_coro())
            # `asyncio.run` waits for every task it knows of, for ever. This is how one leaves its books; see
            # https://docs.python.org/3/library/asyncio-extending.html#task-lifetime-support
            asyncio._unregister_task(task)
            task._log_destroy_pending = False  # type: ignore[attr-defined]  # it is no news that it is pending


def _stopped(id: ExecutionId) -> Conflict:
    return Conflict(f"The engine stopped; execution {id} goes on at its next start.", execution_id=id)
