"""How metadata is compressed: in pieces, each on its own, that stand behind one another as one ordinary file.

Every yum server rewrites all metadata for one new package. Here a piece is compressed once, when it
changes, and a publication only hashes and joins. With zstd that is easy: a file is a row of frames (RFC 8878,
section 3), and every reader goes on after the first. With gzip, readers disagree on a second member, so
the pieces have to become one. That they can rests on three facts:

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

import bz2
import gzip
import io
import lzma
import struct
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import zstandard

# No time and no name: the bytes depend on the content alone (RFC 1952: OS 3 is Unix).
GZIP_HEADER = b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\x03"
_GZIP_LEVEL = 6
_ZSTD_LEVEL = 10

_POLYNOMIAL = 0xEDB88320  # of CRC-32, bits reversed


@dataclass(frozen=True, slots=True)
class Piece:
    """Open bytes compressed to stand anywhere in a file."""

    packed: bytes
    length: int  # of the open bytes
    crc: int = 0  # CRC-32 of the open bytes, where the format wants it
    shift: int = 0  # x^(8 * length) modulo the polynomial, likewise


class Format(Protocol):
    """One way to compress. Its bytes are part of what a release publishes."""

    suffix: str

    def compress(self, data: bytes, *, last: bool = False) -> Piece:
        """A piece; the last of a file has to be said so. May be called from any thread."""
        ...

    def join(self, pieces: Sequence[Piece]) -> list[bytes]:
        """The parts of a whole file."""
        ...


class Gzip:
    """One gzip member: what every client since EL6 reads."""

    suffix = "gz"

    def compress(self, data: bytes, *, last: bool = False) -> Piece:
        worker = zlib.compressobj(_GZIP_LEVEL, zlib.DEFLATED, -zlib.MAX_WBITS, zlib.DEF_MEM_LEVEL)
        deflated = worker.compress(data) + worker.flush(zlib.Z_FINISH if last else zlib.Z_FULL_FLUSH)
        return Piece(deflated, len(data), zlib.crc32(data), shift_of(len(data)))

    def join(self, pieces: Sequence[Piece]) -> list[bytes]:
        crc, length = 0, 0
        for piece in pieces:
            crc = multiply(piece.shift, crc) ^ piece.crc
            length += piece.length
        end = struct.pack("<II", crc, length & 0xFFFFFFFF)
        return [GZIP_HEADER, *(piece.packed for piece in pieces), end]


class Zstd:
    """A row of zstd frames: EL 8.4 and later, SLE 15, Fedora."""

    suffix = "zst"

    def compress(self, data: bytes, *, last: bool = False) -> Piece:
        return Piece(zstandard.ZstdCompressor(level=_ZSTD_LEVEL).compress(data), len(data))

    def join(self, pieces: Sequence[Piece]) -> list[bytes]:
        return [piece.packed for piece in pieces]


# By profile: what kind of clients are served.
FORMATS: Mapping[str, Format] = {"compatible": Gzip(), "modern": Zstd()}


def _open_zstd(content: bytes) -> bytes:
    with zstandard.ZstdDecompressor().stream_reader(io.BytesIO(content), read_across_frames=True) as reader:
        return reader.read()


_OPENERS: Mapping[str, Callable[[bytes], bytes]] = {
    "gz": gzip.decompress,
    "zst": _open_zstd,
    "bz2": bz2.decompress,
    "xz": lzma.decompress,
    "xml": bytes,
}


def opened(name: str, content: bytes) -> bytes:
    """The open bytes of a metadata file, made here or by any other tool. Raises ValueError."""
    opener = _OPENERS.get(name.rpartition(".")[2])
    if opener is None:
        raise ValueError(f"{name}: this version can not open files of this kind")
    try:
        return opener(content)
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
