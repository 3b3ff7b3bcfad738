"""The picture of running executions on a terminal: a line per step under way, a bar; of several, a line for each."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.spinner import Spinner
from rich.table import Table
from rich.text import Text

from dagbok.cli.progress import Now, Progress
from dagbok.cli.terminal import line
from dagbok.cli.words import SIGNS, clock, counted, left, of_ms, shown_error, shown_id, shown_tool, span

_FRAMES_PER_S = 8
_DONE = ("completed", "failed", "skipped", "cancelled")


class Picture:
    """What `Live` draws of one execution, made anew for each frame."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._spinner = Spinner("dots", style="cyan")

    def __call__(self, console: Console) -> Group:
        """Return the frame for now, no higher than the screen."""
        under_way, counts = self._progress.snapshot()
        rows = max(1, console.size.height - 6)
        shown = under_way if len(under_way) <= rows else under_way[: rows - 1]
        parts = [Text(line(self._progress.title, 200), style="bold", no_wrap=True, overflow="ellipsis")]
        body = self._steps(shown)
        more = _more(len(under_way) - len(shown))
        return Group(*parts, body, *more, self._bar(counts))

    def _steps(self, under_way: list[Now]) -> Table:
        table = Table.grid(padding=(0, 2), expand=True)
        table.add_column(width=1)
        table.add_column(no_wrap=True, max_width=20)
        table.add_column(no_wrap=True, max_width=20, style="cyan")
        table.add_column(no_wrap=True, overflow="ellipsis", ratio=1)
        table.add_column(no_wrap=True, justify="right", style="bright_black", min_width=6)
        for step in under_way:
            sign = self._spinner if step.next_ms is None else Text("…", style="cyan")
            if step.status == "pending":
                sign = Text("↻", style="yellow")
            table.add_row(
                sign, Text(shown_id(step.task_id)), Text(shown_tool(step.task_id, step.tool)), _doing(step), _time(step)
            )
        return table

    def _bar(self, counts: dict[str, int]) -> Table:
        done = sum(counts.get(status, 0) for status in _DONE)
        total = self._progress.total
        words = Text(f"{done:,}/{total:,}")
        for status, style in (("failed", "red"), ("skipped", "bright_black"), ("waiting", "yellow")):
            if number := counts.get(status, 0):
                words.append(f"  {number:,} {status}", style=style)
        if self._progress.whole.paused:
            words.append("  paused", style="yellow")
        words.append(f"  {span(max(0.0, time.time() * 1000 - self._progress.started_ms))}", style="bright_black")
        return _bar(done, total, words)


class Pictures:
    """What `Live` draws of several executions: a line each, what is under way first."""

    def __init__(self, several: Sequence[Progress]) -> None:
        self._several = several
        self._started_ms = time.time() * 1000
        self._spinner = Spinner("dots", style="cyan")

    def __call__(self, console: Console) -> Group:
        """Return the frame for now, no higher than the screen."""
        stopped = [progress for progress in self._several if self._sign(progress) is not self._spinner]
        ordered = [progress for progress in self._several if progress not in stopped] + stopped
        rows = max(1, console.size.height - 5)
        shown = ordered if len(ordered) <= rows else ordered[: rows - 1]
        words = Text(f"{len(stopped):,}/{counted(len(ordered), 'execution')}")
        words.append(f"  {span(max(0.0, time.time() * 1000 - self._started_ms))}", style="bright_black")
        return Group(self._lines(shown), *_more(len(ordered) - len(shown)), _bar(len(stopped), len(ordered), words))

    def _lines(self, shown: Sequence[Progress]) -> Table:
        table = Table.grid(padding=(0, 2), expand=True)
        table.add_column(width=1)
        table.add_column(no_wrap=True, style="bright_black")
        table.add_column(no_wrap=True, overflow="ellipsis", ratio=1)
        table.add_column(no_wrap=True, justify="right")
        table.add_column(no_wrap=True, overflow="ellipsis", ratio=1)
        for progress in shown:
            under_way, counts = progress.snapshot()
            done = sum(counts.get(status, 0) for status in _DONE)
            what = _first(under_way) if self._sign(progress) is self._spinner else Text(_state(progress))
            title = Text(line(progress.title))
            table.add_row(self._sign(progress), progress.label, title, f"{done:,}/{progress.total:,}", what)
        return table

    def _sign(self, progress: Progress) -> RenderableType:
        state = _state(progress)
        if state in ("pending", "running"):
            return self._spinner
        sign, style = SIGNS[state]
        return Text(sign, style=style)


def _state(progress: Progress) -> str:
    whole = progress.whole
    return "paused" if whole.paused and whole.status == "waiting" else whole.status


def _first(under_way: Sequence[Now]) -> Text:
    """Return what an execution does, in a few words: the step that runs longest, or what it waits for."""
    if not under_way:
        return Text("")
    step = under_way[0]
    if step.next_ms is not None:
        what = "until" if step.status == "running" else "next attempt"
        return Text(f"{shown_id(step.task_id)}  {what} {clock(of_ms(step.next_ms))}", style="bright_black")
    what = f"{shown_id(step.task_id)}  {shown_tool(step.task_id, step.tool)}"
    return Text(f"{what}  {line(step.message or step.description)}".rstrip())


def _doing(step: Now) -> Text:
    """Return what a step does, or waits for."""
    what = Text(line(step.description))
    gap = "  " if what else ""
    if step.status == "pending":
        error = shown_error(step.error_code, step.error) or "cut off"
        what.append(f"{gap}attempt {step.attempt + 1} after {error}", style="yellow")
    elif step.next_ms is not None:
        what.append(f"{gap}until {clock(of_ms(step.next_ms))}", style="bright_black")
    elif step.message:
        what.append(f"{gap}{line(step.message)}", style="bright_black")
    return what


def _time(step: Now) -> str:
    """Return how long a step runs, or how far it is from what it waits for."""
    if step.next_ms is not None:
        return left(of_ms(step.next_ms)) if step.next_ms > time.time() * 1000 else "now"
    now_ms = time.time() * 1000
    return span(max(0.0, now_ms - (step.started_ms or now_ms)))


def _bar(done: int, total: int, words: Text) -> Table:
    table = Table.grid(padding=(0, 2))
    table.add_column(width=32)
    table.add_column(no_wrap=True)
    table.add_row(ProgressBar(total=max(1, total), completed=done, width=32, complete_style="green"), words)
    return table


def _more(number: int) -> list[Text]:
    return [Text(f"  and {number:,} more", style="bright_black")] if number else []


@contextmanager
def drawn(console: Console, several: Sequence[Progress]) -> Iterator[None]:
    """Draw executions on `console` for as long as the block runs, and wipe the picture at its end."""
    alone = len(several) == 1 and not several[0].label
    picture: Callable[[Console], Group] = Picture(several[0]) if alone else Pictures(several)
    with Live(
        console=console,
        get_renderable=lambda: picture(console),
        refresh_per_second=_FRAMES_PER_S,
        transient=True,
        redirect_stdout=False,  # `stdout_reserved` brings it to stderr
        vertical_overflow="crop",
    ):
        yield
