"""The graph of one execution: its sub-steps as nodes with their states, who waits for whom, and how both are shown.

It never holds results. Nodes stand in the order of their positions, so the same rows give the same picture in every
format, whatever the order of the plan.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

from dagbok.domain import drawing, values
from dagbok.domain.drawing import Drawing, Parents
from dagbok.domain.ids import SYNTHESIS
from dagbok.domain.labels import cut, plain, squeezed
from dagbok.domain.states import StepStatus
from dagbok.errors import BadInput

#: What a graph can be written in, and the media type of each.
MEDIA_TYPES: Final = {
    "json": "application/json",
    "mermaid": "text/vnd.mermaid",
    "dot": "text/vnd.graphviz",
    "svg": "image/svg+xml",
}


class Look(NamedTuple):
    """How a state is shown: a sign, so that nobody needs to see colours, then fill and stroke, by day and by night."""

    sign: str
    fill: str
    stroke: str
    dark_fill: str
    dark_stroke: str
    dashed: bool = False  # it will not run


LOOKS: Final[Mapping[str, Look]] = {
    StepStatus.COMPLETED: Look("✓", "#d3f9d8", "#2b8a3e", "#12351f", "#51cf66"),
    StepStatus.RUNNING: Look("▶", "#d0ebff", "#1971c2", "#0f2a44", "#74c0fc"),
    StepStatus.WAITING: Look("?", "#fff3bf", "#b35900", "#3a2d08", "#ffd43b"),
    StepStatus.FAILED: Look("✗", "#ffe3e3", "#c92a2a", "#3b1616", "#ff8787"),
    StepStatus.PENDING: Look("·", "#f1f3f5", "#6c757d", "#25282c", "#909aa4"),
    StepStatus.SKIPPED: Look("↷", "#ffffff", "#868e96", "#1b1d20", "#7d868f", dashed=True),
    StepStatus.CANCELLED: Look("⊘", "#e9ecef", "#495057", "#2b2f33", "#adb5bd", dashed=True),
}


class Node(NamedTuple):
    """A sub-step as the graph shows it."""

    task_id: str
    position: int
    description: str
    action_type: str
    tool_or_prompt_name: str
    status: str
    reason: str | None
    attempt: int
    error_code: str | None
    started_at: int | None
    completed_at: int | None
    duration_ms: int | None
    next_attempt_at: int | None

    @property
    def name(self) -> str:
        """Its id as people see it."""
        return "synthesis" if self.task_id == SYNTHESIS else plain(self.task_id)

    @property
    def tool(self) -> str:
        """What it calls, as people see it; the synthesis has said its own."""
        if self.task_id == SYNTHESIS:
            return ""
        return plain(self.tool_or_prompt_name) if self.action_type == "tool" else self.action_type

    def heading(self, room: int = 2**31) -> str:
        """Return id and tool in so many columns."""
        name, tool = self.name, self.tool
        if not tool:
            return squeezed(name, room)
        name = squeezed(name, max(room - 3 - len(tool), room // 2))
        return cut(f"{name} · {tool}", room)

    def story(self) -> str:
        """Return all there is to say about it, for whoever points at it."""
        outcome = f"{self.status} ({self.reason})" if self.reason else self.status
        parts = [f"{self.heading()}: {outcome}"]
        if self.attempt > 1:
            parts.append(f"attempt {self.attempt}")
        if self.error_code:
            parts.append(plain(self.error_code))
        if self.duration_ms is not None:
            parts.append(f"{self.duration_ms / 1000:,.1f} s")
        return "\n".join(part for part in (", ".join(parts), plain(self.description)) if part)


@dataclass(frozen=True, slots=True)
class Diagram:
    """The graph of an execution as it stands."""

    execution_id: str
    title: str
    status: str
    nodes: Sequence[Node]
    parents: Parents  #: of each node, by position

    def counts(self) -> list[tuple[str, int]]:
        """Return the states that nodes are in, in the order of `LOOKS`, each with how many are."""
        found = Counter(node.status for node in self.nodes)
        return [(status, found[status]) for status in LOOKS if found[status]]

    def summary(self) -> str:
        """Return how far it is in one line."""
        states = ", ".join(f"{count:,} {status}" for status, count in self.counts())
        number = "1 sub-step" if len(self.nodes) == 1 else f"{len(self.nodes):,} sub-steps"
        return f"{number}: {states}" if states else "no sub-steps"

    def drawing(self) -> Drawing | None:
        """Return where everything stands; None where it has too many lines for a picture."""
        return drawing.draw(self.parents)


def of(execution: Mapping[str, Any], steps: Sequence[Mapping[str, Any]]) -> Diagram:
    """Return the graph of these rows.

    Args:
        execution: Its id, title and status.
        steps: The columns of `Node`, and `dependencies` as JSON text.

    Raises:
        BadInput: There are more dependencies than any format bears.
    """
    rows = sorted(steps, key=lambda step: step["position"])  # the synthesis is last
    nodes = [Node(**{name: row[name] for name in Node._fields}) for row in rows]
    at = {node.task_id: position for position, node in enumerate(nodes)}
    parents: list[tuple[int, ...]] = []
    count = 0
    for row in rows:
        named: Any = values.decode(row["dependencies"])
        parents.append(tuple(sorted({at[id] for id in named})))
        count += len(parents[-1])
    if nodes and nodes[-1].task_id == SYNTHESIS:
        # It waits for all; the lines from those that nothing else waits for say so.
        waited_for = {parent for above in parents for parent in above}
        parents[-1] = tuple(position for position in range(len(nodes) - 1) if position not in waited_for)
    if count > drawing.MAX_EDGES:
        raise BadInput(
            f"{execution['id']} has {count:,} dependencies; a graph shows at most {drawing.MAX_EDGES:,}. "
            "Its sub-steps tell each of theirs.",
            pointer="/format",
        )
    return Diagram(execution["id"], execution["title"], execution["status"], nodes, tuple(parents))
