"""Model providers on this machine: HTTP servers that speak the protocols of OpenAI and Anthropic, and fail on command.

What is tested against them is the real client code of both, down to the socket. A server answers each request with the
next item of its script, and with "done" once that is used up; what it was sent stands in `requests`.
"""

from __future__ import annotations

import json
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from io import BytesIO
from typing import Any

KEY = "sk-a-secret-of-the-tests"
WAIT_S = 20.0  # for what must happen; only a failing test waits this long
Event = tuple[str, dict[str, Any]]


@dataclass
class Received:
    path: str
    headers: dict[str, str]
    body: dict[str, Any]


@dataclass
class Answer:
    """What a model says: `pieces` of text, or of the arguments of the tool it was offered."""

    pieces: tuple[str, ...] = ("do", "ne")
    stop: str = "stop"  # stop | length | content_filter, or "" for a stream that does not say
    tokens: tuple[int, int] | None = (1_000, 100)  # in and out; None: the server does not tell
    cached: int = 0  # of the tokens in
    cut: bool = False  # a stream is cut off where it would say that it is finished


Script = Answer | Callable[["Handler"], None]


def says(*pieces: str, **fields: Any) -> Answer:
    return Answer(pieces, **fields)


def fails(status: int, message: str = "no", headers: dict[str, str] | None = None, **error: Any) -> Script:
    def act(handler: Handler) -> None:
        body = {"type": "error", "error": {"type": "an_error", "message": message, **error}}
        handler.send(status, json.dumps(body).encode(), {"Content-Type": "application/json", **(headers or {})})

    return act


def sends(body: bytes, content_type: str = "application/json") -> Script:
    return lambda handler: handler.send(200, body, {"Content-Type": content_type})


def hangs(handler: Handler) -> None:
    """Say nothing until the client goes away."""
    handler.server.asked.set()
    handler.wait_for_the_end()


def hangs_in_the_stream(handler: Handler) -> None:
    handler.open_stream()
    for event in handler.server.protocol.stream(Answer(("wait ", "for it")), handler.received.body)[:-2]:
        handler.write_event(event)
    handler.server.asked.set()
    handler.wait_for_the_end()


def resets(handler: Handler) -> None:
    """Cut the connection before any header."""
    handler.reset()


def cuts_the_body(handler: Handler) -> None:
    handler.send_response(200)
    handler.send_header("Content-Type", "application/json")
    handler.send_header("Content-Length", "1000")
    handler.end_headers()
    handler.wfile.write(b'{"id": "x", ')
    handler.wfile.flush()
    handler.reset()


def talks_for_ever(handler: Handler) -> None:
    """Say the same again and again, as far as a test can tell without an end."""
    handler.open_stream()
    protocol = handler.server.protocol
    long = "x" * 100_000
    events = protocol.stream(Answer((long,)), handler.received.body)
    piece = next(event for event in events if long in json.dumps(event[1]) and "delta" in json.dumps(event))
    try:
        for event in events[: events.index(piece)]:
            handler.write_event(event)
        for _ in range(200):  # 20 MB; who listens to all of it fails, and does not hang
            handler.write_event(piece)
    except OSError:
        handler.server.left.set()
    handler.close_connection = True


class Chat:
    """OpenAI's chat completions, and those of every compatible server."""

    name, path = "openai-chat", "/v1/chat/completions"

    def whole(self, answer: Answer, asked: dict[str, Any]) -> dict[str, Any]:
        text = "".join(answer.pieces)
        message: dict[str, Any] = {"role": "assistant", "content": text}
        if asked.get("tools"):
            call = {"id": "call_1", "type": "function", "function": {"name": tool(asked), "arguments": text}}
            message = {"role": "assistant", "content": None, "tool_calls": [call]}
        choice = {"index": 0, "message": message, "finish_reason": answer.stop}
        usage = {"usage": self._usage(answer)} if answer.tokens else {}
        return {
            "id": "c",
            "object": "chat.completion",
            "created": 1,
            "model": asked["model"],
            "choices": [choice],
        } | usage

    def stream(self, answer: Answer, asked: dict[str, Any]) -> list[Event]:
        def chunk(delta: dict[str, Any], finish: str | None = None) -> Event:
            choice = {"index": 0, "delta": delta, "finish_reason": finish}
            head = {"id": "c", "object": "chat.completion.chunk", "created": 1, "model": asked["model"]}
            return "", head | {"choices": [choice]}

        events = [chunk({"role": "assistant", "content": ""})]
        for number, piece in enumerate(answer.pieces):
            if asked.get("tools"):
                call = {"index": 0, "function": {"arguments": piece}}
                if number == 0:
                    call = {"index": 0, "id": "call_1", "function": {"name": tool(asked), "arguments": piece}}
                events.append(chunk({"tool_calls": [call]}))
            else:
                events.append(chunk({"content": piece}))
        if answer.stop:
            events.append(chunk({}, answer.stop))
        if answer.tokens:
            head = {"id": "c", "object": "chat.completion.chunk", "created": 1, "model": asked["model"]}
            events.append(("", head | {"choices": [], "usage": self._usage(answer)}))
        return [*events, ("", {"[DONE]": True})]

    @staticmethod
    def _usage(answer: Answer) -> dict[str, Any]:
        assert answer.tokens
        given, written = answer.tokens
        details = {"prompt_tokens_details": {"cached_tokens": answer.cached}} if answer.cached else {}
        return {"prompt_tokens": given, "completion_tokens": written, "total_tokens": given + written} | details


class Responses:
    """OpenAI's responses, which `openai:` speaks."""

    name, path = "openai", "/v1/responses"

    def whole(self, answer: Answer, asked: dict[str, Any]) -> dict[str, Any]:
        body: dict[str, Any] = self._head(asked, "completed") | {"output": [self._item(answer, asked)]}
        if answer.tokens:
            given, written = answer.tokens
            body["usage"] = {
                "input_tokens": given,
                "output_tokens": written,
                "total_tokens": given + written,
                "input_tokens_details": {"cached_tokens": answer.cached},
                "output_tokens_details": {"reasoning_tokens": 0},
            }
        if answer.stop != "stop":
            reason = {"length": "max_output_tokens"}.get(answer.stop, answer.stop)
            body |= {"status": "incomplete", "incomplete_details": {"reason": reason}}
        return body

    def stream(self, answer: Answer, asked: dict[str, Any]) -> list[Event]:
        item, at = self._item(answer, asked), {"item_id": "item_1", "output_index": 0}
        text = "".join(answer.pieces)
        nothing: dict[str, Any] = {"arguments": ""} if item["type"] == "function_call" else {"content": []}
        opening = item | nothing
        events: list[dict[str, Any]] = [
            {"type": "response.created", "response": self._head(asked, "in_progress") | {"output": []}},
            {"type": "response.output_item.added", "output_index": 0, "item": opening | {"status": "in_progress"}},
        ]
        if item["type"] == "function_call":
            kind = "response.function_call_arguments"
            events += [{"type": f"{kind}.delta", "delta": piece, **at} for piece in answer.pieces]
            events.append({"type": f"{kind}.done", "arguments": text, "name": item["name"], **at})
        else:
            at["content_index"] = 0
            part = {"type": "output_text", "text": "", "annotations": []}
            events.append({"type": "response.content_part.added", "part": part, **at})
            delta = "response.output_text.delta"
            events += [{"type": delta, "delta": piece, "logprobs": [], **at} for piece in answer.pieces]
            events.append({"type": "response.output_text.done", "text": text, "logprobs": [], **at})
            events.append({"type": "response.content_part.done", "part": part | {"text": text}, **at})
        events.append({"type": "response.output_item.done", "output_index": 0, "item": item})
        if answer.stop:
            whole = self.whole(answer, asked)
            events.append({"type": f"response.{whole['status']}", "response": whole})
        return [(event["type"], event | {"sequence_number": number}) for number, event in enumerate(events)]

    @staticmethod
    def _head(asked: dict[str, Any], status: str) -> dict[str, Any]:
        head = {"id": "resp_1", "object": "response", "created_at": 1, "model": asked["model"], "status": status}
        return head | {"parallel_tool_calls": True, "tool_choice": "auto", "tools": [], "error": None}

    @staticmethod
    def _item(answer: Answer, asked: dict[str, Any]) -> dict[str, Any]:
        text = "".join(answer.pieces)
        if asked.get("tools"):
            call = {"type": "function_call", "id": "item_1", "call_id": "call_1", "name": tool(asked)}
            return call | {"arguments": text, "status": "completed"}
        part = {"type": "output_text", "text": text, "annotations": []}
        return {"type": "message", "id": "item_1", "role": "assistant", "status": "completed", "content": [part]}


_STOPS = {"stop": "end_turn", "length": "max_tokens", "content_filter": "refusal"}


class Messages:
    """Anthropic's messages."""

    name, path = "anthropic", "/v1/messages"

    def whole(self, answer: Answer, asked: dict[str, Any]) -> dict[str, Any]:
        text = "".join(answer.pieces)
        block: dict[str, Any] = {"type": "text", "text": text}
        if asked.get("tools"):
            block = {"type": "tool_use", "id": "toolu_1", "name": tool(asked), "input": json.loads(text)}
        head = {"id": "msg_1", "type": "message", "role": "assistant", "model": asked["model"], "content": [block]}
        return head | {"stop_reason": _STOPS[answer.stop], "stop_sequence": None, "usage": self._usage(answer)}

    def stream(self, answer: Answer, asked: dict[str, Any]) -> list[Event]:
        head = {"id": "msg_1", "type": "message", "role": "assistant", "model": asked["model"], "content": []}
        usage = self._usage(answer)
        start = head | {"stop_reason": None, "stop_sequence": None, "usage": usage | {"output_tokens": 1}}
        block: dict[str, Any] = {"type": "text", "text": ""}
        deltas = [{"type": "text_delta", "text": piece} for piece in answer.pieces]
        if asked.get("tools"):
            block = {"type": "tool_use", "id": "toolu_1", "name": tool(asked), "input": {}}
            deltas = [{"type": "input_json_delta", "partial_json": piece} for piece in answer.pieces]
        events: list[dict[str, Any]] = [
            {"type": "message_start", "message": start},
            {"type": "content_block_start", "index": 0, "content_block": block},
            *({"type": "content_block_delta", "index": 0, "delta": delta} for delta in deltas),
            {"type": "content_block_stop", "index": 0},
        ]
        if answer.stop:
            delta = {"stop_reason": _STOPS[answer.stop], "stop_sequence": None}
            events.append({"type": "message_delta", "delta": delta, "usage": {"output_tokens": usage["output_tokens"]}})
            events.append({"type": "message_stop"})
        return [(event["type"], event) for event in events]

    @staticmethod
    def _usage(answer: Answer) -> dict[str, Any]:
        given, written = answer.tokens or (0, 0)
        return {
            "input_tokens": given - answer.cached,  # this protocol counts what was cached beside the others
            "cache_read_input_tokens": answer.cached,
            "cache_creation_input_tokens": 0,
            "output_tokens": written,
        }


Protocol = Chat | Responses | Messages
PROTOCOLS: dict[str, Protocol] = {protocol.name: protocol for protocol in (Chat(), Responses(), Messages())}


def tool(asked: dict[str, Any]) -> str:
    """Return the name of the tool that a request offers."""
    (offered,) = asked["tools"]
    name = offered.get("name") or offered["function"]["name"]
    assert isinstance(name, str)
    return name


class Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False

    def __init__(self, protocol: Protocol) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.protocol = protocol
        self.script: list[Script] = []
        self.requests: list[Received] = []
        self.asked = threading.Event()  # a reply that hangs has begun
        self.left = threading.Event()  # the client of such a reply has gone
        self.open = 0  # connections
        self._change = threading.Condition()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/v1"

    def count(self, change: int) -> None:
        with self._change:
            self.open += change
            self._change.notify_all()

    def wait_until_nobody_is_connected(self) -> None:
        with self._change:
            assert self._change.wait_for(lambda: self.open == 0, WAIT_S), f"{self.open} connections are open"


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Server
    received: Received

    def setup(self) -> None:
        super().setup()
        self.server.count(1)

    def finish(self) -> None:
        try:
            super().finish()
        except OSError:  # a client that went away
            self.close_connection = True
        finally:
            self.server.count(-1)

    def handle(self) -> None:
        try:
            super().handle()
        except OSError:
            self.close_connection = True

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        headers = {name.lower(): value for name, value in self.headers.items()}
        self.received = Received(self.path, headers, body)
        self.server.requests.append(self.received)
        item = self.server.script.pop(0) if self.server.script else Answer()
        if not isinstance(item, Answer):
            item(self)
        elif body.get("stream"):
            self.open_stream()
            for event in self.server.protocol.stream(item, body)[: -2 if item.cut else None]:
                self.write_event(event)
            if item.cut:
                self.reset()
            else:
                self.wfile.write(b"0\r\n\r\n")
        else:
            whole = self.server.protocol.whole(item, body)
            self.send(200, json.dumps(whole).encode(), {"Content-Type": "application/json"})

    def send(self, status: int, body: bytes, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(body))}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def open_stream(self) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()

    def write_event(self, event: Event) -> None:
        name, data = event
        text = "[DONE]" if "[DONE]" in data else json.dumps(data)
        line = (f"event: {name}\n" if name else "") + f"data: {text}\n\n"
        self.wfile.write(f"{len(line.encode()):x}\r\n{line}\r\n".encode())
        self.wfile.flush()

    def wait_for_the_end(self) -> None:
        self.connection.settimeout(WAIT_S)
        with suppress(ConnectionResetError):  # it left before it had read all of ours
            assert self.connection.recv(1) == b""
        self.server.left.set()
        self.close_connection = True

    def reset(self) -> None:
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.close_connection = True
        self.wfile = BytesIO()
        self.connection.close()

    def log_message(self, *_: object) -> None:
        """Say nothing on the terminal."""


@contextmanager
def serving(protocol: Protocol) -> Iterator[Server]:
    server = Server(protocol)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
