"""`send_email`: a mail from the operator's address by the operator's server (`smtp`).

Whom a mail seems to come from is not for a plan to say. No header can be put in by a value. `EmailMessage` refuses line
breaks, but it also reads encoded words (RFC 2047: `=?utf-8?q?a=0D=0AReply-To:_x?=`) and writes what they stand for,
line breaks too. So these are refused, and the headers that were written are read back before anything is sent. The
Message-ID is the same for every attempt at the same act, so that whoever receives two can tell.
"""

from __future__ import annotations

import asyncio
import hashlib
import mimetypes
import os
import re
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from email.errors import MessageError
from email.headerregistry import Address
from email.message import EmailMessage
from email.parser import BytesHeaderParser
from email.policy import SMTP as SMTP_POLICY
from email.utils import format_datetime
from pathlib import Path, PurePosixPath
from typing import Annotated, Any, Final, NotRequired

from pydantic import ConfigDict, Field, with_config
from typing_extensions import TypedDict

from dagbok.errors import Misconfigured, ToolError
from dagbok.settings import Settings
from dagbok.tools import smtp
from dagbok.tools.confinement import open_file, place, translated
from dagbok.tools.context import ToolContext
from dagbok.tools.decorator import as_tool, tool
from dagbok.tools.files import FilePath
from dagbok.tools.smtp import MailServer
from dagbok.tools.tool import Tool

MAX_RECIPIENTS: Final = 100
MAX_TEXT_CHARS: Final = 2**20  # of each of text and html
MAX_ATTACHED_BYTES: Final = 18 * 2**20  # base64 makes it 25 MB, which is what most servers take

_POLICY = SMTP_POLICY.clone(cte_type="7bit")  # so that any server may pass it on
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")
_NO_NAME = re.compile(r'["\\<>]')
_LOCAL = re.compile(r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+(?:\.[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+)*")
_LABEL = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?")

Recipient = Annotated[str, Field(min_length=3, max_length=500)]
Recipients = Recipient | Annotated[list[Recipient], Field(max_length=MAX_RECIPIENTS)]


@with_config(ConfigDict(extra="forbid"))
class Attachment(TypedDict):
    """A file of the workspace, and how it is called in the mail if not as there."""

    path: FilePath
    name: NotRequired[Annotated[str, Field(min_length=1, max_length=255)]]


def send_email_tool(settings: Settings) -> Tool:
    """Return the tool `send_email` for the server of these settings; without one its calls say what to set.

    Raises:
        Misconfigured: The settings name a server or a sender that cannot be used.
    """
    server, sender = _from_settings(settings)

    @tool(effect="once", aliases=("sendEmail",), timeout_seconds=smtp.TIMEOUT_S + 30)
    async def send_email(
        context: ToolContext,
        to: Recipients,
        subject: Annotated[str, Field(max_length=998)],
        text: Annotated[str, Field(max_length=MAX_TEXT_CHARS)],
        html: Annotated[str, Field(max_length=MAX_TEXT_CHARS)] | None = None,
        cc: Recipients | None = None,
        bcc: Recipients | None = None,
        reply_to: Recipients | None = None,
        attachments: Annotated[list[Attachment], Field(max_length=20)] | None = None,
    ) -> dict[str, Any]:
        """Send an e-mail from the address of this service.

        Args:
            to: One address or several: `ann@example.com` or `Ann <ann@example.com>`. At most 100 with cc and bcc.
            subject: One line.
            text: The mail as plain text.
            html: The same as HTML, for those who can show it.
            cc: Who gets a copy.
            bcc: Who gets a copy without the others seeing it.
            reply_to: Where answers go.
            attachments: Files of the workspace, at most 18 MiB together.

        Returns:
            {"message_id", "accepted": [address], "refused": [{"address", "code", "message"}]}: what the server took
            to deliver. An error says whether the mail was not sent, or whether that is not known.
        """
        if server is None or sender is None:
            raise ToolError(_NOT_CONFIGURED, code="not_configured")
        seen = {name: _addresses(name, given) for name, given in (("To", to), ("Cc", cc), ("Reply-To", reply_to))}
        hidden = _addresses("bcc", bcc)
        recipients = _distinct([*seen["To"], *seen["Cc"], *hidden])
        message = EmailMessage(policy=_POLICY)
        message["From"] = sender
        for name, found in seen.items():
            if found:
                message[name] = found
        message["Subject"] = _line("subject", subject)
        message["Date"] = format_datetime(datetime.now(UTC))
        message["Message-ID"] = _message_id(context.idempotency_key, sender)
        message["Auto-Submitted"] = "auto-generated"  # RFC 3834: no out-of-office notes, please
        # Reading and writing 18 MiB takes too long for the loop.
        content = await asyncio.to_thread(_written, message, text, html, attachments or [], context.workspace)
        refused = await smtp.deliver(server, content, sender=sender.addr_spec, recipients=recipients)
        unreached = {one.address for one in refused}
        return {
            "message_id": message["Message-ID"],
            "accepted": [address for address in recipients if address not in unreached],
            "refused": [{"address": one.address, "code": one.code, "message": one.message} for one in refused],
        }

    return as_tool(send_email)


_NOT_CONFIGURED = (
    "No mail was sent: this engine has no mail server. Set DAGBOK_SMTP_URL=smtp://user:password@mail.example.com:587 "
    "(or smtps://...:465, or smtp://localhost:25) and DAGBOK_SMTP_FROM='Reports <reports@example.com>'."
)


def _from_settings(settings: Settings) -> tuple[MailServer | None, Address | None]:
    url = settings.smtp_url.get_secret_value() if settings.smtp_url else ""
    if not url and not settings.smtp_from:
        return None, None
    if not url or not settings.smtp_from:
        missing = "DAGBOK_SMTP_FROM" if url else "DAGBOK_SMTP_URL"
        raise Misconfigured(f"DAGBOK_SMTP_URL and DAGBOK_SMTP_FROM belong together; {missing} is not set.")
    try:
        sender = _address("DAGBOK_SMTP_FROM", settings.smtp_from)
    except ToolError as exc:
        raise Misconfigured(exc.message) from exc
    return MailServer.read(url), sender


def _addresses(name: str, given: Recipients | None) -> list[Address]:
    return [_address(name, text) for text in ([given] if isinstance(given, str) else given or [])]


def _address(name: str, text: str) -> Address:
    """Return one address, with the name before it if there is one. A domain that is not ASCII is written in ASCII."""
    # Taken apart by hand: regular expressions for this went over a run of blanks again and again.
    whole = text.strip()
    shown, _, address = whole[:-1].rpartition("<") if whole.endswith(">") else ("", "", whole)
    shown = shown.strip()
    if len(shown) > 1 and shown[0] == shown[-1] == '"':
        shown = shown[1:-1].strip()
    local, _, domain = address.strip().rpartition("@")
    try:
        domain = domain.encode("idna").decode()
    except UnicodeError:
        domain = ""
    fits = len(local) <= 64 and len(domain) <= 253 and all(map(_LABEL.fullmatch, domain.split(".")))
    if _CONTROL.search(text) or _NO_NAME.search(shown) or not fits or not _LOCAL.fullmatch(local):
        raise ToolError(f"{name}: {text[:200]!r} is no address, such as ann@example.com.", code="invalid_input")
    _line(f"address in {name}", text)
    return Address(shown, local, domain)


def _distinct(addresses: Iterable[Address]) -> list[str]:
    found = list(dict.fromkeys(address.addr_spec for address in addresses))
    if not 1 <= len(found) <= MAX_RECIPIENTS:
        message = (
            f"A mail goes to at least one address and at most {MAX_RECIPIENTS}; this one would go to {len(found)}."
        )
        raise ToolError(message, code="invalid_input")
    return found


def _line(name: str, text: str) -> str:
    if _CONTROL.search(text):
        raise ToolError(f"The {name} holds a line break or another control character.", code="invalid_input")
    if "=?" in text:
        message = f"The {name} holds `=?`, which begins an encoded word. Write the text itself; it is encoded for you."
        raise ToolError(message, code="invalid_input")
    return text


def _message_id(key: str, sender: Address) -> str:
    return f"<dagbok.{hashlib.sha256(key.encode()).hexdigest()[:32]}@{sender.domain}>"


def _written(
    message: EmailMessage, text: str, html: str | None, attachments: Sequence[Attachment], workspace: Path
) -> bytes:
    """Return the mail as it is sent, with its content; blocking."""
    _fill(message, text, html, attachments, workspace)
    try:
        kept = all(_headers_are_kept(part) for part in message.walk())
        content = message.as_bytes()
    except MessageError as exc:  # newer Pythons look for line breaks themselves
        raise ToolError(f"The mail cannot be written: {str(exc)[:300]}.", code="invalid_input") from exc
    if not kept:
        raise ToolError("The mail cannot be written: a value of it would become a header.", code="invalid_input")
    return content


def _headers_are_kept(part: EmailMessage) -> bool:
    """Tell whether the headers of a part, read back as they are written, have the names that they were given."""
    head = b"".join(_POLICY.fold_binary(name, value) for name, value in part.items())
    read = BytesHeaderParser().parsebytes(head)
    return read.keys() == part.keys() and not read.get_payload()


def _fill(
    message: EmailMessage, text: str, html: str | None, attachments: Sequence[Attachment], workspace: Path
) -> None:
    message.set_content(text)
    if html is not None:
        message.add_alternative(html, subtype="html")
    left = MAX_ATTACHED_BYTES
    for attachment in attachments:
        path = attachment["path"]
        content = _read(workspace, path, left)
        left -= len(content)
        name = _line("name of an attachment", attachment.get("name") or PurePosixPath(path).name)
        kind, _, subtype = (mimetypes.guess_type(name)[0] or "application/octet-stream").partition("/")
        message.add_attachment(content, maintype=kind, subtype=subtype, filename=name)


def _read(workspace: Path, path: str, max_bytes: int) -> bytes:
    with place(workspace, path) as found:
        descriptor = open_file(found, path)
    with translated(path), os.fdopen(descriptor, "rb") as file:
        content = file.read(max_bytes + 1)
    if len(content) > max_bytes:
        message = f"With {path!r} the attachments have more than {MAX_ATTACHED_BYTES:,} bytes."
        raise ToolError(message, code="too_large", limit=MAX_ATTACHED_BYTES)
    return content
