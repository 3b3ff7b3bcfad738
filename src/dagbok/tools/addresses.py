"""Which hosts and addresses tools may not reach: anything that is not the public Internet, in every spelling.

The rule is about addresses, not names: a name is as good as the addresses it resolves to. So each spelling of a host
is first made canonical (`canonical_host`), and each address is judged before it is connected to (`why_forbidden`).
What an operator allows (`Allowed`) lifts the ban for exactly that. Pure: nothing here resolves or connects.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

from dagbok.errors import Misconfigured

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network

MAX_HOST_CHARS = 253  # RFC 1035, 2.3.4

_LABEL = re.compile(r"[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?")
_NUMBER = re.compile(r"[0-9]+|0x[0-9a-f]*")

#: Names that mean this machine, or its cloud's metadata, whatever a resolver says.
_LOCAL_NAMES = ("localhost", "localhost.localdomain", "metadata.google.internal")

#: https://www.iana.org/assignments/iana-ipv4-special-registry, with multicast and the metadata address of the clouds.
_IPV4 = tuple(
    (IPv4Network(network), what)
    for network, what in (
        ("169.254.169.254/32", "the metadata service of a cloud"),
        ("168.63.129.16/32", "the metadata service of a cloud"),  # Azure's WireServer, public by its number alone
        ("0.0.0.0/8", "this machine"),
        ("10.0.0.0/8", "a private network"),
        ("100.64.0.0/10", "a provider's own network"),
        ("127.0.0.0/8", "this machine"),
        ("169.254.0.0/16", "link-local"),
        ("172.16.0.0/12", "a private network"),
        ("192.0.0.0/24", "reserved"),
        ("192.0.2.0/24", "for documentation"),
        ("192.31.196.0/24", "reserved"),
        ("192.52.193.0/24", "reserved"),
        ("192.88.99.0/24", "a 6to4 relay"),
        ("192.168.0.0/16", "a private network"),
        ("192.175.48.0/24", "reserved"),
        ("198.18.0.0/15", "for benchmarks"),
        ("198.51.100.0/24", "for documentation"),
        ("203.0.113.0/24", "for documentation"),
        ("224.0.0.0/4", "multicast"),
        ("255.255.255.255/32", "broadcast"),
        ("240.0.0.0/4", "reserved"),
    )
)

#: https://www.iana.org/assignments/iana-ipv6-special-registry; all else outside 2000::/3 is no unicast address either.
_IPV6 = tuple(
    (IPv6Network(network), what)
    for network, what in (
        ("fd00:ec2::254/128", "the metadata service of a cloud"),
        ("::1/128", "this machine"),
        ("::/128", "this machine"),
        ("::/96", "an IPv4 address in IPv6 form"),
        ("64:ff9b:1::/48", "a private network"),
        ("fc00::/7", "a private network"),
        ("fe80::/10", "link-local"),
        ("fec0::/10", "a private network"),
        ("ff00::/8", "multicast"),
        ("2001::/32", "a Teredo tunnel"),
        ("2001:db8::/32", "for documentation"),
        ("2001::/23", "reserved"),
        ("2002::/16", "a 6to4 tunnel"),
        ("2620:4f:8000::/48", "reserved"),
        ("3fff::/20", "for documentation"),
    )
)
_IPV6_PUBLIC = IPv6Network("2000::/3")
_MAPPED = IPv6Network("::ffff:0:0/96")
_NAT64 = IPv6Network("64:ff9b::/96")
_ISATAP = (0x0000_5EFE, 0x0200_5EFE)  # the middle of an interface id that ends in an IPv4 address, RFC 5214


def canonical_host(text: str) -> str:
    """Return the one spelling of a host that is checked and connected to: an address, or a name in ASCII.

    Full-width digits and other letters go through IDNA (UTS 46); one dot at the end is dropped; numbers are read as
    browsers read them (`2130706433`, `0x7f.1`, `0177.0.0.1`; https://url.spec.whatwg.org/#concept-ipv4-parser).
    IPv6 comes in brackets.

    Raises:
        ValueError: It is no host; the message says why and does not repeat it.
    """
    if text.startswith("["):
        if not text.endswith("]") or "%" in text:
            raise ValueError("an IPv6 address is written in brackets and without a zone")
        return str(plain(IPv6Address(text[1:-1])))
    if not text:
        raise ValueError("it has no host")
    if len(text) > MAX_HOST_CHARS + 1:
        raise ValueError(f"its host has more than {MAX_HOST_CHARS} characters")
    name = (text if text.isascii() else _ascii(text)).lower().removesuffix(".")
    if address := _ipv4(name):
        return str(address)
    if len(name) > MAX_HOST_CHARS or not all(_LABEL.fullmatch(label) for label in name.split(".")):
        raise ValueError("its host is neither a name nor an address")
    return name


def as_address(host: str) -> Address | None:
    """Return the address that `host` (canonical, or an answer of a resolver) is, None for a name."""
    try:
        return plain(ip_address(host))
    except ValueError:
        return None


def plain(address: Address) -> Address:
    """Return the IPv4 address inside an IPv4-mapped one (`::ffff:127.0.0.1`): that is what gets connected to."""
    return getattr(address, "ipv4_mapped", None) or address


def why_forbidden(address: Address) -> str | None:
    """Return what `address` is, if not a public unicast address; None: it may be reached."""
    address = plain(address)
    if isinstance(address, IPv4Address):
        found = next((what for network, what in _IPV4 if address in network), None)
    elif address in _NAT64:
        found = why_forbidden(_last_four_bytes(address))
    else:
        found = next((what for network, what in _IPV6 if address in network), None)
        if found is None and address not in _IPV6_PUBLIC:
            found = "reserved"
        if found is None and int(address) >> 32 & 0xFFFF_FFFF in _ISATAP:
            found = why_forbidden(_last_four_bytes(address))
        return found or (None if address.is_global else "not public")
    return found


def is_local_name(host: str) -> bool:
    """Whether `host` (canonical) is a name that never leaves the machine, or the metadata service of a cloud."""
    return host in _LOCAL_NAMES or host.endswith(".localhost")


@dataclass(frozen=True, slots=True)
class Allowed:
    """What an operator allows although it is not public."""

    hosts: frozenset[tuple[str, int | None]] = frozenset()  #: canonical names; None: any port
    networks: tuple[tuple[Network, int | None], ...] = ()  #: addresses are networks of one

    @classmethod
    def read(cls, entries: Iterable[str]) -> Allowed:
        """Return what `entries` allow: `HOST`, `ADDRESS` or `NETWORK/BITS`, each also with `:PORT` (IPv6 in brackets).

        Raises:
            Misconfigured: An entry is none of these; the message names it.
        """
        hosts: set[tuple[str, int | None]] = set()
        networks: list[tuple[Network, int | None]] = []
        if isinstance(entries, str):
            raise Misconfigured(f"What tools may reach must be a list of entries, not the text {entries!r:.200}.")
        for entry in entries:
            try:
                place, port = _split_port(entry)
                if "/" in place:
                    networks.append((_network(place), port))
                    continue
                host = canonical_host(f"[{place}]" if ":" in place else place)
            except (ValueError, TypeError) as exc:
                raise Misconfigured(
                    f"{entry!r:.200} is nothing that tools could be allowed to reach ({exc}). Use a host name, an "
                    "address or a network like 10.0.0.0/8, each also with :PORT; IPv6 then in brackets."
                ) from exc
            if address := as_address(host):
                networks.append((ip_network(address), port))
            else:
                hosts.add((host, port))
        return cls(frozenset(hosts), tuple(networks))

    def host(self, name: str, port: int) -> bool:
        """Whether all that the canonical `name` resolves to may be reached at `port`."""
        return (name, port) in self.hosts or (name, None) in self.hosts

    def address(self, address: Address, port: int) -> bool:
        """Whether `address` may be reached at `port`."""
        address = plain(address)
        return any(only in (None, port) and address in network for network, only in self.networks)


def _ascii(text: str) -> str:
    import idna  # only here: its tables take a while to load

    try:
        return idna.encode(text, uts46=True).decode("ascii")
    except idna.IDNAError as exc:
        raise ValueError("its host is no international name (IDNA)") from exc


def _ipv4(name: str) -> IPv4Address | None:
    parts = name.split(".")
    if not _NUMBER.fullmatch(parts[-1]):
        return None
    if len(parts) > 4 or not all(_NUMBER.fullmatch(part) for part in parts):
        raise ValueError("its host ends in a number but is no IPv4 address")
    numbers = [_number(part) for part in parts]
    if any(number > 255 for number in numbers[:-1]) or numbers[-1] >= 256 ** (5 - len(parts)):
        raise ValueError("its host is an IPv4 address out of range")
    return IPv4Address(sum(number << 8 * (3 - i) for i, number in enumerate(numbers[:-1])) + numbers[-1])


def _number(part: str) -> int:
    if part.startswith("0x"):
        return int(part[2:] or "0", 16)
    return int(part, 8 if part.startswith("0") else 10)


def _last_four_bytes(address: IPv6Address) -> IPv4Address:
    return IPv4Address(int(address) & 0xFFFF_FFFF)


def _network(text: str) -> Network:
    """Return the network that `text` is; only as ADDRESS/BITS, as `10.0.0.0/0.0.0.255` would be read two ways."""
    if not re.fullmatch(r"[^/]+/[0-9]{1,3}", text):
        raise ValueError("a network is an address, a slash and the number of its leading bits")
    network = ip_network(text)
    if isinstance(network, IPv6Network) and network.subnet_of(_MAPPED):
        raise ValueError("addresses of IPv4 are judged as such; write this network as one of IPv4")
    return network


def _split_port(entry: str) -> tuple[str, int | None]:
    if entry.startswith("["):
        place, bracket, rest = entry[1:].partition("]")
        if not bracket or (rest and not rest.startswith(":")):
            raise ValueError("the bracket is not closed")
        if ":" not in place:
            raise ValueError("only IPv6 comes in brackets")
        port = rest[1:] if rest else None
    elif entry.count(":") == 1:
        place, _, port = entry.partition(":")
    else:
        place, port = entry, None
    if port is None:
        return place, None
    if not re.fullmatch(r"[0-9]{1,5}", port) or not 1 <= int(port) <= 65_535:
        raise ValueError("a port is a number from 1 to 65535")
    return place, int(port)
