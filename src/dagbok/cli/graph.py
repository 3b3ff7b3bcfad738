"""`dagbok show --graph`: the graph of an execution, drawn on the terminal if it is small, else written for others."""

from __future__ import annotations

import shutil
import sys
from typing import Final

from rich.text import Text

from dagbok import views
from dagbok.cli import render
from dagbok.cli.boxes import Drawn, draw
from dagbok.cli.show import find
from dagbok.cli.summary import command
from dagbok.cli.terminal import clean, is_terminal, line, note, out
from dagbok.cli.words import SIGNS, counted
from dagbok.domain.diagram import MEDIA_TYPES, Diagram
from dagbok.domain.labels import squeezed
from dagbok.errors import BadInput
from dagbok.outside import open_diary
from dagbok.settings import Settings

#: More boxes are no help on a terminal.
MAX_BOXES: Final = 60
#: Columns where nobody says how many there are.
_PLAIN_WIDTH: Final = 120
#: Columns of a box's words; the first that fits is taken.
_ROOMS: Final = (32, 24, 18, 12, 6)
#: With fewer, tools are left out.
_TOOLS_FROM: Final = 18


def show_graph(which: str, format: str | None, settings: Settings) -> int:
    """Show the graph of an execution; return the exit code.

    Args:
        which: `latest`, an id, or the start of one.
        format: What to write to standard output; None: a drawing.
        settings: Where the diary is.

    Raises:
        BadInput: There is no such format; the graph is too large for it.
    """
    if format is not None and format not in MEDIA_TYPES:
        raise BadInput(f"--format is {line(format, 60)!r}; it is one of {', '.join(MEDIA_TYPES)}.")
    with open_diary(settings) as diary:
        _, diagram = diary.graph(find(diary, which))
    if format == "json":
        render.print_json(views.graph_document(diagram, format))
    elif format is not None:
        out(clean(views.graph_document(diagram, format).decode()), end="")
    else:
        _draw(diagram, settings)
    return 0


def _draw(diagram: Diagram, settings: Settings) -> None:
    fancy = is_terminal(sys.stdout)
    width = shutil.get_terminal_size((_PLAIN_WIDTH, 24)).columns if fancy else _PLAIN_WIDTH
    counts = [f"{SIGNS[status][0]} {count:,} {status}" for status, count in diagram.counts()]
    heading = f"{line(diagram.title)}: {', '.join([counted(len(diagram.nodes), 'sub-step'), *counts])}"
    drawn = _fitted(diagram, width)
    if drawn is None:
        out(heading)
        svg = command(settings, "show", diagram.execution_id, "--format", "svg")
        note(f"The graph is too large to be drawn here. As a picture: `{svg} > graph.svg`")
    elif fancy:
        screen = render.console(sys.stdout)
        screen.print(Text(heading))
        for text, spans in zip(drawn.lines, drawn.spans, strict=True):
            row = Text(text, style="bright_black")
            for start, end, box in spans:
                row.stylize(SIGNS[diagram.nodes[box].status][1], start, end)
            screen.print(row, soft_wrap=True)
    else:
        out("\n".join([heading, *drawn.lines]))


def _fitted(diagram: Diagram, width: int) -> Drawn | None:
    if len(diagram.nodes) > MAX_BOXES:
        return None
    for room in _ROOMS:
        names = [node.heading(room) if room >= _TOOLS_FROM else squeezed(node.name, room) for node in diagram.nodes]
        signs = [SIGNS[node.status][0] for node in diagram.nodes]
        labels = [clean(f"{sign} {name}") for sign, name in zip(signs, names, strict=True)]
        if drawn := draw(diagram.parents, labels, width=width):
            return drawn
    return None
