"""What `@tool` makes of a function: its schema, and calls that fit it."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, Optional

import pytest
from jsonschema import Draft202012Validator
from pydantic import BaseModel, Field
from tool_calls import call, make_call, run

from dagbok.domain.states import Effect
from dagbok.errors import Misconfigured, ToolError
from dagbok.tools.decorator import as_tool, mark_of, tool
from dagbok.tools.registry import Home, Registry, Tool, ToolContext

if TYPE_CHECKING:
    from collections import OrderedDict as NotThereAtRunTime


class Colour(Enum):
    RED = "red"


class Point(BaseModel):
    x: int
    y: int = 0


def marked(thing: object) -> Tool:
    found = mark_of(thing)
    assert found is not None
    return found


def test_a_bare_decorator_leaves_the_function_as_it_is() -> None:
    @tool
    def double(n: int) -> int:
        """Double a number."""
        return 2 * n

    assert double(4) == 8
    made = marked(double)
    assert (made.name, made.description) == ("double", "Double a number.")
    assert (made.effect, made.timeout_s) == (Effect.ONCE, 300)
    assert made.max_concurrency is None
    assert made.aliases == ()
    assert made.timer is False
    assert (made.idle_timeout_s, made.retry) == (None, None)


def test_options_of_the_decorator_reach_the_tool() -> None:
    @tool(
        effect="idempotent",
        timeout_seconds=2.5,
        max_concurrency=3,
        name="put-it",
        aliases=("putIt",),
        description="Puts it.",
        idle_timeout_seconds=0.5,
        retry={"max_attempts": 4},
    )
    async def put() -> None:
        """Not this."""

    made = marked(put)
    assert (made.name, made.description, made.aliases) == ("put-it", "Puts it.", ("putIt",))
    assert (made.effect, made.timeout_s, made.max_concurrency) == (Effect.IDEMPOTENT, 2.5, 3)
    assert (made.idle_timeout_s, made.retry) == (0.5, {"max_attempts": 4})
    assert made.effect_of({"anything": 1}) is Effect.IDEMPOTENT


def test_only_what_runs_on_the_loop_can_be_stopped() -> None:
    async def on_loop() -> None: ...

    def in_thread() -> None: ...

    class Job:
        async def __call__(self) -> None: ...

    made = [as_tool(on_loop), as_tool(tool(name="job")(Job())), as_tool(functools.partial(on_loop))]
    assert all(one.stoppable and one.at(Home()).stoppable for one in made)
    assert not as_tool(in_thread).stoppable
    assert not as_tool(in_thread).at(Home()).stoppable
    assert not as_tool(tool(name="late")(lambda: on_loop())).stoppable, "what calls it is a thread"


def test_an_effect_can_depend_on_the_params_and_is_once_where_they_do_not_tell() -> None:
    def effect(params: Mapping[str, Any]) -> Any:
        return {"read": "pure", "write": Effect.IDEMPOTENT, "odd": "twice", "none": None}[params["mode"]]

    @tool(effect=effect)
    def work(mode: str) -> None: ...

    made = marked(work).at(Home(timeout_s=1))
    assert made.effect is Effect.ONCE
    assert made.effect_of({"mode": "read"}) is Effect.PURE
    assert made.effect_of({"mode": "write"}) is Effect.IDEMPOTENT
    params: dict[str, Any]
    for params in ({"mode": "odd"}, {"mode": "none"}, {"mode": "<Result from Task 1>"}, {"mode": []}, {}):
        assert made.effect_of(params) is Effect.ONCE


def test_the_schema_says_what_the_signature_says() -> None:
    @tool
    def search(
        context: ToolContext,
        query: str,
        limit: Annotated[int, Field(ge=1, le=50, description="From the annotation.")] = 10,
        kind: Literal["web", "news"] = "web",
        since: Optional[datetime] = None,  # noqa: UP045 - the old spelling must work too
        colour: Colour = Colour.RED,
        near: Point | None = None,
        schema: Any = None,
        _odd: bool = False,
    ) -> list[str]:
        """Search for pages.

        Goes on here.

        Args:
            query: What to look for,
                in words.
            limit: Not this.
            kind (str): Which pages.

        Returns:
            The titles.

        Raises:
            Nothing: ever.
        """
        return [query]

    made = marked(search)
    assert made.description == "Search for pages.\n\nGoes on here.\n\nReturns: The titles."
    schema = dict(made.parameters)
    Draft202012Validator.check_schema(schema)
    assert schema["type"] == "object"
    assert schema["additionalProperties"] is False
    assert schema["required"] == ["query"]
    properties = schema["properties"]
    assert list(properties) == ["query", "limit", "kind", "since", "colour", "near", "schema", "_odd"]
    assert properties["query"] == {"type": "string", "description": "What to look for, in words."}
    assert properties["limit"] == {
        "type": "integer", "minimum": 1, "maximum": 50, "default": 10, "description": "From the annotation.",
    }  # fmt: skip
    assert properties["kind"]["enum"] == ["web", "news"]
    assert properties["kind"]["description"] == "Which pages."
    assert properties["colour"]["default"] == "red"
    assert properties["since"]["default"] is None


def test_a_tool_without_parameters_takes_an_empty_object() -> None:
    @tool
    def nothing() -> None: ...

    assert marked(nothing).parameters == {"type": "object", "properties": {}, "additionalProperties": False}
    with pytest.raises(ToolError, match="/n: is no parameter"):
        run(nothing, n=1)


def test_params_are_coerced_to_the_annotations() -> None:
    @tool
    def show(when: datetime, where: Path, point: Point, names: set[str], text: str, colour: Colour) -> list[str]:
        return [type(value).__name__ for value in (when, where, point, names, text, colour)]

    got = run(show, when="2024-01-02T03:04:05Z", where="a/b", point={"x": "3"}, names=["a", "a"], text=7, colour="red")
    assert got == ["datetime", "PosixPath", "Point", "set", "str", "Colour"]


def test_params_that_do_not_fit_are_named_with_their_place() -> None:
    @tool
    async def place(points: list[Point], size: int | list[int], path: str) -> None: ...

    with pytest.raises(ToolError) as caught:
        run(place, points=[{"x": 1}, {"y": "high"}], size="big", pth="a")
    error = caught.value
    assert error.code == "invalid_input"
    assert {fault["pointer"] for fault in error.errors} == {"/points/1/x", "/points/1/y", "/size", "/path", "/pth"}
    assert "'place'" in error.message
    assert "/points/1/x: is required" in error.message
    assert "/pth: is no parameter (did you mean 'path'?)" in error.message
    assert "pydantic" not in error.message


def test_a_message_about_many_faults_stays_short() -> None:
    @tool
    async def total(numbers: list[int]) -> int:
        return sum(numbers)

    with pytest.raises(ToolError) as caught:
        run(total, numbers=["x" * 1000] * 1000)
    assert len(caught.value.message) < 2000
    assert "and 992 more" in caught.value.message
    assert len(caught.value.errors) == 100


def test_a_validation_error_of_the_body_is_not_blamed_on_the_params() -> None:
    @tool
    async def inner() -> None:
        Point.model_validate({})

    with pytest.raises(ValueError, match="Point") as caught:
        run(inner)
    assert not isinstance(caught.value, ToolError)


def test_null_will_do_where_the_default_is_none() -> None:
    """Models write null for what they leave out, and `x: str = None` is how much Python says optional."""

    @tool
    def hello(name: str = None) -> str:  # type: ignore[assignment]  # noqa: RUF013 - the habit this test is about
        return f"hello {name}"

    assert run(hello, name=None) == "hello None"


def test_a_mutable_default_belongs_to_the_function() -> None:
    @tool
    def put(into: list[int] = [1]) -> list[int]:  # noqa: B006 - what this test is about
        return [*into, 2]

    assert run(put) == [1, 2]
    assert marked(put).parameters["properties"]["into"]["default"] == [1]


def test_the_context_is_injected_under_any_name_and_hidden_from_plans() -> None:
    @tool
    async def who(me: ToolContext | None, n: int) -> list[Any]:
        assert me is not None
        return [me.execution_id, me.task_id, me.attempt, me.idempotency_key, n]

    assert run(who, n=1) == ["dag-exec_1", "1", 1, "dag-exec_1:1:2", 1]
    assert list(marked(who).parameters["properties"]) == ["n"]
    with pytest.raises(ToolError, match="/me: is no parameter"):
        run(who, n=1, me={})


def test_other_params_go_into_kwargs_and_are_checked_by_their_annotation() -> None:
    @tool
    async def both(context: ToolContext, first: int, **numbers: int) -> Any:
        return [type(context).__name__, first, numbers]

    assert marked(both).parameters["additionalProperties"] == {"type": "integer"}
    assert run(both, first=1, a="2") == ["ToolContext", 1, {"a": 2}]
    assert run(both, first=1, context="forged") == ["ToolContext", 1, {}]
    with pytest.raises(ToolError, match="/a: "):
        run(both, first=1, a="x")


def test_any_may_be_in_kwargs_without_annotation() -> None:
    @tool
    async def keep(**rest):  # type: ignore[no-untyped-def]  # noqa: ANN202, RUF100 - the lack is what is tested
        return rest

    assert marked(keep).parameters["additionalProperties"] is True
    assert run(keep, a=[1], b=None) == {"a": [1], "b": None}


def test_positional_only_parameters_are_refused_at_once() -> None:
    with pytest.raises(
        Misconfigured, match=r"bad cannot be made a tool: parameter 'a' is positional-only.*remove the '/'"
    ):

        @tool
        def bad(a: int, /) -> None: ...


def test_star_args_are_refused_at_once() -> None:
    with pytest.raises(Misconfigured, match=r"takes '\*items'; .*use a list parameter"):

        @tool
        def bad(*items: int) -> None: ...


def test_a_field_as_default_is_refused_because_a_direct_call_would_see_it() -> None:
    with pytest.raises(Misconfigured, match=r"write n: Annotated\[TYPE, Field\(\.\.\.\)\] = DEFAULT"):

        @tool
        def bad(n: int = Field(3, ge=1)) -> None: ...


def test_generators_are_refused_at_once() -> None:
    with pytest.raises(Misconfigured, match="it yields; return a list"):

        @tool
        def bad() -> Iterator[int]:
            yield 1

    with pytest.raises(Misconfigured, match="it yields"):

        @tool
        async def worse() -> AsyncIterator[int]:
            yield 1


@pytest.mark.parametrize("annotation", [Callable[[], int], asyncio.Event, "NoSuchName"])
def test_annotations_that_json_cannot_fill_are_refused_at_once(annotation: Any) -> None:
    def bad(a) -> None: ...  # type: ignore[no-untyped-def]

    bad.__annotations__["a"] = annotation
    with pytest.raises(Misconfigured, match=r"bad cannot be made a tool: an annotation .*(JSON can fill|resolved)"):
        tool(bad)


@pytest.mark.parametrize(
    "options",
    [
        {"effect": "twice"}, {"timeout_seconds": 0}, {"timeout_seconds": float("nan")},
        {"timeout_seconds": float("inf")}, {"idle_timeout_seconds": 0}, {"idle_timeout_seconds": -1},
        {"idle_timeout_seconds": float("nan")}, {"idle_timeout_seconds": float("inf")}, {"max_concurrency": 0},
        {"name": "no spaces"}, {"name": "human"}, {"aliases": ("",)}, {"aliases": "oops"},
    ],
)  # fmt: skip
def test_options_that_cannot_work_are_refused_at_once(options: dict[str, Any]) -> None:
    with pytest.raises(Misconfigured):

        @tool(**options)
        def fine() -> None: ...


def test_a_lambda_needs_a_name() -> None:
    with pytest.raises(Misconfigured, match=r"give name="):
        as_tool(lambda: 1)
    assert run(tool(name="one")(lambda: 1)) == 1


def test_annotations_may_name_what_is_local_or_known_to_type_checkers_only() -> None:
    @dataclass
    class Local:
        n: int

    @tool
    def take(item: Local) -> NotThereAtRunTime[str, int]:
        return {"n": item.n}  # type: ignore[return-value]

    assert run(take, item={"n": 3}) == {"n": 3}


def test_methods_are_given_bound() -> None:
    class Shop:
        def __init__(self, name: str) -> None:
            self.name = name

        @tool(effect="pure", aliases=("cost",))
        async def price(self, item: str) -> str:
            """Price it."""
            return f"{self.name}/{item}"

        @staticmethod
        @tool
        def count(n: int) -> int:
            return n

    shop = Shop("a")
    assert run(shop.price, item="b") == "a/b"
    assert as_tool(shop.price).effect is Effect.PURE
    assert run(Shop.count, n=2) == 2
    with pytest.raises(Misconfigured, match=r"Shop\.price is a method: give it bound, as in `tools=\[thing.price\]`"):
        Registry().add(Shop.price)
    made = tool(effect="pure", name="undecorated")(Shop("c").price)
    assert run(made, item="d") == "c/d"
    assert asyncio.run(made("e")) == "c/e"


def test_what_a_partial_fills_in_is_neither_shown_nor_changed() -> None:
    """It may be a secret: the schema goes to models."""

    def fetch(url: str, key: str, **rest: str) -> str:
        return f"{url} {key} {rest}"

    made = Registry.from_(tools=[functools.partial(fetch, key="s3cret")]).get("fetch")
    assert made is not None
    assert "s3cret" not in str(made.parameters)
    assert run(made, url="u", key="mine") == "u s3cret {}"


def test_further_decorators_above_the_tool_are_not_skipped() -> None:
    def shout(function: Callable[..., str]) -> Callable[..., str]:
        @functools.wraps(function)
        def wrapper(*args: Any, **kwargs: Any) -> str:
            return function(*args, **kwargs).upper()

        return wrapper

    @shout
    @tool(effect="pure")
    def say(text: str) -> str:
        return text

    assert as_tool(say).effect is Effect.PURE
    assert run(say, text="a") == "A"


def test_callable_objects_are_tools() -> None:
    class Adder:
        def __init__(self, by: int) -> None:
            self.by = by

        async def __call__(self, n: int) -> int:
            """Add to it."""
            return n + self.by

    made = tool(name="add")(Adder(2))
    assert run(made, n=1) == 3
    assert marked(made).description == "Add to it."


def test_a_plain_function_may_return_a_coroutine() -> None:
    async def later(n: int) -> int:
        return n

    assert run(tool(name="late")(lambda n: later(n)), n=5) == 5


def test_classes_and_class_methods_are_refused() -> None:
    with pytest.raises(Misconfigured, match="it is a class"):
        as_tool(Point)
    with pytest.raises(Misconfigured, match="put @tool below @classmethod"):
        tool(classmethod(lambda cls: 1))  # type: ignore[call-overload]


def test_a_tool_of_its_own_kind_needs_no_function() -> None:
    """The model call is one: an object with all that the engine asks for."""

    class Model:
        name = "inference"
        description = "Ask."
        parameters: ClassVar[dict[str, Any]] = {"type": "object"}
        effect = Effect.IDEMPOTENT
        timeout_s = 600.0
        max_concurrency = None
        aliases = ("llm",)
        timer = False
        idle_timeout_s = 30.0
        retry: ClassVar[dict[str, Any]] = {"max_attempts": 2}
        stoppable = False

        async def __call__(self, given: Any) -> Any:
            return given.params

    registry = Registry()
    made = registry.add(Tool.of(Model()))
    assert registry.get("llm") is made
    assert Tool.of(made) is made
    assert asyncio.run(call(made, a=1)) == {"a": 1}
    assert (made.timeout_s, made.effect) == (600.0, Effect.IDEMPOTENT)
    assert (made.idle_timeout_s, made.retry, made.stoppable) == (30.0, {"max_attempts": 2}, False)


def test_a_tool_works_without_a_registry() -> None:
    @tool
    def here(context: ToolContext) -> str:
        return str(context.workspace)

    assert asyncio.run(_await(marked(here))) == "."


async def _await(made: Tool) -> object:
    return await made(make_call())
