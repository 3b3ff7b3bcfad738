"""Scripted models, asked as every other model is: by the tool `inference` and the synthesis of a real engine."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from dagbok import Dagbok
from dagbok.domain.states import ExecutionStatus
from dagbok.errors import Misconfigured, ToolError
from dagbok.testing import Asked, FakeClock, Hang, ModelAnswer, ScriptedModel, ScriptedTool, after
from dagbok.wire import Execution
from testing.documents import plan, task

LIST = {"type": "array", "items": {"type": "string"}}
OBJECT = {"type": "object", "properties": {"answer": {"type": "string"}}, "required": ["answer"]}


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path}/test.db"


def _run(url: str, model: Any, *tasks: dict[str, Any], synthesis: str = "", **settings: Any) -> Execution:
    async def main() -> Execution:
        async with Dagbok(url, model=model, **settings) as dagbok:
            return await dagbok.run(plan(*tasks, synthesis_plan=synthesis))

    return asyncio.run(main())


ONE = {"max_attempts": 1}


def _ask(id: str, *after: str, prompt: str = "Go", **more: Any) -> dict[str, Any]:
    names = ("model", "output_schema", "temperature", "seed")
    params: dict[str, Any] = {name: more.pop(name) for name in names if name in more}
    return task(id, "inference", *after, params={"prompt": prompt, **params}, on_failure="skip", retry=ONE, **more)


@pytest.mark.parametrize("stream", [True, False])
def test_it_answers_in_order_and_writes_the_synthesis(url: str, stream: bool) -> None:
    model = ScriptedModel(["one", "two", "# All"])
    execution = _run(url, model, _ask("1"), _ask("2", "1"), synthesis="Put it together", model_stream=stream)
    assert (execution["1"].result, execution["2"].result, execution.final_result) == ("one", "two", "# All")
    assert {step.model for step in execution.sub_steps} == {"scripted:model"}
    assert "Put it together" in model.calls[2].text


@pytest.mark.parametrize("stream", [True, False])
def test_it_fails_as_told_and_answers_the_next_question(url: str, stream: bool) -> None:
    refused = ToolError("not today", code="refused", model="x")
    model = ScriptedModel([refused, ConnectionError("cable"), "yes"])
    execution = _run(url, model, _ask("1"), _ask("2", "1"), _ask("3", "2"), model_stream=stream)
    assert (execution["1"].error_code, execution["1"].error) == ("refused", "not today")
    assert execution["2"].error_code == "unavailable", "a real error takes the way of a real one"
    assert execution["3"].result == "yes"


def test_a_function_of_the_question_answers_each(url: str) -> None:
    def answer(asked: Asked) -> str:
        return "tides" if "<instructions>\nWhy?" in asked.text else "no idea"

    model = ScriptedModel(answer)
    execution = _run(url, model, _ask("1", prompt="Why?"), _ask("2", prompt="How?", temperature=0.5, seed=3))
    assert (execution["1"].result, execution["2"].result) == ("tides", "no idea")
    asked = next(call for call in model.calls if "How?" in call.text)
    assert asked.settings == {"temperature": 0.5, "seed": 3}
    assert asked.schema is None
    assert asked.complaint is None
    assert asked.system.startswith("You carry out one task")


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize(
    ("schema", "value"),
    [
        (LIST, ["a", "b"]),
        (OBJECT, {"answer": "a"}),
        ({"type": "integer"}, 7),
        ({"type": "boolean"}, False),
        ({"type": ["null", "string"]}, None),
        ({"anyOf": [{"type": "object"}, {"type": "array"}]}, {"other": 1}),
        ({**OBJECT, "properties": {"answer": {"type": "object"}}, "additionalProperties": False}, {"answer": {"a": 1}}),
    ],
)
def test_a_value_is_an_answer_in_the_shape_that_was_asked_for(
    url: str, schema: dict[str, Any], value: Any, stream: bool
) -> None:
    model = ScriptedModel([value])
    execution = _run(url, model, _ask("1", output_schema=schema), model_stream=stream)
    assert (execution["1"].error, execution["1"].result) == (None, value)
    assert model.calls[0].schema == schema


def test_a_schema_that_looks_like_the_envelope_of_another_gets_its_value_as_it_is(url: str) -> None:
    execution = _run(
        url, ScriptedModel([{"answer": "a"}]), _ask("1", output_schema={**OBJECT, "additionalProperties": False})
    )
    assert (execution["1"].error, execution["1"].result) == (None, {"answer": "a"})


def test_an_answer_in_another_shape_is_asked_for_again_with_what_is_wrong(url: str) -> None:
    model = ScriptedModel(["I would rather talk", [1], ["right"]])
    execution = _run(url, model, _ask("1", output_schema=LIST), _ask("2", "1", output_schema=LIST))
    assert execution["1"].error_code == "invalid_output"
    assert execution["1"].usage is not None
    assert execution["1"].usage["requests"] == 2
    assert execution["2"].result == ["right"]
    assert "not JSON" in (model.calls[1].complaint or "")
    assert model.calls[1].text == model.calls[0].text


def test_usage_cost_and_cut_are_those_of_the_script(url: str) -> None:
    answers = [
        ModelAnswer("paid", input_tokens=1000, output_tokens=200, cost_usd=0.25),
        ModelAnswer("cut", finish="length"),
        ModelAnswer("free", cost_usd=0.0),
    ]
    execution = _run(url, ScriptedModel(answers), _ask("1"), _ask("2", "1"), _ask("3", "2"))
    first, second, third = (execution[id] for id in "123")
    assert first.usage == {"requests": 1, "inputTokens": 1000, "outputTokens": 200}
    assert (first.cost_usd, second.cost_usd, third.cost_usd) == (0.25, None, 0.0)
    assert second.usage is not None
    assert second.usage["answersCut"] == 1
    assert second.usage["outputTokens"] == 1, "about one for four characters where the script does not say"
    assert execution.total_usage is not None
    assert execution.total_usage["requests"] == 3


def test_under_the_name_of_a_real_model_it_answers_where_a_plan_names_that_one_at_its_price(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("OPENAI_API_KEY", "ANTHROPIC_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    default = ScriptedModel(["default", "also default"])
    other = ScriptedModel([ModelAnswer("other", input_tokens=10**6, output_tokens=0)], name="openai:gpt-4o")
    steps = [_ask("1"), _ask("2", "1", model="openai:gpt-4o"), _ask("3", "2", model="scripted:model")]
    execution = _run(url, [default, other], *steps)
    assert [execution[id].result for id in "123"] == ["default", "other", "also default"]
    assert (execution["2"].model, execution["2"].cost_usd) == ("openai:gpt-4o", 2.5)


def test_a_name_that_nobody_gave_is_looked_up_as_ever(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    execution = _run(url, ScriptedModel([]), _ask("1", model="openai:gpt-5"))
    assert execution["1"].error_code == "misconfigured"
    assert "OPENAI_API_KEY" in (execution["1"].error or "")


def test_the_patterns_of_what_plans_may_name_hold_for_given_models_too(url: str) -> None:
    other = ScriptedModel(["never"], name="openai:gpt-4o")
    models = [ScriptedModel(["default"]), other]
    execution = _run(url, models, _ask("1"), _ask("2", "1", model="openai:gpt-4o"), models=("offline",))
    assert (execution["1"].result, execution["2"].error_code) == ("default", "refused")


def test_a_given_model_needs_no_address_of_the_environment(url: str) -> None:
    execution = _run(url, ScriptedModel(["x"]), _ask("1"), model_base_url="http://127.0.0.1:9/v1")
    assert execution["1"].result == "x"


def test_the_engine_is_named_by_the_given_model() -> None:
    assert Dagbok(model=ScriptedModel([], name="a:b")).settings.model == "a:b"
    assert Dagbok(model="offline").settings.model == "offline"
    assert Dagbok(model=None).settings.model == "offline:extractive"
    with pytest.raises(Misconfigured, match="holds no model"):
        Dagbok(model=[])


def test_after_its_last_answer_a_question_fails_and_says_so(url: str) -> None:
    execution = _run(url, ScriptedModel(["one"]), _ask("1"), _ask("2", "1"))
    assert execution["2"].error_code == "script_ended"
    assert execution["2"].error == "The script of the model 'scripted:model' has ended; this is its call number 2."


@pytest.mark.parametrize("name", ["gpt-5", ":x", "x:", "", "offline:extractive"])
def test_a_name_that_no_model_can_have_is_refused_at_once(name: str) -> None:
    with pytest.raises(Misconfigured, match="no name for a scripted model"):
        ScriptedModel([], name=name)


@pytest.mark.parametrize("script", ["text", {"1": ["text"]}])
def test_what_is_no_script_is_refused_at_once(script: Any) -> None:
    with pytest.raises(Misconfigured, match="it is a list with an entry per call"):
        ScriptedModel(script)


def test_a_slow_model_and_one_that_hangs_go_by_the_clock_of_the_test(url: str) -> None:
    async def main() -> None:
        clock = FakeClock()
        model = ScriptedModel([after(20, "slow"), Hang()], clock=clock)
        async with Dagbok(url, model=model, clock=clock, inference_timeout_s=60) as dagbok:
            submitted = await dagbok.submit(plan(_ask("1"), _ask("2", "1")))
            await model.called()
            await clock.advance(20)
            await model.called(2)
            await clock.advance(60)
            execution = await dagbok.wait(submitted.execution_id)
        assert (execution["1"].result, execution["1"].duration_ms) == ("slow", 20_000)
        assert (execution["2"].error_code, execution["2"].duration_ms) == ("timeout", 60_000)

    asyncio.run(main())


def test_a_scripted_tool_does_not_take_the_place_of_the_model(url: str) -> None:
    with pytest.raises(Misconfigured, match="'inference'"):
        _run(url, ScriptedModel([]), _ask("1"), tools=[ScriptedTool("inference", [])])


def test_what_ends_badly_ends_the_plan_as_a_real_model_would(url: str) -> None:
    model = ScriptedModel([ModelAnswer("no", finish="content_filter"), ""])
    execution = _run(url, model, _ask("1"), _ask("2", "1"))
    assert (execution["1"].error_code, execution["2"].error_code) == ("refused", "tool_error")
    assert execution.status is ExecutionStatus.COMPLETED, "both were skipped by choice"
