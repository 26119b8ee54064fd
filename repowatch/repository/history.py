"""The last arrivals and removals of a repository, and by whom they came."""

from __future__ import annotations

import contextlib
import dataclasses
import heapq
import json
import threading
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Protocol

from repowatch.model.package import Entry
from repowatch.system.clock import Clock

KEPT = 50  # arrivals and removals
OWED = 300.0  # seconds that a change which was answered early keeps its name
MOST_CLAIMS = 4096

FILE = "file"  # how a change came that no client made


@dataclass(frozen=True, slots=True)
class Event:
    """One package that a publication added, replaced or removed."""

    at: float  # seconds since 1970
    revision: int  # the first that shows it
    change: str  # "added", "replaced" or "removed"
    location: str
    nevra: str
    size: int  # bytes
    who: str | None  # None where nobody gave a name
    how: str  # how they are known: "basic", "certificate", "none"; "file" for a change of the tree itself


@dataclass(slots=True)
class _Claim:
    """A change that a client has in hand."""

    who: str | None
    how: str
    until: float | None = None  # monotonic; the client has its answer, and the publication is to come


class EndClaim(Protocol):
    """The client has its answer; `owed` where the publication of what it did is still to come."""

    def __call__(self, *, owed: bool) -> None: ...


class History:
    """Written by the updater's thread; claims come from any."""

    def __init__(self, *, clock: Clock) -> None:
        self.events: tuple[Event, ...] = ()  # the newest first; replaced whole
        self._clock = clock
        self._lock = threading.Lock()
        self._claims: dict[str, _Claim] = {}

    def claim(self, locations: Iterable[str], *, who: str | None, how: str) -> EndClaim:
        """A client is about to change files or directories; what is returned has to be called at the end.

        Publications meanwhile tell that what they change there came from this client.
        """
        names = [each.rstrip("/") for each in locations]
        claim = _Claim(who, how)
        with self._lock:
            self._claims.update(dict.fromkeys(names, claim))
            while len(self._claims) > MOST_CLAIMS:
                del self._claims[next(iter(self._claims))]

        def end(*, owed: bool) -> None:
            claim.until = self._clock.monotonic() + OWED
            with self._lock:
                for name in names:
                    if not owed and self._claims.get(name) is claim:
                        del self._claims[name]

        return end

    def record(
        self, changes: Iterable[tuple[Entry | None, Entry | None]], *, revision: int, at: float
    ) -> None:
        """Take what a publication changed, as (before, after); of very many those with the newest files."""
        told = [(before, after) for before, after in changes if _is_change(before, after)]
        newest = heapq.nlargest(KEPT, told, key=_mtime_ns)
        with self._lock:
            events = [self._event(before, after, revision, at) for before, after in newest]
        self.events = (*events, *self.events)[:KEPT]

    def _event(self, before: Entry | None, after: Entry | None, revision: int, at: float) -> Event:
        entry = after or before
        assert entry is not None
        change = "removed" if after is None else "replaced" if before else "added"
        claim = self._claim_of(entry.location_href)
        who, how = (claim.who, claim.how) if claim else (None, FILE)
        return Event(at, revision, change, entry.location_href, str(entry.nevra), entry.stamp.size, who, how)

    def _claim_of(self, location: str) -> _Claim | None:
        """Whoever has a file, or a directory above it, in hand; who was promised it, once."""
        for name in _and_above(location):
            claim = self._claims.get(name)
            if claim is None:
                continue
            if claim.until is not None and name == location:
                del self._claims[name]
            if claim.until is None or claim.until >= self._clock.monotonic():
                return claim
        return None

    def load(self, path: str) -> None:
        """Go on from what `save` wrote; from nothing where that is of no use."""
        self.events = ()
        with contextlib.suppress(OSError, ValueError, TypeError, RecursionError):
            with open(path, encoding="ascii") as file:
                events = tuple(Event(**row) for row in json.load(file)[:KEPT])
            if all(_is_sound(each) for each in events):
                self.events = events

    def save(self, path: str) -> None:
        """Write the events for the next start. Raises OSError.

        Neither synced nor renamed: `load` forgets what is torn.
        """
        text = json.dumps([dataclasses.asdict(each) for each in self.events])
        with open(path, "w", encoding="ascii") as file:
            file.write(text)


def _is_change(before: Entry | None, after: Entry | None) -> bool:
    return (before and before.pkgid) != (after and after.pkgid)


def _mtime_ns(change: tuple[Entry | None, Entry | None]) -> int:
    before, after = change
    entry = after or before
    return entry.stamp.mtime_ns if entry else 0


def _and_above(location: str) -> Iterator[str]:
    while location:
        yield location
        location = location.rpartition("/")[0]


def _is_sound(event: Event) -> bool:
    texts = (event.change, event.location, event.nevra, event.how, event.who or "")
    numbers = (event.at, event.revision, event.size)
    return all(isinstance(each, str) for each in texts) and all(
        isinstance(each, int | float) for each in numbers
    )
