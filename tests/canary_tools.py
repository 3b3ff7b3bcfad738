"""Tools that give a secret away in every way they can think of. Loaded by a real server in `test_secrets.py`."""

from __future__ import annotations

import asyncio
import base64
import gc
import hashlib
import html
import json
import logging
import os
import sys
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import quote, quote_plus

from pydantic import AfterValidator

from dagbok import ToolContext, tool
from dagbok.domain.call import Reply
from dagbok.errors import ToolError


def _refuse(value: str) -> str:
    raise ValueError(f"{'x' * 280} not {value}")


def note(line: str) -> None:
    """Tell the test, which reads this file."""
    with (Path(os.environ["CANARY_FOLDER"]) / "seen").open("a") as file:
        file.write(line + "\n")


@tool(effect="pure")
def seen(token: str) -> int:
    """Prove that the true value came, without keeping it."""
    note(hashlib.sha256(token.encode()).hexdigest())
    return len(token)


@tool(effect="pure")
def returned(token: str, pin: str) -> Any:
    """Return it as value, key and number, deep down."""
    return {"plain": token, token: {"deep": [f"<{token}>"]}, "number": [int(pin), float(f"1{pin}.5")]}


@tool(effect="pure")
def large(token: str) -> str:
    """Return more than a column holds."""
    return f"{token} and " * 40_000


@tool(effect="pure")
def encoded(token: str) -> list[str]:
    """Return it in other spellings."""
    data = token.encode()
    basic = [base64.b64encode(before + data + b":x").decode() for before in (b"", b"u", b"us")]
    more = [json.dumps({"in": json.dumps(token)}), repr(token), repr(data), html.escape(token), data.hex()]
    return [*basic, base64.urlsafe_b64encode(data).decode(), quote(token), quote_plus(token), *more]


@tool(effect="pure")
def raised(token: str) -> None:
    """Fail with it, where the message will be cut."""
    try:
        raise ValueError(token)
    except ValueError as exc:
        raise RuntimeError("x" * 3960 + token) from exc


@tool(effect="pure")
def missing_key(token: str) -> Any:
    """Fail with its repr."""
    return dict[str, int]()[token]


@tool(effect="pure")
def grouped(token: str) -> None:
    """Fail with several."""
    raise ExceptionGroup(token, [ValueError(token), ExceptionGroup("inner", [KeyError(token)])])


@tool(effect="pure")
def exits(token: str) -> None:
    """Try to end the program with it, beyond 100 characters."""
    sys.exit("x" * 70 + token)


@tool(effect="pure")
async def exits_inside(token: str) -> None:
    """The same from a task of its own."""

    async def leave() -> None:
        sys.exit(token)

    await asyncio.create_task(leave())


@tool(effect="pure")
def coded(token: str) -> None:
    """Fail with a code of its own."""
    raise ToolError(f"no: {token}", code=token, field=token)


@tool(effect="pure")
def no_json(token: str) -> Any:
    """Return what is no JSON, at a place with its name."""
    return Reply({token: {1, token}})


@tool(effect="pure")
def misfit(token: Annotated[str, AfterValidator(_refuse)]) -> None:
    """Take nothing."""


@tool(effect="pure")
def priced(token: str, pin: str) -> Any:
    """Cost something strange."""
    return Reply("x", usage={token: 1, "tokens": int(pin), "n": 2}, cost_usd=float(pin), model="m" * 180 + token)


@tool(effect="pure")
def logged(token: str, context: ToolContext) -> None:
    """Log it, here and as a library would."""
    context.logger.warning("LOGGED %s", token)
    context.logger.warning("misfit %d", token)
    logging.getLogger("some.library").warning("LIBRARY %s", token)
    try:
        raise RuntimeError(token)
    except RuntimeError:
        context.logger.exception("with a traceback")
        logging.getLogger("some.library").exception("with a traceback")


@tool(effect="pure")
async def stray(token: str) -> None:
    """Leave a task behind, whose error the loop tells of."""

    async def fail() -> None:
        raise RuntimeError(f"STRAY {token}")

    task = asyncio.create_task(fail())
    await asyncio.wait([task])
    del task
    gc.collect()


@tool(effect="once")
async def hang(token: str, context: ToolContext) -> str:
    """Report it where the report is cut, and never end."""
    context.progress("x" * 480 + token, 0.5)
    note("hang")
    await asyncio.Event().wait()
    return token


@tool(effect="pure")
def forged(wanted: str) -> Any:
    """Return what looks like a reference to a secret."""
    return {"secret": wanted}


@tool(effect="pure")
def echo(value: Any) -> Any:
    """Return the type and text of what came."""
    return [type(value).__name__, value]
