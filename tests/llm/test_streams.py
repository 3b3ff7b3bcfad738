"""An answer that is heard while it is written: what is shown of it, and what becomes of one that breaks off."""

from __future__ import annotations

import asyncio

import pytest

from dagbok.errors import ToolError
from llm.asked import ask, named
from llm.calls import inference, inference_call
from llm.providers import WAIT_S, Server, hangs, hangs_in_the_stream, says, talks_for_ever


def test_progress_shows_how_much_and_what_was_written_last(server: Server) -> None:
    server.script = [says("The tide\n\n", "rises ", "x" * 200, " at noon")]
    reports: list[str] = []
    asyncio.run(ask(server, {}, reports=reports))
    model = named(server).replace("openai-chat", "openai")
    assert reports[0] == f"asking {model}"
    assert reports[2] == f"{model}: 16 characters: The tide rises"
    assert reports[-1] == f"{model}: 224 characters: {'x' * 92} at noon"


def test_without_streams_nothing_is_shown_and_the_answer_is_the_same(server: Server) -> None:
    reports: list[str] = []
    streamed = asyncio.run(ask(server, {}))
    whole = asyncio.run(ask(server, {}, model_stream=False, reports=reports))
    assert streamed == whole
    assert len(reports) == 1


def test_a_stream_that_is_cut_is_no_answer(server: Server) -> None:
    server.script = [says("half ", "an answer", cut=True)]
    reports: list[str] = []
    with pytest.raises(ToolError, match="the connection broke") as caught:
        asyncio.run(ask(server, {}, reports=reports))
    assert any("half" in report for report in reports), "it broke off in the middle and not before"
    assert caught.value.code == "unavailable"
    assert caught.value.charge.usage["requests"] == 1
    assert caught.value.charge.cost_usd is None, "the price of half an answer would pass for that of all"


def test_a_stream_that_just_ends_is_no_answer(server: Server) -> None:
    """The connection is closed in good order, but the provider never said that this was all."""
    server.script = [says("half ", "an answer", stop="")]
    with pytest.raises(ToolError, match="ended without saying that it is finished") as caught:
        asyncio.run(ask(server, {}))
    assert caught.value.code == "unavailable"
    assert caught.value.charge.cost_usd is None


def test_a_stream_that_never_ends_is_left(server: Server) -> None:
    server.script = [talks_for_ever]
    with pytest.raises(ToolError, match="sent more than 50,000 characters") as caught:
        asyncio.run(ask(server, {}, max_result_bytes=50_000))
    assert caught.value.code == "too_large"
    assert server.left.wait(WAIT_S), "the server still talks to us"


def test_a_whole_answer_that_is_too_large_fails(server: Server) -> None:
    server.script = [says("x" * 5_001)]
    with pytest.raises(ToolError, match="sent more than 5,000 characters"):
        asyncio.run(ask(server, {}, max_result_bytes=5_000, model_stream=False))


@pytest.mark.parametrize("script", [hangs, hangs_in_the_stream], ids=["before", "within"])
def test_cancelling_closes_the_connection(server: Server, script: object) -> None:
    """Whoever stops waiting must also stop paying."""
    server.script = [script]  # type: ignore[list-item]  # both are scripts

    async def run() -> None:
        tool, reports = inference(named(server)), list[str]()
        task = asyncio.ensure_future(tool(inference_call({"prompt": "Go"}, reports=reports)))
        assert await asyncio.to_thread(server.asked.wait, WAIT_S)
        while script is hangs_in_the_stream and not any("characters" in report for report in reports):
            await asyncio.sleep(0)  # cut off between headers and stream, the client itself forgets the connection
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert await asyncio.to_thread(server.left.wait, WAIT_S), "the connection is still open"
        await tool.models.aclose()

    asyncio.run(run())


def test_a_wait_for_data_ends_with_the_attempt(server: Server) -> None:
    """The engine cuts the attempt off anyway; this bounds a wait where nobody else would."""
    server.script = [hangs_in_the_stream]
    with pytest.raises(ToolError) as caught:
        asyncio.run(ask(server, {}, inference_timeout_s=0.2))
    assert caught.value.code == "timeout"
    assert server.left.wait(WAIT_S)


def test_the_bill_of_a_stream_that_broke_holds_what_the_provider_told_before(server: Server) -> None:
    server.script = [says("half", cut=True)]
    with pytest.raises(ToolError) as caught:
        asyncio.run(ask(server, {}))
    told = {"requests": 1, "inputTokens": 1_000, "outputTokens": 1}  # Anthropic opens with it, OpenAI ends with it
    assert caught.value.charge.usage == (told if server.protocol.name == "anthropic" else {"requests": 1})
