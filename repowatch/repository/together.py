"""Makes changes that one publication shows, all or none, of files that lie aside and of names."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import Future

from repowatch.errors import Conflict, RepowatchError
from repowatch.model.package import Rejected, Stamp
from repowatch.model.publication import Listed
from repowatch.repository.changes import Arrival, Departure, Together
from repowatch.repository.index import Index
from repowatch.repository.readers import Gone, ToRead, Unlisted

# Seconds until a client is told that its changes were not published; a first publication of a large
# repository may come before.
PATIENCE = 300.0

Check = Callable[[str], None]  # takes a location_href; raises what refuses the change at the last moment


def made_of(
    index: Index,
    files: Mapping[str, str],
    leaving: Iterable[str] = (),
    *,
    check: Check,
    scratch: str | None = None,
) -> Together:
    """What is to be published of files, by location_href, that lie on the repository's file system.

    Each is read whole, by all readers; `leaving` are location_hrefs as well. `check` is called for each
    name before it changes; `scratch` is a directory to be removed with the publication. May be called from
    any thread. Raises Conflict, which names a file that can not be listed, and OSError.
    """
    policy, came_at = index.policy, time.time()

    def check_all(name: str) -> None:
        check(name)
        if index.policy != policy:
            raise RepowatchError("the keys that sign packages changed meanwhile; try again")

    found = []
    for batch in index.read([ToRead(path, name, Stamp.of(os.lstat(path))) for name, path in files.items()]):
        for unlisted in batch.unlisted:
            raise Conflict(_told(unlisted))
        found += list(batch.run.packages()) if batch.run else []
    arrivals = [
        Arrival(name, files[name], package, _checking(check_all, name), came_at=came_at)
        for package in found
        for name in [package.entry.location_href]
    ]
    departures = [Departure(name, _checking(check, name)) for name in leaving]
    return Together(tuple(arrivals), tuple(departures), scratch)


def outcome(answer: Future[Listed]) -> int:
    """Wait for the publication; its revision. Raises what refused it, Conflict where it takes too long."""
    try:
        revision = answer.result(PATIENCE).revision
    except TimeoutError:
        if answer.cancel():
            text = f"nothing was published for {PATIENCE:.0f} s; nothing was changed, look at the status"
            raise Conflict(text) from None
        revision = answer.result().revision  # it belongs to the publication in hand
    return revision or 0


def _checking(check: Check, name: str) -> Callable[[], None]:
    return lambda: check(name)


def _told(unlisted: Unlisted) -> str:
    match unlisted:
        case Rejected():
            return f"{unlisted.location_href}: {unlisted.reason}"
        case Gone():
            return f"{unlisted.location_href}: its file is gone"
    return f"{unlisted.location_href} changed while it was read; try again"
