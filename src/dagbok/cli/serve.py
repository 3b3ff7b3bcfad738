"""`dagbok serve`: the API over HTTP, and whatever an earlier process left unfinished."""

from __future__ import annotations

import logging

from dagbok.api.server import serve as serve_api
from dagbok.app import Vault
from dagbok.cli.collector import leave_out
from dagbok.cli.server_log import server_log
from dagbok.cli.terminal import out, redact_with
from dagbok.cli.words import database_name
from dagbok.settings import Settings

log = logging.getLogger("dagbok.cli")


def serve(settings: Settings, *, insecure: bool) -> int:
    """Serve until a signal comes; return the exit code.

    Raises:
        Misconfigured: The address or the database cannot be used.
    """
    secrets = Vault.take(settings)  # what tools start must not inherit them
    redact_with(secrets.redact)

    def ready(url: str) -> None:
        leave_out()
        out(f"Dagbok answers at {url}")
        log.info("The API is described at %s/docs; the diary is %s; Ctrl-C stops.", url, database_name(settings))

    with server_log(settings.log_level, settings.log_format, redact=secrets.redact):
        return serve_api(settings, insecure=insecure, on_ready=ready, secrets=secrets)
