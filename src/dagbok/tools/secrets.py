"""Where secrets come from: `DAGBOK_SECRET_NAME` of the environment, a file, or the program itself; read once, at start.

A fault is told by the secret's name or the line of the file, never with a value. A `Vault` shows no value when it is
printed, and hides values in what the package logs (`guard`).
"""

from __future__ import annotations

import json
import logging
import os
import stat
from collections.abc import Callable, Iterable, Mapping, MutableMapping
from io import StringIO
from pathlib import Path
from typing import Any, Final

from dotenv.parser import parse_stream

from dagbok.domain.secrets import MIN_CHARS, NAME, Redactor, marker
from dagbok.domain.values import check
from dagbok.errors import Misconfigured, NotJson
from dagbok.settings import Settings

PREFIX: Final = "DAGBOK_SECRET_"
MAX_FILE_BYTES: Final = 2**20
MAX_VALUE_BYTES: Final = 64 * 1024

#: The loggers of this package, each of which `Vault.guard` watches; a test compares. Not `dagbok.diary`, which says
#: once more what was redacted before it was written.
LOGGERS: Final = (
    "dagbok", "dagbok.api", "dagbok.cli", "dagbok.cluster", "dagbok.engine", "dagbok.http", "dagbok.journal",
    "dagbok.retention", "dagbok.service", "dagbok.tools.registry",
)  # fmt: skip

# What every record has, and logging itself reads.
_STANDARD: Final = logging.makeLogRecord({}).__dict__.keys()


class Vault:
    """Secrets by name, and what hides them. Satisfies `dagbok.engine.ports.Secrets`."""

    __slots__ = ("_values", "redactor")

    def __init__(self, secrets: Mapping[str, str]) -> None:
        """Take secrets as they are given by a program.

        Raises:
            Misconfigured: A name or a value cannot be used; the message never holds the value.
        """
        self._values = {name: _checked(name, value, f"The secret {name!r}") for name, value in secrets.items()}
        self.redactor = Redactor(self._values)
        for name in self._values:
            for _, other in self.redactor.find(marker(name)):
                message = f"The value of the secret {other!r} is part of the words that would take its place"
                raise Misconfigured(f"{message} ({marker('NAME')}); choose one that is harder to guess.")

    @classmethod
    def load(
        cls, settings: Settings, environ: Mapping[str, str] = os.environ, *, over: Mapping[str, str] | None = None
    ) -> Vault:
        """Return the secrets of `settings.secrets_file`, above them those of `environ`, above them `over`.

        Raises:
            Misconfigured: The file cannot be read or others may read it, or a name or value cannot be used.
        """
        secrets = {} if settings.secrets_file is None else read_file(settings.secrets_file)
        for variable, value in environ.items():
            if variable.startswith(PREFIX):
                name = variable.removeprefix(PREFIX)
                secrets[name] = _checked(name, value, f"The environment variable {variable}")
        return cls({**secrets, **(over or {})})

    @classmethod
    def take(cls, settings: Settings, environ: MutableMapping[str, str] = os.environ) -> Vault:
        """Load, and remove the secrets from `environ`: for a program whose tools start others, which inherit it."""
        vault = cls.load(settings, environ)
        for variable in [variable for variable in environ if variable.startswith(PREFIX)]:
            del environ[variable]
        return vault

    def __repr__(self) -> str:
        return f"Vault({', '.join(sorted(self._values))})"

    @property
    def names(self) -> frozenset[str]:
        """What plans may ask for."""
        return self.redactor.names

    def get(self, name: str) -> str | None:
        """Return the value of a secret; None if there is none of that name."""
        return self._values.get(name)

    def redact(self, text: str) -> str:
        """Return `text` with the name of each secret in the place of its value."""
        return self.redactor.text(text)

    def guard(self, tools: Iterable[str]) -> Callable[[], None]:
        """Hide values in all that the package and the loggers of these tools log from now on; return what ends that.

        At the loggers, so that it holds for every handler of the program, whatever that does with a record.
        """
        if not self._values:
            return lambda: None
        loggers = [logging.getLogger(name) for name in (*LOGGERS, *(f"dagbok.tool.{tool}" for tool in tools))]
        watch = _Watch(self.redactor)
        for logger in loggers:
            logger.addFilter(watch)

        def end() -> None:
            for logger in loggers:
                logger.removeFilter(watch)

        return end


class _Watch(logging.Filter):
    """Rewrites a record that holds a secret: message, arguments, traceback, and what came as `extra`."""

    def __init__(self, redactor: Redactor) -> None:
        super().__init__()
        self._redactor = redactor

    def filter(self, record: logging.LogRecord) -> bool:
        try:
            message = record.getMessage()
        except Exception:  # arguments that do not fit: logging would print them to stderr
            message = f"{record.msg} {record.args!r}"
            record.msg, record.args = message, None
        # An argument may hold more than the message shows of it (`%.3s`), and other handlers read the arguments.
        if (clean := self._redactor.text(message)) != message or any(map(self._holds, _arguments(record))):
            record.msg, record.args = clean, None
        if record.exc_info:
            text = record.exc_text or logging.Formatter().formatException(record.exc_info)
            if (clean := self._redactor.text(text)) != text:
                record.exc_info, record.exc_text = None, clean
        for name in record.__dict__.keys() - _STANDARD:
            record.__dict__[name] = self._extra(record.name, record.__dict__[name])
        return True

    def _holds(self, value: object) -> bool:
        text = _shown(value)
        return self._redactor.text(text) != text

    def _extra(self, logger: str, value: Any) -> Any:
        if type(value) in (int, float) and not logger.startswith("dagbok.tool."):
            return value  # the package's own numbers are counts and times; a line's `bytes` stays a number
        if value is None or isinstance(value, str | int | float | dict | list | tuple):
            return self._redactor.value(value)
        return self._redactor.text(_shown(value)) if self._holds(value) else value  # an exception, bytes


def _arguments(record: logging.LogRecord) -> Iterable[object]:
    args = record.args or ()
    return args.values() if isinstance(args, Mapping) else args


def _shown(value: object) -> str:
    try:
        return str(value)
    except Exception as exc:  # somebody else's; nobody can show it, so it shows nothing
        return f"<{type(value).__name__}, which cannot be shown: {type(exc).__name__}>"


def read_file(path: Path) -> dict[str, str]:
    """Return the secrets of a file: a JSON object of strings, or lines `NAME=value` as in a `.env` file.

    Raises:
        Misconfigured: It is not there, others may read it, it is too large, or it cannot be understood.
    """
    label = f"The file of secrets {path}"
    try:
        with path.open("rb") as file:
            mode = stat.S_IMODE(os.fstat(file.fileno()).st_mode)
            data = file.read(MAX_FILE_BYTES + 1)
    except (OSError, ValueError) as exc:
        reason = getattr(exc, "strerror", None) or exc
        raise Misconfigured(f"{label} (DAGBOK_SECRETS_FILE) cannot be read: {reason}.") from exc
    if mode & 0o077:
        raise Misconfigured(f"{label} is open to others (mode {mode:o}); run: chmod 600 {path}")
    if len(data) > MAX_FILE_BYTES:
        raise Misconfigured(f"{label} has more than {MAX_FILE_BYTES:,} bytes.")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as exc:
        line = data.count(b"\n", 0, exc.start) + 1
        # Not as its cause: the error carries the whole file.
        raise Misconfigured(f"{label} is not UTF-8 in line {line}.") from None
    return _of_json(text, label) if text.lstrip().startswith("{") else _of_lines(text, label)


def _of_json(text: str, label: str) -> dict[str, str]:
    try:
        entries = json.loads(text, object_pairs_hook=list)  # pairs, so that none hides another of its name
    except (ValueError, RecursionError) as exc:
        where = f": {exc.msg}, in line {exc.lineno}" if isinstance(exc, json.JSONDecodeError) else ""
        raise Misconfigured(f"{label} is no JSON object of strings{where}.") from None
    return _collected(((f"entry {number}", *entry) for number, entry in enumerate(entries, 1)), label)


def _of_lines(text: str, label: str) -> dict[str, str]:
    entries: list[tuple[str, str, object]] = []
    for found in parse_stream(StringIO(text)):
        before = found.original.string
        line = found.original.line + before[: len(before) - len(before.lstrip())].count("\n")
        if found.error or (found.key is not None and found.value is None):
            raise Misconfigured(f"{label}: line {line} is not NAME=value.")
        if found.key is not None:  # no blank line, and no comment
            entries.append((f"line {line}", found.key, found.value))
    return _collected(entries, label)


def _collected(entries: Iterable[tuple[str, str, object]], label: str) -> dict[str, str]:
    secrets: dict[str, str] = {}
    for place, name, value in entries:
        if name in secrets:
            raise Misconfigured(f"{label} has {name} a second time in {place}.")
        secrets[name] = _checked(name, value, f"{label}: {place}")
    return secrets


def _checked(name: str, value: object, label: str) -> str:
    """Return the value as it is kept, without the line end after a single line; `label` begins each complaint."""
    if not isinstance(name, str) or not NAME.fullmatch(name):
        raise Misconfigured(
            f"{label} has no name that a secret can have: capital letters, digits and '_', beginning with a letter, "
            "at most 100 of them."
        )
    if not isinstance(value, str):
        raise Misconfigured(f"{label} is no text: the value of a secret is a string.")
    if len(value.splitlines()) == 1:
        value = value.rstrip("\r\n")  # of the editor or `echo` that wrote it; a key file needs its own
    if len(value.strip()) < MIN_CHARS:
        raise Misconfigured(
            f"{label} is shorter than {MIN_CHARS} characters: hiding it would tear ordinary text apart."
        )
    try:
        check(value)
    except NotJson:  # whose message says where in the value
        raise Misconfigured(f"{label} is not UTF-8 text without NUL.") from None
    if len(value.encode()) > MAX_VALUE_BYTES:
        raise Misconfigured(f"{label} has more than {MAX_VALUE_BYTES:,} bytes.")
    return value
