"""Secrets of a plan: `{"secret": "NAME"}` stands for a value that only the tool of that call is given.

Two rules keep it so. What the plan itself says decides where a value goes: `references` reads the params as they are
written, never what results turned them into, so no tool, page or person can ask for a secret. And whatever comes back
passes a `Redactor` before it is cut, stored, shown or handed on: known values become `[secret NAME]`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final

from dagbok.domain import values
from dagbok.domain.plan import HUMAN, INFERENCE
from dagbok.domain.spellings import LONG_BYTES, compile_signs, spellings
from dagbok.domain.values import Json, JsonText
from dagbok.errors import ToolError

#: What a secret may be called.
NAME: Final = re.compile(r"[A-Z][A-Z0-9_]{0,99}")
#: A value with fewer characters would be found, and replaced, all over ordinary text.
MIN_CHARS: Final = 4

Path = tuple[str | int, ...]


def references(params: Mapping[str, Json]) -> Iterator[tuple[Path, str]]:
    """Yield path and name of every `{"secret": NAME}` below `params`, whether the name can be one or not.

    The params as a whole are none, though a tool may have a parameter called `secret`.
    """
    stack: list[tuple[Path, Any]] = [((key,), child) for key, child in params.items()]
    while stack:
        path, item = stack.pop()
        if isinstance(item, dict):
            if len(item) == 1 and isinstance(name := item.get("secret"), str):
                yield path, name
            else:
                stack.extend(((*path, key), child) for key, child in item.items())
        elif isinstance(item, list):
            stack.extend(((*path, index), child) for index, child in enumerate(item))


def may_have(tool: str) -> bool:
    """Whether a sub-task of this tool may be given secrets: a model's provider and a person would read them."""
    return tool not in (INFERENCE, HUMAN)


def fill(
    written: Mapping[str, Json],
    params: dict[str, Any],
    get: Callable[[str], str | None],
    *,
    before: Mapping[str, Json] | None = None,
) -> None:
    """Put the values of secrets into `params` where `written`, the same params as the plan has them, asks for them.

    Args:
        written: The params with references.
        params: The params to fill.
        get: Returns the value of a secret.
        before: What `written` was before somebody edited it with results in it; only what this asks for, too, is meant.

    Raises:
        ToolError: `unknown_secret`: a name without a value.
    """
    meant = None if before is None else set(references(before))
    for path, name in references(written):
        if not NAME.fullmatch(name) or (meant is not None and (path, name) not in meant):
            continue  # of a plan from before secrets, or of a result: an object like any other
        value = get(name)
        if value is None:
            raise ToolError(
                f"The secret {name!r} is not known to this process. {how_to_set(name)}", code="unknown_secret"
            )
        put(params, path, value)


def put(params: dict[str, Any], path: Path, value: Json) -> None:
    """Replace what stands at `path`."""
    holder: Any = params
    for part in path[:-1]:
        holder = holder[part]
    holder[path[-1]] = value


def how_to_set(name: str) -> str:
    """Return the sentence that says how a secret becomes known."""
    return f"Set DAGBOK_SECRET_{name}, or add it to the file of secrets, and start Dagbok anew."


class Redactor:
    """Finds the values of secrets, however they are spelled (`dagbok.domain.spellings`), and puts names in their place.

    Without secrets it costs nothing. Not found are values that were taken apart or encoded in yet another way.
    """

    __slots__ = ("_known", "_signless", "_signs", "names")

    def __init__(self, secrets: Mapping[str, str]) -> None:
        self.names = frozenset(secrets)
        found = {s.pattern: (s, name) for name in sorted(secrets, reverse=True) for s in spellings(secrets[name])}
        # The longest first: of a secret that contains another, nothing may be left.
        ordered = sorted(found.values(), key=lambda each: -each[0].length)
        self._known = [(spelling.sign, re.compile(spelling.pattern), name) for spelling, name in ordered]
        signs = {sign for sign, _, _ in self._known if sign}
        self._signs = compile_signs(signs) if signs else None
        self._signless = [pattern for sign, pattern, _ in self._known if not sign]

    def text(self, text: str) -> str:
        """Return `text` without values of secrets."""
        if self._known and self._suspects(text):
            for sign, pattern, name in self._known:
                if sign in text:
                    text = pattern.sub(marker(name), text)
        return text

    def json(self, text: JsonText, *, max_bytes: int | None = None) -> JsonText:
        """Return encoded JSON without values of secrets, in strings, keys and numbers. Raises TooLarge."""
        if not self._known or not self._suspects(text):
            return text
        before = values.decode(text)
        after = self.value(before)
        return text if after is before else values.encode(after, max_bytes=max_bytes)

    def value(self, value: Json) -> Json:
        """Return `value` without values of secrets; `value` itself if there are none."""
        if not self._known:
            return value
        if isinstance(value, str):
            return self.text(value)
        if isinstance(value, dict):
            return self._object(value)
        if isinstance(value, list | tuple):
            items = [self.value(item) for item in value]
            return value if all(map(_same, items, value)) else items
        if type(value) in (int, float):
            name = self._number(value)
            return value if name is None else marker(name)
        return value

    def find(self, value: Json) -> Iterator[tuple[Path, str]]:
        """Yield each place of a secret's value in `value`, with the name; what a key holds is at its object."""
        # One search over all of it is a tenth of the work of looking at each place.
        if not self._known or not self._suspects(values.encode(value)):
            return
        stack: list[tuple[Path, Any]] = [((), value)]
        while stack:
            path, item = stack.pop()
            if isinstance(item, dict):
                yield from ((path, name) for key in item if (name := self._held(key)))
                stack.extend(((*path, self.text(key)), child) for key, child in item.items())
            elif isinstance(item, list):
                stack.extend(((*path, index), child) for index, child in enumerate(item))
            elif isinstance(item, str):
                if name := self._held(item):
                    yield path, name
            elif type(item) in (int, float) and (name := self._number(item)):
                yield path, name

    def _object(self, value: dict[str, Any]) -> dict[str, Any]:
        items: dict[str, Any] = {}
        last: dict[str, int] = {}  # of each name; to count from 1 each time would be quadratic
        for key, child in value.items():
            clean = name = self.text(key) if isinstance(key, str) else key
            while name in items:  # two spellings of one secret
                last[clean] = last.get(clean, 1) + 1
                name = f"{clean} ({last[clean]})"
            items[name] = self.value(child)
        unchanged = all(a is b for a, b in zip(items, value, strict=True)) and all(
            map(_same, items.values(), value.values())
        )
        return value if unchanged else items

    def _suspects(self, text: str) -> bool:
        """Whether there may be a value in `text`; said of nearly every text without one: no."""
        found = self._signs is not None and self._signs.search(text) is not None
        return found or any(pattern.search(text) for pattern in self._signless)

    def _held(self, text: str) -> str | None:
        if not self._suspects(text):
            return None
        return next((name for sign, pattern, name in self._known if sign in text and pattern.search(text)), None)

    def _number(self, number: float) -> str | None:
        """Return whose value a number is, be it as a float or with another sign, or has within it if that is long.

        A few digits of a longer number are nobody's: a price, a time, a count.
        """
        text = str(number)
        if not self._suspects(text):
            return None
        whole = (text, text.removeprefix("-").removesuffix(".0"))
        for sign, pattern, name in self._known:
            if any(map(pattern.fullmatch, whole)) or (len(sign) >= LONG_BYTES and pattern.search(text)):
                return name
        return None


def marker(name: str) -> str:
    """Return what stands in the place of a secret's value."""
    return f"[secret {name}]"


def _same(one: object, other: object) -> bool:
    return one is other
