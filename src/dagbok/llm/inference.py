"""The two tools that call a model: `inference`, one task of a plan, and the synthesis, which writes the final result.

Both say what they cost: requests and tokens, US dollars where the price is known, and the model by its full name.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, ClassVar

from dagbok.domain.call import Call, Reply
from dagbok.domain.ids import SYNTHESIS_TOOL
from dagbok.domain.plan import INFERENCE
from dagbok.domain.states import Effect
from dagbok.errors import BadInput
from dagbok.llm.models import resolve
from dagbok.llm.prompts import Prompt, inference_prompt, synthesis_prompt

if TYPE_CHECKING:
    from pydantic_ai.models import Model
    from pydantic_ai.run import AgentRunResult
    from pydantic_ai.settings import ModelSettings


class _ModelTool:
    """What both tools share. Satisfies `dagbok.engine.ports.ToolSpec`."""

    name: str
    description: str
    parameters: ClassVar[dict[str, Any]]
    aliases: tuple[str, ...] = ()
    effect: Effect = Effect.IDEMPOTENT  # asking again costs money, but changes nothing
    max_concurrency: int | None = None
    timer: bool = False
    _prompt: Callable[[Call, int], Prompt]

    def __init__(self, model: str, timeout_s: float, prompt_chars: int) -> None:
        self.model = model  # the default; a call may name another in its params
        self.timeout_s = timeout_s
        self.prompt_chars = prompt_chars

    async def __call__(self, call: Call) -> Reply:
        """Ask the model and return its text, with usage, cost and the model's name.

        Raises:
            BadInput: A param that sets the model up has a value it cannot have.
            Misconfigured: The model cannot be used here; the message says what to do.
            ToolError: The call failed; `dagbok.llm.faults` has the codes.
        """
        name, settings = _settings(call.params)
        model = await asyncio.to_thread(resolve, name or self.model)  # the first call imports for half a second
        prompt = type(self)._prompt(call, self.prompt_chars)
        call.report(_asking(model.model_id, prompt), None)
        return await ask(model, prompt, settings)


class Inference(_ModelTool):
    """The tool `inference`."""

    name = INFERENCE
    description = (
        "Ask the model. It is given the request, this sub-task, its expected output and the results it depends on; "
        "any further params are given to it as data."
    )
    #: A prompt that is one reference keeps the type of the result, so it need not be a string.
    parameters: ClassVar[dict[str, Any]] = {
        "type": "object",
        "properties": {
            "prompt": {
                "description": "What to do, in words.",
                "type": ["string", "object", "array", "number", "boolean", "null"],
            },
            "model": {
                "description": "Another model than the default, as PROVIDER:MODEL.",
                "type": "string",
                "minLength": 1,
            },
            "temperature": {"type": "number", "minimum": 0, "maximum": 2},
            "max_tokens": {"description": "The longest answer, in tokens.", "type": "integer", "minimum": 1},
            "seed": {"type": "integer"},
        },
        "additionalProperties": True,
    }
    _prompt = staticmethod(inference_prompt)


class Synthesis(_ModelTool):
    """The tool of the last sub-step. Plans do not name it; the engine calls it."""

    name = SYNTHESIS_TOOL
    description = "Write the final answer from the results of a plan."
    parameters: ClassVar[dict[str, Any]] = {"type": "object", "properties": {}, "additionalProperties": True}
    _prompt = staticmethod(synthesis_prompt)


async def ask(model: Model, prompt: Prompt, settings: ModelSettings | None = None) -> Reply:
    """Put one prompt to a model and return its text with what it cost.

    Raises:
        ToolError: The call failed; `dagbok.llm.faults` has the codes.
    """
    from pydantic_ai import Agent

    from dagbok.llm.faults import CAUGHT, to_tool_error

    agent = Agent(model, name="dagbok", instructions=prompt.system)
    try:
        result = await agent.run(prompt.text, model_settings=settings, infer_name=False)
    except CAUGHT as exc:
        raise to_tool_error(exc, model.model_id) from exc
    usage = result.usage
    return Reply(
        value=result.output.replace("\0", ""),  # no database keeps it, and the answer is paid for
        usage={"requests": usage.requests, "inputTokens": usage.input_tokens, "outputTokens": usage.output_tokens},
        cost_usd=_cost(result),
        model=model.model_id,
    )


def _cost(result: AgentRunResult[str]) -> float | None:
    """Return the sum over all responses, or None if the price of one is unknown: a part of a sum would pass for it."""
    from pydantic_ai.messages import ModelResponse

    usages = [message.usage for message in result.all_messages() if isinstance(message, ModelResponse)]
    costs = [None if usage.unmeasured_requests else usage.cost for usage in usages]
    known = [cost for cost in costs if cost is not None]
    return float(sum(known)) if known and len(known) == len(costs) else None


def _asking(model: str, prompt: Prompt) -> str:
    if not prompt.cut:
        return f"asking {model}"
    more = f" and {len(prompt.cut) - 3:,} more" if len(prompt.cut) > 3 else ""
    return f"asking {model}; not shown whole: {'; '.join(prompt.cut[:3])}{more}"


def _settings(params: dict[str, Any]) -> tuple[str | None, ModelSettings]:
    """Return the model that the params name, if any, and the settings they give it."""
    name, temperature, max_tokens, seed = (params.get(key) for key in ("model", "temperature", "max_tokens", "seed"))
    settings: ModelSettings = {}
    if name is not None and not (isinstance(name, str) and name.strip()):
        raise BadInput("The param `model` names a model as PROVIDER:MODEL.", pointer="/model")
    if temperature is not None:
        if not _is_number(temperature) or not 0 <= temperature <= 2:
            raise BadInput("The param `temperature` is a number from 0 to 2.", pointer="/temperature")
        settings["temperature"] = float(temperature)
    if max_tokens is not None:
        if type(max_tokens) is not int or max_tokens < 1:
            raise BadInput("The param `max_tokens` is a whole number from 1.", pointer="/max_tokens")
        settings["max_tokens"] = max_tokens
    if seed is not None:
        if type(seed) is not int:
            raise BadInput("The param `seed` is a whole number.", pointer="/seed")
        settings["seed"] = seed
    return name, settings


def _is_number(value: object) -> bool:
    return type(value) in (int, float) and math.isfinite(value)  # type: ignore[arg-type]  # the types say so
