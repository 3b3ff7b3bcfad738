"""What an execution says when it ends: what the user gets, and what went wrong."""

from __future__ import annotations

from collections.abc import Sequence

from dagbok.domain import values
from dagbok.domain.step import Step

#: Failures that the error of an execution names; the rest are counted.
NAMED_FAILURES = 3
#: Results of several sinks are joined up to this size.
MAX_JOINED_CHARS = 32 * 2**20


def of_sinks(sinks: Sequence[Step]) -> str | None:
    """Return the result of a plan without synthesis: that of its only sink, or a JSON object of those that have one."""
    if len(sinks) == 1:
        text = sinks[0].result
        return None if text is None else values.as_text(values.decode(text))
    done = [f"{values.encode(step.task.id)}:{step.result}" for step in sinks if step.result is not None]
    if sum(map(len, done)) > MAX_JOINED_CHARS:
        named = ", ".join(repr(str(step.task.id)) for step in sinks[:20] if step.result is not None)
        more = " ..." if len(done) > 20 else ""
        return f"The results of {len(done):,} sub-tasks are too large to be joined; read each by itself: {named}{more}"
    return "{" + ",".join(done) + "}" if done else None


def blame(failed: Sequence[Step], total: int) -> str:
    """Return the sentence that names the failed sub-tasks."""
    named = "; ".join(f"{step.task.id!r} ({step.error_code}): {step.error}" for step in failed[:NAMED_FAILURES])
    more = f"; and {len(failed) - NAMED_FAILURES:,} more" if len(failed) > NAMED_FAILURES else ""
    return values.clean(f"{len(failed):,} of {total:,} sub-tasks failed: {named}{more}", 2000)
