"""Secrets on their way out: the server gets the value, the diary the name, whatever the server says back."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

from servers import Received, reply, serving

from dagbok import Dagbok
from dagbok.wire import Execution

TOKEN = "tok-8Jf2kP0qLmZr7"
HOOK = "/services/T024BE7LD/B6RJ9A2HE/XmZ0qLr8Jf2kP0qLmZr7"


def run(sub_task: dict[str, Any], tmp_path: Path, **secrets: str) -> Execution:
    plan = {"original_request": "Call", "intent": {"primary": "Call"}, "sub_tasks": [{"id": "1", **sub_task}]}

    async def main() -> Execution:
        url = f"sqlite:///{tmp_path / 'diary.db'}"
        async with Dagbok(url, secrets=secrets, egress_allow=("127.0.0.1",)) as dagbok:
            return await dagbok.run(plan)

    execution = asyncio.run(main())
    stored = b"".join(path.read_bytes() for path in tmp_path.iterdir())
    for value in secrets.values():
        assert value.encode() not in stored
    return execution


def test_a_server_that_quotes_the_token_at_the_end_of_what_a_message_shows_leaves_none_of_it(tmp_path: Path) -> None:
    def respond(request: Received) -> bytes:
        quoted = request.headers["authorization"].encode()
        return reply(b"x" * 280 + b" " + quoted + b" is no token", status=401, content_type="text/plain")

    with serving(respond) as server:
        params = {"url": server.url_of("127.0.0.1", "/"), "auth": {"bearer": {"secret": "TOKEN"}}}
        execution = run({"tool_or_prompt": {"name": "http_request", "params": params}}, tmp_path, TOKEN=TOKEN)

    assert server.requests[0].headers["authorization"] == f"Bearer {TOKEN}"
    step = execution["1"]
    assert step.error_code == "refused"
    assert step.error is not None
    assert step.error.endswith("Bearer [secret TOKE")
    assert "tok-" not in step.error
    assert step.input["auth"] == {"bearer": {"secret": "TOKEN"}}


def test_basic_credentials_that_are_echoed_come_back_as_a_name(tmp_path: Path) -> None:
    def respond(request: Received) -> bytes:
        body = json.dumps({"headers": dict(request.headers), request.headers["authorization"]: 1}).encode()
        return reply(body, content_type="application/json")

    with serving(respond) as server:
        auth = {"basic": {"username": "ann", "password": {"secret": "PASSWORD"}}}
        params = {"url": server.url_of("127.0.0.1", "/"), "auth": auth}
        execution = run({"tool_or_prompt": {"name": "http_request", "params": params}}, tmp_path, PASSWORD=TOKEN)

    assert execution.status == "completed"
    assert "[secret PASSWORD]" in execution["1"].result["body"]["headers"]["authorization"]


def test_a_webhook_whose_url_is_the_secret_fails_without_showing_its_path(tmp_path: Path) -> None:
    with serving(lambda _: reply(b"no such hook", status=404, content_type="text/plain")) as server:
        url = server.url_of("127.0.0.1", f"{HOOK}?thread=7")
        params = {"url": {"secret": "HOOK_URL"}, "payload": {"text": "hello"}}
        execution = run({"tool_or_prompt": {"name": "send_webhook", "params": params}}, tmp_path, HOOK_URL=url)
        assert server.requests[0].target == f"{HOOK}?thread=7"

    step = execution["1"]
    assert step.error_code == "not_found"
    assert step.error is not None
    assert "[secret HOOK_URL]" in step.error
    assert HOOK not in repr(execution)
