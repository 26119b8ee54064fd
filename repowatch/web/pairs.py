"""Gives a client a repomd.xml and a signature that belong together, though publications follow each other.

They are two files, taken by two requests, and most clients read one signature alone: the first in the file,
or all of them, none of which may be wrong (docs/signing.md has the table). So the signature is that of the
repomd.xml which this client took last. Who the client is tells its connection; where that is another one, or
a proxy's, its address, its name, and what program it is.
"""

from __future__ import annotations

import os
import threading
from collections import OrderedDict
from collections.abc import Hashable, Iterator
from dataclasses import dataclass
from wsgiref.types import WSGIEnvironment

from repowatch.model.signing import Signed
from repowatch.system.clock import Clock

REPOMD = "repodata/repomd.xml"
SIGNATURE = "repodata/repomd.xml.asc"
PAIRED = frozenset({REPOMD, SIGNATURE})

TAKEN = 60.0  # seconds for which a client that took repomd.xml gets its signature
OWED = 30.0  # seconds for which one that took a signature gets the same again, or its repomd.xml
MOST = 4096  # clients that are known
_AGENT = 200  # characters of what a client calls itself that tell it from others

# libzypp takes the signature, then the key, then repomd.xml (zypp/repo/Downloader.cc of 17.25 to 17.36).
_SIGNATURE_FIRST = "ZYpp "


@dataclass(frozen=True, slots=True)
class _Client:
    """What one client took last."""

    taken: Signed
    at: float  # monotonic; of several requests for one signature, that of the first
    owes: bool  # whether the signature was the last of the two that it took


class Pairs:
    """What the clients of all repositories took last. For any thread."""

    def __init__(self, *, clock: Clock) -> None:
        self._clock = clock
        self._clients: OrderedDict[Hashable, _Client] = OrderedDict()  # who was here last is last
        self._lock = threading.Lock()

    def choose(
        self, repository: str, location_href: str, environ: WSGIEnvironment, *, current: Signed
    ) -> Signed:
        """Of which of the signed repomd.xml the client is to get the file, which is one of `PAIRED`."""
        now = self._clock.monotonic()
        is_signature = location_href == SIGNATURE
        with self._lock:
            known = self._find(repository, environ, now)
            is_owed = known is not None and known.owes and _takes_signature_first(environ)
            chosen = known.taken if known and (is_signature or is_owed) else current
            at = known.at if known and known.owes and is_signature else now
            client = _Client(chosen, at, owes=is_signature)
            for name in _names(repository, environ):
                self._clients.pop(name, None)
                self._clients[name] = client
            self._forget(now)
        return chosen

    def _forget(self, now: float) -> None:
        """Those who were here before all others, where it is long ago or there are too many."""
        while self._clients:
            oldest = next(iter(self._clients.values()))
            if len(self._clients) <= 2 * MOST and now - oldest.at < TAKEN:
                break
            self._clients.popitem(last=False)

    def _find(self, repository: str, environ: WSGIEnvironment, now: float) -> _Client | None:
        for name in _names(repository, environ):
            known = self._clients.get(name)
            if known and now - known.at < (OWED if known.owes else TAKEN):
                return known
        return None


def _names(repository: str, environ: WSGIEnvironment) -> Iterator[Hashable]:
    """What a client is known by, the surest first. A proxy's connection is many clients'."""
    if not environ["repowatch.proxied"]:
        yield repository, environ["repowatch.connection"]
    agent = environ.get("HTTP_USER_AGENT", "")[:_AGENT]
    yield repository, environ["REMOTE_ADDR"], environ.get("REMOTE_USER"), agent


def _takes_signature_first(environ: WSGIEnvironment) -> bool:
    """Others get the newest repomd.xml whatever they took before: an answered upload is in it."""
    return _SIGNATURE_FIRST in environ.get("HTTP_USER_AGENT", "")


def as_file(content: bytes, *, at: float) -> int:
    """An open file of the kernel's memory with this content, changed at a time in seconds since 1970."""
    descriptor = os.memfd_create("repowatch", os.MFD_CLOEXEC)
    try:
        os.write(descriptor, content)
        os.utime(descriptor, (at, at))
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor
