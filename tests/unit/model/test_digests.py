"""A file is taken for a package when it is whole, and refused with the reason when it is not."""

from __future__ import annotations

import hashlib
import io
import random
import struct
import tracemalloc
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from repowatch.errors import BadPackage
from repowatch.model.digests import Inspection, Inspector, checksum_type, inspect
from tests.kit.rpms import COMPRESSORS, Field, Kind, Sig, Tag, edit_header, flip_byte, layout, make_rpm

FORMATS = (3, 4, 6)


def verdict(content: bytes) -> Inspection:
    return inspect(io.BytesIO(content), size=len(content))


def reason(content: bytes) -> str:
    with pytest.raises(BadPackage) as refusal:
        verdict(content)
    assert "\n" not in str(refusal.value)
    return str(refusal.value)


@pytest.fixture(scope="module")
def packages(tmp_path_factory: pytest.TempPathFactory) -> dict[int, tuple[bytes, int]]:
    """Of each format a package, and where its header begins."""
    directory = tmp_path_factory.mktemp("packages")
    paths = {format: make_rpm(directory, f"format{format}", format=format) for format in FORMATS}
    return {format: (path.read_bytes(), layout(path).header) for format, path in paths.items()}


@pytest.mark.parametrize("payload", COMPRESSORS)
@pytest.mark.parametrize("format", FORMATS)
def test_a_whole_package_gives_its_pkgid_size_and_head(tmp_path: Path, format: int, payload: str) -> None:
    path = make_rpm(tmp_path, format=format, payload=payload)
    content = path.read_bytes()
    expected = Inspection(hashlib.sha256(content).hexdigest(), len(content), content[: layout(path).payload])
    assert verdict(content) == expected


def test_the_pkgid_is_of_the_kind_that_is_asked_for(packages: dict[int, tuple[bytes, int]]) -> None:
    content, _ = packages[4]
    found = inspect(io.BytesIO(content), size=len(content), checksum="sha512")
    assert (found.checksum, found.pkgid) == ("sha512", hashlib.sha512(content).hexdigest())
    assert [checksum_type(each.pkgid) for each in (verdict(content), found)] == ["sha256", "sha512"]


def test_a_source_package_is_whole(tmp_path: Path) -> None:
    assert verdict(make_rpm(tmp_path, source=True).read_bytes())


@pytest.mark.parametrize("format", FORMATS)
def test_byte_after_byte_gives_the_same_as_all_at_once(
    packages: dict[int, tuple[bytes, int]], format: int
) -> None:
    content, _ = packages[format]
    inspector = Inspector()
    for position in range(len(content)):
        inspector.feed(memoryview(content)[position : position + 1])
    assert inspector.finish() == verdict(content)


@settings(max_examples=30)
@given(data=st.data(), format=st.sampled_from(FORMATS))
def test_chunks_of_any_size_give_the_same_as_all_at_once(
    packages: dict[int, tuple[bytes, int]], data: st.DataObject, format: int
) -> None:
    content, _ = packages[format]
    cuts = sorted(data.draw(st.sets(st.integers(0, len(content)), max_size=12)))
    inspector = Inspector(size=len(content))
    for start, end in zip([0, *cuts], [*cuts, len(content)], strict=True):
        inspector.feed(content[start:end])
    assert inspector.finish() == verdict(content)


@settings(max_examples=150)
@given(data=st.data(), format=st.sampled_from(FORMATS), mask=st.integers(1, 255))
def test_any_changed_byte_of_header_or_payload_is_refused(
    packages: dict[int, tuple[bytes, int]], data: st.DataObject, format: int, mask: int
) -> None:
    content, header = packages[format]
    changed = bytearray(content)
    changed[data.draw(st.integers(header, len(content) - 1))] ^= mask
    reason(bytes(changed))


@settings(max_examples=150)
@given(data=st.data(), format=st.sampled_from(FORMATS), mask=st.integers(1, 255))
def test_a_changed_byte_before_the_header_is_refused_or_changes_nothing_that_counts(
    packages: dict[int, tuple[bytes, int]], data: st.DataObject, format: int, mask: int
) -> None:
    content, header = packages[format]
    changed = bytearray(content)
    changed[data.draw(st.integers(0, header - 1))] ^= mask
    try:
        inspection = verdict(bytes(changed))
    except BadPackage:
        return
    assert inspection.head[header:] == verdict(content).head[header:]


@settings(max_examples=100)
@given(data=st.data(), format=st.sampled_from(FORMATS))
def test_every_beginning_of_a_package_is_refused(
    packages: dict[int, tuple[bytes, int]], data: st.DataObject, format: int
) -> None:
    content, _ = packages[format]
    reason(content[: data.draw(st.integers(0, len(content) - 1))])


def test_a_truncated_payload_is_refused_with_both_sizes(tmp_path: Path) -> None:
    content = make_rpm(tmp_path).read_bytes()
    assert reason(content[:-7]) == f"truncated: {len(content) - 7} of {len(content)} bytes"


def test_a_stream_that_ends_early_is_refused_with_both_sizes(tmp_path: Path) -> None:
    content = make_rpm(tmp_path).read_bytes()
    inspector = Inspector()
    inspector.feed(content[:-7])
    with pytest.raises(BadPackage, match=f"^truncated: {len(content) - 7} of {len(content)} bytes$"):
        inspector.finish()


def test_a_v6_package_that_announces_no_size_is_refused_when_the_stream_ends_early(tmp_path: Path) -> None:
    content = make_rpm(tmp_path, format=6).read_bytes()
    with pytest.raises(BadPackage, match=f"^truncated: {len(content) - 1} of {len(content)} bytes$"):
        inspect(io.BytesIO(content[:-1]), size=len(content))
    assert "does not match" in reason(content[:-1])


def test_a_file_that_ends_within_its_head_is_refused_as_truncated(tmp_path: Path) -> None:
    content = make_rpm(tmp_path).read_bytes()
    assert reason(content[:150]) == "truncated: the file ends before its payload, after 150 bytes"


def test_bytes_behind_the_end_are_refused_with_both_sizes(tmp_path: Path) -> None:
    content = make_rpm(tmp_path).read_bytes()
    assert reason(content + b"!") == (
        f"too long: {len(content) + 1} bytes where {len(content)} are announced"
    )


def test_a_stream_is_refused_at_the_first_byte_too_many(tmp_path: Path) -> None:
    inspector = Inspector()
    inspector.feed(make_rpm(tmp_path).read_bytes())
    with pytest.raises(BadPackage, match="too long"):
        inspector.feed(b"!")


def test_an_empty_file_is_refused_as_empty() -> None:
    assert reason(b"") == "empty file"


def test_an_error_page_is_refused_at_its_first_bytes() -> None:
    with pytest.raises(BadPackage, match=r"^not an RPM package: it begins with b'<htm'$"):
        Inspector().feed(b"<html>404")


@pytest.mark.parametrize("position", [4, 78, 79])
def test_a_lead_of_an_unknown_version_is_refused(tmp_path: Path, position: int) -> None:
    path = make_rpm(tmp_path)
    flip_byte(path, offset=position)
    assert reason(path.read_bytes()).startswith("not an RPM package of a known version")


@pytest.mark.parametrize(
    ("format", "tag", "named"),
    [
        (3, Sig.MD5, "package digest (MD5)"),
        (4, Sig.MD5, "package digest (MD5)"),
        (4, Sig.SHA1, "header digest (SHA-1)"),
        (4, Sig.SHA256, "header digest (SHA-256)"),
        (4, Tag.PAYLOADSHA256, "payload digest (SHA-256)"),
        (6, Sig.SHA256, "header digest (SHA-256)"),
        (6, Sig.SHA3_256, "header digest (SHA3-256)"),
        (6, Tag.PAYLOADSHA256, "payload digest (SHA-256)"),
        (6, Tag.PAYLOADSHA512, "payload digest (SHA-512)"),
        (6, Tag.PAYLOADSHA3_256, "payload digest (SHA3-256)"),
    ],
)
def test_a_digest_that_does_not_match_is_named(
    tmp_path: Path, format: int, tag: Sig | Tag, named: str
) -> None:
    path = make_rpm(tmp_path, format=format, falsify=[tag])
    assert reason(path.read_bytes()) == f"{named} does not match: the file is corrupt"


def test_a_changed_payload_is_told_by_its_digest(tmp_path: Path) -> None:
    path = make_rpm(tmp_path)
    flip_byte(path, offset=layout(path).payload + 20)
    assert "digest" in reason(path.read_bytes())


def test_a_changed_header_is_refused_before_any_payload_is_there(tmp_path: Path) -> None:
    path = make_rpm(tmp_path)
    parts = layout(path)
    flip_byte(path, offset=parts.payload - 30)
    with pytest.raises(BadPackage, match=r"^header digest \(SHA-1\) does not match"):
        Inspector().feed(path.read_bytes()[: parts.payload])


@pytest.mark.parametrize(
    ("omit", "missing"),
    [
        ([Sig.MD5, Tag.PAYLOADSHA256, Tag.PAYLOADSHA256ALT], "payload"),
        ([Sig.MD5, Sig.SHA1, Sig.SHA256], "header"),
        ([Sig.MD5, Sig.SHA1, Sig.SHA256, Tag.PAYLOADSHA256, Tag.PAYLOADSHA256ALT], "header and payload"),
    ],
)
def test_a_package_without_the_digests_to_check_it_is_refused(
    tmp_path: Path, omit: list[Sig | Tag], missing: str
) -> None:
    path = make_rpm(tmp_path, omit=omit)
    assert reason(path.read_bytes()) == f"carries no digest of its {missing}, so it can not be checked"


@pytest.mark.parametrize(
    "omit",
    [
        [Sig.MD5],
        [Sig.SHA1, Sig.SHA256],
        [Tag.PAYLOADSHA256, Tag.PAYLOADSHA256ALT],
        [Sig.MD5, Sig.SHA1],
        [Sig.SIZE],
    ],
)
def test_one_digest_of_header_and_one_of_payload_are_enough(tmp_path: Path, omit: list[Sig | Tag]) -> None:
    assert verdict(make_rpm(tmp_path, omit=omit).read_bytes())


def test_the_digest_of_the_uncompressed_payload_does_when_the_payload_is_stored_so(tmp_path: Path) -> None:
    assert verdict(make_rpm(tmp_path, payload="none", falsify=[Tag.PAYLOADSHA256]).read_bytes())
    compressed = make_rpm(tmp_path, payload="gzip", omit=[Tag.PAYLOADSHA256])
    assert reason(compressed.read_bytes()).startswith("payload digest (SHA-256) does not match")


@pytest.mark.parametrize("size_tag", [Sig.SIZE, Sig.LONGSIZE])
def test_a_wrong_size_is_refused_though_all_digests_match(tmp_path: Path, size_tag: Sig) -> None:
    path = make_rpm(tmp_path, omit=[Sig.SIZE], include=[size_tag], falsify=[size_tag])
    assert reason(path.read_bytes()).startswith("truncated: ")


def test_a_growing_file_is_read_no_further_than_its_first_chunk(tmp_path: Path) -> None:
    noise = random.Random(0).randbytes(3 * 1024 * 1024)
    content = make_rpm(tmp_path, files={"/usr/share/noise": noise}).read_bytes()
    stream = io.BytesIO(content[:-1])
    with pytest.raises(BadPackage, match="truncated"):
        inspect(stream, size=len(content) - 1)
    assert stream.tell() <= 1024 * 1024


def test_an_upload_of_the_wrong_length_is_refused_with_the_signature_header(tmp_path: Path) -> None:
    path = make_rpm(tmp_path)
    size = layout(path).end
    with pytest.raises(BadPackage, match=f"^truncated: {size - 1} of {size} bytes$"):
        Inspector(size=size - 1).feed(path.read_bytes()[: layout(path).header])


def test_a_refused_file_stays_refused(tmp_path: Path) -> None:
    content = make_rpm(tmp_path, falsify=[Sig.SHA256]).read_bytes()
    inspector = Inspector()
    with pytest.raises(BadPackage):
        inspector.feed(content[:-1])
    inspector.feed(content[-1:])
    with pytest.raises(BadPackage):
        inspector.finish()


def test_a_header_that_claims_to_be_huge_costs_no_memory() -> None:
    lead = b"\xed\xab\xee\xdb\x03\0" + bytes(72) + b"\0\5" + bytes(16)
    intro = b"\x8e\xad\xe8\x01" + struct.pack(">III", 0, 32, 64 * 1024 * 1024)
    tracemalloc.start()
    try:
        Inspector().feed(lead + intro)
        assert tracemalloc.get_traced_memory()[1] < 100_000
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(("entries", "size"), [(33, 16), (0, 16), (1, 64 * 1024 * 1024 + 1), (2**32 - 1, 16)])
def test_a_signature_header_beyond_the_limits_is_refused_with_its_intro(entries: int, size: int) -> None:
    lead = b"\xed\xab\xee\xdb\x03\0" + bytes(72) + b"\0\5" + bytes(16)
    intro = b"\x8e\xad\xe8\x01" + struct.pack(">III", 0, entries, size)
    with pytest.raises(BadPackage, match=r"^corrupt signature header: .* are not possible$"):
        Inspector().feed(lead + intro)


# Fields of an entry of the index, as offset and format; entry -1 is the intro.
TAG, KIND, OFFSET, VALUES = (0, ">i"), (4, ">I"), (8, ">i"), (12, ">I")


@pytest.mark.parametrize(
    ("entry", "field", "value"),
    [
        (-1, OFFSET, 0xFFFF),  # the number of entries
        (-1, VALUES, 0x0FFFFFFF),  # the bytes of data
        (-1, TAG, 0),
        (0, KIND, 8),
        (0, OFFSET, 0),
        (0, OFFSET, 2**31 - 1),
        (0, OFFSET, -1),
        (1, OFFSET, -1),
        (5, TAG, 63),
        (5, TAG, -5),
        (5, KIND, 0),
        (5, KIND, 10),
        (5, OFFSET, -1),
        (5, OFFSET, 2**31 - 1),
        (5, OFFSET, 3),
        (5, VALUES, 0),
        (5, VALUES, 100_000),
        (5, VALUES, 2**32 - 1),
    ],
)
def test_a_nonsense_header_is_refused_though_all_digests_match(
    tmp_path: Path, entry: int, field: tuple[int, str], value: int
) -> None:
    path = make_rpm(tmp_path)
    position, format = field
    edit_header(path, lambda header: struct.pack_into(format, header, 16 + 16 * entry + position, value))
    assert reason(path.read_bytes()).startswith("corrupt header: ")


# A number behind a text that leaves one byte of padding, and bytes at the end of the data.
ODD_TAGS = {
    2_000_001: Field(Kind.INT32, [1]),
    2_000_002: Field(Kind.STRING, ["12"]),
    2_000_003: Field(Kind.INT32, [2]),
    2_000_004: Field(Kind.BIN, b"1234"),
}


@pytest.mark.parametrize(
    ("entry", "field", "difference"), [(-2, OFFSET, -1), (-1, VALUES, 1), (None, OFFSET, 16)]
)
def test_an_index_that_is_a_little_off_is_refused(
    tmp_path: Path, entry: int | None, field: tuple[int, str], difference: int
) -> None:
    """A number that is not aligned, bytes that reach into the region's trailer, too small a region."""
    path = make_rpm(tmp_path, header_tags=ODD_TAGS)

    def change(header: bytearray) -> None:
        (entries,) = struct.unpack_from(">I", header, 8)
        start = len(header) - 16 if entry is None else 16 + 16 * (entries + entry)
        position, format = field
        (value,) = struct.unpack_from(format, header, start + position)
        struct.pack_into(format, header, start + position, value + difference)

    edit_header(path, change)
    assert reason(path.read_bytes()).startswith("corrupt header: ")


@pytest.mark.parametrize(("kind", "values"), [(Kind.STRING_ARRAY, 2), (Kind.STRING, 1)])
def test_a_digest_of_another_type_is_refused(tmp_path: Path, kind: Kind, values: int) -> None:
    path = make_rpm(tmp_path, header_tags={5092: Field(kind, ["0" * 64] * values)})
    assert reason(path.read_bytes()) == f"corrupt header: tag 5092 has {values} values of type {kind.value}"
