"""Tells what a page of another site has a browser send: it may change nothing here."""

from __future__ import annotations

from collections.abc import Mapping

from repowatch.web.rights.peer import address_of

_SAFE = frozenset({"GET", "HEAD", "OPTIONS", "PROPFIND"})
_OURS = frozenset({"same-origin", "none"})  # none: a person did it, by the address bar

REFUSAL = "a page of another site may change nothing here"
REBOUND = (
    "a page at a name that leads to this host may change nothing without a login; "
    "use localhost, or name the proxy before repowatch in `trusted_proxies`"
)


def is_foreign(method: str, fields: Mapping[str, str]) -> bool:
    """Whether a browser says that a page of another site is behind a request that may change something.

    It would bring the password that the browser knows, or come from the host that anyone may write from.
    `fields` are the request's, by lower-case name. Browsers send Sec-Fetch-Site (Fetch Metadata, W3C) where
    the connection is safe or local, and Origin (RFC 6454) everywhere; programs send neither.
    """
    if method in _SAFE:
        return False
    if (site := fields.get("sec-fetch-site")) is not None:
        return site not in _OURS
    if (origin := fields.get("origin")) is None:
        return False
    host = origin.partition("://")[2].lower()  # of `null`, nothing
    return not host or host != fields.get("host", "").lower()


def is_rebound(address: str | None, method: str, fields: Mapping[str, str]) -> bool:
    """Whether a browser of this host sends a change without a login, by a name that is not this host's own.

    Anyone can have a name of theirs lead to 127.0.0.1 while their page is open (DNS rebinding): then it is
    of the same origin as the daemon that takes changes from whoever is on this host. `address` is the
    client's, None on a unix socket.
    """
    if method in _SAFE or "authorization" in fields or not {"origin", "sec-fetch-site"} & fields.keys():
        return False
    client = address_of(address) if address else None
    return client is not None and client.is_loopback and not _is_own(fields.get("host", ""))


def _is_own(host: str) -> bool:
    """Whether a Host field is an address, or a name that is never asked of DNS (RFC 6761, section 6.3)."""
    name, bracket, _ = host.lower().partition("]")
    name = name.removeprefix("[") if bracket else name.partition(":")[0]
    return name == "localhost" or name.endswith(".localhost") or address_of(name) is not None
