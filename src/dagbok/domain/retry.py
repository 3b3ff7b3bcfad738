"""Whether a failed attempt is tried again, and when: what the sub-task says, above its tool, above the settings.

An error is retried where its code says that trying again may mend it. Whoever asks for attempts without naming codes
means every such error; the default of the settings means the passing ones alone (`PASSING`). What no repetition mends,
or what must not be repeated blindly, is never retried (`NEVER`), whatever a policy says.

A policy is judged more strictly when it comes in (`faults`) than when it is read: what an earlier release took and
stored, in a plan that still runs, goes on to mean what it did.

Pure: the jitter comes from the attempt's own identity, so that many executions that failed together do not come back
together, and a test knows when one does.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Annotated, Any, Final, NamedTuple

from pydantic import BaseModel, ConfigDict, Field, GetJsonSchemaHandler, ValidationError
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema

from dagbok.domain.states import Effect
from dagbok.domain.wording import nearest, said
from dagbok.errors import Misconfigured

#: Codes of errors that pass by themselves.
PASSING: Final = frozenset({"timeout", "rate_limited", "unavailable"})
#: Codes of errors that are never retried: the same input fails in the same way, or nobody knows what a try has done.
NEVER: Final = frozenset(
    {"invalid_input", "not_json", "bad_reference", "unknown_tool", "unknown_secret", "refused", "outcome_unknown"}
    | {"crash_loop", "result_too_large", "rejected", "unanswered"}
)
#: All codes of Dagbok and its tools (docs/errors.md). Tools of users have others, which a policy may name as well.
CODES: Final = (
    PASSING
    | NEVER
    | {"all_failed", "bad_response", "engine_error", "invalid_output", "io_error", "misconfigured", "not_configured"}
    | {"not_found", "not_text", "permission_denied", "refused_address", "refused_redirect", "server_error", "too_large"}
    | {"too_many_redirects", "tool_error", "unreadable", "unsupported_media_type"}
)
MAX_ATTEMPTS: Final = 100
MAX_BACKOFF_S: Final = 7 * 86_400.0
#: Who asks us to come back later than this is not waited for.
MAX_RETRY_AFTER_S: Final = 86_400.0

_Span = Annotated[float, Field(ge=0, le=MAX_BACKOFF_S, allow_inf_nan=False)]


class Retry(BaseModel):
    """When a sub-task is tried again. What is left out is as its tool has it, else as the settings do."""

    # Open to what an earlier release has stored; `faults` lets no other field in, which the schema says.
    model_config = ConfigDict(extra="allow", frozen=True, json_schema_extra={"additionalProperties": False})

    max_attempts: Annotated[int, Field(ge=1, le=MAX_ATTEMPTS)] | None = Field(
        None, description="Tries that fail or take too long; 3 (`DAGBOK_RETRY_MAX_ATTEMPTS`)"
    )
    backoff_seconds: _Span | None = Field(
        None, description="The pause before the second try; 1 (`DAGBOK_RETRY_BACKOFF_S`)"
    )
    factor: Annotated[float, Field(ge=1, le=100, allow_inf_nan=False)] | None = Field(
        None, description="Of each further pause to the one before; 2"
    )
    max_backoff_seconds: _Span | None = Field(None, description="No pause is longer; 60 (`DAGBOK_RETRY_MAX_BACKOFF_S`)")
    jitter: Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)] | None = Field(
        None, description="The part of a pause that may be left out, by chance; 0.2"
    )
    retry_on: Annotated[list[Annotated[str, Field(min_length=1, max_length=100)]], Field(max_length=50)] | None = Field(
        None,
        description="Codes of errors after which it is tried again; `timeout`, `rate_limited` and `unavailable`, or "
        "with `max_attempts` every error that trying again may mend",
    )


class _AsRetry:
    """Makes the schema of an annotated object that of `Retry`."""

    def __get_pydantic_json_schema__(self, _: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        return handler(Retry.__pydantic_core_schema__)


#: A `retry` as it came, described as what may be in it.
RetryObject = Annotated[dict[str, Any], _AsRetry()]


@dataclass(frozen=True, slots=True)
class Policy:
    """All that decides about the retries of one sub-task. The names are those of the plan."""

    max_attempts: int = 3  #: that fail; what a crash or a restart cut off does not count
    backoff_seconds: float = 1.0  #: before the second attempt
    factor: float = 2.0  #: of each further pause to the one before
    max_backoff_seconds: float = 60.0
    jitter: float = 0.2  #: the part of a pause that may be left out
    retry_on: frozenset[str] | None = PASSING  #: codes; None: every code that is not in `NEVER`

    def over(self, retry: Mapping[str, Any] | None) -> Policy:
        """Return this policy with what `retry` says put above it. Raises Misconfigured, see `faults`."""
        if not retry:
            return self
        try:
            given = Retry.model_validate(retry)
        except ValidationError as exc:
            fault = exc.errors()[0]
            why = f"{'/'.join(map(str, fault['loc']))} {said(fault)}"
            raise Misconfigured(f"The retry policy {dict(retry)!r:.300} cannot be used: {why}.") from exc
        stated = given.model_dump(include=set(Retry.model_fields), exclude_none=True)
        if given.retry_on is not None:
            stated["retry_on"] = frozenset(given.retry_on)
        elif given.max_attempts is not None:
            stated["retry_on"] = None
        return replace(self, **stated)

    def allows(self, code: str, failures: int, effect: Effect) -> bool:
        """Return whether an attempt that failed with `code`, the `failures`-th that did, is followed by another.

        A `once` tool that failed otherwise than by being turned away may have come half-way: the plan has to name the
        code. (Where nobody knows what an attempt has done, nobody asks here.)
        """
        if failures >= self.max_attempts or code in NEVER:
            return False
        if self.retry_on is None:
            return effect is not Effect.ONCE or code in PASSING
        return code in self.retry_on

    def next_try(
        self,
        code: str,
        failures: int,
        effect: Effect,
        key: str,
        *,
        retry_after_s: float | None = None,
        left_ms: int | None = None,
    ) -> int | str:
        """Return the pause before the next attempt, in milliseconds; or why there is none, where that may surprise.

        Args:
            code: Of the error.
            failures: How many attempts have failed; at least 1.
            effect: Of the tool.
            key: Of the failed attempt; decides the jitter.
            retry_after_s: What the other side asked for.
            left_ms: Until the deadline, if there is one.

        Returns:
            "" where nobody asked for another attempt: they are used up, or the error is none to try again after.
        """
        if not self.allows(code, failures, effect):
            asked = self.retry_on is None and failures < self.max_attempts and code not in NEVER
            return f"a `once` tool may have acted; name `{code}` in `retry_on` if that is safe" if asked else ""
        if (retry_after_s or 0) > MAX_RETRY_AFTER_S:
            return f"{_seconds(retry_after_s or 0)} are to pass first, and nobody waits for more than a day"
        delay_ms = self.delay_ms(failures, key, retry_after_s)
        if left_ms is not None and delay_ms >= left_ms:
            return f"the next attempt (in {_seconds(delay_ms / 1000)}) would come after the deadline"
        return delay_ms

    def delay_ms(self, failures: int, key: str, retry_after_s: float | None = None) -> int:
        """Return the pause before the next attempt.

        Args:
            failures: How many attempts have failed; at least 1.
            key: Of the failed attempt; decides the jitter.
            retry_after_s: What the other side asked for; never less than that.
        """
        pause_s = min(self.backoff_seconds * self.factor ** (failures - 1), self.max_backoff_seconds)
        pause_s *= 1 - self.jitter * zlib.crc32(key.encode()) / 2**32
        return round(max(pause_s, retry_after_s or 0.0) * 1000)


def _seconds(seconds: float) -> str:
    return f"{seconds:,.0f} s" if seconds >= 10 else f"{seconds:.1f} s"


#: One attempt and no more.
NO_RETRY: Final = Policy(max_attempts=1)


class Misfit(NamedTuple):
    """One thing that is wrong with a `retry`."""

    path: tuple[str | int, ...]  #: within it
    code: str  #: of a plan's problem
    message: str  #: the rest of a text that begins with the name of the place


#: How alike an unknown code has to be to a known one to count as misspelt. Codes of users' tools are no misspellings.
_SAME_CODE: Final = 0.85

Near = Callable[[str, Iterable[str], float], str | None]


def _near(word: str, known: Iterable[str], cutoff: float) -> str | None:
    return nearest(word, known, cutoff=cutoff)


def faults(retry: Mapping[str, Any], near: Near = _near) -> list[Misfit]:
    """Return what is wrong with a `retry` that comes in; see also `readable`.

    Args:
        retry: As the plan, or the tool, has it.
        near: What finds the known word that an unknown one was meant to be, for who has to bound that.
    """
    found = [_unknown(name, near) for name in retry if name not in Retry.model_fields]
    found += [
        Misfit((name,), "bad_value", "has to be a number, not true or false.")
        for name, value in retry.items()
        if name in Retry.model_fields and isinstance(value, bool)
    ]
    wrong = {fault.path for fault in found}
    try:
        given = Retry.model_validate(retry)
    except ValidationError as exc:
        errors = exc.errors(include_url=False, include_input=False)
        return found + [Misfit(e["loc"], "bad_value", f"{said(e)}.") for e in errors if e["loc"] not in wrong]
    for place, code in enumerate(given.retry_on or ()):
        if code in NEVER:
            message = f"is {code!r}, which is never retried: trying again would not mend it, or might do harm."
            found.append(Misfit(("retry_on", place), "bad_value", message))
        elif code not in CODES and (meant := near(code, CODES, _SAME_CODE)):
            message = f"is {code!r}, which no error of Dagbok has. Did you mean {meant!r}?"
            found.append(Misfit(("retry_on", place), "bad_value", message))
    return found


def _unknown(name: str, near: Near) -> Misfit:
    # Elsewhere a plan may hold anything. Here it would be a wish that nobody hears of, until something fails for good.
    meant = near(name, Retry.model_fields, 0.6)
    known = f"Did you mean {meant!r}?" if meant else f"There may be: {', '.join(Retry.model_fields)}."
    return Misfit((name,), "unknown_field", f"is not known here. {known}")


def readable(retry: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return a `retry` as far as it can be used: a plan that an earlier release took may hold anything there."""
    try:
        given = Retry.model_validate(retry)
    except ValidationError:
        return {}
    return {} if NEVER.intersection(given.retry_on or ()) else retry
