"""Which model a name means, and the connections of all of them, which belong to one engine.

A name is PROVIDER:MODEL, as pydantic-ai spells it. pydantic-ai takes half a second to import and the package of a
provider up to another one, so both are imported with the first model that needs them. Models of one provider share its
connections, which live as long as the engine: an event loop can neither use nor close those of another.

A plan may name a model, never an address: whoever could would be sent the operator's key.
"""

from __future__ import annotations

import asyncio
import os
import re
from collections.abc import Sequence
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

from dagbok.errors import Misconfigured, ToolError
from dagbok.llm import keys
from dagbok.llm.extractive import NAME, PROVIDER
from dagbok.settings import Settings

if TYPE_CHECKING:
    from pydantic_ai.models import Model as Model  # for those who may not look into pydantic-ai
    from pydantic_ai.providers import Provider

#: The extras of this package that bring the package of a provider: `pip install 'dagbok[NAME]'`.
EXTRAS: Final = (
    "anthropic", "bedrock", "cohere", "google", "groq", "huggingface", "mistral", "ollama", "openai", "openrouter",
    "xai",
)  # fmt: skip

#: The provider of an OpenAI-compatible server at `model_base_url`, as it stands in results. Its prices are not known.
COMPATIBLE: Final = "openai-compatible"

#: What `model_base_url` answers to, and the interface that is meant: few such servers speak more than the first one.
_AT_BASE_URL = {"openai": "openai-chat", "openai-chat": "openai-chat", "openai-responses": "openai-responses"}
_FORMER_NAMES = {"google-gla": "google", "google-vertex": "google-cloud"}  # that people and models still write
_KEPT = 64  # models; names may come from plans
_EXTRA = re.compile(r"pydantic-ai-slim\[([a-z-]+)\]")
_FROM_CODE = re.compile(r" or pass it via `[^`]*`")  # advice to programmers, of no use to an operator


class Models:
    """The models of one engine, each made when it is first asked for. `aclose` gives their connections back.

    Models that are `given` answer where their name (`model_id`) is named, and are closed by whoever made them.
    """

    def __init__(self, settings: Settings, given: Sequence[Model] = ()) -> None:
        self.settings = settings
        self._given = {_spelled(model.model_id): model for model in given}
        self._models: dict[str, Model] = {}
        self._providers: dict[str, Provider[Any]] = {}
        self._lock = asyncio.Lock()

    async def check(self) -> None:
        """Make the default model, so that one that cannot work is told at the start and not by a step.

        Raises:
            Misconfigured: As `get`; also for a `model_base_url` that is no address or is not for that model.
        """
        model, base_url = _spelled(self.settings.model), self.settings.model_base_url
        if base_url is not None:
            _check_address(base_url)
            if model != NAME and model not in self._given and model.partition(":")[0] not in _AT_BASE_URL:
                raise Misconfigured(
                    f"DAGBOK_MODEL_BASE_URL is the address of models named openai:NAME, but DAGBOK_MODEL is {model!r}, "
                    "which would be asked elsewhere. Name it openai:NAME, or unset DAGBOK_MODEL_BASE_URL.",
                    model=model,
                )
        if model != NAME:
            await self.get()

    async def get(self, name: str | None = None) -> Model:
        """Return the model that a plan names, or the default one. The same name gives the same model.

        Raises:
            Misconfigured: The name is unknown, its package is not installed, or its key is not set or cannot be one;
                the message says what to do. Fields: `model`, but for a key that cannot be one. Failures are not kept,
                so that a key set later is found.
            ToolError: `refused`, where the setting `models` does not allow the name.
        """
        wanted = _spelled(name or self.settings.model)
        patterns = self.settings.models
        if name and patterns and wanted != _spelled(self.settings.model) and not _matches(wanted, patterns):
            raise ToolError(
                f"The model {wanted!r} is not among those that a plan may name: {', '.join(patterns)} (DAGBOK_MODELS).",
                code="refused",
                model=wanted,
            )
        if wanted in self._given:
            return self._given[wanted]
        if wanted not in self._models:
            async with self._lock:  # two at once would make two sets of connections
                if wanted not in self._models:
                    model = await asyncio.to_thread(resolve, wanted, self.settings.model_base_url, self._providers)
                    if len(self._models) >= _KEPT:
                        del self._models[next(iter(self._models))]  # its connections are its provider's
                    self._models[wanted] = model
        return self._models[wanted]

    async def aclose(self) -> None:
        """Close every connection. Models that were handed out cannot be asked any more."""
        self._models.clear()
        while self._providers:
            _, provider = self._providers.popitem()
            async with provider:  # a provider closes its connections when it is left
                pass


def resolve(name: str, base_url: str | None = None, providers: dict[str, Provider[Any]] | None = None) -> Model:
    """Return the model called `name`; it blocks for the imports.

    Args:
        name: `offline:extractive` (or `offline`), or PROVIDER:MODEL as pydantic-ai spells it.
        base_url: The server behind the names `openai...:NAME`, where it is not OpenAI's own.
        providers: Those that exist, by name; new ones are added.

    Raises:
        Misconfigured: As `Models.get`.
    """
    # On a terminal pydantic-ai greets with an advertisement; a program's output is its own.
    os.environ.setdefault("PYDANTIC_AI_NO_BANNER", "1")
    wanted = _spelled(name)
    provider_name, colon, model_name = wanted.partition(":")
    if provider_name == PROVIDER:
        if wanted != NAME:
            raise Misconfigured(f"There is no model {wanted!r}; the built-in offline model is {NAME}.", model=wanted)
        from dagbok.llm.offline import OfflineModel

        return OfflineModel()
    if not (provider_name and colon and model_name):
        raise _unusable(wanted, "A model is named PROVIDER:MODEL, such as openai:gpt-5")
    keys.check(provider_name)
    known = providers if providers is not None else {}
    elsewhere = base_url if provider_name in _AT_BASE_URL else None
    interface = _AT_BASE_URL[provider_name] if elsewhere else provider_name

    def provide(provider: str) -> Provider[Any]:
        if provider not in known:
            known[provider] = _compatible(elsewhere) if elsewhere else infer_provider(provider)
        return known[provider]

    from pydantic_ai.models import infer_model
    from pydantic_ai.providers import infer_provider

    try:
        return infer_model(f"{interface}:{model_name}", provider_factory=provide)
    except ImportError as exc:
        raise _unusable(wanted, _missing_package(provider_name, exc)) from exc
    # Providers check their keys and addresses here, each with exceptions of its own SDK.
    except Exception as exc:
        # pydantic-ai recommends its test model to whoever has no key; ours is the offline one.
        reason = str(exc).partition(" To try Pydantic AI without")[0].strip() or type(exc).__name__
        raise _unusable(wanted, _FROM_CODE.sub("", reason)) from exc


def _spelled(name: str) -> str:
    name = name.strip()
    if name == PROVIDER:
        return NAME
    provider, colon, model = name.partition(":")
    return f"{_FORMER_NAMES.get(provider, provider)}{colon}{model}"


def _matches(name: str, patterns: tuple[str, ...]) -> bool:
    return any(fnmatchcase(name, _spelled(pattern)) for pattern in patterns)


def _compatible(base_url: str) -> Provider[Any]:
    from pydantic_ai.providers.openai_compatible import OpenAICompatibleProvider

    # Without a key the provider sends a placeholder; most servers of one's own want none.
    return OpenAICompatibleProvider(COMPATIBLE, base_url=base_url, api_key=os.environ.get("OPENAI_API_KEY") or None)


def _check_address(base_url: str) -> None:
    try:
        parts = urlsplit(base_url)
        usable = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:  # a port that is no number, half a bracket
        usable = False
    if not usable:
        raise Misconfigured("DAGBOK_MODEL_BASE_URL is no address; it is like http://localhost:8000/v1.")
    if parts.username is not None or parts.query or parts.fragment:
        raise Misconfigured(
            "DAGBOK_MODEL_BASE_URL holds more than an address. It is like http://localhost:8000/v1; a key belongs in "
            "OPENAI_API_KEY."
        )


def _missing_package(provider: str, exc: ImportError) -> str:
    """Return what to install; the words of pydantic-ai name its own extras, which would not bring ours."""
    named = _EXTRA.search(str(exc))
    extra = provider if provider in EXTRAS else named[1] if named else None
    if extra not in EXTRAS:
        return str(exc)
    why = f" ({exc.__cause__})" if exc.__cause__ else ""
    return f"the package of its provider cannot be imported{why}. Install it: pip install 'dagbok[{extra}]'"


def _unusable(name: str, reason: str) -> Misconfigured:
    return Misconfigured(
        f"The model {name!r} cannot be used: {reason.rstrip('.')}. Without any model, set {NAME}.", model=name
    )
