"""The log of the server: lines on stderr that nobody waits for.

Whoever logs leaves a record in a bounded queue and goes on; a thread makes lines of them and writes. If stderr is a
pipe that nobody reads, or a full disk, the queue fills, and what does not fit is counted and told once there is room
again. So neither the engine nor a request ever waits for a reader of the log.
"""

from __future__ import annotations

import copy
import logging
import os
import queue
import select
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from logging.handlers import QueueHandler, QueueListener
from typing import Any, Final, Literal

from structlog.contextvars import merge_contextvars

from dagbok.cli.log_lines import LOGGER, Redact, both_ends, formatter
from dagbok.cli.terminal import is_terminal

#: Records that wait to be written; each holds strings of at most `MAX_TEXT_CHARS`.
MAX_QUEUED: Final = 10_000
MAX_TEXT_CHARS: Final = 16 * 1024
_BATCH_CHARS: Final = 64 * 1024
_WRITE_BYTES: Final = 16 * 1024
# Not `sys.stderr`: a thread that hangs within its lock keeps the interpreter from ending.
_STDERR: Final = 2
#: The end waits for lines not yet written as long as somebody reads them, and so long if nobody does.
_PATIENCE_S: Final = 2.0

_LEVELS: Final = {"debug": logging.DEBUG, "info": logging.INFO, "warning": logging.WARNING, "error": logging.ERROR}


@contextmanager
def server_log(
    level: Literal["debug", "info", "warning", "error"] = "info",
    format: Literal["auto", "json", "text"] = "auto",
    *,
    redact: Redact = str,
) -> Iterator[None]:
    """Log to stderr until the end of the block; of other libraries, and of Python's warnings, from WARNING on.

    Args:
        level: Of the package's own loggers.
        format: `json`: an object a line; `text`: for people; `auto`: text on a terminal.
        redact: Applied to each string before it is cut or written; returns it without what nobody may read.
    """
    text = sys.stderr.isatty() if format == "auto" else format == "text"
    colors = is_terminal(sys.stderr) and not os.environ.get("NO_COLOR")
    lost = _Lost()
    handler = _Handler(lost, redact)
    writer = _Writer(handler.queue, lost, formatter(text=text, colors=colors, redact=redact))
    package, root = logging.getLogger("dagbok"), logging.getLogger()
    before = package.level, root.level
    package.setLevel(_LEVELS[level])
    root.setLevel(max(logging.WARNING, _LEVELS[level]))
    root.addHandler(handler)
    logging.captureWarnings(True)
    # Nothing of this is told, and asking for it takes as long as the rest of a record (logging HOWTO, "Optimization").
    logging.logThreads = logging.logProcesses = logging.logMultiprocessing = False
    writer.start()
    try:
        yield
    finally:
        logging.captureWarnings(False)
        logging.logThreads = logging.logProcesses = logging.logMultiprocessing = True
        root.removeHandler(handler)
        package.setLevel(before[0])
        root.setLevel(before[1])
        writer.stop()


class _Lost:
    """How many lines nobody will read; counted on any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._count = 0

    def add(self, count: int) -> None:
        with self._lock:
            self._count += count

    def take(self) -> int:
        with self._lock:
            count, self._count = self._count, 0
        return count


class _Handler(QueueHandler):
    """Leaves records for the writer. What is only true now (context, arguments, exception) goes along as text."""

    queue: queue.SimpleQueue[Any]

    def __init__(self, lost: _Lost, redact: Redact) -> None:
        super().__init__(queue.SimpleQueue())
        self._lost = lost
        self._redact = redact

    def enqueue(self, record: logging.LogRecord) -> None:
        if self.queue.qsize() < MAX_QUEUED:
            self.queue.put_nowait(record)
        else:
            self._lost.add(1)

    def prepare(self, record: logging.LogRecord) -> logging.LogRecord:
        if error := record.exc_info:  # as text: with its frames it would keep alive all that they hold
            record = copy.copy(record)
            record.__dict__["exception"] = self._short(_TRACEBACKS.formatException(error), both_ends)
            record.exc_info = record.exc_text = None
        record.msg, record.args = _message(record), None
        merge_contextvars(None, "", record.__dict__)
        for name, value in record.__dict__.items():
            if type(value) is str and len(value) > MAX_TEXT_CHARS:
                record.__dict__[name] = self._short(value, _beginning)
        return record

    def _short(self, text: str, cut: Callable[[str, int], str]) -> str:
        """Return a text that is short enough to wait; the writer redacts what is not cut here."""
        if len(text) <= MAX_TEXT_CHARS:
            return text
        try:  # first: of a secret that is cut in two, nobody would know the half
            return cut(self._redact(text), MAX_TEXT_CHARS)
        except Exception as exc:  # nothing of it may be shown then
            return f"a text of {len(text):,} characters that cannot be shown: {type(exc).__name__}"


_TRACEBACKS: Final = logging.Formatter()


def _beginning(text: str, limit: int) -> str:
    return text[:limit]


def _message(record: logging.LogRecord) -> str:
    try:
        return record.getMessage()
    except Exception as exc:  # words and arguments do not fit together; the line is worth having all the same
        return f"{record.msg} (its arguments cannot be shown: {type(exc).__name__})"


class _Writer(QueueListener):
    """Makes lines of records in a thread of its own, and writes all there are at once."""

    def __init__(self, records: queue.SimpleQueue[Any], lost: _Lost, formatter: logging.Formatter) -> None:
        super().__init__(records)
        self._records = records
        self._lost = lost
        self._formatter = formatter
        self._lines: list[str] = []
        self._chars = 0
        self._written = 0  # bytes so far

    def dequeue(self, block: bool) -> Any:
        if self._records.empty():
            self._flush()
        record = self._records.get(block)
        if record is None:  # the end
            self._flush()
        return record

    def handle(self, record: logging.LogRecord) -> None:
        line = self._formatter.format(record)
        self._lines.append(line)
        self._chars += len(line)
        if self._chars >= _BATCH_CHARS:
            self._flush()

    def stop(self) -> None:
        """Write what there is, as long as somebody reads it."""
        self.enqueue_sentinel()
        thread, self._thread = self._thread, None
        before = -1
        while thread is not None and thread.is_alive() and self._written > before:
            before = self._written
            thread.join(_PATIENCE_S)

    def _flush(self) -> None:
        lines, self._lines, self._chars = self._lines, [], 0
        lost = self._lost.take()
        notices = [self._notice(lost)] if lost else []
        if not lines and not notices:
            return
        try:
            self._write("\n".join([*lines, *notices, ""]).encode(errors="backslashreplace"))
        except OSError:  # nobody reads any more, or the disk is full; told as soon as it can be
            self._lost.add(len(lines) + lost)

    def _notice(self, lost: int) -> str:
        words = f"{lost:,} lines of the log were dropped"
        record = {"name": LOGGER, "levelname": "WARNING", "msg": words, "dropped": lost}
        return self._formatter.format(logging.makeLogRecord(record))

    def _write(self, data: bytes) -> None:
        left = memoryview(data)
        while left:
            try:
                count = os.write(_STDERR, left[:_WRITE_BYTES])
            except BlockingIOError:  # some other program made the terminal or pipe so
                select.select([], [_STDERR], [])
                continue
            self._written += count
            left = left[count:]
