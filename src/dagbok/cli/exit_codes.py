"""What a script may go by: the exit code of how executions ended. 2 is for all that kept a plan from running."""

from __future__ import annotations

from typing import Final

from dagbok.domain.states import ExecutionStatus

EXIT_CODES: Final = {
    ExecutionStatus.COMPLETED: 0,
    ExecutionStatus.FAILED: 1,
    ExecutionStatus.PARTIAL: 3,
    ExecutionStatus.WAITING: 4,
    ExecutionStatus.CANCELLED: 5,
}
INTERRUPTED: Final = 130
