"""Metadata files out of segments: what changed is compressed, all of it hashed and joined (see `formats`)."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Executor, Future
from dataclasses import dataclass
from weakref import WeakKeyDictionary

from repowatch.model.catalog import KINDS, Segment
from repowatch.repository.formats import Format, Piece

# createrepo_c's own words (src/xml_file.c), the number of packages to be filled in.
HEADS = (
    b'<?xml version="1.0" encoding="UTF-8"?>\n'
    b'<metadata xmlns="http://linux.duke.edu/metadata/common" xmlns:rpm="http://linux.duke.edu/metadata/rpm"'
    b' packages="%d">\n',
    b'<?xml version="1.0" encoding="UTF-8"?>\n'
    b'<filelists xmlns="http://linux.duke.edu/metadata/filelists" packages="%d">\n',
    b'<?xml version="1.0" encoding="UTF-8"?>\n'
    b'<otherdata xmlns="http://linux.duke.edu/metadata/other" packages="%d">\n',
)
FEET = (b"</metadata>", b"</filelists>", b"</otherdata>")


@dataclass(frozen=True, slots=True)
class MetadataFile:
    """One metadata file, complete in memory."""

    kind: str
    suffix: str
    parts: Sequence[bytes]
    checksum: str  # SHA-256 of the parts joined
    size: int
    open_checksum: str
    open_size: int

    @property
    def name(self) -> str:
        return f"{self.checksum}-{self.kind}.xml.{self.suffix}"


class Segments:
    """Makes the metadata files, and remembers compressed segments as long as somebody holds them."""

    def __init__(self, pool: Executor, form: Format) -> None:
        self.suffix = form.suffix
        self._pool = pool
        self._form = form
        self._pieces: WeakKeyDictionary[Segment, tuple[Piece, ...]] = WeakKeyDictionary()

    def compress(self, segments: Sequence[Segment]) -> None:
        """Compress the segments that are not compressed yet."""
        self._finish(self._begin(segments))

    def files(self, segments: Sequence[Segment]) -> tuple[MetadataFile, ...]:
        """The primary, filelists and other files of the packages in these segments."""
        begun = self._begin(segments)
        # The open bytes need not wait for what is compressed of them.
        opened = [self._pool.submit(_open_hash, kind, segments) for kind in range(3)]
        self._finish(begun)
        joined = [self._pool.submit(self._joined, kind, segments) for kind in range(3)]
        files = []
        for kind, name in enumerate(KINDS):
            open_checksum, open_size = opened[kind].result()
            parts, checksum, size = joined[kind].result()
            files.append(MetadataFile(name, self.suffix, parts, checksum, size, open_checksum, open_size))
        return tuple(files)

    def _begin(self, segments: Sequence[Segment]) -> list[tuple[Segment, list[Future[Piece]]]]:
        """Have the segments compressed that are not yet, each of their three kinds on its own."""
        return [
            (segment, [self._pool.submit(self._form.compress, elements) for elements in segment.elements])
            for segment in segments
            if segment not in self._pieces
        ]

    def _finish(self, begun: Sequence[tuple[Segment, list[Future[Piece]]]]) -> None:
        for segment, pieces in begun:
            self._pieces[segment] = tuple(piece.result() for piece in pieces)

    def _joined(self, kind: int, segments: Sequence[Segment]) -> tuple[list[bytes], str, int]:
        head, foot = _frame(kind, segments)
        pieces = [
            self._form.compress(head),
            *(self._pieces[segment][kind] for segment in segments),
            self._form.compress(foot, last=True),
        ]
        parts = self._form.join(pieces)
        checksum, size = _hash(parts)
        return parts, checksum, size


def open_bytes(kind: int, segments: Sequence[Segment]) -> Iterator[bytes]:
    """The open bytes of one metadata file, in parts."""
    head, foot = _frame(kind, segments)
    yield head
    for segment in segments:
        yield segment.elements[kind]
    yield foot


def _frame(kind: int, segments: Sequence[Segment]) -> tuple[bytes, bytes]:
    return HEADS[kind] % sum(len(segment.keys) for segment in segments), FEET[kind]


def _open_hash(kind: int, segments: Sequence[Segment]) -> tuple[str, int]:
    return _hash(open_bytes(kind, segments))


def _hash(parts: Iterable[bytes]) -> tuple[str, int]:
    digest, size = hashlib.sha256(), 0
    for part in parts:
        digest.update(part)
        size += len(part)
    return digest.hexdigest(), size
