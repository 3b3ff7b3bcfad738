"""Which questions to people somebody wants to see, and where in their list a page begins.

A page begins behind a question, not after so many: what is asked or answered meanwhile moves nothing.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, Literal, NamedTuple, Self

from dagbok.domain import cursor, doubt, values
from dagbok.errors import BadInput

#: What may be asked: a question of the plan, whether a sub-task may run, whether a cut-off attempt has happened.
KINDS: Final = ("human", "approval", doubt.KIND)
STATUSES: Final = ("open", "all")
MAX_LIMIT: Final = 100

Status = Literal["open", "all"]
Kind = Literal["human", "approval", "did_it_happen"]

_CURSOR: Final = re.compile(r"(open|all):(0|[1-9]\d{0,18}):(0|[1-9]\d{0,18})")


class Place(NamedTuple):
    """Behind which question a page begins."""

    asked_at: int  # ms
    id: int  # of its row

    def cursor(self, status: str) -> str:
        """Return it as clients carry it, for a list of that status."""
        return cursor.encode(f"{status}:{self.asked_at}:{self.id}")

    @classmethod
    def read(cls, given: str, status: str) -> Self:
        """Return the place that a cursor of the list of that status names. Raises BadInput."""
        found = _CURSOR.fullmatch(cursor.decode(given))
        place = cls(int(found[2]), int(found[3])) if found else None
        if found is None or place is None or max(place) > values.MAX_INTEGER:
            raise cursor.not_of_this_list()
        if found[1] != status:
            raise cursor.of_another_list(found[1], status)
        return place


@dataclass(frozen=True, slots=True)
class Wanted:
    """The questions that somebody wants to see: those that every filter fits, `limit` of them, behind `after`."""

    status: str = "open"  # open: the oldest first; all: the newest first
    kind: str | None = None
    assignee: str | None = None
    execution_id: str | None = None
    due_before: int | None = None  # ms; without a due time a question is never due
    limit: int = 50
    after: Place | None = None

    @classmethod
    def read(
        cls,
        *,
        status: str = "open",
        kind: str | None = None,
        assignee: str | None = None,
        execution_id: str | None = None,
        due_before: datetime | None = None,
        limit: int = 50,
        cursor: str | None = None,
    ) -> Self:
        """Return what is wanted, judged.

        Raises:
            BadInput: A filter cannot be used; the pointer names it.
        """
        if status not in STATUSES:
            raise BadInput(f"`status` is {status!r:.100}; it is one of {', '.join(STATUSES)}.", pointer="/status")
        if kind is not None and kind not in KINDS:
            raise BadInput(f"`kind` is {kind!r:.100}; it is one of {', '.join(KINDS)}.", pointer="/kind")
        for name, text in (("assignee", assignee), ("executionId", execution_id)):
            if next(values.faults(text), None) is not None:
                raise BadInput(f"`{name}` is what no database holds.", pointer=f"/{name}")
        if due_before is not None and due_before.tzinfo is None:
            raise BadInput("`dueBefore` has no zone: say +00:00, or Z.", pointer="/dueBefore")
        if not 1 <= limit <= MAX_LIMIT:
            raise BadInput(f"`limit` is {limit}; it is a number from 1 to {MAX_LIMIT}.", pointer="/limit")
        after = None if cursor is None else Place.read(cursor, status)
        due_ms = None if due_before is None else round(due_before.timestamp() * 1000)
        return cls(status, kind, assignee, execution_id, due_ms, limit, after)


@dataclass(frozen=True, slots=True)
class InboxPage:
    """One page of questions, as rows, each with the title of its execution."""

    items: Sequence[Mapping[str, Any]]
    limit: int
    next_cursor: str | None  # of the page behind it; None: this is the last
