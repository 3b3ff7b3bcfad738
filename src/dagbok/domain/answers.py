"""What a person may answer to a question, and what becomes of it."""

from __future__ import annotations

from collections.abc import Mapping

from dagbok.domain import values
from dagbok.domain.doubt import DECISIONS
from dagbok.domain.judging import misfits
from dagbok.domain.validate import Problem
from dagbok.domain.values import Json, JsonText, pointer_to
from dagbok.errors import BadInput, InvalidAnswer, TooLarge

#: Named of one answer.
MAX_PROBLEMS = 100


def read(kind: str, schema: JsonText | None, answer: Mapping[str, Json]) -> Json:
    """Return the answer as the aggregate takes it.

    Args:
        kind: Of the question: `human` or `did_it_happen`.
        schema: JSON Schema of the answer to a `human` question; None: any value.
        answer: `{"input": value}`, or `{"decision": ..., "result"?: value}`; `result` only with `succeeded`.

    Raises:
        InvalidAnswer: With every problem, pointers into `answer`.
        TooLarge: It is too much to judge by the schema.
    """
    problems = [Problem(fault.pointer, fault.code, fault.message) for fault in values.faults(dict(answer))]
    if not problems:
        problems = _decision_faults(answer) if kind == "did_it_happen" else _input_faults(schema, answer)
    if not problems:
        problems = _unheeded(kind, answer)
    if problems:
        raise InvalidAnswer(f"The answer does not fit: {problems[0].message}", problems=problems)
    return dict(answer) if kind == "did_it_happen" else answer["input"]


def _decision_faults(answer: Mapping[str, Json]) -> list[Problem]:
    if answer.get("decision") in DECISIONS:
        return []
    words = ", ".join(DECISIONS)
    return [
        Problem("/decision", "bad_value", f"`decision` is one of {words}: run it again, take it as done, or as failed.")
    ]


def _unheeded(kind: str, answer: Mapping[str, Json]) -> list[Problem]:
    """Return what is said and would be dropped: whoever says it means something else than would happen."""
    if kind != "did_it_happen":
        heeded, why = {"input"}, "`{}` says nothing here: the question is of the plan, and its answer is `input`."
    elif answer.get("decision") == "succeeded":
        heeded, why = {"decision", "result"}, "`{}` says nothing here: what it brought is `result`."
    else:
        heeded, why = {"decision"}, "`{}` would be dropped: it goes with the decision `succeeded` alone."
    return [
        Problem(pointer_to(name), "bad_value", why.format(name))
        for name, value in answer.items()
        if name not in heeded and value is not None
    ]


def _input_faults(schema: JsonText | None, answer: Mapping[str, Json]) -> list[Problem]:
    if "input" not in answer:
        return [Problem("/input", "missing_field", "`input` is required: the answer.")]
    if schema is None:
        return []
    try:
        found = misfits(values.decode(schema), answer["input"], MAX_PROBLEMS)
    except TooLarge:
        raise
    except BadInput as exc:
        return [Problem("/input", "bad_schema", exc.message)]
    return [Problem(pointer_to("input", *fault.absolute_path), "bad_value", fault.message[:300]) for fault in found]
