"""Decides who is at the other end of a connection, and who is behind a proxy there that is trusted."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache

from repowatch.errors import UsageError

IPAddress = ipaddress.IPv4Address | ipaddress.IPv6Address
IPNetwork = ipaddress.IPv4Network | ipaddress.IPv6Network

UNKNOWN = "unknown"  # is in no network

# What is further away than that is told by nobody who is known.
_MOST_HOPS = 32

# RFC 7239 section 6; without brackets and with a port as well, as X-Forwarded-For is written.
_PORT = r"(?::(?:[0-9]{1,5}|_[A-Za-z0-9._-]+))?"
_NODE = re.compile(rf"\[([0-9A-Fa-f:.]+)\]{_PORT}|([0-9.]+){_PORT}|([0-9A-Fa-f:.]+)")

_WORD = r"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
_PAIR = rf"({_WORD})=(?:({_WORD})|\"((?:[^\"\\]|\\.)*)\")"
_ONE_PAIR = re.compile(_PAIR)
_ELEMENT = re.compile(rf"{_PAIR}(?:;{_PAIR})*")


@dataclass(frozen=True, slots=True)
class Peer:
    """The client of one request.

    `address` is in its shortest form, without a port; None for a unix socket of this machine, and `UNKNOWN`
    where a proxy on such a socket tells of a client, but not whom.
    """

    address: str | None
    scheme: str  # "http" or "https": what the client itself spoke
    proxied: bool  # whether a trusted proxy told the address


@dataclass(frozen=True, slots=True)
class Trusted:
    """The proxies whose word about a client is taken."""

    networks: tuple[IPNetwork, ...] = ()
    unix: bool = False

    @classmethod
    def of(cls, texts: Iterable[str]) -> Trusted:
        """From addresses, networks (`10.0.0.0/8`) and `unix`. Raises UsageError for anything else."""
        texts = tuple(texts)
        return cls(tuple(network_of(text) for text in texts if text != "unix"), "unix" in texts)

    def has(self, address: str | None) -> bool:
        """Whether the word of an address (None: a unix socket) is taken."""
        if address is None:
            return self.unix
        return bool(self.networks) and is_in(address, self.networks)


def network_of(text: str) -> IPNetwork:
    """The network that an address or CIDR names. Raises UsageError, which says what to write."""
    try:
        network = ipaddress.ip_network(text)
    except ValueError as error:
        raise UsageError(f"{text!r}: {error}; write an address or a network, such as 10.0.0.0/8") from None
    if isinstance(network, ipaddress.IPv6Network) and network.prefixlen >= 96:
        mapped = network.network_address.ipv4_mapped
        return ipaddress.IPv4Network((mapped, network.prefixlen - 96)) if mapped else network
    return network


@lru_cache(maxsize=4096)
def address_of(text: str) -> IPAddress | None:
    """The address that a text without a port names, None where it is none.

    An IPv4 address inside an IPv6 one (::ffff:192.0.2.1) is the IPv4 address; a zone (%eth0) is left out.
    """
    try:
        address = ipaddress.ip_address(text.partition("%")[0])
    except ValueError:
        return None
    return getattr(address, "ipv4_mapped", None) or address


def is_in(address: str, networks: Iterable[IPNetwork]) -> bool:
    """Whether an address is in one of the networks; what is no address is in none."""
    number = address_of(address)
    return number is not None and any(number in network for network in networks)


def peer_of(address: str | None, scheme: str, fields: Mapping[str, str], *, trusted: Trusted) -> Peer:
    """The client behind a connection from `address` (None: a unix socket) that speaks `scheme`.

    `fields` are the request's, by lower-case name. Those about forwarding count from a trusted proxy only:
    X-Forwarded-For and X-Forwarded-Proto, or Forwarded (RFC 7239) where neither is there. They are never
    mixed: the usual proxies write the former and let pass what the client sends of the latter. (So one that
    writes Forwarded has to remove the former.) Addresses are walked from the right, past those that are
    trusted; where one is not told or is malformed, the client is the last address that was.
    """
    address = _normal(address)
    direct = Peer(address, scheme, proxied=False)
    if not trusted.has(address):
        return direct
    steps: Iterator[tuple[str, str]]
    if "x-forwarded-for" in fields or "x-forwarded-proto" in fields:
        proto = _scheme(fields.get("x-forwarded-proto", "").rpartition(",")[2].strip())
        steps = ((node, proto) for node in _from_the_right(fields.get("x-forwarded-for", "")))
    elif "forwarded" in fields:
        steps = (_forwarded(element) for element in _from_the_right(fields["forwarded"]))
    else:
        return direct
    return _walk(direct, steps, trusted=trusted)


def _walk(peer: Peer, steps: Iterable[tuple[str, str]], *, trusted: Trusted) -> Peer:
    for node, proto in steps:
        told = _node_address(node)
        if told is None:
            return Peer(peer.address or UNKNOWN, proto or peer.scheme, proxied=True)
        peer = Peer(told, proto or peer.scheme, proxied=True)
        if not trusted.has(told):
            break
    return peer


def _from_the_right(field: str) -> Iterator[str]:
    """The elements of a list, the last one first.

    A comma inside quotes divides too. Proxies write none there, and what a client writes on the left, such
    as a quote that is never closed, can not hide what a proxy wrote on the right.
    """
    return (element.strip(" \t") for element in reversed(field.rsplit(",", _MOST_HOPS)))


def _forwarded(element: str) -> tuple[str, str]:
    """The node and the scheme in one forwarded-element, each "" where it is absent or malformed."""
    if not _ELEMENT.fullmatch(element):
        return "", ""
    pairs = [
        (name.lower(), token or re.sub(r"\\(.)", r"\1", quoted))
        for name, token, quoted in _ONE_PAIR.findall(element)
    ]
    found = dict(pairs)
    if len(found) < len(pairs):
        return "", ""
    return found.get("for", ""), _scheme(found.get("proto", ""))


def _scheme(proto: str) -> str:
    proto = proto.lower()
    return proto if proto in ("http", "https") else ""


def _node_address(node: str) -> str | None:
    match = _NODE.fullmatch(node)
    number = match and address_of(match[1] or match[2] or match[3])
    return str(number) if number else None


@lru_cache(maxsize=4096)
def _normal(address: str | None) -> str | None:
    return address and str(address_of(address) or address)


def is_safe_for_passwords(peer: Peer, *, over_http: bool) -> bool:
    """Whether a password from this client was not readable on its way, or `over_http` says it may be.

    It came by TLS, or from this machine. A trusted proxy that does not tell the scheme counts as one that
    was spoken to without TLS.
    """
    if over_http or peer.scheme == "https" or peer.address is None:
        return True
    number = address_of(peer.address)
    return number is not None and number.is_loopback
