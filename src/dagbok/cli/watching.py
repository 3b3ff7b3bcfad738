"""What is shown of executions while they run: plain lines, or a picture where stderr is a terminal."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from dagbok.app import Dagbok
from dagbok.cli import render
from dagbok.cli.progress import Now, Progress, Whole, of_changes, print_lines
from dagbok.cli.terminal import is_terminal, line, note
from dagbok.domain.execution import Execution
from dagbok.domain.records import Changes


class Watch:
    """Executions by id, each with its progress."""

    def __init__(self, *, quiet: bool, several: bool = False) -> None:
        """Watch nothing yet; of `several` a picture has a line each, and plain lines say whose they are."""
        self.quiet = quiet
        self.progress: dict[str, Progress] = {}
        self._several = several
        self._picture = not quiet and is_terminal(sys.stderr)

    def add(self, execution_id: str, title: str, total: int, known: tuple[list[Now], Whole] | None = None) -> Progress:
        """Watch one more, of which `known` is no news."""
        label = render.short_id(execution_id) if self._several else ""
        title = line(title)
        progress = Progress(total, title=title, started_ms=round(time.time() * 1000), label=label)
        if known is not None:
            progress.know(*known)
        if not self.quiet and not self._picture:
            progress.on_lines = lambda lines: print_lines(progress, lines)
        self.progress[execution_id] = progress
        return progress

    @contextmanager
    def hearing(self, dagbok: Dagbok) -> Iterator[None]:
        """Hear what the engine makes durable, until the end of the block."""
        unsubscribe = dagbok.scheduler.subscribe(self._hear)
        try:
            yield
        finally:
            unsubscribe()

    def _hear(self, execution: Execution, changes: Changes) -> None:
        if (progress := self.progress.get(execution.id)) is not None:
            progress.take(*of_changes(execution, changes))

    @contextmanager
    def shown(self) -> Iterator[None]:
        """Draw what is watched until the end of the block; where there is no terminal, name it and leave the rest."""
        if not self._picture or not self.progress:
            if not self.quiet:
                for execution_id, progress in self.progress.items():
                    note(f"{execution_id}  {line(progress.title, 100)}".rstrip())
            yield
            return
        from dagbok.cli.live import drawn

        with drawn(render.console(sys.stderr), list(self.progress.values())):
            yield

    def tell(self, words: str) -> None:
        """Say something about all that is watched, unless only results are wanted."""
        if not self.quiet:
            note(words)

    @property
    def bodies(self) -> bool:
        """Whether anything runs now that would have to be cut off."""
        under_way = (step for progress in self.progress.values() for step in progress.snapshot()[0])
        return any(step.next_ms is None for step in under_way)


def title_of(document: Mapping[str, Any], title: str | None) -> str:
    """Return how a plan is called while it runs."""
    return str(title or document.get("title") or document.get("original_request") or "")
