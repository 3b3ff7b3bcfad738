"""`dagbok serve`: the API over HTTP, and whatever an earlier process left unfinished."""

from __future__ import annotations

import logging

from dagbok.api.server import serve as serve_api
from dagbok.cli.log import show_log
from dagbok.cli.summary import database_name
from dagbok.cli.terminal import note, out
from dagbok.settings import Settings


def serve(settings: Settings, *, insecure: bool) -> int:
    """Serve until a signal comes; return the exit code.

    Raises:
        Misconfigured: The address or the database cannot be used.
    """
    show_log(logging.INFO, "%(asctime)s %(levelname)s %(name)s: %(message)s")

    def ready(url: str) -> None:
        out(f"Dagbok answers at {url}")
        note(f"The API is described at {url}/docs; the diary is {database_name(settings)}; Ctrl-C stops.")

    return serve_api(settings, insecure=insecure, on_ready=ready)
