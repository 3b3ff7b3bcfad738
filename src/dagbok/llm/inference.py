"""The two tools that call a model: `inference`, one task of a plan, and the synthesis, which writes the final result.

Both say what they cost: requests and tokens, US dollars where the price is known, and the model by its full name.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from dagbok.domain.call import Call, Reply
from dagbok.domain.ids import SYNTHESIS_TOOL
from dagbok.domain.plan import INFERENCE
from dagbok.domain.states import Effect
from dagbok.errors import BadInput
from dagbok.llm import shape
from dagbok.llm.asking import LONGEST_ANSWER, Question
from dagbok.llm.models import Models
from dagbok.llm.prompts import Prompt, inference_prompt, synthesis_prompt

if TYPE_CHECKING:
    from pydantic_ai.models import Model
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
    idle_timeout_s: float | None = None
    retry: Mapping[str, Any] | None = None
    stoppable: bool = True
    _prompt: Callable[[Call, int], Prompt]

    def __init__(self, models: Models) -> None:
        self.models = models
        self.timeout_s = models.settings.inference_timeout_s

    async def __call__(self, call: Call) -> Reply:
        """Ask the model and return its text, or its value where a schema is given, with usage, cost and its name.

        Raises:
            BadInput: A param that sets the model up has a value it cannot have.
            Misconfigured: The model cannot be used here; the message says what to do.
            ToolError: The call failed; `dagbok.llm.faults` and `dagbok.llm.asking` have the codes.
        """
        ours = self.models.settings
        name, settings = _settings(call.params)
        wanted = shape.of(call)
        model = await self.models.get(name)
        settings = _bounded(settings, model, call.sub_task.timeout_seconds or self.timeout_s)
        prompt = type(self)._prompt(call, ours.prompt_chars)
        longest = min(LONGEST_ANSWER, ours.max_result_bytes)
        call.report(_asking(model, prompt, settings), None)
        question = Question(model, prompt, settings, call.report, stream=ours.model_stream, longest=longest)
        return await (question.text() if wanted is None else question.value(wanted))


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
            "output_schema": {
                "description": "JSON Schema of the answer; the result is then a value of that shape, and not text.",
                "type": "object",
            },
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


def _asking(model: Model, prompt: Prompt, settings: ModelSettings) -> str:
    ignored = [name for name in ("temperature", "max_tokens", "seed") if name in settings and not _takes(model, name)]
    remarks = [f"it takes no {' and no '.join(ignored)}"] if ignored else []
    if prompt.cut:
        more = f" and {len(prompt.cut) - 3:,} more" if len(prompt.cut) > 3 else ""
        remarks.append(f"not shown whole: {'; '.join(prompt.cut[:3])}{more}")
    return "; ".join((f"asking {model.model_id}", *remarks))


def _takes(model: Model, setting: str) -> bool:
    return setting not in model.unsupported_settings


def _bounded(settings: ModelSettings, model: Model, timeout_s: float) -> ModelSettings:
    """Return the settings with the bounds of an attempt: one request each, and no wait that outlasts it."""
    bounded: ModelSettings = {**settings}
    if _takes(model, "max_retries"):  # an SDK that tries again by itself hides attempts from the diary
        bounded["max_retries"] = 0
    if _takes(model, "timeout"):  # of one wait for data; the engine bounds the whole, and is to be the first
        bounded["timeout"] = timeout_s + 1
    return bounded


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
