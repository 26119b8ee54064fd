"""What leaves a tree without being lost: the store beside it, its time, and the stamps that its links change.

Used by `index`, in its thread.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence

from repowatch.model.package import Entry, Stamp
from repowatch.repository.changes import Departure
from repowatch.repository.inventory import Facts
from repowatch.repository.retired import GRACE, Leaving, Retired, pkgid_of
from repowatch.repository.tree import Tree
from repowatch.repository.watched import WatchedTime
from repowatch.system.clock import Clock

log = logging.getLogger(__name__)


class Keeping:
    """The retired packages of one repository, and what snapshots hold."""

    def __init__(self, tree: Tree, *, clock: Clock, grace: float = GRACE) -> None:
        self.watched = WatchedTime(tree.root, clock=clock)
        self.retired = Retired(tree.root, now=self.watched.now, grace=grace)
        # The pkgids that snapshots want; None while that is not known, and nothing is dropped.
        self.held: Callable[[], Collection[str] | None] = frozenset
        self.openings = 0  # how often another directory, or the same one anew, was opened
        self._tree = tree
        self._clock = clock

    def open(self) -> None:
        """Go on from what is on disk. Raises OSError."""
        self.watched.open()
        self.retired.open()
        self.openings += 1

    def announce(self, departures: Iterable[Departure], facts: Facts) -> None:
        """Note which of the departures are to be retired. Raises OSError."""
        leaving = [
            Leaving(self._tree.path(each.location_href), entry.location_href, entry.pkgid, entry.stamp)
            for each in departures
            if each.retire and (entry := facts.entry(each.location_href))
        ]
        self.retired.announce(leaving, at=self._clock.now())

    def left(self, departures: Iterable[Departure]) -> set[str]:
        """The names that are in the tree still, or again, though they were to be retired."""
        return {
            each.location_href
            for each in departures
            if each.retire and os.path.lexists(self._tree.path(each.location_href))
        }

    def served(self, location_href: str) -> tuple[str, str] | None:
        """Path and pkgid of what is still served under a name that nothing in the tree has; any thread."""
        path = self.retired.find(location_href)
        return (path, pkgid_of(path)) if path else None

    def listed(self, changes: Sequence[tuple[Entry | None, Entry | None]]) -> dict[str, Stamp]:
        """Take note of what a publication changed, as (before, after); the stamps that files have now."""
        pairs = ((before, after) for before, after in changes if before and after)
        before = self._unchanged(
            after
            for before, after in pairs
            if before.stamp.inode == after.stamp.inode and before.pkgid != after.pkgid
        )  # written over in place: such a file loses the name by which it was kept
        try:
            self.retired.listed(changes)
        except OSError as error:  # a name in the tree wins anyway
            log.error("%s can not be written: %s", self.retired.directory, error)
        return self._moved(before)

    def save(self, *, at_once: bool = False) -> None:
        """Note the watched time, now and then."""
        try:
            self.watched.save(at_once=at_once)
        except OSError as error:
            log.warning("%s: the watched time can not be noted: %s", self._tree.root, error)

    def sweep(self, entries: Mapping[str, Entry]) -> dict[str, Stamp]:
        """Drop what is over its time and not held; the stamps that listed files have now."""
        try:
            due = set(self.retired.due(self.held()))
            if not due:
                return {}
            before = self._unchanged([each for each in entries.values() if each.pkgid in due])
            self.retired.drop(due)
        except OSError as error:
            log.error("%s: what is over its time can not be removed: %s", self.retired.directory, error)
            return {}
        log.info("%s: removed %d packages that were kept beside the tree", self._tree.root, len(due))
        return self._moved(before)

    def _unchanged(self, entries: Iterable[Entry]) -> list[Entry]:
        """Those whose files are as they were read."""
        return [each for each in entries if self._stamp(each) == each.stamp]

    def _moved(self, entries: Iterable[Entry]) -> dict[str, Stamp]:
        """The stamps that files have after a link to them came or went, which changes nothing but ctime."""
        stamps = {each.location_href: (each.stamp, self._stamp(each)) for each in entries}
        return {
            name: now
            for name, (before, now) in stamps.items()
            if now and now != before and now.is_moved(before)
        }

    def _stamp(self, entry: Entry) -> Stamp | None:
        found = self._tree.look(entry.location_href)
        return found.stamp if found else None
