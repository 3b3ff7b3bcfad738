"""Who holds the lock of an engine, in words that others can read, and how to tell whether they still live."""

from __future__ import annotations

import json
import os
import socket
from pathlib import Path
from typing import Final, TypedDict

from dagbok.errors import DatabaseInUse

# 1,024 bytes of a query are shown; a command line may be longer, and one character of it take twelve in JSON.
_COMMAND_BYTES: Final = 400


class Owner(TypedDict, total=False):
    """Who holds the lock, as far as it can be known."""

    pid: int
    host: str
    command: str
    url: str | None  #: where its API answers
    born: str | None  #: tells a process from a later one with the same pid


def myself(command: str, url: str | None) -> Owner:
    """Return the words of a new engine of this process."""
    command = command[:200]
    while len(json.dumps(command)) > _COMMAND_BYTES:
        command = command[:-1]
    return {
        "pid": os.getpid(),
        "host": socket.gethostname(),
        "command": command,
        "url": url,
        "born": _born(os.getpid()),
    }


def is_dead(owner: Owner, *, here: bool = False) -> bool:
    """Return whether `owner` seems to be a process of this computer (as it is known to be, if `here`) that is no more.

    In a container it may live in another one of the same name.
    """
    if "pid" not in owner or not (here or owner.get("host") == socket.gethostname()):
        return False
    try:
        os.kill(owner["pid"], 0)
    except ProcessLookupError:
        return True
    except PermissionError:
        pass  # somebody else's process, and alive
    # A pid comes round again, in containers at once; its time of birth does not.
    return _born(owner["pid"]) != owner.get("born")


def in_use(name: str, owner: Owner | None) -> DatabaseInUse:
    """Return the error that says who has the database `name`."""
    who = "another process"
    if owner:
        who = f"process {owner.get('pid', '?')}" + (f" on {owner['host']}" if owner.get("host") else "")
        who += f" ({owner.get('command', 'unknown')})"
        if owner.get("url"):
            who += f", which answers at {owner['url']}"
    advice = f"submit to {owner['url']} instead, or stop it first" if owner and owner.get("url") else "stop it first"
    return DatabaseInUse(f"The database {name} is in use by {who}; one engine owns a database: {advice}.", owner=owner)


def read_words(path: Path) -> Owner | None:
    """Return what the lock file at `path` says of its owner; None: nothing that can be read."""
    try:
        owner: Owner = json.loads(path.read_text())
    except (OSError, ValueError):
        return None
    return owner


def _born(pid: int) -> str | None:
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return None
    # proc(5): starttime, counted from after the name, which may hold anything
    return stat.rpartition(")")[2].split()[19]
