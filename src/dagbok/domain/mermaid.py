"""A graph as Mermaid text, for Markdown pages that draw it: GitHub, GitLab, many wikis and chats.

Mermaid itself draws 500 edges and 50,000 characters unless whoever shows it allows more.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

from dagbok.domain import values
from dagbok.domain.diagram import LOOKS, Diagram, Node
from dagbok.domain.labels import plain, prose

#: Columns of a description; Mermaid has no place for the rest.
_ROOM: Final = 60
# Words of a plan stand within quotes. There Mermaid knows entities (#...;), HTML and Markdown; none is let through. A
# colon would be taken, behind the word "style", for the beginning of a rule whose entities are to be left alone, and
# with the ligature begin the placeholders that stand for entities while Mermaid parses.
_SPECIAL: Final = re.compile(r"""[!"#$&*:;<>@\[\\\]^`{|}~\ufb02]|__|^[\d\-+]+[.)]?(?= )""")


def write(diagram: Diagram) -> str:
    """Return the graph as a Mermaid flowchart."""
    return "\n".join([*_lines(diagram), ""])


def _lines(diagram: Diagram) -> Iterator[str]:
    if title := prose(plain(diagram.title), 120):
        yield "---"
        yield f"title: {values.encode(title)}"
        yield "---"
    yield "flowchart TD"
    for number, node in enumerate(diagram.nodes):
        yield f'    n{number}["{_label(node)}"]:::{node.status}'
    for number, above in enumerate(diagram.parents):
        for parent in above:
            yield f"    n{parent} --> n{number}"
    for status, _ in diagram.counts():
        look = LOOKS[status]
        dashes = ",stroke-dasharray:4 3" if look.dashed else ""
        yield f"    classDef {status} fill:{look.fill},stroke:{look.stroke},color:#1c1e21{dashes}"


def _label(node: Node) -> str:
    heading = f"{LOOKS[node.status].sign} {node.heading(_ROOM)}"
    parts = [heading, prose(plain(node.description), _ROOM)]
    return "<br/>".join(_escaped(part) for part in parts if part)


def _escaped(text: str) -> str:
    return _SPECIAL.sub(lambda found: "".join(f"#{ord(char)};" for char in found[0]), text)
