"""`dagbok fork`: goes on from an execution with something changed, as a new one, and shows it as `dagbok run` does."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

from dagbok.app import Vault
from dagbok.cli.log import show_log
from dagbok.cli.overriding import read_overrides
from dagbok.cli.plans import load_plan
from dagbok.cli.run import Asked, see
from dagbok.cli.show import find
from dagbok.cli.terminal import redact_with
from dagbok.cli.watching import Watch
from dagbok.outside import open_diary
from dagbok.settings import Settings


def fork(
    which: str,
    *,
    from_task: str | None,
    overrides: Sequence[str] | None,
    plan: str | None,
    by: str | None,
    key: str | None,
    json: bool,
    quiet: bool,
    settings: Settings,
    flags: dict[str, Any],
) -> int:
    """Make a fork of an execution, run it and show how it goes; return the exit code.

    With an idempotency `key` that was used before, the fork of then is shown.

    Raises:
        NotFound, BadInput: There is no such execution; what is to be different cannot be.
        Conflict: Nothing would run in the fork.
        Misconfigured, StoreError: There is no way to run it here.
    """
    secrets = Vault.take(settings)  # what tools start must not inherit them
    redact_with(secrets.redact)
    given = {
        "from_task": from_task,
        "overrides": read_overrides(overrides, max_bytes=settings.max_plan_bytes) or None,
        "plan": None if plan is None else load_plan(plan, max_bytes=settings.max_plan_bytes),
        "by": by,
        "idempotency_key": key,
    }
    options = {name: value for name, value in given.items() if value is not None}
    show_log(logging.WARNING)
    with open_diary(settings) as diary:
        origin = diary.execution(find(diary, which))
    watch = Watch(quiet=quiet)
    asked = Asked(
        None, settings, secrets, options, quiet, flags, watch, origin=origin["id"], title=str(origin["title"])
    )  # fmt: skip
    return see(asked, json=json)
