"""`@tool`: makes a tool of a typed function, and leaves the function as it is.

Its own code and tests go on calling the function; the `Tool` is an attribute of it.

    @tool(effect="idempotent", timeout_seconds=20)
    async def fetch(url: str, context: ToolContext) -> str:
        '''Fetch the page at `url` as text.'''
"""

from __future__ import annotations

import functools
import inspect
import sys
from collections.abc import Awaitable, Callable, Mapping, Sequence
from types import MethodType
from typing import Any, Final, Literal, TypeVar, overload

from pydantic import ValidationError

from dagbok.domain.call import Call
from dagbok.domain.states import Effect
from dagbok.errors import Misconfigured, ToolError
from dagbok.tools import docstring, inputs
from dagbok.tools.context import context_of
from dagbok.tools.results import as_json
from dagbok.tools.tool import EffectOf, Home, OnLate, Options, Tool, exited, is_spec

F = TypeVar("F", bound=Callable[..., Any])
EffectName = Effect | Literal["pure", "idempotent", "once"] | EffectOf

#: Where `@tool` leaves the Tool on the function.
MARK: Final = "__dagbok_tool__"


@overload
def tool(function: F, /) -> F: ...
@overload
def tool(
    *,
    name: str | None = None,
    description: str | None = None,
    effect: EffectName = Effect.ONCE,
    timeout_seconds: float | None = None,
    max_concurrency: int | None = None,
    aliases: Sequence[str] = (),
    timer: bool = False,
    idle_timeout_seconds: float | None = None,
    retry: Mapping[str, Any] | None = None,
) -> Callable[[F], F]: ...
def tool(
    function: Callable[..., Any] | None = None,
    /,
    *,
    name: str | None = None,
    description: str | None = None,
    effect: EffectName = Effect.ONCE,
    timeout_seconds: float | None = None,
    max_concurrency: int | None = None,
    aliases: Sequence[str] = (),
    timer: bool = False,
    idle_timeout_seconds: float | None = None,
    retry: Mapping[str, Any] | None = None,
) -> Any:
    """Make a typed function, sync or async, a tool, and return the function.

    The description and what each parameter means come from its docstring (Google style), the JSON Schema from its
    signature. A parameter annotated `ToolContext` receives it and is not part of the schema. Async functions run on
    the loop, so they must not block; others run in a daemon thread, which nothing can stop once their time is up.

    Args:
        function: Given when the decorator is used without parentheses.
        name: What plans call it; the function's own name by default.
        description: Instead of the docstring.
        effect: What repeating a call would do: `pure`, `idempotent`, or `once` (must not be repeated blindly). Where
            that depends on the params: a function of them (as in the plan, references unresolved) that returns it.
        timeout_seconds: The longest an attempt may take; `DAGBOK_TOOL_TIMEOUT_S` by default.
        max_concurrency: How many calls may be under way at once.
        aliases: Other names a plan may use.
        timer: It does nothing but wait for `seconds`; the engine keeps a due time instead of calling it.
        idle_timeout_seconds: The longest an attempt may go without `context.progress`; by default as long as it likes.
        retry: How attempts that fail are repeated, where a plan does not say; the fields of a sub-task's `retry`.
            `docs/errors.md` has the codes.

    Raises:
        Misconfigured: At decoration: the signature, a name or an option cannot work.
    """
    try:
        chosen = effect if callable(effect) else Effect(effect)
    except ValueError:
        raise Misconfigured(f"effect={effect!r} is unknown; use 'pure', 'idempotent' or 'once'.") from None
    if isinstance(aliases, str):
        raise Misconfigured(f"aliases={aliases!r} must be a tuple of names.")
    options = Options(
        name, description, chosen, timeout_seconds, max_concurrency, tuple(aliases), timer, idle_timeout_seconds, retry
    )
    # Annotations written as strings may name what is local to the place of the decorator.
    namespace = sys._getframe(1).f_locals

    def decorate(target: Callable[..., Any]) -> Callable[..., Any]:
        # A bound method takes no attribute; a partial of it does, and is called the same way.
        holder = functools.partial(target) if inspect.ismethod(target) or inspect.isbuiltin(target) else target
        try:
            setattr(holder, MARK, _build(holder, options, namespace))
        except AttributeError as exc:
            raise Misconfigured(f"{_origin(holder)} cannot be made a tool: it takes no attributes.") from exc
        return holder

    return decorate if function is None else decorate(function)


def as_tool(thing: Tool | Callable[..., Any]) -> Tool:
    """Return `thing` as a tool: what `@tool` made of it, else as if decorated without options.

    An object that is all a tool needs to be (`dagbok.tools.tool.Spec`) is one as it stands.

    Raises:
        Misconfigured: It is no callable, a method that is not bound, or its signature cannot work.
    """
    if isinstance(thing, Tool):
        return thing
    if is_spec(thing):
        return Tool.of(thing)
    if not callable(thing):
        raise Misconfigured(f"{thing!r:.200} is no tool: give a function or a Tool.")
    marked = mark_of(thing)
    if marked is None and isinstance(thing, functools.partial):
        marked = mark_of(thing.func)
    if marked is None or (marked.function is not thing):
        # Another form of the decorated function: bound, wrapped by a further decorator, or with arguments filled in.
        return _build(thing, marked.options if marked else Options(), {})
    if marked.method:
        raise Misconfigured(f"{marked.origin} is a method: give it bound, as in `tools=[thing.{marked.name}]`.")
    return marked


def mark_of(thing: object) -> Tool | None:
    """Return the Tool that `@tool` left on `thing`, without running any code of it."""
    if isinstance(thing, MethodType):
        thing = thing.__func__
    try:
        found = vars(thing).get(MARK)
    except Exception:  # no attributes, or a proxy that has nothing behind it yet
        return None
    return found if isinstance(found, Tool) else None


def _build(function: Callable[..., Any], options: Options, namespace: Mapping[str, Any]) -> Tool:
    inner: Any = function
    while isinstance(inner, functools.partial):
        inner = inner.func
    origin = _origin(function)
    if isinstance(inner, classmethod | staticmethod):
        raise Misconfigured(f"{origin} cannot be made a tool: put @tool below @{type(inner).__name__}.")
    if isinstance(inner, type):
        raise Misconfigured(f"{origin} cannot be made a tool: it is a class; give a function.")
    runs = inner if inspect.isroutine(inner) else type(inner).__call__
    if inspect.isgeneratorfunction(runs) or inspect.isasyncgenfunction(runs):
        raise Misconfigured(f"{origin} cannot be made a tool: it yields; return a list instead.")
    description, docs = docstring.parse(runs.__doc__ or inner.__doc__)
    method = _in_class_body(inner)
    try:
        taken = inputs.read(function, namespace=namespace, method=method, docs=docs)
    except Misconfigured as exc:
        raise Misconfigured(f"{origin} cannot be made a tool: {exc.message}.") from exc
    name = options.name or str(getattr(inner, "__name__", type(inner).__name__))
    on_loop = inspect.iscoroutinefunction(runs)
    body = _Body(function, name, taken, on_loop=on_loop)
    described = description if options.description is None else options.description
    return Tool(
        name=name,
        description=described,
        parameters=taken.schema,
        body=body,
        options=options,
        origin=origin,
        function=function,
        method=method,
        stoppable=on_loop,
    )


class _Body:
    """Runs the function of a tool."""

    __slots__ = ("check", "context", "function", "name", "on_loop", "required", "schema")

    def __init__(self, function: Callable[..., Any], name: str, taken: inputs.Inputs, *, on_loop: bool) -> None:
        self.function = function
        self.name = name
        self.on_loop = on_loop
        self.check, self.context, self.required, self.schema = taken.check, taken.context, taken.required, taken.schema

    def __call__(self, call: Call, home: Home) -> Awaitable[object]:
        arguments: dict[str, Any] = {}
        if call.params or self.required:
            try:
                arguments = self.check(call.params)
            except ValidationError as exc:
                raise inputs.misfit(self.name, self.schema, call.params, exc, call.redact) from exc
        if self.context is not None:
            arguments[self.context] = context_of(
                call, tool=self.name, workspace=home.workspace, egress=home.egress, page_reader=home.page_reader
            )
        if self.on_loop:
            awaitable: Awaitable[object] = self.function(**arguments)
            return awaitable
        return self._in_lane(call, home, arguments)

    async def _in_lane(self, call: Call, home: Home, arguments: dict[str, Any]) -> object:
        late = None if home.on_late is None else functools.partial(self._late, home.on_late, call)
        try:
            result = await home.lane.submit(functools.partial(self.function, **arguments), on_late=late)
        except KeyboardInterrupt as exc:
            # Python raises the real one in the main thread only; from a lane it is the tool's own doing.
            raise exited(self.name, exc) from exc
        # A plain function may still hand back a coroutine: `lambda url: client.get(url)`.
        return await result if inspect.isawaitable(result) else result

    def _late(self, tell: OnLate, call: Call, result: object, error: BaseException | None) -> None:
        if error is None:
            try:
                result = as_json(result, tool=self.name)
            except ToolError as exc:
                result, error = None, exc
        tell(call, result, error)


def _in_class_body(function: Any) -> bool:
    scope, _, _ = getattr(function, "__qualname__", "").rpartition(".")
    if not inspect.isfunction(function) or not scope or scope.endswith("<locals>"):
        return False
    return next(iter(inspect.signature(function).parameters), "") in ("self", "cls")


def _origin(function: Any) -> str:
    while isinstance(function, functools.partial):
        function = function.func
    kind = function if hasattr(function, "__qualname__") else type(function)
    return f"{getattr(kind, '__module__', '?')}:{kind.__qualname__}"
