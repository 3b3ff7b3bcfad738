"""*Did it happen?*: the question about an attempt of a `once` tool of which nobody knows what it has done.

A person who looks where the tool would have acted can tell. What the attempt brings after all, too late to count, is
laid beside the question.
"""

from __future__ import annotations

from dagbok.domain import values
from dagbok.domain.records import QuestionRow
from dagbok.domain.step import Step
from dagbok.domain.values import Json, JsonText

KIND = "did_it_happen"
#: What may be answered: run it again, take it as done, take it as failed.
DECISIONS = ("retry", "succeeded", "fail")
#: A larger late result is told, and not kept.
MAX_LATE_BYTES = 2**20
#: Of larger params the beginning is shown. They may have 32 MiB, the sub-step has them anyway, and in an inbox nobody
#: reads more.
MAX_PARAMS_BYTES = 2**14
#: Characters shown of the sub-task's description.
DESCRIPTION_CHARS = 2_000


def question(step: Step, why: str, asked_at: int) -> QuestionRow:
    """Return the question about the latest attempt of `step`; `why` it is asked is a sentence."""
    which = f"attempt {step.attempt}" if step.attempt else "its last attempt"  # that of the execution it is a fork of
    prompt = (
        f"Sub-task {step.task.id!r} ({step.task.tool}) must not be repeated blindly, and nobody knows what {which} has "
        f"done: {why} Did it happen?"
    )
    description = values.clean(step.task.description, DESCRIPTION_CHARS)
    shown = values.encode({"params": shown_params(step), "description": description, "attempt": step.attempt})
    return QuestionRow(
        step.task.id, step.questions_asked + 1, KIND, prompt, None, None, shown, asked_at, None, None, None, None
    )  # fmt: skip


def shown_params(step: Step) -> Json:
    """Return the params of the latest attempt, or of the first to come; of large ones the beginning, which says so.

    Those that nest as deep as a value may, by a result in them, are shown as text: what shows them nests deeper.
    """
    text = values.encode(step.task.tool_or_prompt.params) if step.input is None else step.input
    whole = text.encode()
    if len(whole) <= MAX_PARAMS_BYTES:
        params = values.decode(text)
        return text if any(True for _ in values.faults({"params": params})) else params
    start = whole[:MAX_PARAMS_BYTES].decode(errors="ignore")  # the cut may be inside a character
    return f"{start}… (cut: the first {MAX_PARAMS_BYTES:,} of {len(whole):,} bytes)"


def brought(result: JsonText | None, code: str = "", message: str = "") -> dict[str, Json]:
    """Return what came late, as it is laid beside the question: {"result"} or {"error", "errorCode"}."""
    if result is None:
        return {"error": message, "errorCode": code}
    if (size := len(result.encode())) > MAX_LATE_BYTES:
        message = f"It returned {size:,} bytes; at most {MAX_LATE_BYTES:,} are kept here."
        return {"error": message, "errorCode": "result_too_large"}
    return {"result": values.decode(result)}


def with_late(asked: QuestionRow, late: Json) -> QuestionRow:
    """Return the question with what came late beside it."""
    shown = values.decode(asked.shown) if asked.shown else {}
    return asked._replace(shown=values.encode({**shown, "late": late}))


def late_result(asked: QuestionRow) -> JsonText | None:
    """Return the result that came late, if one did."""
    late = values.decode(asked.shown).get("late", {}) if asked.shown else {}
    return values.encode(late["result"]) if "result" in late else None
