"""The death of the process at a chosen write, without a process that dies: what comes after it is never written.

To the database it is the same. The engine is told at once that it does not know what became of its writes, as if its
journal had been torn away, so it gives up what it has and can be left; a second engine on the same database then goes
on as after a `kill -9`. What differs: a body that runs at that moment runs on until the engine is left.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial
from typing import Any, Final, Literal, TypeVar, cast

from dagbok.engine.ports import Journal
from dagbok.errors import Misconfigured, OutcomeUnknown
from dagbok.testing.passing import Passing

J = TypeVar("J", bound=Journal)

#: The writes that `at` counts: those of the group commit.
_COUNTED: Final = frozenset({"create", "append"})


class CrashingJournal(Passing):
    """A journal that dies at its write number `at`, and stays dead.

        crash = CrashingJournal(at=2, when="after")
        async with Dagbok(url, tools=tools, journal=crash.around) as dagbok:
            submitted = await dagbok.submit(plan)
            await crash.until_crashed()

    The writes of an engine are counted together, from 1: the submission of an execution (`create`) is one, and each
    step forward of one (`append`) is one, whatever the journal then commits together. Taking over, commands and
    deletions are not counted, and stop with the rest. From the crash on every write fails with `OutcomeUnknown`, at
    once, those under way included; whoever waits for an execution is told so too.
    """

    def __init__(
        self, journal: Journal | None = None, *, at: int | None = None, when: Literal["before", "after"] = "before"
    ) -> None:
        """Make a journal that will crash.

        Args:
            journal: The real one, for whoever builds an engine by hand; `Dagbok` hands it to `around`.
            at: The number of the fatal write, from 1. None: it crashes at none, but when `crash` is called; `writes`
                tells how many there were.
            when: `before`: the fatal write is not passed on. `after`: it becomes durable, but nobody hears of it.
        """
        if at is not None and at < 1:
            raise Misconfigured(f"CrashingJournal(at={at}): writes are counted from 1.")
        if when not in ("before", "after"):
            raise Misconfigured(f"CrashingJournal(when={when!r}): it is 'before' or 'after'.")
        self._journal = cast(Journal, journal)
        self._at = at
        self._when = when
        self._doomed = False  # the fatal write is under way
        self._open: set[asyncio.Future[Any]] = set()  # of the engine
        self._waiters: list[asyncio.Future[None]] = []
        #: How many writes were begun, the fatal one included.
        self.writes = 0
        #: Whether it has happened.
        self.crashed = False

    def around(self, journal: J) -> J:
        """Stand in front of `journal`; for `Dagbok(journal=crash.around)`."""
        if cast(Journal | None, self._journal) is not None:
            raise Misconfigured("This CrashingJournal stands in front of a journal already; each engine needs its own.")
        self._journal = journal
        return cast(J, self)

    def crash(self) -> None:
        """Die now: for whoever knows the moment, and not the number of the write."""
        self._crash()

    async def until_crashed(self) -> None:
        """Return once it has crashed."""
        if not self.crashed:
            waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._waiters.append(waiter)
            await waiter

    def _pass_on(self, name: str, call: Callable[..., Any], *args: Any, **more: Any) -> Any:
        if self.crashed or self._doomed:  # of the doomed, the crash tells
            return self._unheard()
        fatal = False
        if name in _COUNTED:
            self.writes += 1
            fatal = self.writes == self._at
        if fatal and self._when == "before":
            self._crash()
            return self._unheard()
        inner = call(*args, **more)
        if not asyncio.isfuture(inner):
            return inner
        outer = self._unheard()
        if fatal:
            self._doomed = True
            inner.add_done_callback(self._crash)
        else:
            inner.add_done_callback(partial(_tell, outer))
        return outer

    def _unheard(self) -> asyncio.Future[Any]:
        """Return a future that fails with the crash, at once if that is over."""
        outer: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        if self.crashed:
            self._lose(outer)
        else:
            self._open.add(outer)
            outer.add_done_callback(self._open.discard)
        return outer

    def _crash(self, fatal: asyncio.Future[Any] | None = None) -> None:
        if fatal is not None and not fatal.cancelled():
            fatal.exception()  # retrieved: whatever it was, nobody hears of it
        self.crashed = True
        for outer in list(self._open):
            self._lose(outer)
        for waiter in self._waiters:
            if not waiter.done():
                waiter.set_result(None)
        self._waiters.clear()

    def _lose(self, outer: asyncio.Future[Any]) -> None:
        if not outer.done():
            died = "" if self._at is None else f" {self._when} write {self._at}"
            message = f"The process died{died} (CrashingJournal); nothing is heard any more."
            outer.set_exception(OutcomeUnknown(message))
            outer.exception()  # retrieved: a caller that went away is no "never retrieved" warning


def _tell(outer: asyncio.Future[Any], inner: asyncio.Future[Any]) -> None:
    """Hand on what became of a write."""
    if inner.cancelled():
        outer.cancel()
        return
    error = inner.exception()
    if outer.done():  # its caller went away, or the crash was first
        return
    if error is not None:
        outer.set_exception(error)
    else:
        outer.set_result(inner.result())
