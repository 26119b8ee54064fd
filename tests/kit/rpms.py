"""Makes real, installable RPM packages in a millisecond, without rpmbuild, and damages them on demand.

The formats are rpm's docs/manual/format_v3.md, format_v4.md and format_v6.md; the numbers come from its
include/rpm/rpmtag.h.
"""

from __future__ import annotations

import bz2
import gzip
import hashlib
import lzma
import struct
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from enum import Enum, IntEnum
from pathlib import Path
from typing import NamedTuple


class Kind(IntEnum):
    """The types a tag's data can have."""

    INT16 = 3
    INT32 = 4
    INT64 = 5
    STRING = 6
    BIN = 7
    STRING_ARRAY = 8
    I18N = 9


class Field(NamedTuple):
    """A tag's data: bytes for BIN, else a sequence of numbers or of texts."""

    kind: Kind
    value: bytes | Sequence[int] | Sequence[str | bytes]


class Sig(Enum):
    """Tags of the signature header. Their numbers mean something else in the header."""

    SHA1 = 269
    LONGSIZE = 270
    SHA256 = 273
    SHA3_256 = 279
    RESERVED = 999
    SIZE = 1000
    MD5 = 1004
    PAYLOADSIZE = 1007
    RESERVEDSPACE = 1008


class Tag(Enum):
    """Tags of the header that depend on the payload."""

    PAYLOADSHA256 = 5092
    PAYLOADSHA256ALGO = 5093
    PAYLOADSHA256ALT = 5097
    PAYLOADSIZE = 5112
    PAYLOADSIZEALT = 5113
    PAYLOADSHA512 = 5121
    PAYLOADSHA512ALT = 5122
    PAYLOADSHA3_256 = 5123
    PAYLOADSHA3_256ALT = 5124


WRITTEN: Mapping[int, frozenset[Sig | Tag]] = {
    3: frozenset({Sig.SIZE, Sig.MD5, Sig.PAYLOADSIZE}),
    4: frozenset(
        {Sig.SHA1, Sig.SHA256, Sig.SIZE, Sig.MD5, Sig.PAYLOADSIZE, Sig.RESERVEDSPACE}
        | {Tag.PAYLOADSHA256, Tag.PAYLOADSHA256ALGO, Tag.PAYLOADSHA256ALT}
    ),
    6: frozenset({Sig.SHA256, Sig.SHA3_256, Sig.RESERVED, *Tag}),
}

COMPRESSORS: Mapping[str, Callable[[bytes], bytes]] = {
    "gzip": lambda data: gzip.compress(data, compresslevel=1, mtime=0),
    "bzip2": bz2.compress,
    "xz": lzma.compress,
    "none": bytes,
}

BUILD_TIME = 1_700_000_000
LESS, GREATER, EQUAL, RPMLIB = 1 << 1, 1 << 2, 1 << 3, 1 << 24
SHA256_ALGORITHM = 8  # RFC 4880, 9.4
REGION_SIGNATURE, REGION_HEADER = 62, 63


def make_rpm(
    directory: Path,
    name: str = "hello",
    version: str = "1.0",
    release: str = "1",
    *,
    epoch: int | None = None,
    arch: str = "noarch",
    files: Mapping[str, bytes] | None = None,
    requires: Iterable[str] = (),
    provides: Iterable[str] = (),
    conflicts: Iterable[str] = (),
    obsoletes: Iterable[str] = (),
    changelog: Sequence[tuple[int, str, str]] = (),
    summary: str | bytes = "A package made by a test",
    description: str | bytes = "It exists to be listed.",
    license: str = "MIT",
    source: bool = False,
    format: int = 4,
    payload: str = "gzip",
    include: Collection[Sig | Tag] = (),
    omit: Collection[Sig | Tag] = (),
    falsify: Collection[Sig | Tag] = (),
    header_tags: dict[int, Field] | None = None,
    signature_tags: dict[int, Field] | None = None,
    build_time: int = BUILD_TIME,
    filename: str | None = None,
) -> Path:
    """Write a package into `directory`, which is made when missing, and return its path.

    `files` maps absolute paths (plain names in a source package) to content; one ending in "/" is a
    directory; by default there is one document. Dependencies are written as in a spec file. A changelog
    entry is (seconds since 1970, author, text). `format` is 3, 4 or 6. The sizes and digests it carries are
    WRITTEN[format], from which `omit` takes and to which `include` adds; those in `falsify` are wrong, with
    everything around them right. `header_tags` are added to the header, or replace what is there;
    likewise `signature_tags`.
    Equal arguments make equal bytes.
    """
    if files is None:
        files = {"hello.spec": b"# spec\n"} if source else {f"/usr/share/doc/{name}/README": b"hello\n"}
    evr = f"{version}-{release}" if epoch is None else f"{epoch}:{version}-{release}"
    archive = _cpio(files, stripped=format == 6, prefix="" if source else ".", mtime=build_time)
    body = COMPRESSORS[payload](archive)
    chosen = (WRITTEN[format] - set(omit)) | set(include)

    numbered = _identity(name, version, release, epoch=epoch, arch=arch, source=source)
    numbered |= _texts(summary, description, license) | _build(build_time, payload=payload)
    numbered |= _dependencies(1049, 1048, 1050, [*requires, *_rpmlib(format)])
    numbered |= _dependencies(1047, 1112, 1113, provides if source else [f"{name} = {evr}", *provides])
    numbered |= _dependencies(1054, 1053, 1055, conflicts)
    numbered |= _dependencies(1090, 1114, 1115, obsoletes)
    numbered |= _changelog(changelog)
    numbered |= _files(files, format=format, mtime=build_time)
    if format == 6:
        numbered |= {5114: Field(Kind.INT32, [6]), 5120: Field(Kind.STRING, [f"{name}-{evr}"])}
    numbered |= _numbered(_payload_fields(archive, body), chosen, falsify) | (header_tags or {})

    header = encode_header(numbered, region=None if format == 3 else REGION_HEADER)
    signature = encode_header(
        _numbered(_signature_fields(header, body, len(archive)), chosen, falsify) | (signature_tags or {}),
        region=None if format == 3 else REGION_SIGNATURE,
    )
    directory.mkdir(parents=True, exist_ok=True)
    path = directory / (filename or f"{name}-{version}-{release}.{'src' if source else arch}.rpm")
    lead = _lead(f"{name}-{version}-{release}", source=source, major=4 if format == 6 else 3)
    path.write_bytes(lead + signature + bytes(-len(signature) % 8) + header + body)
    return path


def encode_header(fields: Mapping[int, Field], *, region: int | None) -> bytes:
    """A header structure: its magic, an index sorted by tag, and the data; with a region around it all."""
    index: list[bytes] = []
    data = bytearray()
    for number, field in sorted(fields.items()):
        alignment = {Kind.INT16: 2, Kind.INT32: 4, Kind.INT64: 8}.get(field.kind, 1)
        data += bytes(-len(data) % alignment)
        index.append(struct.pack(">IIII", number, field.kind, len(data), len(field.value)))
        data += _encode(field)
    if region is not None:
        index.insert(0, struct.pack(">IIII", region, Kind.BIN, len(data), 16))
        data += struct.pack(">IIiI", region, Kind.BIN, -16 * len(index), 16)
    return b"\x8e\xad\xe8\x01" + struct.pack(">III", 0, len(index), len(data)) + b"".join(index) + data


def _encode(field: Field) -> bytes:
    if isinstance(field.value, bytes):
        return field.value
    code = {Kind.INT16: "H", Kind.INT32: "I", Kind.INT64: "Q"}.get(field.kind)
    if code:
        return struct.pack(f">{len(field.value)}{code}", *field.value)
    return b"".join((text.encode() if isinstance(text, str) else bytes(text)) + b"\0" for text in field.value)


def _lead(name: str, *, source: bool, major: int) -> bytes:
    name_field = name.encode()[:65]
    return struct.pack(">4sBBHH66sHH16x", b"\xed\xab\xee\xdb", major, 0, source, 1, name_field, 1, 5)


def _identity(
    name: str, version: str, release: str, *, epoch: int | None, arch: str, source: bool
) -> dict[int, Field]:
    fields = {
        1000: Field(Kind.STRING, [name]),
        1001: Field(Kind.STRING, [version]),
        1002: Field(Kind.STRING, [release]),
        1021: Field(Kind.STRING, ["linux"]),
        1022: Field(Kind.STRING, [arch]),
    }
    if epoch is not None:
        fields[1003] = Field(Kind.INT32, [epoch])
    if source:
        return fields | {1106: Field(Kind.INT32, [1])}
    return fields | {1044: Field(Kind.STRING, [f"{name}-{version}-{release}.src.rpm"])}


def _texts(summary: str | bytes, description: str | bytes, license: str) -> dict[int, Field]:
    return {
        100: Field(Kind.STRING_ARRAY, ["C"]),
        1004: Field(Kind.I18N, [summary]),
        1005: Field(Kind.I18N, [description]),
        1014: Field(Kind.STRING, [license]),
        1016: Field(Kind.I18N, ["Unspecified"]),
        5062: Field(Kind.STRING, ["utf-8"]),
    }


def _build(time: int, *, payload: str) -> dict[int, Field]:
    fields = {
        1006: Field(Kind.INT32, [time]),
        1007: Field(Kind.STRING, ["build.example.org"]),
        1064: Field(Kind.STRING, ["4.18.0"]),
        1124: Field(Kind.STRING, ["cpio"]),
    }
    if payload == "none":
        return fields
    return fields | {1125: Field(Kind.STRING, [payload]), 1126: Field(Kind.STRING, ["9"])}


def _signature_fields(header: bytes, body: bytes, archive_size: int) -> dict[Sig, Field]:
    size = len(header) + len(body)
    return {
        Sig.SHA1: Field(Kind.STRING, [hashlib.sha1(header).hexdigest()]),
        Sig.SHA256: Field(Kind.STRING, [hashlib.sha256(header).hexdigest()]),
        Sig.SHA3_256: Field(Kind.STRING, [hashlib.sha3_256(header).hexdigest()]),
        Sig.MD5: Field(Kind.BIN, hashlib.md5(header + body).digest()),
        Sig.SIZE: Field(Kind.INT32, [size]),
        Sig.LONGSIZE: Field(Kind.INT64, [size]),
        Sig.PAYLOADSIZE: Field(Kind.INT32, [archive_size]),
        Sig.RESERVED: Field(Kind.BIN, bytes(32)),
        Sig.RESERVEDSPACE: Field(Kind.BIN, bytes(32)),
    }


def _payload_fields(archive: bytes, body: bytes) -> dict[Tag, Field]:
    return {
        Tag.PAYLOADSHA256: Field(Kind.STRING_ARRAY, [hashlib.sha256(body).hexdigest()]),
        Tag.PAYLOADSHA256ALGO: Field(Kind.INT32, [SHA256_ALGORITHM]),
        Tag.PAYLOADSHA256ALT: Field(Kind.STRING_ARRAY, [hashlib.sha256(archive).hexdigest()]),
        Tag.PAYLOADSIZE: Field(Kind.INT64, [len(body)]),
        Tag.PAYLOADSIZEALT: Field(Kind.INT64, [len(archive)]),
        Tag.PAYLOADSHA512: Field(Kind.STRING, [hashlib.sha512(body).hexdigest()]),
        Tag.PAYLOADSHA512ALT: Field(Kind.STRING, [hashlib.sha512(archive).hexdigest()]),
        Tag.PAYLOADSHA3_256: Field(Kind.STRING, [hashlib.sha3_256(body).hexdigest()]),
        Tag.PAYLOADSHA3_256ALT: Field(Kind.STRING, [hashlib.sha3_256(archive).hexdigest()]),
    }


def _numbered(
    fields: Mapping[Sig, Field] | Mapping[Tag, Field],
    chosen: Collection[Sig | Tag],
    falsify: Collection[Sig | Tag],
) -> dict[int, Field]:
    return {
        tag.value: _falsified(field) if tag in falsify else field
        for tag, field in fields.items()
        if tag in chosen
    }


def _falsified(field: Field) -> Field:
    """The field with its first number one larger, or its first character another one."""
    value = field.value
    if isinstance(value, bytes):
        return Field(field.kind, bytes([value[0] ^ 1]) + value[1:])
    first = value[0]
    if isinstance(first, int):
        return Field(field.kind, [first + 1])
    return Field(field.kind, [("1" if first[0] == "0" else "0") + str(first[1:])])


def _rpmlib(format: int) -> list[str]:
    features = ["rpmlib(PayloadFilesHavePrefix) <= 4.0-1"]
    if format >= 4:
        features += ["rpmlib(CompressedFileNames) <= 3.0.4-1", "rpmlib(FileDigests) <= 4.6.0-1"]
    if format == 6:
        features += ["rpmlib(LargeFiles) <= 4.12.0-1"]
    return features


def _dependencies(names: int, flags: int, versions: int, written: Iterable[str]) -> dict[int, Field]:
    parsed = sorted(map(_dependency, written))
    if not parsed:
        return {}
    return {
        names: Field(Kind.STRING_ARRAY, [name for name, _, _ in parsed]),
        flags: Field(Kind.INT32, [flag for _, flag, _ in parsed]),
        versions: Field(Kind.STRING_ARRAY, [version for _, _, version in parsed]),
    }


def _dependency(written: str) -> tuple[str, int, str]:
    """Name, flags and version of "name", "name >= version" or "(this or that)"."""
    if written.startswith("(") or " " not in written:
        return written, 0, ""
    name, operator, version = written.split()
    flags = sum({"<": LESS, ">": GREATER, "=": EQUAL}[character] for character in operator)
    return name, flags | (RPMLIB if name.startswith("rpmlib(") else 0), version


def _changelog(entries: Sequence[tuple[int, str, str]]) -> dict[int, Field]:
    if not entries:
        return {}
    times, authors, texts = zip(*entries, strict=True)
    return {
        1080: Field(Kind.INT32, times),
        1081: Field(Kind.STRING_ARRAY, authors),
        1082: Field(Kind.STRING_ARRAY, texts),
    }


def _mode(path: str) -> int:
    return 0o040755 if path.endswith("/") else 0o100644


def _files(files: Mapping[str, bytes], *, format: int, mtime: int) -> dict[int, Field]:
    total = {1009: Field(Kind.INT32, [sum(map(len, files.values()))])}
    if not files:
        return total
    paths = sorted(files)
    count = len(paths)
    digest = hashlib.md5 if format == 3 else hashlib.sha256
    sizes = Field(Kind.INT64 if format == 6 else Kind.INT32, [len(files[path]) for path in paths])
    return (
        _paths([path.rstrip("/") for path in paths], format=format)
        | {
            5008 if format == 6 else 1028: sizes,
            1030: Field(Kind.INT16, [_mode(path) for path in paths]),
            1033: Field(Kind.INT16, [0] * count),
            1034: Field(Kind.INT32, [mtime] * count),
            1035: Field(
                Kind.STRING_ARRAY,
                ["" if path.endswith("/") else digest(files[path]).hexdigest() for path in paths],
            ),
            1036: Field(Kind.STRING_ARRAY, [""] * count),
            1037: Field(Kind.INT32, [0] * count),
            1039: Field(Kind.STRING_ARRAY, ["root"] * count),
            1040: Field(Kind.STRING_ARRAY, ["root"] * count),
            1045: Field(Kind.INT32, [0xFFFFFFFF] * count),
            1095: Field(Kind.INT32, [1] * count),
            1096: Field(Kind.INT32, range(1, count + 1)),
            1097: Field(Kind.STRING_ARRAY, [""] * count),
        }
        | ({} if format == 3 else {5011: Field(Kind.INT32, [SHA256_ALGORITHM])})
    )


def _paths(paths: Sequence[str], *, format: int) -> dict[int, Field]:
    if format == 3:
        return {1027: Field(Kind.STRING_ARRAY, paths)}
    split = [path.rpartition("/") for path in paths]
    directories = list(dict.fromkeys(head + slash for head, slash, _ in split))
    return {
        1116: Field(Kind.INT32, [directories.index(head + slash) for head, slash, _ in split]),
        1117: Field(Kind.STRING_ARRAY, [basename for _, _, basename in split]),
        1118: Field(Kind.STRING_ARRAY, directories),
    }


def _cpio(files: Mapping[str, bytes], *, stripped: bool, prefix: str, mtime: int) -> bytes:
    """A cpio archive as "newc", or as rpm's own "07070X", which names files by their number in the header."""
    archive = bytearray()
    for number, path in enumerate(sorted(files)):
        content = files[path]
        if stripped:
            archive += b"07070X%08x" % number
        else:
            name = prefix + path.rstrip("/")
            archive += _newc(name, inode=number + 1, mode=_mode(path), mtime=mtime, size=len(content))
        archive += bytes(-len(archive) % 4) + content
        archive += bytes(-len(archive) % 4)
    archive += _newc("TRAILER!!!", inode=0, mode=0, mtime=0, size=0)
    return bytes(archive + bytes(-len(archive) % 4))


def _newc(name: str, *, inode: int, mode: int, mtime: int, size: int) -> bytes:
    encoded = name.encode() + b"\0"
    numbers = (inode, mode, 0, 0, 1, mtime, size, 0, 0, 0, 0, len(encoded), 0)
    return b"070701" + b"".join(b"%08x" % number for number in numbers) + encoded


class Layout(NamedTuple):
    """Where the parts of a package begin; each part ends where the next one begins."""

    signature: int
    header: int
    payload: int
    end: int


def layout(path: Path) -> Layout:
    """The offsets of the parts of a whole package."""
    content = path.read_bytes()
    signature = 96
    header = _end_of_header(content, signature)
    header += -header % 8
    return Layout(signature, header, _end_of_header(content, header), len(content))


def _end_of_header(content: bytes, start: int) -> int:
    entries, data = struct.unpack_from(">II", content, start + 8)
    return int(start + 16 + 16 * entries + data)


def truncate(path: Path, *, size: int) -> None:
    """Cut the file to its first `size` bytes."""
    path.write_bytes(path.read_bytes()[:size])


def flip_byte(path: Path, *, offset: int, mask: int = 0xFF) -> None:
    """Change the bits of `mask` in one byte of the file; a second time changes them back."""
    content = bytearray(path.read_bytes())
    content[offset] ^= mask
    path.write_bytes(content)


def append(path: Path, *, data: bytes) -> None:
    """Write `data` behind the end of the file."""
    path.write_bytes(path.read_bytes() + data)


def edit_header(path: Path, edit: Callable[[bytearray], None]) -> None:
    """Apply `edit` to the header and sign the package anew, so that size and digests (of v4) are right."""
    content, parts = path.read_bytes(), layout(path)
    header, body = bytearray(content[parts.header : parts.payload]), content[parts.payload :]
    edit(header)
    signature = encode_header(
        _numbered(_signature_fields(bytes(header), body, len(body)), WRITTEN[4], ()), region=REGION_SIGNATURE
    )
    path.write_bytes(content[: parts.signature] + signature + bytes(-len(signature) % 8) + header + body)
