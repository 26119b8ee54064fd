"""Metadata files out of segments: compress what changed, hash everything, join the pieces.

Every yum server rewrites all metadata for one new package. Here a segment is compressed once, when it
changes, and a publication only hashes and joins. That the joined pieces are one ordinary gzip member
rests on three facts:

- A deflate stream (RFC 1951) is a row of blocks. zlib's full flush ends the last block on a byte's
  edge and forgets the window, so that a piece compressed on its own can stand behind any other piece.
- A gzip member (RFC 1952) is a header, one deflate stream, and eight bytes: the CRC-32 and the length of
  the open bytes. So: header, pieces, one last piece that says "final", CRC, length.
- The CRC-32 of joined bytes follows from the CRCs of the parts: appending n bytes to what came before
  multiplies its CRC by x^(8n) modulo the CRC's polynomial, and then the new part's CRC is added. The
  factor is computed once for each piece; joining costs one 32-step multiplication for each.

The checksums that repomd.xml announces are never combined: they are computed from the very bytes that
are written.
"""

from __future__ import annotations

import hashlib
import struct
import zlib
from collections.abc import Iterator, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from weakref import WeakKeyDictionary

from repowatch.model.catalog import KINDS, Segment

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

# No time and no name: the bytes depend on the content alone (RFC 1952: OS 3 is Unix).
GZIP_HEADER = b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\x03"
LEVEL = 6

_POLYNOMIAL = 0xEDB88320  # of CRC-32, bits reversed


@dataclass(frozen=True, slots=True)
class MetadataFile:
    """One metadata file, complete in memory."""

    kind: str
    pieces: Sequence[bytes]
    checksum: str  # SHA-256 of the pieces joined
    size: int
    open_checksum: str
    open_size: int

    @property
    def name(self) -> str:
        return f"{self.checksum}-{self.kind}.xml.gz"


@dataclass(frozen=True, slots=True)
class _Piece:
    """Open bytes compressed to stand anywhere in a deflate stream."""

    deflated: bytes
    crc: int
    shift: int  # x^(8 * length) modulo the polynomial
    length: int  # of the open bytes


class Segments:
    """Makes the metadata files, and remembers compressed segments as long as somebody holds them."""

    def __init__(self, pool: Executor) -> None:
        self._pool = pool
        self._pieces: WeakKeyDictionary[Segment, tuple[_Piece, ...]] = WeakKeyDictionary()

    def compress(self, segments: Sequence[Segment]) -> None:
        """Compress the segments that are not compressed yet."""
        new = [segment for segment in segments if segment not in self._pieces]
        for segment, pieces in zip(new, self._pool.map(_compressed, new), strict=True):
            self._pieces[segment] = pieces

    def files(self, segments: Sequence[Segment]) -> tuple[MetadataFile, ...]:
        """The primary, filelists and other files of the packages in these segments."""
        self.compress(segments)
        count = sum(len(segment.keys) for segment in segments)
        opened = [self._pool.submit(_open_hash, kind, count, segments) for kind in range(3)]
        joined = [
            self._pool.submit(_joined, kind, count, [self._pieces[segment][kind] for segment in segments])
            for kind in range(3)
        ]
        files = []
        for kind in range(3):
            open_checksum, open_size = opened[kind].result()
            pieces_of_file, checksum, size = joined[kind].result()
            files.append(MetadataFile(KINDS[kind], pieces_of_file, checksum, size, open_checksum, open_size))
        return tuple(files)


def _compressed(segment: Segment) -> tuple[_Piece, ...]:
    return tuple(_piece(elements) for elements in segment.elements)


def _piece(data: bytes, *, final: bool = False) -> _Piece:
    worker = zlib.compressobj(LEVEL, zlib.DEFLATED, -zlib.MAX_WBITS, zlib.DEF_MEM_LEVEL)
    deflated = worker.compress(data) + worker.flush(zlib.Z_FINISH if final else zlib.Z_FULL_FLUSH)
    return _Piece(deflated, zlib.crc32(data), shift_of(len(data)), len(data))


def _open_hash(kind: int, count: int, segments: Sequence[Segment]) -> tuple[str, int]:
    head = HEADS[kind] % count
    digest = hashlib.sha256(head)
    size = len(head) + len(FEET[kind])
    for segment in segments:
        digest.update(segment.elements[kind])
        size += len(segment.elements[kind])
    digest.update(FEET[kind])
    return digest.hexdigest(), size


def _joined(kind: int, count: int, middle: Sequence[_Piece]) -> tuple[list[bytes], str, int]:
    pieces = [_piece(HEADS[kind] % count), *middle, _piece(FEET[kind], final=True)]
    crc, length = 0, 0
    for piece in pieces:
        crc = multiply(piece.shift, crc) ^ piece.crc
        length += piece.length
    written = [
        GZIP_HEADER,
        *(piece.deflated for piece in pieces),
        struct.pack("<II", crc, length & 0xFFFFFFFF),
    ]
    digest = hashlib.sha256()
    for part in written:
        digest.update(part)
    return written, digest.hexdigest(), sum(map(len, written))


def open_bytes(kind: int, segments: Sequence[Segment]) -> Iterator[bytes]:
    """The open bytes of one metadata file, in parts."""
    yield HEADS[kind] % sum(len(segment.keys) for segment in segments)
    for segment in segments:
        yield segment.elements[kind]
    yield FEET[kind]


def multiply(a: int, b: int) -> int:
    """The product of two polynomials over GF(2) modulo that of CRC-32, bits reversed (bit 31 is 1)."""
    product = 0
    mask = 1 << 31
    while a:
        if a & mask:
            product ^= b
            a ^= mask
        mask >>= 1
        b = (b >> 1) ^ _POLYNOMIAL if b & 1 else b >> 1
    return product


def _squares() -> tuple[int, ...]:
    powers = [1 << 30]  # x, then x^2, x^4, ...
    for _ in range(66):
        powers.append(multiply(powers[-1], powers[-1]))
    return tuple(powers)


_SQUARES = _squares()


def shift_of(length: int) -> int:
    """x^(8 * length): what appending `length` bytes multiplies a CRC-32 by."""
    result, power = 1 << 31, 3
    while length:
        if length & 1:
            result = multiply(_SQUARES[power], result)
        length >>= 1
        power += 1
    return result
