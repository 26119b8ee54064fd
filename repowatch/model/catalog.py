"""The listed packages of one repository, in createrepo_c's order, cut into segments.

Where a segment begins is decided by hashes of location_hrefs alone, so that equal trees are cut equally
whatever their history: a package begins a segment when its hash is the least among those of its
neighbours within REACH, and the first package always does. So segments are neither short nor long, and
adding or removing a package touches the segment it falls into, rarely one or two beside it.

Segments are immutable; a change puts new ones in the place of old ones. Whoever holds a segment
(a publication that is being made, a reader in another thread) needs no lock.
"""

from __future__ import annotations

import hashlib
import os
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import accumulate, pairwise

from repowatch.model.formats import FORMATS, Format
from repowatch.model.package import Entry, Package
from repowatch.model.segment import Damaged, Elements, Run, Segment, packages_of

# One package in 2 * REACH + 1 begins a segment. A change compresses about 1.1 segments, and every
# segment begins without the 32 KiB window: 16 costs 4.3 % in size against one stream, 32 costs 2.3 %
# and twice the time.
REACH = 16


def order_key(location_href: str) -> bytes:
    """The key that sorts as createrepo_c does: by basename, then by directory, bytewise.

    (createrepo_c, src/createrepo_c.c: task_cmp.) No file name holds a NUL.
    """
    directory, _, basename = os.fsencode(location_href).rpartition(b"/")
    return basename + b"\0" + directory


def cuts(location_hrefs: Sequence[str]) -> list[int]:
    """Where segments begin in packages that are in order: indexes, the first of them 0."""
    ranks = [hashlib.blake2b(os.fsencode(each), digest_size=8).digest() for each in location_hrefs]
    return [
        index
        for index, rank in enumerate(ranks)
        if index == 0 or rank == min(ranks[max(0, index - REACH) : index + REACH + 1])
    ]


class Catalog:
    """The listed packages: entries by location_href, and segments in order.

    Not safe for changes from several threads; `entries` and `segments` are replaced whole by a
    `change` that changes something, so that what another thread took stays as it was.
    """

    def __init__(self, form: Format = FORMATS["compatible"]) -> None:
        self.entries: Mapping[str, Entry] = {}
        self.segments: tuple[Segment, ...] = ()
        self.form = form

    @classmethod
    def restored(cls, runs: Iterable[Run], form: Format) -> Catalog:
        """The catalog whose segments these runs were. Raises Damaged when that can not be."""
        catalog = cls(form)
        runs = list(runs)
        catalog.entries = {entry.location_href: entry for run in runs for entry in run.entries}
        catalog.segments = tuple(run.segment for run in runs)
        names = [name for segment in catalog.segments for name in segment.location_hrefs]
        edges = [0, *accumulate(len(segment.location_hrefs) for segment in catalog.segments)]
        keys = [order_key(name) for name in names]
        if any(one >= other for one, other in pairwise(keys)) or edges != [*cuts(names), len(names)]:
            raise Damaged("its packages are not in order, or not cut as they should be")
        return catalog

    def change(self, put: Iterable[Run], drop: Iterable[str] = ()) -> None:
        """List the packages of `put` (in the place of what had their names), unlist those of `drop`.

        A run that fits becomes a segment as it is. Raises Damaged, and changes nothing then.
        """
        put = list(put)
        changes: dict[str, Segment | None] = {name: None for name in drop if name in self.entries}
        for run in put:
            changes.update(dict.fromkeys(run.segment.location_hrefs, run.segment))
        if not changes:
            return
        self.segments = _changed(self.segments, changes, self.form)
        entries = dict(self.entries)
        for name in changes:
            entries.pop(name, None)
        for run in put:
            entries.update((entry.location_href, entry) for entry in run.entries)
        self.entries = entries

    def restamp(self, entries: Iterable[Entry]) -> None:
        """Replace entries whose file has another stamp by now (a rename changes ctime), nothing else."""
        self.entries = {**self.entries, **{entry.location_href: entry for entry in entries}}

    def elements_of(self, location_hrefs: Iterable[str]) -> dict[str, Elements]:
        """The elements of those that are listed. Raises Damaged."""
        wanted = set(location_hrefs) & self.entries.keys()
        indexes = {_index(self.segments, name) for name in wanted}
        items = (item for index in sorted(indexes) for item in self.segments[index].items())
        return {name: elements for name, elements in items if name in wanted}

    def packages(self) -> Iterator[Package]:
        """Every listed package in order."""
        return packages_of(self.segments, self.entries)


Changes = Mapping[str, Segment | None]  # by location_href: where its elements are now, None if it goes


def _changed(segments: tuple[Segment, ...], changes: Changes, form: Format) -> tuple[Segment, ...]:
    """The segments after the changes."""
    touched: dict[int, dict[str, Segment | None]] = {}
    for name, segment in changes.items():
        touched.setdefault(_index(segments, name), {})[name] = segment
    result: list[Segment] = []
    done = 0
    for start, end in _regions(segments, touched):
        result += segments[done:start]
        changed = {k: v for index, each in touched.items() if start <= index <= end for k, v in each.items()}
        following = segments[end].location_hrefs[0] if end < len(segments) else None
        result += _recut(segments[start:end], changed, following, form)
        done = end
    return (*result, *segments[done:])


def _index(segments: Sequence[Segment], location_href: str) -> int:
    """Which segment a package belongs to."""
    return max(0, bisect_right(segments, order_key(location_href), key=_first_key) - 1)


def _first_key(segment: Segment) -> bytes:
    return order_key(segment.location_hrefs[0])


def _regions(segments: tuple[Segment, ...], touched: Iterable[int]) -> list[tuple[int, int]]:
    """The ranges of segments whose beginnings may change.

    Around each touched one, so many on both sides that more than REACH packages lie between what changes
    and the outermost beginnings, that of the next one behind included: those stay what they are.
    """
    regions: list[tuple[int, int]] = []
    for index in sorted(touched):
        start, end = index, min(index + 1, len(segments))
        between = 0
        while start > 0 and between <= REACH:
            start -= 1
            between += len(segments[start].location_hrefs)
        between = 0
        while end < len(segments) and between <= REACH:
            between += len(segments[end].location_hrefs)
            end += 1
        if regions and start <= regions[-1][1]:
            start = regions.pop()[0]
        regions.append((start, end))
    return regions


def _recut(
    segments: Sequence[Segment], changed: Changes, following: str | None, form: Format
) -> Iterator[Segment]:
    """The segments of a region after the changes; `following` is the package that begins the next one."""
    before = {name: segment for segment in segments for name in segment.location_hrefs}
    source = {name: segment for name, segment in {**before, **changed}.items() if segment is not None}
    opened: dict[Segment, Mapping[str, Elements]] = {}

    def elements_of(name: str) -> Elements:
        segment = source[name]
        if segment not in opened:
            opened[segment] = dict(segment.items())
        return opened[segment][name]

    for group in _groups(sorted(source, key=order_key), following):
        whole = source[group[0]]
        if whole.location_hrefs == group and all(source[name] is whole for name in group):
            yield whole
        else:
            yield Segment.of([(name, elements_of(name)) for name in group], form)


def _groups(names: Sequence[str], following: str | None) -> Iterator[tuple[str, ...]]:
    """Names in order, cut where segments begin. What follows begins one, and lets nothing near it do so."""
    edges = [*cuts(names), len(names)] if following is None else cuts([*names, following])
    for start, end in pairwise(edges):
        yield tuple(names[start:end])
