"""`dagbok tools`: what plans may call."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any

import orjson
from rich.table import Table
from rich.text import Text

from dagbok.app import make_registry
from dagbok.cli import render
from dagbok.cli.terminal import is_terminal, line, out
from dagbok.cli.words import aligned
from dagbok.settings import Settings


def tools(*, json: bool, settings: Settings) -> int:
    """Show the tools of these settings; return the exit code."""
    registry = make_registry(settings)
    try:
        found = [registry.describe(tool) for tool in registry]
    finally:
        registry.close()
    if json:
        render.print_json(orjson.dumps(found))
        return 0
    rows = [
        (
            line(tool["function"]["name"], 60),
            tool["effect"],
            _params(tool["function"]["parameters"]),
            line(tool["function"]["description"].strip().partition("\n")[0], 160),
        )
        for tool in sorted(found, key=lambda tool: str(tool["function"]["name"]))
    ]
    if is_terminal(sys.stdout):
        render.console(sys.stdout).print(_table(rows))
    else:
        for row in aligned(rows):
            out(row)
    return 0


def _table(rows: list[tuple[str, str, str, str]]) -> Table:
    table = Table(box=None, padding=(0, 1), header_style="bright_black", expand=True)
    table.add_column("tool", no_wrap=True, style="cyan")
    table.add_column("effect", no_wrap=True)
    table.add_column("what it does", ratio=1)
    for name, effect, params, description in rows:
        what = Text(description)
        what.append(f"\n{params}" if params else "", style="bright_black")
        table.add_row(name, effect, what)
    return table


def _params(schema: Mapping[str, Any]) -> str:
    """Return `path: string, max_bytes?: integer`."""
    required = schema.get("required", ())
    return ", ".join(
        f"{line(name, 60)}{'' if name in required else '?'}{_type(about)}"
        for name, about in schema.get("properties", {}).items()
    )


def _type(about: object) -> str:
    kind = about.get("type") if isinstance(about, dict) else None
    if isinstance(kind, list):
        return ""  # nearly anything
    return f": {kind}" if isinstance(kind, str) else ""
