"""What the content of an answer is to a plan: JSON, text, or base64. Bounded, as the server chose every byte of it.

JSON that fits in 16 MiB can stand for 10,000,000 lists, which take 2 GB and hold the interpreter for seconds. So its
commas, colons and brackets are counted first, and beyond `MAX_TOKENS` it stays text.
"""

from __future__ import annotations

import asyncio
import base64
from dataclasses import replace
from typing import Final

from dagbok.domain import values
from dagbok.domain.values import Json
from dagbok.errors import BadInput
from dagbok.tools.egress import Fetched

MAX_TOKENS: Final = 500_000  # of JSON; ordinary rows have one per 10 bytes, so that is 5 MB of them
_LONG: Final = 16 * 1024  # bytes that take long enough to keep the loop waiting
_LOOKED_AT_BYTES: Final = 16 * 1024  # of an answer that is an error
_TEXT_ENDINGS: Final = ("/xml", "+xml", "/javascript", "/x-www-form-urlencoded")


async def value(answer: Fetched) -> Json:
    """Return the content as JSON, text or {"base64"}: the first of these that it claims to be and a diary can hold.

    JSON that no value can hold (NaN, 2**70) comes as text: an error would hide that the request has succeeded.
    """
    return await asyncio.to_thread(_value, answer) if len(answer.content) > _LONG else _value(answer)


def begin(answer: Fetched) -> str:
    """Return how the text of an answer begins, empty if it is none; whatever its size, 16 KiB of it are decoded."""
    end = _LOOKED_AT_BYTES
    if len(answer.content) > end:
        while end > _LOOKED_AT_BYTES - 4 and answer.content[end] & 0xC0 == 0x80:  # not within a character of UTF-8
            end -= 1
        answer = replace(answer, content=answer.content[:end])
    return answer.text() if _is_text(answer) else ""


def _value(answer: Fetched) -> Json:
    if not _is_text(answer) or "\0" in (text := answer.text()):
        return {"base64": base64.b64encode(answer.content).decode()}
    if _is_json(answer.media_type) and text and sum(map(text.count, ",:[{")) <= MAX_TOKENS:
        try:
            return values.parse(text)
        except BadInput:
            return text
    return text


def _is_json(media_type: str) -> bool:
    return media_type in ("application/json", "text/json") or media_type.endswith("+json")


def _is_text(answer: Fetched) -> bool:
    kind = answer.media_type
    if not kind:  # nothing is claimed: text if it is UTF-8
        try:
            answer.content.decode()
        except UnicodeDecodeError:
            return False
        return True
    return kind.startswith("text/") or _is_json(kind) or kind.endswith(_TEXT_ENDINGS)
