"""The real clients of OpenAI and Anthropic against servers that speak their protocols, whole and streamed alike."""

from __future__ import annotations

import asyncio
import json
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

import pytest

from dagbok.domain.call import Charge
from dagbok.domain.secrets import Redactor
from dagbok.engine.outcomes import failure
from dagbok.errors import Misconfigured, ToolError
from llm.asked import ask, named
from llm.providers import KEY, Answer, Script, Server, cuts_the_body, fails, resets, says, sends

OBJECT = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}
LIST = {"type": "array", "items": {"$ref": "#/$defs/whole"}, "$defs": {"whole": {"type": "integer"}}}

streamed = pytest.mark.parametrize("stream", [True, False], ids=["streamed", "whole"])

chat = pytest.mark.parametrize("server", ["openai-chat"], indirect=True)


def failing(server: Server, script: list[Script], params: dict[str, Any], **settings: Any) -> ToolError:
    server.script = script
    with pytest.raises(ToolError) as caught:
        asyncio.run(ask(server, params, **settings))
    return caught.value


@streamed
def test_a_text_comes_back_with_what_it_cost(server: Server, stream: bool) -> None:
    server.script = [says("Hello ", "world")]
    reply = asyncio.run(ask(server, {}, model_stream=stream))
    cost = {"openai-chat": 0.0035, "openai": 0.0035, "anthropic": 0.0015}[server.protocol.name]
    usage = {"requests": 1, "inputTokens": 1_000, "outputTokens": 100}
    assert (reply.value, reply.usage) == ("Hello world", usage)
    assert reply.cost_usd == pytest.approx(cost)
    assert reply.model == named(server).replace("openai-chat", "openai")
    (request,) = server.requests
    assert request.path == server.protocol.path
    sent = request.headers.get("x-api-key") or request.headers["authorization"].removeprefix("Bearer ")
    assert sent == KEY


@streamed
def test_settings_reach_the_provider_and_not_the_prompt(server: Server, stream: bool) -> None:
    params = {"temperature": 0.25, "max_tokens": 50, "seed": 7, "tone": "dry"}
    reports: list[str] = []
    asyncio.run(ask(server, params, model_stream=stream, reports=reports))
    body = server.requests[0].body
    longest = {"openai-chat": "max_completion_tokens", "openai": "max_output_tokens", "anthropic": "max_tokens"}
    assert body["temperature"] == 0.25
    assert body[longest[server.protocol.name]] == 50
    assert body.get("seed") == (7 if server.protocol.name == "openai-chat" else None)
    assert reports[0].endswith("it takes no seed") == (server.protocol.name != "openai-chat")
    prompt = json.dumps(body)
    assert "dry" in prompt
    assert "max_tokens" not in prompt.replace('"max_tokens": 50', "")
    assert '\\"temperature' not in prompt


@streamed
def test_tokens_from_a_cache_are_counted_and_are_cheaper(server: Server, stream: bool) -> None:
    server.script = [says("x", cached=400)]
    reply = asyncio.run(ask(server, {}, model_stream=stream))
    assert reply.usage == {"requests": 1, "inputTokens": 1_000, "outputTokens": 100, "cacheReadTokens": 400}
    cost = {"openai-chat": 0.003, "openai": 0.003, "anthropic": 0.00114}[server.protocol.name]
    assert reply.cost_usd == pytest.approx(cost)


@streamed
def test_the_price_of_an_unknown_model_is_none_and_not_zero(server: Server, stream: bool) -> None:
    model = f"{server.protocol.name}:of-my-own"
    reply = asyncio.run(ask(server, {}, model=model, model_stream=stream))
    assert reply.usage == {"requests": 1, "inputTokens": 1_000, "outputTokens": 100}
    assert reply.cost_usd is None


@streamed
def test_tokens_that_nobody_counted_are_unknown_and_not_zero(server: Server, stream: bool) -> None:
    server.script = [says("x", tokens=None)]
    reply = asyncio.run(ask(server, {}, model_stream=stream))
    assert (reply.usage, reply.cost_usd) == ({"requests": 1}, None)


# -- failures ---------------------------------------------------------------------------------------------------------


@streamed
@pytest.mark.parametrize(
    ("script", "code", "said"),
    [
        (fails(401, f"wrong key {KEY}"), "refused", "_API_KEY"),
        (fails(402), "refused", "Refused by"),
        (fails(403), "refused", "_API_KEY"),
        (fails(400, "temperature is odd"), "invalid_input", "temperature is odd"),
        (fails(404), "invalid_input", "it has no model"),
        (fails(429), "rate_limited", "Too many requests to"),
        (fails(500), "unavailable", "500"),
        (fails(502, "<html>" * 5_000), "unavailable", "502"),
        (fails(503), "unavailable", "503"),
        (fails(529, "overloaded"), "unavailable", "overloaded"),
        (fails(408), "unavailable", "408"),
        (fails(409), "unavailable", "409"),
        (resets, "unavailable", "Connection reset by peer"),
        (cuts_the_body, "unavailable", "the connection broke"),
        (says("", ""), "tool_error", "an empty answer"),
        (says("", " \n"), "tool_error", "an empty answer"),
        (says("half", stop="content_filter"), "refused", "its content filter"),
    ],
    ids=["401", "402", "403", "400", "404", "429", "500", "502", "503", "529", "408", "409", "reset", "cut",
         "empty", "blank", "filter"],
)  # fmt: skip
def test_a_failure_has_its_code_after_one_request(
    server: Server, stream: bool, script: Script, code: str, said: str
) -> None:
    """An SDK that tries again by itself would hide attempts from the diary."""
    error = failing(server, [script], {}, model_stream=stream)
    assert (error.code, len(server.requests)) == (code, 1)
    assert said in error.message
    assert KEY not in error.message
    assert len(error.message) < 1_000


@streamed
@pytest.mark.parametrize("body", [b"{nope", b'{"a": 1}', b"<html>", b"", b"null"])
def test_a_body_that_is_no_answer_fails(server: Server, stream: bool, body: bytes) -> None:
    error = failing(server, [sends(body)], {}, model_stream=stream)
    assert error.code in ("unavailable", "tool_error")
    assert named(server).replace("openai-chat", "openai") in error.message
    assert len(server.requests) == 1
    if stream and error.code == "tool_error":
        assert "DAGBOK_MODEL_STREAM=false" in error.message


def test_a_wrong_key_says_which_variable_to_set(server: Server) -> None:
    key = "ANTHROPIC_API_KEY" if server.protocol.name == "anthropic" else "OPENAI_API_KEY"
    assert f"check {key}" in failing(server, [fails(401)], {}).message


@streamed
@pytest.mark.parametrize(("status", "code"), [(429, "rate_limited"), (503, "unavailable"), (529, "unavailable")])
def test_retry_after_reaches_the_engine(server: Server, stream: bool, status: int, code: str) -> None:
    error = failing(server, [fails(status, headers={"Retry-After": "7"})], {}, model_stream=stream)
    outcome = failure(error, Redactor({}))
    assert (outcome.code, outcome.retry_after_s, outcome.unknown) == (code, 7, False)


def test_retry_after_is_heard_in_seconds_and_as_a_date(server: Server) -> None:
    assert failing(server, [fails(429, headers={"Retry-After": "7"})], {}).retry_after_s == 7
    date = format_datetime(datetime.now(UTC) + timedelta(hours=1), usegmt=True)
    waits = failing(server, [fails(429, headers={"Retry-After": date})], {}).retry_after_s
    assert 3_000 < waits <= 3_600
    assert "retry_after_s" not in failing(server, [fails(429)], {}).fields


def test_nobody_at_the_address_asks_whether_it_runs(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_BASE_URL", "http://127.0.0.1:9/v1")
    monkeypatch.setenv("ANTHROPIC_BASE_URL", "http://user:secret@127.0.0.1:9")
    error = failing(server, [], {})
    assert error.code == "unavailable"
    assert "no connection to http://127.0.0.1:9" in error.message
    assert "is it running there?" in error.message
    assert "secret" not in error.message
    monkeypatch.setenv("OPENAI_BASE_URL", "http://no-such-host.invalid/v1")
    monkeypatch.setenv("ANTHROPIC_BASE_URL", "http://no-such-host.invalid")
    error = failing(server, [], {})
    assert error.code == "unavailable"
    assert "no connection to http://no-such-host.invalid" in error.message


@streamed
def test_an_answer_cut_by_the_limit_of_tokens_is_returned_and_counted(server: Server, stream: bool) -> None:
    server.script = [says("half", stop="length")]
    reply = asyncio.run(ask(server, {"max_tokens": 5}, model_stream=stream))
    assert reply.value == "half"
    assert reply.usage == {"requests": 1, "inputTokens": 1_000, "outputTokens": 100, "answersCut": 1}


@streamed
def test_what_a_failed_attempt_has_cost_is_not_lost(server: Server, stream: bool) -> None:
    error = failing(server, [says("")], {}, model_stream=stream)
    assert isinstance(error.charge, Charge)
    assert error.charge.usage == {"requests": 1, "inputTokens": 1_000, "outputTokens": 100}
    assert error.charge.cost_usd
    assert "charge" not in failing(server, [fails(500)], {}, model_stream=stream).fields


# -- answers in a shape -----------------------------------------------------------------------------------------------


@streamed
@pytest.mark.parametrize(
    ("schema", "pieces", "value"),
    [
        (OBJECT, ('{"n": ', "1}"), {"n": 1}),
        (LIST, ('{"answer": [1, ', "2]}"), [1, 2]),
        ({"type": "string"}, ('{"answer": "x"}',), "x"),
        ({"anyOf": [{"type": "null"}, OBJECT]}, ('{"answer": null}',), None),
    ],
    ids=["object", "list", "string", "either"],
)
def test_an_answer_in_a_shape_is_a_value(
    server: Server, stream: bool, schema: dict[str, Any], pieces: tuple[str, ...], value: object
) -> None:
    server.script = [says(*pieces)]
    reply = asyncio.run(ask(server, {"output_schema": schema}, model_stream=stream))
    assert reply.value == value
    body = json.dumps(server.requests[0].body)
    assert "integer" in body or schema == {"type": "string"}
    assert '"output_schema' not in body
    assert "output_schema\\" not in body


@streamed
def test_an_answer_out_of_shape_is_sent_back_once_with_what_is_wrong(server: Server, stream: bool) -> None:
    server.script = [says('{"n": "one"}'), says('{"n": 1}')]
    reply = asyncio.run(ask(server, {"output_schema": OBJECT}, model_stream=stream))
    assert reply.value == {"n": 1}
    assert reply.usage == {"requests": 2, "inputTokens": 2_000, "outputTokens": 200}
    first, second = (json.dumps(request.body) for request in server.requests)
    assert "is not of type" not in first
    assert "/n: 'one' is not of type 'integer'" in second
    # Each wants the call of a tool answered as such.
    answered = {"openai-chat": '"role": "tool"', "openai": "function_call_output", "anthropic": '"tool_result"'}
    assert answered[server.protocol.name] in second


@streamed
def test_an_answer_out_of_shape_twice_fails_and_both_are_paid_for(server: Server, stream: bool) -> None:
    error = failing(server, [says('{"n": "one"}'), says("{}")], {"output_schema": OBJECT}, model_stream=stream)
    assert error.code == "invalid_output"
    assert len(server.requests) == 2
    assert "'n' is a required property" in error.message
    assert error.message.endswith("It begins: {}")
    assert error.charge.usage["requests"] == 2
    assert error.charge.usage["outputTokens"] == 200
    assert error.charge.cost_usd > 0


def test_an_answer_cut_by_its_limit_is_not_asked_for_again(server: Server) -> None:
    error = failing(server, [says("{}", stop="length")], {"output_schema": OBJECT, "max_tokens": 5})
    assert (error.code, len(server.requests)) == ("invalid_output", 1)
    assert "raise `max_tokens`" in error.message


def test_a_failure_in_the_second_round_keeps_the_bill_of_the_first(server: Server) -> None:
    error = failing(server, [says("{}"), fails(500)], {"output_schema": OBJECT})
    assert error.code == "unavailable"
    assert error.charge.usage == {"requests": 1, "inputTokens": 1_000, "outputTokens": 100}


# -- servers of one's own ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("server", "name"),
    [("openai-chat", "openai"), ("openai-chat", "openai-chat"), ("openai", "openai-responses")],
    indirect=["server"],
)
@pytest.mark.parametrize("key", [None, KEY])
def test_a_base_url_leads_every_openai_name_to_that_server(
    server: Server, name: str, key: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_BASE_URL", "http://127.0.0.1:9/v1")
    monkeypatch.delenv("OPENAI_API_KEY")
    if key:
        monkeypatch.setenv("OPENAI_API_KEY", key)
    reply = asyncio.run(ask(server, {}, model=f"{name}:gpt-4o", model_base_url=server.url))
    assert (reply.value, reply.model) == ("done", "openai-compatible:gpt-4o")
    assert reply.cost_usd is None, "nobody knows what a server of one's own costs, whatever its models are called"
    assert reply.usage == {"requests": 1, "inputTokens": 1_000, "outputTokens": 100}
    assert server.requests[0].headers["authorization"] == f"Bearer {key or 'api-key-not-set'}"


@chat
def test_a_model_of_a_plan_goes_to_the_same_server_and_never_to_one_of_its_own(server: Server) -> None:
    params = {"model": "openai:other", "model_base_url": "http://127.0.0.1:9/v1", "base_url": "http://127.0.0.1:9/v1"}
    reply = asyncio.run(ask(server, params, model="openai:llama", model_base_url=server.url))
    assert (reply.value, reply.model) == ("done", "openai-compatible:other")


@pytest.mark.parametrize("server", ["anthropic"], indirect=True)
def test_a_base_url_is_not_for_models_of_other_providers(server: Server) -> None:
    params = {"model": "anthropic:claude-haiku-4-5"}
    reply = asyncio.run(ask(server, params, model="openai:llama", model_base_url="http://127.0.0.1:9/v1"))
    assert (reply.value, reply.model) == ("done", "anthropic:claude-haiku-4-5")


@chat
def test_ollama_is_asked_where_its_own_variable_says(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OLLAMA_BASE_URL", server.url)
    reply = asyncio.run(ask(server, {}, model="ollama:llama3"))
    assert (reply.value, reply.model, reply.cost_usd) == ("done", "ollama:llama3", None)


def test_a_missing_key_of_a_model_that_a_plan_names_says_what_to_set(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("OPENAI_API_KEY", "ANTHROPIC_API_KEY", "OPENAI_BASE_URL"):
        monkeypatch.delenv(name)
    with pytest.raises(Misconfigured, match=r"Set the `(OPENAI|ANTHROPIC)_API_KEY` environment variable") as caught:
        asyncio.run(ask(server, {"model": named(server)}, model="offline"))
    assert "Provider(api_key" not in caught.value.message
    assert server.requests == []


def test_the_answers_of_the_servers_are_told_apart(server: Server) -> None:
    """Two requests, two answers: a test that hears the default answer twice would prove nothing."""
    server.script = [says("one"), Answer(("two",))]
    assert [asyncio.run(ask(server, {})).value for _ in range(2)] == ["one", "two"]
