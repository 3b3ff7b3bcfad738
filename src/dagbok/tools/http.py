"""`http_request` and `send_webhook`: any HTTP API, and webhooks that their receiver can check."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from http import HTTPStatus
from typing import Annotated, Any, Final, Literal
from urllib.parse import quote

from pydantic import BeforeValidator, ConfigDict, Field, with_config
from typing_extensions import TypedDict

from dagbok.domain import http_status, values
from dagbok.domain.states import Effect
from dagbok.domain.values import Json
from dagbok.errors import BadInput, ToolError
from dagbok.tools import contents, urls
from dagbok.tools.context import ToolContext
from dagbok.tools.decorator import tool
from dagbok.tools.egress import Fetched
from dagbok.tools.request import SAFE_METHODS

_MESSAGE_CHARS: Final = 300  # of the body of an answer that is an error
_PHRASES: Final = {status.value: status.phrase for status in HTTPStatus}

#: RFC 9110, 9.2.
_EFFECTS: Final = {
    **dict.fromkeys(SAFE_METHODS, Effect.PURE),
    **dict.fromkeys(("PUT", "DELETE"), Effect.IDEMPOTENT),
    **dict.fromkeys(("POST", "PATCH"), Effect.ONCE),
}

_REDIRECTED: Final = ("refused_redirect", "too_many_redirects")

#: What a server between us and the one that was meant says when it has lost the request, or the answer to it.
_LOST_ON_THE_WAY: Final = frozenset((408, 502, 503, 504, 520, 522, 524))

Text = Annotated[str, Field(min_length=1, max_length=8192)]
Seconds = Annotated[
    float,
    Field(
        gt=0,
        le=3600,
        allow_inf_nan=False,
        description="For all of one request. The attempt as a whole has a limit too, usually 300: for more, give "
        "`timeout_seconds` beside the params as well.",
    ),
]
Method = Annotated[
    Literal["GET", "HEAD", "OPTIONS", "POST", "PUT", "PATCH", "DELETE"],
    BeforeValidator(lambda value: value.upper() if isinstance(value, str) else value),
]


@with_config(ConfigDict(extra="forbid"))
class Basic(TypedDict):
    """RFC 7617."""

    username: str
    password: str


@with_config(ConfigDict(extra="forbid"))
class NamedHeader(TypedDict):
    """A header of the API's own."""

    name: str
    value: str


@with_config(ConfigDict(extra="forbid"))
class Auth(TypedDict, total=False):
    """One of these."""

    bearer: str
    basic: Basic
    header: NamedHeader


def _effect_of(params: Mapping[str, Any]) -> Effect:
    return _EFFECTS[params.get("method", "GET").upper()]  # a reference or a secret is no key: `once`


@tool(effect=_effect_of, aliases=("httpRequest",))
async def http_request(
    context: ToolContext,
    url: Text,
    method: Method = "GET",
    headers: dict[str, str] | None = None,
    params: dict[str, Any] | None = None,
    json: Json = None,
    body: str | None = None,
    form: dict[str, Any] | None = None,
    auth: Auth | None = None,
    timeout_seconds: Seconds | None = None,
    max_bytes: Annotated[int, Field(ge=1)] | None = None,
    follow_redirects: bool = True,
    ok: list[Annotated[int, Field(ge=100, le=599)]] | None = None,
) -> dict[str, Any]:
    """Send an HTTP request to an API and return its answer. Use another tool to read a web page.

    A request that changes something carries an `Idempotency-Key`, the same for every attempt, unless `headers` has one.

    Args:
        url: http or https, on the public Internet, without credentials.
        headers: More headers of the request.
        params: Put into the query of the URL; a list repeats its name.
        json: The body, sent as JSON.
        body: The body as text, instead of `json`.
        form: The body as fields of a form, instead of `json`.
        auth: {"bearer": token}, {"basic": {"username", "password"}} or {"header": {"name", "value"}}.
        max_bytes: A larger answer is an error; nothing is ever cut.
        follow_redirects: Credentials and bodies never go along to another host.
        ok: The statuses that are a success; 200 to 299 by default, and 300 to 399 if redirects are not followed.

    Returns:
        {"status", "url" (in the end, without its query), "headers" (lower-case names), "body"}. The body is JSON if the
        answer is, else text, else {"base64"}. Any other status is an error. Of a POST or PATCH it may be
        `outcome_unknown` (sent, and not answered in full or by a gateway alone) or `server_error` (it failed within).
    """
    content, media_type = _content(json, body, form)
    sent = _headers(context, headers or {}, media_type, auth, repeatable=method in SAFE_METHODS)
    with _telling_whether_it_happened(method):
        answer = await context.egress.fetch(
            method,
            url,
            headers=sent,
            params=params,
            content=content,
            timeout_s=timeout_seconds,
            max_bytes=max_bytes,
            redirects=follow_redirects,
        )
        good = range(200, 300 if follow_redirects else 400) if ok is None else ok
        if answer.status not in good:
            raise failure(context, method, answer)
    # The query may hold a key, which has no place in a diary.
    where = answer.url.partition("?")[0]
    return {
        "status": answer.status,
        "url": where,
        "headers": dict(answer.headers),
        "body": await contents.value(answer),
    }


@tool(effect="once", aliases=("sendWebhook",))
async def send_webhook(
    context: ToolContext,
    url: Text,
    payload: Json,
    secret: Text | None = None,
    event_type: Text | None = None,
    headers: dict[str, str] | None = None,
    timeout_seconds: Seconds | None = None,
) -> dict[str, Any]:
    """POST a JSON payload to a webhook, signed as Standard Webhooks (standardwebhooks.com) if there is a secret.

    Args:
        url: http or https, on the public Internet. Redirects are not followed.
        payload: The body; with `event_type` its `data`.
        secret: `whsec_` and base64, or any text, which both sides know.
        event_type: Such as `invoice.paid`. The body is then {"type", "timestamp", "data"}.
        headers: More headers of the request.

    Returns:
        {"status", "id"}; the id is the same for every attempt, so that the receiver can tell them from new events.
        `outcome_unknown` is the error of one that was sent, and not answered in full or by a gateway alone.
    """
    now = datetime.now(UTC)
    if event_type is not None:
        payload = {"type": event_type, "timestamp": now.isoformat(timespec="milliseconds"), "data": payload}
    content, media_type = _content(payload, None, None, always=True)
    sent = _headers(context, headers or {}, media_type, None, repeatable=False)
    message_id = f"msg_{hashlib.sha256(context.idempotency_key.encode()).hexdigest()[:32]}"
    sent |= {"webhook-id": message_id, "webhook-timestamp": str(int(now.timestamp()))}
    if secret is not None:
        sent["webhook-signature"] = _signature(secret, message_id, now, content or b"")
    with _telling_whether_it_happened("POST"):
        answer = await context.egress.fetch(
            "POST", url, headers=sent, content=content, timeout_s=timeout_seconds, redirects=False
        )
        if not 200 <= answer.status < 300:
            raise failure(context, "POST", answer)
    return {"status": answer.status, "id": message_id}


@contextmanager
def _telling_whether_it_happened(method: str) -> Iterator[None]:
    """Make another error of one after which a request that must not be repeated blindly may have had effect."""
    try:
        yield
    except ToolError as exc:
        if _EFFECTS[method] is Effect.ONCE and (doubt := _doubt(method, exc)):
            raise doubt from exc
        raise


def _doubt(method: str, error: ToolError) -> ToolError | None:
    """Return what to say of a request that may have had effect; None: it had none, or the server has said what to do.

    Nobody knows of one that was sent and not answered in full, or answered by a gateway alone: `outcome_unknown`. A
    server that failed within has answered, though how far it came it does not say: `server_error`.
    """
    status = error.fields.get("status")
    if status is None:
        if not error.fields.get("sent") or error.code in _REDIRECTED:
            return None
        why = f"{error.code}: {error.message.rstrip('.')}"
    else:
        if not http_status.may_have_acted(status, error.fields.get("retry_after_s")):
            return None
        why = error.message.rstrip(".")
        if status not in _LOST_ON_THE_WAY:
            message = f"The server failed at this {method} ({why}). Look there for what it did before sending it again."
            return ToolError(message, **error.fields | {"code": "server_error"})
    message = (
        f"It is not known whether the server acted on this {method}, which was sent with an Idempotency-Key ({why}). "
        "Look there for what it would have done before sending it again."
    )
    return ToolError(message, **error.fields | {"code": "outcome_unknown", "cause": error.code})


def failure(context: ToolContext, method: str, answer: Fetched) -> ToolError:
    """Return the error that an answer without success stands for: a code by its class, and how its body begins."""
    status = answer.status
    # Servers quote what they refuse. Redacted before it is cut: of half a secret nobody knows what it was.
    begin = " ".join(context.redact(contents.begin(answer)).split())[:_MESSAGE_CHARS]
    where = urls.read(answer.url).shown
    message = f"{method} {where} answers {status} {_PHRASES.get(status, '')}".rstrip() + (
        f": {begin}" if begin else "."
    )
    fields: dict[str, Any] = {"status": status}
    wait_s = http_status.retry_after_s(answer.headers, datetime.now(UTC))
    if wait_s is not None:
        fields["retry_after_s"] = wait_s
    return ToolError(message, code=http_status.code(status), **fields)


def _content(
    json: Json, body: str | None, form: Mapping[str, Any] | None, *, always: bool = False
) -> tuple[bytes | None, str | None]:
    """Return the bytes of a body and their media type."""
    if sum(part is not None for part in (json, body, form)) > 1:
        raise ToolError("Give one of `json`, `body` and `form`, as there is one body.", code="invalid_input")
    try:
        if body is not None:
            return body.encode(), "text/plain; charset=utf-8"
        if form is not None:
            return urls.form(form).encode(), "application/x-www-form-urlencoded"
        if json is not None or always:
            return values.encode(json).encode(), "application/json"
    except (BadInput, ValueError) as exc:
        raise ToolError(f"The body cannot be sent: {str(exc).rstrip('.')}.", code="invalid_input") from exc
    return None, None


def _headers(
    context: ToolContext, given: Mapping[str, str], media_type: str | None, auth: Auth | None, *, repeatable: bool
) -> dict[str, str]:
    ours: dict[str, str] = {}
    if media_type is not None:
        ours["Content-Type"] = media_type
    if not repeatable:
        ours["Idempotency-Key"] = quote(context.idempotency_key, safe=":")  # a task's id need not be ASCII
    names = {name.lower() for name in given}
    merged = {name: value for name, value in ours.items() if name.lower() not in names} | dict(given)
    if auth is not None:
        name, value = _authorization(auth)
        if name.lower() in names:
            raise ToolError(f"Both `headers` and `auth` give {name!r:.100}.", code="invalid_input")
        merged[name] = value
    return merged


def _authorization(auth: Auth) -> tuple[str, str]:
    if len(auth) != 1:
        raise ToolError("`auth` holds one of `bearer`, `basic` and `header`.", code="invalid_input")
    if "bearer" in auth:
        return "Authorization", f"Bearer {auth['bearer']}"
    if "basic" in auth:
        username, password = auth["basic"]["username"], auth["basic"]["password"]
        if ":" in username:
            raise ToolError("The username of `auth` may hold no colon.", code="invalid_input")
        return "Authorization", f"Basic {base64.b64encode(f'{username}:{password}'.encode()).decode()}"
    return auth["header"]["name"], auth["header"]["value"]


def _signature(secret: str, message_id: str, now: datetime, content: bytes) -> str:
    from standardwebhooks.webhooks import EmptyWebhookSecretError, Webhook

    key = secret.encode()
    try:
        if secret.startswith("whsec_"):
            packed = key[6:]
            key = base64.b64decode(packed + b"=" * (-len(packed) % 4), validate=True)  # the library skips what is none
        return Webhook(key).sign(message_id, now, content.decode())
    except (ValueError, EmptyWebhookSecretError) as exc:
        raise ToolError("The secret of the webhook is not base64 after `whsec_`.", code="invalid_input") from exc
