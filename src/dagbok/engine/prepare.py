"""What a step needs to start: references resolved, params its own, a question that can be asked.

Raises where that cannot be had; nothing has started then, and the step fails with the reason.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from dagbok.domain import refs, schemas, values
from dagbok.domain.execution import Execution
from dagbok.domain.plan import LONGEST_S
from dagbok.domain.secrets import Redactor
from dagbok.domain.values import JsonText
from dagbok.errors import BadInput


class Question(NamedTuple):
    """What a person is asked."""

    prompt: str
    schema: JsonText | None
    assignee: str | None


class Resolved(NamedTuple):
    """The params of an attempt."""

    params: dict[str, Any]  # the attempt's own: a tool may change them
    input: JsonText | None  # as stored; None where they are those of the plan


def resolve(execution: Execution, position: int, *, max_bytes: int, redactor: Redactor) -> Resolved:
    """Return the params of a step with its references replaced. Secrets are still names.

    Raises:
        BadReference, TooLarge: See `refs.resolve`; `TooLarge` also for the whole of them.
    """
    step = execution.steps[position]
    params = step.task.tool_or_prompt.params
    if not step.has_references:
        return Resolved(values.decode(values.encode(params)) if params else {}, None)
    results = execution.results(position, only=refs.named(params))
    resolved = execution.params(position, results, max_bytes=max_bytes)
    input = values.encode(resolved, max_bytes=max_bytes)
    # Results hold no value of a secret; that of one which was not known when they were written, or pieces put together
    # here, would be stored now, or shown to a model.
    redacted = redactor.json(input, max_bytes=max_bytes)
    return Resolved(resolved if redacted is input else values.decode(redacted), redacted)


def question(params: dict[str, Any]) -> Question:
    """Return the question that the params of a `human` step ask.

    Raises:
        BadInput: A reference turned into something that no question can hold.
    """
    schema, assignee = params.get("schema"), params.get("assignee")
    if assignee is not None and not isinstance(assignee, str):
        raise BadInput(f"`assignee` has become {type(assignee).__name__}; it is the name of a person.")
    for path, message in schemas.faults(schema) if schema is not None else ():
        raise BadInput(f"The `schema` of the answer is none: {values.pointer_to(*path)}: {message}.")
    return Question(values.as_text(params.get("prompt")), None if schema is None else values.encode(schema), assignee)


def seconds(params: dict[str, Any]) -> float:
    """Return how long a timer runs. Raises BadInput."""
    given = params.get("seconds")
    if isinstance(given, bool) or not isinstance(given, int | float) or not 0 <= given <= LONGEST_S:
        raise BadInput(f"`seconds` is {given!r}; it is a number from 0 to {LONGEST_S}.")
    return float(given)
