"""Dagbok over HTTP: `Client` and `AsyncClient`, the same methods, the same errors as the library raises locally."""

from dagbok.client.clients import AsyncClient, Client

__all__ = ["AsyncClient", "Client"]
