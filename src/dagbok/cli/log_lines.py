"""How a record becomes a line: one JSON object for machines, or a readable one for people; harmless and bounded.

`structlog` renders the records of the standard library, ours and those of other libraries alike. Strings are cleaned of
all that a terminal would obey, whatever the rendering: JSON is shown on terminals, too.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import lru_cache
from typing import Any, Final

import orjson
from pydantic.alias_generators import to_camel
from structlog.dev import ConsoleRenderer, plain_traceback
from structlog.stdlib import ExtraAdder, ProcessorFormatter

from dagbok import views
from dagbok.cli.terminal import clean, clean_json, line

#: Of one line.
MAX_LINE_BYTES: Final = 16 * 1024
_MAX_FIELDS: Final = 64
# A line too long is made anew with its strings cut to so many characters, until it fits.
_CUTS: Final = (4_000, 1_000, 200, 50)
#: Where the log speaks of itself.
LOGGER: Final = "dagbok.log"
# What `ConsoleRenderer` writes below a line.
_BLOCKS: Final = ("exception", "stack")
_OWN: Final = ("time", "level", "logger", "event")
_CLEAN: Final = ("time", "level")  # nobody else has a say in them

Fields = dict[str, Any]
Redact = Callable[[str], str]


def formatter(*, text: bool, colors: bool, redact: Redact) -> logging.Formatter:
    """Return what makes lines of records whose arguments are merged and whose exceptions are text (`exception`).

    Args:
        text: Whether for people; else JSON.
        colors: Of the text.
        redact: Applied to each string of a record before anything is cut; never to numbers, nor to a finished line,
            which would not be JSON any more.
    """
    render = _Text(colors=colors) if text else _json
    return _Formatter(foreign_pre_chain=[ExtraAdder()], processors=[_ordered, _Bounded(render, redact)])


class _Formatter(ProcessorFormatter):
    """Runs the same chain, but never raises, and makes no copy of the record for others, which costs as much."""

    def format(self, record: logging.LogRecord) -> str:
        line: Any = {"_record": record, "_from_structlog": False}
        try:
            for process in (*(self.foreign_pre_chain or ()), *self.processors):
                line = process(self.logger, "", line)
        except Exception as exc:  # of `redact`, say; nothing of the record may be shown then
            words = f"a line of {record.name} cannot be shown: {type(exc).__name__}"
            line = _json(
                {"time": views.iso(int(record.created * 1000)), "level": "error", "logger": LOGGER, "event": words}
            )
        return str(line)


def _ordered(_: Any, __: str, found: Any) -> Fields:
    """Return our four fields first, then those of the record, named as in the API."""
    record: logging.LogRecord = found.pop("_record")
    own = {
        "time": views.iso(int(record.created * 1000)),
        "level": record.levelname.lower(),
        "logger": clean(record.name),
        "event": clean(str(record.msg)),
    }
    found.pop("_from_structlog")
    for name, value in found.items():
        own.setdefault(_field(name), clean(value) if isinstance(value, str) else value)
    return own


@lru_cache(1_000)
def _field(name: str) -> str:
    return clean(to_camel(name))


class _Bounded:
    """Redacts, renders, and cuts what makes a line too long."""

    def __init__(self, render: Callable[[Fields], str], redact: Redact) -> None:
        self._render = render
        self._redact = redact

    def __call__(self, _: Any, __: str, fields: Any) -> str:
        fields = {
            name if name in _OWN else self._redact(name): value if name in _CLEAN else self._without(value)
            for name, value in fields.items()
        }
        text = self._render(fields)
        for limit in _CUTS:
            if _fits(text):
                break
            text = self._render(
                {name[:limit]: self._cut(name, fields[name], limit) for name in [*fields][:_MAX_FIELDS]}
            )
        if not _fits(text):
            text = self._render({name: self._cut(name, fields[name], _CUTS[-1]) for name in _OWN})
        return text

    def _without(self, value: Any) -> Any:
        """Return a field without what nobody may read; its numbers and its form stay."""
        if value is None or isinstance(value, int | float):
            return value
        return self._redact(value) if isinstance(value, str) else self._walk(orjson.loads(_dumps(value)))

    def _walk(self, value: Any) -> Any:
        """Do so for what JSON holds, which is not endless."""
        if isinstance(value, dict):
            return {self._redact(name): self._walk(item) for name, item in value.items()}
        if isinstance(value, list):
            return [self._walk(item) for item in value]
        return self._redact(value) if isinstance(value, str) else value

    @staticmethod
    def _cut(name: str, value: Any, limit: int) -> Any:
        if value is None or isinstance(value, int | float):
            return value
        text = clean(value if isinstance(value, str) else _dumps(value))
        if len(text) <= limit:
            return text
        return both_ends(text, limit) if name == "exception" else f"{text[:limit]}…"


def both_ends(text: str, limit: int) -> str:
    """Return a traceback cut to `limit` characters: where it began, and what it was."""
    return text if len(text) <= limit else f"{text[: limit // 4]}\n  ...\n{text[-limit // 2 :]}"


def _fits(text: str) -> bool:
    return len(text) * 4 <= MAX_LINE_BYTES or len(text.encode(errors="backslashreplace")) <= MAX_LINE_BYTES


def _json(fields: Fields) -> str:
    return clean_json(_dumps(fields))


class _Text:
    def __init__(self, *, colors: bool) -> None:
        self._render = ConsoleRenderer(
            colors=colors, sort_keys=False, timestamp_key="time", exception_formatter=plain_traceback
        )

    def __call__(self, fields: Fields) -> str:
        shown = {name: _block(value) if name in _BLOCKS else _words(value) for name, value in fields.items()}
        return self._render(None, "", {line(name): value for name, value in shown.items() if value is not None})


def _block(value: Any) -> str | None:
    """Return what the renderer puts below the line, moved to the right: none of it looks like a line of its own."""
    if value is None:
        return None
    return "  " + (value if isinstance(value, str) else _dumps(value)).replace("\n", "\n  ")


def _words(value: Any) -> Any:
    if isinstance(value, str):
        return line(value, MAX_LINE_BYTES)
    return value if value is None or isinstance(value, int | float) else line(_dumps(value), MAX_LINE_BYTES)


def _dumps(value: Any) -> str:
    try:
        return orjson.dumps(value, default=_shown).decode()
    except TypeError:  # lone surrogates, integers beyond 64 bits, names that are no text, circles
        return orjson.dumps(_plain(value)).decode()


def _plain(value: Any) -> Any:
    """Return what JSON can hold of a value: names and strings as text, the rest as Python shows it."""
    if type(value) is dict:
        return {_plain(str(name)): _plain_item(item) for name, item in value.items()}
    return _plain_item(value)


def _plain_item(value: Any) -> Any:
    if value is None or isinstance(value, bool | float) or (isinstance(value, int) and -(2**63) <= value < 2**64):
        return value
    return (value if isinstance(value, str) else _shown(value)).encode(errors="backslashreplace").decode()


def _shown(value: Any) -> str:
    try:
        return str(value)
    except Exception as exc:  # it is somebody else's `__str__`
        return f"<{type(value).__name__}, which cannot be shown: {type(exc).__name__}>"
