"""The picture of a running execution on a terminal: a line per running step, and a bar."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console, Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.spinner import Spinner
from rich.table import Table
from rich.text import Text

from dagbok.cli.progress import Now, Progress
from dagbok.cli.terminal import line
from dagbok.cli.words import shown_id, shown_tool, span

_FRAMES_PER_S = 8


class Picture:
    """What `Live` draws, made anew for each frame."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._spinner = Spinner("dots", style="cyan")

    def __call__(self, console: Console) -> Group:
        """Return the frame for now, no higher than the screen."""
        running, counts = self._progress.snapshot()
        rows = max(1, console.size.height - 6)
        shown = running if len(running) <= rows else running[: rows - 1]
        parts = [Text(line(self._progress.title, 200), style="bold", no_wrap=True, overflow="ellipsis")]
        body = self._steps(shown)
        more = Text(f"  and {len(running) - len(shown):,} more", style="bright_black") if shown != running else Text("")
        return Group(*parts, body, *([more] if more.plain else []), self._bar(counts))

    def _steps(self, running: list[Now]) -> Table:
        table = Table.grid(padding=(0, 2), expand=True)
        table.add_column(width=1)
        table.add_column(no_wrap=True, max_width=20)
        table.add_column(no_wrap=True, max_width=20, style="cyan")
        table.add_column(no_wrap=True, overflow="ellipsis", ratio=1)
        table.add_column(no_wrap=True, justify="right", style="bright_black", min_width=6)
        now_ms = time.time() * 1000
        for step in running:
            what = Text(line(step.description))
            if step.message:
                what.append(f"{'  ' if what else ''}{line(step.message)}", style="bright_black")
            elapsed = span(max(0.0, now_ms - (step.started_ms or now_ms)))
            table.add_row(
                self._spinner, Text(shown_id(step.task_id)), Text(shown_tool(step.task_id, step.tool)), what, elapsed
            )
        return table

    def _bar(self, counts: dict[str, int]) -> Table:
        done = sum(counts.get(status, 0) for status in ("completed", "failed", "skipped", "cancelled"))
        total = self._progress.total
        words = Text(f"{done:,}/{total:,}")
        for status, style in (("failed", "red"), ("skipped", "bright_black"), ("waiting", "yellow")):
            if number := counts.get(status, 0):
                words.append(f"  {number:,} {status}", style=style)
        words.append(f"  {span(max(0.0, time.time() * 1000 - self._progress.started_ms))}", style="bright_black")
        table = Table.grid(padding=(0, 2))
        table.add_column(width=32)
        table.add_column(no_wrap=True)
        table.add_row(ProgressBar(total=max(1, total), completed=done, width=32, complete_style="green"), words)
        return table


@contextmanager
def drawn(console: Console, progress: Progress) -> Iterator[None]:
    """Draw `progress` on `console` for as long as the block runs, and wipe the picture at its end."""
    picture = Picture(progress)
    with Live(
        console=console,
        get_renderable=lambda: picture(console),
        refresh_per_second=_FRAMES_PER_S,
        transient=True,
        redirect_stdout=False,  # `stdout_reserved` brings it to stderr
        vertical_overflow="crop",
    ):
        yield
