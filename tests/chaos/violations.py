"""What the campaign accuses the engine of: a law, and the words of the case."""

from __future__ import annotations

from enum import StrEnum
from typing import NamedTuple


class Law(StrEnum):
    """What must never be; the report counts each."""

    RAN_AGAIN = "completed and otherwise ended steps that ran again"
    REPEATED = "`once` bodies repeated without leave"
    EARLY = "bodies that ran before their start, or what they depend on, was durable"
    LOST = "accepted executions and commands lost or doubled"
    STUCK = "executions that did not end"
    CHANGED = "ended rows or written diary lines that changed"
    DIARY = "rows, counters, attempts, questions and diaries that disagree"
    WRONG = "wrong results and wrong ends"
    TWO = "engines that opened a database while another one had it"
    UNSOUND = "unsound databases (integrity, foreign keys, half a migration)"
    PROCESS = "processes that failed, hung or told of an unforeseen error"


class Violation(NamedTuple):
    """One case."""

    law: Law
    words: str

    def __str__(self) -> str:
        return f"{self.law}: {self.words}"
