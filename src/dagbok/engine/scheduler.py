"""The one loop: starts what is ready, hears what ended, and lets nothing follow from what is not yet durable.

Dataflow, never layers. Each event changes an aggregate; once a turn of the event loop, what changed is handed to the
journal (one append per execution under way, so everything that happens meanwhile rides in the next); when the append
is durable, the steps it made ready may start. The body of a `once` tool starts after its own start is durable, all
others at once, so that start and end of a quick step share a commit.

Not safe to call from other threads.
"""

from __future__ import annotations

import asyncio
import logging
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from dagbok.domain import values
from dagbok.domain.call import Call
from dagbok.domain.execution import Execution
from dagbok.domain.ids import ExecutionId
from dagbok.domain.plan import HUMAN
from dagbok.domain.records import Changes, Command
from dagbok.domain.states import Effect, ExecutionStatus, StepStatus
from dagbok.engine.ports import Clock, Journal, Timer, Tools, ToolSpec
from dagbok.engine.ready import ReadyQueue
from dagbok.engine.runner import Attempt, Outcome, failure
from dagbok.errors import BadInput, Conflict, DagbokError, Fenced, NotFound, OutcomeUnknown, Stalled, StoreRejected

log = logging.getLogger("dagbok.engine")

#: A step's progress is kept at most this often.
PROGRESS_INTERVAL_S = 0.25
#: The longest a timer may run.
MAX_TIMER_S = 366 * 86_400

Listener = Callable[[Execution, Changes], None]


class _Run:
    """What the scheduler keeps of an execution it owns, beside the aggregate."""

    __slots__ = ("active", "append", "attempts", "execution", "launches", "progress", "queued", "settled", "timers")

    def __init__(self, execution: Execution) -> None:
        self.execution = execution
        self.append: asyncio.Future[None] | None = None  # the commit under way
        self.attempts: dict[int, Attempt] = {}  # by position: bodies that run
        self.timers: dict[int, Timer] = {}  # by position: `wait` steps
        self.launches: list[Attempt] = []  # bodies that wait for their start to be durable
        self.queued = 0  # steps in a ready queue
        self.progress: dict[int, tuple[str, float | None] | None] = {}  # the latest report that waits for its turn
        self.settled: asyncio.Future[None] | None = None  # for those who wait until it ended or needs a person

    @property
    def idle(self) -> bool:
        return not (self.attempts or self.timers or self.queued)


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
    ) -> None:
        self._journal = journal
        self._tools = tools
        self.clock = clock
        self._free = max_concurrency
        self._max_bytes = max_result_bytes
        self._runs: dict[ExecutionId, _Run] = {}
        self._ready: ReadyQueue[_Run] = ReadyQueue()
        self._tool_running: defaultdict[str, int] = defaultdict(int)
        self._tool_queue: dict[str, ReadyQueue[_Run]] = {}  # steps whose tool is at its own limit
        self._dirty: dict[_Run, None] = {}
        self._turn_due = False
        self._hand_over_due = False
        self._closing = False
        self._listeners: list[Listener] = []
        self._orphans: set[asyncio.Task[None]] = set()  # bodies that ended for us, but not yet for Python
        self._waiters: dict[ExecutionId, asyncio.Future[None]] = {}  # of executions between rejection and rescue
        #: Called when the database refuses an execution's rows; expected to end it by `take_over` or to `give_up`.
        self.on_rejected: Callable[[ExecutionId, StoreRejected], None] | None = None

    # -- owning -----------------------------------------------------------------------------------------------------

    def add(self, execution: Execution) -> None:
        """Own a new execution whose submission is durable."""
        run = self._runs[execution.id] = _Run(execution)
        self._enqueue(run, execution.take_ready())
        self._turn_soon()

    def take_over(self, execution: Execution) -> None:
        """Own an execution that an earlier owner left: close its open attempts and go on."""
        run = self._runs[execution.id] = _Run(execution)
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

    def owned(self) -> Iterable[Execution]:
        """Return the executions in memory."""
        return [run.execution for run in self._runs.values()]

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
            Stalled, StoreError: It cannot go on in this process.
        """
        run = self._runs.get(id)
        if run is None or (run.execution.status is ExecutionStatus.WAITING and run.append is None and run.idle):
            return
        if run.settled is None:
            run.settled = asyncio.get_running_loop().create_future()
        await asyncio.shield(run.settled)

    def apply(self, command: Command) -> None:
        """Apply a command to an execution in memory. What no longer fits is marked applied and changes nothing.

        Raises:
            NotFound: The execution is not in memory.
        """
        run = self._runs.get(command.execution_id)
        if run is None:
            raise NotFound(f"Execution {command.execution_id} is not run here.", execution_id=command.execution_id)
        execution, now_ms = run.execution, self.clock.now_ms()
        try:
            if command.kind == "cancel":
                execution.cancel(now_ms, by=command.by)
                self._drop(run)
            elif command.kind == "answer":
                execution.answer(execution.index[command.data["taskId"]], command.data["answer"], now_ms, by=command.by)
            else:
                log.warning("execution %s: unknown command %s", execution.id, command.kind)
        except (Conflict, KeyError) as exc:
            log.info("execution %s: command %s changed nothing: %s", execution.id, command.kind, exc)
        execution.applied(command.id)
        self._changed(run)

    async def close(self, grace_s: float) -> None:
        """Stop: start nothing more, give what runs `grace_s` to end, and cut off the rest for the next owner."""
        self._closing = True
        for run in self._runs.values():
            for timer in run.timers.values():
                timer.cancel()
        bodies = [a.task for run in self._runs.values() for a in run.attempts.values() if a.task is not None]
        if bodies:
            await asyncio.wait(bodies, timeout=grace_s)
        self._hand_over()
        # Those who ended meanwhile are written; a step that is cut off stays `running` in its row, which is the truth.
        while appends := [run.append for run in self._runs.values() if run.append is not None]:
            await asyncio.wait(appends)
        for run in list(self._runs.values()):
            self._drop(run)
            self._settle(run, Conflict(f"The engine stopped; execution {run.execution.id} goes on at its next start."))
        # A body that swallows its cancellation does not keep the program from ending.
        if self._orphans:
            await asyncio.wait(set(self._orphans), timeout=1.0)

    # -- starting ---------------------------------------------------------------------------------------------------

    def _enqueue(self, run: _Run, positions: Sequence[int]) -> None:
        for position in positions:
            self._ready.push(run, position, run.execution.remaining(position))
        run.queued += len(positions)

    def _dispatch(self) -> None:
        while self._free and self._ready and not self._closing:
            run, position = self._ready.pop()
            run.queued -= 1
            self._start(run, position)

    def _start(self, run: _Run, position: int) -> None:
        execution = run.execution
        step = execution.steps[position]
        if step.status is not StepStatus.PENDING or execution.ended:
            return  # cancelled or skipped while it stood in the queue
        name = step.task.tool
        now_ms = self.clock.now_ms()
        results = execution.results
        try:
            params = (
                execution.params(position, results(position), max_bytes=self._max_bytes)
                if step.has_references
                else None
            )
            if name == HUMAN:
                self._ask(run, position, params)
                return
            tool = self._tools.get(name)
            if tool is None:
                raise NotFound(f"The tool {name!r} is not known to this process; start it with the module that has it.")
            if tool.max_concurrency is not None and self._tool_running[tool.name] >= tool.max_concurrency:
                self._tool_queue.setdefault(tool.name, ReadyQueue()).push(run, position, execution.remaining(position))
                run.queued += 1
                return
            input = None if params is None else values.encode(params, max_bytes=self._max_bytes)
            seconds = _seconds(params or step.task.tool_or_prompt.params) if tool.timer else None
        except DagbokError as exc:
            outcome = failure(exc)
            code = outcome.code if not isinstance(exc, NotFound) else "unknown_tool"
            execution.fail(position, code, outcome.message, now_ms, detail=None)
            self._changed(run)
            return
        if seconds is not None:
            execution.begin(position, now_ms, input=input, due_at=now_ms + int(seconds * 1000))
            self._set_timer(run, position, int(seconds * 1000))
        else:
            execution.begin(position, now_ms, input=input)
            self._prepare(run, position, tool, params)
        self._changed(run)

    def _prepare(self, run: _Run, position: int, tool: ToolSpec, params: dict[str, Any] | None) -> None:
        execution = run.execution
        step = execution.steps[position]
        loop = asyncio.get_running_loop()
        attempt_number = step.attempt

        def report(message: str, fraction: float | None) -> None:
            loop.call_soon_threadsafe(self._reported, run, position, attempt_number, message, fraction)

        synthesis = position == execution.synthesis
        call = Call(
            execution.id, step.task.id, step.attempt, step.revision,
            step.task.tool_or_prompt.params if params is None else params,
            execution.plan.original_request, step.task, lambda: execution.results(position), report,
            execution.plan.synthesis_plan if synthesis else "", execution.missing() if synthesis else (),
            execution.look_up,
        )  # fmt: skip
        timeout_s = step.task.timeout_seconds or tool.timeout_s

        def done(attempt: Attempt, outcome: Outcome) -> None:
            self._finished(run, position, attempt, outcome)

        attempt = Attempt(call, tool, clock=self.clock, timeout_s=timeout_s, max_bytes=self._max_bytes, done=done)
        run.attempts[position] = attempt
        self._free -= 1
        if tool.max_concurrency is not None:
            self._tool_running[tool.name] += 1
        if step.effect is Effect.ONCE:
            run.launches.append(attempt)
        else:
            attempt.start()

    def _ask(self, run: _Run, position: int, params: dict[str, Any] | None) -> None:
        params = params or run.execution.steps[position].task.tool_or_prompt.params
        schema = params.get("schema")
        run.execution.ask(
            position,
            "human",
            str(params.get("prompt", "")),
            self.clock.now_ms(),
            answer_schema=None if schema is None else values.encode(schema),
            assignee=params.get("assignee"),
        )
        self._changed(run)

    # -- hearing ----------------------------------------------------------------------------------------------------

    def _finished(self, run: _Run, position: int, attempt: Attempt, outcome: Outcome) -> None:
        self._free_slot(run, position, attempt)
        execution, now_ms = run.execution, self.clock.now_ms()
        if outcome.result is not None:
            execution.complete(position, outcome.result, now_ms, outcome.charge)
        else:
            execution.fail(
                position,
                outcome.code,
                outcome.message,
                now_ms,
                outcome.charge,
                detail=outcome.detail,
                outcome=outcome.kind,
            )
        self._changed(run)

    def _free_slot(self, run: _Run, position: int, attempt: Attempt) -> None:
        del run.attempts[position]
        run.progress.pop(position, None)
        self._free += 1
        name = attempt.tool.name
        if attempt.tool.max_concurrency is not None:
            self._tool_running[name] -= 1
            if waiting := self._tool_queue.get(name):
                other, at = waiting.pop()
                self._ready.push(other, at, other.execution.remaining(at))
                if not waiting:
                    del self._tool_queue[name]
        if attempt.task is not None and not attempt.task.done():
            self._orphans.add(attempt.task)
            attempt.task.add_done_callback(self._orphans.discard)

    def _set_timer(self, run: _Run, position: int, delay_ms: int) -> None:
        def ring() -> None:
            del run.timers[position]
            seconds = (run.execution.steps[position].next_attempt_at or 0) - (
                run.execution.steps[position].started_at or 0
            )
            run.execution.complete(position, values.encode({"waited_seconds": seconds / 1000}), self.clock.now_ms())
            self._changed(run)

        run.timers[position] = self.clock.call_later(max(0.0, delay_ms / 1000), ring)

    def _reported(self, run: _Run, position: int, attempt: int, message: str, fraction: float | None) -> None:
        step = run.execution.steps[position]
        if step.attempt != attempt or step.status is not StepStatus.RUNNING:
            return
        if position not in run.progress:  # the first of an interval is kept at once, the last of it at its end
            self._keep_progress(run, position, message, fraction)
            self.clock.call_later(PROGRESS_INTERVAL_S, lambda: self._progress_due(run, position, attempt))
            run.progress[position] = None
        else:
            run.progress[position] = (message, fraction)

    def _progress_due(self, run: _Run, position: int, attempt: int) -> None:
        latest = run.progress.pop(position, None)
        if latest is not None:
            self._reported(run, position, attempt, *latest)

    def _keep_progress(self, run: _Run, position: int, message: str, fraction: float | None) -> None:
        run.execution.report(position, values.encode({"message": message, "fraction": fraction}))
        self._changed(run)

    # -- committing -------------------------------------------------------------------------------------------------

    def _changed(self, run: _Run) -> None:
        self._dirty[run] = None
        self._turn_soon()

    def _turn_soon(self) -> None:
        if not self._turn_due:
            self._turn_due = True
            asyncio.get_running_loop().call_soon(self._turn)

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

    def _append(self, run: _Run) -> None:
        changes = run.execution.take_changes(self.clock.now_ms())
        launches, run.launches = run.launches, []
        run.append = self._journal.append(changes)
        run.append.add_done_callback(lambda done: self._appended(run, changes, launches, done))

    def _appended(self, run: _Run, changes: Changes, launches: list[Attempt], done: asyncio.Future[None]) -> None:
        run.append = None
        error = OutcomeUnknown() if done.cancelled() else done.exception()
        if error is not None:
            self._lose(run, error)
            return
        for attempt in launches:
            attempt.start()
        for listener in tuple(self._listeners):
            try:
                listener(run.execution, changes)
            except Exception:
                log.exception("a listener failed; execution %s goes on", changes.execution_id)
        if changes.release:
            self._runs.pop(changes.execution_id, None)
            self._settle(run, None)
        else:
            self._enqueue(run, changes.ready)
            if run.execution.changed:
                self._dirty[run] = None
            else:
                self._check(run)
        self._turn_soon()

    def _check(self, run: _Run) -> None:
        """Wake those who wait, if all depends on a person now; raise if nothing runs and nothing is decided."""
        if not run.idle or run.execution.changed or run.append is not None or self._closing:
            return
        if run.execution.status is ExecutionStatus.WAITING:
            self._settle(run, None)
            return
        stalled = Stalled(
            f"Execution {run.execution.id} has nothing that runs and is not decided.", execution_id=run.execution.id
        )
        self._lose(run, stalled)

    def _lose(self, run: _Run, error: BaseException) -> None:
        """Give up an execution: cut its bodies off, and tell those who wait."""
        self._drop(run)
        self._runs.pop(run.execution.id, None)
        self._dirty.pop(run, None)
        level = logging.WARNING if isinstance(error, (Fenced, OutcomeUnknown)) else logging.ERROR
        log.log(level, "execution %s is given up here: %s", run.execution.id, error)
        if self.on_rejected is None or self._closing or not isinstance(error, StoreRejected):
            self._settle(run, error)
            return
        if run.settled is not None:
            self._waiters[run.execution.id] = run.settled  # those who wait hear of the end that follows
        self.on_rejected(run.execution.id, error)

    def give_up(self, execution_id: ExecutionId, error: BaseException) -> None:
        """Tell those who wait that an execution whose rows were rejected could not be ended either."""
        settled = self._waiters.pop(execution_id, None)
        if settled is not None:
            _set_error(settled, error)

    def _drop(self, run: _Run) -> None:
        """Forget all that runs or is queued of an execution; its bodies are cut off."""
        for position, attempt in list(run.attempts.items()):
            attempt.drop()
            self._free_slot(run, position, attempt)
        for timer in run.timers.values():
            timer.cancel()
        run.timers.clear()
        run.launches.clear()
        self._ready.discard(run)
        for queue in self._tool_queue.values():
            queue.discard(run)
        run.queued = 0

    def _settle(self, run: _Run, error: BaseException | None) -> None:
        settled, run.settled = run.settled, None
        if settled is not None and not settled.done():
            if error is None:
                settled.set_result(None)
            else:
                _set_error(settled, error)


def _set_error(future: asyncio.Future[None], error: BaseException) -> None:
    future.set_exception(error)
    future.exception()  # retrieved: a waiter that went away is no "never retrieved" warning


def _seconds(params: Mapping[str, Any]) -> float:
    seconds = params.get("seconds")
    if isinstance(seconds, bool) or not isinstance(seconds, int | float) or not 0 <= seconds <= MAX_TIMER_S:
        raise BadInput(f"`seconds` is {seconds!r}; it is a number from 0 to {MAX_TIMER_S}.")
    return float(seconds)
