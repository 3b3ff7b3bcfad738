"""`send_email` against real SMTP servers on loopback: polite ones (aiosmtpd), and ones that misbehave."""

from __future__ import annotations

import asyncio
import base64
import email
import email.policy
import ssl
import threading
import traceback
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field, replace
from email.errors import MessageError
from email.generator import BytesGenerator
from email.message import EmailMessage
from pathlib import Path
from typing import Any

import pytest
from aiosmtpd.smtp import SMTP, AuthResult, Envelope, LoginPassword
from pydantic import SecretStr
from servers import Authority
from tool_calls import make_call

from dagbok.domain.states import Effect
from dagbok.errors import Misconfigured, ToolError
from dagbok.settings import Settings
from dagbok.tools import mail, smtp
from dagbok.tools.registry import Registry
from dagbok.tools.smtp import Encryption, MailServer

PASSWORD = "p@ss/w0rd:åäö"
FROM = "Hamnen <reports@hamnen.example>"
WORD = "=?utf-8?q?a=0D=0AX-Evil:_1?="  # as an encoded word, a line break and a header
PARAMS: dict[str, Any] = {"to": "ann@example.com", "subject": "Hej", "text": "Hello.\n"}


@dataclass
class Post:
    """What a server took, and what it refuses."""

    envelopes: list[Envelope] = field(default_factory=list)
    refuses: dict[str, str] = field(default_factory=dict)
    answer: str = "250 OK queued"
    encrypted: list[bool] = field(default_factory=list)
    users: list[bytes] = field(default_factory=list)

    async def handle_RCPT(self, server: Any, session: Any, envelope: Envelope, address: str, options: Any) -> str:  # noqa: N802
        if address in self.refuses:
            return self.refuses[address]
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(self, server: Any, session: Any, envelope: Envelope) -> str:  # noqa: N802
        self.envelopes.append(envelope)
        self.encrypted.append(session.ssl is not None)
        return self.answer

    def check(self, server: Any, session: Any, envelope: Any, mechanism: str, given: Any) -> AuthResult:
        assert isinstance(given, LoginPassword)
        self.users.append(given.login)
        return AuthResult(success=given.password == PASSWORD.encode(), handled=False)

    def message(self) -> EmailMessage:
        (envelope,) = self.envelopes
        content = envelope.content
        assert isinstance(content, bytes)
        parsed = email.message_from_bytes(content, policy=email.policy.default)
        assert isinstance(parsed, EmailMessage)
        return parsed


Serve = Callable[[], asyncio.BaseProtocol]


@asynccontextmanager
async def serving(serve: Serve, tls: ssl.SSLContext | None = None) -> AsyncIterator[MailServer]:
    listening = await asyncio.get_running_loop().create_server(serve, "127.0.0.1", 0, ssl=tls)
    before = asyncio.all_tasks()
    try:
        encryption = Encryption.TLS if tls else Encryption.NONE
        yield MailServer("127.0.0.1", listening.sockets[0].getsockname()[1], encryption)
    finally:
        listening.close()
        talks = asyncio.all_tasks() - before
        for task in talks:
            task.cancel()
        await asyncio.gather(*talks, return_exceptions=True)


def script(talk: Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]) -> Serve:
    """A server that does what `talk` does."""

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await talk(reader, writer)
        finally:
            writer.transport.abort()

    def make() -> asyncio.BaseProtocol:
        reader = asyncio.StreamReader()
        return asyncio.StreamReaderProtocol(reader, connected)

    return make


def polite(post: Post, **options: Any) -> Serve:
    return lambda: SMTP(post, hostname="mail.example", loop=asyncio.get_running_loop(), **options)


def send(
    serve: Serve,
    monkeypatch: pytest.MonkeyPatch,
    *,
    tls: ssl.SSLContext | None = None,
    change: dict[str, Any] | None = None,
    workspace: Path | str = ".",
    **params: Any,
) -> Any:
    """Send a mail with the tool, to a server of which `change` says what differs from its URL."""

    async def main() -> Any:
        async with serving(serve, tls) as server:
            monkeypatch.setattr(MailServer, "read", lambda url: replace(server, **(change or {})))
            registry = Registry(workspace=workspace)
            made = registry.add(mail.send_email_tool(Settings(smtp_url=SecretStr("smtp://localhost"), smtp_from=FROM)))
            try:
                return await asyncio.wait_for(made(make_call({**PARAMS, **params})), 30)
            finally:
                registry.close()

    return asyncio.run(main())


def refusal(serve: Serve, monkeypatch: pytest.MonkeyPatch, **options: Any) -> ToolError:
    with pytest.raises(ToolError) as caught:
        send(serve, monkeypatch, **options)
    return caught.value


@pytest.fixture(scope="module")
def authority() -> Authority:
    return Authority()


# -- what is sent -----------------------------------------------------------------------------------------------------


def test_a_mail_arrives_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    post = Post()
    sent = send(
        polite(post),
        monkeypatch,
        to=["Ann Ek <ann@example.com>", "bo@example.com"],
        cc="Åsa <asa@example.com>",
        bcc=["hidden@example.com"],
        reply_to="answers@hamnen.example",
        subject="Båtar i hamn — idag",
        text="Hej Åsa,\n.\n.dots\n" + "långt " * 400,
        html="<p>Hej</p>",
    )
    recipients = ["ann@example.com", "bo@example.com", "asa@example.com", "hidden@example.com"]
    assert sent["accepted"] == post.envelopes[0].rcpt_tos == recipients
    assert sent["refused"] == []
    message = post.message()
    assert message["From"] == FROM
    assert message["To"] == "Ann Ek <ann@example.com>, bo@example.com"
    assert message["Cc"] == "Åsa <asa@example.com>"
    assert message["Reply-To"] == "answers@hamnen.example"
    assert message["Subject"] == "Båtar i hamn — idag"
    assert message["Message-ID"] == sent["message_id"]
    assert message["Auto-Submitted"] == "auto-generated"
    assert message["Date"].datetime.tzinfo is not None
    assert message["Bcc"] is None
    assert "hidden" not in str(message)
    plain, shown = message.get_body(("plain",)), message.get_body(("html",))
    assert plain is not None
    assert shown is not None
    assert plain.get_content().replace("\r\n", "\n") == "Hej Åsa,\n.\n.dots\n" + "långt " * 400 + "\n"
    assert shown.get_content().strip() == "<p>Hej</p>"
    assert post.envelopes[0].mail_from == "reports@hamnen.example"


def test_every_attempt_at_the_same_act_has_the_same_message_id(monkeypatch: pytest.MonkeyPatch) -> None:
    ids = [send(polite(Post()), monkeypatch)["message_id"] for _ in range(2)]
    assert ids[0] == ids[1]
    assert ids[0].endswith("@hamnen.example>")
    monkeypatch.setattr("dagbok.domain.call.Call.idempotency_key", property(lambda call: "another act"))
    assert send(polite(Post()), monkeypatch)["message_id"] != ids[0]


def test_files_of_the_workspace_are_attached(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "chart.png").write_bytes(bytes(range(256)))
    (tmp_path / "notes").write_bytes(b"x")
    post = Post()
    given = [{"path": "a/chart.png"}, {"path": "notes", "name": "Åsas.txt"}]
    send(polite(post), monkeypatch, workspace=tmp_path, attachments=given)
    parts = list(post.message().iter_attachments())
    assert [(part.get_filename(), part.get_content_type()) for part in parts] == [
        ("chart.png", "image/png"),
        ("Åsas.txt", "text/plain"),
    ]
    assert parts[0].get_payload(decode=True) == bytes(range(256))


@pytest.mark.parametrize(
    ("path", "code"), [("../secret", "refused"), ("none", "not_found"), ("large", "too_large"), ("link", "refused")]
)
def test_what_cannot_be_attached_stops_the_mail(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, path: str, code: str
) -> None:
    monkeypatch.setattr(mail, "MAX_ATTACHED_BYTES", 10)
    workspace = tmp_path / "w"
    workspace.mkdir()
    (tmp_path / "secret").write_text("x")
    (workspace / "small").write_bytes(b"x" * 6)
    (workspace / "large").write_bytes(b"x" * 6)  # with the other it is too much
    (workspace / "link").symlink_to(tmp_path / "secret")
    post = Post()
    given = [{"path": "small"}, {"path": path}]
    assert refusal(polite(post), monkeypatch, workspace=workspace, attachments=given).code == code
    assert post.envelopes == []


@pytest.mark.parametrize(
    "params",
    [
        {"subject": "a\r\nBcc: x@evil.example"}, {"subject": "a\nb"}, {"subject": "a\x00b"},
        {"to": "a@b.se\r\nBcc: x@evil.example"}, {"to": "a@b.se, c@d.se"}, {"to": "Ann\n <a@b.se>"}, {"to": "a b@c.se"},
        {"to": "<a@b.se>> SIZE=1"}, {"to": '"a b"@c.se'}, {"to": "a@b..se"}, {"to": "@b.se"}, {"to": "a@"}, {"to": "x"},
        {"to": "a@-b.se"}, {"to": []}, {"cc": "x"}, {"bcc": ["x y@z.se"]}, {"reply_to": "a@b.se\r\nX: y"},
        {"to": [f"a{n}@b.se" for n in range(60)], "cc": [f"c{n}@b.se" for n in range(41)]},
        {"to": [f"a{n}@b.se" for n in range(101)]}, {"to": '"a<b" <c@d.se>'}, {"to": 'a"b <c@d.se>'},
        {"subject": "x" * 999}, {"text": "x" * (2**20 + 1)}, {"to": "ann@example.com", "from": "boss@example.com"},
        {"subject": f"Hi {WORD}"}, {"subject": "=?utf-8?b?AAAA?="}, {"to": f"{WORD} <a@b.se>"},
        {"to": "=?utf-8?q?=22?= evil@x.se, <a@b.se>"}, {"to": f'"{WORD}" <a@b.se>'}, {"to": "=?utf-8?q?a=0Ab?=@b.se"},
        {"cc": f"{WORD} <a@b.se>"}, {"bcc": f"{WORD} <a@b.se>"}, {"reply_to": f"{WORD} <a@b.se>"},
    ],
)  # fmt: skip
def test_what_no_mail_can_hold_is_refused_before_a_server_is_asked(
    monkeypatch: pytest.MonkeyPatch, params: dict[str, Any]
) -> None:
    asked: list[bool] = []

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked.append(True)

    assert refusal(script(talk), monkeypatch, **params).code == "invalid_input"
    assert asked == []


@pytest.mark.parametrize("name", ["a\r\nX-Evil: 1", WORD])
def test_the_name_of_an_attachment_puts_in_no_header(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, name: str
) -> None:
    (tmp_path / "f").write_text("x")
    given = [{"path": "f", "name": name}]
    assert refusal(polite(Post()), monkeypatch, workspace=tmp_path, attachments=given).code == "invalid_input"


@pytest.mark.parametrize(
    "params", [{"subject": WORD}, {"to": f"{WORD} <a@b.se>"}, {"attachments": [{"path": "f", "name": WORD}]}]
)
def test_a_mail_with_headers_that_nobody_gave_it_is_not_sent(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, params: dict[str, Any]
) -> None:
    """Should another way be found to make a value into headers: what was written is looked at too."""
    monkeypatch.setattr(mail, "_line", lambda name, text: text)
    (tmp_path / "f").write_text("x")
    post = Post()
    error = refusal(polite(post), monkeypatch, workspace=tmp_path, **params)
    assert (error.code, post.envelopes) == ("invalid_input", [])
    assert "cannot be written" in error.message


def test_what_python_refuses_to_write_is_bad_input(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> bytes:
        raise MessageError("Header value appears to contain an embedded header")  # HeaderWriteError, where there is one

    monkeypatch.setattr(EmailMessage, "as_bytes", refuse)
    post = Post()
    error = refusal(polite(post), monkeypatch)
    assert (error.code, post.envelopes) == ("invalid_input", [])
    assert "embedded header" in error.message


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("  ann@example.com ", "ann@example.com"), ("<ann@example.com>", "ann@example.com"),
        ("Ann Ek<ann@example.com> ", "Ann Ek <ann@example.com>"), ('"Ek, Ann" < ann@example.com >',
        '"Ek, Ann" <ann@example.com>'), ('" " <ann@example.com>', "ann@example.com"),
    ],
)  # fmt: skip
def test_the_ways_to_write_an_address(text: str, shown: str) -> None:
    assert str(mail._address("To", text)) == shown


@pytest.mark.parametrize("text", ["{}", "{}a@b.se", "a{}<a@b.se>", '"{}" <a@b.se>', "{}<{}", "a@b.se{}", "{}<>"])
def test_an_address_full_of_blanks_takes_no_time(text: str) -> None:
    """A regular expression took time with the third power of the blanks: days for these."""
    with suppress(ToolError):
        assert mail._address("To", text.replace("{}", " " * 300_000)).addr_spec == "a@b.se"


def test_a_mail_is_written_off_the_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    """Writing the largest takes most of a second."""
    threads: list[int] = []
    flatten = BytesGenerator.flatten

    def noting(*arguments: Any, **options: Any) -> None:
        threads.append(threading.get_ident())
        flatten(*arguments, **options)

    monkeypatch.setattr(BytesGenerator, "flatten", noting)
    send(polite(Post()), monkeypatch)
    assert len(threads) == 1
    assert threading.get_ident() not in threads


def test_every_line_ends_as_smtp_wants_it_and_no_line_ends_the_mail(monkeypatch: pytest.MonkeyPatch) -> None:
    post = Post()
    text = "a\n.\nb\r.\rc\r\n.\r\n..\nd"
    send(polite(post), monkeypatch, text=text)
    content = post.envelopes[0].content
    assert isinstance(content, bytes)
    assert content.replace(b"\r\n", b"").translate(None, b"\r\n") == content.replace(b"\r\n", b"")
    assert content.endswith(b"\r\na\r\n.\r\nb\r\n.\r\nc\r\n.\r\n..\r\nd\r\n")


def test_a_mail_that_is_too_large_for_the_server_is_refused_before_it_is_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    post = Post()
    error = refusal(polite(post, data_size_limit=1000), monkeypatch, text="x " * 1000)
    assert (error.code, error.smtp_code, post.envelopes) == ("refused", 552, [])
    assert error.message.startswith("The mail was not sent")


def test_a_domain_that_is_not_ascii_is_written_in_ascii(monkeypatch: pytest.MonkeyPatch) -> None:
    assert send(polite(Post()), monkeypatch, to="bo@räksmörgås.se")["accepted"] == ["bo@xn--rksmrgs-5wao1o.se"]


def test_who_is_named_twice_gets_one_mail(monkeypatch: pytest.MonkeyPatch) -> None:
    post = Post()
    send(polite(post), monkeypatch, to=["ann@example.com", "Ann <ann@example.com>"], cc="ann@example.com")
    assert post.envelopes[0].rcpt_tos == ["ann@example.com"]


# -- encryption and passwords -----------------------------------------------------------------------------------------


def secured(authority: Authority, post: Post, **options: Any) -> Serve:
    return polite(post, tls_context=authority.server("127.0.0.1"), **options)


LOGIN = {"username": "anna", "password": PASSWORD}


@pytest.mark.parametrize("encryption", [Encryption.REQUIRED, Encryption.OFFERED])
def test_starttls_encrypts_and_the_password_goes_along(
    monkeypatch: pytest.MonkeyPatch, authority: Authority, encryption: Encryption
) -> None:
    post = Post()
    change = {"tls": authority.client(), "encryption": encryption, **LOGIN}
    send(secured(authority, post, authenticator=post.check, auth_required=True), monkeypatch, change=change)
    assert (post.encrypted, post.users) == ([True], [b"anna"])


def test_tls_from_the_start(monkeypatch: pytest.MonkeyPatch, authority: Authority) -> None:
    post = Post()
    serve = polite(post, authenticator=post.check, auth_require_tls=False)
    send(serve, monkeypatch, tls=authority.server("127.0.0.1"), change={"tls": authority.client(), **LOGIN})
    assert post.users == [b"anna"]


def test_a_password_does_not_go_where_starttls_is_not_offered(monkeypatch: pytest.MonkeyPatch) -> None:
    post = Post()
    serve = polite(post, authenticator=post.check, auth_require_tls=False)
    error = refusal(serve, monkeypatch, change={"encryption": Encryption.REQUIRED, **LOGIN})
    assert error.code == "unavailable"
    assert error.message.startswith("The mail was not sent")
    assert (post.users, post.envelopes) == ([], [])


@pytest.mark.parametrize("encryption", [Encryption.REQUIRED, Encryption.OFFERED])
def test_a_certificate_that_is_not_trusted_stops_the_mail(
    monkeypatch: pytest.MonkeyPatch, authority: Authority, encryption: Encryption
) -> None:
    post = Post()
    error = refusal(secured(authority, post), monkeypatch, change={"encryption": encryption})
    assert (error.code, post.envelopes) == ("unavailable", [])
    error = refusal(polite(post), monkeypatch, tls=authority.server("127.0.0.1"))
    assert (error.code, post.envelopes) == ("unavailable", [])


def test_a_wrong_password_is_named_as_such_and_shown_nowhere(
    monkeypatch: pytest.MonkeyPatch, authority: Authority
) -> None:
    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"220 hi\r\n")
        await reader.readline()
        writer.write(b"250-hi\r\n250 AUTH PLAIN\r\n")
        given = (await reader.readline()).split()[-1]
        writer.write(b"535 no: " + given + b" " + base64.b64decode(given).replace(b"\0", b" ") + b"\r\n")
        await reader.read()

    error = refusal(script(talk), monkeypatch, change=LOGIN)
    assert (error.code, error.smtp_code, error.sent) == ("refused", 535, False)
    assert "DAGBOK_SMTP_URL" in error.message
    shown = "".join(traceback.format_exception(error)) + repr(error.fields)
    encoded = base64.b64encode(f"\0anna\0{PASSWORD}".encode()).decode()
    assert PASSWORD not in shown
    assert encoded not in shown
    assert PASSWORD not in repr(MailServer("h", 1, Encryption.TLS, "anna", PASSWORD))


def test_a_server_that_cannot_check_a_password_for_now_is_worth_another_try(monkeypatch: pytest.MonkeyPatch) -> None:
    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"220 hi\r\n")
        await reader.readline()
        writer.write(b"250-hi\r\n250 AUTH PLAIN\r\n")
        await reader.readline()
        writer.write(b"454 4.7.0 Temporary authentication failure\r\n")
        await reader.read()

    error = refusal(script(talk), monkeypatch, change=LOGIN)
    assert (error.code, error.smtp_code, error.sent) == ("unavailable", 454, False)
    assert "cannot check for now the user and password of DAGBOK_SMTP_URL (454)" in error.message


# -- what became of it ------------------------------------------------------------------------------------------------


def test_recipients_that_are_refused_are_told_from_those_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    post = Post(refuses={"gone@example.com": "550 no such user"})
    sent = send(polite(post), monkeypatch, to=["ann@example.com", "gone@example.com"])
    assert sent["accepted"] == post.envelopes[0].rcpt_tos == ["ann@example.com"]
    assert sent["refused"] == [{"address": "gone@example.com", "code": 550, "message": "no such user"}]


@pytest.mark.parametrize(("answer", "code"), [("550 no such user", "refused"), ("450 greylisted", "unavailable")])
def test_when_every_recipient_is_refused_nothing_is_sent(
    monkeypatch: pytest.MonkeyPatch, answer: str, code: str
) -> None:
    post = Post(refuses={"ann@example.com": answer})
    error = refusal(polite(post), monkeypatch)
    assert (error.code, error.smtp_code) == (code, int(answer[:3]))
    assert "not sent" in error.message
    assert answer in error.message
    assert error.sent is False
    assert post.envelopes == []


def test_one_recipient_who_is_taken_later_is_worth_another_try(monkeypatch: pytest.MonkeyPatch) -> None:
    post = Post(refuses={"gone@example.com": "550 no such user", "ann@example.com": "450 greylisted"})
    error = refusal(polite(post), monkeypatch, to=["gone@example.com", "ann@example.com"])
    assert (error.code, error.smtp_code, error.sent) == ("unavailable", 450, False)
    assert "550 no such user" in error.message
    assert post.envelopes == []


@pytest.mark.parametrize(("answer", "code"), [("554 spam", "refused"), ("451 try later", "unavailable")])
def test_a_mail_that_the_server_refuses_was_not_sent(monkeypatch: pytest.MonkeyPatch, answer: str, code: str) -> None:
    error = refusal(polite(Post(answer=answer)), monkeypatch)
    assert (error.code, error.smtp_code, error.sent) == (code, int(answer[:3]), False)
    assert error.message.startswith("The mail was not sent")


def conversation(*, until: bytes, then: str) -> Serve:
    """A server that goes along until it gets `until`, and then cuts the connection, hangs, or talks nonsense."""

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        line = b"CONNECT"
        while not line.startswith(until):
            if line == b"DATA\r\n":
                writer.write(b"354 go on\r\n")
                await reader.readuntil(b"\r\n.\r\n")
                line = b"."
                continue
            writer.write(b"220 hi\r\n" if line == b"CONNECT" else b"250 OK\r\n")
            line = await reader.readline()
        if then == "hang":
            await reader.read()
        elif then != "cut":
            writer.write(then.encode())
            await writer.drain()

    return script(talk)


@pytest.mark.parametrize("until", [b"CONNECT", b"EHLO", b"MAIL", b"RCPT", b"DATA"])
@pytest.mark.parametrize(("then", "code"), [("cut", "unavailable"), ("hang", "timeout")])
def test_a_connection_lost_before_the_content_means_not_sent(
    monkeypatch: pytest.MonkeyPatch, until: bytes, then: str, code: str
) -> None:
    monkeypatch.setattr(smtp.deliver, "__kwdefaults__", {"timeout_s": 0.3 if then == "hang" else 20})
    error = refusal(conversation(until=until, then=then), monkeypatch)
    assert (error.code, error.sent) == (code, False)
    assert error.message.startswith("The mail was not sent")


@pytest.mark.parametrize(
    ("until", "then", "code"),
    [
        (b"CONNECT", "421 too busy\r\n", "unavailable"),
        (b"CONNECT", "554 not you\r\n", "refused"),
        (b"MAIL", "451 try later\r\n", "unavailable"),
        (b"MAIL", "550 not from you\r\n", "refused"),
        (b"DATA", "452 disk full\r\n", "unavailable"),
        (b"DATA", "554 no\r\n", "refused"),
    ],
)
def test_what_a_server_says_before_the_content_decides_whether_later_is_better(
    monkeypatch: pytest.MonkeyPatch, until: bytes, then: str, code: str
) -> None:
    error = refusal(conversation(until=until, then=then), monkeypatch)
    assert (error.code, error.smtp_code, error.sent) == (code, int(then[:3]), False)
    assert then.strip() in error.message


@pytest.mark.parametrize("then", ["cut", "hang", "nonsense\r\n", "299 perhaps\r\n"])
def test_a_connection_lost_after_the_content_means_unknown(monkeypatch: pytest.MonkeyPatch, then: str) -> None:
    monkeypatch.setattr(smtp.deliver, "__kwdefaults__", {"timeout_s": 0.3 if then == "hang" else 20})
    error = refusal(conversation(until=b".", then=then), monkeypatch)
    assert error.code == "outcome_unknown"
    assert "not known whether the mail was sent" in error.message


@pytest.mark.parametrize("then", ["cut", "hang"])
def test_a_server_that_takes_the_mail_and_no_farewell_has_taken_the_mail(
    monkeypatch: pytest.MonkeyPatch, then: str
) -> None:
    monkeypatch.setattr(smtp, "_QUIT_S", 0.05)
    assert send(conversation(until=b"QUIT", then=then), monkeypatch)["accepted"] == ["ann@example.com"]


def test_a_server_that_is_not_there_is_unavailable(monkeypatch: pytest.MonkeyPatch) -> None:
    error = refusal(polite(Post()), monkeypatch, change={"port": 1})
    assert (error.code, error.sent) == ("unavailable", False)
    assert error.message.startswith("The mail was not sent: 127.0.0.1:1:")


# -- settings ---------------------------------------------------------------------------------------------------------


def call(settings: Settings) -> Any:
    registry = Registry()
    made = registry.add(mail.send_email_tool(settings))
    assert (made.name, made.aliases, made.effect) == ("send_email", ("sendEmail",), Effect.ONCE)
    assert made.timeout_s > smtp.TIMEOUT_S  # so that it is our limit that strikes, and says what it means
    try:
        return asyncio.run(made(make_call(dict(PARAMS))))
    finally:
        registry.close()


def test_without_a_server_the_call_says_what_to_set() -> None:
    with pytest.raises(ToolError) as caught:
        call(Settings())
    assert caught.value.code == "not_configured"
    for name in ("DAGBOK_SMTP_URL=smtp://", "DAGBOK_SMTP_FROM="):
        assert name in caught.value.message


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("smtp://localhost", MailServer("localhost", 25, Encryption.NONE)),
        ("smtp://127.0.0.1:2525", MailServer("127.0.0.1", 2525, Encryption.NONE)),
        ("smtp://u:p@[::1]", MailServer("::1", 25, Encryption.NONE, "u", "p")),
        ("smtp://mail.example.com", MailServer("mail.example.com", 587, Encryption.OFFERED)),
        ("smtp://u%40x:p%3Aq@example.com:25/", MailServer("example.com", 25, Encryption.REQUIRED, "u@x", "p:q")),
        ("smtps://u:p@mail.example.com", MailServer("mail.example.com", 465, Encryption.TLS, "u", "p")),
        ("smtps://localhost:4650", MailServer("localhost", 4650, Encryption.TLS)),
    ],
)  # fmt: skip
def test_the_url_says_how_the_server_is_reached(url: str, expected: MailServer) -> None:
    assert MailServer.read(url) == expected


@pytest.mark.parametrize(
    "url",
    ["localhost:25", "http://x", "smtp://", "smtp://u:secret@", "smtp://u:secret/x@h", "smtp://h:x", "smtp://h:99999",
     "smtp://h:0", "smtp://h/path", "smtp://h?x=secret", "smtp://secret@h", "smtp://[secret", "smtp://u:se:cret/@h:25"],
)  # fmt: skip
def test_a_url_that_cannot_be_read_is_told_without_repeating_it(url: str) -> None:
    with pytest.raises(Misconfigured) as caught:
        MailServer.read(url)
    shown = "".join(traceback.format_exception(caught.value)).partition("Misconfigured:")[2]
    assert "DAGBOK_SMTP_URL" in shown
    assert "secret" not in shown
    assert "cret/" not in shown
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__ or caught.value.__context__ is None


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        (Settings(smtp_url=SecretStr("smtp://h")), "DAGBOK_SMTP_FROM is not set"),
        (Settings(smtp_from="a@b.se"), "DAGBOK_SMTP_URL is not set"),
        (Settings(smtp_url=SecretStr("smtp://h"), smtp_from="nobody"), "DAGBOK_SMTP_FROM"),
    ],
)
def test_half_a_configuration_is_told_at_the_start(settings: Settings, named: str) -> None:
    with pytest.raises(Misconfigured, match=named):
        mail.send_email_tool(settings)


def test_the_settings_do_not_show_the_password(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DAGBOK_SMTP_URL", "smtp://u:hidden@h")
    settings = Settings()
    assert settings.smtp_url is not None
    assert settings.smtp_url.get_secret_value() == "smtp://u:hidden@h"
    assert "hidden" not in repr(settings)
