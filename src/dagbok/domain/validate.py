"""Is this a plan that can run? `check` finds every problem at once: JSON pointer, stable code, sentence.

Codes: missing_field, bad_value, unknown_field, not_json, empty_plan, too_many_tasks, too_large, duplicate_id,
reserved_id, self_dependency, unknown_dependency, unknown_reference, bad_reference, cycle, unknown_tool, invalid_params,
bad_schema, bad_secret, secret_not_allowed, unknown_secret, literal_secret.

Linear in the size of the plan: 10,000 sub-tasks take well under a second.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any

from jsonschema import Draft202012Validator
from jsonschema.exceptions import ValidationError as SchemaViolation
from pydantic import ValidationError
from referencing import Registry

from dagbok.domain import fitting, graph, judging, outline, refs, retry, schemas, secrets, values
from dagbok.domain.ids import SYNTHESIS, TaskId
from dagbok.domain.outline import Outline
from dagbok.domain.plan import HUMAN, INFERENCE, Plan, read_id, says_none
from dagbok.domain.secrets import Redactor
from dagbok.domain.task import Reading, Task
from dagbok.domain.values import Json, JsonText, pointer_to
from dagbok.domain.wording import nearest, said
from dagbok.errors import BadInput, BadReference, InvalidPlan, NotJson, TooLarge

#: The params of a question to a person, checked like those of a tool.
HUMAN_PARAMS: Mapping[str, Any] = {
    "type": "object",
    "properties": {
        "prompt": {"type": "string", "minLength": 1},
        "schema": {"type": "object"},
        "assignee": {"type": "string"},
    },
    "required": ["prompt"],
}

# Faults of an object as a whole: true whatever its references turn into.
_WHOLE = frozenset(
    {"required", "additionalProperties", "unevaluatedProperties", "minProperties", "maxProperties", "dependentRequired"}
    | {"minItems", "maxItems"}
)

# What holds other values.
_NESTED = frozenset({dict, list})

# Whose params say what may be answered.
_ASKING = frozenset({HUMAN, INFERENCE})

# What a sub-task says of its attempts.
_OF_TRIES = frozenset({"retry", "timeout_seconds", "idle_timeout_seconds"})

#: What breaks the rules of JSON, or the schema of one tool, more often than this is cut off here: 8 MiB of `NaN,` are
#: two million faults, and nobody reads those.
MAX_FAULTS = 1000
#: What judging all defaults of a plan may cost, in steps of `dagbok.domain.judging`.
JUDGING_STEPS = 1_000_000
#: Misspelled names that get a suggestion. Comparing costs about a millisecond each.
MAX_SUGGESTIONS = 100


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong with a plan."""

    pointer: str  # RFC 6901, "" for the whole plan
    code: str
    message: str


@dataclass(frozen=True, slots=True)
class Limits:
    """How large a plan may be; the settings decide."""

    sub_tasks: int = 10_000
    plan_bytes: int = 8 * 2**20


def check(
    plan: Json | Plan,
    tools: Mapping[str, Mapping[str, Any]],
    limits: Limits | None = None,
    redactor: Redactor | None = None,
) -> list[Problem]:
    """Return every problem of `plan`; empty for one that can run.

    Args:
        plan: The JSON document, or a `Plan`.
        tools: JSON Schema of the params by tool name, aliases included.
        limits: The bounds; the design's where not given.
        redactor: Of the secrets that the plan may name; None: which there are is not known here, and not judged.
    """
    return _Check(tools, limits or Limits(), redactor).run(plan.document() if isinstance(plan, Plan) else plan)


def read(
    document: Json | Plan,
    tools: Mapping[str, Mapping[str, Any]],
    limits: Limits | None = None,
    redactor: Redactor | None = None,
    *,
    text: JsonText | None = None,
) -> Outline:
    """Return the plan of a document.

    Args:
        document: The JSON document, or a `Plan`.
        tools: As of `check`.
        limits: As of `check`.
        redactor: As of `check`.
        text: The document as `values.encode` wrote it, where that is at hand.

    Raises:
        InvalidPlan: With every problem.
        TooLarge: Over the limit of bytes or sub-tasks.
    """
    checker = _Check(tools, limits or Limits(), redactor)
    problems = checker.run(document.document() if isinstance(document, Plan) else document, text)
    if problems or checker.outline is None:
        size = next((p for p in problems if p.code in ("too_large", "too_many_tasks")), None)
        if size:
            raise TooLarge(size.message, problems=tuple(problems))
        count = f"{len(problems)} problems" if len(problems) != 1 else "1 problem"
        raise InvalidPlan(f"The plan has {count}: {problems[0].message}", problems=problems)
    return checker.outline


def params_faults(task: Task, tools: Mapping[str, Mapping[str, Any]], redactor: Redactor | None) -> list[Problem]:
    """Return how the params of one sub-task break its tool's schema, with pointers into them."""
    checker = _Check(tools, Limits(), redactor)
    checker.check_params(0, task)
    start = pointer_to("sub_tasks", 0, "tool_or_prompt", "params")
    return [replace(problem, pointer=problem.pointer.removeprefix(start)) for problem in checker.problems]


def literals(document: Json, redactor: Redactor, *path: str) -> list[Problem]:
    """Return the places of `document`, itself at `path`, where the value of a secret is written out."""
    return [
        Problem(
            pointer_to(*path, *place),
            "literal_secret",
            f'The value of the secret {name!r} is written out here; write {{"secret": "{name}"}} in the params of a '
            "tool instead.",
        )
        for place, name in islice(redactor.find(document), MAX_FAULTS)
    ]


class _Check:
    def __init__(self, tools: Mapping[str, Mapping[str, Any]], limits: Limits, redactor: Redactor | None) -> None:
        self.redactor = redactor
        self.tools = tools
        self.limits = limits
        self.outline: Outline | None = None  # of a plan that can run
        self.problems: list[Problem] = []
        self._validators: dict[str, Any] = {}
        self._fits: dict[str, fitting.Fits] = {}  # by tool
        self._bare: set[str] = set()  # tools that may be called without params
        self._suggestions = 0
        self._steps = JUDGING_STEPS  # of each default, so that all of them are bounded
        self._meant: dict[tuple[str, float], str | None] = {}  # by word of a `retry` that is not known

    def run(self, document: Json, text: JsonText | None = None) -> list[Problem]:
        if not self._is_sound(document, text):
            return self.problems
        if self.redactor is not None and (found := literals(document, self.redactor)):
            self.problems += found
            document = self.redactor.value(document)  # further problems quote it
        raw = document.get("sub_tasks")
        given: list[Any] = raw if isinstance(raw, list) else []
        plan, tasks = self._parse(document, given)
        if plan is not None and not tasks and not plan.clarification_needed:
            self._add("empty_plan", "The plan has no sub-tasks.", "sub_tasks")
        positions = self._positions(given, tasks)
        self._steps = JUDGING_STEPS // max(1, len(given))
        parents: list[Sequence[int]] = [()] * len(given)
        for position, (item, task) in enumerate(zip(given, tasks, strict=True)):
            if isinstance(item, dict) and not _OF_TRIES.isdisjoint(item):
                self._tries(position, item)
            if task is None:
                continue
            params = task.tool_or_prompt.params
            referenced = self._references(position, task) if params and refs.may_refer(params) else {}
            parents[position] = self._links(position, item, task, referenced, positions)
            if not params and task.tool in self._bare:
                continue
            if params and not _NESTED.isdisjoint(map(type, params.values())):  # no secret stands at the top
                self._secrets(position, task)
            self.check_params(position, task)
        shape = graph.acyclic(parents)
        if shape is None:
            self._cycles(parents, tasks)
        elif plan is not None and not self.problems:
            self.outline = outline.of(plan, [task for task in tasks if task is not None], shape)
        return self.problems

    def _add(self, code: str, message: str, *path: str | int) -> None:
        self.problems.append(Problem(pointer_to(*path), code, message))

    def _is_sound(self, document: Json, text: JsonText | None) -> bool:
        """Whether the document is JSON within the limits, so that everything after may read it freely."""
        if not isinstance(document, dict):
            self._add("bad_value", f"A plan is a JSON object, not {_kind(document)}.")
            return False
        try:
            if text is None or len(text) > self.limits.plan_bytes // 4:  # no UTF-8 of fewer characters is too large
                values.encode(document, max_bytes=self.limits.plan_bytes)
        except NotJson:  # only now is it worth walking millions of values to name each place
            self.problems += (Problem(fault.pointer, fault.code, fault.message) for fault in _first_faults(document))
            return False
        except TooLarge as exc:
            self._add("too_large", f"The plan has {exc.size:,} bytes of JSON; at most {exc.limit:,} are accepted.")
        tasks = document.get("sub_tasks")
        if isinstance(tasks, list) and len(tasks) > self.limits.sub_tasks:
            message = f"The plan has {len(tasks):,} sub-tasks; at most {self.limits.sub_tasks:,} are accepted."
            self._add("too_many_tasks", message, "sub_tasks")
        return not self.problems

    def _parse(self, document: dict[str, Any], items: Sequence[Json]) -> tuple[Plan | None, list[Task | None]]:
        """Return the plan, its own sub-tasks aside, and each sub-task that can be read; problems for the rest."""
        tasks = Reading().all(items)
        whole = None in tasks or not isinstance(document.get("sub_tasks"), list)
        try:
            return Plan.model_validate(document) if whole else outline.head(document), tasks
        except ValidationError as exc:
            found: dict[tuple[str, tuple[str | int, ...]], list[str]] = {}
            for error in exc.errors(include_url=False, include_input=False):
                code = "missing_field" if error["type"] == "missing" else "bad_value"
                place = (*_place(document, error["loc"]), *(error["loc"][-1:] if code == "missing_field" else ()))
                found.setdefault((code, place), []).append(said(error))
            for (code, place), words in found.items():
                self._add(code, f"{_named(document, place)} {', or '.join(words)}.", *place)
        return None, tasks

    def _positions(self, raw: Sequence[Json], tasks: Sequence[Task | None]) -> dict[TaskId, int]:
        """Return where each id stands. A sub-task with another fault still exists: depending on it is no problem."""
        positions = {task.id: position for position, task in enumerate(tasks) if task is not None}
        if len(positions) == len(raw) and SYNTHESIS not in positions:
            return positions
        positions.clear()
        for position, (item, task) in enumerate(zip(raw, tasks, strict=True)):
            id = task.id if task else read_id(item.get("id")) if isinstance(item, dict) else None
            if id is None:
                continue
            if id == SYNTHESIS:
                self._add("reserved_id", f"The id {SYNTHESIS} belongs to the synthesis.", "sub_tasks", position, "id")
            first = positions.setdefault(id, position)
            if first != position:
                message = f'The id {id!r} is taken by sub-task {first} already (1 and "1" are the same id).'
                self._add("duplicate_id", message, "sub_tasks", position, "id")
        return positions

    def _references(self, position: int, task: Task) -> dict[TaskId, refs.Path]:
        """Return the tasks that the params name, each with the place in them of its first mention."""
        found: dict[TaskId, refs.Path] = {}
        for path, text in refs.walk(task.tool_or_prompt.params):
            try:
                for reference in refs.find(text):
                    for name in reference.tasks:
                        found.setdefault(name, path)
            except BadReference as exc:
                message = _ended(f"Sub-task {task.id!r}: {exc.message}")
                self._add(exc.code, message, "sub_tasks", position, "tool_or_prompt", "params", *path)
        return found

    def _links(
        self,
        position: int,
        item: Mapping[str, Json],
        task: Task,
        referenced: Mapping[TaskId, refs.Path],
        positions: Mapping[TaskId, int],
    ) -> Sequence[int]:
        """Return the positions of the tasks it waits for."""
        names = (*task.dependencies, *referenced) if referenced else task.dependencies
        if not names:
            return ()
        if task.id not in names:
            try:  # no `suppress`, which costs as much as the rest
                return tuple(dict.fromkeys(map(positions.__getitem__, names)))
            except KeyError:
                pass  # told below
        parents: dict[int, None] = {}
        written = (index for index, name in enumerate(item.get("dependencies") or ()) if not says_none(name))
        for index, name in zip(written, task.dependencies, strict=False):
            where = pointer_to("sub_tasks", position, "dependencies", index)
            self._link(task, name, where, "unknown_dependency", "depends on", positions, parents)
        for name, path in referenced.items():
            where = pointer_to("sub_tasks", position, "tool_or_prompt", "params", *path)
            self._link(task, name, where, "unknown_reference", "refers to the result of", positions, parents)
        return tuple(parents)

    def _link(
        self,
        task: Task,
        name: TaskId,
        where: str,
        code: str,
        verb: str,
        positions: Mapping[TaskId, int],
        parents: dict[int, None],
    ) -> None:
        if name == task.id:
            self.problems.append(Problem(where, "self_dependency", f"Sub-task {task.id!r} {verb} itself."))
        elif (parent := positions.get(name)) is None:
            near = self._suggestion(name, positions)
            self.problems.append(
                Problem(where, code, f"Sub-task {task.id!r} {verb} {name!r}, which is not in the plan.{near}")
            )
        else:
            parents[parent] = None

    def _secrets(self, position: int, task: Task) -> None:
        """Look at the secrets it asks for."""
        for path, name in secrets.references(task.tool_or_prompt.params):
            where = ("sub_tasks", position, "tool_or_prompt", "params", *path)
            if not secrets.NAME.fullmatch(name):
                message = "is no name of a secret: capital letters, digits and '_', such as API_TOKEN, and no reference"
                self._add("bad_secret", f"Sub-task {task.id!r}: {_shorten(name, 100)!r} {message}.", *where)
            elif not secrets.may_have(task.tool):
                message = f"would be shown to {'a person' if task.tool == HUMAN else 'the provider of a model'}"
                self._add("secret_not_allowed", f"Sub-task {task.id!r}: the secret {name!r} {message}.", *where)
            elif self.redactor is not None and name not in self.redactor.names:
                near = self._suggestion(name, dict.fromkeys(self.redactor.names))
                message = f"Sub-task {task.id!r} asks for the secret {name!r}, which is not known.{near}"
                self._add("unknown_secret", f"{message} {secrets.how_to_set(name)}", *where)

    def _tries(self, position: int, item: Mapping[str, Any]) -> None:
        """Look at what it says of its attempts."""
        # Not by the model: what an earlier release took, and did not look at, has to be readable for ever.
        given = item.get("retry")
        for path, code, fault in retry.faults(given, self._near) if isinstance(given, dict) else ():
            name = _of_task(position, item, "retry", *path)
            self._add(code, f"{name} {fault}", "sub_tasks", position, "retry", *path)
        for field in ("timeout_seconds", "idle_timeout_seconds"):
            if item.get(field) is True:  # 1 to Python, and so to the model, which refuses 0
                message = f"{_of_task(position, item, field)} has to be a number, not true or false."
                self._add("bad_value", message, "sub_tasks", position, field)

    def check_params(self, position: int, task: Task) -> None:
        """Look at the tool of a sub-task, and at what it is given."""
        if task.tool not in self.tools and task.action_type != HUMAN:
            if task.action_type == INFERENCE and INFERENCE not in self.tools:
                return  # a checker without a model (a stand-alone `check`) has nothing to say about prompts
            near = self._suggestion(task.tool, self.tools)
            message = f"Sub-task {task.id!r} calls the tool {task.tool!r}, which is not known.{near}"
            self._add("unknown_tool", message, "sub_tasks", position, "tool_or_prompt", "name")
            return
        where = ("sub_tasks", position, "tool_or_prompt", "params")
        try:
            fits = self._fits.get(task.tool) or self._compiled(task)
            if not fits(task.tool_or_prompt.params):  # else references and secrets, too, fit as they are written
                for violation in islice(self._violations(task), MAX_FAULTS):
                    message = _ended(f"Sub-task {task.id!r}, tool {task.tool!r}: {_shorten(violation.message)}")
                    self._add("invalid_params", message, *where, *violation.absolute_path)
            elif not task.tool_or_prompt.params and task.tool not in _ASKING:
                self._bare.add(task.tool)
        except Exception as exc:  # a schema that is none, a `$ref` into nothing, a pattern that is no regex, recursion
            message = f"the params cannot be checked with its schema: {_shorten(f'{type(exc).__name__}: {exc}')}"
            self._add("invalid_params", _ended(f"Sub-task {task.id!r}, tool {task.tool!r}: {message}"), *where)
        if task.tool in _ASKING:
            self._answer_schema(position, task)
        if task.tool == HUMAN:
            self._nobody_answers(position, task)

    def _answer_schema(self, position: int, task: Task) -> None:
        params, place = task.tool_or_prompt.params, ["tool_or_prompt", "params"]
        if task.tool == HUMAN:
            schema, place = params.get("schema"), [*place, "schema"]
        elif params.get("output_schema") is not None:
            schema, place = params["output_schema"], [*place, "output_schema"]
        else:
            schema, place = schemas.of_expected(task.expected_output), ["expected_output"]
        if not isinstance(schema, dict) or any(_refers(text) for _, text in refs.walk(schema)):
            return  # absent, reported with the other params, or not decided yet
        spelled = place == ["expected_output"] and isinstance(task.expected_output, str)  # nothing stands inside
        for path, fault in schemas.faults(schema):
            message = f"Sub-task {task.id!r}: the schema of the answer cannot be used: {fault}"
            self._add("bad_schema", _ended(message), "sub_tasks", position, *place, *(() if spelled else path))

    def _nobody_answers(self, position: int, task: Task) -> None:
        """Look at what is to become of a question without an answer."""
        if task.on_timeout != "fail" and task.timeout_seconds is None:
            message = f"`on_timeout` is {task.on_timeout!r}, and without `timeout_seconds` no time is ever over"
            self._add("missing_field", f"Sub-task {task.id!r}: {message}.", "sub_tasks", position, "timeout_seconds")
        schema = task.tool_or_prompt.params.get("schema")
        if "default" not in (task.on_timeout, task.on_failure) or not isinstance(schema, dict):
            return
        if any(_refers(text) for _, text in refs.walk(schema)) or any(True for _ in schemas.faults(schema)):
            return  # not decided yet; reported already
        with suppress(TooLarge, BadInput):  # more than is worth judging here; its schema does not bind the default
            for fault in judging.misfits(schema, task.default, 1, steps=self._steps):
                message = f"Sub-task {task.id!r}: the `default` is no answer to its question: {_shorten(fault.message)}"
                self._add("bad_value", _ended(message), "sub_tasks", position, "default", *fault.absolute_path)

    def _schema(self, task: Task) -> Mapping[str, Any]:
        return HUMAN_PARAMS if task.action_type == HUMAN else self.tools[task.tool]

    def _compiled(self, task: Task) -> fitting.Fits:
        fits = self._fits[task.tool] = fitting.compiled(self._schema(task))
        return fits

    def _violations(self, task: Task) -> Iterator[SchemaViolation]:
        """Yield what breaks the tool's schema, leaving out what a reference may still put right."""
        validator = self._validators.get(task.tool)
        if validator is None:
            # An empty registry: a `$ref` to a URL must not make a check of data open a connection.
            validator = Draft202012Validator(self._schema(task), registry=Registry())
            self._validators[task.tool] = validator
        params, hidden = (
            task.tool_or_prompt.params,
            [path for path, _ in secrets.references(task.tool_or_prompt.params)],
        )
        if hidden:  # each will be some text
            params = values.decode(values.encode(params))
            for path in hidden:
                secrets.put(params, path, "")
        undecided: set[tuple[str | int, ...]] | None = None  # the places of references, and all that hold one
        for violation in validator.iter_errors(params):
            if undecided is None:
                places = [*hidden, *(path for path, text in refs.walk(params) if _refers(text))]
                undecided = {path[:length] for path in places for length in range(len(path) + 1)}
            if violation.validator in _WHOLE or tuple(violation.absolute_path) not in undecided:
                yield violation

    def _suggestion(self, name: str, known: Mapping[Any, Any]) -> str:
        # Comparing with thousands of ids, or for each of thousands of mistakes, would be quadratic.
        if len(known) > 500 or len(name) > 200 or self._suggestions >= MAX_SUGGESTIONS:
            return ""
        self._suggestions += 1
        near = difflib.get_close_matches(str(name), [str(key) for key in known], n=1)
        return f" Did you mean {near[0]!r}?" if near else ""

    def _near(self, word: str, known: Iterable[str], cutoff: float) -> str | None:
        """Return what a word of a `retry` was meant to be; of many that are not known, only for the first."""
        key = (word, cutoff)  # which also tells fields from codes
        if key not in self._meant and len(self._meant) < MAX_SUGGESTIONS:
            self._meant[key] = nearest(word, known, cutoff=cutoff)
        return self._meant.get(key)

    def _cycles(self, parents: Sequence[Sequence[int]], tasks: Sequence[Task | None]) -> None:
        for members in graph.cycles(parents):
            names = [repr(str(task.id)) for member in members if (task := tasks[member]) is not None]
            shown = names if len(names) <= 20 else [*names[:19], f"... ({len(names) - 20:,} more)", names[-1]]
            message = f"The sub-tasks wait for each other in a cycle: {' -> '.join([*shown, names[0]])}."
            self._add("cycle", message, "sub_tasks", members[0], "dependencies")


def _refers(text: str) -> bool:
    try:
        return bool(refs.find(text))
    except BadReference:
        return True  # reported as such


def _ended(sentence: str) -> str:
    return sentence if sentence.endswith((".", "?", "!")) else f"{sentence}."


def _first_faults(document: Json) -> Iterable[NotJson]:
    return islice(values.faults(document), MAX_FAULTS)


def _place(document: Json, location: Sequence[str | int]) -> tuple[str | int, ...]:
    """Return the part of Pydantic's location that is in the document; it also names members of a union."""
    place: list[str | int] = []
    at = document
    for part in location:
        if not (part in at if isinstance(at, dict) else isinstance(at, list) and isinstance(part, int)):
            break
        at = at[part]
        place.append(part)
    return tuple(place)


def _named(document: Mapping[str, Any], place: tuple[str | int, ...]) -> str:
    """Return what stands at a place, as a sentence begins with it; its pointer is told beside the sentence."""
    if len(place) < 2 or place[0] != "sub_tasks" or not isinstance(place[1], int):
        return f"`{'/'.join(map(str, place))}`" if place else "The plan"
    return _of_task(place[1], document["sub_tasks"][place[1]], *place[2:])


def _of_task(position: int, item: Json, *path: str | int) -> str:
    id = read_id(item.get("id")) if isinstance(item, dict) else None
    whose = f"Sub-task number {position + 1:,}" if id is None else f"Sub-task {id!r}"
    return f"{whose}: `{_shorten('/'.join(map(str, path)))}`" if path else whose


def _shorten(text: str, limit: int = 300) -> str:
    return text if len(text) <= limit else f"{text[: limit - 3]}..."


def _kind(value: object) -> str:
    names = {list: "a list", str: "a string", bool: "a boolean", int: "a number", float: "a number", type(None): "null"}
    return names.get(type(value), f"a {type(value).__name__}")
