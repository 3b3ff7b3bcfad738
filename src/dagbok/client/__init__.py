"""Dagbok over HTTP: `Client` and `AsyncClient`, the same methods, the same errors as the library raises locally.

A submission carries an idempotency key, always: so it is sent again where its answer was lost or the server was away
for a moment, and runs once. Waiting is the server's (`Prefer: wait`): it answers the moment an execution has ended.
"""

from dagbok.client.awaiting import AsyncClient
from dagbok.client.blocking import Client

__all__ = ["AsyncClient", "Client"]
