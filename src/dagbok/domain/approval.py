"""May it run? The question that a sub-task with `requires_approval` asks before its first attempt.

A person sees what would be called, with what, and says yes, says yes to other params, or says no.
"""

from __future__ import annotations

from typing import Final

from dagbok.domain import values
from dagbok.domain.doubt import DESCRIPTION_CHARS, shown_params
from dagbok.domain.records import QuestionRow
from dagbok.domain.step import Step

KIND: Final = "approval"
#: What may be answered: run it, run it with other params, do not run it.
DECISIONS: Final = ("approve", "edit", "reject")


def question(step: Step, asked_at: int) -> QuestionRow:
    """Return the question about `step`, whose params are resolved (`step.input`, where they differ from the plan's)."""
    description = values.clean(step.task.description, DESCRIPTION_CHARS)
    prompt = f"Sub-task {step.task.id!r} is about to call {step.task.tool!r}. May it?"
    shown = values.encode({"tool": step.task.tool, "params": shown_params(step), "description": description})
    return QuestionRow(
        step.task.id, step.questions_asked + 1, KIND, prompt, None, None, shown, asked_at, None, None, None, None
    )  # fmt: skip
