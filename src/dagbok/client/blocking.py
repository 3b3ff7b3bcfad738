"""`Client`: a server of Dagbok for synchronous programs.

What to send and how to read the answer is said once, in `calls`; this and `awaiting` differ only in how they send it.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from datetime import datetime
from types import TracebackType
from typing import Literal, Self, TypeVar, overload

import httpx2

from dagbok import wire
from dagbok.client import calls
from dagbok.client.calls import TIMEOUT_S, Call, base_url_of
from dagbok.client.tries import Patience, Tries
from dagbok.domain.plan import Plan
from dagbok.domain.states import FailurePolicy
from dagbok.domain.values import Json

T = TypeVar("T")


class Client:
    """A server of Dagbok. Safe to share between threads; close it, or use it as a context manager."""

    def __init__(
        self,
        base_url: str | None = None,
        *,
        timeout_s: float = TIMEOUT_S,
        transport: httpx2.BaseTransport | None = None,
    ) -> None:
        """Prepare a client; nothing is sent yet.

        Args:
            base_url: Where the server answers; else `DAGBOK_URL`, else http://127.0.0.1:3000.
            timeout_s: The longest one answer may take. `wait` and `run` have their own.
            transport: How requests are sent, for tests and proxies.
        """
        self.base_url = base_url_of(base_url)
        self._timeout_s = timeout_s
        self._http = httpx2.Client(base_url=self.base_url, transport=transport)

    def __enter__(self) -> Self:
        """Return the client, closed at the end of the block."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the connections."""
        self.close()

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def _send(self, call: Call[T]) -> T:
        tries = Tries(call, self.base_url)
        while True:
            outcome: httpx2.Response | Exception
            try:
                outcome = self._http.request(**call.request(self._timeout_s))
            except (httpx2.HTTPError, httpx2.InvalidURL) as exc:
                outcome = exc
            pause_s = tries.pause_s(outcome)
            if pause_s is None:
                return tries.result(outcome)
            time.sleep(pause_s)

    def submit(
        self,
        plan: Plan | Json | str | bytes,
        *,
        title: str | None = None,
        labels: Mapping[str, str] | None = None,
        deadline_seconds: float | None = None,
        failure_policy: FailurePolicy | Literal["continue", "fail_fast"] | None = None,
        idempotency_key: str | None = None,
    ) -> wire.SubmitResponse:
        """Submit a plan: an execution that is durable and runs.

        Args:
            plan: A `Plan`, its JSON, or the text of that.
            title: A name for lists; else the plan's own.
            labels: Words of yours.
            deadline_seconds: From the submission on, at most 366 days; what has not ended by then is cancelled, and
                what completed counts.
            failure_policy: With fail_fast the first sub-task that fails ends the execution; else (`continue`) all that
                does not depend on it runs.
            idempotency_key: 1 to 255 visible ASCII characters; a random one where none is given. Submitting the same
                with the same key again returns the same execution, until it is deleted.

        Raises:
            InvalidPlan: With every problem in `problems`.
            MalformedJson, NotJson, TooLarge, BadInput: Nothing was stored.
            Conflict: The plan asks for a clarification; the message holds the question.
            IdempotencyKeyReused, IdempotencyInFlight: The key came with another plan; with a request under way.
            StoreUnavailable: The server cannot be reached, or cannot write now; nothing was stored.
            OutcomeUnknown: The answer was lost, three times. Submit again with the `idempotency_key` of the error.
        """
        options = calls.options(title, labels, deadline_seconds, failure_policy)
        submitted = self._send(calls.submit(plan, options, idempotency_key))
        assert isinstance(submitted, wire.SubmitResponse), "nobody wished to wait"
        return submitted

    def run(
        self,
        plan: Plan | Json | str | bytes,
        *,
        title: str | None = None,
        labels: Mapping[str, str] | None = None,
        deadline_seconds: float | None = None,
        failure_policy: FailurePolicy | Literal["continue", "fail_fast"] | None = None,
        idempotency_key: str | None = None,
        timeout_s: float | None = None,
    ) -> wire.Execution:
        """Submit a plan and return its execution once it has ended or waits for a person.

        Raises like `submit` and `wait`.
        """
        patience = Patience(timeout_s)
        options = calls.options(title, labels, deadline_seconds, failure_policy)
        submitted = self._send(calls.submit(plan, options, idempotency_key, patience.wait_s()))
        if isinstance(submitted, wire.Execution):
            return submitted
        patience.pause_s(submitted.execution_id)
        return self.wait(submitted.execution_id, patience.left_s)

    def get(self, execution_id: str) -> wire.Execution:
        """Return an execution with its sub-steps; results over 64 KiB come by `result`. Raises NotFound."""
        return self._send(calls.get(execution_id))

    def list(
        self, limit: int = 50, offset: int = 0, status: str | None = None, *, cursor: str | None = None
    ) -> wire.ExecutionList:
        """Return a page of executions, newest first.

        Args:
            limit: At most so many, from 1 to 100.
            offset: Pass over so many; what is made meanwhile moves the pages.
            status: Only those in this state.
            cursor: `pagination.next_cursor` of the page before: what is written meanwhile moves nothing.

        Raises:
            BadInput: A figure or the status is none; the cursor is none of this list, or has an offset with it.
        """
        return self._send(calls.list_(limit, offset, status, cursor))

    def sub_steps(self, execution_id: str) -> Sequence[wire.SubStep]:
        """Return the sub-steps, the synthesis last. Raises NotFound."""
        return self._send(calls.sub_steps(execution_id))

    def result(self, execution_id: str, task_id: str) -> Json:
        """Return the whole result of a sub-step. Raises NotFound, also while there is none."""
        return self._send(calls.result(execution_id, task_id))

    @overload
    def graph(self, execution_id: str, format: Literal["json"] = "json") -> wire.Graph: ...

    @overload
    def graph(self, execution_id: str, format: Literal["mermaid", "dot", "svg"]) -> str: ...

    def graph(self, execution_id: str, format: str = "json") -> wire.Graph | str:
        """Return who waits for whom, with the states: as a `Graph`, or as the text of a format.

        Raises:
            NotFound: There is no such execution.
            BadInput: There is no such format, or the graph is too large for it.
        """
        return self._send(calls.graph(execution_id, format))

    def attempts(self, execution_id: str, task_id: str) -> Sequence[wire.Attempt]:
        """Return all tries of a sub-step that did not end well, oldest first. Raises NotFound."""
        return self._send(calls.attempts(execution_id, task_id))

    def human_inputs(
        self,
        *,
        status: Literal["open", "all"] = "open",
        kind: str | None = None,
        assignee: str | None = None,
        execution_id: str | None = None,
        due_before: datetime | None = None,
        limit: int = 50,
        cursor: str | None = None,
    ) -> wire.HumanInputList:
        """Return a page of the inbox: what people are asked, of all executions.

        Args:
            status: `open`: what waits for an answer, the oldest first; `all`: the newest first.
            kind: Only those of a kind: `human`, `approval`, `did_it_happen`.
            assignee: Only those for somebody.
            execution_id: Only those of an execution.
            due_before: Only those whose time is over before then; with a zone.
            limit: At most so many, from 1 to 100.
            cursor: `pagination.next_cursor` of the page before.

        Raises:
            BadInput: A filter cannot be used, or the cursor is none.
        """
        return self._send(
            calls.human_inputs(
                status=status, kind=kind, assignee=assignee, execution_id=execution_id, due_before=due_before,
                limit=limit, cursor=cursor,
            )
        )  # fmt: skip

    def answer(
        self,
        execution_id: str,
        task_id: str,
        answer: Mapping[str, Json],
        *,
        number: int | None = None,
        by: str | None = None,
    ) -> wire.CommandResponse:
        """Answer the question of a sub-step: durable when this returns. `by` says who, at most 200 characters.

        Args:
            execution_id: The execution.
            task_id: The sub-task that waits.
            answer: `{"input": value}` to a question of the plan; to an approval `{"decision": "approve" | "reject"}` or
                `{"decision": "edit", "params": {...}}`; to "did it happen?"
                `{"decision": "retry" | "succeeded" | "fail", "result"?: value}`.
            number: Of the question that was seen: where another one is open by now, that is a Conflict.
            by: Who answers, for the diary.

        Raises:
            NotFound: There is no such sub-step.
            Conflict: It does not wait, or has its answer already: the message says whose, or that its time was over.
            InvalidAnswer: The answer does not fit, with every problem in `problems`; nothing was changed.
            StoreUnavailable: The server cannot be reached, or cannot write now; nothing was changed.
            OutcomeUnknown: The answer was lost. Look, or answer again: a question takes one answer.
        """
        return self._send(calls.answer(execution_id, task_id, answer, number, by))

    def delete(self, execution_id: str, *, force: bool = False) -> wire.DeleteResponse:
        """Remove an execution that has ended; with `force` one that has not is cancelled first.

        Raises:
            NotFound: There is none; where an answer was lost, it is gone.
            Conflict: It has not ended; with `force`, not within ten seconds: it is being cancelled, ask again.
            StoreUnavailable: The server cannot be reached, or cannot write now; nothing was removed.
            OutcomeUnknown: The answer was lost. Look, or ask again.
        """
        return self._send(calls.delete(execution_id, force))

    def cancel(self, execution_id: str, *, by: str | None = None) -> wire.CommandResponse:
        """Ask for the end of an execution: what runs is cut off, what waits does not begin.

        Returned when the wish is durable; `wait` tells when it is done. Asking again changes nothing, so it is safe
        to repeat where the answer was lost. `by` says who asks, at most 200 characters, for the diary.

        Raises:
            NotFound: There is no such execution.
            Conflict: It has ended otherwise.
            BadInput: `by` cannot be used.
            StoreUnavailable: The server cannot be reached, or cannot write now; nothing was changed.
            OutcomeUnknown: The answer was lost. Look, or ask again.
        """
        return self._send(calls.command(execution_id, "cancel", by))

    def pause(self, execution_id: str, *, by: str | None = None) -> wire.CommandResponse:
        """Ask that an execution begins nothing more; what runs of it ends by itself, and then it is `waiting`.

        As `cancel`; Conflict means that it has ended.
        """
        return self._send(calls.command(execution_id, "pause", by))

    def resume(self, execution_id: str, *, by: str | None = None) -> wire.CommandResponse:
        """Let a paused execution go on; of one that is not paused it changes nothing.

        As `cancel`; Conflict means that it has ended.
        """
        return self._send(calls.command(execution_id, "resume", by))

    def retry(
        self,
        execution_id: str,
        *,
        steps: Sequence[str] | None = None,
        overrides: Mapping[str, Json] | None = None,
        by: str | None = None,
    ) -> wire.ResumeResponse:
        """Let what failed or was cancelled run again, of `steps` alone if given; what has completed is kept.

        `overrides` say by sub-task what is called from now on: `{"params"?, "tool"?, "model"?}`.

        As `cancel`. Conflict means that it has not ended, or has completed; BadInput also that a step cannot run again,
        or that an override cannot stand.
        """
        return self._send(calls.retry(execution_id, steps, overrides, by))

    def fork(
        self,
        execution_id: str,
        *,
        from_task: str | None = None,
        overrides: Mapping[str, Json] | None = None,
        plan: Plan | Json | str | bytes = None,
        by: str | None = None,
        idempotency_key: str | None = None,
    ) -> wire.ForkResponse:
        """Make a new execution that goes on from this one: what completed here and does not change is taken over.

        Args:
            execution_id: The origin, in any state; it stays as it is.
            from_task: A sub-task that runs again, and all that depends on it.
            overrides: By sub-task `{"params"?, "tool"?, "model"?}`; these run again, and what depends on them.
            plan: In place of the origin's: what is new in it or differs runs. Not together with `overrides`.
            by: Who asks, for the diary.
            idempotency_key: As of `submit`; a random one where none is given.

        Raises:
            NotFound: There is no such execution.
            Conflict: Nothing would run in the fork.
            BadInput, InvalidPlan: The wish cannot be; `problems` have pointers such as "/overrides/2/params/url".
            IdempotencyKeyReused, IdempotencyInFlight, StoreUnavailable, OutcomeUnknown: As of `submit`.
        """
        return self._send(calls.fork(execution_id, from_task, overrides, plan, by, idempotency_key))

    def tools(self) -> Sequence[wire.ToolView]:
        """Return the tools that plans may call."""
        return self._send(calls.tools())

    def health(self) -> wire.Ready:
        """Return whether submissions can be taken now, and which model is set."""
        return self._send(calls.health())

    def wait(self, execution_id: str, timeout_s: float | None = None) -> wire.Execution:
        """Return an execution once it has ended, waits for a person, or is paused and nothing of it runs.

        Raises:
            NotFound: There is no such execution.
            TimeoutError: It still runs after `timeout_s`, taken up to a whole second; it goes on.
        """
        patience = Patience(timeout_s)
        while True:
            execution = self._send(calls.settled(execution_id, patience.wait_s()))
            if execution is not None:
                return execution
            time.sleep(patience.pause_s(execution_id))
