"""Responses, written from rows as JSON text: a stored result is copied and never parsed.

The models of `dagbok.wire` say the same to OpenAPI, to the client and to the library, and tests hold the two together.
Every field is always there; what has no value is `null`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any
from urllib.parse import quote

import orjson
from pydantic.alias_generators import to_camel

from dagbok.domain import dot, mermaid, overrides, svg
from dagbok.domain.diagram import Diagram, Node
from dagbok.domain.inbox import InboxPage
from dagbok.domain.records import Page
from dagbok.domain.states import Reason
from dagbok.domain.wording import iso as iso  # for those who write more than rows
from dagbok.wire import Attempt, ExecutionSummary, HumanInput, Question, Shape, SubStep

Row = Mapping[str, Any]

_TIMES = frozenset({
    "started_at", "completed_at", "last_retry_at", "paused_at", "deadline_at", "wake_at", "next_attempt_at",
    "created_at", "updated_at", "asked_at", "due_at", "closed_at",
})  # fmt: skip
_JSON = frozenset({
    "tool_or_prompt_params", "dependencies", "input", "result", "progress", "usage", "total_usage", "labels", "options",
    "answer_schema", "shown", "answer", "override",
})  # fmt: skip
_FORMS: Mapping[str, Callable[[Any], Any]] = dict.fromkeys(_TIMES, iso) | dict.fromkeys(_JSON, orjson.Fragment)

#: Of a record: each column, its name outside, and what becomes of a value that is not None.
Columns = Sequence[tuple[str, str, Callable[[Any], Any] | None]]


def _columns(names: Iterable[str]) -> Columns:
    return tuple((name, to_camel(name), _FORMS.get(name)) for name in names)


def _columns_of(shape: type[Shape], *, but: Iterable[str] = ()) -> Columns:
    fields = ((name, field.alias or to_camel(name)) for name, field in shape.model_fields.items() if name not in but)
    return tuple((name, outside, _FORMS.get(name)) for name, outside in fields)


_SUMMARY = _columns_of(ExecutionSummary)
_STEP = _columns_of(SubStep, but=("result_url", "attempts", "question"))
_QUESTION = _columns_of(Question)
_HUMAN_INPUT = _columns_of(HumanInput)
_NODE = _columns(Node._fields)
_ATTEMPT = _columns_of(Attempt, but=("duration_ms",))


def execution_json(row: Row, sub_steps: Iterable[Row] | None = None) -> bytes:
    """Return an execution as JSON, with its sub-steps if given."""
    return orjson.dumps(_execution(row, sub_steps))


def executions_json(page: Page) -> bytes:
    """Return a page of executions as JSON."""
    pagination = {
        "limit": page.limit,
        "offset": page.offset,
        "count": len(page.items),
        "total": page.total,
        "totalIsEstimate": page.total_is_estimate,
        "nextCursor": page.next_cursor,
    }
    items = [_execution(row, None) for row in page.items]
    return orjson.dumps({"executions": items, "pagination": pagination})


def sub_steps_json(execution_id: str, rows: Sequence[Row]) -> bytes:
    """Return the sub-steps of an execution as JSON."""
    return orjson.dumps({"executionId": execution_id, "subSteps": [_sub_step(row) for row in rows]})


def attempts_json(execution_id: str, task_id: str, rows: Iterable[Row]) -> bytes:
    """Return tries of a sub-step as JSON."""
    attempts = [_attempt(row) for row in rows]
    return orjson.dumps({"executionId": execution_id, "taskId": task_id, "attempts": attempts})


def human_inputs_json(page: InboxPage) -> bytes:
    """Return a page of questions to people as JSON."""
    pagination = {"limit": page.limit, "count": len(page.items), "nextCursor": page.next_cursor}
    items = [_view(_HUMAN_INPUT, row) for row in page.items]
    return orjson.dumps({"humanInputs": items, "pagination": pagination})


def graph_document(diagram: Diagram, format: str) -> bytes:
    """Return a graph in one of `dagbok.domain.diagram.MEDIA_TYPES`. Raises BadInput where it cannot be shown so."""
    if format == "json":
        return orjson.dumps(_graph(diagram))
    return {"mermaid": mermaid.write, "dot": dot.write, "svg": svg.write}[format](diagram).encode()


def result_url(execution_id: str, task_id: str) -> str:
    """Return the path of a sub-step's whole result."""
    return f"/api/v1/dag-executions/{execution_id}/sub-steps/{quote(task_id, safe='')}/result"


def _execution(row: Row, sub_steps: Iterable[Row] | None) -> dict[str, Any]:
    view = _view(_SUMMARY, row)
    if sub_steps is not None:
        view["subSteps"] = [_sub_step(step) for step in sub_steps]
    return view


def _graph(diagram: Diagram) -> dict[str, Any]:
    drawing = diagram.drawing()
    ids = [node.task_id for node in diagram.nodes]
    nodes = []
    for number, node in enumerate(diagram.nodes):
        view = _view(_NODE, node._asdict())
        box = drawing.boxes[number] if drawing else (None,) * 4
        nodes.append(view | dict(zip(("x", "y", "width", "height"), box, strict=True)))
    return {
        "executionId": diagram.execution_id,
        "title": diagram.title,
        "status": diagram.status,
        "width": drawing.width if drawing else None,
        "height": drawing.height if drawing else None,
        "nodes": nodes,
        "edges": [
            {"source": ids[parent], "target": ids[number]}
            for number, above in enumerate(diagram.parents)
            for parent in above
        ],
        "frames": [
            {"taskIds": [ids[member] for chain in frame.chains for member in chain], **frame.box._asdict()}
            for frame in (drawing.frames if drawing else ())
        ],
        "lines": [
            {"sources": [ids[at] for at in r.sources], "targets": [ids[at] for at in r.targets], "points": r.points}
            for r in (drawing.routes if drawing else ())
        ],
    }


def _sub_step(row: Row) -> dict[str, Any]:
    view = _view(_STEP, row)
    if row["input"] is None and row["input_bytes"] is None and (row["attempt"] or row["reason"] == Reason.REUSED):
        view["input"] = _params(row)  # stored only where references made it differ
    view["attempts"] = [_attempt(attempt) for attempt in row["attempts"]]
    asked = row["question"]
    view["question"] = None if asked is None else _view(_QUESTION, asked)
    large = row["result"] is None and row["result_bytes"] is not None
    view["resultUrl"] = result_url(row["execution_id"], row["task_id"]) if large else None
    return view


def _params(row: Row) -> Any:
    """Return what the sub-step is called with now, before references are replaced."""
    if row["override"] is None:
        return orjson.Fragment(row["tool_or_prompt_params"])
    return overrides.params(orjson.loads(row["tool_or_prompt_params"]), orjson.loads(row["override"]))


def _attempt(row: Row) -> dict[str, Any]:
    view = _view(_ATTEMPT, row)
    began = row["started_at"]
    # A clock that was set back makes no try shorter than nothing.
    view["durationMs"] = None if began is None else max(0, row["completed_at"] - began)
    return view


def _view(columns: Columns, row: Row) -> dict[str, Any]:
    return {
        outside: value if (value := row[name]) is None or form is None else form(value)
        for name, outside, form in columns
    }
