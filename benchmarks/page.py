"""docs/benchmarks.md: where tables go in it, and how they look. What stands around them is written by hand."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.environments import ROOT

PAGE = ROOT / "docs" / "benchmarks.md"


def marks(name: str) -> tuple[str, str]:
    """Return the lines of the page between which something is written."""
    return f"<!-- {name}: written by `python -m benchmarks report` -->", f"<!-- end of {name} -->"


def put(text: str, name: str, page: Path = PAGE) -> None:
    """Write `text` between the marks of `name`.

    Raises:
        ValueError: The page has no such marks.
    """
    begin, end = marks(name)
    before, _, rest = page.read_text(encoding="utf-8").partition(begin)
    _, mark, after = rest.partition(end)
    if not mark:
        raise ValueError(f"{page.name} lacks the lines that say where the tables go")
    page.write_text(f"{before}{begin}\n{text}\n{end}{after}", encoding="utf-8")


def measured_on(machine: Mapping[str, Any], date: str) -> str:
    """Return what stands above tables: when, and on what."""
    return (
        f"Measured on {date}: {machine['cores']} cores ({machine['cpu']}), {machine['memory_gb']} GB, "
        f"{machine['os']}, Python {machine['python']}, SQLite {machine['sqlite']}, "
        f"PostgreSQL {machine['postgresql'] or '-'}; making a page durable takes {machine['fsync_ms']} ms; "
        f"load before the first run {machine['load_before']}."
    )


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a table; all but its first column are figures."""
    lines = [head, ["---", *("---:" for _ in head[1:])], *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)
