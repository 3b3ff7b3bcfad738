"""What a failed model call means to the engine: one table from the exceptions of pydantic-ai to codes of `ToolError`.

rate_limited    come back later; `retry_after_s` if the provider said when
unavailable     the provider or the way to it fails; the same call may succeed later
refused         the key, the account or a content filter says no; only a person can change that
invalid_input   the provider does not take this request (too long, unknown model, a setting it does not know)
tool_error      the model answered, but with nothing usable
"""

from __future__ import annotations

import httpx2
from pydantic_ai import exceptions as ai

from dagbok.errors import ToolError

_LONGEST = 600  # of a provider's own words; some answer with a web page

#: First match wins, so the special stands before the general.
_CODES: tuple[tuple[type[BaseException], str], ...] = (
    (ai.ModelRateLimitError, "rate_limited"),
    (ai.ModelQuotaExceededError, "refused"),
    (ai.ModelAuthenticationError, "refused"),
    (ai.ContentFilterError, "refused"),
    (ai.ModelRequestRejectedError, "invalid_input"),
    (ai.ModelHTTPError, ""),  # by its status
    (ai.ModelAPIError, "unavailable"),
    (ai.UserError, "invalid_input"),
    (httpx2.TransportError, "unavailable"),
    (OSError, "unavailable"),  # ConnectionError and TimeoutError are of this kind
)
_STATUS = {401: "refused", 402: "refused", 403: "refused", 408: "unavailable", 429: "rate_limited"}

#: What `to_tool_error` understands. Anything else is a fault of ours and passes through.
CAUGHT = (ai.AgentRunError, ai.UserError, ai.FallbackExceptionGroup, httpx2.TransportError, OSError)


def to_tool_error(exc: BaseException, model: str) -> ToolError:
    """Return the ToolError that says what `exc` means. Fields: `model`; where known, `status` and `retry_after_s`."""
    while isinstance(exc, ai.FallbackExceptionGroup):
        exc = exc.exceptions[-1]
    code = next((code for kind, code in _CODES if isinstance(exc, kind)), "tool_error")
    fields: dict[str, object] = {"model": model}
    if isinstance(exc, ai.ModelHTTPError):
        fields["status"] = exc.status_code
        code = code or _STATUS.get(exc.status_code, "unavailable" if exc.status_code >= 500 else "invalid_input")
    if isinstance(exc, ai.ModelAPIError) and exc.retry_after is not None:
        fields["retry_after_s"] = exc.retry_after
    words = " ".join(str(exc).split()) or type(exc).__name__
    words = words if len(words) <= _LONGEST else words[: _LONGEST - 1] + "…"
    return ToolError(f"{_SAID[code]} {model}: {words}", code=code, **fields)


_SAID = {
    "rate_limited": "Too many requests to",
    "unavailable": "No answer from",
    "refused": "Refused by",
    "invalid_input": "The request was not accepted by",
    "tool_error": "No usable answer from",
}
