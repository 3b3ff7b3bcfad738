from __future__ import annotations

import asyncio
from decimal import Decimal
from typing import Any

import jsonschema
import pytest
from pydantic_ai import ModelMessage, ModelResponse
from pydantic_ai.messages import ModelRequest, TextPart, UserPromptPart
from pydantic_ai.models import Model
from pydantic_ai.models.function import AgentInfo, FunctionModel
from pydantic_ai.usage import RequestUsage

from dagbok.domain.call import Reply
from dagbok.domain.states import Effect
from dagbok.domain.values import Json
from dagbok.engine.ports import ToolSpec
from dagbok.errors import BadInput, Misconfigured, ToolError
from dagbok.llm.asking import Question
from dagbok.llm.extractive import NOTICE
from dagbok.llm.inference import Inference, Synthesis
from dagbok.llm.models import Models
from dagbok.llm.prompts import SYNTHESIS_SYSTEM, Prompt, inference_prompt
from dagbok.llm.shape import Shape
from llm.calls import inference, inference_call, lost, models, synthesis_call

CALL = inference_call({"prompt": "Be brief", "temperature": 0.25, "max_tokens": 50, "seed": 7}, {"1": "Water rises."})
ANY = inference("any:model", prompt_chars=20_000, model_stream=False)  # the models of these tests have no streams


def use(monkeypatch: pytest.MonkeyPatch, model: Model) -> None:
    async def get(_models: Models, _name: str | None = None) -> Model:
        return model

    monkeypatch.setattr(Models, "get", get)


def respond(**fields: Any) -> FunctionModel:
    """A model that answers "done", with the usage given."""

    def answer(_messages: list[ModelMessage], _info: AgentInfo) -> ModelResponse:
        return ModelResponse([TextPart("done")], usage=RequestUsage(**fields), finish_reason="stop")

    return FunctionModel(answer, model_name="gpt-x")


def test_both_are_tools_as_the_engine_wants_them() -> None:
    ours = models(inference_timeout_s=60)
    tools: list[ToolSpec] = [Inference(ours), Synthesis(ours)]
    assert [(t.name, t.effect, t.timeout_s, t.max_concurrency, t.timer) for t in tools] == [
        ("inference", Effect.IDEMPOTENT, 60, None, False),
        ("__synthesis__", Effect.IDEMPOTENT, 60, None, False),
    ]
    assert [(t.idle_timeout_s, t.retry, t.stoppable) for t in tools] == [(None, None, True)] * 2


def test_the_parameters_are_a_schema_that_takes_what_plans_write() -> None:
    jsonschema.Draft202012Validator.check_schema(Inference.parameters)
    validator = jsonschema.Draft202012Validator(Inference.parameters)
    assert validator.is_valid(
        {"prompt": "Go", "model": "offline", "temperature": 0, "max_tokens": 1, "seed": 3, "x": [1]}
    )
    assert validator.is_valid({"prompt": [{"a": 1}]})  # a prompt that is one reference
    assert not validator.is_valid({"temperature": "hot"})


def test_the_model_is_asked_what_the_prompt_says_with_the_settings_of_the_params(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    seen: list[tuple[list[ModelMessage], AgentInfo]] = []

    def look(messages: list[ModelMessage], info: AgentInfo) -> ModelResponse:
        seen.append((messages, info))
        return ModelResponse([TextPart("done")], finish_reason="stop")

    use(monkeypatch, FunctionModel(look))
    reply = asyncio.run(ANY(CALL))
    ((messages, info),) = seen
    (request,) = messages
    assert isinstance(request, ModelRequest)
    (part,) = request.parts
    prompt = inference_prompt(CALL, 20_000)
    assert isinstance(part, UserPromptPart)
    assert part.content == prompt.text
    assert info.instructions == prompt.system
    asked = {"temperature": 0.25, "max_tokens": 50, "seed": 7}
    assert info.model_settings == asked | {"max_retries": 0, "timeout": 601.0}
    assert reply.value == "done"


def test_the_reply_says_what_it_cost(monkeypatch: pytest.MonkeyPatch) -> None:
    use(monkeypatch, respond(input_tokens=120, output_tokens=30, cost=Decimal("0.0025")))
    reply = asyncio.run(ANY(CALL))
    usage = {"requests": 1, "inputTokens": 120, "outputTokens": 30}
    assert reply == Reply("done", usage=usage, cost_usd=0.0025, model="function:gpt-x")


def test_a_nul_in_an_answer_does_not_lose_it(monkeypatch: pytest.MonkeyPatch) -> None:
    use(monkeypatch, FunctionModel(lambda _messages, _info: ModelResponse([TextPart("do\0ne")], finish_reason="stop")))
    assert asyncio.run(ANY(CALL)).value == "do\\0ne"


def test_a_price_nobody_knows_is_none_and_not_zero(monkeypatch: pytest.MonkeyPatch) -> None:
    use(monkeypatch, respond(input_tokens=120, output_tokens=30))
    reply = asyncio.run(ANY(CALL))
    assert reply.usage == {"requests": 1, "inputTokens": 120, "outputTokens": 30}
    assert reply.cost_usd is None


def test_a_price_without_all_of_the_tokens_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    use(monkeypatch, respond(input_tokens=120, unmeasured_requests=1, cost=Decimal(1)))
    assert asyncio.run(ANY(CALL)).cost_usd is None


def test_a_price_of_one_request_out_of_two_is_no_price(monkeypatch: pytest.MonkeyPatch) -> None:
    """An answer that is not in shape is sent back; both requests are paid for."""
    replies = [
        ModelResponse([TextPart("no")], usage=RequestUsage(input_tokens=9, cost=Decimal(1)), finish_reason="stop"),
        ModelResponse([TextPart('{"answer": 1}')], usage=RequestUsage(input_tokens=9), finish_reason="stop"),
    ]
    use(monkeypatch, FunctionModel(lambda _messages, _info: replies.pop(0)))
    reply = asyncio.run(ANY(inference_call({"prompt": "Go", "output_schema": {"type": "integer"}})))
    assert reply.value == 1
    assert reply.usage == {"requests": 2, "inputTokens": 18, "outputTokens": 0}
    assert reply.cost_usd is None


def test_prices_come_from_the_price_list_of_pydantic_ai(monkeypatch: pytest.MonkeyPatch) -> None:
    class Priced(FunctionModel):
        @property
        def system(self) -> str:
            return "openai"

    def answer(_messages: list[ModelMessage], _info: AgentInfo) -> ModelResponse:
        usage = RequestUsage(input_tokens=1_000_000, output_tokens=0)
        return ModelResponse([TextPart("done")], usage=usage, provider_name="openai", finish_reason="stop")

    use(monkeypatch, Priced(answer, model_name="gpt-4o"))
    reply = asyncio.run(ANY(CALL))
    assert reply.model == "openai:gpt-4o"
    assert reply.cost_usd is not None
    assert 0.5 < reply.cost_usd < 20


def test_a_task_may_name_its_own_model() -> None:
    call = inference_call({"prompt": "Go", "model": "offline"}, {"1": "Water rises."})
    assert asyncio.run(inference("nobody:has-this")(call)).model == "offline:extractive"
    with pytest.raises(Misconfigured, match="cannot be used"):
        asyncio.run(inference("nobody:has-this")(CALL))


@pytest.mark.parametrize(
    ("name", "value"),
    [("model", 3), ("model", " "), ("temperature", "hot"), ("temperature", True), ("temperature", 3), ("max_tokens", 0),
     ("max_tokens", 1.5), ("max_tokens", True), ("seed", "x")],
)  # fmt: skip
def test_a_setting_that_cannot_be_is_refused_by_name(name: str, value: object) -> None:
    with pytest.raises(BadInput, match=f"`{name}`"):
        asyncio.run(inference(prompt_chars=20_000)(inference_call({"prompt": "Go", name: value})))


def test_progress_says_who_is_asked_and_what_was_cut() -> None:
    reports: list[str] = []
    asyncio.run(inference(prompt_chars=20_000)(inference_call({"prompt": "Go"}, {"1": "x"}, reports=reports)))
    asyncio.run(inference(prompt_chars=2_000)(inference_call({"prompt": "Go"}, {"1": "x" * 9_000}, reports=reports)))
    assert reports[0] == "asking offline:extractive"
    assert reports[1].startswith("asking offline:extractive; not shown whole: the result of task 1: ")
    assert reports[1].endswith(" of 9,000 characters shown")


def test_the_synthesis_is_asked_its_own_way(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[str | None] = []

    def look(_messages: list[ModelMessage], info: AgentInfo) -> ModelResponse:
        seen.append(info.instructions)
        return ModelResponse([TextPart("done")], finish_reason="stop")

    use(monkeypatch, FunctionModel(look))
    asyncio.run(Synthesis(ANY.models)(synthesis_call({"1": "Water rises."})))
    assert seen == [SYNTHESIS_SYSTEM]


def test_the_offline_synthesis_names_the_model_and_how_to_set_another() -> None:
    call = synthesis_call({"1": "Water rises."}, missing=(lost("2", error="no"),))
    reply = asyncio.run(Synthesis(models())(call))
    assert isinstance(reply.value, str)
    assert reply.value.endswith(NOTICE)
    assert "**Task 2** failed: no" in reply.value
    assert reply.model == "offline:extractive"


def test_a_cancelled_call_is_cancelled_and_not_failed(monkeypatch: pytest.MonkeyPatch) -> None:
    async def run() -> None:
        started = asyncio.Event()

        async def wait(_messages: list[ModelMessage], _info: AgentInfo) -> ModelResponse:
            started.set()
            await asyncio.Event().wait()
            raise AssertionError

        use(monkeypatch, FunctionModel(wait))
        task = asyncio.ensure_future(ANY(CALL))
        await started.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(run())


def test_a_failed_call_is_a_tool_error_with_its_cause(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_messages: list[ModelMessage], _info: AgentInfo) -> ModelResponse:
        raise ConnectionResetError("reset by peer")

    use(monkeypatch, FunctionModel(fail, model_name="gpt-x"))
    with pytest.raises(ToolError, match="No answer from function:gpt-x: reset by peer") as caught:
        asyncio.run(ANY(CALL))
    assert caught.value.code == "unavailable"
    assert isinstance(caught.value.__cause__, ConnectionResetError)


@pytest.mark.parametrize(
    ("fault", "code"),
    [(BadInput("The schema cannot be applied."), BadInput.code), (TypeError("unhashable"), "invalid_output")],
)
def test_an_answer_that_cannot_be_judged_is_billed(fault: Exception, code: str) -> None:
    class Unjudging(Shape):
        def value(self, response: ModelResponse) -> Json:
            raise fault

    question = Question(respond(input_tokens=3), Prompt("", "Go", ()), {}, lambda *_: None, stream=False)
    with pytest.raises(ToolError, match="cannot be judged") as caught:
        asyncio.run(question.value(Unjudging({"type": "object"})))
    assert caught.value.code == code
    assert caught.value.charge.usage["requests"] == 1
