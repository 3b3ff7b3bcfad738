"""The built-in offline model as pydantic-ai sees it: an adapter around `dagbok.llm.extractive`, which has the ideas.

It answers within the call, without a thread: what it reads is bounded, so that it holds the event loop for some tens of
milliseconds at worst. Token figures are estimates, one token for four characters. It is free: its cost is 0, which is
known, and not None.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from decimal import Decimal
from typing import Any

from pydantic_ai import RunContext
from pydantic_ai.exceptions import UserError
from pydantic_ai.messages import ModelMessage, ModelRequest, ModelResponse, SystemPromptPart, TextPart, UserPromptPart
from pydantic_ai.models import CompletedStreamedResponse, Model, ModelRequestParameters, StreamedResponse
from pydantic_ai.profiles import ModelProfile
from pydantic_ai.settings import ModelSettings
from pydantic_ai.usage import RequestUsage

from dagbok.llm.extractive import MODEL, NAME, PROVIDER, answer
from dagbok.llm.prompts import read

CHARS_PER_TOKEN = 4  # the usual rule of thumb for English


class OfflineModel(Model[None]):
    """A deterministic model that ranks and quotes sentences of its inputs. Text only: no tools, no structures."""

    # There is no model behind this that would have to be told what a tag of the framework means.
    _announces_lookalike_notes = False

    def __init__(self) -> None:
        profile = ModelProfile(
            supports_tools=False, supports_json_schema_output=False, supports_json_object_output=False
        )
        super().__init__(profile=profile)

    @property
    def model_name(self) -> str:
        """The name without its provider; `model_id` has both."""
        return MODEL

    @property
    def system(self) -> str:
        """The provider."""
        return PROVIDER

    async def request(
        self,
        messages: list[ModelMessage],
        model_settings: ModelSettings | None,
        model_request_parameters: ModelRequestParameters,
    ) -> ModelResponse:
        """Return the quotation that answers the last prompt.

        Raises:
            UserError: The request brings tools or wants structured output.
        """
        wanted = model_request_parameters
        if wanted.function_tools or wanted.output_tools or wanted.output_object or not wanted.allow_text_output:
            raise UserError(f"{NAME} answers in text only; tools and structured output need a real model.")
        model_settings, model_request_parameters = self.prepare_request(model_settings, model_request_parameters)
        asked = [part for message in messages if isinstance(message, ModelRequest) for part in message.parts]
        prompts = [_text(part) for part in asked if isinstance(part, UserPromptPart)]
        standing = [part.content for part in asked if isinstance(part, SystemPromptPart)]
        standing += [m.instructions for m in messages if isinstance(m, ModelRequest) and m.instructions]
        tokens = (model_settings or {}).get("max_tokens")
        # pydantic-ai may add remarks of its own, as further prompts, to one whose text looks like its frames.
        prompt = next((text for text in reversed(prompts) if read(text)), prompts[-1] if prompts else "")
        text = answer(prompt, limit_chars=tokens * CHARS_PER_TOKEN if tokens else None)
        usage = RequestUsage(input_tokens=_tokens(*prompts, *standing), output_tokens=_tokens(text), cost=Decimal(0))
        return ModelResponse(
            parts=[TextPart(text)], usage=usage, model_name=MODEL, provider_name=PROVIDER, finish_reason="stop"
        )

    @asynccontextmanager
    async def request_stream(
        self,
        messages: list[ModelMessage],
        model_settings: ModelSettings | None,
        model_request_parameters: ModelRequestParameters,
        run_context: RunContext[Any] | None = None,  # noqa: ARG002  # the signature is pydantic-ai's
    ) -> AsyncGenerator[StreamedResponse]:
        """Return the same answer as a stream; it comes in one piece, since it is made in one."""
        response = await self.request(messages, model_settings, model_request_parameters)
        yield CompletedStreamedResponse(response, model_request_parameters=model_request_parameters, replay_events=True)


def _text(part: UserPromptPart) -> str:
    if isinstance(part.content, str):
        return part.content
    return "\n".join(item for item in part.content if isinstance(item, str))


def _tokens(*texts: str) -> int:
    return sum(-(-len(text) // CHARS_PER_TOKEN) for text in texts)
