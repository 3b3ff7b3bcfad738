"""Keeps `sys.exit` in a tool's own tasks from ending the program.

The event loop lets SystemExit of any task through, out of `run_forever`: one tool that starts a task of its own, whose
library calls `sys.exit`, would take a server with all its executions along. So tasks that are started from within a
tool's body, and only those, get a coroutine around theirs which makes an ordinary exception of it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Generator
from contextvars import Context, ContextVar, copy_context
from typing import Any, Final

from dagbok.errors import ToolError

#: Set in the context of a tool's body, which its tasks inherit.
in_tool: Final[ContextVar[bool]] = ContextVar("dagbok_in_tool", default=False)

_Coro = Coroutine[Any, Any, Any] | Generator[Any, Any, Any]


def of_bodies() -> Context:
    """Return a copy of the present context in which tasks are those of a tool. To copy for each body: that is O(1)."""
    context = copy_context()
    context.run(in_tool.set, True)
    return context


def contain(loop: asyncio.AbstractEventLoop) -> Callable[[], None]:
    """Watch over the tasks of `loop` from now on; return what ends that. A program's own task factory is left alone."""
    if loop.get_task_factory() is not None:
        return lambda: None

    def make(loop: asyncio.AbstractEventLoop, coro: _Coro, **options: Any) -> asyncio.Future[Any]:
        if in_tool.get() and asyncio.iscoroutine(coro):
            coro = _without_exit(coro)
        return asyncio.Task(coro, loop=loop, **options)

    loop.set_task_factory(make)
    return lambda: loop.set_task_factory(None)


async def _without_exit(coro: Coroutine[Any, Any, Any]) -> Any:
    try:
        return await coro
    except SystemExit as exc:
        message = f"A task of the tool called sys.exit({exc.code!r}); a tool raises an exception to fail."
        raise ToolError(message) from exc
