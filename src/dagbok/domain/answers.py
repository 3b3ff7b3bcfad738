"""What a person may answer to a question, and what becomes of it."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import islice

from jsonschema import Draft202012Validator
from referencing import Registry
from referencing.exceptions import Unresolvable

from dagbok.domain import values
from dagbok.domain.validate import Problem
from dagbok.domain.values import Json, JsonText, pointer_to
from dagbok.errors import InvalidAnswer

#: Named of one answer.
MAX_PROBLEMS = 100
#: The answers to "did it happen?": run it again, take it as done, take it as failed.
DECISIONS = ("retry", "succeeded", "fail")


def read(kind: str, schema: JsonText | None, answer: Mapping[str, Json]) -> Json:
    """Return the answer as the aggregate takes it.

    Args:
        kind: Of the question: `human` or `did_it_happen`.
        schema: JSON Schema of the answer to a `human` question; None: any value.
        answer: `{"input": value}`, or `{"decision": ..., "result"?: value}`.

    Raises:
        InvalidAnswer: With every problem, pointers into `answer`.
    """
    problems = [Problem(fault.pointer, fault.code, fault.message) for fault in values.faults(dict(answer))]
    if not problems:
        problems = _decision_faults(answer) if kind == "did_it_happen" else _input_faults(schema, answer)
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


def _input_faults(schema: JsonText | None, answer: Mapping[str, Json]) -> list[Problem]:
    if "input" not in answer:
        return [Problem("/input", "missing_field", "`input` is required: the answer.")]
    if schema is None:
        return []
    validator = Draft202012Validator(values.decode(schema), registry=Registry())
    try:
        found = list(islice(validator.iter_errors(answer["input"]), MAX_PROBLEMS))
    except (Unresolvable, RecursionError) as exc:
        return [Problem("/input", "bad_schema", f"The schema of the answer cannot be applied: {str(exc)[:300]}")]
    return [Problem(pointer_to("input", *fault.absolute_path), "bad_value", fault.message[:300]) for fault in found]
