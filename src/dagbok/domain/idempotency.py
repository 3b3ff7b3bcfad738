"""Idempotency keys: a client's own name for a request, so that asking once more is the same request, not a second one.

A key belongs to the request it first came with. Which that was tells its hash, over what is asked and not over how it
is written: the order of keys, blanks, and a plan with or without an envelope make no difference.
Source: draft-ietf-httpapi-idempotency-key-header.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Final

from dagbok.domain import values
from dagbok.domain.values import Json, clean
from dagbok.errors import BadInput, NotJson

MAX_KEY_CHARS: Final = 255


def check_key(key: str) -> None:
    """Raise BadInput unless `key` is 1 to 255 visible ASCII characters."""
    if not key:
        raise BadInput("The idempotency key is empty; it is 1 to 255 visible ASCII characters, such as a UUID.")
    if len(key) > MAX_KEY_CHARS:
        raise BadInput(f"The idempotency key has {len(key):,} characters; at most {MAX_KEY_CHARS} are accepted.")
    if odd := next((char for char in key if not "!" <= char <= "~"), None):
        shown = clean(repr(odd), 20)
        raise BadInput(f"The idempotency key holds {shown}; it is made of visible ASCII characters, such as a UUID.")


def request_hash(operation: str, asked: Mapping[str, Json]) -> str | None:
    """Return what tells a request from others, SHA-256 in hex; None for what is no JSON and so was never stored.

    1 and 1.0 are two requests: JSON calls them one number, but a tool can tell them apart.
    """
    try:
        for part in asked.values():  # each by itself, as it is stored: what is around them adds no depth
            values.encode(part)
    except NotJson:  # the check of the plan names the place; the canonical form would have NaN as null
        return None
    return hashlib.sha256(values.canonical([operation, asked])).hexdigest()
