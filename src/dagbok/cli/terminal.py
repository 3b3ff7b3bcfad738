"""What reaches the terminal, and how: hostile text made harmless, broken pipes made quiet, stdout kept for results.

Everything a plan, a tool or a model wrote passes `clean` or `line` before it is shown. Results go to stdout, all else
to stderr, so that `dagbok run plan.json > answer.md` holds the answer and nothing more.
"""

from __future__ import annotations

import os
import re
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import TextIO

from dagbok.errors import DagbokError

# Whole sequences go, not only their first byte, so that no "[31m" is left behind. What an unfinished string sequence
# swallows is bounded: it must not be able to hide the text after it.
_SEQUENCE = re.compile(
    r"(?:\x1b\[|\x9b)[0-?]{0,64}[ -/]{0,8}[@-~]?"  # CSI: colours, cursor
    r"|(?:\x1b[\]PX^_]|[\x90\x98\x9d-\x9f])[^\x00-\x1f\x7f-\x9f]{0,512}(?:\x07|\x1b\\|\x9c)"  # OSC, DCS: titles
    r"|\x1b[ -/]{0,8}[0-~]?"  # the rest
)
# C0 save tab and newline, DEL, C1, what some take for line ends, and what turns the direction of text around
# (https://trojansource.codes).
_CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069]")
_JSON_CONTROL = re.compile("[\x7f-\x9f\u2028-\u202e\u2066-\u2069]")


_redact: Callable[[str], str] = str


def redact_with(redact: Callable[[str], str]) -> None:
    """Let all that goes to stderr pass `redact` from now on: errors, log lines, and what tools print."""
    global _redact
    _redact = redact


def clean(text: str) -> str:
    """Return text of any length with all that a terminal would obey taken out; tabs and line ends stay."""
    if text.isprintable():
        return text
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    return _CONTROL.sub("", _SEQUENCE.sub("", text))


def line(text: str, limit: int = 200) -> str:
    """Return `text` as one clean line of at most `limit` characters."""
    text = " ".join(clean(text[: limit * 20]).split())
    return text if len(text) <= limit else f"{text[: limit - 1]}…"


def clean_json(text: str) -> str:
    """Return JSON text with the control characters that JSON allows as escapes: the same value, safe to show."""
    return _JSON_CONTROL.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


def is_terminal(stream: TextIO) -> bool:
    """Return whether `stream` is a screen that can be drawn on. Everything else gets plain lines."""
    return stream.isatty() and os.environ.get("TERM", "dumb") not in ("dumb", "unknown")


def out(text: str = "", *, end: str = "\n") -> None:
    """Write to stdout. A reader that went away (`| head`) is no error.

    Raises:
        DagbokError: It cannot be written, a full disk say.
    """
    try:
        sys.stdout.write(text + end)
        sys.stdout.flush()
    except BrokenPipeError:
        silence(sys.stdout)
    except OSError as exc:
        silence(sys.stdout)
        raise DagbokError(f"The output cannot be written: {exc.strerror}.") from exc


def note(text: str = "", *, end: str = "\n") -> None:
    """Write to stderr; what cannot be written there is nobody's loss."""
    try:
        sys.stderr.write(_redact(text) + end)
        sys.stderr.flush()
    except OSError:
        silence(sys.stderr)


def prepare() -> None:
    """Make the standard streams such that writing text never raises for its characters. Call once at start."""
    redact_with(str)
    for name, number in (("stdout", 1), ("stderr", 2)):
        stream = getattr(sys, name)
        if stream is None:  # closed by the caller (`>&-`); its number must not fall to the next file that is opened
            os.dup2(os.open(os.devnull, os.O_WRONLY), number)
            setattr(sys, name, open(number, "w"))  # noqa: PTH123, SIM115  # for the life of the process
        elif hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace", line_buffering=True)


@contextmanager
def stdout_reserved() -> Iterator[None]:
    """Send all that anybody writes to stdout within to stderr, cleaned: a tool that prints, or its child, is no result.

    A pipe takes the place of the file descriptor itself, so that it holds for programs that a tool starts, too.
    """
    sys.stdout.flush()
    kept = os.dup(1)
    read_end, write_end = os.pipe()
    os.dup2(write_end, 1)
    os.close(write_end)
    copying = threading.Thread(target=_copy_lines, args=(read_end,), name="dagbok-stdout", daemon=True)
    copying.start()
    try:
        yield
    finally:
        with suppress(OSError, ValueError):
            sys.stdout.flush()
        os.dup2(kept, 1)
        os.close(kept)
        copying.join(timeout=0.5)  # it ends with the last writer; a child that stays behind is not waited for


def _copy_lines(read_end: int) -> None:
    with open(read_end, encoding="utf-8", errors="replace") as lines:  # it is no path
        for text in lines:
            note(clean(text.rstrip("\n")))


def silence(stream: TextIO) -> None:
    """Let all that is written to a stream from now on be lost: nobody has its other end."""
    # What is still buffered would be written, and fail, once more when the process ends.
    with suppress(OSError, ValueError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, stream.fileno())
        os.close(nowhere)
