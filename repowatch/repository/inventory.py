"""What is known of the files of a tree: listed, rejected, or listed as another tool described them.

Owned by `index`. Values that other threads may hold are replaced whole.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain

from repowatch.model.catalog import Catalog, order_key
from repowatch.model.formats import Format
from repowatch.model.package import Entry, Nevra, Rejected, Stamp
from repowatch.model.segment import Run, Segment, is_inside
from repowatch.model.twins import Duplicate, Twins, newest_build, older_builds, why_held_back
from repowatch.repository.readers import Batch, Gone, Unsettled

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class News:
    """What a publication changed, in packages."""

    added: int
    replaced: int
    removed: int
    changes: Sequence[tuple[Entry | None, Entry | None]] = ()  # as (before, after)


@dataclass(frozen=True, slots=True)
class Facts:
    """The state to go back to when a publication fails."""

    entries: Mapping[str, Entry]
    segments: tuple[Segment, ...]
    unchecked: frozenset[str]
    held: Mapping[str, Entry]
    duplicates: Mapping[Nevra, Duplicate]

    def entry(self, location_href: str) -> Entry | None:
        """What is known of a whole package, listed or not."""
        return self.entries.get(location_href) or self.held.get(location_href)


class Inventory:
    """The catalog of what is listed, and what is known of the rest."""

    def __init__(self, name: str, form: Format) -> None:
        """`name` is the repository's, for the log."""
        self.catalog = Catalog(form)
        self.rejected: Mapping[str, Rejected] = {}
        self.unchecked: frozenset[str] = frozenset()  # listed, but the files were not read yet
        self.held: Mapping[str, Entry] = {}  # not listed, for another file holds a newer build
        self.duplicates: Mapping[Nevra, Duplicate] = {}
        self._twins = Twins()
        self._name = name
        self._adopted: set[str] = set()  # described by another tool, not compared with the tree yet
        self._queue: list[str] = []  # what to check, the next one last
        self._before: dict[str, Entry | None] = {}  # what changed since the last publication, as it was

    # -- what is known -----------------------------------------------------------------------

    def below(self, names: set[str], *, directories: set[str]) -> Iterator[str]:
        """What is known under names or below them, where some may be directories; "" is all of it.

        The other names look like packages, but one may have been a directory before. A name may come twice.
        """
        if "" in directories:
            yield from chain(self.catalog.entries, self.rejected, self.held)
            return
        if directories:
            below = tuple(f"{name}/" for name in directories)
            for name in chain(self.catalog.entries, self.rejected, self.held):
                if name in directories or name.startswith(below):
                    yield name
        once = tuple(f"{name}/" for name in names - directories)
        if once:
            # Of thousands of packages, none is looked at for each upload that was heard of.
            inside = chain.from_iterable(segment.inside for segment in self.catalog.segments)
            for name in chain(inside, filter(is_inside, chain(self.rejected, self.held))):
                if name.startswith(once):
                    yield name

    def stamp_of(self, location_href: str) -> Stamp | None:
        """The stamp of a file whose content is known already, listed or rejected."""
        entry = self._known(location_href)
        if entry is not None:
            return entry.stamp
        rejected = self.rejected.get(location_href)
        return rejected.stamp if rejected else None

    def _known(self, location_href: str) -> Entry | None:
        return self.catalog.entries.get(location_href) or self.held.get(location_href)

    @property
    def facts(self) -> Facts:
        return Facts(self.catalog.entries, self.catalog.segments, self.unchecked, self.held, self.duplicates)

    def take_back(self, facts: Facts) -> None:
        """Say again what the files say."""
        self.catalog.entries, self.catalog.segments = facts.entries, facts.segments
        self.unchecked, self.held, self.duplicates = facts.unchecked, facts.held, facts.duplicates
        self.find_twins()

    def news(self) -> News:
        """What changed since the last call."""
        now = self.catalog.entries
        changed = [(old, now.get(name)) for name, old in self._before.items()]
        self._before = {}
        return News(
            added=sum(old is None and new is not None for old, new in changed),
            replaced=sum(
                old is not None and new is not None and old.pkgid != new.pkgid for old, new in changed
            ),
            removed=sum(old is not None and new is None for old, new in changed),
            changes=changed,
        )

    # -- changes -----------------------------------------------------------------------------

    def change(self, put: Sequence[Run], drop: Iterable[str]) -> None:
        """List and unlist. Raises Damaged."""
        listed = self.catalog.entries
        drop = list(drop)
        put_names = [name for run in put for name in run.segment.location_hrefs]
        self._release([*drop, *put_names])
        drop = [name for name in drop if name in listed]
        names = [*drop, *put_names]
        self.catalog.change(put, drop)
        for name in names:
            self._before.setdefault(name, listed.get(name))
            self._twins.replace(listed.get(name), self.catalog.entries.get(name))
        self._adopted.difference_update(names)
        if self.unchecked:
            self.unchecked = self.unchecked.difference(names)

    def take(self, batches: Iterable[Batch], *, drop: Iterable[str], reject: Iterable[Rejected]) -> set[str]:
        """Take what was read, what is gone, and what can not be listed; the names that changed meanwhile."""
        batches = list(batches)
        runs = [batch.run for batch in batches if batch.run]
        unlisted = [each for batch in batches for each in batch.unlisted]
        refused = [*reject, *(each for each in unlisted if isinstance(each, Rejected))]
        gone = {*drop, *(each.location_href for each in unlisted if isinstance(each, Gone))}
        self.change(runs, gone | {each.location_href for each in refused})
        self._set_rejected(refused, gone.union(*(run.segment.location_hrefs for run in runs)))
        return {each.location_href for each in unlisted if isinstance(each, Unsettled)}

    def forget_rejected(self, names: Iterable[str]) -> None:
        self._set_rejected([], set(names))

    def _set_rejected(self, refused: Sequence[Rejected], forgotten: set[str]) -> None:
        if not refused and self.rejected.keys().isdisjoint(forgotten):
            return
        before = self.rejected
        kept = {name: each for name, each in before.items() if name not in forgotten}
        self.rejected = kept | {each.location_href: each for each in refused}
        for each in refused:
            old = before.get(each.location_href)
            # A file that grows slowly is told once, not with every length it has meanwhile.
            if old is None or old.reason.partition(":")[0] != each.reason.partition(":")[0]:
                log.warning(
                    "%(repository)s: not listed: %(location)s: %(reason)s",
                    {"repository": self._name, "location": each.location_href, "reason": each.reason},
                )

    def set_stamps(self, stamps: Mapping[str, Stamp]) -> None:
        """Take the stamps that listed files have after a rename."""
        entries = self.catalog.entries
        self.catalog.restamp(
            replace(entries[name], stamp=stamp) for name, stamp in stamps.items() if name in entries
        )
        if names := self.held.keys() & stamps.keys():
            moved = {name: replace(self.held[name], stamp=stamps[name]) for name in names}
            self.held = {**self.held, **moved}

    # -- the same package in several files ---------------------------------------------------

    def find_twins(self) -> None:
        """Look at all files anew for those that hold the same package."""
        self._twins = Twins([*self.catalog.entries.values(), *self.held.values()])

    def returning(self) -> list[Entry]:
        """Files held back that are the newest build by now, and twins that were not checked yet.

        They are to be read, and given to `take`, until there are none.
        """
        found: list[Entry] = []
        for nevra in self._twins.touched:
            rivals = list(filter(None, map(self._known, self._twins.names(nevra))))
            if rivals and (newest := newest_build(rivals)).location_href in self.held:
                found.append(newest)
            if len(rivals) > 1:
                found += [entry for entry in rivals if entry.location_href in self.unchecked]
        return found

    def hold_back(self) -> None:
        """Unlist what is not the newest build of its package, now that all that are, are listed."""
        entries = self.catalog.entries
        names = (name for nevra in self._twins.touched for name in self._twins.names(nevra))
        rivals = [entries[name] for name in names if name in entries]
        losers = {name: entries[name] for name in older_builds(rivals)}
        if losers:
            self.change([], losers)
            self.held = {**self.held, **losers}
            for entry in losers.values():
                self._twins.add(entry)

    def settle_twins(self) -> Sequence[Duplicate]:
        """Take note of what is there several times; those that were not before."""
        before = self.duplicates
        self.duplicates = self._twins.settled(before, self.catalog.entries)
        if self.duplicates is before:
            return []
        return [each for nevra, each in self.duplicates.items() if nevra not in before]

    def held_back(self, names: Collection[str] | None = None) -> dict[str, Rejected]:
        """Files (those of `names`) that are not listed for another one is a newer build, with the reason."""
        entries, duplicates, found = self.catalog.entries, self.duplicates, {}
        held = self.held if names is None else {each: self.held[each] for each in self.held.keys() & names}
        for name, entry in held.items():
            twins = duplicates.get(entry.nevra)
            winner = entries.get(twins.listed[0]) if twins and twins.listed else None
            if winner:
                found[name] = Rejected(name, entry.stamp, why_held_back(entry, winner))
        return found

    def _release(self, names: Iterable[str]) -> None:
        """Forget files that were held back: they are gone, listed, or something else."""
        gone = self.held.keys() & set(names) if self.held else set()
        for name in gone:
            self._twins.remove(self.held[name])
        if gone:
            self.held = {name: entry for name, entry in self.held.items() if name not in gone}

    # -- what another tool described ---------------------------------------------------------

    def next_unchecked(self, *, most: int, most_bytes: float) -> list[str]:
        """Some names to be checked next, neighbours in order; at least one, if there is one."""
        if not self._queue:
            self._queue = sorted(self.unchecked, key=order_key, reverse=True)
        names: list[str] = []
        size = 0
        while self._queue and len(names) < most and size < most_bytes:
            name = self._queue.pop()
            if name in self.unchecked:
                names.append(name)
                size += self.catalog.entries[name].stamp.size
        return names

    def _set_hints(self, hints: Mapping[str, str]) -> None:
        """Take what only reading a file tells, and no metadata."""
        entries = self.catalog.entries
        other = {name: text for name, text in hints.items() if entries[name].hint != text}
        if changed := [replace(entries[name], hint=text) for name, text in other.items()]:
            self.catalog.restamp(changed)

    def doubt(self) -> None:
        """Take nothing that is listed as checked, and forget all that is not listed."""
        self.change([], list(self.held))
        self.forget_rejected(list(self.rejected))
        self.unchecked = frozenset(self.catalog.entries)
        self._queue = []

    def adopt(self, runs: Sequence[Run]) -> None:
        """List what another tool described, until `confirm` has compared it with the tree."""
        self.catalog.change(runs)
        self.find_twins()
        self._adopted = set(self.catalog.entries)

    def confirm(self, found: Mapping[str, Stamp]) -> tuple[set[str], set[str]]:
        """Which packages that another tool described have the size and mtime that it says, and which not.

        Those that have stay listed, to be checked later.
        """
        if not self._adopted:
            return set(), set()
        entries = self.catalog.entries
        stamps = {
            name: stamp
            for name, stamp in found.items()
            if name in self._adopted and _is_described(entries[name].stamp, stamp)
        }
        other, self._adopted = self._adopted - stamps.keys(), set()
        self.set_stamps(stamps)
        self.unchecked |= stamps.keys()
        return set(stamps), other

    def take_checked(self, batch: Batch) -> set[str]:
        """Take what was read of unchecked files; the names that changed meanwhile.

        What was listed anew since then is left as it is.
        """
        read = {each.entry.location_href: each for each in batch.run.packages()} if batch.run else {}
        read = {name: package for name, package in read.items() if name in self.unchecked}
        unlisted = tuple(each for each in batch.unlisted if each.location_href in self.unchecked)
        listed = self.catalog.elements_of(read)
        other = [
            package
            for name, package in read.items()
            if listed[name] != (package.primary, package.filelists, package.other)
        ]
        self._set_hints({name: package.entry.hint for name, package in read.items()})
        self.unchecked -= read.keys()
        run = Run.of(other, self.catalog.form) if other else None
        return self.take([Batch(run, unlisted)], drop=(), reject=())


def _is_described(described: Stamp, stamp: Stamp) -> bool:
    """Whether another tool's size and mtime, in whole seconds, are those of a file."""
    return (described.size, described.mtime_ns) == (
        stamp.size,
        stamp.mtime_ns // 1_000_000_000 * 1_000_000_000,
    )
