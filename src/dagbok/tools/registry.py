"""The tools of one engine, by name and alias, each bound to that engine's workspace, threads and default timeout."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from dagbok.errors import Misconfigured
from dagbok.tools import loading
from dagbok.tools.context import ToolContext
from dagbok.tools.decorator import as_tool, tool
from dagbok.tools.egress import Egress
from dagbok.tools.lanes import ThreadLane
from dagbok.tools.tool import DEFAULT_TIMEOUT_S, Home, OnLate, Tool

__all__ = ["Home", "Registry", "Tool", "ToolContext", "as_tool", "tool"]

log = logging.getLogger(__name__)


class Registry:
    """Tools by name. Filled before the engine starts; reading it is safe from any thread."""

    def __init__(
        self,
        *,
        workspace: Path | str = ".",
        timeout_s: float = DEFAULT_TIMEOUT_S,
        max_threads: int = 64,
        on_late: OnLate | None = None,
        egress: Egress | None = None,
    ) -> None:
        """Make an empty registry.

        Args:
            workspace: The folder that file tools may touch. Need not exist before a tool uses it.
            timeout_s: Of tools that name none (`Settings.tool_timeout_s`).
            max_threads: For synchronous tools; `Settings.max_concurrency` lets each running attempt have one.
            on_late: Called on the loop with what an abandoned synchronous call brought after all.
            egress: The way to the network; whoever made it closes it. By default one that allows nothing special.
        """
        lane = ThreadLane(max_threads=max_threads)
        self.home = Home(Path(workspace).absolute(), timeout_s, lane, egress or Egress(), on_late)
        self._tools: dict[str, Tool] = {}
        self._by_name: dict[str, Tool] = {}  # aliases too

    @classmethod
    def from_(cls, *, tools: Iterable[Tool | Callable[..., Any]], **options: Any) -> Registry:
        """Return a registry (`options` as for construction) of these tools; undecorated functions get the defaults."""
        registry = cls(**options)
        for thing in tools:
            registry.add(thing)
        return registry

    def add(self, thing: Tool | Callable[..., Any]) -> Tool:
        """Add a tool or function and return it as bound here. The same one again changes nothing.

        A stand-in takes the place of the tool that has its name, if there is one.

        Raises:
            Misconfigured: A name or alias of it is taken (the message names both origins), it is no tool, or it would
                stand in for one that is never called.
        """
        made = as_tool(thing)
        if made.options.stand_in and (real := self._by_name.get(made.name)):
            if real.timer:
                raise Misconfigured(
                    f"Nothing can stand in for {made.name!r}: the engine does not call it, but a clock."
                )
            played = replace(real, body=made.body, origin=made.origin, function=None, stoppable=made.stoppable)
            return self._keep(played)
        names = dict.fromkeys((made.name, *made.aliases))
        for name in names:
            if other := self._by_name.get(name):
                if made.body is other.body or (made.function is not None and made.function == other.function):
                    return other
                raise Misconfigured(
                    f"Two tools are called {name!r}: {other.origin or 'one without a function'} and "
                    f"{made.origin or 'one without a function'}. Give one another name."
                )
        return self._keep(made)

    def _keep(self, made: Tool) -> Tool:
        bound = made.at(self.home)
        self._tools[bound.name] = bound
        self._by_name.update(dict.fromkeys((bound.name, *bound.aliases), bound))
        return bound

    def load_module(self, spec: str) -> list[Tool]:
        """Add the tools of `pkg.mod`, `path/to/file.py`, or one thing of either (`pkg.mod:name`), and return them.

        Raises:
            Misconfigured: It cannot be imported, holds no tool, or one of its names is taken.
        """
        return [self.add(found) for found in loading.from_spec(spec)]

    def load_entry_points(self) -> list[Tool]:
        """Add the tools of installed packages and return them. One that is broken is logged and left out."""
        added: list[Tool] = []
        for entry in loading.installed():
            try:
                found = loading.from_entry_point(entry)
            except Misconfigured as exc:
                log.warning("%s Its tools are not available.", exc.message)
                continue
            for one in found:
                try:
                    added.append(self.add(one))
                except Misconfigured as exc:
                    log.warning("%s The second is not available.", exc.message)
        return added

    def get(self, name: str) -> Tool | None:
        """Return the tool called `name` (or known by that alias)."""
        return self._by_name.get(name)

    def names(self) -> list[str]:
        """Return the names, without aliases, in the order they were added."""
        return list(self._tools)

    def __iter__(self) -> Iterator[Tool]:
        return iter(self._tools.values())

    def __len__(self) -> int:
        return len(self._tools)

    def __contains__(self, name: object) -> bool:
        return name in self._by_name

    def schemas(self) -> Mapping[str, Mapping[str, Any]]:
        """Return the JSON Schema of the params for every name and alias, for checking plans."""
        return {name: made.parameters for name, made in self._by_name.items()}

    def describe(self, made: Tool) -> dict[str, Any]:
        """Return the tool as `GET /tools` and model prompts show it."""
        return {
            "type": "function",
            "function": {"name": made.name, "description": made.description, "parameters": dict(made.parameters)},
            "effect": made.effect.value,
            "timeoutSeconds": made.timeout_s,
            "idleTimeoutSeconds": made.idle_timeout_s,
            "maxConcurrency": made.max_concurrency,
            "aliases": list(made.aliases),
            "retry": None if made.retry is None else dict(made.retry),
        }

    def close(self) -> None:
        """Let the idle threads go. Busy ones end with their call or with the process."""
        self.home.lane.close()
