"""Metadata files joined from compressed segments, and written while they are hashed."""

from __future__ import annotations

import gzip
import hashlib
import subprocess
import threading
import zlib
from collections.abc import Callable, Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from repowatch.model.catalog import Catalog
from repowatch.model.formats import FORMATS, Format, joined_crc, multiply, opened, shift_of
from repowatch.model.segment import KINDS
from repowatch.repository.segments import MetadataFile, make_files, open_bytes, warm
from repowatch.repository.sums import OpenSums
from tests.unit.model.test_catalog import catalog_of, change, package, runs_of

GZIP = FORMATS["compatible"]
NAMES = [f"{number % 3}/p{number}.rpm" for number in range(200)]


class Here(Executor):
    """Runs everything in the caller's thread, and remembers which kinds it was given to compress or open."""

    def __init__(self) -> None:
        self.asked: list[int] = []

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        if len(args) == 1 and isinstance(args[0], int):
            self.asked.append(args[0])
        future: Future[Any] = Future()
        future.set_result(fn(*args, **kwargs))
        return future


def large(form: Format = GZIP) -> Catalog:
    catalog = Catalog(form)
    change(catalog, (package(name, "x" * 5 * number) for number, name in enumerate(NAMES)))
    return catalog


def made(catalog: Catalog, pool: Executor) -> list[tuple[MetadataFile, bytes]]:
    """What is told of each file, and what was written of it."""
    written: dict[str, bytes] = {}

    def write(kind: str, parts: Sequence[bytes]) -> None:
        assert kind not in written
        written[kind] = b"".join(parts)

    files = make_files(catalog.segments, catalog.form, pool=pool, write=write, sums=OpenSums())
    return [(file, written[file.kind]) for file in files]


CATALOGS = [Catalog(), catalog_of([package("a.rpm")]), large()]


@pytest.mark.parametrize("catalog", CATALOGS)
def test_a_file_is_one_gzip_member_of_the_open_bytes(catalog: Catalog, pool: ThreadPoolExecutor) -> None:
    for kind, (_, content) in enumerate(made(catalog, pool)):
        member = zlib.decompressobj(31)
        found = member.decompress(content)
        assert member.eof
        assert member.unused_data == b""
        assert found == b"".join(open_bytes(kind, catalog.segments))


def test_gzip_itself_finds_nothing_wrong(tmp_path: Path, pool: ThreadPoolExecutor) -> None:
    paths = []
    for file, content in made(large(), pool):
        paths.append(tmp_path / file.name)
        paths[-1].write_bytes(content)
    subprocess.run(["gzip", "--test", *paths], check=True)


@pytest.mark.parametrize("packages", [0, 1, 200])
def test_a_modern_file_is_zstd_of_the_same_open_bytes(
    packages: int, tmp_path: Path, pool: ThreadPoolExecutor
) -> None:
    catalog = Catalog(FORMATS["modern"])
    change(catalog, map(package, NAMES[:packages]))
    for kind, (file, content) in enumerate(made(catalog, pool)):
        assert file.name == f"{file.checksum}-{file.kind}.xml.zst"
        assert opened(file.name, content) == b"".join(open_bytes(kind, catalog.segments))
        path = tmp_path / file.name
        path.write_bytes(content)
        subprocess.run(["zstd", "--quiet", "--test", path], check=True)


@pytest.mark.parametrize("suffix", ["gz", "zst", "bz2", "xz"])
def test_a_damaged_file_is_told_and_raises_nothing_else(suffix: str) -> None:
    with pytest.raises(ValueError, match="is damaged"):
        opened(f"primary.xml.{suffix}", b"no such thing")


def test_a_file_of_an_unknown_kind_is_told() -> None:
    with pytest.raises(ValueError, match="can not open"):
        opened("primary.sqlite.lz4", b"")


@pytest.mark.parametrize("catalog", CATALOGS)
def test_names_sizes_and_checksums_are_those_of_the_bytes(catalog: Catalog, pool: ThreadPoolExecutor) -> None:
    files = made(catalog, pool)
    assert tuple(file.kind for file, _ in files) == KINDS
    for file, content in files:
        found = gzip.decompress(content)
        assert (file.size, file.open_size) == (len(content), len(found))
        assert file.checksum == hashlib.sha256(content).hexdigest()
        assert file.open_checksum == hashlib.sha256(found).hexdigest()
        assert file.name == f"{file.checksum}-{file.kind}.xml.gz"


def test_an_empty_repository_has_files_without_packages(pool: ThreadPoolExecutor) -> None:
    for _, content in made(Catalog(), pool):
        assert b' packages="0">\n</' in gzip.decompress(content)


def test_only_what_changed_is_compressed_again() -> None:
    here, catalog = Here(), large()
    made(catalog, here)
    assert len(here.asked) == 3 * len(catalog.segments)

    here.asked.clear()
    made(catalog, here)
    assert here.asked == []

    change(catalog, [package(NAMES[0], "new")])
    made(catalog, here)
    assert sorted(here.asked) == [0, 1, 2]


@pytest.mark.parametrize("profile", FORMATS)
def test_equal_packages_make_equal_files_whatever_their_history(
    profile: str, pool: ThreadPoolExecutor
) -> None:
    changed, fresh = large(FORMATS[profile]), large(FORMATS[profile])
    made(changed, pool)
    change(changed, [package("new.rpm")], NAMES[::3])
    made(changed, pool)
    gone = set(NAMES[::3])
    change(changed, [each for each in fresh.packages() if each.entry.location_href in gone], ["new.rpm"])
    assert made(changed, pool) == made(fresh, pool)


def test_segments_that_a_restart_took_over_are_opened_once() -> None:
    catalog, here = large(), Here()
    restored = Catalog.restored(runs_of(catalog), GZIP)
    warm(restored.segments, pool=here)
    assert len(here.asked) == 3 * len(catalog.segments)
    here.asked.clear()
    warm(restored.segments, pool=here)
    assert here.asked == []
    assert made(restored, here) == made(catalog, here)


@pytest.mark.parametrize("failing", KINDS)
def test_when_a_file_can_not_be_written_nothing_goes_on_behind_the_error(failing: str) -> None:
    going_on = threading.Semaphore(0)

    def write(kind: str, parts: Sequence[bytes]) -> None:
        if kind == failing:
            raise OSError(28, "No space left on device")
        going_on.release()

    with ThreadPoolExecutor(6) as pool, pytest.raises(OSError, match="No space left"):
        make_files(large().segments, GZIP, pool=pool, write=write, sums=OpenSums())
    assert going_on.acquire(blocking=False)
    assert going_on.acquire(blocking=False)


@given(st.lists(st.binary(max_size=300), max_size=80))
def test_the_crc_of_joined_bytes_follows_from_those_of_the_parts(parts: list[bytes]) -> None:
    joined = b"".join(parts)
    assert joined_crc([(zlib.crc32(part), len(part)) for part in parts]) == (zlib.crc32(joined), len(joined))


def test_groups_that_end_with_every_part_are_joined_all_the_same() -> None:
    part = b"\x00" * 4 + b"\xff" * 4  # whatever its CRC-32 is, that of nothing is 0
    parts = [b""] * 1000 + [part] + [b""] * 1000
    assert joined_crc([(zlib.crc32(each), len(each)) for each in parts]) == (zlib.crc32(part), len(part))


@given(st.integers(0, 2**40), st.integers(0, 2**40))
def test_appending_twice_is_appending_the_sum(one: int, other: int) -> None:
    assert multiply(shift_of(one), shift_of(other)) == shift_of(one + other)
