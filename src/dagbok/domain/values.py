"""What a value is, for every layer: JSON that each database, client and model reads back as it was written.

A value is null, a boolean, a string, a finite number, a list, or an object with string keys. Integers fit 64 bits
(SQLite and PostgreSQL compute with those), floats are finite (RFC 8259 knows no NaN), strings hold no NUL (PostgreSQL
stores none) and no lone surrogate (UTF-8 encodes none), and nothing nests deeper than `MAX_DEPTH`. Whatever else comes
along is `not_json`, with a pointer to the place. From Python code, tuples count as lists, members of an `Enum` as their
value and a `UUID` as its text; other subclasses of those types do not, because their reader would not get them back.
Not noticed is an `orjson.Fragment`: its text is written as it is, and to look for one would walk every value.
"""

from __future__ import annotations

import enum
import json
import marshal
import math
import re
import uuid
from collections.abc import Iterator
from typing import Any, NewType

import orjson

from dagbok.errors import MalformedJson, NotJson, TooLarge

Json = Any  # a recursive alias costs mypy more than it finds; `encode` is what keeps the promise

#: The text of one value: compact UTF-8 JSON. What rows and the aggregate hold, so that a value is encoded once.
JsonText = NewType("JsonText", str)

MAX_DEPTH = 200
MIN_INTEGER, MAX_INTEGER = -(2**63), 2**63 - 1

# orjson would write these as something else than they are; with the options below it refuses them instead.
_STRICT = orjson.OPT_PASSTHROUGH_DATACLASS | orjson.OPT_PASSTHROUGH_DATETIME | orjson.OPT_PASSTHROUGH_SUBCLASS
# Every digit as "0" and all else as " ": a search for 19 of them is then one for plain bytes, 30 times as fast.
_DIGITS = bytes(ord("0") if chr(byte).isdigit() and byte < 128 else ord(" ") for byte in range(256))
_LONG = b"0" * 19
# How `marshal` writes a float that is none: all bits of the exponent set. Found elsewhere, it costs a walk.
_NO_NUMBER = re.compile(rb"[g\xe7].{6}[\xf0-\xff][\x7f\xff]", re.DOTALL)


def encode(value: Json, *, max_bytes: int | None = None) -> JsonText:
    """Return `value` as compact JSON text.

    Raises:
        NotJson: The value is outside the rules above; `pointer` names the place.
        TooLarge: The text has more than `max_bytes` bytes.
    """
    try:
        data = orjson.dumps(value, option=_STRICT)
    except (TypeError, ValueError, RecursionError) as exc:
        check(value)
        raise NotJson(f"The value cannot be written as JSON: {exc}", pointer="") from exc
    if max_bytes is not None and len(data) > max_bytes:
        raise TooLarge(
            f"The value has {len(data):,} bytes; at most {max_bytes:,} are kept.", limit=max_bytes, size=len(data)
        )
    if _may_break_a_rule(value, data):
        check(value)
    return JsonText(data.decode())


def text(value: Json) -> JsonText:
    """Return as compact JSON what `encode` took already, as a whole or as part of something; nothing is checked."""
    return JsonText(orjson.dumps(value, option=_STRICT).decode())


def _may_break_a_rule(value: Json, data: bytes) -> bool:
    """Whether `value`, which orjson wrote as `data`, may break a rule orjson does not know; no for nearly every value.

    All in C: walking the largest values takes Python seconds, and the event loop would stand still.
    """
    return (
        _may_be_inexact(data)
        or (b"null" in data and _may_hold_no_number(value))
        or (_has_many_levels(data) and _is_too_deep(value))
    )


def _may_be_inexact(data: bytes) -> bool:
    """Whether JSON may hold what orjson does not take as we do: a NUL, or an integer beyond 63 bits."""
    return b"\\u0000" in data or _may_hold_large_integer(data)


def _may_hold_large_integer(data: bytes) -> bool:
    """Whether JSON has 19 digits in a row that are no fraction, as those of 0.0012345678901234567 are."""
    digits = data.translate(_DIGITS)
    at = digits.find(_LONG)
    while at >= 0:
        if data[at - 1 : at] != b".":
            return True
        at = digits.find(_LONG, at + len(_LONG))
    return False


def _has_many_levels(data: bytes) -> bool:
    return data.count(b"[") + data.count(b"{") > MAX_DEPTH


def _may_hold_no_number(value: Json) -> bool:
    """Whether there may be a NaN or infinity, which orjson writes as null."""
    try:
        return _NO_NUMBER.search(marshal.dumps(value)) is not None
    except ValueError:  # what `marshal` does not know, such as an `Enum`
        return True


def _is_too_deep(value: Json) -> bool:
    """Whether a value that orjson can write nests deeper than `MAX_DEPTH`: so many levels more, and it cannot."""
    for _ in range(_ORJSON_DEPTH - MAX_DEPTH):
        value = [value]
    try:
        orjson.dumps(value, option=_STRICT)
    except TypeError:
        return True
    return False


def _deepest() -> int:
    """Return how many levels orjson writes at most."""
    value: list[Any] = []
    for depth in range(1, 2000):
        try:
            orjson.dumps(value)
        except TypeError:
            return depth - 1
        value = [value]
    raise AssertionError("orjson has no limit of depth any more; `_is_too_deep` needs another way")


_ORJSON_DEPTH = _deepest()


def size(text: str) -> int:
    """Return how many bytes `text` has in UTF-8."""
    return len(text) if text.isascii() else len(text.encode())


def canonical(value: Json) -> bytes:
    """Return the JSON of `value` with sorted keys: equal values, equal bytes."""
    return orjson.dumps(value, option=_STRICT | orjson.OPT_SORT_KEYS)


def decode(text: JsonText | str | bytes) -> Json:
    """Return the value of text that `encode` wrote."""
    return orjson.loads(text)


def parse(data: bytes | str) -> Json:
    """Return the value of JSON text from outside, checked by the rules above.

    Raises:
        MalformedJson: Not JSON (or not UTF-8); fields `line` and `column`, both from 1, where known.
        NotJson: JSON, but outside the rules; `pointer` names the place.
    """
    try:
        text = data if isinstance(data, bytes) else data.encode()
        if not _may_be_inexact(text):
            value = orjson.loads(text)
            if not (_has_many_levels(text) and _is_too_deep(value)):
                return value
    except ValueError:  # also of orjson: the standard parser says where, or takes it for what it is
        pass
    value = read(data)
    check(value)
    return value


def read(data: bytes | str) -> Json:
    """Return the value of JSON text from outside as the standard parser sees it; `faults` then names each odd place.

    The standard parser keeps 2**70, NaN and lone surrogates as they are; orjson would turn the first into a float.

    Raises:
        MalformedJson, NotJson: As `parse`; NotJson only for what no parser can hold (endless nesting or digits).
    """
    try:
        return json.loads(data)
    except json.JSONDecodeError as exc:
        message = f"Malformed JSON at line {exc.lineno}, column {exc.colno}: {exc.msg}."
        raise MalformedJson(message, line=exc.lineno, column=exc.colno) from exc
    except UnicodeDecodeError as exc:
        raise MalformedJson(f"The JSON is not UTF-8: byte {exc.start} cannot be read.") from exc
    except RecursionError as exc:
        raise NotJson(f"The JSON nests deeper than {MAX_DEPTH} levels.", pointer="") from exc
    except ValueError as exc:  # an integer of more digits than Python converts
        raise NotJson("The JSON holds an integer that does not fit 64 bits.", pointer="") from exc


def check(value: object) -> None:
    """Raise NotJson, with a pointer, if `value` is not a value as defined above."""
    for fault in faults(value):
        raise fault


def faults(value: object) -> Iterator[NotJson]:
    """Yield each place where `value` breaks the rules above, in no particular order."""
    stack: list[tuple[Any, _Path, int]] = [(value, None, 0)]
    while stack:
        item, path, depth = stack.pop()
        kind = type(item)  # exactly: a subclass may mean something else, and orjson refuses it
        if kind is str:
            if reason := _string_fault(item):
                yield _fault("string", path, f"has {reason}")
        elif kind is bool or item is None or kind is uuid.UUID:
            continue
        elif kind is int:
            if not MIN_INTEGER <= item <= MAX_INTEGER:
                yield _fault("value", path, "is an integer that does not fit 64 bits")
        elif kind is float:
            if not math.isfinite(item):
                yield _fault("value", path, f"is {item}, which JSON cannot write")
        elif isinstance(item, enum.Enum):
            stack.append((item.value, path, depth))
        elif kind not in (list, tuple, dict):
            yield _fault("value", path, f"has the type {kind.__name__}, which is no JSON type")
        elif depth >= MAX_DEPTH:
            yield _fault("value", path, f"nests deeper than {MAX_DEPTH} levels")
        elif kind is dict:
            for key, child in item.items():
                if type(key) is not str:
                    yield _fault("object", path, f"has a key of type {type(key).__name__}; keys are strings")
                elif reason := _string_fault(key):
                    yield _fault("object", path, f"has a key with {reason}")
                else:
                    stack.append((child, (path, key), depth + 1))
        else:
            stack.extend((child, (path, index), depth + 1) for index, child in enumerate(item))


def pointer_to(*parts: str | int) -> str:
    """Return the JSON pointer (RFC 6901) of a path, `""` for the whole document."""
    return "".join("/" + str(part).replace("~", "~0").replace("/", "~1") for part in parts)


def as_text(value: Json) -> str:
    """Return `value` as a person reads it: a string as it is, anything else as JSON."""
    return value if isinstance(value, str) else encode(value)


def clean(text: str, limit: int) -> str:
    """Return text from outside (an error message, say) as every database stores it, cut to `limit` characters."""
    if len(text) > limit:
        text = f"{text[: limit - 1]}…"
    if _string_fault(text):
        text = text.replace("\0", "\\0").encode("utf-8", "backslashreplace").decode()
    return text


def _string_fault(text: str) -> str | None:
    if "\0" in text:
        return "a NUL character"
    if not text.isascii() and any("\ud800" <= char <= "\udfff" for char in text):
        return "a lone surrogate"
    return None


#: A path as linked pairs (parent, part), so that walking down copies nothing.
_Path = tuple[Any, "str | int"] | None


def _fault(what: str, path: _Path, reason: str) -> NotJson:
    parts: list[str | int] = []
    while path is not None:
        path, part = path
        parts.append(part)
    pointer = pointer_to(*reversed(parts))
    return NotJson(f"The {what} at {pointer or 'the top'} {reason}.", pointer=pointer)
