"""How figures, states and names read: spans, times, counts, a sign for each status, the database."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime

from dagbok.cli.terminal import clean, line
from dagbok.domain.ids import SYNTHESIS
from dagbok.settings import Settings

#: Sign and Rich style of each status, of executions and sub-steps alike; what a row alone does not say is seen, too.
SIGNS = {
    "completed": ("✓", "green"),
    "failed": ("✗", "red"),
    "partial": ("◐", "yellow"),
    "waiting": ("?", "yellow"),
    "skipped": ("↷", "bright_black"),
    "cancelled": ("⊘", "bright_black"),
    "running": ("▶", "cyan"),
    "pending": ("·", "bright_black"),
    "paused": ("‖", "yellow"),
    "interrupted": ("!", "yellow"),
}

REASONS = {
    "dependency_failed": "because a dependency failed",
    "chosen": "by choice of the plan",
    "cancelled": "on request",
    "deadline": "because the deadline passed",
    "fail_fast": "because another failed",
    "store_rejected": "because the database refused its data",
    "human": "for an answer",
    "approval": "for a person to let it run",
    "approved": "a person has let it run",
    "reused": "taken from the execution it is a fork of",
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


def clock(moment: datetime) -> str:
    """Return a time of this machine to the second; the day too, if it is another one."""
    moment = moment.astimezone()
    today = moment.date() == datetime.now(UTC).astimezone().date()
    return moment.strftime("%H:%M:%S" if today else "%Y-%m-%d %H:%M:%S")


def left(moment: datetime) -> str:
    """Return how far a time is from now: "in 4.2 s", "now" if it is here, "3 m ago"."""
    ms = (moment - datetime.now(UTC)).total_seconds() * 1000
    if ms > 0:
        return f"in {span(ms)}"
    return "now" if ms > -1000 else ago(moment)


def of_ms(time_ms: int) -> datetime:
    """Return the time of UTC milliseconds since 1970."""
    return datetime.fromtimestamp(time_ms / 1000, UTC)


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


def database_name(settings: Settings) -> str:
    """Return the database as people may see it: of a URL with a password, only where it leads."""
    kind, mark, rest = settings.database_url.partition("://")
    return clean(settings.database_url if kind == "sqlite" else kind + mark + rest.partition("?")[0].rpartition("@")[2])
