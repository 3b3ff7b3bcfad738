"""What the package logs, on stderr, cleaned: log lines quote what tools and clients say."""

from __future__ import annotations

import logging

from dagbok.cli.terminal import clean, note


class _Notes(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        note(clean(self.format(record)))


def show_log(level: int, layout: str = "dagbok: %(message)s") -> None:
    """Show what the package logs from `level` on, once, in `layout`."""
    handler = _Notes()
    handler.setFormatter(logging.Formatter(layout))
    handler.addFilter(lambda record: record.name != "dagbok.diary")  # a command shows the diary in its own way
    logger = logging.getLogger("dagbok")
    logger.addHandler(handler)
    logger.setLevel(level)
    logger.propagate = False
