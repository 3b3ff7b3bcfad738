"""Where in the list of executions a page begins: the newest first, by the time and the id they were made with.

Both never change, so a walk from cursor to cursor meets each execution that was there when it began, and is not deleted
meanwhile, once, whatever is written in between. In a list of one status that holds for those that keep it; one that
changes its status is met where it then is in the list, if the walk has not passed that place.
"""

from __future__ import annotations

import re
from typing import Final, NamedTuple, Self

from dagbok.domain import cursor, values
from dagbok.errors import BadInput

MAX_LIMIT: Final = 100
#: The status, in cursors, of the list that has those of all.
ALL: Final = "all"

_CURSOR: Final = re.compile(r"([a-z]+):(0|[1-9]\d{0,18}):(dag-exec_[0-9A-Za-z-]{1,64})")


class Place(NamedTuple):
    """Behind which execution a page begins."""

    created_at: int  # ms
    id: str

    def cursor(self, status: str | None) -> str:
        """Return it as clients carry it, for the list of that status, or of all."""
        return cursor.encode(f"{status or ALL}:{self.created_at}:{self.id}")

    @classmethod
    def read(cls, given: str, status: str | None) -> Self:
        """Return the place that a cursor of the list of that status names. Raises BadInput."""
        found = _CURSOR.fullmatch(cursor.decode(given))
        if found is None or int(found[2]) > values.MAX_INTEGER:
            raise cursor.not_of_this_list()
        if found[1] != (status or ALL):
            raise cursor.of_another_list(found[1], status or ALL)
        return cls(int(found[2]), found[3])


def begins_behind(given: str | None, *, offset: int, status: str | None) -> Place | None:
    """Return where a page begins that is asked for by a cursor, or None: it is not.

    Raises:
        BadInput: The cursor is none of the list of that status, or there is an offset as well.
    """
    if given is None:
        return None
    if offset:
        raise BadInput("`offset` and `cursor` both say where a page begins; give one of them.", pointer="/offset")
    return Place.read(given, status)
