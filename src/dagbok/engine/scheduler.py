"""The one loop: starts what is ready, hears what ended, and lets nothing follow from what is not yet durable.

Dataflow, never layers. Each event changes an aggregate; once a turn of the event loop, what changed is handed to the
journal (one append per execution under way, so everything that happens meanwhile rides in the next); when the append
is durable, the steps it made ready may start. The body of a `once` tool starts after its own start is durable, all
others at once, so that start and end of a quick step share a commit.

Waiting costs a row and no memory: an execution that has nothing to do for a while is released (`on_parked`), and taken
over again when it is due or somebody asks something of it.

Not safe to call from other threads.
"""

from __future__ import annotations

import asyncio
import contextvars
import logging
from collections.abc import Callable, Iterable, Sequence
from functools import partial

from dagbok.domain import commands, secrets
from dagbok.domain.call import Call
from dagbok.domain.execution import Execution
from dagbok.domain.ids import ExecutionId, TaskId
from dagbok.domain.plan import HUMAN
from dagbok.domain.records import Changes, Command
from dagbok.domain.retry import Policy, readable
from dagbok.domain.states import Effect, ExecutionStatus, StepStatus
from dagbok.domain.task import Task
from dagbok.engine import prepare
from dagbok.engine.bodies import Bodies
from dagbok.engine.orphans import Orphans
from dagbok.engine.ports import NO_SECRETS, Clock, Journal, Secrets, Tools, ToolSpec
from dagbok.engine.reports import Reports
from dagbok.engine.run import Run, settle
from dagbok.engine.runner import Attempt, Outcome, failure
from dagbok.engine.slots import Slots
from dagbok.errors import Conflict, DagbokError, Fenced, NotFound, OutcomeUnknown, Stalled, ToolError

log = logging.getLogger("dagbok.engine")

#: An execution that has nothing to do for longer than this leaves the memory.
PARK_AFTER_S = 5.0
#: How many steps begin before what they bring is heard. What thousands begin together would be alive together, which
#: the garbage collector looks through again and again; and the loop would do nothing else meanwhile.
STARTS_A_TURN = 100
#: How long closing waits for commits under way: a database may be away.
CLOSE_COMMITS_S = 10.0

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
        retry: Policy | None = None,
    ) -> None:
        self.clock = clock
        self._retry = retry or Policy()
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
        self._orphans = Orphans()
        self._bodies = Bodies(clock, secrets, Reports(clock, self._changed), max_bytes=max_result_bytes)
        self._waiters: dict[ExecutionId, asyncio.Future[None]] = {}  # of executions that are not in memory now
        #: Executions that left the memory and come back by themselves.
        self.parked: set[ExecutionId] = set()
        #: Called when an execution was released, with the time when it is due (None: by itself never); expected to
        #: `take_over` it then. Without it every execution stays in memory.
        self.on_parked: Callable[[int | None], None] | None = None
        #: Called with what an attempt of a `once` tool brings after its time was over: somebody is asked about it.
        self.on_late: Callable[[Call, Outcome], None] | None = None
        #: Called with a task and the number of its question, whose time is over: to close it, by the command `expire`,
        #: unless an answer is on its way. Called again a while later. Without it the question is closed at once.
        self.on_expired: Callable[[ExecutionId, TaskId, int], None] | None = None
        #: Called when an execution is lost; returns whether it goes on: by `take_over`, or else `leave_out` follows.
        self.on_lost: Callable[[ExecutionId, BaseException], bool] | None = None

    # -- owning -----------------------------------------------------------------------------------------------------

    def add(self, execution: Execution) -> None:
        """Own a new execution whose submission is durable. After `close` it is left to the next start."""
        if not self._closing:
            run = self._own(execution)
            self._arm(run)
            self._enqueue(run, execution.take_ready())
            self._changed(run)  # a fork may have nothing to begin with but a question

    def take_over(self, execution: Execution, command: Command | None = None) -> None:
        """Own an execution that an earlier owner left: close its open attempts, apply the `command`, and go on."""
        if self._closing:
            return
        run = self._own(execution)
        run.careful = not (execution.was_parked or execution.ended)
        run.settled = self._waiters.pop(execution.id, None)
        self.parked.discard(execution.id)
        execution.take_over(self.clock.now_ms())
        self._ring(run)  # before anything begins: its deadline may have passed
        if command is not None:
            self._apply(run, command)
        if not execution.changed:  # otherwise its ready steps start once the closed attempts are durable
            self._enqueue(run, execution.take_ready())
            self._check(run)

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
        if self._closing:  # nobody is told any more
            raise _stopped(id)
        run = self._runs.get(id)
        if run is not None:
            if run.waits_for_a_person:
                return
            if run.settled is None:
                run.settled = asyncio.get_running_loop().create_future()
            await asyncio.shield(run.settled)
        elif id in self._waiters or id in self.parked:
            waiting = self._waiters.setdefault(id, asyncio.get_running_loop().create_future())
            await asyncio.shield(waiting)

    def apply(self, command: Command) -> bool:
        """Apply a command to an execution in memory; see `commands.apply`.

        Returns:
            Whether that was done: one that is leaving the memory takes no command any more, or, as it has ended, no
            retry.

        Raises:
            NotFound: The execution is not in memory.
        """
        run = self._runs.get(command.execution_id)
        if run is None:
            raise NotFound(f"Execution {command.execution_id} is not run here.", execution_id=command.execution_id)
        if run.parking or (command.kind == "retry" and run.execution.ended):
            return False  # the commit under way lets go of it: what began now would belong to nobody
        self._apply(run, command)
        return True

    def _apply(self, run: Run, command: Command) -> None:
        commands.apply(run.execution, command, self.clock.now_ms())
        if run.execution.paused:
            self._hold(run, self._slots.discard(run))
            run.queued = 0
        self._changed(run)

    async def left(self, id: ExecutionId) -> None:
        """Return once an execution that is leaving the memory has left it."""
        run = self._runs.get(id)
        if run is not None and run.append is not None:
            await asyncio.wait([run.append])

    # -- starting ---------------------------------------------------------------------------------------------------

    def _enqueue(self, run: Run, positions: Sequence[int]) -> None:
        if run.execution.paused and positions:
            self._hold(run, positions)
            self._changed(run)  # nothing to write; but nothing goes on of it any more
            return
        for position in positions:
            if run.execution.ended:
                return  # the one before could not start, and the first failure was to end it
            if self._needs_no_slot(run, position):
                self._start(run, position)
                self._changed(run)
            else:
                self._slots.push(run, position, run.execution.remaining(position))
                run.queued += 1

    def _hold(self, run: Run, positions: Iterable[int]) -> None:
        """Keep what may not begin while it is paused."""
        for position in positions:
            run.execution.hold(position)

    def _needs_no_slot(self, run: Run, position: int) -> bool:
        step = run.execution.steps[position]
        if step.task.tool == HUMAN or step.needs_approval:
            return True
        tool = self._tool(run, position)
        return tool is not None and tool.timer

    def _tool(self, run: Run, position: int) -> ToolSpec | None:
        return self._tools.get(run.execution.steps[position].task.tool)

    def _dispatch(self) -> bool:
        """Let the next steps begin; return whether there may be more."""
        changed: dict[Run, None] = {}
        more = True
        for _ in range(STARTS_A_TURN):
            if self._closing or (turn := self._slots.pop()) is None:
                more = False
                break
            run, position = turn
            run.queued -= 1
            self._start(run, position)
            changed[run] = None
            if position not in run.attempts and (tool := self._tool(run, position)) is not None:
                self._slots.pass_on(tool)
        for run in changed:
            self._changed(run)
        return more

    def _start(self, run: Run, position: int) -> None:
        """Begin an attempt, ask a person, set a timer, line the step up, or fail it: whatever its turn brings."""
        execution = run.execution
        step = execution.steps[position]
        if not step.startable or execution.ended or self._closing:
            return  # cancelled or skipped while it stood in the queue
        try:
            tool = self._tool(run, position)
            if tool is None and step.task.tool != HUMAN:
                message = (
                    f"The tool {step.task.tool!r} is not known to this process; start it with the module that has it."
                )
                raise ToolError(message, code="unknown_tool")
            needs_approval = step.needs_approval
            if tool is not None and not needs_approval and not self._slots.has_room(tool):
                self._slots.line_up(tool, run, position, execution.remaining(position))
                run.queued += 1
                return
            resolved = prepare.resolve(execution, position, max_bytes=self._max_bytes, redactor=self._secrets.redactor)
            if needs_approval:
                execution.ask_approval(position, self.clock.now_ms(), input=resolved.input)
            elif tool is None:
                self._ask(run, position, prepare.question(resolved.params))
            elif tool.timer:
                now_ms = self.clock.now_ms()
                due_at = now_ms + int(prepare.seconds(resolved.params) * 1000)
                execution.begin(position, now_ms, input=resolved.input, due_at=due_at)
            else:
                self._begin(run, position, tool, resolved)
        except DagbokError as exc:
            outcome = failure(exc, self._secrets.redactor)
            execution.fail(position, outcome.code, outcome.message, self.clock.now_ms())
        except Exception as exc:
            log.exception("execution %s: step %s cannot start", execution.id, step.task.id)
            outcome = failure(exc, self._secrets.redactor)
            execution.fail(position, "engine_error", outcome.message, self.clock.now_ms(), detail=outcome.detail)

    def _begin(self, run: Run, position: int, tool: ToolSpec, resolved: prepare.Resolved) -> None:
        execution = run.execution
        step = execution.steps[position]
        if resolved.params and secrets.may_have(step.task.tool):
            before = execution.before_edit(position) if step.override else None
            secrets.fill(step.task.tool_or_prompt.params, resolved.params, self._secrets.get, before=before)
        execution.begin(position, self.clock.now_ms(), input=resolved.input)
        run.attempts[position] = attempt = self._bodies.attempt(
            run, position, tool, resolved.params,
            done=partial(self._finished, run, position), late=self.on_late if step.effect is Effect.ONCE else None,
        )  # fmt: skip
        self._slots.take(tool)
        if step.effect is Effect.ONCE or run.careful:
            run.launches.append(attempt)
        else:
            self._bodies.launch(attempt)

    def _ask(self, run: Run, position: int, question: prepare.Question) -> None:
        run.execution.ask(
            position, question.prompt, self.clock.now_ms(), answer_schema=question.schema, assignee=question.assignee
        )

    # -- what is due ------------------------------------------------------------------------------------------------

    def _arm(self, run: Run) -> None:
        """Let the timer of an execution ring when something of it is due. O(1) where that has not changed."""
        due_at = run.execution.next_due_at
        if due_at == run.due_at or self._closing:
            return
        run.disarm()
        if due_at is not None:
            run.due_at = due_at
            run.timer = self.clock.call_at(due_at, lambda: self._ring(run))

    def _ring(self, run: Run) -> None:
        run.disarm()
        rung = run.execution.ring(self.clock.now_ms())
        for task_id, number in rung.expired:
            self._expire(run, task_id, number)
        self._enqueue(run, rung.again)
        self._changed(run)

    def _expire(self, run: Run, task_id: TaskId, number: int) -> None:
        if self.on_expired is not None:
            self.on_expired(run.execution.id, task_id, number)
        else:
            run.execution.expire(run.execution.index[task_id], number, self.clock.now_ms())

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
                    detail=outcome.detail, outcome=outcome.kind, unknown=outcome.unknown,
                    retry=self._retry_of(execution.steps[position].task, attempt.tool),
                    retry_after_s=outcome.retry_after_s,
                )  # fmt: skip
        except Exception as exc:
            log.exception("execution %s: the outcome of step %s cannot be taken", execution.id, attempt.call.task_id)
            self._lose(run, Stalled(f"Execution {execution.id} cannot go on: {exc!r}", execution_id=execution.id))
            return
        self._changed(run)

    def _retry_of(self, task: Task, tool: ToolSpec) -> Policy:
        return self._retry.over(tool.retry).over(readable(task.retry))

    def _free(self, run: Run, position: int, attempt: Attempt) -> None:
        del run.attempts[position]
        run.progress.pop(position, None)
        self._slots.release(attempt.tool)
        if attempt.cut_off is not None:
            self._orphans.take(attempt.cut_off)

    # -- committing -------------------------------------------------------------------------------------------------

    def _changed(self, run: Run) -> None:
        if run.execution.ended:
            self._drop(run)
        self._dirty[run] = None
        self._turn_soon()

    def _turn_soon(self) -> None:
        if not self._turn_due:
            self._turn_due = True
            asyncio.get_running_loop().call_soon(self._turn, context=self._context)

    def _turn(self) -> None:
        self._turn_due = False
        more = self._dispatch()
        if self._dirty and not self._hand_over_due:
            # One turn later: the bodies just started run first, so a quick step's start and end share one row update.
            self._hand_over_due = True
            asyncio.get_running_loop().call_soon(self._hand_over)
        if more:
            self._turn_soon()  # behind the bodies, and what they bring

    def _hand_over(self) -> None:
        self._hand_over_due = False
        dirty, self._dirty = self._dirty, {}
        for run in dirty:
            if self._runs.get(run.execution.id) is not run:
                continue
            self._arm(run)  # here, where each run passes that changed, whenever in the turn that was
            if run.append is not None:
                continue
            if run.execution.changed:
                self._append(run)
            else:
                self._check(run)

    def _append(self, run: Run) -> None:
        launches, run.launches = run.launches, []
        self._write(run, run.execution.take_changes(self.clock.now_ms()), launches)

    def _write(self, run: Run, changes: Changes, launches: list[Attempt]) -> None:
        run.append = self._journal.append(changes)
        run.append.add_done_callback(partial(self._appended, run, changes, launches))

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
                self._bodies.launch(attempt)
        self.tell(run.execution, changes)
        if changes.release and run.idle:
            self._leave(run, changes.header.wake_at)
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
        """Of an execution with nothing that runs: wake those who wait for a person's turn, and release it for a while.

        One that nothing ever brings back, and that is not decided, is given up.
        """
        if not run.idle or self._closing:
            return
        execution, due_at = run.execution, run.execution.next_due_at
        if execution.status is ExecutionStatus.WAITING:
            run.settle(None)
        elif due_at is None:
            id = execution.id
            self._lose(run, Stalled(f"Execution {id} has nothing that runs and is not decided.", execution_id=id))
            return
        now_ms = self.clock.now_ms()
        if self.on_parked is not None and (due_at is None or due_at - now_ms > PARK_AFTER_S * 1000):
            run.parking = True
            run.disarm()
            self._write(run, execution.release(now_ms), [])

    def _leave(self, run: Run, wake_at: int | None) -> None:
        """Forget an execution that is released, durably."""
        execution = run.execution
        del self._runs[execution.id]
        self._dirty.pop(run, None)
        run.disarm()
        if execution.ended or execution.status is ExecutionStatus.WAITING:
            run.settle(None)
        else:
            self.parked.add(execution.id)
            if run.settled is not None:
                self._waiters[execution.id] = run.settled
        if not execution.ended and self.on_parked is not None:
            self.on_parked(wake_at)

    # -- losing and closing -----------------------------------------------------------------------------------------

    def leave_out(self, execution_id: ExecutionId, error: BaseException | None = None) -> None:
        """Tell those who wait for an execution which is not in memory that it does not go on here; look at its rows."""
        self.parked.discard(execution_id)
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
        # Where it goes on after all, those who wait hear of the end that follows.
        self._waiters[id] = run.settled or asyncio.get_running_loop().create_future()
        if self._closing or self.on_lost is None or not self.on_lost(id, error):
            self.leave_out(id, error)

    def _drop(self, run: Run) -> None:
        """Forget all that runs or is queued of an execution; its bodies are cut off."""
        self._slots.discard(run)  # before its slots are freed: they are for others
        run.queued = 0
        for position, attempt in list(run.attempts.items()):
            attempt.drop()
            self._free(run, position, attempt)
        run.disarm()
        run.launches.clear()

    async def close(self, grace_s: float) -> None:
        """Stop: start nothing more, give what runs `grace_s` to end, and leave the rest to the next owner.

        What is cut off and may run again is put back; of a `once` body the row says `running`, which is the truth.
        """
        self._closing = True
        for run in self._runs.values():
            run.disarm()
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
            self.leave_out(id, _stopped(id))
        await self._orphans.bury()

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


def _stopped(id: ExecutionId) -> Conflict:
    return Conflict(f"The engine stopped; execution {id} goes on at its next start.", execution_id=id)
