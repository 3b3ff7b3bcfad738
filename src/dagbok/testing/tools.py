"""A tool that does what a script says, in the place of one that takes time, costs money or has consequences."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final, Literal

from dagbok.domain.call import Call
from dagbok.domain.states import Effect
from dagbok.errors import Misconfigured
from dagbok.testing.script import Script, Sleeper

#: Params of any kind.
ANYTHING: Final[Mapping[str, Any]] = {"type": "object", "properties": {}, "additionalProperties": True}


class ScriptedTool:
    """A tool for `Dagbok(tools=[...])` that plays a script, one entry a call; see `dagbok.testing.script`.

        fetch = ScriptedTool("fetch_page", [ToolError("busy", code="unavailable"), {"text": "hello"}])

    Where there is a tool of that name - one that ships, or one of your own in the same list - it takes its place. All
    but what it does stays that tool's: schema, description, effect, limits, so a plan is checked and run as with the
    real one. Where there is none, the options below apply.
    """

    #: Read by `dagbok.tools.tool.Tool.of`.
    stand_in: Final = True
    aliases: Final[tuple[str, ...]] = ()
    timer: Final = False
    stoppable: Final = True

    def __init__(
        self,
        name: str,
        script: Iterable[Any] | Mapping[str, Iterable[Any]] | Callable[[Call], Any],
        *,
        effect: Effect | Literal["pure", "idempotent", "once"] = Effect.ONCE,
        description: str = "",
        parameters: Mapping[str, Any] = ANYTHING,
        timeout_seconds: float | None = None,
        idle_timeout_seconds: float | None = None,
        max_concurrency: int | None = None,
        retry: Mapping[str, Any] | None = None,
        clock: Sleeper | None = None,
    ) -> None:
        """Make a scripted tool.

        Args:
            name: What plans call it.
            script: Entries in the order of the calls; or, where several sub-tasks call it and their order is a matter
                of luck, such a list by task id; or a function of the `Call`, for every call. After its last entry a
                call fails with the code `script_ended`.
            effect: What repeating a call would do, as for `@tool`.
            description: As for `@tool`.
            parameters: JSON Schema of the params; any params by default.
            timeout_seconds: The longest an attempt may take; the setting by default.
            idle_timeout_seconds: The longest an attempt may go without reporting progress.
            max_concurrency: How many calls may be under way at once.
            retry: How attempts that fail are repeated where a plan does not say.
            clock: What `after` waits for.

        Raises:
            Misconfigured: The script is no list, or the effect is unknown.
        """
        try:
            self.effect = Effect(effect)
        except ValueError:
            raise Misconfigured(f"effect={effect!r} is unknown; use 'pure', 'idempotent' or 'once'.") from None
        self.name = name
        self.description = description
        self.parameters = parameters
        self.timeout_s = timeout_seconds
        self.idle_timeout_s = idle_timeout_seconds
        self.max_concurrency = max_concurrency
        self.retry = retry
        self._script: Script[Call] = Script(f"the tool {name!r}", script, key=lambda call: call.task_id, clock=clock)

    @property
    def calls(self) -> list[Call]:
        """The calls so far, each with its `task_id`, `params`, `attempt` and `idempotency_key`."""
        return self._script.calls

    async def called(self, times: int = 1) -> Call:
        """Return call number `times`, from 1, once it has come: the signal that the tool is at work."""
        return await self._script.called(times)

    async def __call__(self, call: Call) -> Any:
        """Play the entry of this call."""
        return await self._script.play(call)
