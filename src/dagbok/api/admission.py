"""What is refused before a use case is asked: ids that nobody can have, and writing while the database is away."""

from __future__ import annotations

from typing import Annotated

from fastapi import Path

from dagbok.api import examples
from dagbok.errors import NotFound, StoreUnavailable
from dagbok.service import Service

ExecutionId = Annotated[str, Path(description="The id of the execution", examples=[examples.EXECUTION_ID])]


def writable(service: Service) -> None:
    """Raise at once while the database is away: the journal itself would hold the request until it is back."""
    if not service.ready:
        raise StoreUnavailable


def storable(id: str, what: str) -> None:
    """Raise NotFound for an id that no database can hold, and so nobody can have."""
    if len(id) > 500 or not id.isprintable():
        raise NotFound(f"There is no such {what}.")
