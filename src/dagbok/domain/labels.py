"""Words from plans in pictures: one line, nothing that a reader of the picture would obey, cut to the room there is."""

from __future__ import annotations

import re
import unicodedata
from typing import Final

# C0, DEL, C1, what turns the direction of text around (https://trojansource.codes), what is no character at all.
_UNSAFE: Final = re.compile(
    "[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\uffff\ud800-\udfff]"
)


def plain(text: str) -> str:
    """Return text as one line without control characters."""
    return " ".join((text if text.isprintable() else _UNSAFE.sub(" ", text)).split())


def cut(text: str, room: int) -> str:
    """Return the beginning of text that fits so many columns, with "…" where it is cut; wide characters take two."""
    if len(text) <= room and text.isascii():
        return text
    used = 0
    kept = 0  # characters that leave a column for the ellipsis
    for at, char in enumerate(text):
        used += columns(char)
        if used > room or at >= 2 * room + 8:  # a base may carry any number of marks
            return f"{text[:kept].rstrip()}…"
        if used < room:
            kept = at + 1
    return text


def prose(text: str, room: int) -> str:
    """Return the beginning of a sentence as `cut` does, ending with a whole word where that costs little room."""
    found = cut(text, room)
    if found == text:
        return text
    kept = found.removesuffix("…")
    last = kept.rfind(" ")
    if text[len(kept) : len(kept) + 1] != " " and last > len(kept) * 2 // 3:
        kept = kept[:last]
    return f"{kept.rstrip(' ,;:-')}…"


def squeezed(text: str, room: int) -> str:
    """Return text with "…" in its middle where it does not fit: names that begin alike often end otherwise."""
    if cut(text, room) == text:
        return text
    head = cut(text, max(1, room // 2)).removesuffix("…")
    tail = ""
    left = room - 1 - sum(map(columns, head))
    for char in reversed(text):
        left -= columns(char)
        if left < 0 or len(tail) > 2 * room + 8:
            break
        tail = char + tail
    return f"{head}…{tail}"


def columns(char: str) -> int:
    """Return how many columns a character takes."""
    if char.isascii():
        return 1
    if unicodedata.combining(char) or unicodedata.category(char) in ("Mn", "Me", "Cf"):
        return 0
    return 2 if unicodedata.east_asian_width(char) in ("W", "F") else 1
