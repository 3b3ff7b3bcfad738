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
from pydantic_ai.models.test import TestModel
from pydantic_ai.usage import RequestUsage

from dagbok.domain.call import Reply
from dagbok.domain.states import Effect
from dagbok.engine.ports import ToolSpec
from dagbok.errors import BadInput, Misconfigured, ToolError
from dagbok.llm import inference
from dagbok.llm.extractive import NOTICE
from dagbok.llm.inference import Inference, Synthesis
from dagbok.llm.prompts import SYNTHESIS_SYSTEM, inference_prompt
from llm.calls import inference_call, lost, synthesis_call

CALL = inference_call({"prompt": "Be brief", "temperature": 0.25, "max_tokens": 50, "seed": 7}, {"1": "Water rises."})


def use(monkeypatch: pytest.MonkeyPatch, model: Model) -> None:
    monkeypatch.setattr(inference, "resolve", lambda _name: model)


def respond(**fields: Any) -> FunctionModel:
    """A model that answers "done", with the usage given."""
    return FunctionModel(
        lambda _messages, _info: ModelResponse([TextPart("done")], usage=RequestUsage(**fields)), model_name="gpt-x"
    )


def test_both_are_tools_as_the_engine_wants_them() -> None:
    tools: list[ToolSpec] = [Inference("offline", 60, 20_000), Synthesis("offline", 90, 20_000)]
    assert [(t.name, t.effect, t.timeout_s, t.max_concurrency, t.timer) for t in tools] == [
        ("inference", Effect.IDEMPOTENT, 60, None, False),
        ("__synthesis__", Effect.IDEMPOTENT, 90, None, False),
    ]


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
        return ModelResponse([TextPart("done")])

    use(monkeypatch, FunctionModel(look))
    reply = asyncio.run(Inference("any:model", 60, 20_000)(CALL))
    ((messages, info),) = seen
    (request,) = messages
    assert isinstance(request, ModelRequest)
    (part,) = request.parts
    prompt = inference_prompt(CALL, 20_000)
    assert isinstance(part, UserPromptPart)
    assert part.content == prompt.text
    assert info.instructions == prompt.system
    assert info.model_settings == {"temperature": 0.25, "max_tokens": 50, "seed": 7}
    assert reply.value == "done"


def test_the_reply_says_what_it_cost(monkeypatch: pytest.MonkeyPatch) -> None:
    use(monkeypatch, respond(input_tokens=120, output_tokens=30, cost=Decimal("0.0025")))
    reply = asyncio.run(Inference("any:model", 60, 20_000)(CALL))
    usage = {"requests": 1, "inputTokens": 120, "outputTokens": 30}
    assert reply == Reply("done", usage=usage, cost_usd=0.0025, model="function:gpt-x")


def test_a_nul_in_an_answer_does_not_lose_it(monkeypatch: pytest.MonkeyPatch) -> None:
    use(monkeypatch, FunctionModel(lambda _messages, _info: ModelResponse([TextPart("do\0ne")])))
    assert asyncio.run(Inference("any:model", 60, 20_000)(CALL)).value == "done"


def test_a_price_nobody_knows_is_none_and_not_zero(monkeypatch: pytest.MonkeyPatch) -> None:
    use(monkeypatch, TestModel())
    reply = asyncio.run(Inference("any:model", 60, 20_000)(CALL))
    assert reply.value == "success (no tool calls)"
    assert reply.model == "test:test"
    assert reply.cost_usd is None


def test_a_price_of_one_request_out_of_two_is_no_price(monkeypatch: pytest.MonkeyPatch) -> None:
    """An empty answer makes pydantic-ai ask again; both requests are paid for."""
    replies = [
        ModelResponse([], usage=RequestUsage(input_tokens=9, cost=Decimal(1))),
        ModelResponse([TextPart("done")], usage=RequestUsage(input_tokens=9)),
    ]
    use(monkeypatch, FunctionModel(lambda _messages, _info: replies.pop(0)))
    reply = asyncio.run(Inference("any:model", 60, 20_000)(CALL))
    assert reply.usage == {"requests": 2, "inputTokens": 18, "outputTokens": 0}
    assert reply.cost_usd is None


def test_prices_come_from_the_price_list_of_pydantic_ai(monkeypatch: pytest.MonkeyPatch) -> None:
    class Priced(FunctionModel):
        @property
        def system(self) -> str:
            return "openai"

    def answer(_messages: list[ModelMessage], _info: AgentInfo) -> ModelResponse:
        usage = RequestUsage(input_tokens=1_000_000, output_tokens=0)
        return ModelResponse([TextPart("done")], usage=usage, provider_name="openai")

    use(monkeypatch, Priced(answer, model_name="gpt-4o"))
    reply = asyncio.run(Inference("any:model", 60, 20_000)(CALL))
    assert reply.model == "openai:gpt-4o"
    assert reply.cost_usd is not None
    assert 0.5 < reply.cost_usd < 20


def test_a_task_may_name_its_own_model() -> None:
    call = inference_call({"prompt": "Go", "model": "offline"}, {"1": "Water rises."})
    assert asyncio.run(Inference("nobody:has-this", 60, 20_000)(call)).model == "offline:extractive"
    with pytest.raises(Misconfigured, match="Unknown model"):
        asyncio.run(Inference("nobody:has-this", 60, 20_000)(CALL))


@pytest.mark.parametrize(
    ("name", "value"),
    [("model", 3), ("model", " "), ("temperature", "hot"), ("temperature", True), ("temperature", 3), ("max_tokens", 0),
     ("max_tokens", 1.5), ("max_tokens", True), ("seed", "x")],
)  # fmt: skip
def test_a_setting_that_cannot_be_is_refused_by_name(name: str, value: object) -> None:
    with pytest.raises(BadInput, match=f"`{name}`"):
        asyncio.run(Inference("offline", 60, 20_000)(inference_call({"prompt": "Go", name: value})))


def test_progress_says_who_is_asked_and_what_was_cut() -> None:
    reports: list[str] = []
    asyncio.run(Inference("offline", 60, 20_000)(inference_call({"prompt": "Go"}, {"1": "x"}, reports=reports)))
    asyncio.run(Inference("offline", 60, 2_000)(inference_call({"prompt": "Go"}, {"1": "x" * 9_000}, reports=reports)))
    assert reports[0] == "asking offline:extractive"
    assert reports[1].startswith("asking offline:extractive; not shown whole: the result of task 1: ")
    assert reports[1].endswith(" of 9,000 characters shown")


def test_the_synthesis_is_asked_its_own_way(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[str | None] = []

    def look(_messages: list[ModelMessage], info: AgentInfo) -> ModelResponse:
        seen.append(info.instructions)
        return ModelResponse([TextPart("done")])

    use(monkeypatch, FunctionModel(look))
    asyncio.run(Synthesis("any:model", 60, 20_000)(synthesis_call({"1": "Water rises."})))
    assert seen == [SYNTHESIS_SYSTEM]


def test_the_offline_synthesis_names_the_model_and_how_to_set_another() -> None:
    call = synthesis_call({"1": "Water rises."}, missing=(lost("2", error="no"),))
    reply = asyncio.run(Synthesis("offline", 60, 20_000)(call))
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
        task = asyncio.ensure_future(Inference("any:model", 60, 20_000)(CALL))
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
        asyncio.run(Inference("any:model", 60, 20_000)(CALL))
    assert caught.value.code == "unavailable"
    assert isinstance(caught.value.__cause__, ConnectionResetError)
