"""What stops `dagbok run` and `dagbok resume`: Ctrl-C, SIGTERM (timeout, systemd, CI) and SIGHUP (a closed terminal).

All do the same. The first cancels the work, which then ends in good order; the next stops it where it is. One that the
caller lets be ignored (`nohup`, a job in the background) stays ignored.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import threading
from collections.abc import Callable, Coroutine
from typing import Any, Final, TypeVar

from dagbok.cli.terminal import is_terminal, note, silence

T = TypeVar("T")

_NUMBERS: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_SHOW_CURSOR: Final = "\x1b[?25h"  # the picture may have hidden it


class Interrupted(KeyboardInterrupt):
    """A signal ended the work before it was done; the last words about it are said."""

    def __init__(self, number: int) -> None:
        super().__init__()
        self.exit_code = 128 + number  # as a shell has it


def run_until_stopped(work: Coroutine[Any, Any, T], last_words: Callable[[], None]) -> T:
    """Run `work` in an event loop of its own, on the main thread, and return what it returns.

    Raises:
        Interrupted: It was stopped, and `last_words` were called. Stopped at once, the process ends here.
    """
    heard: list[int] = []
    try:
        return asyncio.run(_heeding(work, heard, last_words))
    except (asyncio.CancelledError, KeyboardInterrupt) as exc:
        last_words()
        raise Interrupted(heard[0] if heard else signal.SIGINT) from exc


async def _heeding(work: Coroutine[Any, Any, T], heard: list[int], last_words: Callable[[], None]) -> T:
    loop, task = asyncio.get_running_loop(), asyncio.current_task()
    assert task is not None
    before = {number: handler for number in _NUMBERS if (handler := signal.getsignal(number)) is not signal.SIG_IGN}
    again = threading.Event()
    screens = [sys.stderr] if sys.stderr.isatty() else []

    def hear(number: int) -> None:
        heard.append(number)
        if number == signal.SIGHUP:
            for screen in screens:  # it is gone, and what draws there would fail
                silence(screen)
        # An exception would do only where nothing catches it to clean up, which may take long; so a thread ends it all.
        threading.Thread(target=_end_at, args=(again, 128 + number, last_words), daemon=True).start()
        for each in before:  # also where something keeps the loop from hearing it
            loop.remove_signal_handler(each)
            signal.signal(each, lambda *_: again.set())
        task.cancel()

    for number in before:
        loop.add_signal_handler(number, hear, number)
    try:
        return await work
    finally:
        if not heard:
            for number, handler in before.items():
                loop.remove_signal_handler(number)
                signal.signal(number, handler)


def _end_at(event: threading.Event, exit_code: int, last_words: Callable[[], None]) -> None:
    """Wait for the event, and end the process there: what is committed stays, as in a crash."""
    event.wait()
    try:
        if is_terminal(sys.stderr):
            note(_SHOW_CURSOR, end="")
        last_words()
    finally:
        os._exit(exit_code)
