"""What the headers of a request ask for, read as their RFCs say. Each function is linear in what it reads.

Preferences and conditions are wishes: what is malformed among them is passed over. An idempotency key is none: who
sends one counts on it, so it is taken exactly or refused.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

from starlette.datastructures import Headers
from starlette.exceptions import HTTPException

#: Nobody waits longer within one request: proxies give up, and a client can ask again.
MAX_WAIT_S: Final = 60

_WORD: Final = r"[!#$%&'*+.^_`|~0-9A-Za-z-]++"  # a `token` of RFC 9110 5.6.2
_PREFERENCE: Final = re.compile(rf'[ \t]*+({_WORD})[ \t]*+(?:=[ \t]*+({_WORD}|"[^"]*+"))?+[ \t]*+(?:;|$)')
_QUOTED_KEY: Final = re.compile(r'"((?:[^"\\]|\\["\\])*+)"')
_CODING: Final = re.compile(rf"[ \t]*+({_WORD})[ \t]*+(?:;[ \t]*+[qQ]=([01](?:\.[0-9]{{0,3}}+)?+))?+[ \t]*+")


def wait_s(headers: Headers) -> int:
    """Return the seconds of `Prefer: wait=N` (RFC 7240), at most `MAX_WAIT_S`; 0 where nobody wishes to wait.

    The first `wait` that can be read counts.
    """
    for header in headers.getlist("prefer"):
        for preference in _elements(header):
            found = _PREFERENCE.match(preference)
            if found and found[1].lower() == "wait":
                digits = (found[2] or "").strip('"')
                if digits.isascii() and digits.isdigit():
                    # Python refuses to read endless digits; three of them are enough.
                    return min(int(digits.lstrip("0")[:3] or 0), MAX_WAIT_S)
    return 0


def idempotency_key(headers: Headers) -> str | None:
    """Return the key of `Idempotency-Key`: a quoted string, as the draft says, or bare, as many send it.

    What a key is made of is judged by `dagbok.domain.idempotency.check_key`.

    Raises:
        HTTPException: 400, there are several, or the quotes do not match.
    """
    given = headers.getlist("idempotency-key")
    if not given:
        return None
    if len(given) > 1:
        raise HTTPException(400, f"The request has {len(given)} Idempotency-Key headers; it takes one.")
    key = given[0].strip(" \t")
    if not key.startswith('"'):
        return key
    found = _QUOTED_KEY.fullmatch(key)
    if found is None:
        raise HTTPException(400, 'The Idempotency-Key begins with a quote; it is "..." as a whole, or has none.')
    return re.sub(r'\\(["\\])', r"\1", found[1])


def accepts_gzip(headers: Headers) -> bool:
    """Return whether an answer may be gzipped, and the client would not rather have it as it is (RFC 9110 12.5.3)."""
    weights: dict[str, float] = {}
    for header in headers.getlist("accept-encoding"):
        for coding in header.split(","):
            if found := _CODING.fullmatch(coding):
                weights[found[1].lower().removeprefix("x-")] = float(found[2] or 1)
    weight = weights.get("gzip", weights.get("*", 0.0))
    return weight > 0 and weight >= weights.get("identity", 0.0)


def has_seen(headers: Headers, tag: str) -> bool:
    """Return whether `If-None-Match` names `tag` (or anything, `*`), by weak comparison (RFC 9110 13.1.2)."""
    given = headers.getlist("if-none-match")
    opaque = tag.removeprefix("W/")
    return any(opaque in re.findall(r'"[^"]*+"', header) or header.strip(" \t") == "*" for header in given)


def _elements(header: str) -> Iterator[str]:
    """Yield the elements of a list, whose commas may also stand within quotes. After an open quote nothing comes."""
    start, quoted, escaped = 0, False, False
    for position, char in enumerate(header):
        if escaped:
            escaped = False
        elif quoted and char == "\\":
            escaped = True
        elif char == '"':
            quoted = not quoted
        elif char == "," and not quoted:
            yield header[start:position]
            start = position + 1
    if not quoted:
        yield header[start:]
