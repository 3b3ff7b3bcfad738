"""Hands one message to the operator's SMTP server, and says which of three it was: taken, not taken, or unknown.

A mail cannot be taken back, so a lost connection means one thing before the server was given the content and another
after it: then the server may have it. The operator names the server, so the address rules of `Egress` do not apply.
"""

from __future__ import annotations

import asyncio
import ipaddress
import socket
import ssl
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from enum import Enum
from typing import Final, NoReturn, Self
from urllib.parse import unquote, urlsplit

import aiosmtplib
from aiosmtplib import (
    SMTPDataError,
    SMTPException,
    SMTPRecipientRefused,
    SMTPRecipientsRefused,
    SMTPResponseException,
    SMTPStatus,
)

from dagbok.domain.values import clean
from dagbok.errors import Misconfigured, ToolError

TIMEOUT_S: Final = 120.0  # for all of one mail
_QUIT_S: Final = 5.0
_SAID: Final = 300  # characters of what the server said
_EXAMPLE: Final = (
    "smtp://user:password@mail.example.com:587, smtps://user:password@mail.example.com, smtp://localhost:25"
)


class Encryption(Enum):
    """How a connection to the server is encrypted."""

    TLS = "tls"  #: from the start
    REQUIRED = "required"  #: by STARTTLS, or not at all
    OFFERED = "offered"  #: by STARTTLS, if the server offers it
    NONE = "none"  #: never; for this machine

    @property
    def start_tls(self) -> bool | None:
        """The same to aiosmtplib."""
        return {Encryption.REQUIRED: True, Encryption.OFFERED: None}.get(self, False)


@dataclass(frozen=True, slots=True)
class MailServer:
    """The server that takes mail from us, and who we are to it."""

    host: str
    port: int
    encryption: Encryption
    username: str | None = None
    password: str | None = field(default=None, repr=False)
    tls: ssl.SSLContext | None = None  #: instead of the system's certificates

    @classmethod
    def read(cls, url: str) -> Self:
        """Return the server of `smtp://[USER:PASSWORD@]HOST[:PORT]` (587, 25 on this machine) or `smtps://...` (465).

        To this machine nothing is encrypted; elsewhere `smtp://` uses STARTTLS where offered, always with a password.

        Raises:
            Misconfigured: It cannot be read; the message does not repeat it, as it may hold a password.
        """
        try:
            parts = urlsplit(url.strip())
            host, port = parts.hostname or "", parts.port
        except ValueError:
            raise _unreadable() from None  # its message holds a part of the URL
        extra = parts.path.strip("/") or parts.query or parts.fragment
        if parts.scheme not in ("smtp", "smtps") or not host or port == 0 or extra:
            raise _unreadable()
        username = unquote(parts.username) if parts.username else None
        password = unquote(parts.password) if parts.password else None
        if (username is None) != (password is None):
            raise _unreadable()
        local = _is_local(host)
        if parts.scheme == "smtps":
            return cls(host, port or 465, Encryption.TLS, username, password)
        encryption = Encryption.NONE if local else Encryption.REQUIRED if username else Encryption.OFFERED
        return cls(host, port or (25 if local else 587), encryption, username, password)


@dataclass(frozen=True, slots=True)
class Refused:
    """A recipient the server did not take, and what it said."""

    address: str
    code: int
    message: str


async def deliver(
    server: MailServer, content: bytes, *, sender: str, recipients: Sequence[str], timeout_s: float = TIMEOUT_S
) -> list[Refused]:
    """Hand a mail to the server for `recipients` and return those it did not take.

    Args:
        server: Where to.
        content: The mail in ASCII. Every line ends in CR LF, and the first is a header.
        sender: The address it comes from.
        recipients: The addresses it goes to.
        timeout_s: For all of it.

    Raises:
        ToolError: `refused`: the server said no for good; `unavailable`: it said no for now, or was not reached;
            `timeout`; all three with `sent` False: not sent. `outcome_unknown`: it was given the content and did not
            confirm it.
    """
    client = _Client(
        hostname=server.host,
        port=server.port,
        username=server.username,
        password=server.password,
        use_tls=server.encryption is Encryption.TLS,
        start_tls=server.encryption.start_tls,
        tls_context=server.tls,
        local_hostname=_own_name(),
        timeout=None,  # there is one limit for all of it
    )
    try:
        async with asyncio.timeout(timeout_s):
            await client.connect()
            refused = await client.hand_over(content, sender, recipients)
        # The server has it: that it hangs up, or takes long to say goodbye, changes nothing.
        with suppress(SMTPException, TimeoutError, OSError):
            await client.quit(timeout=_QUIT_S)
    except (SMTPException, OSError, ValueError) as exc:  # TimeoutError and ssl.SSLError are OSErrors
        _translate(exc, server, client, timeout_s)
    finally:
        client.close()
    return refused


class _Client(aiosmtplib.SMTP):
    """A client that knows whether the server may have the mail.

    `sendmail` of the library goes over all of it three times with regular expressions, which nothing can interrupt: a
    mail of 25 MB kept the loop waiting for 0.4 s.
    """

    given = False  #: the content was on its way, and the server has not said no

    async def hand_over(self, content: bytes, sender: str, recipients: Sequence[str]) -> list[Refused]:
        """Return whom the server does not take; it took the rest."""
        await self._ehlo_or_helo_if_needed()
        await self.mail(sender, options=[f"SIZE={len(content)}"] if self.supports_extension("size") else [])
        refused: list[SMTPRecipientRefused] = []
        for address in recipients:
            try:
                await self.rcpt(address)
            except SMTPRecipientRefused as exc:
                refused.append(exc)
        if len(refused) == len(recipients):
            raise SMTPRecipientsRefused(refused)
        await self._give(content)
        return [Refused(exc.recipient, exc.code, _said(exc.message)) for exc in refused]

    async def _give(self, content: bytes) -> None:
        answer = await self.execute_command(b"DATA")
        if answer.code != SMTPStatus.start_input or self.protocol is None:
            raise SMTPDataError(answer.code, answer.message)
        self.given = True
        self.protocol.write(content.replace(b"\r\n.", b"\r\n..") + b".\r\n")  # RFC 5321, 4.5.2
        answer = await self.protocol.read_response()
        if answer.code != SMTPStatus.completed:
            self.given = not 400 <= answer.code <= 599
            raise SMTPDataError(answer.code, answer.message)


def _translate(exc: Exception, server: MailServer, client: _Client, timeout_s: float) -> NoReturn:
    place = f"{server.host}:{server.port}"
    if client.given:
        message = (
            f"It is not known whether the mail was sent: {place} was given it and then did not confirm it "
            f"({_reason(exc, timeout_s)}). Look for its Message-ID before sending it again."
        )
        raise ToolError(message, code="outcome_unknown") from exc
    if isinstance(exc, aiosmtplib.SMTPAuthenticationError):
        # Without the cause and what was said: a server may repeat what it was sent.
        does = "does not accept" if _code(exc.code) == "refused" else "cannot check for now"  # RFC 4954, 4.7.3: 454
        message = f"The mail was not sent: {place} {does} the user and password of DAGBOK_SMTP_URL ({exc.code})."
        raise ToolError(message, code=_code(exc.code), sent=False, smtp_code=exc.code) from None
    if isinstance(exc, SMTPRecipientsRefused):
        said = [f"{one.recipient}: {one.code} {_said(one.message)}" for one in exc.recipients[:5]]
        codes = [one.code for one in exc.recipients]
        message = f"The mail was not sent: {place} refuses every recipient: {'; '.join(said)}"
        # One that is taken later is worth another try; the others will be told as refused then.
        raise ToolError(message, code=_code(min(codes)), sent=False, smtp_code=min(codes)) from exc
    if isinstance(exc, SMTPResponseException):
        message = f"The mail was not sent: {place} answers {exc.code} {_said(exc.message)}"
        raise ToolError(message, code=_code(exc.code), sent=False, smtp_code=exc.code) from exc
    if isinstance(exc, TimeoutError):
        code = "timeout"
    else:  # a certificate that does not fit is both an OSError and a ValueError
        code = "unavailable" if isinstance(exc, SMTPException | OSError) else "invalid_input"
    raise ToolError(f"The mail was not sent: {place}: {_reason(exc, timeout_s)}.", code=code, sent=False) from exc


def _code(status: int) -> str:
    return "unavailable" if status < 500 else "refused"  # RFC 5321, 4.2.1: 4yz may succeed later


def _reason(exc: Exception, timeout_s: float) -> str:
    if isinstance(exc, TimeoutError):
        return f"no answer within {timeout_s:g} s"
    return _said(str(exc)) or type(exc).__name__


def _said(text: str) -> str:
    return clean(" ".join(text.split()), _SAID).rstrip(".")


def _own_name() -> str:
    """Return how we introduce ourselves (RFC 5321, 4.1.4), without asking DNS, which may take for ever."""
    name = socket.gethostname()
    return name if "." in name and name.isascii() else "[127.0.0.1]"


def _is_local(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _unreadable() -> Misconfigured:
    return Misconfigured(
        "DAGBOK_SMTP_URL cannot be read. It is not repeated here, as it may hold a password. Examples: "
        f"{_EXAMPLE}. Characters such as @ : / in a password are percent-encoded."
    )
