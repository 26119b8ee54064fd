"""The listed packages of one repository, in createrepo_c's order, cut into segments.

A segment is a run of neighbours whose metadata is kept, and later compressed, as one piece. Where
a segment begins is decided by a hash of the location_href alone, so that equal trees are cut
equally whatever their history: a package begins a segment when its hash says so, and the first
package always does. Adding or removing a package therefore touches one segment, or cuts one in
two, or joins two.

Segments are immutable; a change puts new ones in the place of old ones. Whoever holds a segment
(a compressor's cache, a reader in another thread) needs no lock.
"""

from __future__ import annotations

import hashlib
import os
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

from repowatch.model.package import Entry, Package

KINDS = ("primary", "filelists", "other")

# One package in 64 begins a segment. Smaller segments compress worse (+4.9 % at 32, +2.5 % at 64),
# larger ones cost more for each change.
MEAN_SEGMENT = 64

Elements = tuple[bytes, bytes, bytes]  # of primary, filelists and other


def order_key(location_href: str) -> bytes:
    """The key that sorts as createrepo_c does: by basename, then by directory, bytewise.

    (createrepo_c, src/createrepo_c.c: task_cmp.) No file name holds a NUL.
    """
    directory, _, basename = os.fsencode(location_href).rpartition(b"/")
    return basename + b"\0" + directory


def begins_segment(key: bytes) -> bool:
    digest = hashlib.blake2b(key, digest_size=4).digest()
    return int.from_bytes(digest) % MEAN_SEGMENT == 0


@dataclass(frozen=True, slots=True, eq=False, weakref_slot=True)
class Segment:
    """Neighbouring packages: their keys, the lengths of their elements, the elements joined."""

    keys: tuple[bytes, ...]
    lengths: tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]
    elements: Elements

    @classmethod
    def of(cls, items: list[tuple[bytes, Elements]]) -> Segment:
        primary, filelists, other = zip(*(elements for _, elements in items), strict=True)
        return cls(
            tuple(key for key, _ in items),
            (tuple(map(len, primary)), tuple(map(len, filelists)), tuple(map(len, other))),
            (b"".join(primary), b"".join(filelists), b"".join(other)),
        )

    def items(self) -> Iterator[tuple[bytes, Elements]]:
        """Each package's key and elements, cut out again."""
        starts = [0, 0, 0]
        for index, key in enumerate(self.keys):
            cut = []
            for kind in range(3):
                end = starts[kind] + self.lengths[kind][index]
                cut.append(self.elements[kind][starts[kind] : end])
                starts[kind] = end
            yield key, (cut[0], cut[1], cut[2])


class Catalog:
    """The listed packages: entries by location_href, and segments in order.

    Not safe for changes from several threads; `entries` and `segments` are replaced whole by a
    `change` that changes something, so that what another thread took stays as it was.
    """

    def __init__(self) -> None:
        self.entries: Mapping[str, Entry] = {}
        self.segments: tuple[Segment, ...] = ()

    @classmethod
    def restored(
        cls, entries: Sequence[Entry], lengths: Sequence[tuple[int, int, int]], opened: Sequence[bytes]
    ) -> Catalog:
        """The catalog of packages in order, with the lengths of their elements in the open metadata files.

        The elements of a file stand between its first `<package` and its end tag. Raises ValueError where
        that can not be.
        """
        starts = [content.find(b"<package ") if entries else len(content) for content in opened]
        items: list[tuple[bytes, Elements]] = []
        for entry, sizes in zip(entries, lengths, strict=True):
            cut = [opened[kind][starts[kind] : starts[kind] + sizes[kind]] for kind in range(3)]
            if not all(element.endswith(b"</package>\n") for element in cut):
                raise ValueError(f"the elements of {entry.location_href} are not where they should be")
            starts = [start + size for start, size in zip(starts, sizes, strict=True)]
            items.append((order_key(entry.location_href), (cut[0], cut[1], cut[2])))
        keys = [key for key, _ in items]
        if any(
            not content[start:].startswith(b"</")
            for content, start in zip(opened, starts, strict=True)
            if entries
        ) or any(a >= b for a, b in pairwise(keys)):
            raise ValueError("the elements do not fill the files in order")
        catalog = cls()
        catalog.entries = {entry.location_href: entry for entry in entries}
        catalog.segments = tuple(_cut(items))
        return catalog

    def change(self, put: Iterable[Package], drop: Iterable[str] = ()) -> None:
        """List the packages of `put` (in the place of what had their names), unlist those of `drop`."""
        entries = dict(self.entries)
        changes: dict[bytes, Elements | None] = {}
        for location_href in drop:
            if entries.pop(location_href, None):
                changes[order_key(location_href)] = None
        for package in put:
            entries[package.entry.location_href] = package.entry
            changes[order_key(package.entry.location_href)] = (
                package.primary,
                package.filelists,
                package.other,
            )
        if changes:
            self.segments = _changed(self.segments, changes)
            self.entries = entries

    def restamp(self, entries: Iterable[Entry]) -> None:
        """Replace entries whose file has another stamp by now (a rename changes ctime), nothing else."""
        self.entries = {**self.entries, **{entry.location_href: entry for entry in entries}}

    def packages(self) -> Iterator[Package]:
        """Every listed package in order."""
        for segment in self.segments:
            for key, (primary, filelists, other) in segment.items():
                yield Package(self.entries[location_of(key)], primary, filelists, other)


def location_of(key: bytes) -> str:
    """The location_href that `order_key` made a key of."""
    basename, _, directory = key.partition(b"\0")
    return os.fsdecode(directory + b"/" + basename if directory else basename)


def _changed(segments: tuple[Segment, ...], changes: Mapping[bytes, Elements | None]) -> tuple[Segment, ...]:
    """The segments after the changes; None removes a package."""
    firsts = [segment.keys[0] for segment in segments]
    by_segment: dict[int, dict[bytes, Elements | None]] = {}
    for key, elements in changes.items():
        by_segment.setdefault(max(0, bisect_right(firsts, key) - 1), {})[key] = elements
    result: list[Segment] = []
    done = 0
    for start, end in _runs(segments, by_segment):
        result += segments[done:start]
        items = dict(item for segment in segments[start:end] for item in segment.items())
        for index in range(start, max(end, start + 1)):
            items.update(by_segment.get(index, {}))  # type: ignore[arg-type]
        kept = sorted((key, elements) for key, elements in items.items() if elements is not None)
        result += _cut(kept)
        done = end
    return (*result, *segments[done:])


def _runs(
    segments: tuple[Segment, ...], by_segment: Mapping[int, Mapping[bytes, Elements | None]]
) -> list[tuple[int, int]]:
    """The ranges of segments to make anew.

    A segment whose first package goes takes the one before it along: what is left of it belongs
    there, unless it begins with a boundary of its own.
    """
    touched = set(by_segment)
    for index in by_segment:
        at = index
        while at > 0 and by_segment.get(at, {}).get(segments[at].keys[0], b"") is None:
            at -= 1
            touched.add(at)
    runs: list[tuple[int, int]] = []
    for index in sorted(touched):
        end = min(index + 1, len(segments))
        if runs and runs[-1][1] == index:
            runs[-1] = (runs[-1][0], end)
        else:
            runs.append((index, end))
    return runs


def _cut(items: list[tuple[bytes, Elements]]) -> Iterator[Segment]:
    part: list[tuple[bytes, Elements]] = []
    for item in items:
        if part and begins_segment(item[0]):
            yield Segment.of(part)
            part = []
        part.append(item)
    if part:
        yield Segment.of(part)
