"""Tells what a page of another site has a browser send: it may change nothing here."""

from __future__ import annotations

from collections.abc import Mapping

_SAFE = frozenset({"GET", "HEAD", "OPTIONS", "PROPFIND"})
_OURS = frozenset({"same-origin", "none"})  # none: a person did it, by the address bar

REFUSAL = "a page of another site may change nothing here"


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
