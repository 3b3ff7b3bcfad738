"""A model that says what a script says, and takes the way of every other one: prompts, streams, schemas, usage, price.

It is a model of pydantic-ai, so what is tested is the real way from a plan to a question and from an answer to a
result. There is no network and no key.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Iterable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any, Literal

from pydantic_ai import RunContext
from pydantic_ai.messages import ModelMessage, ModelRequest, ModelResponse, TextPart, UserPromptPart
from pydantic_ai.models import CompletedStreamedResponse, Model, ModelRequestParameters, StreamedResponse
from pydantic_ai.profiles import ModelProfile
from pydantic_ai.settings import ModelSettings
from pydantic_ai.usage import RequestUsage

from dagbok.domain import values
from dagbok.domain.values import Json
from dagbok.errors import Misconfigured
from dagbok.llm import shape
from dagbok.llm.extractive import PROVIDER
from dagbok.llm.offline import CHARS_PER_TOKEN
from dagbok.testing.script import Script, Sleeper


@dataclass(frozen=True, slots=True)
class Asked:
    """One question, as the model gets it."""

    text: str  #: the prompt
    system: str  #: the standing instructions
    schema: Mapping[str, Any] | None  #: of the answer, where the sub-task wants a value and not text
    complaint: str | None  #: why the answer before was not accepted, where this asks again
    settings: Mapping[str, Any] = field(repr=False)  #: `temperature`, `max_tokens`, `seed`, as far as given


@dataclass(frozen=True, slots=True)
class ModelAnswer:
    """An answer with what it costs. `ModelAnswer("yes", cost_usd=0.02)`."""

    value: Json
    input_tokens: int | None = None  #: None: about one for four characters, as for the offline model
    output_tokens: int | None = None
    cost_usd: float | None = None  #: None: by the price list, if it knows the model
    finish: Literal["stop", "length", "content_filter"] = "stop"  #: why it ended; `length`: its limit of tokens cut it


class ScriptedModel(Model[None]):
    """A model for `Dagbok(model=...)` that plays a script, one entry a question; see `dagbok.testing.script`.

        model = ScriptedModel([ToolError("busy", code="rate_limited", retry_after_s=5), "Tides follow the moon."])

    An answer that is a string is what the model says, word for word. Any other value is an answer in the shape that
    was asked for, and said as JSON; `ModelAnswer` adds usage, cost or a cut.
    """

    # There is no model behind this that would have to be told what a tag of the framework means.
    _announces_lookalike_notes = False

    def __init__(
        self,
        script: Iterable[Any] | Callable[[Asked], Any],
        *,
        name: str = "scripted:model",
        clock: Sleeper | None = None,
    ) -> None:
        """Make a scripted model.

        Args:
            script: Entries in the order of the questions, or a function of each (`Asked`). After the last entry a
                question fails with the code `script_ended`.
            name: PROVIDER:MODEL. With the name of a real model it answers where a plan names that one, at its price.
            clock: What `after` waits for.

        Raises:
            Misconfigured: The script is no list, or the name is none.
        """
        provider, _, model = name.partition(":")
        if not (provider and model) or provider == PROVIDER:
            raise Misconfigured(f"{name!r} is no name for a scripted model; it is like scripted:model.")
        self._system_said, self._model_said = provider, model
        self._script: Script[Asked] = Script(f"the model {name!r}", script, clock=clock)
        profile = ModelProfile(supports_json_schema_output=True, default_structured_output_mode="native")
        super().__init__(profile=profile)

    @property
    def calls(self) -> list[Asked]:
        """The questions so far."""
        return self._script.calls

    async def called(self, times: int = 1) -> Asked:
        """Return question number `times`, from 1, once it was asked."""
        return await self._script.called(times)

    @property
    def model_name(self) -> str:
        """The name without its provider; `model_id` has both."""
        return self._model_said

    @property
    def system(self) -> str:
        """The provider."""
        return self._system_said

    async def request(
        self,
        messages: list[ModelMessage],
        model_settings: ModelSettings | None,
        model_request_parameters: ModelRequestParameters,
    ) -> ModelResponse:
        """Play the entry of this question; see `dagbok.testing.script.Script.play`."""
        output = model_request_parameters.output_object
        schema = None if output is None else output.json_schema
        asked = _asked(messages, schema, model_settings)
        played = await self._script.play(asked)
        answer = played if isinstance(played, ModelAnswer) else ModelAnswer(played)
        said = answer.value if isinstance(answer.value, str) else values.encode(shape.said(answer.value, schema))
        usage = RequestUsage(
            input_tokens=_tokens(asked.text + asked.system) if answer.input_tokens is None else answer.input_tokens,
            output_tokens=_tokens(said) if answer.output_tokens is None else answer.output_tokens,
            cost=None if answer.cost_usd is None else Decimal(str(answer.cost_usd)),
        )
        return ModelResponse(
            parts=[TextPart(said)],
            usage=usage,
            model_name=self.model_name,
            provider_name=self.system,
            finish_reason=answer.finish,
            provider_details={"finish_reason": answer.finish},  # by which a stream says that it is whole
        )

    @asynccontextmanager
    async def request_stream(
        self,
        messages: list[ModelMessage],
        model_settings: ModelSettings | None,
        model_request_parameters: ModelRequestParameters,
        run_context: RunContext[Any] | None = None,  # noqa: ARG002  # the signature is pydantic-ai's
    ) -> AsyncGenerator[StreamedResponse]:
        """Play it as a stream; the answer comes in one piece."""
        response = await self.request(messages, model_settings, model_request_parameters)
        yield CompletedStreamedResponse(response, model_request_parameters=model_request_parameters, replay_events=True)


def _asked(messages: list[ModelMessage], schema: Mapping[str, Any] | None, settings: ModelSettings | None) -> Asked:
    requests = [message for message in messages if isinstance(message, ModelRequest)]
    parts = [part for request in requests for part in request.parts if isinstance(part, UserPromptPart)]
    prompts = [part.content for part in parts if isinstance(part.content, str)]
    told = settings or {}
    return Asked(
        text=prompts[0] if prompts else "",
        system="\n".join(request.instructions for request in requests if request.instructions),
        schema=None if schema is None else shape.wanted(schema),
        complaint=prompts[-1] if len(prompts) > 1 else None,
        settings={name: told[name] for name in ("temperature", "max_tokens", "seed") if name in told},
    )


def _tokens(text: str) -> int:
    return -(-len(text) // CHARS_PER_TOKEN)
