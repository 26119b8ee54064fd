"""A segment: neighbouring packages whose metadata is kept, compressed and written as one piece.

The same bytes are open (what checksums are made of) and compressed (what is written). Whichever is there
makes the other when that is asked for, once. Nobody sees a segment change, so threads share it without a
lock: two that ask at once make the same bytes twice.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from repowatch.model.formats import Format, Piece
from repowatch.model.package import Entry, Package

KINDS = ("primary", "filelists", "other")

_END = b"</package>\n"

Elements = tuple[bytes, bytes, bytes]  # of primary, filelists and other


class Damaged(ValueError):
    """What a cache said of a segment is not what is in it."""


def is_inside(location_href: str) -> bool:
    """Whether a directory above it has the name of a package: hardly ever."""
    return ".rpm/" in location_href


class Segment:
    """Packages in order, and their elements joined."""

    __slots__ = ("_elements", "_form", "_pieces", "inside", "lengths", "location_hrefs")

    def __init__(
        self,
        location_hrefs: Sequence[str],
        lengths: Sequence[array[int]],
        form: Format,
        *,
        elements: Sequence[bytes] | None = None,
        pieces: Sequence[Piece] | None = None,
    ) -> None:
        """`lengths` are those of each package's elements in bytes, by kind; given are the elements of each
        kind open, compressed, or both."""
        self.location_hrefs = tuple(location_hrefs)
        self.inside = tuple(filter(is_inside, self.location_hrefs))
        self.lengths = tuple(lengths)
        self._form = form
        self._elements: list[bytes | None] = [*elements] if elements else [None] * len(KINDS)
        self._pieces: list[Piece | None] = [*pieces] if pieces else [None] * len(KINDS)

    @classmethod
    def of(cls, items: Sequence[tuple[str, Elements]], form: Format) -> Segment:
        """The segment of packages in order, each with its elements."""
        columns = list(zip(*(elements for _, elements in items), strict=True))
        return cls(
            [location_href for location_href, _ in items],
            [array("L", map(len, column)) for column in columns],
            form,
            elements=[b"".join(column) for column in columns],
        )

    def opened(self, kind: int) -> bytes:
        """The open bytes of one kind. Raises Damaged."""
        found = self._elements[kind]
        if found is None:
            try:
                found = self._elements[kind] = self._form.open(self.piece(kind))
            except ValueError as error:
                raise Damaged(str(error)) from error
        return found

    def piece(self, kind: int) -> Piece:
        """The compressed bytes of one kind."""
        found = self._pieces[kind]
        if found is None:
            found = self._pieces[kind] = self._form.compress(self.opened(kind))
        return found

    def is_compressed(self) -> bool:
        """Whether all kinds are."""
        return None not in self._pieces

    def is_open(self, kind: int) -> bool:
        return self._elements[kind] is not None

    def items(self) -> Iterator[tuple[str, Elements]]:
        """Each package's location_href and elements, cut out again. Raises Damaged."""
        primary, filelists, other = (
            _cut(self.opened(kind), lengths) for kind, lengths in enumerate(self.lengths)
        )
        return zip(self.location_hrefs, zip(primary, filelists, other, strict=True), strict=True)


def _cut(content: bytes, lengths: Sequence[int]) -> Iterator[bytes]:
    start = 0
    for length in lengths:
        element = content[start : start + length]
        if not element.endswith(_END):
            raise Damaged("an element does not end where it should")
        yield element
        start += length


@dataclass(frozen=True, slots=True)
class Run:
    """Packages that came together, in order."""

    entries: tuple[Entry, ...]
    segment: Segment

    @classmethod
    def of(cls, packages: Sequence[Package], form: Format) -> Run:
        """Packages in order, at least one."""
        items = [(each.entry.location_href, (each.primary, each.filelists, each.other)) for each in packages]
        return cls(tuple(each.entry for each in packages), Segment.of(items, form))

    def packages(self) -> Iterator[Package]:
        return packages_of([self.segment], {entry.location_href: entry for entry in self.entries})


def packages_of(segments: Sequence[Segment], entries: Mapping[str, Entry]) -> Iterator[Package]:
    """Every package of the segments, in order."""
    for segment in segments:
        for location_href, elements in segment.items():
            yield Package(entries[location_href], *elements)
