"""How figures and states read: spans, times, counts, and a sign for each status."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime

from dagbok.cli.terminal import line
from dagbok.domain.ids import SYNTHESIS

#: Sign and Rich style of each status, of executions and sub-steps alike.
SIGNS = {
    "completed": ("✓", "green"),
    "failed": ("✗", "red"),
    "partial": ("◐", "yellow"),
    "waiting": ("?", "yellow"),
    "skipped": ("↷", "bright_black"),
    "cancelled": ("⊘", "bright_black"),
    "running": ("▶", "cyan"),
    "pending": ("·", "bright_black"),
}

REASONS = {
    "dependency_failed": "because a dependency failed",
    "chosen": "by choice of the plan",
    "cancelled": "on request",
    "store_rejected": "because the database refused its data",
    "human": "for an answer",
    "outcome_unknown": "for a person to say whether it happened",
}


def span(ms: float) -> str:
    """Return a span of time as a person says it."""
    if ms < 1000:
        return f"{ms:.0f} ms"
    if ms < 60_000:
        return f"{ms / 1000:.1f} s"
    minutes, seconds = divmod(int(ms / 1000), 60)
    if minutes < 60:
        return f"{minutes} m {seconds:02} s"
    return f"{minutes // 60} h {minutes % 60:02} m"


def ago(moment: datetime) -> str:
    """Return how long ago `moment` was, in one unit."""
    seconds = max(0, int((datetime.now(UTC) - moment).total_seconds()))
    for size, unit in ((86_400, "d"), (3600, "h"), (60, "m")):
        if seconds >= size:
            return f"{seconds // size} {unit} ago"
    return f"{seconds} s ago"


def local(moment: datetime) -> str:
    """Return a time in the zone of this machine."""
    return moment.astimezone().isoformat(sep=" ", timespec="milliseconds")


def counted(number: int, what: str, several: str = "") -> str:
    """Return "1 execution", "2 executions"."""
    return f"{number:,} {what if number == 1 else several or what + 's'}"


def shown_id(task_id: str) -> str:
    """Return a task id as people see it."""
    return "synthesis" if task_id == SYNTHESIS else line(task_id, 24)


def shown_tool(task_id: str, tool: str) -> str:
    """Return a tool's name as people see it; the synthesis has said its own."""
    return "" if task_id == SYNTHESIS else line(tool, 32)


def shown_error(code: str | None, message: str | None, limit: int = 300) -> str:
    """Return an error as one line: `code: message`."""
    return line(": ".join(part for part in (code, message) if part), limit)


def aligned(rows: Sequence[Sequence[str]], gap: str = "  ") -> list[str]:
    """Return rows of cells as lines whose columns stand under each other; the last column is not padded."""
    widths = [max((len(row[at]) for row in rows), default=0) for at in range(max(map(len, rows), default=0))]
    return [gap.join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
