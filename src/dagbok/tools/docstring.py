"""What a Google-style docstring tells a planner: what the tool does, what comes back, and what each parameter means.

A small parser on purpose: `griffe` reads more styles, but importing it costs as much as the rest of the registry.
"""

from __future__ import annotations

import inspect
import re

_SECTION = re.compile(
    r"(args|arguments|parameters|params|returns?|yields?|raises|examples?|notes?|warnings?|todo|see also|attributes):",
    re.IGNORECASE,
)
_ENTRY = re.compile(r"\*{0,2}(?P<name>\w+)\s*(?:\([^)]*\))?\s*:\s*(?P<text>.*)")
_PARAMETERS = {"args", "arguments", "parameters", "params"}
_RETURNS = {"return", "returns"}


def parse(docstring: str | None) -> tuple[str, dict[str, str]]:
    """Return the description (its last paragraph the `Returns:` section, if any) and the text per parameter."""
    prose: list[str] = []
    sections: dict[str, list[str]] = {}
    section: list[str] | None = None
    for line in inspect.cleandoc(docstring or "").splitlines():
        if heading := _SECTION.fullmatch(line.rstrip()):
            section = sections.setdefault(heading[1].lower(), [])
        elif section is not None and (not line.strip() or line[0].isspace()):
            section.append(line)
        else:
            section = None
            prose.append(line)
    paragraphs = ["\n".join(prose).strip()]
    parameters: dict[str, str] = {}
    for title, lines in sections.items():
        text = inspect.cleandoc("\n".join(["", *lines])).strip()
        if title in _PARAMETERS:
            parameters.update(_entries(text))
        elif title in _RETURNS and text:
            paragraphs.append(f"Returns: {_joined(text)}")
    return "\n\n".join(part for part in paragraphs if part), parameters


def _entries(text: str) -> dict[str, str]:
    found: dict[str, str] = {}
    name = None
    for line in text.splitlines():
        entry = None if line[:1].isspace() else _ENTRY.fullmatch(line.rstrip())
        if entry:
            name = entry["name"]
            found[name] = entry["text"]
        elif name is not None:
            found[name] += "\n" + line
    return {name: _joined(lines) for name, lines in found.items()}


def _joined(text: str) -> str:
    return " ".join(text.split())
