from __future__ import annotations

from collections.abc import Iterator

import pytest

from llm.providers import KEY, PROTOCOLS, Server, serving


@pytest.fixture(params=PROTOCOLS)
def server(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    """A provider on this machine, once per protocol, to which the variables of its SDK lead.

    At its end every connection must have been closed by the client.
    """
    with serving(PROTOCOLS[request.param]) as running:
        monkeypatch.setenv("OPENAI_BASE_URL", running.url)
        monkeypatch.setenv("ANTHROPIC_BASE_URL", running.url.removesuffix("/v1"))
        monkeypatch.setenv("OPENAI_API_KEY", KEY)
        monkeypatch.setenv("ANTHROPIC_API_KEY", KEY)
        yield running
        running.wait_until_nobody_is_connected()
