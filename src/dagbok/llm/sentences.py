"""Takes a text apart into what can be quoted by itself: sentences, list items, table rows, code blocks, JSON entries.

Markdown is read line by line in one pass, JSON by walking it; anything else is prose. No text makes this slow: each
character is looked at a bounded number of times, and a run without any sentence end is cut at `LONGEST`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from itertools import islice

from dagbok.domain.values import Json, as_text, parse
from dagbok.errors import BadInput

LONGEST = 400  #: characters of one piece of prose; longer ones are cut at a word
LONGEST_BLOCK = 1200  #: of a code block or table that stays together


class Kind(StrEnum):
    """How a unit is written down."""

    PROSE = "prose"
    ITEM = "item"  # of a list
    ENTRY = "entry"  # a row of a long table or a leaf of a JSON document, as "name: value"
    BLOCK = "block"  # code or a small table, kept with its lines


@dataclass(frozen=True, slots=True)
class Unit:
    """One piece that can be quoted. `heading` is what it stands under, "" if nothing."""

    text: str
    kind: Kind
    heading: str = ""


_BETWEEN_CELLS = re.compile(r"(?<!\\)\|")  # of a table row, in which `\|` is a part of a cell
_FENCE = re.compile(r"\s{0,3}(`{3,}|~{3,})")
_HEADING = re.compile(r"\s{0,3}#{1,6}\s+(.*)")
_ITEM = re.compile(r"\s{0,12}(?:[-*+•]|\d{1,4}[.)])\s+(.*)")
#: `"name": value` of a leaf in JSON that was cut.
_LEAF = re.compile(r'"([^"\\]{1,60})"\s?:\s?("(?:[^"\\]|\\.){1,4000}"|-?\d[\d.eE+-]{0,30}|true|false)')
_SAYS = re.compile(r"[^\W_]")
# An end is a mark, perhaps a closing quote and a reference such as [3], and a gap; marks of scripts without spaces need
# no gap.
_END = re.compile(
    r"""[.!?…]["'\u201d\u2019\u00bb)\]]{0,2}(?:\s?\[[^\[\]]{1,60}\])?(?=\s|$)"""
    r"""|[\u3002\uff01\uff1f]["'\u201d\u2019\u00bb\u300d\u300f\uff09]{0,2}"""
)
_ABBREVIATION = re.compile(
    r"(?:\b(?:e\.g|i\.e|cf|vs|etc|approx|no|nr|fig|dr|mr|mrs|ms|prof|st|inc|ltd|co|jr|sr|vol|pp|al|bl\.a|t\.ex|dvs|ca"
    r"|z\.b|d\.h)"
    r"|\b[^\W\d_]|^\d{1,3})\.$",
    re.IGNORECASE,
)


def split(text: str, most: int) -> list[Unit]:
    """Return the first `most` units of `text`, in order. What has no letter and no digit is none."""
    return list(islice((unit for unit in _units(text.strip()) if _SAYS.search(unit.text)), most))


def _units(text: str) -> Iterator[Unit]:
    if text[:1] in ("{", "["):
        try:
            return _entries(parse(text))
        except BadInput:  # cut, or only looks like JSON
            if len(leaves := _LEAF.findall(text)) >= 3:
                return (unit for name, value in leaves for unit in _leaf(value, name))
    return _markdown(text)


def _markdown(text: str) -> Iterator[Unit]:
    lines = text.split("\n")
    heading = ""
    held: list[str] = []  # the lines of the paragraph or list item being read
    kind = Kind.PROSE
    at = 0
    while at < len(lines):
        line = lines[at]
        at += 1
        found_heading = _HEADING.match(line)
        item = None if found_heading else _ITEM.match(line)
        fence = _FENCE.match(line)
        table = "|" in line and at < len(lines) and _is_table_rule(lines[at])
        rule = _is_rule(line)
        if not (found_heading or item or fence or table or rule or not line.strip()):
            held.append(line)
            continue
        yield from _prose(held, kind, heading)
        held, kind = [], Kind.PROSE
        if found_heading:
            heading = " ".join(found_heading[1].strip().rstrip("#").split())[:LONGEST]
        elif fence:
            end = at
            while end < len(lines) and not lines[end].strip().startswith(fence[1]):
                end += 1
            yield from _block([line, *lines[at:end], fence[1]], heading)
            at = end + 1
        elif table:
            end = at + 1
            while end < len(lines) and "|" in lines[end]:
                end += 1
            yield from _table(lines[at - 1 : end], heading)
            at = end
        elif item:
            held, kind = [item[1]], Kind.ITEM
    yield from _prose(held, kind, heading)


def _is_table_rule(line: str) -> bool:
    return "-" in line and not line.strip("|-: \t\r")


def _is_rule(line: str) -> bool:
    marks = "".join(line.split())
    return len(marks) >= 3 and marks[0] in "-*_=" and not marks.strip(marks[0])


def _prose(lines: list[str], kind: Kind, heading: str) -> Iterator[Unit]:
    text = " ".join(" ".join(lines).split())
    if not text:
        return
    start = ticks = seen = 0
    for end in _END.finditer(text):
        if end[0][0] == "." and _ABBREVIATION.search(text[max(start, end.end() - 12) : end.start() + 1]):
            continue
        ticks, seen = ticks + text.count("`", seen, end.end()), end.end()
        if ticks % 2 and "`" in text[seen : seen + LONGEST]:
            continue  # within code, which goes on
        for piece in _pieces(text[start : end.end()].strip()):
            yield Unit(piece, kind, heading)
        start = end.end()
    for piece in _pieces(text[start:].strip()):
        yield Unit(piece, kind, heading)


def _pieces(text: str) -> Iterator[str]:
    start = 0
    while len(text) - start > LONGEST:
        end = text.rfind(" ", start + LONGEST // 2, start + LONGEST)
        end = end if end > 0 else start + LONGEST
        yield text[start:end].strip() + " …"
        start = end
    if text[start:].strip():
        yield text[start:].strip()


def _block(lines: list[str], heading: str) -> Iterator[Unit]:
    if sum(map(len, lines)) <= LONGEST_BLOCK and any(line.strip() for line in lines[1:-1]):
        yield Unit("\n".join(lines), Kind.BLOCK, heading)


def _table(lines: list[str], heading: str) -> Iterator[Unit]:
    if sum(map(len, lines)) <= LONGEST_BLOCK:
        yield Unit("\n".join(line.strip() for line in lines), Kind.BLOCK, heading)
        return
    names = _cells(lines[0])
    for line in lines[2:]:
        pairs = (f"{name}: {cell}" if name else cell for name, cell in zip(names, _cells(line), strict=False) if cell)
        for piece in _pieces("; ".join(pairs)):
            yield Unit(piece, Kind.ENTRY, heading)


def _cells(line: str) -> list[str]:
    cells = _BETWEEN_CELLS.split(line.strip().strip("|"))
    return [" ".join(cell.replace("\\|", "|").split()) for cell in cells]


def _entries(value: Json, name: str = "") -> Iterator[Unit]:
    """Yield the leaves of a JSON document; an object of short leaves stays together, long strings are read as text."""
    if isinstance(value, str):
        if len(value) <= LONGEST and "\n" not in value:
            if value.strip():
                yield Unit(f"{name}: {value}" if name else value, Kind.ENTRY)
        else:
            for unit in _markdown(value):
                yield Unit(unit.text, unit.kind, unit.heading or name)
    elif isinstance(value, dict):
        short = "; ".join(f"{key}: {as_text(child)}" for key, child in value.items() if _is_short(child))
        together = bool(short) and len(short) <= LONGEST
        if together:
            yield Unit(f"{name}: {short}" if name else short, Kind.ENTRY)
        for key, child in value.items():
            if not (together and _is_short(child)):
                yield from _entries(child, key)
    elif isinstance(value, list):
        if all(_is_short(child) for child in value):
            for piece in _pieces(", ".join(as_text(child) for child in value)):
                yield Unit(f"{name}: {piece}" if name else piece, Kind.ENTRY)
        else:
            for child in value:
                yield from _entries(child, name)
    elif value is not None:
        yield Unit(f"{name}: {as_text(value)}" if name else as_text(value), Kind.ENTRY)


def _leaf(text: str, name: str) -> Iterator[Unit]:
    try:
        yield from _entries(parse(text), name)
    except BadInput:  # an escape that is none
        return


def _is_short(value: Json) -> bool:
    return (
        not isinstance(value, (dict, list))
        and value is not None
        and (not isinstance(value, str) or (len(value) <= 160 and "\n" not in value))
    )
