"""Which sub-steps of an execution that ended a retry would run again, told from its rows (`Rerun.retry` does it)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from dagbok.domain import values
from dagbok.domain.ids import SYNTHESIS
from dagbok.domain.rerun import LOST
from dagbok.domain.states import Reason, StepStatus


def again(rows: Mapping[str, Mapping[str, Any]], named: Iterable[str] | None) -> set[str]:
    """Return the task ids: what was lost (of it, what is `named`), what only that has skipped, and the synthesis.

    Linear in rows and dependencies. `rows`: the columns of `sub_steps` by task id.
    """
    parents = {id: values.decode(row["dependencies"]) for id, row in rows.items()}
    children: dict[str, list[str]] = {}
    left: dict[str, int] = {}  # of what was skipped: the dependencies that are not done, and do not run again
    for id, above in parents.items():
        if rows[id]["reason"] == Reason.DEPENDENCY_FAILED:
            left[id] = sum(not _is_done(rows[parent]) for parent in above)
            for parent in above:
                children.setdefault(parent, []).append(id)
    lost = {id for id, row in rows.items() if row["status"] in LOST and id != SYNTHESIS}
    found = lost if named is None else lost & set(named)
    stack = list(found)
    while stack:
        for child in children.get(stack.pop(), ()):
            left[child] -= 1
            if not left[child]:
                found.add(child)
                stack.append(child)
    if SYNTHESIS in rows:
        found.add(SYNTHESIS)
    return found


def _is_done(row: Mapping[str, Any]) -> bool:
    return bool(row["status"] == StepStatus.COMPLETED or row["reason"] == Reason.CHOSEN)
