"""A script: what a tool or a model does, call by call, and a record of who called.

An entry of a script is one of

- a value: it is returned;
- an exception: it is raised, `ToolError("...", code="rate_limited", retry_after_s=5)` for instance;
- `Hang()`: it never comes back, until it is cut off;
- `after(SECONDS, ENTRY)`: the entry, once the test's clock has moved so far;
- a function of the call, asynchronous or not, that returns one of these.
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar

from dagbok.errors import Misconfigured, ToolError

C = TypeVar("C")  # what a call is to whoever plays the script


@dataclass(frozen=True, slots=True)
class Hang:
    """An entry that never comes back: it waits until it is cut off."""


@dataclass(frozen=True, slots=True)
class After:
    """An entry that waits before another is played. `after` makes one."""

    seconds: float
    entry: Any


def after(seconds: float, entry: Any) -> After:
    """Return an entry that plays `entry` once `seconds` have passed on the clock of whoever has the script."""
    return After(seconds, entry)


class Sleeper(Protocol):
    """A clock to sleep by, such as `FakeClock`."""

    async def sleep(self, seconds: float) -> None:
        """Return after `seconds`."""
        ...


class Script(Generic[C]):
    """The entries, and the calls so far."""

    def __init__(
        self,
        what: str,
        entries: Iterable[Any] | Mapping[str, Iterable[Any]] | Callable[[C], Any],
        *,
        key: Callable[[C], str] | None = None,
        clock: Sleeper | None = None,
    ) -> None:
        """Take a script.

        Args:
            what: Whose it is, for messages.
            entries: One for each call, in the order of the calls; where there is a `key`, also such a list for each
                key; or a function that is the entry of every call.
            key: Says whose list a call reads.
            clock: What `after` waits for.
        """
        self.calls: list[C] = []
        self._what = what
        self._key = key
        self._clock = clock
        self._waiters: list[tuple[int, asyncio.Future[C]]] = []
        self._function: Callable[[C], Any] | None = None
        self._lists: dict[str, Iterator[Any]] = {}
        if callable(entries):
            self._function = entries
        elif isinstance(entries, Mapping) and key is not None:
            self._lists = {str(name): self._listed(one) for name, one in entries.items()}
        else:
            self._key = None
            self._lists = {"": self._listed(entries)}

    async def called(self, times: int = 1) -> C:
        """Return call number `times`, from 1, once it has come."""
        if len(self.calls) >= times:
            return self.calls[times - 1]
        future: asyncio.Future[C] = asyncio.get_running_loop().create_future()
        self._waiters.append((times, future))
        return await future

    async def play(self, call: C) -> Any:
        """Record `call` and play its entry.

        Raises:
            ToolError: `script_ended`: there is no entry for this call.
            Exception: What the entry says.
        """
        self.calls.append(call)
        for times, future in self._waiters:
            if times == len(self.calls) and not future.done():
                future.set_result(call)
        self._waiters = [(times, future) for times, future in self._waiters if not future.done()]
        entry = self._entry(call)
        while True:
            if isinstance(entry, BaseException) or (isinstance(entry, type) and issubclass(entry, BaseException)):
                raise entry
            if isinstance(entry, Hang):
                await asyncio.get_running_loop().create_future()
            elif isinstance(entry, After):
                await self._sleep(entry.seconds)
                entry = entry.entry
            elif callable(entry):
                entry = entry(call)
                if inspect.isawaitable(entry):
                    entry = await entry
            else:
                return entry

    def _listed(self, entries: object) -> Iterator[Any]:
        if isinstance(entries, str | bytes | Mapping) or not isinstance(entries, Iterable):
            raise Misconfigured(f"The script of {self._what} is {entries!r:.100}; it is a list with an entry per call.")
        return iter(entries)

    def _entry(self, call: C) -> Any:
        if self._function is not None:
            return self._function
        key = self._key(call) if self._key is not None else ""
        try:
            return next(self._lists[key])
        except KeyError:
            names = ", ".join(map(repr, self._lists))
            message = f"The script of {self._what} has nothing for {key!r}, only for {names}."
            raise ToolError(message, code="script_ended") from None
        except StopIteration:
            of = f" for {key!r}" if key else ""
            message = f"The script of {self._what}{of} has ended; this is its call number {len(self.calls)}."
            raise ToolError(message, code="script_ended") from None

    async def _sleep(self, seconds: float) -> None:
        if self._clock is None:
            raise Misconfigured(f"`after` in the script of {self._what} needs a clock: give it `clock=`.")
        await self._clock.sleep(seconds)
