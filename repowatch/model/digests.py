"""Tells whether a file is a whole RPM package, from its bytes seen once and in order.

The formats are rpm's docs/manual/format_v3.md, format_v4.md and format_v6.md; the verdict is that of
`rpmkeys --checksig --nosignature` (lib/rpmvs.cc, lib/header.cc), made stricter by the announced size.
"""

from __future__ import annotations

import hashlib
import io
import struct
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import BinaryIO, NamedTuple, TypeAlias

from repowatch.errors import BadPackage

_CHUNK = 1024 * 1024  # bytes

_LEAD_MAGIC = b"\xed\xab\xee\xdb"
_LEAD = struct.Struct(">4sBB72sH16x")  # magic, major, minor, what rpm does not read, signature type
_LEAD_MAJORS = (3, 4)
_HEADER_STYLE_SIGNATURE = 5

_HEADER_MAGIC = b"\x8e\xad\xe8\x01\0\0\0\0"
_INTRO = struct.Struct(">8sII")  # magic, number of entries, bytes of data
_ENTRY = struct.Struct(">iIiI")  # tag, kind, offset in the data, number of values

_INT32, _INT64, _STRING, _BIN, _STRING_ARRAY, _I18N = 4, 5, 6, 7, 8, 9
_WIDTHS = {1: 1, 2: 1, 3: 2, _INT32: 4, _INT64: 8, _BIN: 1}  # bytes of one value, and its alignment
_TEXTS = (_STRING, _STRING_ARRAY, _I18N)

_HEADER_IMAGE = 61
_FIRST_TAG = 100  # below it are regions
_LONGSIZE, _SIZE = 270, 1000
_LONGEST_DIGEST = 128  # hexadecimal digits of SHA-512

# What may identify a package in metadata: hashlib's names, which are createrepo_c's too.
CHECKSUMS = ("sha256", "sha512")


def checksum_type(pkgid: str) -> str:
    """Which of CHECKSUMS a hexadecimal text is."""
    return "sha512" if len(pkgid) == _LONGEST_DIGEST else "sha256"


@dataclass(frozen=True, slots=True)
class _Limits:
    """What rpm allows for one of the two header structures (hdrblobVerifyLengths, hdrblobVerifyRegion)."""

    name: str
    entries: int
    data_size: int  # bytes
    region: int
    trailers: tuple[int, ...]  # tags that may end the region
    region_is_all: bool


_SIGNATURE = _Limits("signature header", 32, 64 * 1024 * 1024, 62, (62, _HEADER_IMAGE), False)
_HEADER = _Limits("header", 0xFFFF, 0x0FFFFFFF, 63, (63,), True)


@dataclass(frozen=True, slots=True)
class _Digest:
    """A digest that a package can carry; the one of the uncompressed payload stands in for it.

    rpm allows to store the payload either way (getAlt in lib/rpmvs.cc).
    """

    name: str
    algorithm: str
    kind: int
    tag: int
    tag_uncompressed: int | None = None


_PACKAGE_DIGESTS = (_Digest("package digest (MD5)", "md5", _BIN, 1004),)
_HEADER_DIGESTS = (
    _Digest("header digest (SHA-1)", "sha1", _STRING, 269),
    _Digest("header digest (SHA-256)", "sha256", _STRING, 273),
    _Digest("header digest (SHA3-256)", "sha3_256", _STRING, 279),
)
# rpm takes 5092 for SHA-256 whatever 5093, its algorithm, says.
_PAYLOAD_DIGESTS = (
    _Digest("payload digest (SHA-256)", "sha256", _STRING_ARRAY, 5092, 5097),
    _Digest("payload digest (SHA-512)", "sha512", _STRING, 5121, 5122),
    _Digest("payload digest (SHA3-256)", "sha3_256", _STRING, 5123, 5124),
)


@dataclass(frozen=True, slots=True)
class Inspection:
    """A whole package."""

    pkgid: str  # the checksum of the whole file, in hexadecimal
    size: int  # bytes
    head: bytes  # lead, signature header, padding and header: all before the payload
    checksum: str = "sha256"  # which one `pkgid` is, hashlib's name


# Calls each of some functions once, in any order or side by side, and returns when all have returned.
Spread: TypeAlias = Callable[[Sequence[Callable[[], None]]], None]


def in_order(functions: Sequence[Callable[[], None]]) -> None:
    """The plain way to spread."""
    for function in functions:
        function()


class Inspector:
    """Takes the bytes of a file in chunks of any size; keeps the head, and nothing of the payload."""

    def __init__(self, *, size: int | None = None, checksum: str = "sha256") -> None:
        """`size` is that of the file in bytes, where it is known before the file is read; `checksum` is
        the one to take of all bytes, one of CHECKSUMS."""
        self._size = size
        self._checksum = checksum
        self._announced: int | None = None  # bytes of the whole file by its signature header; v6 has none
        self._received = 0
        self._pkgid = _EMPTY[checksum].copy()
        self._head = io.BytesIO()
        self._head_is_read = False
        self._payload_checks: Sequence[_Check] = ()
        self._parts = self._read_head()
        self._head_needed = next(self._parts)

    def feed(self, chunk: bytes | memoryview, *, spread: Spread | None = None) -> None:
        """Take the next bytes. Raises BadPackage as soon as no further ones could make the file whole.

        `spread` may update the digests side by side.
        """
        rest = memoryview(chunk)
        self._received += len(rest)
        updates = [partial(self._pkgid.update, rest)]
        while rest and self._head.tell() < self._head_needed:
            part = rest[: self._head_needed - self._head.tell()]
            self._head.write(part)
            rest = rest[len(part) :]
            if self._head.tell() == self._head_needed:
                self._head_needed = next(self._parts, self._head_needed)
        if self._announced is not None and self._received > self._announced:
            raise _wrong_size(self._received, self._announced)
        updates += [partial(check.hash.update, rest) for check in self._payload_checks]
        (spread or in_order)(updates)

    def finish(self) -> Inspection:
        """The verdict after the last byte. Raises BadPackage with the reason when the file is not whole."""
        if not self._received:
            raise BadPackage("empty file")
        expected = self._size if self._announced is None else self._announced
        if expected is not None and self._received != expected:
            raise _wrong_size(self._received, expected)
        if not self._head_is_read:
            raise BadPackage(f"truncated: the file ends before its payload, after {self._received} bytes")
        for check in self._payload_checks:
            check.verify()
        return Inspection(self._pkgid.hexdigest(), self._received, self._head.getvalue(), self._checksum)

    def _read_head(self) -> Iterator[int]:
        """Read the parts in their order; yields how long the head must be for the next one."""
        yield len(_LEAD_MAGIC)
        if (magic := self._head.getvalue()) != _LEAD_MAGIC:
            raise BadPackage(f"not an RPM package: it begins with {magic!r}")
        yield _LEAD.size
        _check_lead(self._head.getvalue())

        yield _LEAD.size + _INTRO.size
        signature = _read_intro(self._head.getvalue(), _LEAD.size, _SIGNATURE)
        yield signature.end
        tags = _read_tags(self._head.getvalue(), signature)
        header_start = signature.end + -signature.end % 8
        self._announce(tags, header_start)
        package_checks = _checks(tags, _PACKAGE_DIGESTS)
        header_checks = _checks(tags, _HEADER_DIGESTS)

        yield header_start + _INTRO.size
        header = _read_intro(self._head.getvalue(), header_start, _HEADER)
        if self._announced is not None and header.end > self._announced:
            raise header.corrupt("longer than the file")
        yield header.end
        head = self._head.getvalue()
        for check in (*package_checks, *header_checks):
            check.hash.update(memoryview(head)[header_start:])
        for check in header_checks:
            check.verify()
        payload_checks = _checks(_read_tags(head, header), _PAYLOAD_DIGESTS)
        _check_coverage(header=package_checks + header_checks, payload=package_checks + payload_checks)
        self._payload_checks = package_checks + payload_checks
        self._head_is_read = True

    def _announce(self, tags: _Tags, header_start: int) -> None:
        size = tags.number(_LONGSIZE, _INT64)
        if size is None:
            size = tags.number(_SIZE, _INT32)
        if size is None:
            return
        self._announced = header_start + size
        if self._size is not None and self._size != self._announced:
            raise _wrong_size(self._size, self._announced)


def inspect(stream: BinaryIO, *, size: int, checksum: str = "sha256") -> Inspection:
    """Read a file of `size` bytes from its start. Raises BadPackage when it is not a whole package.

    When it announces another size, it is not read beyond the chunk that tells so.
    """
    inspector = Inspector(size=size, checksum=checksum)
    remaining = size
    while remaining and (chunk := stream.read(min(_CHUNK, remaining))):
        inspector.feed(chunk)
        remaining -= len(chunk)
    return inspector.finish()


def _wrong_size(actual: int, announced: int) -> BadPackage:
    if actual < announced:
        return BadPackage(f"truncated: {actual} of {announced} bytes")
    return BadPackage(f"too long: {actual} bytes where {announced} are announced")


def _check_lead(head: bytes) -> None:
    _, major, minor, _, signature_type = _LEAD.unpack(head)
    if major not in _LEAD_MAJORS or signature_type != _HEADER_STYLE_SIGNATURE:
        raise BadPackage(f"not an RPM package of a known version: {major}.{minor}, type {signature_type}")


@dataclass(frozen=True, slots=True)
class _Structure:
    """Where a header structure lies in the file: an intro, an index of entries, and their data."""

    limits: _Limits
    index: int
    data: int
    end: int

    def corrupt(self, reason: str) -> BadPackage:
        return BadPackage(f"corrupt {self.limits.name}: {reason}")


def _read_intro(head: bytes, start: int, limits: _Limits) -> _Structure:
    magic, entries, data_size = _INTRO.unpack_from(head, start)
    index = start + _INTRO.size
    data = index + entries * _ENTRY.size
    structure = _Structure(limits, index, data, data + data_size)
    if magic != _HEADER_MAGIC:
        raise structure.corrupt("it does not begin as one")
    if not 0 < entries <= limits.entries or data_size > limits.data_size:
        raise structure.corrupt(f"{entries} entries with {data_size} bytes are not possible")
    return structure


class _Entry(NamedTuple):
    tag: int
    kind: int
    offset: int  # in the data
    values: int


@dataclass(frozen=True, slots=True)
class _Tags:
    """The entries of a header structure by tag."""

    head: bytes
    structure: _Structure
    entries: Mapping[int, tuple[int, ...]]

    def number(self, tag: int, kind: int) -> int | None:
        entry = self._entry(tag, kind)
        return None if entry is None else int.from_bytes(self._bytes(entry, _WIDTHS[kind]), "big")

    def hexadecimal(self, tag: int | None, kind: int) -> str | None:
        entry = self._entry(tag, kind)
        if entry is None:
            return None
        if kind == _BIN:
            return self._bytes(entry, min(entry.values, _LONGEST_DIGEST)).hex()
        text = self._bytes(entry, _LONGEST_DIGEST + 1).partition(b"\0")[0]
        return text.decode("ascii", "replace").lower()

    def _entry(self, tag: int | None, kind: int) -> _Entry | None:
        found = None if tag is None else self.entries.get(tag)
        entry = _Entry._make(found) if found else None
        if entry and (entry.kind != kind or (kind != _BIN and entry.values != 1)):
            raise self.structure.corrupt(f"tag {tag} has {entry.values} values of type {entry.kind}")
        return entry

    def _bytes(self, entry: _Entry, size: int) -> bytes:
        start = self.structure.data + entry.offset
        return self.head[start : start + size]


def _read_tags(head: bytes, structure: _Structure) -> _Tags:
    """The first entry of each tag. Raises BadPackage unless all lie within the data, in order and apart.

    A header has some 60 entries, and a repository thousands of headers: nothing here is called for each.
    """
    entries = list(_ENTRY.iter_unpack(memoryview(head)[structure.index : structure.data]))
    trailer = data_size = structure.end - structure.data
    if entries[0][0] == structure.limits.region:
        region = _Entry._make(entries.pop(0))
        _check_region(head, structure, region)
        trailer = region.offset
    start = structure.data
    following = [offset for _, _, offset, _ in entries[1:]] + [data_size]
    for (tag, kind, offset, values), next_offset in zip(entries, following, strict=False):
        end = next_offset
        if offset < trailer + _ENTRY.size and end > trailer:
            end = trailer
        # Each byte of the data is looked at once at most.
        if kind in _TEXTS:
            fits = head.count(0, start + offset, start + end) >= values and (kind != _STRING or values == 1)
        else:
            width = _WIDTHS.get(kind)
            fits = width is not None and offset % width == 0 and offset + width * values <= end
        if tag < _FIRST_TAG or offset < 0 or values == 0 or not fits:
            raise structure.corrupt(f"tag {tag} is not possible there")
    return _Tags(head, structure, {entry[0]: entry for entry in reversed(entries)})


def _check_region(head: bytes, structure: _Structure, entry: _Entry) -> None:
    trailer_start = structure.data + entry.offset
    trailer_end = trailer_start + _ENTRY.size
    if not structure.data <= trailer_start or trailer_end > structure.end:
        raise structure.corrupt("its region ends outside of it")
    trailer = _Entry._make(_ENTRY.unpack_from(head, trailer_start))
    if not (entry.kind == trailer.kind == _BIN and entry.values == trailer.values == _ENTRY.size):
        raise structure.corrupt("its region is not one")
    if trailer.tag not in structure.limits.trailers or trailer.offset % _ENTRY.size:
        raise structure.corrupt("its region has no end")
    index_size = structure.data - structure.index
    is_all = (-trailer.offset, trailer_end) == (index_size, structure.end)
    if not (is_all if structure.limits.region_is_all else 0 <= -trailer.offset <= index_size):
        raise structure.corrupt("its region is not as large as its index")


@dataclass(frozen=True, slots=True)
class _Check:
    """A digest that the package carries, and the hash that has to come to it."""

    name: str
    wanted: tuple[str, ...]  # any of them, in hexadecimal
    hash: hashlib._Hash

    def verify(self) -> None:
        if self.hash.hexdigest() not in self.wanted:
            raise BadPackage(f"{self.name} does not match: the file is corrupt")


def _checks(tags: _Tags, digests: Sequence[_Digest]) -> tuple[_Check, ...]:
    checks = []
    for digest in digests:
        wanted = tags.hexadecimal(digest.tag, digest.kind)
        other = tags.hexadecimal(digest.tag_uncompressed, digest.kind)
        if values := tuple(value for value in (wanted, other) if value is not None):
            checks.append(_Check(digest.name, values, _EMPTY[digest.algorithm].copy()))
    return tuple(checks)


# To be copied: that is ten times as fast as to look an algorithm up.
_EMPTY = {
    algorithm: hashlib.new(algorithm, usedforsecurity=False)
    for algorithm in (
        *CHECKSUMS,
        *(digest.algorithm for digest in (*_PACKAGE_DIGESTS, *_HEADER_DIGESTS, *_PAYLOAD_DIGESTS)),
    )
}


def _check_coverage(*, header: Sequence[_Check], payload: Sequence[_Check]) -> None:
    missing = [name for name, checks in (("header", header), ("payload", payload)) if not checks]
    if missing:
        raise BadPackage(f"carries no digest of its {' and '.join(missing)}, so it can not be checked")
