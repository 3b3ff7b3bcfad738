"""Can this override stand? What somebody changes about a sub-task is judged as the plan was, in its place.

An override, `{"params"?, "tool"?, "model"?}`, is written into a copy of the plan's document and the whole is checked by
`dagbok.domain.validate`; what is wrong with that sub-task is the override's fault. Beyond that the graph stays: nothing
new may be referred to, and what the old params waited for is waited for still.

Codes beside those of `validate`: unknown_task, not_allowed, new_dependency.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, Final

from dagbok.domain import refs, submission, validate, values
from dagbok.domain.ids import SYNTHESIS, TaskId
from dagbok.domain.overrides import apply
from dagbok.domain.plan import INFERENCE, read_id
from dagbok.domain.secrets import Redactor
from dagbok.domain.task import Task, read_task
from dagbok.domain.validate import Limits, Problem
from dagbok.domain.values import Json, pointer_to
from dagbok.domain.wording import nearest
from dagbok.errors import BadInput, BadReference

#: What an override may hold.
FIELDS: Final = ("params", "tool", "model")
#: Ids that are compared with one that is not known; and only for the first of thousands of these.
_COMPARED: Final = 500

Overrides = Mapping[str, Mapping[str, Json]]


def faults(
    document: Mapping[str, Json],
    task_id: str,
    override: Json,
    *,
    tools: Mapping[str, Mapping[str, Any]],
    limits: Limits | None = None,
    redactor: Redactor | None = None,
) -> list[Problem]:
    """Return what is wrong with one override, with pointers into it, such as "/params/url"; see `faults_of_all`."""
    found = faults_of_all(document, {task_id: override}, tools=tools, limits=limits, redactor=redactor)
    start = pointer_to((redactor or Redactor({})).text(task_id))
    return [replace(problem, pointer=problem.pointer.removeprefix(start)) for problem in found]


def faults_of_all(
    document: Mapping[str, Json],
    overrides: Mapping[str, Json],
    *,
    tools: Mapping[str, Mapping[str, Any]],
    limits: Limits | None = None,
    redactor: Redactor | None = None,
) -> list[Problem]:
    """Return what is wrong with overrides by task id, with pointers into them, such as "/3/params/url".

    The plan is checked once, however many they are. What was wrong with it before, by the tools and rules of today, is
    told only where an override could have mended it.

    Args:
        document: A plan that was accepted once, with the overrides that stand already (`write`).
        overrides: Whatever somebody gave.
        tools: See `validate.check`.
        limits: See `validate.check`.
        redactor: See `validate.check`.
    """
    redactor = redactor or Redactor({})
    tasks = {id: (at, item) for at, item in enumerate(document["sub_tasks"]) if (id := read_id(item["id"]))}
    found: list[Problem] = []
    unknown = 0
    sound: dict[int, tuple[TaskId, dict[str, Json]]] = {}  # by the position of the sub-task
    for name, override in overrides.items():
        shown, place = redactor.text(name), tasks.get(TaskId(name))
        if place is None and (name != SYNTHESIS or not _has_synthesis(document)):
            compared = len(tasks) <= _COMPARED and unknown < validate.MAX_SUGGESTIONS
            near = nearest(shown, tasks) if compared else None
            unknown += 1
            found.append(Problem(pointer_to(shown), "unknown_task", _unknown(shown, near)))
            continue
        task = None if place is None else read_task(place[1])
        if wrong := [_redacted(problem, name, redactor) for problem in _misfits(TaskId(name), task, override)]:
            found += wrong
        elif place is not None:
            sound[place[0]] = (TaskId(name), override)
        else:  # the document has no place for it, so the check of that does not see it
            found += validate.literals(override, redactor, name)
    if sound:
        found += _checked(document, sound, tools, limits or Limits(), redactor)
    return found


def refused(problems: Sequence[Problem]) -> BadInput:
    """Return the error that tells of faults of overrides, with pointers such as "/overrides/3/params/url"."""
    count = f"{len(problems):,} problems" if len(problems) > 1 else "1 problem"
    placed = tuple(replace(problem, pointer=f"/overrides{problem.pointer}") for problem in problems)
    return BadInput(f"The overrides have {count}: {problems[0].message}", problems=placed)


def write(document: Mapping[str, Json], overrides: Overrides) -> dict[str, Json]:
    """Return the plan's document with overrides in their places; all else is shared with `document`, not copied.

    What a sub-task waited for by a reference that is gone, it names among its dependencies now. Passed over are tasks
    that are not in it, so the synthesis, too: a document has no place for its model.
    """
    written = [
        _written(item, override) if (override := overrides.get(read_id(item["id"]) or "")) else item
        for item in document["sub_tasks"]
    ]
    return {**document, "sub_tasks": written}


def _written(item: Mapping[str, Json], override: Mapping[str, Json]) -> dict[str, Json]:
    task = read_task(item)
    said = {name: override[name] for name in FIELDS if name in override}  # an edit is of one call, and no plan's
    now = apply(task, said).tool_or_prompt
    params = now.params
    call = {**item["tool_or_prompt"], "name": now.name, "params": params}
    written = {**item, "tool_or_prompt": call}
    try:
        still = {*task.dependencies, *refs.named(params)}
    except BadReference:
        return written  # which cannot stand, as the check of the document says
    if lost := [name for name in submission.dependencies(task) if name not in still]:
        written["dependencies"] = [*task.dependencies, *lost]
    return written


def _has_synthesis(document: Mapping[str, Json]) -> bool:
    return bool(str(document.get("synthesis_plan") or "").strip())


def _unknown(name: str, near: str | None) -> str:
    return f"There is no sub-task {name[:200]!r} in the plan.{f' Did you mean {near!r}?' if near else ''}"


def _redacted(problem: Problem, name: str, redactor: Redactor) -> Problem:
    return Problem(
        pointer_to(redactor.text(name)) + redactor.text(problem.pointer), problem.code, redactor.text(problem.message)
    )


def _misfits(id: TaskId, task: Task | None, override: Json) -> Iterator[Problem]:
    """Yield what an override of this sub-task (None: of the synthesis) cannot be, before it is in its place."""
    whose = f"The override of {'the synthesis' if task is None else f'sub-task {id!r}'}"
    if not isinstance(override, dict):
        yield Problem("", "bad_value", f'{whose} has to be a JSON object: {{"params"?, "tool"?, "model"?}}.')
        return
    if not override:
        yield Problem("", "bad_value", f"{whose} changes nothing; give it params, a tool or a model.")
    for field in override:
        if field not in FIELDS:
            near = nearest(str(field), FIELDS)
            more = f"did you mean {near!r}?" if near else f"it may have {', '.join(FIELDS)}."
            yield Problem(pointer_to(field), "unknown_field", f"{whose}: `{str(field)[:100]}` is not known; {more}")
    if "params" in override:
        if task is None:
            yield Problem("/params", "not_allowed", f"{whose} may name a model; it has no params.")
        elif not isinstance(override["params"], dict):
            yield Problem("/params", "bad_value", f"{whose}: `params` has to be a JSON object, the params as a whole.")
    if "tool" in override:
        if task is None or task.action_type != "tool":
            what = "the synthesis" if task is None else f"a sub-task of type {task.action_type!r}"
            yield Problem("/tool", "not_allowed", f"{whose} may not name a tool; {what} calls none of its choice.")
        elif not _is_name(override["tool"]):
            yield Problem("/tool", "bad_value", f"{whose}: `tool` has to be the name of a tool.")
    if "model" in override:
        called = None if task is None else override.get("tool", task.tool) if task.action_type == "tool" else task.tool
        if called not in (None, INFERENCE):
            message = f"{whose} may not name a model; only an inference and the synthesis ask one."
            yield Problem("/model", "not_allowed", message)
        elif not _is_name(override["model"]):
            yield Problem("/model", "bad_value", f"{whose}: `model` has to be the name of a model, as PROVIDER:MODEL.")


def _is_name(value: Json) -> bool:
    if not isinstance(value, str) or not 1 <= len(value) <= 200:
        return False
    return not any(True for _ in values.faults(value))


def _checked(
    document: Mapping[str, Json],
    sound: Mapping[int, tuple[TaskId, Mapping[str, Json]]],
    tools: Mapping[str, Mapping[str, Any]],
    limits: Limits,
    redactor: Redactor,
) -> Iterator[Problem]:
    """Yield what is wrong with overrides, by position, that are in their places."""
    overridden = write(document, dict(sound.values()))
    # What was accepted once is not judged by limits that were set lower since; only the overrides add to it.
    room = Limits(
        max(limits.sub_tasks, len(document["sub_tasks"])), max(limits.plan_bytes, len(values.encode(document).encode()))
    )
    for problem in validate.check(overridden, tools, room, redactor):
        if not problem.pointer:
            yield problem  # too large, all of them together
            continue
        match problem.pointer.split("/"):
            case ["", "sub_tasks", at, "tool_or_prompt", *rest] if int(at) in sound:
                id, override = sound[int(at)]
                if (place := _place(override, rest)) is not None:
                    yield replace(problem, pointer=pointer_to(id) + place)
    ids = {read_id(item["id"]) for item in document["sub_tasks"]}
    for position, (id, override) in sound.items():
        for path, name in _new_dependencies(document["sub_tasks"][position], override):
            if name not in ids:
                continue  # told by the check
            message = (
                f"The override of sub-task {id!r} refers to the result of {name!r}, which the sub-task does not depend "
                "on. Who waits for whom stays as it is; fork the execution with another plan to change that."
            )
            yield Problem(pointer_to(id, "params", *path), "new_dependency", redactor.text(message))


def _place(override: Mapping[str, Json], rest: list[str]) -> str | None:
    """Return where in the override the fault lies that is in this part of `tool_or_prompt`; None: it is not its fault.

    Params that do not suit another tool or model, and stay as they are, are the fault of what is new.
    """
    if rest[:1] == ["name"]:
        return "/tool" if "tool" in override else None
    if rest[:2] == ["params", "model"] and "model" in override:
        return "/model"
    if "params" in override:
        return "/" + "/".join(rest)
    return "/tool" if "tool" in override else None


def _new_dependencies(item: Mapping[str, Json], override: Mapping[str, Json]) -> Iterator[tuple[Any, TaskId]]:
    if "params" not in override:
        return
    task = read_task(item)
    known = {*submission.dependencies(task), task.id}  # itself: told by the check
    for path, text in refs.walk(override["params"]):
        try:
            names = {name: None for reference in refs.find(text) for name in reference.tasks}
        except BadReference:
            continue  # told by the check
        yield from ((path, name) for name in names if name not in known)
