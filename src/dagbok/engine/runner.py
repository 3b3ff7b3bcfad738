"""One attempt: runs a tool's body, bounds its time, and turns whatever comes of it into an `Outcome`.

Nothing a tool does reaches the loop: an exception, `sys.exit`, a value that is no JSON or too large, and a body that
hangs each become an outcome of this attempt alone. None of it holds the value of a secret.
"""

from __future__ import annotations

import asyncio
import traceback
from collections.abc import Callable
from dataclasses import dataclass

from pydantic_core import ValidationError

from dagbok.domain import values
from dagbok.domain.call import NO_CHARGE, Call, Charge, Reply
from dagbok.domain.secrets import Redactor
from dagbok.domain.states import AttemptOutcome
from dagbok.domain.values import JsonText
from dagbok.engine.containment import in_tool
from dagbok.engine.ports import Clock, Timer, ToolSpec
from dagbok.errors import BadInput, DagbokError, TooLarge

#: Characters kept of an error's message and of its traceback.
MESSAGE_CHARS, DETAIL_CHARS = 4_000, 8_000
#: Misfits told of a pydantic error.
MISFITS = 5
#: Lines of the traceback that are kept: enough to find the place.
TRACEBACK_FRAMES = 5


@dataclass(frozen=True, slots=True)
class Outcome:
    """How an attempt ended: with a `result`, or with an error."""

    result: JsonText | None = None
    code: str = ""
    message: str = ""
    detail: str | None = None
    kind: str = AttemptOutcome.FAILED.value  # or TIMEOUT
    charge: Charge = NO_CHARGE
    retry_after_s: float | None = None  # what the other side asked for
    unknown: bool = False  # nobody can say whether the attempt took effect


class Attempt:
    """A running body. `done` is called once, on the loop, unless the attempt was dropped before."""

    __slots__ = (
        "_clock",
        "_done",
        "_max_bytes",
        "_redactor",
        "_timeout",
        "_timeout_s",
        "call",
        "settled",
        "task",
        "tool",
    )

    def __init__(
        self,
        call: Call,
        tool: ToolSpec,
        *,
        clock: Clock,
        timeout_s: float,
        max_bytes: int,
        redactor: Redactor,
        done: Callable[[Attempt, Outcome], None],
    ) -> None:
        self.call = call
        self.tool = tool
        self.settled = False
        self.task: asyncio.Task[None] | None = None  # None until started
        self._timeout: Timer | None = None
        self._clock = clock
        self._timeout_s = timeout_s
        self._max_bytes = max_bytes
        self._redactor = redactor
        self._done = done

    def start(self) -> None:
        """Run the body on the running loop, unless it was dropped before."""
        if not self.settled:
            self.task = asyncio.get_running_loop().create_task(self._run())
            self._timeout = self._clock.call_later(self._timeout_s, self._expire)

    def drop(self) -> None:
        """Cut the body off and forget it: its outcome is nobody's business any more."""
        if self._close() and self.task is not None:
            self.task.cancel()

    def _expire(self) -> None:
        # The outcome does not wait for a body that ignores its cancellation.
        message = f"The attempt took longer than its {self._timeout_s:g} s."
        self._settle(Outcome(code="timeout", message=message, kind=AttemptOutcome.TIMEOUT.value))
        if self.task is not None:
            self.task.cancel()

    def _close(self) -> bool:
        if self.settled:
            return False
        self.settled = True
        if self._timeout is not None:
            self._timeout.cancel()
        return True

    def _settle(self, outcome: Outcome) -> None:
        if self._close():
            self._done(self, outcome)

    async def _run(self) -> None:
        self._settle(await self._outcome())

    async def _outcome(self) -> Outcome:
        in_tool.set(True)  # in the context of this task alone
        try:
            value = await self.tool(self.call)
        except asyncio.CancelledError:
            # Where we cut it off nobody listens; otherwise something inside the tool was cancelled.
            return Outcome(code="tool_error", message="The tool was cancelled from inside.")
        except KeyboardInterrupt:
            raise
        except BaseException as exc:  # SystemExit and GeneratorExit too: no tool ends the program
            return failure(exc, self._redactor)
        return self._succeeded(value)

    def _succeeded(self, value: object) -> Outcome:
        charge = NO_CHARGE
        try:
            if isinstance(value, Reply):
                charge, value = _charge(value.charge, self._redactor), value.value
            result = values.encode(value, max_bytes=self._max_bytes)
            return Outcome(self._redactor.json(result, max_bytes=self._max_bytes), charge=charge)
        except TooLarge as exc:
            message = f"The tool returned {exc.size:,} bytes; at most {exc.limit:,} are kept (max_result_bytes)."
            return Outcome(code="result_too_large", message=message, charge=charge)
        except BadInput as exc:
            message = self._redactor.text(f"The tool returned what is not JSON. {exc.message}")
            return Outcome(code=exc.code, message=message, charge=charge)
        except Exception as exc:
            return failure(exc, self._redactor)


def failure(exc: BaseException, redactor: Redactor) -> Outcome:
    """Return the outcome that an exception stands for; never raises."""
    try:
        return _failure(exc, redactor)
    except Exception as broken:  # an error whose own parts raise
        message = f"The tool failed with {type(exc).__name__}, which cannot be read ({type(broken).__name__})."
        return Outcome(code="tool_error", message=message)


def _failure(exc: BaseException, redactor: Redactor) -> Outcome:
    code, charge = "tool_error", NO_CHARGE
    if isinstance(exc, DagbokError):
        code, message = redactor.text(str(exc.code)), exc.message
        if isinstance(paid := exc.fields.get("charge"), Charge):  # what the attempt had cost when it failed
            charge = _charge(paid, redactor)
    elif isinstance(exc, SystemExit):
        message = f"The tool called sys.exit({exc.code!r}); a tool raises an exception to fail."
    else:
        message = f"{type(exc).__name__}: {_text(exc)}"
        if isinstance(exc, BaseExceptionGroup):
            message += ": " + "; ".join(f"{type(leaf).__name__}: {_text(leaf)}" for leaf in _leaves(exc)[:3])
    # Redacted before it is cut: a cut through a value would leave a part that nobody recognises.
    message = values.clean(redactor.text(message), MESSAGE_CHARS)
    detail = values.clean(redactor.text(_detail(exc)), DETAIL_CHARS)
    return Outcome(code=code, message=message, detail=detail, charge=charge)


def _charge(paid: Charge, redactor: Redactor) -> Charge:
    usage, cost_usd = redactor.value(dict(paid.usage or {})), redactor.value(paid.cost_usd)
    model = None if paid.model is None else redactor.text(str(paid.model))
    return Charge(usage, cost_usd, model).kept()


def _leaves(group: BaseExceptionGroup[BaseException]) -> list[BaseException]:
    leaves: list[BaseException] = []
    stack: list[BaseException] = [group]
    while stack:
        exc = stack.pop()
        if isinstance(exc, BaseExceptionGroup):
            stack.extend(reversed(exc.exceptions))
        else:
            leaves.append(exc)
    return leaves


def _text(exc: BaseException) -> str:
    try:
        return _misfits(exc) if isinstance(exc, ValidationError) else str(exc)
    except Exception as broken:  # an exception whose __str__ raises is still one
        return f"(its message cannot be read: {type(broken).__name__})"


def _misfits(exc: ValidationError) -> str:
    """Return what does not fit, without the values: pydantic shows their two ends, which nobody would recognise."""
    count = exc.error_count()
    shown = [
        f"{'.'.join(map(str, error['loc']))}: {error['msg']}" if error["loc"] else error["msg"]
        for error in exc.errors(include_url=False, include_context=False, include_input=False)[:MISFITS]
    ]
    more = "; ..." if count > MISFITS else ""
    return f"{count:,} validation error{'s' * (count != 1)} for {exc.title}: {'; '.join(shown)}{more}"


def _detail(exc: BaseException) -> str:
    frames = traceback.extract_tb(exc.__traceback__)[-TRACEBACK_FRAMES:]
    return "".join(traceback.format_list(frames)) + f"{type(exc).__name__}: {_text(exc)}"
