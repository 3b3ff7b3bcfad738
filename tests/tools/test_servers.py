"""The servers of these tests end without a word, whatever their connections were doing."""

from __future__ import annotations

import asyncio
import gc
import socket
from collections.abc import AsyncIterator

import pytest
from servers import LOOPBACK, serving


async def silence() -> AsyncIterator[bytes]:
    yield b"HTTP/1.1 200 X\r\n\r\n"
    await asyncio.Event().wait()


async def flood() -> AsyncIterator[bytes]:
    while True:
        yield b"x" * 2**20


@pytest.mark.parametrize("target", ["/silence", "/flood", None])
def test_a_server_that_ends_within_a_conversation_complains_of_nothing(
    target: str | None, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    with serving(lambda request: silence() if request.target == "/silence" else flood()) as server:
        client = socket.create_connection((LOOPBACK, server.port))
        if target:
            client.sendall(f"GET {target} HTTP/1.1\r\n\r\n".encode())
            assert client.recv(1)
    client.close()
    for _ in range(20):  # some are accepted as the server ends
        with serving(lambda request: silence()) as server:
            socket.create_connection((LOOPBACK, server.port)).close()
    gc.collect()  # a task or a generator that was left behind is told of here
    assert not caplog.records
    assert capfd.readouterr() == ("", "")
