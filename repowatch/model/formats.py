"""How metadata is compressed: in pieces, each on its own, that stand behind one another as one ordinary file.

A piece is compressed once, when it changes; a publication only hashes and joins. docs/metadata.md explains
the trick from the ground. In short: with zstd a file is a row of frames (RFC 8878, section 3), and every
reader goes on after the first. With gzip, readers disagree on a second member, so the pieces have to
become one. That they can rests on three facts:

- A deflate stream (RFC 1951) is a row of blocks. zlib's full flush ends the last block on a byte's
  edge and forgets the window, so that a piece compressed on its own can stand behind any other piece.
- A gzip member (RFC 1952) is a header, one deflate stream, and eight bytes: the CRC-32 and the length of
  the open bytes. So: header, pieces, one last piece that says "final", CRC, length.
- The CRC-32 of joined bytes follows from the CRCs of the parts: appending n bytes to what came before
  multiplies its CRC by x^(8n) modulo the CRC's polynomial, and then the new part's CRC is added.

The checksums that repomd.xml announces are never combined: they are computed from the very bytes that
are written.
"""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import struct
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, lru_cache, partial, reduce
from typing import Any, BinaryIO, Protocol

import zstandard

# No time and no name: the bytes depend on the content alone (RFC 1952: OS 3 is Unix).
GZIP_HEADER = b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\x03"
_GZIP_LEVEL = 5  # 0.8 % larger than with 6, in three quarters of the time
_ZSTD_LEVEL = 10

_POLYNOMIAL = 0xEDB88320  # of CRC-32, bits reversed


@dataclass(frozen=True, slots=True)
class Piece:
    """Open bytes compressed to stand anywhere in a file."""

    packed: bytes
    length: int  # of the open bytes
    crc: int  # CRC-32 of the open bytes


class Format(Protocol):
    """One way to compress. Its bytes are part of what a release publishes."""

    suffix: str
    lead: int  # bytes of a file before its first piece

    def compress(self, data: bytes, *, last: bool = False) -> Piece:
        """A piece; the last of a file has to be said so. May be called from any thread."""
        ...

    def open(self, piece: Piece) -> bytes:
        """The open bytes of a piece. Raises ValueError when it is damaged."""
        ...

    def join(self, pieces: Sequence[Piece]) -> list[bytes]:
        """The parts of a whole file."""
        ...


class Gzip:
    """One gzip member: what every client since EL6 reads."""

    suffix = "gz"
    lead = len(GZIP_HEADER)

    def compress(self, data: bytes, *, last: bool = False) -> Piece:
        worker = zlib.compressobj(_GZIP_LEVEL, zlib.DEFLATED, -zlib.MAX_WBITS, zlib.DEF_MEM_LEVEL)
        deflated = worker.compress(data) + worker.flush(zlib.Z_FINISH if last else zlib.Z_FULL_FLUSH)
        return Piece(deflated, len(data), zlib.crc32(data))

    def open(self, piece: Piece) -> bytes:
        try:
            data = zlib.decompressobj(-zlib.MAX_WBITS).decompress(piece.packed)
        except zlib.error as error:
            raise ValueError(f"a piece is damaged: {error}") from error
        return _checked(data, piece)

    def join(self, pieces: Sequence[Piece]) -> list[bytes]:
        head, *others = [(piece.crc, piece.length) for piece in pieces]  # the head changes with every count
        crc, length = _appended(head, joined_crc(others))
        end = struct.pack("<II", crc, length & 0xFFFFFFFF)
        return [GZIP_HEADER, *(piece.packed for piece in pieces), end]


class Zstd:
    """A row of zstd frames: EL 8.4 and later, SLE 15, Fedora."""

    suffix = "zst"
    lead = 0

    def compress(self, data: bytes, *, last: bool = False) -> Piece:
        packed = zstandard.ZstdCompressor(level=_ZSTD_LEVEL).compress(data)
        return Piece(packed, len(data), zlib.crc32(data))

    def open(self, piece: Piece) -> bytes:
        try:
            data = zstandard.ZstdDecompressor().decompress(piece.packed, max_output_size=piece.length)
        except zstandard.ZstdError as error:
            raise ValueError(f"a piece is damaged: {error}") from error
        return _checked(data, piece)

    def join(self, pieces: Sequence[Piece]) -> list[bytes]:
        return [piece.packed for piece in pieces]


def _checked(data: bytes, piece: Piece) -> bytes:
    if len(data) != piece.length or zlib.crc32(data) != piece.crc:
        raise ValueError("a piece is damaged: its CRC-32 does not match")
    return data


# By profile: what kind of clients are served.
FORMATS: Mapping[str, Format] = {"compatible": Gzip(), "modern": Zstd()}


def _open_zstd(content: bytes) -> Iterator[bytes]:
    """Frame by frame: zstandard's own readers take a frame that ends too early for a whole one."""
    decompressor, at = zstandard.ZstdDecompressor(), 0
    while at < len(content):
        frame = decompressor.decompressobj()
        while not frame.eof:
            if at >= len(content):
                raise EOFError("it ends within a frame")
            yield frame.decompress(content[at : at + _ZSTD_PIECE])
            at = min(at + _ZSTD_PIECE, len(content))
        at -= len(frame.unused_data)


def _read(opener: Callable[[BinaryIO], Any], content: bytes) -> Iterator[bytes]:
    with opener(io.BytesIO(content)) as file:
        while block := file.read(_BLOCK):
            yield block


_BLOCK = 1 << 20
_ZSTD_PIECE = 1 << 10  # bytes; they open to 32 MiB at most
_OPENERS: Mapping[str, Callable[[bytes], Iterator[bytes]]] = {
    "gz": partial(_read, gzip.open),
    "bz2": partial(_read, bz2.open),
    "xz": partial(_read, lzma.open),
    "zst": _open_zstd,
}


def is_packed(name: str) -> bool:
    """Whether a file of this name is to be opened."""
    return name.rpartition(".")[2] in _OPENERS


def opened(name: str, content: bytes) -> bytes:
    """The open bytes of a metadata file, made here or by any other tool. Raises ValueError."""
    if name.endswith(".xml"):
        return content
    if not is_packed(name):
        raise ValueError(f"{name}: this version can not open files of this kind")
    return b"".join(opening(name, content))


def opening(name: str, content: bytes) -> Iterator[bytes]:
    """The open bytes of a file that `is_packed`, some at a time. Raises ValueError."""
    try:
        yield from _OPENERS[name.rpartition(".")[2]](content)
    except (OSError, EOFError, zlib.error, lzma.LZMAError, zstandard.ZstdError) as error:
        raise ValueError(f"{name} is damaged: {error}") from error


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


# Pieces are joined in groups of about so many, these in groups again, and what came of a group is remembered.
_GROUP = 8
_GROUPS = 1 << 15
_SHIFTS = 1 << 13  # lengths that are remembered: of a group that changed, most parts did not


def joined_crc(parts: Iterable[tuple[int, int]]) -> tuple[int, int]:
    """CRC-32 and length of joined bytes, from those of the parts.

    Where a group ends is told by a CRC, so that nearly all groups are those of the last publication, and a
    new piece costs as many steps as there are levels of groups, times their size.
    """
    joined = list(parts)
    while len(joined) > _GROUP:
        joined = [_joined(group) for group in _grouped(joined)]
    return reduce(_appended, joined, (0, 0))


def _grouped(parts: Iterable[tuple[int, int]]) -> Iterator[tuple[tuple[int, int], ...]]:
    """At least two in each group but the last."""
    group: list[tuple[int, int]] = []
    for part in parts:
        group.append(part)
        if part[0] % _GROUP == 0 and len(group) > 1:
            yield tuple(group)
            group = []
    if group:
        yield tuple(group)


@lru_cache(maxsize=_GROUPS)
def _joined(parts: tuple[tuple[int, int], ...]) -> tuple[int, int]:
    return reduce(_appended, parts)


def _appended(before: tuple[int, int], part: tuple[int, int]) -> tuple[int, int]:
    (crc, length), (part_crc, part_length) = before, part
    return multiply(shift_of(part_length), crc) ^ part_crc, length + part_length


@lru_cache(maxsize=_SHIFTS)
def shift_of(length: int) -> int:
    """x^(8 * length): what appending `length` bytes multiplies a CRC-32 by."""
    result = 1 << 31
    for position, byte in enumerate(length.to_bytes(8, "little")):
        if byte:
            result = multiply(_power(position, byte), result)
    return result


@cache
def _power(position: int, byte: int) -> int:
    """x^(8 * byte * 256^position)."""
    result, square = 1 << 31, _SQUARES[3 + 8 * position : 11 + 8 * position]
    for bit in range(8):
        if byte >> bit & 1:
            result = multiply(square[bit], result)
    return result


def _squares() -> tuple[int, ...]:
    powers = [1 << 30]  # x, then x^2, x^4, ...
    for _ in range(66):
        powers.append(multiply(powers[-1], powers[-1]))
    return tuple(powers)


_SQUARES = _squares()
