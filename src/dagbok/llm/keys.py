"""The keys of providers: the variables they are read from, which values can work, and how they stay out of messages.

Some servers send back the key they were given, and an HTTP client that cannot send one quotes it. So a key that no
header can hold is refused before it is used, and the words of a provider pass a `Redactor`.
"""

from __future__ import annotations

import os
import re
from typing import Final

from dagbok.domain.secrets import Redactor
from dagbok.errors import Misconfigured

#: Where a provider reads its key, unless it is PROVIDER_API_KEY.
_NAMED: Final = {
    "bedrock": "the AWS credentials",
    "cohere": "CO_API_KEY",
    "google": "GEMINI_API_KEY or GOOGLE_API_KEY",
    "google-cloud": "the Google Cloud credentials",
    "huggingface": "HF_TOKEN",
    "openai-chat": "OPENAI_API_KEY",
    "openai-compatible": "OPENAI_API_KEY",
    "openai-responses": "OPENAI_API_KEY",
}
_VARIABLE = re.compile(r"[A-Z0-9_]+(?:_KEY|_TOKEN)")
_SECRET = ("_KEY", "_TOKEN")  # how the names of variables end that hold one
_LEAST = 8  # characters; hiding shorter values would blacken ordinary words


def named(provider: str) -> str:
    """Return the words for where `provider` reads its key."""
    return _NAMED.get(provider) or f"{provider.upper().replace('-', '_')}_API_KEY"


def check(provider: str) -> None:
    """Raise Misconfigured for a key of `provider` that no header can hold; the message names its variable only."""
    for variable in _VARIABLE.findall(named(provider)):
        value = os.environ.get(variable, "")
        if value != value.strip():
            raise Misconfigured(f"The value of {variable} has a line end or blank at an end; remove it.")
        if not (value.isascii() and value.isprintable()):
            raise Misconfigured(
                f"The value of {variable} has a control character or a letter beyond ASCII, which no key has; "
                "copy it again."
            )


def hide(text: str) -> str:
    """Return `text` without the values of variables that are called like keys, however they are spelled."""
    found = {name: value for name, value in os.environ.items() if name.endswith(_SECRET)}
    return Redactor({name: value for name, value in found.items() if len(value.strip()) >= _LEAST}).text(text)
