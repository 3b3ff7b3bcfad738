"""A graph as one SVG image: no script, nothing from elsewhere, the colours of day or night as the reader has it.

Each box says its state by colour and by sign, and tells its whole story to whoever points at it or has it read out
(`<title>`, the roles of WAI-ARIA Graphics). Words of a plan are text and never markup, and stay within their boxes.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterable, Iterator, Sequence
from html import escape
from itertools import pairwise
from typing import Final

from dagbok.domain.diagram import LOOKS, Diagram, Node
from dagbok.domain.drawing import Drawing, Points
from dagbok.domain.labels import plain, prose, squeezed
from dagbok.domain.layout import Box
from dagbok.errors import BadInput

_MARGIN: Final = 20
_HEAD: Final = 64  # title and legend
_MIN_WIDTH: Final = 360


def _style() -> str:
    light = "".join(
        f".{status}{{fill:{look.fill};stroke:{look.stroke}{';stroke-dasharray:4 3' if look.dashed else ''}}}"
        f".sign.{status}{{fill:{look.stroke}}}"
        for status, look in LOOKS.items()
    )
    dark = "".join(
        f".{status}{{fill:{look.dark_fill};stroke:{look.dark_stroke}}}.sign.{status}{{fill:{look.dark_stroke}}}"
        for status, look in LOOKS.items()
    )
    return (
        "svg{color-scheme:light dark}text{font:12px system-ui,'DejaVu Sans',sans-serif;fill:#343a40}"
        ".back{fill:#fff}.name{font-weight:600;fill:#1c1e21}.head{font-size:16px;font-weight:600;fill:#1c1e21}"
        ".lines{fill:none;stroke:#868e96;stroke-width:1.3;marker-end:url(#tip)}.tip{fill:#868e96}"
        f".frame{{fill:#f8f9fa;stroke:#ced4da}}{light}.sign{{stroke:none;font-weight:700}}"
        "@media(prefers-color-scheme:dark){text{fill:#ced4da}.back{fill:#141517}.name,.head{fill:#f1f3f5}"
        f".lines{{stroke:#787f87}}.tip{{fill:#787f87}}.frame{{fill:#1a1b1e;stroke:#373a40}}{dark}.sign{{stroke:none}}}}"
    )


_STYLE: Final = _style()
#: What an image may load when it is opened by itself: its own style, nothing else.
CSP: Final = (
    f"default-src 'none'; style-src 'sha256-{base64.b64encode(hashlib.sha256(_STYLE.encode()).digest()).decode()}'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'; sandbox"
)


def write(diagram: Diagram) -> str:
    """Return the graph as SVG.

    Raises:
        BadInput: It has too many lines for a picture.
    """
    drawing = diagram.drawing()
    if drawing is None:
        lines = sum(map(len, diagram.parents))
        raise BadInput(
            f"{lines:,} dependencies are too many for a picture; `json`, `dot` and `mermaid` have them all.",
            pointer="/format",
        )
    return "".join(_parts(diagram, drawing))


def _parts(diagram: Diagram, drawing: Drawing) -> Iterator[str]:
    title = plain(diagram.title) or diagram.execution_id
    legend, legend_width = _legend(diagram)
    width = max(drawing.width, legend_width, _MIN_WIDTH) + 2 * _MARGIN
    height = drawing.height + _HEAD + 2 * _MARGIN
    yield (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" viewBox="0 0 {width} {height}" '
        f'role="graphics-document document" aria-labelledby="title" aria-describedby="summary">'
        f'<title id="title">{_text(title)}</title>'
        f'<desc id="summary">{_text(f"{diagram.status}; {diagram.summary()}")}</desc><style>{_STYLE}</style>'
        f'<defs><marker id="tip" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" orient="auto">'
        f'<path class="tip" stroke="none" d="M0 0L8 4L0 8z"/></marker>{_clips(drawing)}</defs>'
        f'<rect class="back" width="{width}" height="{height}"/>'
        f'<text class="head" x="{_MARGIN}" y="{_MARGIN + 16}">{_text(prose(title, (width - 2 * _MARGIN) // 10))}</text>'
    )
    yield from legend
    left = _MARGIN + (width - 2 * _MARGIN - drawing.width) // 2
    yield f'<g transform="translate({left} {_MARGIN + _HEAD})">'
    for frame in drawing.frames:
        yield f'<rect class="frame" {_place(frame.box)} rx="10"/>'
    yield '<g class="lines" aria-hidden="true">'
    yield from (f'<path d="{_path(route.points)}"/>' for route in drawing.routes)
    yield "</g>"
    for node, box in zip(diagram.nodes, drawing.boxes, strict=True):
        yield from _box(node, box, drawing.size.name)
    yield "</g></svg>\n"


def _legend(diagram: Diagram) -> tuple[Sequence[str], int]:
    parts = []
    x = _MARGIN
    y = _MARGIN + 40
    for status, count in diagram.counts():
        words = f"{status} {count:,}"
        parts.append(
            f'<rect class="{status}" x="{x}" y="{y - 12}" width="16" height="16" rx="4"/>'
            f'<text class="sign {status}" x="{x + 8}" y="{y}" text-anchor="middle">{LOOKS[status].sign}</text>'
            f'<text x="{x + 22}" y="{y}">{words}</text>'
        )
        x += 40 + len(words) * 7
    if not parts:
        parts.append(f'<text x="{x}" y="{y}">{diagram.summary()}</text>')
    return parts, x - _MARGIN


def _clips(drawing: Drawing) -> str:
    width, height = drawing.size.width, drawing.size.height
    return f'<clipPath id="box"><rect width="{width - 6}" height="{height}"/></clipPath>'


def _box(node: Node, box: Box, size: str) -> Iterable[str]:
    title = f"<title>{_text(node.story())}</title>"
    yield f'<g role="graphics-symbol img" transform="translate({box.x} {box.y})">{title}'
    radius = {"full": 8, "small": 6}.get(size, 4)
    yield f'<rect class="{node.status}" width="{box.width}" height="{box.height}" rx="{radius}"/>'
    sign = f'class="sign {node.status}"'
    if size == "full":
        heading = _text(node.heading(_room(node.name + node.tool, box.width - 36, bold=True)))
        yield f'<text {sign} x="10" y="20">{LOOKS[node.status].sign}</text><g clip-path="url(#box)">'
        yield f'<text class="name" x="27" y="20">{heading}</text>'
        description = plain(node.description)
        if words := prose(description, _room(description[:80], box.width - 20)):
            yield f'<text x="10" y="38">{_text(words)}</text>'
        yield "</g>"
    elif size == "small":
        name = _text(squeezed(node.name, _room(node.name, box.width - 28, bold=True)))
        yield f'<text {sign} x="7" y="17">{LOOKS[node.status].sign}</text>'
        yield f'<g clip-path="url(#box)"><text class="name" x="22" y="17">{name}</text></g>'
    yield "</g>"


def _room(text: str, width: int, *, bold: bool = False) -> int:
    """Return how many columns of text like this fit, by a guess: which font there is, its reader knows."""
    capitals = sum(map(str.isupper, text)) / max(1, len(text))
    return int(width / ((7.4 if bold else 6.5) + 2 * capitals))


def _path(points: Points) -> str:
    """Return a line that leaves and enters each layer upright."""
    x, y = points[0]
    parts = [f"M{x} {y}"]
    for (x, y), (next_x, next_y) in pairwise(points):
        if x == next_x:
            parts.append(f"V{next_y}")
        else:
            middle = (y + next_y) // 2
            parts.append(f"C{x} {middle} {next_x} {middle} {next_x} {next_y}")
    return "".join(parts)


def _place(box: Box) -> str:
    return f'x="{box.x}" y="{box.y}" width="{box.width}" height="{box.height}"'


def _text(text: str) -> str:
    return escape(text, quote=False)
