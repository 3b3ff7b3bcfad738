"""What a failed model call means to the engine: one table from the exceptions of pydantic-ai to codes of `ToolError`.

rate_limited    come back later; `retry_after_s` if the provider said when
timeout         no answer, or no more of it, for as long as an attempt may take
unavailable     the provider or the way to it fails; the same call may succeed later
refused         the key, the account or a content filter says no; only a person can change that
invalid_input   the provider does not take this request (too long, unknown model, a setting it does not know)
tool_error      the model answered, but with nothing usable

The words of a provider are kept as they are, cut, and without any key: some servers send back the one they were given.
"""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import httpx2
from pydantic_ai import exceptions as ai

from dagbok.domain import http_status
from dagbok.domain.values import clean
from dagbok.errors import ToolError
from dagbok.llm import keys

if TYPE_CHECKING:
    from pydantic_ai.models import Model

_LONGEST = 600  # of a provider's own words; some answer with a web page

#: First match wins, so the special stands before the general.
_CODES: tuple[tuple[type[BaseException], str], ...] = (
    (ai.ModelRateLimitError, "rate_limited"),
    (ai.ModelQuotaExceededError, "refused"),
    (ai.ModelAuthenticationError, "refused"),
    (ai.ContentFilterError, "refused"),
    (ai.ModelRequestRejectedError, "invalid_input"),
    (ai.ModelHTTPError, ""),  # by its status
    (ai.ModelTimeoutError, "timeout"),
    (ai.ModelRequestTimeout, "timeout"),
    (ai.ModelAPIError, "unavailable"),
    (ai.UserError, "invalid_input"),
    (httpx2.ConnectTimeout, "unavailable"),
    (httpx2.TimeoutException, "timeout"),
    (httpx2.TransportError, "unavailable"),
    (TimeoutError, "timeout"),
    (OSError, "unavailable"),  # ConnectionError is of this kind
)
#: Where providers mean something else than servers do: no money; no such model, or none any more; a lock that was not
#: free in time, after which their own SDKs try again.
_STATUS = {402: "refused", 404: "invalid_input", 409: "unavailable", 410: "invalid_input"}

_SAID = {
    "rate_limited": "Too many requests to",
    "timeout": "No answer in time from",
    "unavailable": "No answer from",
    "refused": "Refused by",
    "invalid_input": "The request was not accepted by",
    "tool_error": "No usable answer from",
}


def to_tool_error(exc: BaseException, model: Model) -> ToolError:
    """Return the ToolError that says what `exc` means. Fields: `model`; where known, `status` and `retry_after_s`."""
    while isinstance(exc, ai.FallbackExceptionGroup):
        exc = exc.exceptions[-1]
    code = next((code for kind, code in _CODES if isinstance(exc, kind)), "tool_error")
    fields: dict[str, object] = {"model": model.model_id}
    if isinstance(exc, ai.ModelHTTPError):
        fields["status"] = exc.status_code
        code = code or _by_status(exc.status_code)
    if isinstance(exc, ai.ModelConnectionError) and exc.phase in ("pool", "connect"):
        code = "unavailable"  # nobody is there, however long that took to find out
    if isinstance(exc, ai.ModelAPIError) and exc.retry_after is not None:
        fields["retry_after_s"] = exc.retry_after
    return ToolError(f"{_SAID[code]} {model.model_id}: {_explained(exc, model)}", code=code, **fields)


def _by_status(status: int) -> str:
    code = _STATUS.get(status) or http_status.code(status)
    return code if code in _SAID else "tool_error"  # OpenRouter tells a status of its own within a 200


def _explained(exc: BaseException, model: Model) -> str:
    words = _words(exc)
    if isinstance(exc, ai.ModelAuthenticationError):
        return f"check {keys.named(model.model_id.partition(':')[0])} and what it may use. {words}"
    if isinstance(exc, ai.ModelNotFoundError):
        return f"it has no model {model.model_name!r}, or {address(model)} is not the address of its API. {words}"
    if isinstance(exc, ai.ModelConnectionError):
        if exc.phase == "connect":
            return f"no connection to {address(model)} ({_root(exc)}); is it running there?"
        if isinstance(exc, ai.ModelTimeoutError):
            return "nothing came for as long as an attempt may take; `timeout_seconds` of the sub-task gives it more."
        return f"the connection broke: {_root(exc)}"
    if not isinstance(exc, (ai.AgentRunError, ai.UserError, OSError, httpx2.TransportError)):
        return f"its answer cannot be read ({type(exc).__name__}: {words})"
    return words


def _words(exc: BaseException) -> str:
    text = keys.hide(str(exc))
    return clean(" ".join(text.split()) or type(exc).__name__, _LONGEST)


def _root(exc: BaseException) -> str:
    """Return the words of the first cause: those above it only say that something failed."""
    while (cause := exc.__cause__ or exc.__context__) is not None:
        exc = cause
    return _words(exc)


def address(model: Model) -> str:
    """Return where the model is asked, without credentials."""
    parts = urlsplit(model.base_url or "")
    host = parts.netloc.rpartition("@")[2]
    return f"{parts.scheme}://{host}{parts.path}".rstrip("/") if host else "its provider"
