r"""How a text may spell a secret: as regular expressions that know the encodings text goes through on its way.

A value comes back escaped in JSON (inside JSON, inside an error), percent-encoded in a URL, as HTML, in a Python
`repr`, in base64 within a header, or in hex. Letters and digits are the same in all but the last two, so each other
character is written as a choice of its spellings, which also finds mixtures of them; backslashes may have been doubled
any number of times up to 16. What stays the same is the `sign`: a plain text that each match contains, for a fast
search that rules out nearly everything.

Every quantifier over text is bounded or possessive: the text is anybody's, and no text may cost more than linear time.
"""

from __future__ import annotations

import html.entities
import re
from base64 import b64encode
from collections.abc import Iterable, Iterator
from typing import NamedTuple

#: Values (and lines of values) from this size on are also looked for in base64 and hex, or by themselves: below it,
#: what is left of them is found in ordinary text.
LONG_BYTES = 8
#: The shortest sign that is worth a search of its own.
SIGN_CHARS = 4

_TOKEN = re.compile(r"\\+|\w+|.", re.ASCII | re.DOTALL)
_PLAIN = re.compile(r"\w+", re.ASCII)
_PEM_BOUNDARY = re.compile(r"-----(?:BEGIN|END) [A-Z0-9 ]+-----")
_URL = re.compile(
    r"[A-Za-z][A-Za-z0-9+.-]*+://(?:(?P<user>[^/?#@]*+)@)?[^/?#]*+(?P<path>[^?#]*+)(?:\?(?P<query>[^#]*+))?(?:#.*)?",
    re.DOTALL,
)
_TOKEN_CHARS = 16  # of a segment of a path, from which on it is taken for a key
_LETTERS = {"\n": "n", "\r": "r", "\t": "t", "\b": "b", "\f": "f", "\v": "v", "\a": "a"}
_SLASHES = r"\\{1,31}+"  # what escaping puts before a character, five times over


class Spelling(NamedTuple):
    """One way to find a value."""

    pattern: str  # a regular expression without groups that capture
    sign: str  # part of every text that matches; "" if there is none worth a search
    length: int  # of what it spells, in characters: of two that match, the longer is meant


def spellings(value: str) -> Iterator[Spelling]:
    """Yield all that `value` is looked for by: itself, the parts of it that tell enough, its base64 and its hex."""
    value = value.strip()
    yield _written(value)
    for part in sorted({part for part in _parts(value) if len(part) >= LONG_BYTES} - {value}):
        yield _written(part)
    data = value.encode()
    if len(data) >= LONG_BYTES:
        yield from _base64(data)
        for digits in dict.fromkeys((data.hex(), data.hex().upper())):
            yield Spelling(digits, digits, len(digits))


def _parts(value: str) -> Iterator[str]:
    """Yield the lines of a value, or what is secret of a URL: messages show URLs without their query."""
    if len(lines := value.splitlines()) > 1:
        # The boundaries of a PEM file are the same in all of them.
        yield from (line.strip() for line in lines if not _PEM_BOUNDARY.fullmatch(line.strip()))
    elif found := _URL.fullmatch(value):
        yield (found["user"] or "").partition(":")[2]
        yield from (pair.partition("=")[2] for pair in (found["query"] or "").split("&"))
        # That of a webhook; "/production" is no secret, and would be hidden everywhere.
        if any(len(segment) >= _TOKEN_CHARS for segment in found["path"].split("/")):
            yield found["path"]


def compile_signs(signs: Iterable[str]) -> re.Pattern[str]:
    """Return a pattern that finds any of `signs`, or what looks like one.

    A search skips quickly what no alternative begins with. So each sign is looked for from one of its inner
    characters on, chosen such that few and rare characters are enough for all of them.
    """
    left = set(signs)
    starts: dict[str, dict[str, str]] = {}  # by first character: the sign, and its part from there on
    for sign in left:
        for at in range(len(sign) - min(len(sign), 6) + 1):
            starts.setdefault(sign[at], {}).setdefault(sign, sign[at : at + 8])
    branches: list[str] = []
    while left:
        best = max(sorted(starts), key=lambda first: len(left & starts[first].keys()) / _frequency(first))
        tails = {starts[best][sign][1:] for sign in left & starts[best].keys()}
        branches.append(f"{best}(?:{'|'.join(sorted(tails))})")
        left -= starts[best].keys()
    return re.compile("|".join(branches))


def _frequency(char: str) -> int:
    """Return about how often `char` is met in JSON, relative to the rarest."""
    return 8 if char in "etaoinsrhldcu" else 3 if char.islower() or char in "012_" else 1


def _written(text: str) -> Spelling:
    parts: list[str] = []
    escape = _SLASHES
    for token in _TOKEN.findall(text):
        if token[0] == "\\":
            parts.append(_backslashes(len(token)))
        elif _PLAIN.fullmatch(token):
            parts.append(token)
        else:
            parts.append(_character(token, escape=escape))
        # Backslashes of the value take those of an escape that follows along.
        escape = r"\\{0,31}+" if token[0] == "\\" else _SLASHES
    return Spelling("".join(parts), _sign(text), len(text))


def _backslashes(count: int) -> str:
    encoded = f"(?:{_percent(chr(92))}|&(?:amp;){{0,3}}(?:#0{{0,5}}92|#[xX]0{{0,5}}5[cC]);){{{count}}}"
    return rf"(?:{encoded}|\\{{{count},{16 * count}}}+)"


def _character(char: str, *, escape: str) -> str:
    code = ord(char)
    ways = [(r"\\{0,31}+" if char.isascii() else "") + re.escape(char)]
    ways.append(f"{escape}(?i:{'|'.join(_codes(code, char.encode()))})")
    ways.append(_percent(char))
    names = "".join(f"|{name}" for name in (html.entities.codepoint2name.get(code), "apos" * (char == "'")) if name)
    ways.append(f"&(?:amp;){{0,3}}(?:#0{{0,5}}{code}|#[xX]0{{0,5}}(?i:{code:x}){names});")
    if char in _LETTERS:
        ways.append(escape + _LETTERS[char])
    if char == "\n":  # of another system, or joined into one line
        ways += ["\r\n", _percent("\r\n"), rf"{escape}r\\{{1,31}}+n", " "]
    if char == " ":
        ways += [r"\+", _percent("+")]
    if char in "~/":  # of a JSON pointer
        ways.append("~0" if char == "~" else "~1")
    return f"(?:{'|'.join(ways)})"


def _codes(code: int, data: bytes) -> Iterator[str]:
    """Yield the numbers by which escapes name a character: by its code point, and by its bytes."""
    if code > 0xFFFF:
        high, low = 0xD800 + (code - 0x10000 >> 10), 0xDC00 + (code - 0x10000 & 0x3FF)
        yield from (f"u{high:04x}{_SLASHES}u{low:04x}", f"u{code:08x}")
    else:
        yield f"u{code:04x}"
    if code <= 0xFF:
        yield f"x{code:02x}"
    if len(data) > 1:
        yield _SLASHES.join(f"x{byte:02x}" for byte in data)


def _percent(text: str) -> str:
    """Return the percent-encoding of `text`, itself encoded up to three times more."""
    return "".join(f"%(?:25){{0,3}}(?i:{byte:02x})" for byte in text.encode())


def _base64(data: bytes) -> Iterator[Spelling]:
    """Yield the base64 of `data`, alone or inside a longer text: what its bytes decide, at each of three offsets."""
    for offset, first in enumerate((0, 2, 3)):
        encoded = b64encode(bytes(offset) + data).decode()
        end = (offset + len(data)) * 8 // 6
        middle = encoded[first:end]
        pattern = middle.replace("+", "(?:[+-]|%2[bB])").replace("/", r"(?:\\{0,31}+/|_|%2[fF])")
        padded = encoded[end : end + 1]  # the bits left over, if it ends here
        if padded:
            pattern += f"(?:{_written(padded).pattern}(?:=|%3[dD])++)?"
        yield Spelling(pattern, _sign(re.sub(r"[+/]", " ", middle)), len(middle))


def _sign(text: str) -> str:
    longest = max(_PLAIN.findall(text), key=len, default="")
    return longest if len(longest) >= SIGN_CHARS else ""
