"""Prunes one repository: knows when the rules have to be asked, and asks for what goes to be retired.

Everything is done by the updater's thread; `status` may be asked for by any.
"""

from __future__ import annotations

import logging
import math
import os
from collections.abc import Mapping, Sequence
from concurrent.futures import CancelledError, Future
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from repowatch.errors import Conflict
from repowatch.model.package import Entry
from repowatch.model.pruning import Out, Plan, Rule, plan, told
from repowatch.model.publication import Listed
from repowatch.repository.ages import HELD, Ages, Evenness
from repowatch.repository.changes import Departure
from repowatch.repository.index import Index
from repowatch.system.clock import Clock

log = logging.getLogger(__name__)

LOOK = 5.0  # seconds between two looks at packages that go on changing
SHARE = 50  # and so many times as long as the last look took: uploads wait for it
EVERY = 60.0  # seconds between two prunings that nobody asked for: each is a publication of its own
BARRED = 600.0  # seconds for which a package that could not be pruned is left alone

HOW = "prune"  # in the history


@dataclass(frozen=True, slots=True)
class Pruned:
    """What is told of the last pruning."""

    at: float  # seconds since 1970
    packages: int


class Pruner:
    """Decides with `model/pruning`, for one `index`."""

    def __init__(self, index: Index, rules: Sequence[Rule], *, clock: Clock) -> None:
        self.rules: tuple[Rule, ...] = ()
        self.last: Pruned | None = None
        self.total = 0  # packages since the start
        self._index = index
        self._clock = clock
        self._evenness = Evenness(clock)
        self._ages: Ages | None = None
        self._openings = 0  # of the directory, when its ages were read
        self._entries: Mapping[str, Entry] | None = None  # that were looked at
        self._looked_at = -math.inf  # monotonic, as all that follow
        self._took = 0.0  # seconds, for the last look
        self._pruned_at = -math.inf
        self._next_at = -math.inf
        self._barred: dict[str, float] = {}  # until when
        self._done_now = 0  # packages of the last pruning
        self.take(rules)

    def take(self, rules: Sequence[Rule]) -> None:
        """Go by these rules from now on."""
        has_ages = any(rule.older_than is not None for rule in rules)
        if has_ages and self._ages is None:
            watched = self._index.keeping.watched
            self._ages = Ages(self._index.root, watched=watched, clock=self._clock)
            self._openings = 0
        elif not has_ages:
            self._ages = None
        self.rules, self._entries = tuple(rules), None

    # -- when --------------------------------------------------------------------------------

    def next_at(self) -> float:
        """When the rules are asked next (monotonic), unless something is published before.

        Nothing wakes for it: the updater comes by every few seconds.
        """
        if not self.rules or self._index.publication is None:
            return math.inf
        earliest = max(self._looked_at + max(LOOK, SHARE * self._took), self._pruned_at + EVERY)
        if self._index.publication.entries is not self._entries:
            return earliest
        return max(self._next_at, earliest)

    def look(self) -> list[Departure]:
        """What has to leave now, if it is time to look. What was asked for before is not asked for again."""
        self._evenness.look()
        now = self._clock.monotonic()
        if now < self.next_at() or self._index.home.is_away:
            return []
        if self._ages and self._evenness.holds_in == 0:
            self._ages.believe()
        self._looked_at = now
        self._barred = {name: at for name, at in self._barred.items() if at > now}
        self._entries = self._index.publication.entries if self._index.publication else None
        found = self.plan()
        self._took = self._clock.monotonic() - now
        self._next_at = now + found.next_at - self._index.keeping.watched.now()
        if self._ages and self._ages.doubtful:
            self._next_at = min(self._next_at, now + self._evenness.holds_in)
        if self._barred:
            self._next_at = min(self._next_at, *self._barred.values())
        if found.out:
            self._pruned_at = now
        return self.departures(found.out)

    # -- what --------------------------------------------------------------------------------

    def plan(self, rules: Sequence[Rule] | None = None, *, by_hand: bool = False) -> Plan:
        """What would go now by other rules, or by those that are in use.

        `by_hand`: the clock is believed, unless it jumped within the last hour.
        """
        if self._index.publication is None:
            return Plan((), math.inf)  # else all that is here would count as gone, and as new when it is seen
        self._evenness.look()
        entries = self._index.publication.entries
        born = self._born(entries, believing=by_hand and not self._evenness.has_jumped)
        barred = {} if by_hand else self._barred
        candidates = [each for name, each in entries.items() if name not in barred]
        found = plan(
            candidates,
            self.rules if rules is None else rules,
            born=born,
            now=self._index.keeping.watched.now(),
        )
        return replace(
            found, out=tuple(each for each in found.out if not self._is_linked(each.entry.location_href))
        )

    def departures(self, out: Sequence[Out]) -> list[Departure]:
        """The changes that retire these packages, all for one publication."""
        if not out:
            return []
        self._done_now = 0
        end = self._index.history.claim([each.entry.location_href for each in out], who=None, how=HOW)
        departures = []
        for each in out:
            log.info("%s: pruned: %s: %s", self._index.name, each.entry.location_href, each.reason)
            departure = Departure(each.entry.location_href, partial(self._check, each.entry), retire=True)
            departure.answer.add_done_callback(partial(self._done, each.entry.location_href))
            departures.append(departure)
        end(owed=True)
        return departures

    def save(self) -> None:
        """Note the ages for the next start."""
        if self._ages and self._index.home.is_here():
            try:
                self._ages.save()
            except OSError as error:
                log.warning("%s: the ages of packages can not be noted: %s", self._index.name, error)

    def _born(self, entries: Mapping[str, Entry], *, believing: bool) -> dict[str, float]:
        if self._ages is None:  # as if the first rule that asks for ages came now
            offset = self._index.keeping.watched.now() - self._clock.now()
            known = entries.values() if believing else ()
            return {each.pkgid: offset + each.stamp.mtime_ns / 1e9 for each in known}
        if self._openings != self._index.keeping.openings:
            self._ages.open()
            self._openings = self._index.keeping.openings
        self._ages.see(entries)
        return self._ages.born(believing=believing)

    def _is_linked(self, location_href: str) -> bool:
        """Whether a file is behind a symbolic link: it may have other names, and is not ours to move."""
        if not self._index.tree.has_links:
            return False
        path = self._index.tree.path(location_href)
        return os.path.realpath(path) != path

    def _check(self, entry: Entry) -> None:
        """Refuse what is another file by now. Raises Conflict."""
        found = self._index.tree.look(entry.location_href)
        listed = self._index.listed(entry.location_href)
        if not (listed and listed.pkgid == entry.pkgid and found and found.stamp == listed.stamp):
            raise Conflict(f"{entry.location_href} changed; it is not pruned")

    def _done(self, location_href: str, answer: Future[Listed]) -> None:
        """By the updater's thread, which gave the answer."""
        error = CancelledError() if answer.cancelled() else answer.exception()
        if error is None:
            self._done_now += 1
            self.last = Pruned(self._clock.now(), self._done_now)
            self.total += 1
        elif not isinstance(error, Conflict):
            log.error("%s: %s could not be pruned: %s", self._index.name, location_href, error)
            self._barred[location_href] = until = self._clock.monotonic() + BARRED
            self._next_at = min(self._next_at, until)

    # -- what is told ------------------------------------------------------------------------

    def paused(self) -> str | None:
        """Why some packages are not pruned by their age yet; None when nothing waits."""
        doubtful = self._ages.doubtful if self._ages else 0
        if not doubtful:
            return None
        why = "the clock jumped" if self._evenness.has_jumped else "they were here before"
        return (
            f"{doubtful} packages are not pruned by the age of their files for another "
            f"{told(self._evenness.holds_in)}, until the clock has gone evenly for {told(HELD)}: {why}"
        )

    def status(self) -> dict[str, Any]:
        """In the JSON status. Times in seconds since 1970."""
        retired = self._index.keeping.retired
        wait = self.next_at() - self._clock.monotonic()
        return {
            "rules": len(self.rules),
            "last_at": self.last.at if self.last else None,
            "last_packages": self.last.packages if self.last else 0,
            "next_at": self._clock.now() + max(0.0, wait) if math.isfinite(wait) else None,
            "paused": self.paused(),
            "retired": len(retired.names),
            "retired_size": retired.size,
            "grace": retired.grace,
        }
