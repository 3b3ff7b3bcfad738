"""One question to a model: the request, what is heard of its answer on the way, and what it cost, failed or not.

pydantic-ai's direct interface is used and not its agent, because each request is then one that was decided here: no
retry that the diary would not know of, and a bill for every answer that came, also for those that were of no use. An
answer that does not say that it is finished is none.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from dagbok.domain.call import Charge, Reply
from dagbok.domain.values import Json, clean
from dagbok.errors import DagbokError, Misconfigured, ToolError
from dagbok.llm.extractive import NAME, PROVIDER
from dagbok.llm.models import COMPATIBLE
from dagbok.llm.prompts import Prompt
from dagbok.llm.shape import Shape

if TYPE_CHECKING:
    from pydantic_ai.messages import ModelMessage, ModelRequestPart, ModelResponse
    from pydantic_ai.models import Model, ModelRequestParameters
    from pydantic_ai.settings import ModelSettings

#: Characters of one answer, thoughts included; who sends more has lost the thread.
LONGEST_ANSWER: Final = 4 * 2**20
_TAIL = 100  # characters of what was written last that progress shows
_START = 300  # characters of an answer of no use that its error shows
_NO_STREAM = "If its server cannot stream, set DAGBOK_MODEL_STREAM=false."


@dataclass(slots=True)
class Question:
    """One question to one model, and the bill for it."""

    model: Model
    prompt: Prompt
    settings: ModelSettings
    report: Callable[[str, float | None], None]
    stream: bool = True
    longest: int = LONGEST_ANSWER
    _heard: list[ModelResponse] = field(default_factory=list)
    _lost: bool = False  # an answer broke off: what it cost in all is not known

    async def text(self) -> Reply:
        """Ask, and return the text of the answer.

        An answer that the limit of tokens cut is returned as it is; `answersCut` in its usage says so.

        Raises:
            ToolError: The call failed; `dagbok.llm.faults` has the codes. Also `tool_error` for an empty answer and
                `too_large`. Fields: `charge`, where something was paid.
        """
        with self._billed():
            response = await self._send([self._first()], None)
            text = response.text or ""
            if not text.strip():
                raise self._of_no_use(response, "an empty answer")
        return self._reply(clean(text, len(text)))  # no database keeps a NUL, and the answer is paid for

    async def value(self, shape: Shape) -> Reply:
        """Ask, and return the value of the answer; one in another shape is sent back once, with what is wrong.

        Raises:
            ToolError: As `text`; `invalid_output` where the second answer is not in shape either, or the first was
                cut by the limit of tokens.
            Misconfigured: The offline model, which only quotes.
        """
        if self.model.system == PROVIDER:
            raise Misconfigured(
                f"{NAME} answers in text only, and this task wants an answer in the shape of a schema; set a model, "
                "such as DAGBOK_MODEL=openai:gpt-5.",
                model=NAME,
            )
        with self._billed():
            messages: list[ModelMessage] = [self._first()]
            response = await self._send(messages, shape.parameters)
            try:
                return self._reply(await asyncio.to_thread(shape.value, response))
            except ToolError as misfit:
                if response.finish_reason == "length":
                    raise self._of_no_use(response, "an answer cut by its limit of tokens", "invalid_output") from None
                self.report(f"{self.model.model_id}: asking again, the answer is not in shape: {misfit.message}", None)
                messages += [response, self._back(response, misfit.message)]
            response = await self._send(messages, shape.parameters)
            try:
                return self._reply(await asyncio.to_thread(shape.value, response))
            except ToolError as misfit:
                what = f"an answer that is not in shape, twice ({misfit.message})"
                raise self._of_no_use(response, what, "invalid_output") from None

    # -- asking -----------------------------------------------------------------------------------------------------

    def _first(self) -> ModelMessage:
        from pydantic_ai.messages import ModelRequest, UserPromptPart

        return ModelRequest([UserPromptPart(self.prompt.text)], instructions=self.prompt.system)

    def _back(self, response: ModelResponse, wrong: str) -> ModelMessage:
        from pydantic_ai.messages import ModelRequest, ToolCallPart, ToolReturnPart, UserPromptPart

        told = f"Your answer was not accepted. {wrong}\nAnswer again, in full and in the shape that was asked for."
        calls = [part for part in response.parts if isinstance(part, ToolCallPart)]
        parts: list[ModelRequestPart] = [  # providers want each call of a tool answered
            ToolReturnPart(call.tool_name, told, tool_call_id=call.tool_call_id, outcome="retried") for call in calls
        ]
        return ModelRequest(parts or [UserPromptPart(told)], instructions=self.prompt.system)

    async def _send(self, messages: list[ModelMessage], parameters: ModelRequestParameters | None) -> ModelResponse:
        from dagbok.llm.faults import to_tool_error

        try:
            if self.stream and self.model.system != PROVIDER:  # the offline model has its answer at once
                response = await self._streamed(messages, parameters)
            else:
                from pydantic_ai.direct import model_request

                response = await model_request(
                    self.model, messages, model_settings=self.settings, model_request_parameters=parameters
                )
                self._heard.append(response)
                self._check_finished(response, response.finish_reason is not None)
        except ToolError:
            raise
        except Exception as exc:  # an SDK that meets an answer which it did not expect raises anything
            error = to_tool_error(exc, self.model)
            if self.stream and error.code == "tool_error":
                error = ToolError(f"{error.message.rstrip('.')}. {_NO_STREAM}", code=error.code, **error.fields)
            raise error from exc
        if response.finish_reason == "content_filter":
            raise self._of_no_use(response, "no answer: its content filter refused", "refused")
        if response.finish_reason == "error" or response.state != "complete":
            raise self._of_no_use(response, "an answer that it did not finish", "unavailable")
        if sum(map(_size, response.parts)) > self.longest:
            raise self._too_large()
        return response

    async def _streamed(self, messages: list[ModelMessage], parameters: ModelRequestParameters | None) -> ModelResponse:
        from pydantic_ai.direct import model_request_stream
        from pydantic_ai.messages import PartDeltaEvent, PartStartEvent

        async with model_request_stream(
            self.model, messages, model_settings=self.settings, model_request_parameters=parameters
        ) as stream:
            size, tail = 0, ""
            try:
                async for event in stream:
                    if not isinstance(event, PartStartEvent | PartDeltaEvent):
                        continue
                    said = _said(event.part if isinstance(event, PartStartEvent) else event.delta)
                    size += len(said)
                    tail = (tail + said[-_TAIL:])[-_TAIL:]
                    if size > self.longest:
                        raise self._too_large()
                    if said:
                        shown = " ".join(tail.split())
                        self.report(f"{self.model.model_id}: {size:,} characters: {shown}", None)
            except BaseException:
                self._lost = True
                self._heard.append(stream.get())  # a provider may have told already what the question costs
                raise
            response = stream.get()
        self._heard.append(response)
        # pydantic-ai takes a stream that just ends for a whole one; only what the provider said counts here.
        self._check_finished(response, response.finish_reason == "content_filter")
        return response

    def _check_finished(self, response: ModelResponse, otherwise: bool) -> None:
        if not (otherwise or (response.provider_details or {}).get("finish_reason")):
            self._lost = True
            raise ToolError(
                f"No answer from {self.model.model_id}: what it sent ended without saying that it is finished."
                + (f" {_NO_STREAM}" if self.stream else ""),
                code="unavailable",
                model=self.model.model_id,
            )

    # -- what comes of it -------------------------------------------------------------------------------------------

    @contextmanager
    def _billed(self) -> Iterator[None]:
        try:
            yield
        except ToolError as exc:
            charge = self._charge()
            if charge.usage:
                exc.fields["charge"] = charge
            raise
        except Exception as exc:  # judging an answer failed, for whatever reason: it is paid for all the same
            charge = self._charge()
            if not charge.usage:
                raise
            code = exc.code if isinstance(exc, DagbokError) else "invalid_output"
            message = exc.message if isinstance(exc, DagbokError) else f"{type(exc).__name__}: {exc}"
            raise ToolError(
                f"The answer of {self.model.model_id} cannot be judged: {clean(message, _START)}",
                code=code,
                model=self.model.model_id,
                charge=charge,
            ) from exc

    def _reply(self, value: Json) -> Reply:
        charge = self._charge()
        return Reply(value, usage=charge.usage, cost_usd=charge.cost_usd, model=charge.model)

    def _charge(self) -> Charge:
        usages = [response.usage for response in self._heard]
        measured = [usage for usage in usages if usage.has_values() and not usage.unmeasured_requests]
        amounts: dict[str, Any] = {
            "cacheReadTokens": sum(usage.cache_read_tokens for usage in measured),
            "cacheWriteTokens": sum(usage.cache_write_tokens for usage in measured),
            "reasoningTokens": sum(usage.output_reasoning_tokens for usage in measured),
            "answersCut": sum(response.finish_reason == "length" for response in self._heard),
        }
        amounts = {name: amount for name, amount in amounts.items() if amount}
        if measured:  # else tokens are not known, which is not 0
            amounts["inputTokens"] = sum(usage.input_tokens for usage in measured)
            amounts["outputTokens"] = sum(usage.output_tokens for usage in measured)
        usage = {"requests": len(usages), **amounts} if usages else None
        costs = [_cost(response) for response in self._heard]
        known = [cost for cost in costs if cost is not None]
        # A part of a sum would pass for it.
        whole = bool(known) and len(known) == len(costs) and not self._lost
        return Charge(usage, sum(known) if whole else None, self.model.model_id)

    def _of_no_use(self, response: ModelResponse, what: str, code: str = "tool_error") -> ToolError:
        said = " ".join("".join(map(_said, response.parts)).split())
        begins = f" It begins: {clean(said, _START)}" if said else ""
        refusal = (response.provider_details or {}).get("refusal")
        why = f" It says: {clean(refusal, _START)}" if isinstance(refusal, str) else ""
        advice = ""
        if response.finish_reason == "length":
            advice = " It reached its limit of tokens; raise `max_tokens`."
        message = f"{self.model.model_id} sent {what}.{advice}{why}{begins}"
        return ToolError(message, code=code, model=self.model.model_id)

    def _too_large(self) -> ToolError:
        message = f"{self.model.model_id} sent more than {self.longest:,} characters; the rest was not listened to."
        return ToolError(message, code="too_large", model=self.model.model_id)


def _cost(response: ModelResponse) -> float | None:
    """Return the price in US dollars by pydantic-ai's list, or None where nobody knows it."""
    if response.usage.unmeasured_requests:
        return None
    if response.usage.cost is not None:  # some providers tell it themselves
        return float(response.usage.cost)
    if response.provider_name == COMPATIBLE or not (response.model_name and response.usage.has_values()):
        return None  # a server of one's own has no price, whatever its models are called
    try:
        return float(response.cost().total_price)
    except LookupError:
        return None


def _said(part: object) -> str:
    """Return the text that a part of an answer, or a piece of one, brings: words, thoughts, or the call of a tool."""
    for name in ("content", "content_delta", "args", "args_delta"):
        if isinstance(said := getattr(part, name, None), str):
            return said
    return ""


def _size(part: object) -> int:
    return len(_said(part))
