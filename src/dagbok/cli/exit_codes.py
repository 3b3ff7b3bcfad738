"""What a script may go by: the exit code of how executions ended. 2 is for all that kept a plan from running."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from dagbok.domain.states import ExecutionStatus

EXIT_CODES: Final = {
    ExecutionStatus.COMPLETED: 0,
    ExecutionStatus.FAILED: 1,
    ExecutionStatus.PARTIAL: 3,
    ExecutionStatus.WAITING: 4,
    ExecutionStatus.CANCELLED: 5,
}
#: The server that runs it is away, and has been for a while; how it ends is not known.
SERVER_AWAY: Final = 6
#: Something keeps an execution from running here.
UNUSABLE: Final = 2


def of_several(statuses: Iterable[ExecutionStatus]) -> int:
    """Return the code of several executions: 0 if all completed, else that of the worst.

    One that could not be run here (it has neither ended nor waits) counts most.
    """
    codes = {EXIT_CODES.get(status, UNUSABLE) for status in statuses}
    return next((code for code in (UNUSABLE, 1, 3, 5, 4) if code in codes), 0)
