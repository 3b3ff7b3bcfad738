"""How an attempt ended, as the engine keeps it: a result, or an error classed so that retries can be decided.

Whatever a tool returned or raised becomes an `Outcome`: JSON that is not too large, or a code and words that fit into a
row. None of it holds the value of a secret.
"""

from __future__ import annotations

import math
import traceback
from typing import Final, NamedTuple

from pydantic_core import ValidationError

from dagbok.domain import values
from dagbok.domain.call import NO_CHARGE, Charge, Reply
from dagbok.domain.http_status import MAX_RETRY_AFTER_S
from dagbok.domain.secrets import Redactor
from dagbok.domain.states import AttemptOutcome
from dagbok.domain.values import JsonText
from dagbok.domain.wording import MESSAGE_CHARS
from dagbok.engine import faults
from dagbok.engine.faults import OWN, Fault
from dagbok.errors import BadInput, DagbokError, TooLarge

#: Characters kept of the traceback of an error (of its message: `MESSAGE_CHARS`).
DETAIL_CHARS = 8_000
#: Misfits told of a pydantic error.
MISFITS = 5
#: Lines of the traceback that are kept: enough to find the place.
TRACEBACK_FRAMES = 5

#: Sent, and yet known: the other side has said that it did not act here and where to go instead.
_SENT_ON: Final = ("refused_redirect", "too_many_redirects")


class Outcome(NamedTuple):
    """How an attempt ended: with a `result`, or with an error."""

    result: JsonText | None = None
    code: str = ""
    message: str = ""
    detail: str | None = None
    kind: str = AttemptOutcome.FAILED.value  # or TIMEOUT
    charge: Charge = NO_CHARGE
    #: What the other side asked for before the next attempt; finite, from 0 to a year.
    retry_after_s: float | None = None
    #: Nobody can say whether the attempt took effect. Of interest only where the effect is `once`.
    unknown: bool = False


def success(value: object, *, max_bytes: int, redactor: Redactor) -> Outcome:
    """Return the outcome of a body that returned `value`; an error if that cannot be kept. Never raises."""
    charge = NO_CHARGE
    try:
        if isinstance(value, Reply):
            charge, value = _charge(value.charge, redactor), value.value
        result = values.encode(value, max_bytes=max_bytes)
        return Outcome(redactor.json(result, max_bytes=max_bytes), charge=charge)
    except TooLarge as exc:
        message = f"The tool returned {exc.size:,} bytes; at most {exc.limit:,} are kept (max_result_bytes)."
        return Outcome(code="result_too_large", message=message, charge=charge)
    except BadInput as exc:
        message = redactor.text(f"The tool returned what is not JSON. {exc.message}")
        return Outcome(code=exc.code, message=message, charge=charge)
    except Exception as exc:
        return failure(exc, redactor)


def failure(exc: BaseException, redactor: Redactor) -> Outcome:
    """Return the outcome that an exception stands for; never raises."""
    try:
        return _failure(exc, redactor)
    except Exception as broken:  # an error whose own parts raise
        message = f"The tool failed with {type(exc).__name__}, which cannot be read ({type(broken).__name__})."
        return Outcome(code="tool_error", message=message)


def _failure(exc: BaseException, redactor: Redactor) -> Outcome:
    charge = NO_CHARGE
    if isinstance(exc, DagbokError):
        message = exc.message
        if isinstance(paid := exc.fields.get("charge"), Charge):  # what the attempt had cost when it failed
            charge = _charge(paid, redactor)
    elif isinstance(exc, SystemExit):
        message = f"The tool called sys.exit({exc.code!r}); a tool raises an exception to fail."
    else:
        message = f"{type(exc).__name__}: {_text(exc)}"
        if isinstance(exc, BaseExceptionGroup):
            message += ": " + "; ".join(f"{type(leaf).__name__}: {_text(leaf)}" for leaf in _leaves(exc)[:3])
    code, unknown, retry_after_s = _fault(exc)
    # Redacted before it is cut: a cut through a value would leave a part that nobody recognises.
    return Outcome(
        code=redactor.text(code),
        message=values.clean(redactor.text(message), MESSAGE_CHARS),
        detail=values.clean(redactor.text(_detail(exc)), DETAIL_CHARS),
        charge=charge,
        retry_after_s=retry_after_s,
        unknown=unknown,
    )


# -- what it means ----------------------------------------------------------------------------------------------------


def _fault(exc: BaseException) -> Fault:
    if isinstance(exc, DagbokError):
        return _ours(exc)
    if isinstance(exc, BaseExceptionGroup):
        return _shared(exc)
    try:
        return faults.read(exc)
    except Exception:  # parts of it raise when they are looked at; what it says is kept all the same
        return OWN


def _ours(exc: DagbokError) -> Fault:
    code, sent = str(exc.code), exc.fields.get("sent")
    if code == "outcome_unknown":
        unknown = True
    elif code == "timeout":
        unknown = sent is not False
    else:
        unknown = sent is True and code not in _SENT_ON
    return Fault(code, unknown, _wait_s(exc.fields.get("retry_after_s")))


def _shared(group: BaseExceptionGroup[BaseException]) -> Fault:
    """Return what several errors mean together: the code they share, and the most careful of the rest."""
    found = [_fault(leaf) for leaf in _leaves(group)]
    codes = {one.code for one in found}
    waits = [one.retry_after_s for one in found if one.retry_after_s is not None]
    return Fault(
        codes.pop() if len(codes) == 1 else OWN.code, any(one.unknown for one in found), max(waits, default=None)
    )


def _wait_s(asked: object) -> float | None:
    if isinstance(asked, bool) or not isinstance(asked, int | float) or not 0 <= asked < math.inf:
        return None
    return float(min(asked, MAX_RETRY_AFTER_S))


def _charge(paid: Charge, redactor: Redactor) -> Charge:
    usage, cost_usd = redactor.value(dict(paid.usage or {})), redactor.value(paid.cost_usd)
    model = None if paid.model is None else redactor.text(str(paid.model))
    return Charge(usage, cost_usd, model).kept()


# -- its words --------------------------------------------------------------------------------------------------------


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
