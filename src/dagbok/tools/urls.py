"""URLs that tools may fetch: strict where programs read them differently, so that what is checked is what is asked for.

No credentials, no backslash, no blank, no control character. The host is made canonical, so the `Host` header, the
certificate check, the address check and the connection all mean the same. Pure.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import quote, urlencode, urljoin

from dagbok.errors import ToolError
from dagbok.tools.addresses import canonical_host

MAX_CHARS: Final = 8192
_PORTS: Final = {"http": 80, "https": 443}

_URL = re.compile(r"(?P<scheme>[A-Za-z][A-Za-z0-9+.-]*):(?P<rest>//(?P<place>[^/?#]*)(?P<target>[^#]*))?.*", re.DOTALL)
_PLACE = re.compile(r"(?P<host>\[[^\[\]@]*\]|[^:@\[\]]*)(?::(?P<port>[0-9]{1,5}))?")
_UNFIT = re.compile(r"[\x00-\x20\x7f-\x9f\\\s\ud800-\udfff]")
_SAFE = "!$%&'()*+,/:;=?@[]~"  # beside letters, digits and "_.-": what a path or query holds as it is (RFC 3986)


@dataclass(frozen=True, slots=True)
class Url:
    """A URL that was read; the fragment is gone."""

    scheme: str  #: `http` or `https`
    host: str  #: canonical, IPv6 without brackets
    port: int
    target: str  #: path and query in ASCII, beginning with a slash

    @property
    def origin(self) -> tuple[str, str, int]:
        """What must be the same for credentials to go along."""
        return self.scheme, self.host, self.port

    @property
    def place(self) -> str:
        """The host, with the port where it is not the usual one: the `Host` header."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == _PORTS[self.scheme] else f"{host}:{self.port}"

    @property
    def shown(self) -> str:
        """The URL without its query, which may hold a secret: for messages."""
        return f"{self.scheme}://{self.place}{self.target.partition('?')[0]:.500}"

    def __str__(self) -> str:
        return f"{self.scheme}://{self.place}{self.target}"


def read(text: str, params: Mapping[str, Any] | None = None) -> Url:
    """Return the URL of `text`, with `params` put at the end of its query.

    Args:
        text: At most 8 KiB with the params.
        params: Text, numbers, booleans, or lists of these (the name is repeated); null is left out.

    Raises:
        ToolError: `invalid_input`; the message repeats nothing that may be a secret.
    """
    try:
        return _read(text, params or {})
    except ValueError as exc:
        raise ToolError(f"The URL cannot be used: {exc}.", code="invalid_input") from exc


def join(base: Url, location: str) -> Url:
    """Return where `location`, from an answer of `base`, leads.

    Raises:
        ValueError: It is no URL that could be followed; the message says why.
    """
    _check_characters(location)  # first: `urljoin` would silently drop some of them
    return _read(urljoin(str(base), location), {})


def form(fields: Mapping[str, Any]) -> str:
    """Return `fields` as a query or the body of a form; values as the params of `read`.

    Raises:
        ValueError: A value is something else.
    """
    return urlencode(list(_pairs(fields)))


def _read(text: str, params: Mapping[str, Any]) -> Url:
    _check_characters(text)
    found = _URL.fullmatch(text)
    if found is None:
        raise ValueError("it must begin with http:// or https://")
    scheme = found["scheme"].lower()
    if scheme not in _PORTS:
        raise ValueError(f"only http and https can be fetched, not {scheme[:30]}:")
    if found["rest"] is None:
        raise ValueError(f"after {scheme}: two slashes must come")
    if "@" in found["place"]:
        raise ValueError("it holds credentials; give them in `auth` or a header instead")
    place = _PLACE.fullmatch(found["place"])
    if place is None:
        raise ValueError("its host or port cannot be read")
    port = int(place["port"]) if place["port"] else _PORTS[scheme]
    if not 1 <= port <= 65_535:
        raise ValueError("its port is not a number from 1 to 65535")
    url = Url(scheme, canonical_host(place["host"]), port, _target(found["target"], params))
    if len(str(url)) > MAX_CHARS:
        raise ValueError(f"it has more than {MAX_CHARS:,} characters")
    return url


def _check_characters(text: str) -> None:
    if len(text) > MAX_CHARS:
        raise ValueError(f"it has more than {MAX_CHARS:,} characters")
    if found := _UNFIT.search(text):
        raise ValueError(f"it holds the character U+{ord(found[0]):04X}, which must be percent-encoded")


def _target(text: str, params: Mapping[str, Any]) -> str:
    path, question, query = text.partition("?")
    more = form(params)
    joined = "&".join(part for part in (query, more) if part)
    return quote(path or "/", safe=_SAFE) + (f"?{quote(joined, safe=_SAFE)}" if joined or question else "")


def _pairs(fields: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    for name, value in fields.items():
        for one in value if isinstance(value, list | tuple) else (value,):
            if isinstance(one, bool):
                yield name, "true" if one else "false"
            elif isinstance(one, str | int | float):
                yield name, str(one)
            elif one is not None:
                raise ValueError(f"the value of {name[:100]!r} must be text, a number, a boolean or a list of these")
