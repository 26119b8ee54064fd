"""Metadata files joined from compressed segments."""

from __future__ import annotations

import gzip
import hashlib
import subprocess
import weakref
import zlib
from collections.abc import Callable
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from repowatch.model.catalog import KINDS, Catalog
from repowatch.repository.formats import FORMATS, multiply, opened, shift_of
from repowatch.repository.segments import MetadataFile, Segments, open_bytes
from tests.unit.model.test_catalog import BOUNDARIES, OTHERS, catalog_of, package

GZIP = FORMATS["compatible"]


class Here(Executor):
    """Runs everything in the caller's thread, and remembers the elements it was given to compress."""

    def __init__(self) -> None:
        self.compressed: list[bytes] = []

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        if len(args) == 1 and isinstance(args[0], bytes):
            self.compressed.append(args[0])
        future: Future[Any] = Future()
        future.set_result(fn(*args, **kwargs))
        return future


def large() -> Catalog:
    return catalog_of(package(name, "x" * 50 * number) for number, name in enumerate([*BOUNDARIES, *OTHERS]))


def content(file: MetadataFile) -> bytes:
    return b"".join(file.parts)


@pytest.mark.parametrize("catalog", [Catalog(), catalog_of([package("a.rpm")]), large()])
def test_a_file_is_one_gzip_member_of_the_open_bytes(catalog: Catalog, pool: ThreadPoolExecutor) -> None:
    for kind, file in enumerate(Segments(pool, GZIP).files(catalog.segments)):
        member = zlib.decompressobj(31)
        found = member.decompress(content(file))
        assert member.eof
        assert member.unused_data == b""
        assert found == b"".join(open_bytes(kind, catalog.segments))


def test_gzip_itself_finds_nothing_wrong(tmp_path: Path, pool: ThreadPoolExecutor) -> None:
    paths = []
    for file in Segments(pool, GZIP).files(large().segments):
        paths.append(tmp_path / file.name)
        paths[-1].write_bytes(content(file))
    subprocess.run(["gzip", "--test", *paths], check=True)


@pytest.mark.parametrize("catalog", [Catalog(), catalog_of([package("a.rpm")]), large()])
def test_a_modern_file_is_zstd_of_the_same_open_bytes(
    catalog: Catalog, tmp_path: Path, pool: ThreadPoolExecutor
) -> None:
    for kind, file in enumerate(Segments(pool, FORMATS["modern"]).files(catalog.segments)):
        assert file.name == f"{file.checksum}-{file.kind}.xml.zst"
        assert opened(file.name, content(file)) == b"".join(open_bytes(kind, catalog.segments))
        path = tmp_path / file.name
        path.write_bytes(content(file))
        subprocess.run(["zstd", "--quiet", "--test", path], check=True)


@pytest.mark.parametrize("suffix", ["gz", "zst", "bz2", "xz"])
def test_a_damaged_file_is_told_and_raises_nothing_else(suffix: str) -> None:
    with pytest.raises(ValueError, match="is damaged"):
        opened(f"primary.xml.{suffix}", b"no such thing")


def test_a_file_of_an_unknown_kind_is_told() -> None:
    with pytest.raises(ValueError, match="can not open"):
        opened("primary.sqlite.lz4", b"")


@pytest.mark.parametrize("catalog", [Catalog(), large()])
def test_names_sizes_and_checksums_are_those_of_the_bytes(catalog: Catalog, pool: ThreadPoolExecutor) -> None:
    files = Segments(pool, GZIP).files(catalog.segments)
    assert tuple(file.kind for file in files) == KINDS
    for file in files:
        found = gzip.decompress(content(file))
        assert (file.size, file.open_size) == (len(content(file)), len(found))
        assert file.checksum == hashlib.sha256(content(file)).hexdigest()
        assert file.open_checksum == hashlib.sha256(found).hexdigest()
        assert file.name == f"{file.checksum}-{file.kind}.xml.gz"


def test_an_empty_repository_has_files_without_packages(pool: ThreadPoolExecutor) -> None:
    for file in Segments(pool, GZIP).files(()):
        assert b' packages="0">\n</' in gzip.decompress(content(file))


def test_only_what_changed_is_compressed_again() -> None:
    here, catalog = Here(), large()
    segments = Segments(here, GZIP)
    segments.files(catalog.segments)
    assert here.compressed == [each for segment in catalog.segments for each in segment.elements]

    here.compressed.clear()
    segments.files(catalog.segments)
    assert here.compressed == []

    catalog.change([package(OTHERS[0], "new")])
    segments.files(catalog.segments)
    assert len(here.compressed) == 3


def test_equal_packages_make_equal_files_whatever_their_history(pool: ThreadPoolExecutor) -> None:
    changed, fresh = large(), large()
    segments = Segments(pool, GZIP)
    segments.files(changed.segments)
    changed.change([package("new.rpm")], OTHERS)
    segments.files(changed.segments)
    changed.change([each for each in fresh.packages() if each.entry.location_href in OTHERS], ["new.rpm"])
    assert segments.files(changed.segments) == Segments(pool, GZIP).files(fresh.segments)


def test_a_segment_that_nobody_holds_is_forgotten() -> None:
    catalog = large()
    here = Here()
    segments = Segments(here, GZIP)
    segments.files(catalog.segments)
    here.compressed.clear()
    forgotten = weakref.ref(catalog.segments[0])
    catalog.change([], [*BOUNDARIES, *OTHERS])
    assert forgotten() is None


@given(st.lists(st.binary(max_size=300), max_size=6))
def test_the_crc_of_joined_bytes_follows_from_those_of_the_parts(parts: list[bytes]) -> None:
    crc = 0
    for part in parts:
        crc = multiply(shift_of(len(part)), crc) ^ zlib.crc32(part)
    assert crc == zlib.crc32(b"".join(parts))


@given(st.integers(0, 2**40), st.integers(0, 2**40))
def test_appending_twice_is_appending_the_sum(one: int, other: int) -> None:
    assert multiply(shift_of(one), shift_of(other)) == shift_of(one + other)
