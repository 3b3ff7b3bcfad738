"""The parameters of a function, as a JSON Schema for planners and as a check of what a plan passes.

Both come from the same Pydantic validator over a TypedDict made of the signature. A TypedDict rather than a model: it
forbids no parameter name (`schema`, `copy`, `_x`), and it leaves what was not given to the function's own defaults.
"""

from __future__ import annotations

import difflib
import functools
import inspect
import typing
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, NotRequired, Optional, Required

import pydantic_core
from pydantic import ConfigDict, PydanticUserError, TypeAdapter, ValidationError
from pydantic.errors import PydanticSchemaGenerationError
from pydantic.fields import FieldInfo
from pydantic.json_schema import GenerateJsonSchema, JsonSchemaMode
from typing_extensions import TypedDict

from dagbok.domain.values import pointer_to
from dagbok.errors import Misconfigured, ToolError
from dagbok.tools.context import ToolContext

MAX_FAULTS = 8  # named in one message; the rest is counted


@dataclass(frozen=True, slots=True)
class Inputs:
    """What a function takes."""

    schema: dict[str, Any]  #: JSON Schema of its params, always of type object
    check: Callable[[dict[str, Any]], dict[str, Any]]  #: params to keyword arguments; raises ValidationError
    required: bool  #: whether it can not be called without params
    context: str | None  #: the parameter that receives the ToolContext


def read(
    function: Callable[..., Any], *, namespace: Mapping[str, Any], method: bool, docs: Mapping[str, str]
) -> Inputs:
    """Return what `function` takes.

    Args:
        function: Any callable with a signature.
        namespace: More names that annotations may use, such as the local ones where the function is defined.
        method: Leave out the first parameter, which will be bound.
        docs: A description per parameter, for those whose annotation has none.

    Raises:
        Misconfigured: It takes positional-only parameters or `*args`, or an annotation that JSON cannot fill.
    """
    try:
        parameters = list(inspect.signature(function).parameters.values())[1 if method else 0 :]
    except (TypeError, ValueError) as exc:
        raise Misconfigured(f"it has no readable signature ({exc})") from exc
    hints = _hints(function, parameters, namespace)
    # What `functools.partial` has filled in is not the plan's to see (it may be a secret) or to change.
    fixed = frozenset(function.keywords) if isinstance(function, functools.partial) else frozenset()
    context: str | None = None
    rest: Any = None
    fields: dict[str, Any] = {}
    defaults: dict[str, Any] = {}
    for parameter in parameters:
        name, hint = parameter.name, hints.get(parameter.name, Any)
        _refuse(parameter)
        if parameter.kind is parameter.VAR_KEYWORD:
            rest = hint
        elif name in fixed:
            continue
        elif _is_context(hint):
            if context is not None:
                raise Misconfigured(f"both {context!r} and {name!r} ask for the ToolContext")
            context = name
        elif parameter.default is parameter.empty:
            fields[name] = Required[hint]
        else:
            # `x: str = None` says that null will do, and null is what models write for what they leave out.
            fields[name] = NotRequired[hint if parameter.default is not None else Optional[hint]]  # noqa: UP045 - of a value, not a type
            defaults[name] = parameter.default
    hidden = fixed | ({context} if context else frozenset())
    shape = _shape(fields, open_=rest is not None)
    schema = _describe(shape, rest, docs, defaults)
    required = any(name not in defaults for name in fields)
    return Inputs(schema, _checker(shape, rest, frozenset(fields), hidden), required, context)


def misfit(
    tool: str,
    inputs: Mapping[str, Any],
    params: Mapping[str, Any],
    error: ValidationError,
    redact: Callable[[str], str],
) -> ToolError:
    """Return `error` as `invalid_input`: each fault with the pointer of its place in `params`, and few words.

    They are cut, so secrets are taken out by `redact` before.
    """
    faults: list[dict[str, str]] = []
    for detail in error.errors(include_url=False, include_context=False, include_input=False):
        pointer = _pointer(params, detail["loc"], missing=detail["type"] == "missing")
        if detail["type"] == "missing":
            message = "is required"
        elif detail["type"] == "extra_forbidden":
            near = difflib.get_close_matches(str(detail["loc"][-1]), list(inputs.get("properties", ())), n=1)
            message = "is no parameter" + (f" (did you mean {near[0]!r}?)" if near else "")
        else:
            message = detail["msg"].removeprefix("Value error, ").removeprefix("Assertion failed, ")
        fault = {"pointer": pointer, "message": redact(message)[:300]}
        if fault not in faults:
            faults.append(fault)
    named = "; ".join(f"{fault['pointer'] or 'params'}: {fault['message']}" for fault in faults[:MAX_FAULTS])
    more = f"; and {len(faults) - MAX_FAULTS} more" if len(faults) > MAX_FAULTS else ""
    return ToolError(f"The params of {tool!r} do not fit: {named}{more}.", code="invalid_input", errors=faults[:100])


def _refuse(parameter: inspect.Parameter) -> None:
    name = parameter.name
    if parameter.kind is parameter.POSITIONAL_ONLY:
        raise Misconfigured(f"parameter {name!r} is positional-only; params come by name, so remove the '/'")
    if parameter.kind is parameter.VAR_POSITIONAL:
        raise Misconfigured(f"it takes '*{name}'; params come by name, so use a list parameter instead")
    if isinstance(parameter.default, FieldInfo):
        raise Misconfigured(
            f"the default of {name!r} is a pydantic Field; write {name}: Annotated[TYPE, Field(...)] = DEFAULT"
        )


def _hints(
    function: Callable[..., Any], parameters: Sequence[inspect.Parameter], namespace: Mapping[str, Any]
) -> dict[str, Any]:
    # Of the parameters only: what it returns is often imported for type checkers alone, and nobody here asks.
    annotations = {p.name: p.annotation for p in parameters if p.annotation is not p.empty}
    holder = type("_Holder", (), {})()
    holder.__annotations__ = annotations
    inner: Any = function
    while isinstance(inner, functools.partial):
        inner = inner.func
    if not inspect.isroutine(inner):
        inner = type(inner).__call__
    inner = inspect.unwrap(inner)
    names = getattr(getattr(inner, "__func__", inner), "__globals__", {})
    try:
        return typing.get_type_hints(holder, names, dict(names), include_extras=True)
    except NameError:
        pass
    try:
        # `ToolContext` is often imported under TYPE_CHECKING, and types may be local to where a tool is made.
        local = {**names, "ToolContext": ToolContext, **namespace}
        return typing.get_type_hints(holder, names, local, include_extras=True)
    except NameError as exc:
        raise Misconfigured(f"an annotation cannot be resolved at run time: {exc}") from exc


def _is_context(hint: Any) -> bool:
    if hint is ToolContext:
        return True
    arguments = typing.get_args(hint)
    if typing.get_origin(hint) is Annotated:
        return _is_context(arguments[0])
    return ToolContext in arguments


def _shape(fields: dict[str, Any], *, open_: bool) -> TypeAdapter[dict[str, Any]]:
    make: Any = TypedDict  # type checkers know only shapes that are written out
    shape = make("Params", fields)
    # References hand over results of any type: a number where text is asked for is text.
    shape.__pydantic_config__ = ConfigDict(
        extra="allow" if open_ else "forbid",
        coerce_numbers_to_str=True,
        populate_by_name=True,
        arbitrary_types_allowed=False,
    )
    try:
        made: TypeAdapter[dict[str, Any]] = TypeAdapter(shape)
    except (PydanticSchemaGenerationError, PydanticUserError, TypeError) as exc:
        raise Misconfigured(f"an annotation is not one that JSON can fill: {str(exc).splitlines()[0]}") from exc
    return made


class _Plain(GenerateJsonSchema):
    """JSON Schema without the titles that repeat each name; a planner pays for every word."""

    def field_title_should_be_set(self, schema: Any) -> bool:  # noqa: ARG002 - the base class passes it
        return False

    def generate(self, schema: Any, mode: JsonSchemaMode = "validation") -> dict[str, Any]:
        made = super().generate(schema, mode)
        made.pop("title", None)
        return made


def _describe(
    shape: TypeAdapter[dict[str, Any]], rest: Any, docs: Mapping[str, str], defaults: Mapping[str, Any]
) -> dict[str, Any]:
    try:
        schema = shape.json_schema(schema_generator=_Plain)
        extra = TypeAdapter(rest).json_schema(schema_generator=_Plain) if rest is not None else False
    except (PydanticUserError, PydanticSchemaGenerationError) as exc:
        raise Misconfigured(f"an annotation is not one that JSON can fill: {str(exc).splitlines()[0]}") from exc
    properties: dict[str, Any] = schema.setdefault("properties", {})
    schema["additionalProperties"] = extra or rest is not None
    for name, part in properties.items():
        if docs.get(name):
            part.setdefault("description", docs[name])
        if name in defaults:
            try:
                part.setdefault("default", pydantic_core.to_jsonable_python(defaults[name]))
            except ValueError:
                continue  # a default that is no JSON: the parameter is optional, which is what counts
    return schema


def _checker(
    shape: TypeAdapter[dict[str, Any]], rest: Any, known: frozenset[str], hidden: frozenset[str]
) -> Callable[[dict[str, Any]], dict[str, Any]]:
    validate: Callable[[dict[str, Any]], dict[str, Any]] = shape.validator.validate_python
    if rest is None:
        return validate
    others = TypeAdapter(dict[str, rest]).validator.validate_python

    def check(params: dict[str, Any]) -> dict[str, Any]:
        arguments = validate(params)
        return {**arguments, **others({n: v for n, v in arguments.items() if n not in known and n not in hidden})}

    def guarded(params: dict[str, Any]) -> dict[str, Any]:
        arguments = check(params)
        return {name: value for name, value in arguments.items() if name not in hidden}

    return guarded if hidden else check


def _pointer(params: object, location: tuple[int | str, ...], *, missing: bool) -> str:
    """Return where in `params` a fault is: Pydantic's location without the steps that name types and not places."""
    parts: list[str | int] = []
    for index, part in enumerate(location):
        if missing and index == len(location) - 1:
            parts.append(part)
        elif (isinstance(params, dict) and part in params) or (
            isinstance(params, list | tuple) and isinstance(part, int) and part < len(params)
        ):
            params = params[part]  # type: ignore[index]  # checked above, for either kind
            parts.append(part)
    return pointer_to(*parts)
