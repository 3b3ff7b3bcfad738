"""What a person may answer to a question, and what becomes of it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

from dagbok.domain import approval, doubt, overrides, secrets, values
from dagbok.domain.judging import misfits
from dagbok.domain.plan import read_id
from dagbok.domain.secrets import Redactor
from dagbok.domain.states import Effect, QuestionOutcome
from dagbok.domain.task import Task, read_task
from dagbok.domain.validate import Limits, Problem, literals, params_faults
from dagbok.domain.values import Json, JsonText, pointer_to
from dagbok.domain.wording import iso
from dagbok.errors import BadInput, Conflict, InvalidAnswer, TooLarge

#: Named of one answer.
MAX_PROBLEMS: Final = 100
#: What each decision means, by kind of question. A question of the plan is answered by a value.
DECISIONS: Final[Mapping[str, Mapping[str, str]]] = {
    doubt.KIND: dict(zip(doubt.DECISIONS, ("run it again", "take it as done", "take it as failed"), strict=True)),
    approval.KIND: dict(zip(approval.DECISIONS, ("run it", "run it with other params", "do not run it"), strict=True)),
}
#: What goes with a decision, and with no other: of which kind of question, which decision, and what it is.
_WITH: Final = {
    "result": (doubt.KIND, "succeeded", "what it brought"),
    "params": (approval.KIND, "edit", "all params, in place of those shown"),
}


def read(kind: str, schema: JsonText | None, answer: Mapping[str, Json]) -> Json:
    """Return the answer as the aggregate takes it; of an `edit` the params are still to be judged (`edited`).

    Args:
        kind: Of the question: `human`, `approval` or `did_it_happen`.
        schema: JSON Schema of the answer to a `human` question; None: any value.
        answer: `{"input": value}`; or `{"decision": ...}`, with `result` if it is `succeeded`, with `params` if it is
            `edit`.

    Raises:
        InvalidAnswer: With every problem, pointers into `answer`.
        TooLarge: It is too much to judge by the schema.
    """
    decides = kind in DECISIONS
    problems = [Problem(fault.pointer, fault.code, fault.message) for fault in values.faults(dict(answer))]
    if not problems:
        problems = _decision_faults(kind, answer) if decides else _input_faults(schema, answer)
    if not problems:
        problems = _unheeded(kind, answer)
    if problems:
        raise invalid(problems)
    if not decides:
        return answer["input"]
    return {name: value for name, value in answer.items() if value is not None or name == "result"}


def invalid(problems: list[Problem]) -> InvalidAnswer:
    """Return the error that tells of all `problems` of an answer."""
    return InvalidAnswer(f"The answer does not fit: {problems[0].message}", problems=problems)


def _decision_faults(kind: str, answer: Mapping[str, Json]) -> list[Problem]:
    meanings = DECISIONS[kind]
    decision = answer.get("decision")
    if not isinstance(decision, str) or decision not in meanings:
        words = ", ".join(f"{word} ({meaning})" for word, meaning in meanings.items())
        return [Problem("/decision", "bad_value", f"`decision` is one of {words}.")]
    if decision == "edit" and answer.get("params") is None:
        return [
            Problem("/params", "missing_field", "`params` is required with `edit`: all of them, as they should be.")
        ]
    return []


def _unheeded(kind: str, answer: Mapping[str, Json]) -> list[Problem]:
    """Return what is said and would be dropped: whoever says it means something else than would happen."""
    heeded = {"decision"} if kind in DECISIONS else {"input"}
    for name, (of_kind, decision, _) in _WITH.items():
        if (kind, answer.get("decision")) == (of_kind, decision):
            heeded.add(name)
    return [
        Problem(pointer_to(name), "bad_value", f"`{name}` {_why(kind, name)}")
        for name, value in answer.items()
        if name not in heeded and value is not None
    ]


def _why(kind: str, name: str) -> str:
    if kind not in DECISIONS:
        return "says nothing here: the question is of the plan, and its answer is `input`."
    if name in _WITH and _WITH[name][0] == kind:
        return f"would be dropped: it goes with the decision `{_WITH[name][1]}` alone."
    more = [f"`{other}` ({what}) with `{decision}`" for other, (of, decision, what) in _WITH.items() if of == kind]
    return f"says nothing here: the answer is a `decision`, and {', '.join(more)}."


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


# -- edited params ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Calls:
    """What there is to know of the tools before params of a person's choice may reach them."""

    schemas: Mapping[str, Mapping[str, Any]]  # of their params, by name
    effect_of: Callable[[Task], Effect]
    limits: Limits
    redactor: Redactor


def edited(
    answer: Mapping[str, Json], document: Mapping[str, Json], task_id: str, standing: Mapping[str, Json], calls: Calls
) -> Json:
    """Return an `edit` as the aggregate takes it: with the effect that the call has with its new params.

    Args:
        answer: As `read` returns it.
        document: The plan.
        task_id: Of the sub-task that waits for an approval.
        standing: What was changed about it since its plan was written.
        calls: The tools.

    Raises:
        InvalidAnswer: The tool does not take such params; with every problem, pointers into `answer`.
        Conflict: The tool is not known here, so nobody here can judge its params.
    """
    items: Any = document["sub_tasks"]
    planned = next(read_task(item) for item in items if read_id(item["id"]) == task_id)
    now = overrides.apply(planned, standing)
    params = answer["params"]
    if not isinstance(params, dict):
        raise invalid([Problem("/params", "bad_value", "`params` has to be a JSON object, the params as a whole.")])
    new = overrides.apply(now, {"edited": params})
    if new.action_type == "tool" and new.tool not in calls.schemas:
        message = (
            f"Sub-task {task_id!r} calls the tool {new.tool!r:.100}, which is not known here: nobody can judge its"
        )
        raise Conflict(f"{message} params. `--tools MODULE` brings it.", task_id=task_id)
    problems = [
        *_new_secrets(now.tool_or_prompt.params, params, calls.redactor),
        *literals(params, calls.redactor, "params"),
        *_moved(params_faults(new, calls.schemas, calls.redactor)),
    ]
    if problems:
        raise invalid(problems[:MAX_PROBLEMS])
    return {**answer, "effect": calls.effect_of(new).value}


def _new_secrets(now: Mapping[str, Json], params: Mapping[str, Json], redactor: Redactor) -> list[Problem]:
    """Return the secrets that are asked for where the sub-task did not ask for them.

    What somebody edits may hold a part of a result, and that must not be able to name one.
    """
    known = set(secrets.references(now))
    return [
        Problem(
            pointer_to("params", *path),
            "secret_not_allowed",
            f"The sub-task does not ask for the secret {name!r} here, and an edit cannot: it may come from a result.",
        )
        for path, name in secrets.references(params)
        if (path, name) not in known and name in redactor.names
    ]


def _moved(problems: Iterable[Problem]) -> list[Problem]:
    return [replace(problem, pointer=f"/params{problem.pointer}") for problem in problems]


# -- too late ---------------------------------------------------------------------------------------------------------


def too_late(
    execution_id: str, task_id: str, *, outcome: str | None, by: str | None, at_ms: int, status: str | None = None
) -> Conflict:
    """Return the error of an answer to a question that is closed: how it was, and when.

    Args:
        execution_id: The execution.
        task_id: The sub-task that asked.
        outcome: A word of `QuestionOutcome`; None: it is not known.
        by: Who answered, or ended the execution.
        at_ms: When.
        status: Of the sub-step now, if it is known.
    """
    whom = f" by {by!r:.220}" if by else ""
    how = {
        QuestionOutcome.ANSWERED.value: f"was answered{whom} at",
        QuestionOutcome.TIMED_OUT.value: "timed out at",
        QuestionOutcome.CANCELLED.value: f"was closed{whom}, with its execution, at",
    }.get(outcome or "", f"was closed{whom} at")
    now = f"; the sub-step is {status}" if status else ""
    message = f"The question of sub-step {task_id!r} of {execution_id} {how} {iso(at_ms)}{now}."
    return Conflict(message, execution_id=execution_id, task_id=task_id)
