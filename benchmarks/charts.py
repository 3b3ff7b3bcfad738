"""The charts of docs/benchmarks.md as SVG: bars with their figures, readable on light and dark pages, a few KB each.

A chart brings its own background: it knows what the reader's system prefers, not the page that shows it, and a page may
be light on a system that is dark.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from html import escape

from benchmarks.results import Results, find, stretch
from benchmarks.subjects import SUBJECTS, Kind, Subject

STEPS = "benchmarks-steps.svg"
MAKESPAN = "benchmarks-makespan.svg"

WIDTH, LABEL, BAR, GAP, EDGE = 760, 200, 16, 5, 12
STYLE = """
text { font: 12px system-ui, sans-serif; fill: #24292f } .title { font-weight: 600 } .figure { font-size: 11px }
.page { fill: #ffffff } .axis { stroke: #d0d7de } .dagbok { fill: #1f7a5c } .peer { fill: #b35c1e }
.aside { fill: #c68548 } .limit { fill: #8c959f }
@media (prefers-color-scheme: dark) {
text { fill: #e6edf3 } .page { fill: #0d1117 } .axis { stroke: #3d444d } .dagbok { fill: #3fb98d }
.peer { fill: #e08a4b } .aside { fill: #96623b } .limit { fill: #6e7681 } }
"""

#: What a bar says: its subject, its value, the value in words.
Bar = tuple[Subject, float, str]


def draw(results: Results) -> dict[str, str]:
    """Return the charts by file name."""
    steps = [
        (f"{name}, steps per second (logarithmic)", _bars(lambda each, name=name: _steps(results, name, each)))  # type: ignore[misc]  # mypy cannot infer a default
        for name in ("W1", "W2", "W3")
    ]
    makespan = [
        (f"{name}, wall time by critical path{', the worst graph' if name == 'W5' else ''} (logarithmic, 1 is best)",
         _bars(lambda each, name=name: _stretch(results, name, each)))  # type: ignore[misc]  # likewise
        for name in ("W4", "W5")
    ]  # fmt: skip
    return {
        STEPS: _svg("Steps per second", steps, lambda value: max(0.0, math.log10(value) - 1)),
        MAKESPAN: _svg("Wall time by critical path", makespan, lambda value: max(0.0, math.log(value)) + 0.05),
    }


def _bars(value: Callable[[Subject], tuple[float, str] | None]) -> list[Bar]:
    return [(subject, *found) for subject in SUBJECTS if (found := value(subject))]


def _steps(results: Results, workload: str, subject: Subject) -> tuple[float, str] | None:
    run = find(results, workload, subject.name)
    return (run["steps_per_s"], f"{run['steps_per_s']:,.0f}") if run and run["steps_per_s"] else None


def _stretch(results: Results, workload: str, subject: Subject) -> tuple[float, str] | None:
    run = find(results, workload, subject.name)
    ratios = stretch(run) if run else None
    return (ratios[1], f"{ratios[1]:.2f}") if ratios else None


def _svg(title: str, groups: Sequence[tuple[str, Sequence[Bar]]], length: Callable[[float], float]) -> str:
    longest = max((length(value) for _, bars in groups for _, value, _ in bars), default=0.0) or 1.0
    parts: list[str] = []
    y = 0
    for name, bars in groups:
        y += 24
        parts.append(f'<text class="title" x="0" y="{y - 9}">{escape(name)}</text>')
        top = y
        for subject, value, words in bars:
            width = (WIDTH - LABEL - 70) * length(value) / longest
            middle = y + BAR - 4
            parts.append(f'<text x="{LABEL - 8}" y="{middle}" text-anchor="end">{escape(subject.name)}</text>')
            parts.append(
                f'<rect class="{subject.kind}" x="{LABEL}" y="{y}" width="{width:.1f}" height="{BAR}" rx="2"/>'
            )
            parts.append(f'<text class="figure" x="{LABEL + width + 5:.1f}" y="{middle}">{escape(words)}</text>')
            y += BAR + GAP
        parts.append(f'<path class="axis" d="M{LABEL} {top - 3}V{y}"/>')
        y += 8
    y += 14
    x = LABEL
    for kind, words in _LEGEND.items():
        parts.append(f'<rect class="{kind}" x="{x}" y="{y - 10}" width="10" height="10" rx="2"/>')
        parts.append(f'<text class="figure" x="{x + 14}" y="{y - 1}">{words}</text>')
        x += 28 + 6 * len(words)
    width, height = WIDTH + 2 * EDGE, y + EDGE
    box = f'viewBox="{-EDGE} 0 {width} {height}" role="img" aria-label="{escape(title)}"'
    head = f'<svg xmlns="http://www.w3.org/2000/svg" {box}>'
    page = f'<rect class="page" x="{-EDGE}" y="0" width="{width}" height="{height}" rx="6"/>'
    return "\n".join([head, f"<style>{STYLE}</style>", page, *parts, "</svg>", ""])


_LEGEND: dict[Kind, str] = {
    "dagbok": "Dagbok", "peer": "durable peers", "aside": "less durable", "limit": "limits",
}  # fmt: skip
