"""What the package logs, on stderr, cleaned: log lines quote what tools and clients say.

These are short notes beside what a command shows. The server's log is `server_log`.
"""

from __future__ import annotations

import logging

from dagbok.cli.terminal import clean, note


class _Notes(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        note(clean(self.format(record)))


def show_log(level: int) -> None:
    """Show what the package logs from `level` on, once."""
    handler = _Notes()
    handler.setFormatter(logging.Formatter("dagbok: %(message)s"))
    handler.addFilter(lambda record: record.name != "dagbok.diary")  # a command shows the diary in its own way
    logger = logging.getLogger("dagbok")
    logger.addHandler(handler)
    logger.setLevel(level)
    logger.propagate = False
    # What libraries warn of, and the loop of what a tool left behind: to the same place, in the same way.
    logging.getLogger().addHandler(handler)
