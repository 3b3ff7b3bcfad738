"""A journal in front of another one: what it does not know it passes on, and each write passes one place.

The journal of an engine writes by more calls than its port names, and will by more in later releases. Every call that
returns a future is taken for a write, so what stands in front of it need not know them one by one.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial
from typing import Any, Final

from dagbok.domain.records import Changes
from dagbok.engine.ports import Journal

#: Whoever opened the journal starts and closes it; neither is a write.
_LIFE: Final = frozenset({"start", "close"})


class Passing:
    """Everything of `journal`; its writes go through `_pass_on`."""

    def __init__(self, journal: Journal) -> None:
        self._journal = journal

    def append(self, changes: Changes) -> asyncio.Future[None]:
        """Write `changes`; see `dagbok.engine.ports.Journal.append`."""
        future: asyncio.Future[None] = self._pass_on("append", self._journal.append, changes)
        return future

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._journal, name)
        if name in _LIFE or name.startswith("_") or not callable(found):
            return found
        return partial(self._pass_on, name, found)

    def _pass_on(self, name: str, call: Callable[..., Any], *args: Any, **more: Any) -> Any:
        """Return what `call(*args, **more)`, which is `name` of the journal behind, returns: a future, if it writes."""
        raise NotImplementedError
