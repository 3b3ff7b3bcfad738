"""Which model a name means. pydantic-ai, which takes half a second to import, is imported with the first model."""

from __future__ import annotations

import os
from functools import lru_cache
from typing import TYPE_CHECKING

from dagbok.errors import Misconfigured
from dagbok.llm.extractive import NAME, PROVIDER

if TYPE_CHECKING:
    from pydantic_ai.models import Model


@lru_cache(maxsize=64)  # names may come from plans; failures are not kept, so that a key set later is found
def resolve(name: str) -> Model:
    """Return the model called `name`: `offline:extractive` (or `offline`), or PROVIDER:MODEL as pydantic-ai spells it.

    The same name gives the same model, with its connections. Call it once at start: a name that cannot work shows
    there, and the import is paid before anything runs.

    Raises:
        Misconfigured: The name is unknown, its package is not installed, or its key is not set; the message says what
            to do. Fields: `model`.
    """
    # On a terminal pydantic-ai greets with an advertisement; a program's output is its own.
    os.environ.setdefault("PYDANTIC_AI_NO_BANNER", "1")
    wanted = name.strip()
    if wanted in (PROVIDER, NAME):
        from dagbok.llm.offline import OfflineModel

        return OfflineModel()
    if wanted.startswith(f"{PROVIDER}:"):
        raise Misconfigured(f"There is no model {wanted!r}; the built-in offline model is {NAME}.", model=wanted)

    from pydantic_ai.models import infer_model

    try:
        return infer_model(wanted)
    # Providers check their keys and addresses here, each with exceptions of its own SDK.
    except Exception as exc:
        # pydantic-ai recommends its test model to whoever has no key; ours is the offline one.
        reason = str(exc).partition(" To try Pydantic AI without")[0].strip().rstrip(".") or type(exc).__name__
        spelling = "" if ":" in wanted else " A model is named PROVIDER:MODEL, such as openai:gpt-5."
        raise Misconfigured(
            f"The model {wanted!r} cannot be used: {reason}.{spelling} Without any model, set {NAME}.", model=wanted
        ) from exc
