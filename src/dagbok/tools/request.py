"""One outgoing request: what callers may put into it, and what is left of it after a redirect. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Final, Self

from dagbok import __version__
from dagbok.errors import ToolError
from dagbok.tools import urls
from dagbok.tools.bodies import ENCODINGS
from dagbok.tools.urls import Url

MAX_HEADERS: Final = 100
MAX_HEADER_CHARS: Final = 32 * 1024  # of all names and values together
SAFE_METHODS: Final = frozenset({"GET", "HEAD", "OPTIONS"})  # RFC 9110, 9.2.1

_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]{1,200}")
_VALUE = re.compile(r"[\x21-\x7e]([\x20-\x7e\t]*[\x21-\x7e])?|")
_REDIRECTS = (301, 302, 303, 307, 308)

#: Of the connection, or of the framing of a message: a caller who could set them could smuggle a second request.
_OURS = frozenset({
    "accept-encoding", "connection", "content-length", "expect", "host", "http2-settings", "keep-alive",
    "proxy-authenticate", "proxy-authorization", "proxy-connection", "trailer", "transfer-encoding", "upgrade",
    "te",  # codespell:ignore te
})  # fmt: skip
#: What goes along to another origin.
_HARMLESS = frozenset(("accept", "accept-language", "user-agent"))


@dataclass(frozen=True, slots=True)
class Request:
    """A request that was checked."""

    method: str
    url: Url
    headers: tuple[tuple[str, str], ...]  #: the caller's, as written
    content: bytes | None

    @classmethod
    def read(cls, method: str, url: Url, headers: Mapping[str, str], content: bytes | None) -> Self:
        """Return a request.

        Raises:
            ToolError: `invalid_input`; the message shows no header's value.
        """
        method = method.upper()
        if not _TOKEN.fullmatch(method) or method in ("CONNECT", "TRACE"):
            raise ToolError(f"{method!r:.50} is no method that tools may send.", code="invalid_input")
        size = sum(len(name) + len(value) for name, value in headers.items())
        if len(headers) > MAX_HEADERS or size > MAX_HEADER_CHARS:
            message = f"The headers are too many: at most {MAX_HEADERS}, with {MAX_HEADER_CHARS:,} characters in all."
            raise ToolError(message, code="invalid_input")
        seen: set[str] = set()
        for name, value in headers.items():
            if why := _header_fault(name, value, seen):
                raise ToolError(f"The header {name!r:.100} cannot be sent: {why}.", code="invalid_input")
            seen.add(name.lower())
        return cls(method, url, tuple(headers.items()), content)

    def wire_headers(self) -> list[tuple[str, str]]:
        """Return all headers of the message."""
        given = {name.lower() for name, _ in self.headers}
        ours = [("Host", self.url.place), ("Accept-Encoding", ENCODINGS)]
        if "user-agent" not in given:
            ours.append(("User-Agent", f"dagbok/{__version__}"))
        if "accept" not in given:
            ours.append(("Accept", "*/*"))
        if self.content is not None or self.method in ("POST", "PUT", "PATCH"):
            ours.append(("Content-Length", str(len(self.content or b""))))
        return [*ours, *self.headers]

    def redirected(self, status: int, location: str) -> Request:
        """Return the request that follows an answer with `status` and `location` (Fetch standard, HTTP-redirect fetch).

        Raises:
            ToolError: `refused_redirect`.
        """
        try:
            url = urls.join(self.url, location)
        except ValueError as exc:
            raise self._refused(f"the redirect cannot be followed: {exc}") from exc
        if (self.url.scheme, url.scheme) == ("https", "http"):
            raise self._refused(f"it redirects to {url.shown}, which is not encrypted")
        after = replace(self, url=url)
        if (status == 303 and self.method != "HEAD") or (status in (301, 302) and self.method == "POST"):
            kept = tuple(pair for pair in self.headers if not pair[0].lower().startswith("content-"))
            after = replace(after, method="GET", content=None, headers=kept)
        if url.origin == self.url.origin:
            return after
        if after.content is not None or after.method not in SAFE_METHODS:
            raise self._refused(
                f"it redirects this {self.method} to {url.shown}, another origin, where nothing is sent by itself. "
                "Use that URL, if it is the right one"
            )
        return replace(after, headers=tuple(pair for pair in after.headers if pair[0].lower() in _HARMLESS))

    def _refused(self, why: str) -> ToolError:
        return ToolError(f"{self.url.shown}: {why}.", code="refused_redirect")


def headers_of(raw: Iterable[tuple[bytes, bytes]]) -> dict[str, str]:
    """Return the headers of an answer by lower-case name, repeated ones joined by a comma, without cookies."""
    found: dict[str, str] = {}
    for name, value in raw:
        key = name.decode("ascii").lower()
        text = _location(value) if key == "location" else value.decode("latin-1")
        if key not in ("set-cookie", "set-cookie2"):
            found[key] = f"{found[key]}, {text}" if key in found else text
    return found


def is_redirect(status: int, headers: Mapping[str, str]) -> bool:
    """Whether an answer with `status` leads to another URL."""
    return status in _REDIRECTS and "location" in headers


def _location(value: bytes) -> str:
    """Return a `Location` that may hold UTF-8 as it is, which servers send and browsers follow."""
    try:
        return value.decode()
    except UnicodeDecodeError:
        return value.decode("latin-1")


def _header_fault(name: str, value: str, seen: set[str]) -> str | None:
    if not _TOKEN.fullmatch(name):
        return "its name is none"
    if name.lower() in _OURS:
        return "it belongs to the connection"
    if name.lower() in seen:
        return "it is given twice"
    if not _VALUE.fullmatch(value):
        return "its value holds a line break or another character that is not printable ASCII, or a blank at an end"
    return None
