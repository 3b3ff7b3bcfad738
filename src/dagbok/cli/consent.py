"""Asking before something is deleted: nothing goes unless a person says so, on a terminal or with `--yes`."""

from __future__ import annotations

from collections.abc import Sequence

from dagbok.cli import keyboard
from dagbok.cli.terminal import note
from dagbok.cli.words import database_name
from dagbok.errors import BadInput
from dagbok.settings import Settings


def must_agree(what: str, settings: Settings, *, several: bool, named: Sequence[str] = (), instead: str = "") -> None:
    """Return if a person agrees that `what` is deleted.

    Args:
        what: In words.
        settings: Of the database.
        several: Whether it is more than one.
        named: Lines that are shown to whoever is asked.
        instead: What else they may say, besides `--yes`.

    Raises:
        BadInput: Nobody does, or nobody is there to be asked.
        KeyboardInterrupt: They have left.
    """
    if not keyboard.is_there():
        raise BadInput(f"{what} would be deleted; --yes says that this is meant{instead}.")
    for words in named:
        note(words)
    they = "They" if several else "It"
    note(f"Delete {what} from {database_name(settings)}? {they} cannot be brought back. [y/N] ", end="")
    if keyboard.read_word() not in ("y", "yes"):
        raise BadInput("Nothing was deleted.")
