"""Whether a failed attempt is tried again, and when: what the sub-task says, above its tool, above the settings.

An error is retried where its code says that trying again may mend it. Whoever asks for attempts without naming codes
means every such error; the default of the settings means the passing ones alone (`PASSING`). What no repetition mends,
or what must not be repeated blindly, is never retried (`NEVER`), whatever a policy says.

Pure: the jitter comes from the attempt's own identity, so that many executions that failed together do not come back
together, and a test knows when one does.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Annotated, Any, Final

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from dagbok.domain.states import Effect
from dagbok.domain.wording import said
from dagbok.errors import Misconfigured

#: Codes of errors that pass by themselves.
PASSING: Final = frozenset({"timeout", "rate_limited", "unavailable"})
#: Codes of errors that are never retried: the same input fails in the same way, or nobody knows what a try has done.
NEVER: Final = frozenset(
    {"invalid_input", "not_json", "bad_reference", "unknown_tool", "unknown_secret", "refused", "outcome_unknown"}
    | {"crash_loop", "result_too_large"}
)
MAX_ATTEMPTS: Final = 100
MAX_BACKOFF_S: Final = 7 * 86_400.0
#: Who asks us to come back later than this is not waited for.
MAX_RETRY_AFTER_S: Final = 86_400.0

_Span = Annotated[float, Field(ge=0, le=MAX_BACKOFF_S, allow_inf_nan=False)]


class Retry(BaseModel):
    """What a sub-task, a tool or the settings say about retries. None: what the layer below says."""

    model_config = ConfigDict(extra="allow", frozen=True)

    max_attempts: Annotated[int, Field(ge=1, le=MAX_ATTEMPTS)] | None = None
    backoff_seconds: _Span | None = None
    factor: Annotated[float, Field(ge=1, le=100, allow_inf_nan=False)] | None = None
    max_backoff_seconds: _Span | None = None
    jitter: Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)] | None = None
    retry_on: Annotated[list[Annotated[str, Field(min_length=1, max_length=100)]], Field(max_length=50)] | None = None


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


#: One attempt and no more.
NO_RETRY: Final = Policy(max_attempts=1)


def faults(retry: Mapping[str, Any]) -> list[tuple[tuple[str | int, ...], str]]:
    """Return what is wrong with a `retry`: the place of each, and a sentence that begins with its name."""
    try:
        given = Retry.model_validate(retry)
    except ValidationError as exc:
        return [(error["loc"], said(error)) for error in exc.errors(include_url=False, include_input=False)]
    return [
        (("retry_on", place), f"is {code!r}, which is never retried: trying again would not mend it, or might do harm")
        for place, code in enumerate(given.retry_on or ())
        if code in NEVER
    ]


def readable(retry: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return a `retry` as far as it can be used: a plan that an earlier release took may hold anything there."""
    return {} if faults(retry) else retry
