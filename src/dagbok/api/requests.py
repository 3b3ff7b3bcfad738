"""Every request has an id: in its answer, in its problem, in each line that is logged within it; and a line of its own.

The id is the client's, if it sent a sane one, so that one id follows a call through several programs. It is bound in
the context of the request, which threads and tasks started from it inherit.
"""

from __future__ import annotations

import logging
import re
import time
from typing import Any, Final

import uuid_utils
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from structlog.contextvars import bound_contextvars

log = logging.getLogger("dagbok.http")
# Else Python would print a bare "http.request" for errors where nobody configured logging.
log.addHandler(logging.NullHandler())

HEADER: Final = "X-Request-Id"
_SANE: Final = re.compile(rb"[A-Za-z0-9._~+/=-]{1,128}")
_MAX_PATH_CHARS: Final = 500
_MAX_METHOD_CHARS: Final = 20


def id_of(scope: Scope) -> str | None:
    """Return the id of the request; None outside of `Requests`."""
    id: str | None = scope.get("state", {}).get("request_id")
    return id


def is_health(scope: Scope) -> bool:
    """Return whether the request asks after the health of the server."""
    path: str = scope["path"]
    return path == "/health" or path.startswith("/health/")


class Requests:
    """ASGI middleware around everything else that answers."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve a request under its id, and log it once it is answered."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        id = _given(scope) or str(uuid_utils.uuid7())
        scope = {**scope, "state": {**scope.get("state", {}), "request_id": id}}
        answer = _Answer(send, id)
        with bound_contextvars(requestId=id):
            try:
                await self._app(scope, receive, answer.send)
            except Exception:
                answer.broken = True
                raise
            finally:
                answer.log(scope)


class _Answer:
    """What is sent to a client, as far as it is logged."""

    def __init__(self, send: Send, id: str) -> None:
        self._send = send
        self._id = id
        self._began_s = time.perf_counter()
        self._status: int | None = None  # None: nobody was left to be told
        self._size = 0
        self.broken = False  # whether it ended before it was whole

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self._status = message["status"]
            message = {
                **message,
                "headers": [*message.get("headers", ()), (HEADER.lower().encode(), self._id.encode())],
            }
        elif message["type"] == "http.response.body":
            self._size += len(message.get("body", b""))
        await self._send(message)

    def log(self, scope: Scope) -> None:
        path = scope["path"]
        if self.broken or (self._status or 0) >= 500:
            level = logging.ERROR
        else:
            level = logging.DEBUG if is_health(scope) else logging.INFO
        fields: dict[str, Any] = {
            "method": scope["method"][:_MAX_METHOD_CHARS],
            "path": path[:_MAX_PATH_CHARS],
            "status": self._status,
            "durationMs": round((time.perf_counter() - self._began_s) * 1000, 1),
            "bytes": self._size,
            "requestId": self._id,
        }
        log.log(level, "http.request", extra=fields)


def _given(scope: Scope) -> str | None:
    found = [value for name, value in scope["headers"] if name == b"x-request-id"]
    return found[0].decode("ascii") if len(found) == 1 and _SANE.fullmatch(found[0]) else None
