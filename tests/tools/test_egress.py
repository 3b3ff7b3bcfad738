"""The guard of outgoing requests: what it refuses, in every spelling, and what no server can do to it."""

from __future__ import annotations

import asyncio
import gc
import ipaddress
import socket
import ssl
import subprocess
import sys
import textwrap
import threading
import zlib
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from servers import LOOPBACK, Authority, Received, Server, redirect, reply, serving, to_loopback, trap, was_touched

from dagbok.errors import Misconfigured, ToolError
from dagbok.tools import bodies, connections
from dagbok.tools.addresses import Allowed, as_address, canonical_host, why_forbidden
from dagbok.tools.bodies import Body
from dagbok.tools.egress import Egress, Fetched
from dagbok.tools.resolver import MAX_NAMES

HOST = "public.example"


def fetch(egress: Egress, url: str, method: str = "GET", **options: Any) -> Fetched:
    return asyncio.run(egress.fetch(method, url, **options))


def fault(egress: Egress, url: str, method: str = "GET", **options: Any) -> ToolError:
    with pytest.raises(ToolError) as caught:
        fetch(egress, url, method, **options)
    return caught.value


def to(server: Server, **options: Any) -> Egress:
    """An egress for which every name leads to `server`, and nowhere else on this machine."""
    return Egress(allow=[server.place], resolve=to_loopback, **options)


def answers(*lists: Sequence[str]) -> Callable[[str, int], Awaitable[Sequence[str]]]:
    """A resolver that gives another answer each time it is asked, and fails when asked once too often."""
    left = iter(lists)

    async def resolve(host: str, port: int) -> Sequence[str]:
        return next(left)

    return resolve


async def never_asked(host: str, port: int) -> Sequence[str]:
    raise AssertionError(f"{host} was resolved")


@pytest.fixture
def hello() -> Iterator[Server]:
    with serving(lambda request: reply(b"hello")) as server:
        yield server


# -- where requests may go --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "host",
    [
        "127.0.0.1", "2130706433", "0x7f000001", "0x7F.0.0.1", "0177.0.0.1", "017700000001", "127.1", "127.0.1", "0",
        "0.0.0.0", "0x", "127.0.0.1.", "127.255.255.254", "127。0。0。1", "①②⑦.0.0.1", "0x7f.1",
        "[::1]", "[::]", "[0:0:0:0:0:0:0:1]", "[::ffff:127.0.0.1]", "[::ffff:7f00:1]", "[::ffff:0:127.0.0.1]",
        "[::127.0.0.1]", "[64:ff9b::127.0.0.1]", "[64:ff9b::7f00:1]", "[64:ff9b:1::7f00:1]", "[2002:7f00:1::]",
        "[2001:0:7f00:1::]", "[fc00::1]", "[fd12:3456::1]", "[fe80::1]", "[fec0::1]", "[ff02::1]", "[2001:db8::1]",
        "[2001:db8::5efe:7f00:1]", "[2600::5efe:10.0.0.1]", "[fd00:ec2::254]", "[100::1]", "[4000::1]",
        "10.0.0.1", "172.16.0.1", "172.31.255.255", "192.168.1.1", "100.64.0.1", "169.254.1.1", "169.254.169.254",
        "2852039166", "0xa9fea9fe", "[::ffff:169.254.169.254]", "192.0.0.1", "192.0.2.1", "198.18.0.1", "198.51.100.1",
        "203.0.113.1", "224.0.0.1", "239.255.255.255", "240.0.0.1", "255.255.255.255", "192.88.99.1",
        "localhost", "LOCALHOST", "localhost.", "lo\u00adcalhost", "a.localhost", "a.b.localhost.",
        "metadata.google.internal", "localhost.localdomain", "\uff4cocalhost", "\uff11\uff12\uff17.\uff10.0.1",
    ],
)  # fmt: skip
def test_no_spelling_of_a_forbidden_host_gets_through(host: str) -> None:
    error = fault(Egress(resolve=never_asked), f"http://{host}/latest/meta-data")
    assert error.code == "refused_address"
    assert error.sent is False


@pytest.mark.parametrize(
    "host",
    [
        "[fe80::1%25eth0]", "[fe80::1%eth0]", "[::1", "::1", "1.2.3.4.5", "256.1.1.1", "1.2.3.256", "4294967296",
        "09.1.1.1", "1..2", ".", "", "..", "a..b", "-a.example", "a" * 64 + ".example", "b." * 130 + "example",
        "a%2eb", "exa<mple", "127.0.0.1%00.example", "a:b", "[::1]x", "[127.0.0.1]", "[]", "foo.0x7g.1", "☃%",
    ],
)  # fmt: skip
def test_what_is_no_host_is_refused(host: str) -> None:
    assert fault(Egress(resolve=never_asked), f"http://{host}/").code == "invalid_input"


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("file:///etc/passwd", "file:"),
        ("FILE:///etc/passwd", "file:"),
        ("ftp://public.example/", "ftp:"),
        ("data:text/html,hi", "data:"),
        ("gopher://public.example/", "gopher:"),
        ("javascript:alert(1)", "javascript:"),
        ("public.example/path", "http://"),
        ("//public.example/", "http://"),
        ("", "http://"),
        ("http:/public.example/", "two slashes"),
        ("http:public.example", "two slashes"),
        ("http:///path", "no host"),
        ("http://user:hunter2@public.example/", "credentials"),
        ("http://hunter2@public.example/", "credentials"),
        ("http://public.example@hunter2.example/", "credentials"),
        ("http://a@b@hunter2.example/", "credentials"),
        ("http://:@public.example/", "credentials"),
        ("http://public.example\\@127.0.0.1/", "U+005C"),
        ("http:\\\\127.0.0.1\\", "U+005C"),
        ("http://public.example/\r\nX-Injected: 1", "U+000D"),
        ("http://public.example/a b", "U+0020"),
        (" http://public.example/", "U+0020"),
        ("http://public.example\t/", "U+0009"),
        ("http://public.example/\x00", "U+0000"),
        ("http://public.example/\u2028", "U+2028"),
        ("http://public.example/\ud800", "U+D800"),
        ("http://public.example:0/", "port"),
        ("http://public.example:65536/", "port"),
        ("http://public.example:/", "port"),
        ("http://public.example:\uff18\uff10/", "port"),
        ("http://public.example:-1/", "port"),
        ("http://public.example/" + "a" * 8192, "8,192"),
        ("http://public.example/" + "å" * 4000, "8,192"),
    ],
)
def test_a_url_that_programs_could_read_differently_is_refused_and_its_secrets_are_not_repeated(
    url: str, says: str
) -> None:
    error = fault(Egress(resolve=never_asked), url)
    assert error.code == "invalid_input"
    assert says in error.message
    assert "hunter2" not in error.message


def test_a_name_that_leads_here_is_refused_with_what_it_leads_to_and_how_to_allow_it() -> None:
    error = fault(Egress(resolve=to_loopback), "http://intranet.example:8080/?key=hunter2")
    assert error.code == "refused_address"
    assert (error.host, error.address) == ("intranet.example", "127.0.0.1")
    assert "DAGBOK_EGRESS_ALLOW=intranet.example:8080" in error.message
    assert "hunter2" not in error.message


def test_one_forbidden_address_among_many_refuses_them_all() -> None:
    with trap() as listener:
        port = listener.getsockname()[1]
        egress = Egress(resolve=answers(["93.184.215.14", LOOPBACK]))
        assert fault(egress, f"http://{HOST}:{port}/").address == LOOPBACK
        assert not was_touched(listener)


def test_an_answer_of_dns_that_changes_leads_nowhere_new() -> None:
    """Neither the second request for a name, nor a redirect to it, reaches what it leads to by then."""
    with trap() as listener:
        port = listener.getsockname()[1]
        first = Egress(resolve=answers(["8.8.8.8"], [LOOPBACK]))
        assert asyncio.run(first.addresses(HOST, port)) == ("8.8.8.8",)
        assert fault(first, f"http://{HOST}:{port}/").code == "refused_address"
        with serving(lambda request: redirect(f"http://{HOST}:{port}/")) as server:
            second = Egress(allow=[server.place], resolve=answers([LOOPBACK], [LOOPBACK]))
            assert fault(second, server.url_of(HOST)).code == "refused_address"
            assert len(server.requests) == 1
        assert not was_touched(listener)


def test_a_name_is_resolved_once_and_what_was_checked_is_what_is_connected_to(hello: Server) -> None:
    asked: list[tuple[str, int]] = []

    async def resolve(host: str, port: int) -> list[str]:
        asked.append((host, port))
        assert len(asked) == 1
        return [LOOPBACK]

    egress = Egress(allow=[hello.place], resolve=resolve)
    assert fetch(egress, hello.url_of("Public.Example.")).content == b"hello"
    assert asked == [(HOST, hello.port)]
    assert hello.requests[0].headers["host"] == f"{HOST}:{hello.port}"


def test_an_answer_of_dns_in_ipv6_form_is_the_ipv4_address_it_carries(hello: Server) -> None:
    mapped = f"::ffff:{LOOPBACK}"
    assert fault(Egress(resolve=answers([mapped])), hello.url_of(HOST)).address == LOOPBACK
    egress = Egress(allow=[hello.place], resolve=answers([mapped], [mapped]))
    assert asyncio.run(egress.addresses(HOST, hello.port)) == (LOOPBACK,)
    assert fetch(egress, hello.url_of(HOST)).status == 200


def test_the_next_address_is_tried_where_one_cannot_be_connected_to(hello: Server) -> None:
    egress = Egress(allow=["127.0.0.0/8"], resolve=answers(["127.0.0.2", LOOPBACK]))
    assert fetch(egress, hello.url_of(HOST)).status == 200


@pytest.mark.parametrize(
    ("resolve", "says"),
    [
        (answers([]), "has no address"),
        (answers(["nonsense"]), "cannot be resolved"),
        (None, "cannot be resolved"),
    ],
)
def test_a_host_that_does_not_resolve_is_unavailable(resolve: Any, says: str) -> None:
    error = fault(Egress(resolve=resolve), "http://nowhere.invalid/")
    assert (error.code, error.sent) == ("unavailable", False)
    assert says in error.message


def test_a_port_where_nobody_listens_is_unavailable() -> None:
    with trap() as listener:
        port = listener.getsockname()[1]
    error = fault(Egress(allow=[LOOPBACK]), f"http://{LOOPBACK}:{port}/")
    assert (error.code, error.sent) == ("unavailable", False)
    assert "Connection refused" in error.message


# -- what an operator allows ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "entry", ["127.0.0.1", "127.0.0.0/8", "127.0.0.1:{port}", "127.0.0.0/8:{port}", "0x7f.1", "public.example",
              "PUBLIC.example.:{port}", "[::ffff:127.0.0.1]:{port}"]
)  # fmt: skip
def test_an_entry_of_the_operator_lifts_the_ban(entry: str, hello: Server) -> None:
    egress = Egress(allow=[entry.format(port=hello.port)], resolve=to_loopback)
    assert fetch(egress, hello.url_of(HOST)).content == b"hello"


@pytest.mark.parametrize(
    "entry", ["127.0.0.2", "10.0.0.0/8", "127.0.0.1:1", "public.example:1", "other.example", "example", "[::1]", "::1"]
)
def test_an_entry_lifts_the_ban_for_nothing_else(entry: str, hello: Server) -> None:
    egress = Egress(allow=[entry], resolve=to_loopback)
    assert fault(egress, hello.url_of(HOST)).code == "refused_address"
    assert not hello.connections


def test_a_local_name_can_be_allowed_by_its_name(hello: Server) -> None:
    assert fetch(Egress(allow=["localhost"], resolve=to_loopback), hello.url_of("localhost")).status == 200


@pytest.mark.parametrize(
    "entry",
    ["", "http://a.example", "a b", "10.0.0.1/8", "10.0.0.0/99", "a.example:0", "a.example:x", "a.example:99999",
     "[::1", "[::1]8080", "[a.example]", "*.example", "300.1.1.1", "fe80::1%eth0",
     "::ffff:10.0.0.0/104", "[::ffff:0:0/96]:80", "10.0.0.0/0.0.0.255", "10.0.0.0/255.0.0.0", "10.0.0.0/",
     "10.0.0.0/8/8", "10.0.0.0/+8", "10.0.0.0/\u0668"],
)  # fmt: skip
def test_an_entry_that_cannot_be_read_is_named(entry: Any) -> None:
    with pytest.raises(Misconfigured, match="allowed to reach") as caught:
        Egress(allow=["good.example", entry])
    assert repr(entry) in caught.value.message


def test_ipv6_entries_come_with_brackets_where_they_have_a_port() -> None:
    allowed = Allowed.read(["[fd00::1]:443", "fd01::/16"])
    assert allowed.address(ipaddress.ip_address("fd00::1"), 443)
    assert not allowed.address(ipaddress.ip_address("fd00::1"), 80)
    assert allowed.address(ipaddress.ip_address("fd01::9"), 80)


# -- the filter against Python's own ----------------------------------------------------------------------------------

addresses = st.one_of(st.ip_addresses(v=4), st.ip_addresses(v=6), st.ip_addresses(v=4, network="127.0.0.0/8"),
                      st.ip_addresses(v=4, network="10.0.0.0/8"), st.ip_addresses(v=6, network="2000::/3"))  # fmt: skip


@given(addresses)
@example(ipaddress.ip_address("192.0.0.9"))
def test_no_address_that_python_calls_private_gets_through(address: ipaddress.IPv4Address) -> None:
    if not address.is_global or address.is_multicast:
        assert why_forbidden(address)


@given(st.ip_addresses(v=4))
def test_addresses_that_carry_an_ipv4_address_are_no_way_around_it(inner: ipaddress.IPv4Address) -> None:
    bits, forbidden = int(inner), why_forbidden(inner) is not None
    for prefix in (0xFFFF << 32, 0x64_FF9B << 96):  # IPv4-mapped, NAT64
        assert (why_forbidden(ipaddress.IPv6Address(prefix | bits)) is not None) == forbidden
    assert why_forbidden(ipaddress.IPv6Address(0x2002 << 112 | bits << 80))  # 6to4
    assert why_forbidden(ipaddress.IPv6Address(0x2001 << 112 | bits))  # Teredo
    assert why_forbidden(ipaddress.IPv6Address(bits))
    if forbidden:
        assert why_forbidden(ipaddress.IPv6Address(0x2A00 << 112 | 0x5EFE << 32 | bits))  # ISATAP


def spellings(address: ipaddress.IPv4Address) -> list[str]:
    a, b, c, d = address.packed
    number = int(address)
    return [
        *(str(number), hex(number), f"0{number:o}", f"{a}.{number & 0xFFFFFF}", f"{a}.{b}.{c << 8 | d}"),
        *(f"0x{a:X}.{b}.0{c:o}.{d}", f"{a}.{b}.{c}.{d}.", f"000{a:o}.{b}.{c}.{d}"),
        *(f"[::ffff:{address}]", f"[::FFFF:{number >> 16:x}:{number & 0xFFFF:x}]"),
        "".join(chr(ord(one) + 0xFEE0) if one.isdigit() else "。" for one in str(address)),
    ]


@given(st.ip_addresses(v=4))
def test_every_spelling_of_an_address_is_read_as_that_address(address: ipaddress.IPv4Address) -> None:
    for spelling in spellings(address):
        assert as_address(canonical_host(spelling)) == address, spelling


@pytest.mark.parametrize("address", ["8.8.8.8", "1.1.1.1", "2606:4700::1111", "2a00:1450::1", "64:ff9b::8.8.8.8"])
def test_public_addresses_pass(address: str) -> None:
    assert why_forbidden(ipaddress.ip_address(address)) is None


# -- redirects --------------------------------------------------------------------------------------------------------


def test_a_redirect_is_followed_and_told(hello: Server) -> None:
    def respond(request: Received) -> bytes:
        return redirect("../end?x=1#part") if request.target != "/end?x=1" else reply(b"there")

    with serving(respond) as server:
        found = fetch(to(server), server.url_of(HOST, "/a/b?k=1"))
    assert (found.content, found.url) == (b"there", server.url_of(HOST, "/end?x=1"))
    assert found.redirects == (server.url_of(HOST, "/a/b?k=1"),)


@pytest.mark.parametrize(
    ("location", "target"),
    [("/é", "/%C3%A9"), ("/voilà", "/voil%C3%A0"), ("/\xe9".encode("latin-1"), "/%C3%A9")],
)
def test_a_redirect_may_hold_utf_8_as_it_is(location: str | bytes, target: str) -> None:
    raw = location if isinstance(location, bytes) else location.encode()
    away = b"HTTP/1.1 302 X\r\nContent-Length: 0\r\nLocation: " + raw + b"\r\n\r\n"
    with serving(lambda request: away if request.target == "/" else reply()) as server:
        assert fetch(to(server), server.url_of(HOST)).url == server.url_of(HOST, target)
        assert server.requests[-1].target == target
        found = fetch(to(server), server.url_of(HOST), redirects=False)
    assert found.headers["location"] == raw.decode("latin-1" if isinstance(location, bytes) else "utf-8")


def test_a_redirect_is_an_answer_where_none_is_to_be_followed() -> None:
    with serving(lambda request: redirect("/elsewhere")) as server:
        found = fetch(to(server), server.url, redirects=False)
    assert (found.status, found.headers["location"]) == (302, "/elsewhere")


@pytest.mark.parametrize(
    ("location", "code"),
    [
        ("http://127.0.0.1:1/", "refused_address"),
        ("http://2130706433:1/", "refused_address"),
        ("//[::1]:1/", "refused_address"),
        ("http://169.254.169.254/latest/meta-data", "refused_address"),
        ("http://localhost:1/", "refused_address"),
        ("file:///etc/passwd", "refused_redirect"),
        ("gopher://public.example/", "refused_redirect"),
        ("data:text/plain,hi", "refused_redirect"),
        ("http://user:hunter2@public.example/", "refused_redirect"),
        ("/\\127.0.0.1/", "refused_redirect"),
        ("http://public.example\t@127.0.0.1/", "refused_redirect"),
        ("/pa\tth", "refused_redirect"),
        ("http://[::1/", "refused_redirect"),
        ("/" + "a" * 9000, "refused_redirect"),
    ],
)
def test_a_redirect_leads_to_nothing_that_a_url_could_not(location: str, code: str) -> None:
    with serving(lambda request: redirect(location)) as server:
        error = fault(to(server), server.url_of(HOST))
        assert len(server.requests) == 1
    assert (error.code, error.sent) == (code, True)  # the first request has happened
    assert "hunter2" not in error.message


def test_redirects_come_to_an_end() -> None:
    with serving(lambda request: redirect(request.target + "x")) as server:
        error = fault(to(server, max_redirects=3), server.url)
        assert (error.code, len(server.requests)) == ("too_many_redirects", 4)


def test_no_redirect_leads_from_https_to_http(hello: Server) -> None:
    authority = Authority()
    with serving(lambda request: redirect(hello.url_of(HOST)), tls=authority.server(HOST)) as server:
        egress = Egress(allow=[LOOPBACK], resolve=to_loopback, tls=authority.client())
        assert fault(egress, server.url_of(HOST)).code == "refused_redirect"
    assert not hello.connections


SECRETS = {"Authorization": "Bearer hunter2", "Cookie": "a=b", "X-Api-Key": "hunter2", "Idempotency-Key": "k",
           "Accept": "text/x", "Accept-Language": "sv", "User-Agent": "me"}  # fmt: skip


def test_another_origin_gets_harmless_headers_only_and_the_same_origin_all(hello: Server) -> None:
    def respond(request: Received) -> bytes:
        return redirect("/two") if request.target == "/" else redirect(hello.url_of("other.example"))

    with serving(respond) as server:
        egress = Egress(allow=[LOOPBACK], resolve=to_loopback)
        fetch(egress, server.url_of(HOST), headers=SECRETS)
        assert SECRETS.items() <= {name: server.requests[1].headers[name.lower()] for name in SECRETS}.items()
    got = hello.requests[0].headers
    assert not {"authorization", "cookie", "x-api-key", "idempotency-key"} & set(got)
    assert (got["accept"], got["accept-language"], got["user-agent"]) == ("text/x", "sv", "me")


def test_another_port_is_another_origin(hello: Server) -> None:
    with serving(lambda request: redirect(hello.url_of(HOST))) as server:
        fetch(Egress(allow=[LOOPBACK], resolve=to_loopback), server.url_of(HOST), headers=SECRETS)
    assert "authorization" not in hello.requests[0].headers


@pytest.mark.parametrize(
    ("status", "method", "then", "body"),
    [
        (301, "POST", "GET", b""), (302, "POST", "GET", b""), (303, "POST", "GET", b""), (303, "PUT", "GET", b""),
        (307, "POST", "POST", b"x"), (308, "POST", "POST", b"x"), (302, "PUT", "PUT", b"x"),
    ],
)  # fmt: skip
def test_the_method_changes_with_a_redirect_as_in_browsers(status: int, method: str, then: str, body: bytes) -> None:
    def respond(request: Received) -> bytes:
        return redirect("/end", status) if request.target == "/" else reply()

    with serving(respond) as server:
        fetch(to(server), server.url, method, content=b"x", headers={"Content-Type": "text/x"})
        after = server.requests[1]
    assert (after.method, after.body) == (then, body)
    assert ("content-type" in after.headers) == bool(body)


@pytest.mark.parametrize(
    ("status", "method", "content"),
    [(307, "POST", b"x"), (308, "POST", b"x"), (301, "PUT", b"x"), (307, "POST", None), (302, "DELETE", None),
     (302, "GET", b"x")],
)  # fmt: skip
def test_neither_a_body_nor_an_act_goes_to_another_origin(
    status: int, method: str, content: bytes | None, hello: Server
) -> None:
    with serving(lambda request: redirect(hello.url_of(HOST), status)) as server:
        error = fault(Egress(allow=[LOOPBACK], resolve=to_loopback), server.url, method, content=content)
    assert error.code == "refused_redirect"
    assert not hello.connections


# -- what may be sent -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("X-A", "1\r\nX-Injected: 1"), ("X-A", "1\nX"), ("X-A", "\x00"), ("X-A", "å"), ("X-A", " a"), ("X-A", "a\r\n"),
        ("X-A\r\nX-B", "1"), ("X A", "1"), ("", "1"), ("X:", "1"), ("Å", "1"), ("Host", "127.0.0.1"),
        ("content-length", "0"), ("Transfer-Encoding", "chunked"), ("Connection", "close"), ("Upgrade", "h2c"),
        ("Proxy-Authorization", "x"), ("Trailer", "x"), ("Expect", "100-continue"),
        ("TE", "trailers"),  # codespell:ignore te
        ("Accept-Encoding", "br"), ("Keep-Alive", "x"), ("X-A", "a" * 40_000),
    ],
)  # fmt: skip
def test_a_header_that_could_end_the_message_or_reframe_it_is_refused(name: str, value: str, hello: Server) -> None:
    error = fault(to(hello), hello.url, headers={name: value})
    assert error.code == "invalid_input"
    assert "Injected" not in error.message
    assert not hello.connections


def test_too_many_headers_and_the_same_one_twice_are_refused(hello: Server) -> None:
    assert fault(to(hello), hello.url, headers={f"X-{i}": "" for i in range(101)}).code == "invalid_input"
    assert fault(to(hello), hello.url, headers={"X-A": "1", "x-a": "2"}).code == "invalid_input"


@pytest.mark.parametrize("method", ["CONNECT", "TRACE", "trace", "GET / HTTP/1.1\r\nX:", "", "GET X"])
def test_a_method_that_is_none_is_refused(method: str, hello: Server) -> None:
    assert fault(to(hello), hello.url, method).code == "invalid_input"


def test_params_are_encoded_and_can_inject_nothing(hello: Server) -> None:
    params = {"q": "a b\r\nX-Injected: 1", "n": [1, 2.5], "t": True, "none": None, "å": "&=#"}
    fetch(to(hello), hello.url_of(HOST, "/p?have=1"), params=params)
    (got,) = hello.requests
    assert got.target == "/p?have=1&q=a+b%0D%0AX-Injected%3A+1&n=1&n=2.5&t=true&%C3%A5=%26%3D%23"
    assert "x-injected" not in got.headers


def test_a_param_that_is_no_value_is_refused(hello: Server) -> None:
    assert fault(to(hello), hello.url, params={"q": {"a": 1}}).code == "invalid_input"


def test_a_request_says_who_asks_and_carries_nothing_of_the_environment(
    hello: Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    with trap() as listener:
        proxy = f"http://{LOOPBACK}:{listener.getsockname()[1]}"
        for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY"):
            monkeypatch.setenv(name, proxy)
        (tmp_path / ".netrc").write_text(f"machine {HOST} login me password hunter2")
        monkeypatch.setenv("HOME", str(tmp_path))
        fetch(to(hello), hello.url_of(HOST, "/å{}?q=ä"), "POST", content=b"body")
        assert not was_touched(listener)
    (got,) = hello.requests
    assert (got.target, got.body) == ("/%C3%A5%7B%7D?q=%C3%A4", b"body")
    assert set(got.headers) == {"host", "accept", "accept-encoding", "user-agent", "content-length"}
    assert got.headers["user-agent"].startswith("dagbok/")


def test_cookies_are_neither_kept_nor_shown() -> None:
    with serving(lambda request: reply(headers={"Set-Cookie": "a=hunter2"})) as server:
        egress = to(server)

        async def twice() -> Fetched:
            async with egress:
                await egress.fetch("GET", server.url)
                return await egress.fetch("GET", server.url)

        assert "hunter2" not in str(asyncio.run(twice()).headers)
        assert "cookie" not in server.requests[1].headers


# -- what may come back -----------------------------------------------------------------------------------------------


async def drip() -> AsyncIterator[bytes]:
    yield b"HTTP/1.1 200 OK\r\n\r\n"
    while True:
        await asyncio.sleep(0.01)
        yield b"x"


async def slow_headers() -> AsyncIterator[bytes]:
    yield b"HTTP/1.1 200 OK\r\n"
    while True:
        await asyncio.sleep(0.01)
        yield b"X-A: b\r\n"


async def silence() -> AsyncIterator[bytes]:
    await asyncio.Event().wait()
    yield b""


async def endless_interim() -> AsyncIterator[bytes]:
    while True:
        yield b"HTTP/1.1 100 Continue\r\n\r\n"
        await asyncio.sleep(0.01)


@pytest.mark.parametrize("answer", [drip, slow_headers, silence, endless_interim])
def test_time_is_bounded_as_a_whole_however_the_server_stretches_it(answer: Any) -> None:
    with serving(lambda request: answer()) as server:
        error = fault(to(server, timeout_s=0.3), server.url_of(HOST, "/p?key=hunter2"))
    assert (error.code, error.sent) == ("timeout", True)
    assert "/p did not answer in full within 0.3 s" in error.message
    assert "hunter2" not in error.message


def test_a_tls_handshake_that_does_not_end_is_cut_off_and_leaves_no_socket() -> None:
    with trap() as listener:
        error = fault(Egress(allow=[LOOPBACK], timeout_s=0.3), f"https://{LOOPBACK}:{listener.getsockname()[1]}/")
        assert (error.code, error.sent) == ("timeout", False)
    gc.collect()  # an unclosed one warns here, and warnings are errors


def test_a_resolver_that_does_not_answer_is_cut_off() -> None:
    async def forever(host: str, port: int) -> Sequence[str]:
        await asyncio.Event().wait()
        return []

    assert fault(Egress(resolve=forever), "http://public.example/", timeout_s=0.05).code == "timeout"


def hanging(monkeypatch: pytest.MonkeyPatch) -> threading.Event:
    """Make names of `hang.example` hang in the system's resolver until the event is set."""
    end = threading.Event()
    real = socket.getaddrinfo

    def getaddrinfo(host: Any, *args: Any, **options: Any) -> Any:
        if host.endswith("hang.example"):
            end.wait()
            raise socket.gaierror(-3, "Temporary failure in name resolution")
        return real(host, *args, **options)

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    return end


def test_names_that_hang_hold_up_nobody_else(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither what runs in asyncio's own threads, as reads of the diary do, nor another name, nor without end."""
    end = hanging(monkeypatch)

    async def main() -> None:
        egress = Egress(allow=["localhost"])
        await egress.addresses("localhost", 1)

        async def ask(number: int) -> ToolError:
            with pytest.raises(ToolError) as caught:
                await egress.fetch("GET", f"http://{number}.hang.example/", timeout_s=0.3)
            return caught.value

        first = await asyncio.gather(*map(ask, range(MAX_NAMES)))
        assert {error.code for error in first} == {"timeout"}
        async with asyncio.timeout(10):  # only if they are held up
            assert await asyncio.to_thread(threading.active_count) > MAX_NAMES
        with pytest.raises(ToolError, match="names that were asked for before") as caught:
            await egress.addresses("localhost", 1)
        assert caught.value.code == "unavailable"
        end.set()
        while True:  # until the threads have their answer
            with suppress(ToolError):
                assert await egress.addresses("localhost", 1)
                return
            await asyncio.sleep(0.001)

    with asyncio.Runner() as runner:
        try:
            runner.run(main())
        finally:
            end.set()


def test_a_name_that_hangs_does_not_keep_the_process_from_ending() -> None:
    program = """
        import asyncio, socket, threading
        from dagbok.errors import ToolError
        from dagbok.tools.egress import Egress
        socket.getaddrinfo = lambda *_, **__: threading.Event().wait()
        try:
            asyncio.run(Egress().fetch("GET", "http://hang.example/", timeout_s=0.1))
        except ToolError as exc:
            print(exc.code)
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(program)], capture_output=True, text=True, timeout=60)
    assert (done.stdout, done.stderr) == ("timeout\n", "")


def test_certificates_are_read_once_though_all_first_requests_come_at_once(
    hello: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded: list[str] = []
    real = connections.default_tls

    def counting() -> ssl.SSLContext:
        loaded.append(threading.current_thread().name)
        return real()

    monkeypatch.setattr(connections, "default_tls", counting)

    async def main() -> None:
        egress = to(hello)
        await asyncio.gather(*(egress.fetch("GET", hello.url) for _ in range(20)))

    asyncio.run(main())
    assert len(loaded) == 1


async def endless() -> AsyncIterator[bytes]:
    yield b"HTTP/1.1 200 OK\r\n\r\n"
    while True:
        yield b"x" * 65536


async def endless_chunks() -> AsyncIterator[bytes]:
    yield b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
    while True:
        yield b"10000\r\n" + b"x" * 65536 + b"\r\n"


async def endless_empty_blocks() -> AsyncIterator[bytes]:
    """Deflate that goes on for ever and unpacks to nothing."""
    yield b"HTTP/1.1 200 OK\r\nContent-Encoding: deflate\r\n\r\n"
    while True:
        yield b"\x00\x00\x00\xff\xff" * 10_000


async def endless_headers() -> AsyncIterator[bytes]:
    yield b"HTTP/1.1 200 OK\r\n"
    while True:
        yield b"X-A: " + b"b" * 1000 + b"\r\n"


async def one_long_header() -> AsyncIterator[bytes]:
    yield b"HTTP/1.1 200 OK\r\nX-A: "
    while True:
        yield b"b" * 65536


@pytest.mark.parametrize("answer", [endless, endless_chunks, endless_empty_blocks, endless_headers, one_long_header])
def test_size_is_bounded_however_the_server_goes_on(answer: Any) -> None:
    with serving(lambda request: answer()) as server:
        assert fault(to(server, max_bytes=100_000), server.url).code == "too_large"


def in_chunks(size: int, count: int) -> bytes:
    chunk = f"{size:x}\r\n".encode() + b"x" * size + b"\r\n"
    return b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + chunk * count + b"0\r\n\r\n"


def test_a_body_in_more_crumbs_than_any_server_needs_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bodies, "MAX_CHUNKS", 1000)
    sizes = {"/few": (1, 1000), "/large": (20, 1500), "/crumbs": (15, 1500)}
    with serving(lambda request: in_chunks(*sizes[request.target])) as server:
        assert len(fetch(to(server), server.url_of(HOST, "/few")).content) == 1000
        assert len(fetch(to(server), server.url_of(HOST, "/large")).content) == 20 * 1500
        error = fault(to(server), server.url_of(HOST, "/crumbs"))
    assert (error.code, error.sent) == ("bad_response", True)
    assert "pieces" in error.message


def test_a_body_in_crumbs_leaves_the_loop_its_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    """They arrive in a few reads, and what has arrived is handed on without a pause."""
    between: list[int] = []  # pieces from one turn of another task to the next
    add = Body.add

    def counting(body: Body, chunk: bytes) -> None:
        between[-1] += 1
        add(body, chunk)

    monkeypatch.setattr(Body, "add", counting)

    async def main(server: Server) -> None:
        task = asyncio.ensure_future(to(server).fetch("GET", server.url))
        while not task.done():
            between.append(0)
            await asyncio.sleep(0)
        assert len(task.result().content) == 9000

    with serving(lambda request: in_chunks(1, 9000)) as server:
        asyncio.run(main(server))
    assert sum(between) == 9000
    assert max(between) <= 64


def test_an_announced_size_beyond_the_limit_is_refused_before_it_is_read() -> None:
    async def announce() -> AsyncIterator[bytes]:
        yield b"HTTP/1.1 200 OK\r\nContent-Length: 1000001\r\n\r\n"
        await asyncio.Event().wait()

    with serving(lambda request: announce()) as server:
        error = fault(to(server, max_bytes=1_000_000), server.url)
    assert error.code == "too_large"
    assert "1,000,001 bytes" in error.message


def test_a_body_of_exactly_the_limit_is_taken_and_a_caller_cannot_raise_the_limit() -> None:
    with serving(lambda request: reply(b"x" * 1000)) as server:
        assert len(fetch(to(server, max_bytes=1000), server.url).content) == 1000
        assert fault(to(server, max_bytes=999), server.url, max_bytes=5000).code == "too_large"
        assert fault(to(server), server.url, max_bytes=999).code == "too_large"


def test_the_answer_to_head_has_the_size_of_what_get_would_bring() -> None:
    async def head() -> AsyncIterator[bytes]:
        yield b"HTTP/1.1 200 OK\r\nContent-Length: 99999999\r\nContent-Encoding: gzip\r\n\r\n"

    with serving(lambda request: head()) as server:
        found = fetch(to(server, max_bytes=1000), server.url, "HEAD")
    assert (found.content, found.headers["content-length"]) == (b"", "99999999")


def packed(data: bytes, wbits: int) -> bytes:
    packer = zlib.compressobj(9, zlib.DEFLATED, wbits)
    return packer.compress(data) + packer.flush()


TEXT = b"hello hello hello " * 100


@pytest.mark.parametrize(
    ("encoding", "body"),
    [
        ("gzip", packed(TEXT, 31)),
        ("X-GZIP", packed(TEXT, 31)),
        ("gzip", packed(TEXT[:99], 31) + packed(TEXT[99:], 31)),
        ("deflate", packed(TEXT, 15)),
        ("deflate", packed(TEXT, -15)),
        ("identity", TEXT),
    ],
)
def test_packed_bodies_are_unpacked(encoding: str, body: bytes) -> None:
    with serving(lambda request: reply(body, headers={"Content-Encoding": encoding})) as server:
        found = fetch(to(server), server.url)
        assert server.requests[0].headers["accept-encoding"] == "gzip, deflate"
    assert found.content == TEXT


@pytest.mark.parametrize(
    ("encoding", "body", "code"),
    [
        ("br", b"x", "bad_response"),
        ("gzip, gzip", packed(packed(TEXT, 31), 31), "bad_response"),
        ("gzip", b"not gzip", "bad_response"),
        ("gzip", packed(TEXT, 31) + b"garbage", "bad_response"),
        ("gzip", packed(TEXT, 31)[:-9], "unavailable"),
    ],
)
def test_a_body_that_cannot_be_unpacked_is_an_error(encoding: str, body: bytes, code: str) -> None:
    with serving(lambda request: reply(body, headers={"Content-Encoding": encoding})) as server:
        assert fault(to(server), server.url).code == code


def test_a_bomb_takes_no_more_memory_than_the_limit() -> None:
    """4 GiB of zeros in 4 MiB of gzip, sent to a process of its own whose peak is measured."""

    packer = zlib.compressobj(9, zlib.DEFLATED, 31)
    first, again = (packer.compress(bytes(2**26)) + packer.flush(zlib.Z_FULL_FLUSH) for _ in range(2))

    async def bomb() -> AsyncIterator[bytes]:
        yield b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\n\r\n"
        yield first + again * 63  # in one piece: each read of 64 KiB holds 64 MiB

    program = """
        import asyncio, sys, tracemalloc
        from dagbok.errors import ToolError
        from dagbok.tools.egress import Egress
        url, place = sys.argv[1:]
        async def main():
            egress = Egress(allow=[place], max_bytes=8 * 2**20)
            await egress.fetch("GET", url.replace("/bomb", "/hello"))
            tracemalloc.start()
            try:
                await egress.fetch("GET", url)
            except ToolError as exc:
                print(exc.code, tracemalloc.get_traced_memory()[1])
        asyncio.run(main())
    """
    with serving(lambda request: bomb() if request.target == "/bomb" else reply()) as server:
        done = subprocess.run(
            [sys.executable, "-c", textwrap.dedent(program), server.url_of(LOOPBACK, "/bomb"), server.place],
            capture_output=True,
            text=True,
            timeout=60,
        )
    code, peak = done.stdout.split()
    assert (code, done.stderr) == ("too_large", "")
    assert int(peak) < 20 * 2**20  # the limit, once more while it grows, and what a request takes


async def cut_body() -> AsyncIterator[bytes]:
    yield b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf"


async def cut_chunks() -> AsyncIterator[bytes]:
    yield b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhal"


async def cut_headers() -> AsyncIterator[bytes]:
    yield b"HTTP/1.1 200 OK\r\nContent-"


async def nothing() -> AsyncIterator[bytes]:
    yield b""


async def not_http() -> AsyncIterator[bytes]:
    yield b"SSH-2.0-OpenSSH_9\r\n\r\n"


async def two_lengths() -> AsyncIterator[bytes]:
    yield b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab"


async def another_protocol() -> AsyncIterator[bytes]:
    yield b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\n\r\nx"


@pytest.mark.parametrize(
    "answer", [cut_body, cut_chunks, cut_headers, nothing, not_http, two_lengths, another_protocol]
)
def test_a_connection_that_is_cut_or_speaks_no_http_is_unavailable_and_the_request_was_sent(answer: Any) -> None:
    with serving(lambda request: answer()) as server:
        error = fault(to(server), server.url_of(HOST, "/p?key=hunter2"))
    assert (error.code, error.sent) == ("unavailable", True)
    assert "hunter2" not in error.message


# -- TLS --------------------------------------------------------------------------------------------------------------


def test_the_certificate_must_be_of_the_name_that_was_asked_for() -> None:
    authority = Authority()
    with serving(lambda request: reply(b"secure"), tls=authority.server(HOST)) as server:
        egress = to(server, tls=authority.client())
        assert fetch(egress, server.url_of(HOST)).content == b"secure"
        assert fetch(egress, server.url_of("public.example.")).content == b"secure"
        error = fault(egress, server.url_of("other.example"))
        by_address = fault(egress, server.url)
    assert (error.code, error.sent) == ("unavailable", False)
    assert "certificate is not valid for 'other.example'" in error.message
    assert "IP address mismatch" in by_address.message


def test_a_certificate_of_an_authority_that_is_not_trusted_is_refused() -> None:
    with serving(lambda request: reply(), tls=Authority().server(HOST)) as server:
        for egress in (to(server), to(server, tls=Authority().client())):
            error = fault(egress, server.url_of(HOST))
            assert (error.code, error.sent) == ("unavailable", False)
            assert "certificate is not valid" in error.message


def test_an_expired_certificate_is_refused() -> None:
    authority = Authority()
    with serving(lambda request: reply(), tls=authority.server(HOST, expired=True)) as server:
        assert "expired" in fault(to(server, tls=authority.client()), server.url_of(HOST)).message


def test_a_server_without_tls_is_told_as_such() -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        writer.close()

    async def main() -> None:
        async with await asyncio.start_server(answer, LOOPBACK, 0) as server:
            port = server.sockets[0].getsockname()[1]
            with pytest.raises(ToolError, match="TLS failed") as caught:
                await Egress(allow=[LOOPBACK]).fetch("GET", f"https://{LOOPBACK}:{port}/")
            assert (caught.value.code, caught.value.sent) == ("unavailable", False)

    asyncio.run(main())


# -- connections ------------------------------------------------------------------------------------------------------


def test_an_open_egress_uses_a_connection_again_for_the_same_host_only(hello: Server) -> None:
    egress = to(hello)

    async def main() -> None:
        async with egress:
            for host in (HOST, HOST, "other.example", HOST):
                await egress.fetch("GET", hello.url_of(host))
        assert hello.connections == 2
        await egress.fetch("GET", hello.url_of(HOST))
        assert hello.connections == 3

    asyncio.run(main())
    gc.collect()


def test_a_closed_egress_still_fetches_and_can_be_opened_again_in_another_loop(hello: Server) -> None:
    egress = to(hello)

    async def main() -> None:
        async with egress:
            with pytest.raises(RuntimeError, match="open already"):
                await egress.__aenter__()
            await egress.fetch("GET", hello.url)
            in_thread = await asyncio.to_thread(fetch, egress, hello.url)  # as a synchronous tool would
            assert in_thread.status == 200
        await egress.aclose()

    asyncio.run(main())
    asyncio.run(main())
    gc.collect()


def test_a_kept_connection_that_the_server_has_closed_is_not_used_again() -> None:
    async def last() -> AsyncIterator[bytes]:
        yield reply(b"hello")

    with serving(lambda request: last()) as server:
        egress = to(server)

        async def main() -> None:
            async with egress:
                for _ in range(3):
                    assert (await egress.fetch("GET", server.url)).status == 200
                    assert egress._kept is not None
                    # Until the news of its end has arrived.
                    while not all(kept.has_expired() for kept in egress._kept.connections):
                        await asyncio.sleep(0.001)

        asyncio.run(main())


def test_a_cancelled_request_leaves_nothing_open_and_the_next_one_works() -> None:
    with serving(lambda request: silence() if request.target == "/silence" else reply()) as server:
        egress = to(server)

        async def main() -> None:
            async with egress:
                task = asyncio.create_task(egress.fetch("GET", server.url_of(HOST, "/silence")))
                while not server.requests:
                    await asyncio.sleep(0.001)
                task.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await task
                assert (await egress.fetch("GET", server.url)).status == 200

        asyncio.run(main())
    gc.collect()


def test_other_protocols_get_a_checked_connection(hello: Server) -> None:
    async def main() -> bytes:
        reader, writer = await to(hello).open_connection(HOST, hello.port)
        writer.write(b"GET / HTTP/1.1\r\n\r\n")
        head = await reader.readuntil(b"\r\n")
        writer.close()
        await writer.wait_closed()
        return head

    assert asyncio.run(main()) == b"HTTP/1.1 200 X\r\n"
    for egress, host, code in (
        (Egress(resolve=to_loopback), HOST, "refused_address"),
        (Egress(), "::1", "refused_address"),
        (Egress(), "a b", "invalid_input"),
        (Egress(allow=[LOOPBACK]), "127.0.0.2", "refused_address"),
    ):
        with pytest.raises(ToolError) as caught:
            asyncio.run(egress.open_connection(host, hello.port))
        assert (caught.value.code, caught.value.sent) == (code, False)


def test_a_connection_that_cannot_be_made_has_carried_nothing(hello: Server) -> None:
    async def hangs(host: str, port: int) -> list[str]:
        await asyncio.Event().wait()
        raise AssertionError

    with trap() as listener:
        nobody = listener.getsockname()[1]
    for egress, code in ((Egress(allow=[LOOPBACK]), "unavailable"), (Egress(resolve=hangs), "timeout")):
        host = LOOPBACK if code == "unavailable" else HOST
        with pytest.raises(ToolError) as caught:
            asyncio.run(egress.open_connection(host, nobody, timeout_s=0.2 if code == "timeout" else 20))
        assert (caught.value.code, caught.value.sent) == (code, False)


# -- the text of an answer --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "content_type", "text"),
    [
        ("åäö".encode(), "text/plain", "åäö"),
        ("åäö".encode("latin-1"), "text/plain", "åäö"),
        ("åäö".encode("latin-1"), "text/plain; charset=ISO-8859-1", "åäö"),
        ("åäö".encode("latin-1"), 'text/plain; a=b; Charset="iso-8859-1"', "åäö"),
        ("åäö".encode(), "text/plain; charset=nonsense", "åäö"),
        ("åäö".encode("utf-8-sig"), "text/plain; charset=latin-1", "åäö"),
        ("åäö".encode("utf-16"), "text/plain", "åäö"),
        ("日本".encode("shift_jis"), "text/html;charset=Shift_JIS", "日本"),
        (b"\xff", "text/plain; charset=utf-8", "\ufffd"),
        (b"hello", "text/plain; charset=zip", "hello"),
        (b"hello", "text/plain; charset=punycode", "hello"),
        (b"hello", "text/plain; charset=\x00", "hello"),
        (b"a\x81b", "", "a\ufffdb"),
    ],
)
def test_text_is_decoded_by_what_says_best_what_it_is(content: bytes, content_type: str, text: str) -> None:
    found = Fetched(200, "", {"content-type": content_type}, content)
    assert found.text() == text
