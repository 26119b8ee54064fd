"""Twins: files that hold the same package, by NEVRA, and which of them is the newest build."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from repowatch.model.catalog import order_key
from repowatch.model.package import Entry, Nevra


@dataclass(frozen=True, slots=True)
class Duplicate:
    """One package that is there more than once."""

    nevra: Nevra
    locations: tuple[str, ...]  # in order
    listed: tuple[str, ...]  # those of them that are


def newest_build(entries: Iterable[Entry]) -> Entry:
    """The one that was built last; among those that were built in the same second, the last in order.

    So it depends on the files alone, not on which came first.
    """
    return max(entries, key=lambda entry: (entry.build_time, order_key(entry.location_href)))


def older_builds(entries: Iterable[Entry]) -> list[str]:
    """The location_hrefs of those that are not the newest build of their package."""
    rivals: defaultdict[Nevra, list[Entry]] = defaultdict(list)
    for entry in entries:
        rivals[entry.nevra].append(entry)
    several = [(each, newest_build(each)) for each in rivals.values() if len(each) > 1]
    return [entry.location_href for each, winner in several for entry in each if entry is not winner]


def why_held_back(entry: Entry, winner: Entry) -> str:
    """Why a file is not listed whose package is listed from another one."""
    if entry.build_time == winner.build_time:
        why = "built at the same time, and the last in order is listed"
    else:
        why = "a newer build"
    return f"{entry.nevra} is listed from {winner.location_href}: {why} (same_nevra: newest_build)"


class Twins:
    """Which files hold which package. Not safe for several threads."""

    def __init__(self, entries: Iterable[Entry] = ()) -> None:
        self._names: dict[Nevra, tuple[str, ...]] = {}
        self.touched: set[Nevra] = set()  # packages whose files changed, and are or were several
        for entry in entries:
            self.add(entry)

    def add(self, entry: Entry) -> None:
        names = self._names.get(entry.nevra, ())
        if entry.location_href not in names:
            self._names[entry.nevra] = (*names, entry.location_href)
        if names:
            self.touched.add(entry.nevra)

    def remove(self, entry: Entry) -> None:
        names = self._names.get(entry.nevra, ())
        left = tuple(name for name in names if name != entry.location_href)
        if left:
            self._names[entry.nevra] = left
            self.touched.add(entry.nevra)
        else:
            self._names.pop(entry.nevra, None)

    def replace(self, before: Entry | None, after: Entry | None) -> None:
        """A file holds something else, or another build of the same."""
        if before is not None:
            self.remove(before)
        if after is not None:
            self.add(after)

    def names(self, nevra: Nevra) -> tuple[str, ...]:
        """The location_hrefs of the files that hold a package."""
        return self._names.get(nevra, ())

    def settled(
        self, before: Mapping[Nevra, Duplicate], listed: Mapping[str, Entry]
    ) -> Mapping[Nevra, Duplicate]:
        """The duplicates after what was touched, a new mapping where any differs; nothing is touched then."""
        if not self.touched:
            return before
        now = dict(before)
        for nevra in self.touched:
            names = tuple(sorted(self.names(nevra), key=order_key))
            now.pop(nevra, None)
            if len(names) > 1:
                now[nevra] = Duplicate(nevra, names, tuple(name for name in names if name in listed))
        self.touched = set()
        return now if now != before else before
