"""Which sub-steps of an execution that ended a retry runs again: what was lost, and what only that has skipped."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final, TypeVar

from dagbok.domain import values
from dagbok.domain.ids import SYNTHESIS
from dagbok.domain.states import Reason, StepStatus

#: What a step is that was lost.
LOST: Final = frozenset({StepStatus.FAILED, StepStatus.CANCELLED})
Node = TypeVar("Node", int, str)  # a position, or a task id


def again(rows: Mapping[str, Mapping[str, Any]], named: Iterable[str] | None) -> set[str]:
    """Return the task ids that do, told from rows: of what was lost those that are `named`; and the synthesis.

    Linear in rows and dependencies. `rows`: the columns of `sub_steps` by task id.
    """
    parents = {id: values.decode(row["dependencies"]) for id, row in rows.items()}
    children: dict[str, list[str]] = {}
    for id, above in parents.items():
        for parent in above:
            children.setdefault(parent, []).append(id)

    def waits_for(child: str) -> int | None:
        if rows[child]["reason"] != Reason.DEPENDENCY_FAILED:
            return None
        return sum(not _is_done(rows[parent]) for parent in parents[child])

    lost = {id for id, row in rows.items() if row["status"] in LOST and id != SYNTHESIS}
    roots = lost if named is None else lost & set(named)
    found = set(with_skipped(roots, lambda parent: children.get(parent, ()), waits_for))
    if SYNTHESIS in rows:
        found.add(SYNTHESIS)
    return found


def with_skipped(
    roots: Iterable[Node], children: Callable[[Node], Iterable[Node]], waits_for: Callable[[Node], int | None]
) -> list[Node]:
    """Return sub-tasks and what they skipped, as far as nothing else that was lost stands before it.

    `waits_for`: on how many that are not done one depends; None for what was not skipped by a failure. Asked once each.
    """
    again = list(roots)
    stack, chosen = list(again), set(again)
    left: dict[Node, int | None] = {}
    while stack:
        for child in children(stack.pop()):
            if child in chosen:
                continue
            if child not in left:
                left[child] = waits_for(child)
            if (still := left[child]) is None:
                continue
            left[child] = still - 1
            if still == 1:
                chosen.add(child)
                again.append(child)
                stack.append(child)
    return again


def _is_done(row: Mapping[str, Any]) -> bool:
    return bool(row["status"] == StepStatus.COMPLETED or row["reason"] == Reason.CHOSEN)
