"""Idempotency keys: which of them are under way in this process, and what came of those that were used.

The rows are the truth: a key belongs to the execution that was made with it for as long as that exists, through
restarts, and the unique index decides between two processes. What is kept here only keeps two submissions of one
process from doing the same work side by side.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import NamedTuple

from dagbok.domain.idempotency import check_key, request_hash
from dagbok.domain.values import Json
from dagbok.errors import IdempotencyInFlight, IdempotencyKeyReused
from dagbok.store.batch import Created
from dagbok.store.queries import Reader, Row


class Asked(NamedTuple):
    """An idempotency key, and what is asked under it."""

    key: str
    request_hash: str

    def must_be(self, earlier_hash: str | None, execution_id: str) -> None:
        """Raise IdempotencyKeyReused if the execution of this key was made by another request."""
        if self.request_hash != earlier_hash:
            message = f"The idempotency key {self.key!r} came with another request before, which made {execution_id}."
            raise IdempotencyKeyReused(f"{message} Take a new key for a new request.", execution_id=execution_id)


class Keys:
    """The keys of one engine. Call it on the engine's event loop."""

    def __init__(self, reader: Reader) -> None:
        self._reader = reader
        self._in_flight: dict[str, asyncio.Future[Created] | None] = {}  # with the commit, once there is one

    async def find(self, key: str | None, request: Mapping[str, Json]) -> tuple[Asked | None, Row | None]:
        """Return the key with what is asked under it, and the execution that the same request made before.

        Raises:
            BadInput: The key is none.
            IdempotencyInFlight: A submission with it is under way.
            IdempotencyKeyReused: Another request made an execution with it.
            StoreUnavailable: The database does not answer.
        """
        if key is None:
            return None, None
        check_key(key)
        self._not_in_flight(key)
        return await asyncio.to_thread(self._find, key, request)

    @contextmanager
    def alone(self, asked: Asked | None) -> Iterator[None]:
        """Keep other submissions with this key out until this one is decided, though its caller may leave before.

        Raises:
            IdempotencyInFlight: Another submission has it.
        """
        if asked is None:
            yield
            return
        self._not_in_flight(asked.key)
        self._in_flight[asked.key] = None
        try:
            yield
        finally:
            commit = self._in_flight[asked.key]
            if commit is None or commit.done():
                del self._in_flight[asked.key]
            else:
                commit.add_done_callback(lambda _: self._in_flight.pop(asked.key))

    def committing(self, asked: Asked, commit: asyncio.Future[Created]) -> None:
        """Hold the key until `commit` is done, whatever becomes of the block that it is alone in."""
        self._in_flight[asked.key] = commit

    def _not_in_flight(self, key: str) -> None:
        if key in self._in_flight:
            raise IdempotencyInFlight

    def _find(self, key: str, request: Mapping[str, Json]) -> tuple[Asked | None, Row | None]:
        hash = request_hash("execute-dag", request)
        if hash is None:  # no JSON: the check of the plan tells where
            return None, None
        asked, row = Asked(key, hash), self._reader.find_idempotent(key)
        if row is not None:
            asked.must_be(row["request_hash"], row["id"])
        return asked, row
