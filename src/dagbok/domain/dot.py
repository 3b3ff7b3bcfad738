"""A graph in the language of Graphviz (https://graphviz.org/doc/info/lang.html), for `dot -Tpdf` and its kin."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from dagbok.domain.diagram import LOOKS, Diagram
from dagbok.domain.labels import plain, prose

_ROOM: Final = 32


def write(diagram: Diagram) -> str:
    """Return the graph as a `digraph`; what does not fit a label is in its tooltip."""
    return "\n".join([*_lines(diagram), ""])


def _lines(diagram: Diagram) -> Iterator[str]:
    yield f"digraph {_quoted(diagram.execution_id)} {{"
    yield f'    graph [label={_quoted(prose(plain(diagram.title), 120))}, labelloc=t, fontname="sans-serif"]'
    yield '    node [shape=box, style="rounded,filled", fontname="sans-serif", fontsize=11]'
    yield '    edge [color="#868e96", arrowsize=0.7]'
    for number, node in enumerate(diagram.nodes):
        look = LOOKS[node.status]
        label = [f"{look.sign} {node.heading(_ROOM)}", prose(plain(node.description), _ROOM)]
        style = ', style="rounded,filled,dashed"' if look.dashed else ""
        yield (
            f"    n{number} [label={_quoted(*label)}, tooltip={_quoted(*node.story().splitlines())}, "
            f'fillcolor="{look.fill}", color="{look.stroke}"{style}]'
        )
    for number, above in enumerate(diagram.parents):
        for parent in above:
            yield f"    n{parent} -> n{number}"
    yield "}"


def _quoted(*lines: str) -> str:
    # Within quotes Graphviz knows escapes of its own (\N is the node's name), and HTML entities.
    escaped = (line.replace("\\", "\\\\").replace('"', '\\"').replace("&", "&amp;") for line in lines if line)
    return '"' + "\\n".join(escaped) + '"'
