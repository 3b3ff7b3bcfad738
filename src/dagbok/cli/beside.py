"""The engine that has the database already, if there is one: a server is asked, any other is named."""

from __future__ import annotations

import socket
from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import urlsplit

from dagbok.cli.terminal import clean, line, note
from dagbok.errors import DatabaseInUse
from dagbok.outside import Owner, find_owner
from dagbok.settings import Settings

_LOOPBACK: Final = frozenset({"127.0.0.1", "localhost", "::1"})


def server_url(settings: Settings) -> str | None:
    """Return where the engine that has the database answers; None: there is none, or it answers to nobody.

    Raises:
        DatabaseInUse: It answers on another computer, to that alone.
    """
    owner = find_owner(settings)
    url = owner.get("url") if owner else None
    if not owner or not url:
        return None  # one without a URL is told of by its lock
    host = owner.get("host")
    if urlsplit(url).hostname in _LOOPBACK and host not in (None, socket.gethostname()):
        raise DatabaseInUse(
            f"The database is in use by a server on {host}, which answers at {url} there alone; run this on {host}, or "
            "stop it first.",
            owner=owner,
        )
    return url


def owner_words(owner: Mapping[str, Any]) -> str:
    """Return how people know an engine: "process 4711 (dagbok run)"."""
    pid = f"process {owner['pid']}" if "pid" in owner else "another process"
    elsewhere = f" on {line(owner['host'], 60)}" if owner.get("host") not in (None, socket.gethostname()) else ""
    return clean(f"{pid}{elsewhere} ({line(str(owner.get('command', 'unknown')), 60)})")


def works_on(owner: Owner | None, worker: str | None) -> bool:
    """Return whether the engine that has the database works on an execution whose row names `worker`, or will."""
    if owner is None:
        return False
    named = (worker or "").rsplit(":", 2)  # command, pid, and a name of its own
    return len(named) < 3 or "pid" not in owner or named[1] == str(owner["pid"])


def told_of_flags(flags: Mapping[str, Any]) -> None:
    """Say which flags a server, which has settings of its own, does not heed."""
    if ignored := ", ".join(f"--{name}" for name, value in flags.items() if value):
        note(f"It has its own settings: {ignored} changes nothing here.")
