"""What the engine needs from outside. Behind each port stands a second real thing, or a test."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final, Protocol

from dagbok.domain.call import Call
from dagbok.domain.records import Changes
from dagbok.domain.secrets import Redactor
from dagbok.domain.states import Effect


class Journal(Protocol):
    """The one writer of the diary."""

    def append(self, changes: Changes) -> asyncio.Future[None]:
        """Write `changes` with the next group commit; the future is done once they are durable.

        At most one append per execution may be under way. The future fails with
        Fenced: another owner has the execution; nothing was written, cancel the local work.
        StoreRejected: the database refuses these very rows; nothing was written.
        OutcomeUnknown: the journal was closed before it could know.
        A database that is away is no failure: the journal holds on and tries again.
        """
        ...


class ToolSpec(Protocol):
    """A tool as the engine sees it."""

    @property
    def name(self) -> str: ...
    @property
    def effect(self) -> Effect: ...
    @property
    def timeout_s(self) -> float:
        """The longest an attempt may take, unless the sub-task says otherwise."""
        ...

    @property
    def idle_timeout_s(self) -> float | None:
        """The longest an attempt may go without reporting progress, likewise; None: as long as it likes."""
        ...

    @property
    def retry(self) -> Mapping[str, Any] | None:
        """How attempts that fail are repeated, with the fields of a sub-task's `retry`; None: as the engine does."""
        ...

    @property
    def max_concurrency(self) -> int | None: ...
    @property
    def timer(self) -> bool:
        """Whether it only waits (`params["seconds"]`): the engine then keeps a due time instead of a task."""
        ...

    @property
    def stoppable(self) -> bool:
        """Whether cancelling an attempt ends its body; the thread of a synchronous tool cannot be stopped."""
        ...

    def __call__(self, call: Call) -> Awaitable[object]:
        """Run one attempt and return a value or a `Reply`.

        Raises:
            ToolError: With the code the tool chose.
            NotJson, BadInput: The params do not fit.
            Exception: Anything else the tool's body raised.
        """
        ...


class Tools(Protocol):
    """The tools by name."""

    def get(self, name: str) -> ToolSpec | None:
        """Return the tool called `name` (or known by that alias)."""
        ...


class Secrets(Protocol):
    """The secrets that plans may name."""

    @property
    def redactor(self) -> Redactor:
        """What all that comes from outside passes before it enters an execution."""
        ...

    def get(self, name: str) -> str | None:
        """Return the value of a secret; None if there is none of that name."""
        ...


class _NoSecrets:
    redactor: Final = Redactor({})

    def get(self, name: str) -> str | None:  # noqa: ARG002 - the port passes it
        return None


NO_SECRETS: Final[Secrets] = _NoSecrets()


class Timer(Protocol):
    """A call that is due later."""

    def cancel(self) -> None:
        """Forget the call."""
        ...


class Clock(Protocol):
    """Time, as an argument. Tests bring their own."""

    def now_ms(self) -> int:
        """Return UTC milliseconds since 1970; never less than it returned before."""
        ...

    def call_later(self, delay_s: float, callback: Callable[[], None]) -> Timer:
        """Call `callback` on the loop after `delay_s`, unless the timer is cancelled before: for time limits."""
        ...

    def call_at(self, time_ms: int, callback: Callable[[], None]) -> Timer:
        """Call `callback` on the loop once `now_ms` has come to `time_ms`: for due times, which are those of a row.

        That is sooner than expected where the machine's clock is set forward meanwhile.
        """
        ...
