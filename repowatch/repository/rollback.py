"""Makes a tree what it was at a snapshot: in one publication, with a newer revision, or not at all.

What was published when the rollback begins is undone; what comes meanwhile, or waits, comes after it.
"""

from __future__ import annotations

import os
import secrets
import shutil
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

from repowatch.errors import Conflict
from repowatch.model.publication import Publication
from repowatch.model.snapshot import Difference, Kept, difference
from repowatch.repository.changes import Arrival, Departure, Together
from repowatch.repository.history import FILE, EndClaim
from repowatch.repository.index import Index
from repowatch.repository.snapshots import Changing, Snapshots
from repowatch.repository.together import made_of, outcome
from repowatch.repository.tree import Tree
from repowatch.repository.updater import Updater
from repowatch.system.files import fsync_directory
from repowatch.system.second import give_second_place

POLL = 0.1  # seconds
PATIENCE = 10.0  # seconds that a change which is still to be published is waited for
ATTEMPTS = 10  # publications that may come between the reading of what returns and its publication
NAMED = 5  # packages that an error names


T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a rollback did, or would do."""

    revision: int  # that shows it, or that is published now
    difference: Difference  # between what was published and the snapshot
    lost: tuple[str, ...] = ()  # locations of packages that can not come back; nothing is done then


def patiently(updater: Updater, act: Callable[[], T]) -> T:
    """What the updater's thread made of it, once the tree is what is published. Raises Conflict, as `act`."""
    ends = time.monotonic() + PATIENCE
    while True:
        try:
            return updater.do(act).result()
        except Changing as error:
            if time.monotonic() > ends:
                raise Conflict(str(error)) from None
            time.sleep(POLL)


def preview(index: Index, name: str) -> Outcome:
    """What a rollback would do. Raises Nameless and Conflict."""
    kept = index.snapshots.find(name).snapshot.packages
    revision, found = _published(index.snapshots).revision, _difference(index, kept)
    return Outcome(revision, found, _lost(index.snapshots, kept, (*found.missing, *found.changed)))


class Rollback:
    """One rollback, in the thread of whoever asked for it."""

    def __init__(
        self, updater: Updater, name: str, *, keep: str | None = None, by: str | None = None, how: str = FILE
    ) -> None:
        """`keep`: a name under which what is there now becomes a snapshot first; `by` and `how`: for history.

        Raises Nameless and Conflict.
        """
        self._updater = updater
        self._index = updater.index
        self._snapshots = updater.index.snapshots
        self._kept = self._snapshots.find(name).snapshot.packages
        self._keep = keep
        self._by = by
        self._how = how
        self._end_claim: EndClaim | None = None
        self._ready: dict[str, Arrival] = {}  # by location: read, and lies in staging
        self._inodes: set[int] = set()  # of what lies there
        self._scratch = os.path.join(self._index.home.open_staging(), f"rollback-{secrets.token_hex(8)}")

    def run(self) -> Outcome:
        """Do it, and wait until it is published.

        Raises Conflict, which says why nothing was done, other RepowatchError, and OSError.
        """
        os.mkdir(self._scratch)
        try:
            if self._keep:
                self._snapshots.prepare(self._index.tree)
            for _ in range(ATTEMPTS):
                self._prepare(self._wanted(_difference(self._index, self._kept)))
                begun = patiently(self._updater, self._begin)
                if begun is not None:
                    found, changes = begun
                    revision = outcome(changes.answer) if changes else _published(self._snapshots).revision
                    return Outcome(revision, found)
        finally:
            if self._end_claim:
                self._end_claim(owed=False)
            shutil.rmtree(self._scratch, ignore_errors=True)
            self._take_links()
        raise Conflict("packages of the snapshot are replaced all the time; stop who does it, and try again")

    def _wanted(self, found: Difference) -> list[str]:
        return [name for name in (*found.missing, *found.changed) if name not in self._ready]

    def _begin(self) -> tuple[Difference, Together | None] | None:
        """By the updater's thread: order it, if all that has to come back is ready."""
        found = _difference(self._index, self._kept)
        if self._wanted(found):
            return None
        if self._keep:
            self._index.snapshot(self._keep, by=self._by)
        if found.is_empty:
            return found, None
        changes = Together(
            tuple(self._ready[name] for name in (*found.missing, *found.changed)),
            tuple(Departure(name, lambda: None, retire=True) for name in found.surplus),
            scratch=self._scratch,
        )
        self._end_claim = self._index.history.claim(changes.touches, who=self._by, how=self._how)
        self._updater.first(changes)
        return found, changes

    def _prepare(self, names: Sequence[str]) -> None:
        """Stage packages and read them whole. Raises Conflict where one is not what the snapshot names."""
        if lost := _lost(self._snapshots, self._kept, names):
            raise Conflict(f"{_some(lost)} can not come back: written over or removed since the snapshot")
        files = {name: self._stage(name) for name in names}
        fsync_directory(self._scratch)
        self._take_links()
        for arrival in made_of(self._index, files, check=_nothing_against_it).arrivals:
            name = arrival.location_href
            if not self._is_right(arrival):
                raise Conflict(f"{name} can not come back: its file was written over since the snapshot")
            self._ready[name] = arrival

    def _take_links(self) -> None:
        """What was staged by a hard link may be listed as well, under the name that it was moved to."""
        entries = _published(self._snapshots).entries.values()
        self._updater.take_links(each for each in entries if each.stamp.inode in self._inodes)

    def _is_right(self, arrival: Arrival) -> bool:
        kept, package = self._kept[arrival.location_href], arrival.package
        if package is not None and len(package.entry.pkgid) == len(kept.pkgid):
            return package.entry.pkgid == kept.pkgid
        return self._snapshots.has_bytes(arrival.staged, kept.pkgid)

    def _stage(self, name: str) -> str:
        path = self._snapshots.path_of(self._kept[name])
        if path is None:
            raise Conflict(f"{name} can not come back: its file was removed just now")
        staged = os.path.join(self._scratch, f"{secrets.token_hex(8)}.rpm")
        give_second_place(path, staged)
        self._inodes.add(os.lstat(staged).st_ino)
        return staged


def _nothing_against_it(name: str) -> None:
    """Whoever may roll back, may change each name."""


def _difference(index: Index, kept: Mapping[str, Kept]) -> Difference:
    """What has to be done. With what goes, go other builds of the same, which would take its place.

    Raises Conflict where that is not ours to do.
    """
    listed = _published(index.snapshots).entries
    found = difference(kept, listed, is_same=index.snapshots.is_same)
    going = {listed[name].nevra for name in (*found.surplus, *found.changed)}
    behind = {each.location_href for each in index.held.values() if each.nevra in going} - kept.keys()
    surplus = tuple(sorted({*found.surplus, *behind}))
    if linked := _elsewhere(index.tree, surplus):
        raise Conflict(f"{_some(linked)} came by a symbolic link, which has to be removed first")
    return replace(found, surplus=surplus)


def _published(snapshots: Snapshots) -> Publication:
    publication = snapshots.publication()
    if publication is None:
        raise Conflict("nothing is published yet; try again when it is")
    return publication


def _lost(snapshots: Snapshots, kept: Mapping[str, Kept], names: Iterable[str]) -> tuple[str, ...]:
    return tuple(name for name in names if snapshots.path_of(kept[name]) is None)


def _elsewhere(tree: Tree, surplus: Sequence[str]) -> tuple[str, ...]:
    """Those in a directory behind a symbolic link whose files are to stay where they are, or not ours."""
    found, leaving = [], set(surplus)
    for name in surplus if tree.has_links else ():
        path = tree.path(name)
        directory = os.path.realpath(os.path.dirname(path))
        own = os.path.relpath(os.path.join(directory, os.path.basename(path)), tree.root)
        if own not in leaving:
            found.append(name)
    return tuple(found)


def _some(names: tuple[str, ...]) -> str:
    more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    return f"{', '.join(names[:NAMED])}{more}"
