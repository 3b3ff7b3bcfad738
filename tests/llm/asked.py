"""One call of `inference`, put to a provider of the tests."""

from __future__ import annotations

from typing import Any

from dagbok.domain.call import Reply
from llm.calls import inference, inference_call
from llm.providers import Server


def named(server: Server) -> str:
    """Return a model that the price list knows."""
    return f"{server.protocol.name}:" + ("claude-haiku-4-5" if server.protocol.name == "anthropic" else "gpt-4o")


async def ask(server: Server, params: dict[str, Any], *, reports: list[str] | None = None, **settings: Any) -> Reply:
    tool = inference(settings.pop("model", None) or named(server), **settings)
    try:
        return await tool(inference_call({"prompt": "Go", **params}, reports=reports))
    finally:
        await tool.models.aclose()
