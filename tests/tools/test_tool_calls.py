"""What a call ends in, whatever the body does: a value, a Reply, or one clear exception; never a stopped process."""

from __future__ import annotations

import asyncio
import logging
import sys
import threading
import time
from contextvars import ContextVar
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from enum import Enum, StrEnum
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from pydantic import BaseModel
from tool_calls import call, make_call, run

from dagbok import Dagbok
from dagbok.domain.call import Reply
from dagbok.errors import ToolError
from dagbok.tools.decorator import tool
from dagbok.tools.registry import Registry, ToolContext


class Colour(StrEnum):
    RED = "red"


class Size(Enum):
    BIG = 3


@dataclass
class Box:
    at: datetime


class Page(BaseModel):
    url: str
    size: Decimal


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (Page(url="u", size=Decimal("1.50")), {"url": "u", "size": "1.50"}),
        (Box(datetime(2024, 1, 2, tzinfo=UTC)), {"at": "2024-01-02T00:00:00Z"}),
        ({"id": UUID(int=1), "in": [Path("a/b")]},
         {"id": "00000000-0000-0000-0000-000000000001", "in": ["a/b"]}),
        ({1, 2}, [1, 2]), ((1, (2,)), [1, [2]]), (Colour.RED, "red"), ([Size.BIG], [3]), ({1: "a"}, {"1": "a"}),
        (b"text", "text"), ([Page(url="u", size=Decimal(1))], [{"url": "u", "size": "1"}]),
        (None, None), (True, True), (2**70, 2**70), ("x", "x"), ([], []),
    ],
)  # fmt: skip
def test_what_has_a_json_form_becomes_it(value: object, expected: object) -> None:
    assert run(tool(name="give")(lambda: value)) == expected


def test_text_and_replies_come_back_untouched() -> None:
    for value in (Reply({"a": 1}, cost_usd=0.5), "x" * 50_000_000, float("nan")):
        assert run(tool(name="give")(lambda value=value: value)) is value


@pytest.mark.parametrize("value", [object(), {"a": [object()]}, b"\xff", threading.Lock(), lambda: 1, [{1, object}]])
def test_what_is_not_json_is_said_so(value: object) -> None:
    with pytest.raises(ToolError, match=r"The tool 'give' returned a \w+ that is not JSON: ") as caught:
        run(tool(name="give")(lambda: value))
    assert caught.value.code == "not_json"


def test_a_value_that_holds_itself_is_not_json() -> None:
    loop: list[Any] = []
    loop.append(loop)
    with pytest.raises(ToolError, match="not JSON"):
        run(tool(name="give")(lambda: loop))


def test_an_endless_generator_is_not_run() -> None:
    def forever() -> Any:
        while True:
            yield 1

    with pytest.raises(ToolError, match="returned a generator"):
        run(tool(name="give")(lambda: forever()))


def test_an_exception_comes_out_as_it_is() -> None:
    @tool
    async def fail() -> None:
        raise ConnectionResetError("gone")

    @tool
    def fail_in_a_thread() -> None:
        raise ToolError("no such city", code="city")

    with pytest.raises(ConnectionResetError, match="gone"):
        run(fail)
    with pytest.raises(ToolError, match="no such city") as caught:
        run(fail_in_a_thread)
    assert caught.value.code == "city"


def test_sys_exit_ends_neither_the_loop_nor_the_process() -> None:
    @tool
    async def leave() -> None:
        sys.exit(3)

    @tool
    def leave_the_thread() -> None:
        sys.exit("bye")

    @tool
    def interrupt() -> None:
        raise KeyboardInterrupt

    async def main() -> str:
        registry = Registry.from_(tools=[leave, leave_the_thread, interrupt])
        tasks = [asyncio.create_task(call(made)) for made in registry]
        done = await asyncio.gather(*tasks, return_exceptions=True)
        registry.close()
        assert all(isinstance(error, ToolError) and error.code == "tool_error" for error in done)
        return " ".join(map(str, done))

    messages = asyncio.run(main())
    assert "'leave' called sys.exit(3)" in messages
    assert "'leave_the_thread' called sys.exit('bye')" in messages
    assert "'interrupt' raised KeyboardInterrupt" in messages


@pytest.mark.parametrize("kind", [asyncio.CancelledError, StopIteration])
def test_a_thread_cannot_pretend_that_its_caller_was_cancelled(kind: type[BaseException]) -> None:
    @tool
    def pretend() -> None:
        raise kind

    with pytest.raises(RuntimeError, match=kind.__name__):
        run(pretend)


def test_a_tool_that_cancels_itself_fails_by_itself() -> None:
    @tool
    async def give_up() -> None:
        raise asyncio.CancelledError

    with pytest.raises(ToolError, match="'give_up' cancelled itself") as caught:
        run(give_up)
    assert (caught.value.code, caught.value.sent) == ("tool_error", True), "how far it had come, nobody knows"


@pytest.mark.parametrize("in_thread", [True, False])
def test_a_cancelled_call_ends_at_once(in_thread: bool) -> None:
    release = threading.Event()

    @tool(name="hang")
    def hang_in_thread() -> None:
        release.wait(60)

    @tool(name="hang")
    async def hang() -> None:
        await asyncio.sleep(60)

    async def main() -> float:
        registry = Registry.from_(tools=[hang_in_thread if in_thread else hang])
        (made,) = registry
        begun = time.monotonic()
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(call(made), 0.5)
        assert registry.home.lane.abandoned == int(in_thread)
        return time.monotonic() - begun

    assert asyncio.run(main()) < 5
    release.set()


def test_a_late_result_is_handed_over_as_json() -> None:
    """A `once` tool that was cut off: what it did after all answers the question whether it happened."""
    release = threading.Event()
    begun = threading.Semaphore(0)

    @tool
    def pay(n: int) -> Any:
        begun.release()
        release.wait(60)
        return {Decimal(n)} if n else object()

    async def main() -> list[Any]:
        heard: list[Any] = []
        both = asyncio.Event()

        def on_late(of: Any, value: object, error: BaseException | None) -> None:
            heard.append((of.params["n"], value, type(error).__name__))
            if len(heard) == 2:
                both.set()

        registry = Registry.from_(tools=[pay], on_late=on_late)
        (made,) = registry
        tasks = [asyncio.create_task(call(made, n=n)) for n in (0, 1)]
        for _ in tasks:
            await asyncio.to_thread(begun.acquire)
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
        assert all(task.cancelled() for task in tasks)
        release.set()
        await asyncio.wait_for(both.wait(), 10)
        registry.close()
        return sorted(heard)

    assert asyncio.run(main()) == [(0, None, "ToolError"), (1, ["1"], "NoneType")]


def test_a_blocking_tool_does_not_block_the_loop() -> None:
    release = threading.Event()

    @tool
    def block() -> bool:
        return release.wait(10)

    async def main() -> object:
        registry = Registry.from_(tools=[block])
        (made,) = registry
        task = asyncio.create_task(call(made))
        await asyncio.sleep(0.01)
        release.set()  # from the loop: were it blocked, nobody would come here
        got = await task
        registry.close()
        return got

    assert asyncio.run(main()) is True


def test_params_are_checked_before_anything_runs() -> None:
    ran = []

    @tool
    def touch(n: int) -> None:
        ran.append(n)

    with pytest.raises(ToolError, match="/n: is required"):
        run(touch)
    assert ran == []


def test_progress_is_clean_before_it_is_reported() -> None:
    heard: list[tuple[str, float | None]] = []

    @tool
    def work(context: ToolContext) -> None:
        context.progress("half", 0.5)
        context.progress("over", 7)
        context.progress("under", -1)
        context.progress("unknown")
        context.progress("x" * 600)
        context.progress("a\0b\ud800")
        with pytest.raises(ValueError, match="NaN"):
            context.progress("nan", float("nan"))

    async def main() -> None:
        registry = Registry.from_(tools=[work])
        (made,) = registry
        await made(make_call(report=lambda message, fraction: heard.append((message, fraction))))
        registry.close()

    asyncio.run(main())
    assert heard[:4] == [("half", 0.5), ("over", 1.0), ("under", 0.0), ("unknown", None)]
    assert len(heard[4][0]) == 500
    heard[5][0].encode()
    assert "\0" not in heard[5][0]
    assert len(heard) == 6


def test_records_of_the_logger_carry_the_ids(caplog: pytest.LogCaptureFixture, tmp_path: Path) -> None:
    @tool
    def work(context: ToolContext) -> str:
        context.logger.warning("careful", extra={"city": "Lund"})
        return str(context.workspace)

    with caplog.at_level(logging.WARNING):
        assert run(work, tmp_path) == str(tmp_path)
    (record,) = caplog.records
    assert record.name == "dagbok.tool.work"
    got = {name: getattr(record, name) for name in ("execution_id", "task_id", "attempt", "city")}
    assert got == {"execution_id": "dag-exec_1", "task_id": "1", "attempt": 1, "city": "Lund"}


def test_context_variables_reach_the_thread() -> None:
    seen: ContextVar[str] = ContextVar("seen", default="nothing")

    @tool
    def look() -> str:
        return seen.get()

    token = seen.set("trace")
    try:
        assert run(look) == "trace"
    finally:
        seen.reset(token)


def test_an_engine_says_of_a_thread_that_outlives_its_time_that_it_goes_on(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    release, ended = threading.Event(), threading.Event()

    @tool(effect="pure", timeout_seconds=0.2, retry={"max_attempts": 1})
    def hang() -> None:
        release.wait(60)
        ended.set()

    plan = {
        "original_request": "x",
        "intent": {"primary": "x"},
        "sub_tasks": [{"id": "1", "tool_or_prompt": {"name": "hang"}}],
    }

    async def main() -> str | None:
        async with Dagbok(f"sqlite:///{tmp_path / 'diary.db'}", tools=[hang]) as dagbok:
            execution = await dagbok.run(plan)
            assert execution.sub_steps[0].error_code == "timeout"
            assert not ended.is_set()
            release.set()
            return execution.sub_steps[0].error

    assert asyncio.run(main()) == (
        "The attempt took longer than its 0.2 s. Its thread cannot be stopped: it is abandoned, and what it still "
        "returns is dropped."
    )
    assert ended.wait(60)
    (record,) = [record for record in caplog.records if record.name == "dagbok.engine"]
    assert "the thread of task 1 (tool hang) cannot be stopped and is abandoned" in record.getMessage()
