"""A tool: a name, a JSON Schema, what repeating it would do, and a body that runs one call.

Whatever the body does, one call ends in a JSON value, a `Reply`, or an ordinary exception; `sys.exit` included. Bodies
of functions are made by `dagbok.tools.decorator`; tools that are not functions (MCP, ...) bring their own.
"""

from __future__ import annotations

import asyncio
import inspect
import math
import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol, TypeGuard

from dagbok.domain import retry
from dagbok.domain.call import Call
from dagbok.domain.plan import HUMAN
from dagbok.domain.states import Effect
from dagbok.errors import Misconfigured, ToolError
from dagbok.tools.egress import Egress
from dagbok.tools.lanes import ThreadLane
from dagbok.tools.page_reader import PageReader
from dagbok.tools.results import AS_IS, as_json

DEFAULT_TIMEOUT_S = 300.0  # as `Settings.tool_timeout_s`, for tools outside any registry

_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.:/-]{0,199}")

#: Told of what an abandoned call brought after all: the value or Reply, or the exception.
OnLate = Callable[[Call, object, BaseException | None], None]


@dataclass(frozen=True, slots=True)
class Home:
    """What a registry lends its tools."""

    workspace: Path = Path()  #: the folder that file tools may touch; absolute in a registry
    timeout_s: float = DEFAULT_TIMEOUT_S  #: of tools that name none
    lane: ThreadLane = field(default_factory=ThreadLane)  #: where synchronous bodies run
    egress: Egress = field(default_factory=Egress)  #: the way to the network
    on_late: OnLate | None = None  #: called on the loop; None drops late outcomes
    page_reader: PageReader = field(default_factory=PageReader)  #: the processes that read HTML


#: Returns what a call with these params would do when repeated. Params as in the plan: references are still text.
EffectOf = Callable[[Mapping[str, Any]], Effect | str]


@dataclass(frozen=True, slots=True)
class Options:
    """What the author of a tool decides. None: taken from the function, or the default."""

    name: str | None = None
    description: str | None = None
    effect: Effect | EffectOf = Effect.ONCE
    timeout_s: float | None = None
    max_concurrency: int | None = None
    aliases: tuple[str, ...] = ()
    timer: bool = False
    idle_timeout_s: float | None = None
    retry: Mapping[str, Any] | None = None  #: with the fields of a sub-task's `retry`
    stand_in: bool = False  #: takes the place of a tool of its name, and all but its body stays that one's; for tests


class Spec(Protocol):
    """An object that is all a tool needs to be, such as the model call: `dagbok.engine.ports.ToolSpec`, described."""

    @property
    def name(self) -> str: ...
    @property
    def description(self) -> str: ...
    @property
    def parameters(self) -> Mapping[str, Any]: ...
    @property
    def effect(self) -> Effect: ...
    @property
    def timeout_s(self) -> float | None: ...
    @property
    def max_concurrency(self) -> int | None: ...
    @property
    def aliases(self) -> Sequence[str]: ...
    @property
    def timer(self) -> bool: ...
    @property
    def idle_timeout_s(self) -> float | None: ...
    @property
    def retry(self) -> Mapping[str, Any] | None: ...
    @property
    def stoppable(self) -> bool: ...
    def __call__(self, call: Call, /) -> Awaitable[object]:
        """Run one attempt."""
        ...


_SPEC = (
    "name", "description", "parameters", "effect", "timeout_s", "idle_timeout_s", "retry", "max_concurrency", "aliases",
    "timer", "stoppable",
)  # fmt: skip


def is_spec(thing: object) -> TypeGuard[Spec]:
    """Return whether `thing` is a `Spec`, without running any code of it."""
    missing = object()
    if isinstance(thing, type) or not callable(thing):
        return False
    return all(inspect.getattr_static(thing, name, missing) is not missing for name in _SPEC)


#: Of tools used outside any registry: the current folder, and one lane for all of them.
NO_HOME = Home()


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Tool:
    """One tool. Immutable; `at` gives the same tool in the home of a registry."""

    name: str
    description: str
    parameters: Mapping[str, Any]  #: JSON Schema of `call.params`, type object
    body: Callable[[Call, Home], Awaitable[object]]  #: runs one call on the loop
    options: Options = Options()
    origin: str = ""  #: `module:qualname`, for messages
    function: Callable[..., Any] | None = None  #: what `@tool` stood on, if anything
    method: bool = False  #: made in a class body: only its bound form can be called
    stoppable: bool = True  #: cancelling a call ends its body; not so where that runs in a thread
    home: Home = NO_HOME

    def __post_init__(self) -> None:
        options = self.options
        for name in (self.name, *options.aliases):
            if not _NAME.fullmatch(name):
                raise Misconfigured(
                    f"{name!r} is no name for a tool: use letters, digits, '_', '-', '.', or give name=."
                )
            if name == HUMAN:
                raise Misconfigured(f"The name {name!r} is taken: it is how a plan asks a person.")
        for what, seconds in (("timeout", options.timeout_s), ("idle timeout", options.idle_timeout_s)):
            if seconds is not None and not (0 < seconds < math.inf):
                raise Misconfigured(f"The {what} of {self.name!r} must be a positive number of seconds.")
        for path, _, fault in retry.faults(options.retry or {}):
            place = "/".join(map(str, path))
            raise Misconfigured(f"The retry policy of {self.name!r} cannot be used: `{place}` {fault}")
        if options.max_concurrency is not None and options.max_concurrency < 1:
            raise Misconfigured(f"max_concurrency of {self.name!r} must be at least 1.")

    @property
    def effect(self) -> Effect:
        """What repeating a call would do, whatever its params: `once` where that depends on them."""
        return self.options.effect if isinstance(self.options.effect, Effect) else Effect.ONCE

    def effect_of(self, params: Mapping[str, Any]) -> Effect:
        """Return what repeating a call with `params` would do. Never fails: what cannot be told is `once`.

        Args:
            params: As in the plan, so a value may be a reference that is not resolved yet.
        """
        if isinstance(self.options.effect, Effect):
            return self.options.effect
        try:
            return Effect(self.options.effect(params))
        except Exception:
            # Params that the tool will refuse come here too; the careful answer costs nothing then.
            return Effect.ONCE

    @property
    def timeout_s(self) -> float:
        """The longest an attempt may take: the tool's own, else that of its home."""
        return self.home.timeout_s if self.options.timeout_s is None else self.options.timeout_s

    @property
    def idle_timeout_s(self) -> float | None:
        """The longest an attempt may go without reporting progress; None: as long as it likes. The engine keeps it."""
        return self.options.idle_timeout_s

    @property
    def retry(self) -> Mapping[str, Any] | None:
        """How attempts that fail are repeated, with the fields of a sub-task's `retry`; None: as the engine does."""
        return self.options.retry

    @property
    def max_concurrency(self) -> int | None:
        """How many calls may be under way at once; None: as many as the engine likes. The engine keeps it."""
        return self.options.max_concurrency

    @property
    def aliases(self) -> tuple[str, ...]:
        """Other names a plan may use."""
        return self.options.aliases

    @property
    def timer(self) -> bool:
        """Whether it only waits (`params["seconds"]`): the engine then keeps a due time instead of a task."""
        return self.options.timer

    @classmethod
    def of(cls, spec: Spec) -> Tool:
        """Return a tool that calls `spec`, an object that is already all a tool needs to be."""
        if isinstance(spec, Tool):
            return spec
        options = Options(
            effect=spec.effect,
            timeout_s=spec.timeout_s,
            max_concurrency=spec.max_concurrency,
            aliases=tuple(spec.aliases),
            timer=spec.timer,
            idle_timeout_s=spec.idle_timeout_s,
            retry=spec.retry,
            stand_in=getattr(spec, "stand_in", False),
        )
        kind = type(spec)
        return cls(
            name=spec.name,
            description=spec.description,
            parameters=spec.parameters,
            body=lambda call, _: spec(call),
            options=options,
            stoppable=spec.stoppable,
            origin=f"{kind.__module__}:{kind.__qualname__}",
        )

    def at(self, home: Home) -> Tool:
        """Return this tool in `home`."""
        return replace(self, home=home)

    async def __call__(self, call: Call) -> object:
        """Run one call and return its value as JSON, or the Reply.

        Cancelling ends an async body as it ends any task; the thread of a synchronous one is abandoned.

        Raises:
            ToolError: With the code the tool chose; `invalid_input`: the params do not fit; `not_json`: what came back
                has no JSON form; `tool_error`: it called `sys.exit`, or cancelled itself (`sent`).
            Exception: Anything else the body raised, as it is.
        """
        try:
            result = await self.body(call, self.home)
        except (Exception, KeyboardInterrupt, GeneratorExit):
            raise
        except asyncio.CancelledError as exc:
            task = asyncio.current_task()
            if task is None or task.cancelling():
                raise
            # Nobody asked for this: let through, it would look as if the execution had been cancelled. Where it was
            # when that happened is not known, nor what it had done by then.
            raise ToolError(f"The tool {self.name!r} cancelled itself.", sent=True) from exc
        except BaseException as exc:
            # SystemExit would pass through the task into the loop and stop the whole process.
            raise exited(self.name, exc) from exc
        return result if type(result) in AS_IS else as_json(result, tool=self.name)


def exited(name: str, exc: BaseException) -> ToolError:
    """Return what stands for an exception that must not reach the loop."""
    what = f"called sys.exit({exc.code!r})" if isinstance(exc, SystemExit) else f"raised {type(exc).__name__}: {exc!s}"
    return ToolError(f"The tool {name!r} {what}; a tool must return or raise an ordinary exception.")
