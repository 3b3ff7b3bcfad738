"""The tools of the campaign: each writes into the side log when its body starts and when it ends.

What a body returns is a function of its task and its inputs alone, so that the judge can tell a true result from any
other. One tool for each effect, on the loop and in a thread.
"""

from __future__ import annotations

import asyncio
import functools
import hashlib
import os
import time
from typing import Any

import orjson

from chaos.plans import FLAKY, SCRIPTED
from chaos.sidelog import VARIABLE, SideLog
from dagbok.errors import ToolError
from dagbok.tools.context import ToolContext
from dagbok.tools.decorator import tool


def digest_of(task: str, inputs: Any) -> str:
    """Return the checksum of what a task was given."""
    return hashlib.sha256(orjson.dumps([task, inputs], option=orjson.OPT_SORT_KEYS)).hexdigest()[:24]


def result_of(task: str, digest: str, kb: int) -> dict[str, Any]:
    """Return what the body of a task returns that was given inputs of this checksum."""
    return {"task": task, "digest": digest, "bulk": (digest * (kb * 1024 // len(digest) + 1))[: kb * 1024]}


@functools.cache
def _log() -> SideLog:
    return SideLog(os.environ[VARIABLE])


class _Body:
    """One run of a body, as the side log tells it."""

    def __init__(
        self, tool: str, context: ToolContext, task: str, inputs: Any, kb: int, code: str, reports: int
    ) -> None:
        self._context, self._task, self._kb = context, task, kb
        self._code, self._reports = code, reports
        self._digest = digest_of(task, inputs)
        self._ids = {
            "execution": context.execution_id, "task": context.task_id, "attempt": context.attempt,
            "key": context.idempotency_key,
        }  # fmt: skip
        _log().write("start", **self._ids, tool=tool, digest=self._digest)

    def report(self) -> None:
        for number in range(self._reports):
            self._context.progress(f"{self._task}: part {number}", number / self._reports)

    def end(self) -> Any:
        if self._code:
            _log().write("fail", **self._ids)
            raise ToolError("This task fails, as its plan says.", code=self._code)
        result = result_of(self._task, self._digest, self._kb)
        _log().write("end", **self._ids, digest=self._digest)
        return result


def _code(context: ToolContext, fails: bool, flaky: int) -> str:
    """Return the code of the error that an attempt fails with; "" for one that succeeds."""
    return SCRIPTED if fails else FLAKY if context.attempt <= flaky else ""


def _on_loop(effect: Any, max_concurrency: int | None = None) -> Any:
    @tool(name=f"{effect}_on_loop", effect=effect, max_concurrency=max_concurrency)
    async def body(
        context: ToolContext,
        task: str,
        inputs: Any = None,
        ms: float = 0,
        kb: int = 0,
        fails: bool = False,
        flaky: int = 0,
        reports: int = 0,
    ) -> Any:
        run = _Body(f"{effect}_on_loop", context, task, inputs, kb, _code(context, fails, flaky), reports)
        run.report()
        if ms:
            await asyncio.sleep(ms / 1000)
        return run.end()

    return body


def _in_thread(effect: Any, max_concurrency: int | None = None) -> Any:
    @tool(name=f"{effect}_in_thread", effect=effect, max_concurrency=max_concurrency)
    def body(
        context: ToolContext,
        task: str,
        inputs: Any = None,
        ms: float = 0,
        kb: int = 0,
        fails: bool = False,
        flaky: int = 0,
        reports: int = 0,
    ) -> Any:
        run = _Body(f"{effect}_in_thread", context, task, inputs, kb, _code(context, fails, flaky), reports)
        run.report()
        if ms:
            time.sleep(ms / 1000)
        return run.end()

    return body


pure_on_loop = _on_loop("pure")
pure_in_thread = _in_thread("pure", max_concurrency=3)
idempotent_on_loop = _on_loop("idempotent", max_concurrency=4)
idempotent_in_thread = _in_thread("idempotent")
once_on_loop = _on_loop("once")
once_in_thread = _in_thread("once", max_concurrency=3)

TOOLS = [pure_on_loop, pure_in_thread, idempotent_on_loop, idempotent_in_thread, once_on_loop, once_in_thread]
