"""Metadata of another tool is taken over at once, and every file of it checked afterwards."""

from __future__ import annotations

import gzip
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from repowatch.model.recipe import DEFAULT, Recipe
from repowatch.model.repomd import parse
from repowatch.repository.index import Index
from repowatch.repository.readers import Readers
from repowatch.system.clock import SystemClock
from tests.kit.oracle import createrepo, expected, published
from tests.kit.rpms import flip_byte, layout, make_rpm, truncate

A, B, C = (f"{name}-1.0-1.noarch.rpm" for name in "abc")


class Repository:
    """A tree that createrepo_c is to index, and our index of it."""

    def __init__(self, root: Path, readers: Readers, pool: ThreadPoolExecutor) -> None:
        self.root = root
        self.read = 0  # packages, before something was published
        self._parts: dict[str, Any] = {"readers": readers, "pool": pool}
        self.follow(DEFAULT)
        changelog = [(1_600_000_000 + day, "Anna <anna@example.org>", f"- {day}") for day in range(12)]
        make_rpm(root, "a", changelog=changelog)
        make_rpm(root / "sub & <dir>", "b", requires=["a"], files={"/etc/b": b"", "/usr/bin/b": b""})
        make_rpm(root, "c")

    def follow(self, recipe: Recipe) -> None:
        """To be asked before the first start."""
        self.index = Index(str(self.root), name="test", clock=SystemClock(), recipe=recipe, **self._parts)
        self.index.hooks.progress = self._count

    def _count(self, done: int, total: int) -> None:
        if self.index.publication is None:
            self.read = done

    def start(self) -> None:
        self.index.open()
        self.index.turn([], at_once=[""])

    @property
    def listed(self) -> set[str]:
        assert self.index.publication is not None
        return {os.path.basename(name) for name in self.index.publication.entries}

    def is_exact(self, *options: str) -> bool:
        """Whether what is published is what createrepo_c makes of the whole files, with these options."""
        rejected = set(self.index.rejected)
        scratch = self.root.parent / "oracle"
        wanted = expected(
            self.root,
            scratch=scratch,
            is_rejected=lambda path: str(path.relative_to(self.root)) in rejected,
            options=options,
        )
        return published(self.root) == wanted


@pytest.fixture
def repository(tmp_path: Path, readers: Readers, pool: ThreadPoolExecutor) -> Iterator[Repository]:
    repository = Repository(tmp_path / "rpm", readers, pool)
    yield repository
    repository.index.close()


@pytest.mark.parametrize("compression", ["gz", "xz", "zstd", "bz2"])
def test_what_createrepo_c_described_is_listed_without_reading_a_package(
    repository: Repository, compression: str
) -> None:
    createrepo(repository.root, f"--general-compress-type={compression}")
    repository.start()
    assert (repository.read, repository.index.unchecked) == (0, 3)
    assert repository.listed == {A, B, C}
    assert repository.is_exact()
    repository.index.check_all()
    assert repository.index.unchecked == 0
    assert repository.is_exact()


SHA512 = Recipe(checksum="sha512")


def test_metadata_with_the_checksum_that_is_wanted_is_listed_without_reading_a_package(
    repository: Repository,
) -> None:
    createrepo(repository.root, "--checksum=sha512")
    repository.follow(SHA512)
    repository.start()
    assert (repository.read, repository.index.unchecked) == (0, 3)
    assert repository.is_exact("--checksum=sha512")


@pytest.mark.parametrize(("theirs", "ours"), [("sha256", SHA512), ("sha512", DEFAULT), ("sha384", SHA512)])
def test_metadata_with_another_checksum_is_not_taken_over(
    repository: Repository, theirs: str, ours: Recipe, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    createrepo(repository.root, f"--checksum={theirs}")
    repository.follow(ours)
    repository.start()
    assert (repository.read, repository.index.unchecked) == (3, 0)
    assert repository.is_exact(f"--checksum={ours.checksum}")
    assert "a package has no checksum of the kind that is wanted" in caplog.text


def test_changelogs_that_another_tool_kept_are_mended_by_the_check(repository: Repository) -> None:
    createrepo(repository.root, "--changelog-limit=2")
    repository.follow(Recipe(changelogs=11))
    repository.start()
    assert repository.is_exact("--changelog-limit=2")
    repository.index.check_all()
    assert repository.is_exact("--changelog-limit=11")


def test_what_changed_since_then_is_read_at_once(repository: Repository) -> None:
    createrepo(repository.root)
    make_rpm(repository.root, "new")
    make_rpm(repository.root, "a", summary="longer than it was before")
    (repository.root / C).unlink()
    repository.start()
    assert (repository.read, repository.index.unchecked) == (2, 1)
    assert repository.is_exact()


def cut_short(path: Path) -> None:
    truncate(path, size=path.stat().st_size - 1)


def flip_payload(path: Path) -> None:
    flip_byte(path, offset=layout(path).payload + 3)


@pytest.mark.parametrize("damage", [cut_short, flip_payload])
def test_a_damaged_package_that_createrepo_c_lists_is_unlisted_by_the_check(
    repository: Repository, damage: Callable[[Path], None]
) -> None:
    damage(repository.root / A)
    createrepo(repository.root)
    assert A.encode() in published(repository.root)["primary"]
    repository.start()
    repository.index.check_all()
    assert repository.listed == {B, C}
    assert repository.index.rejected.keys() == {A}
    assert repository.is_exact()


def test_other_content_with_the_same_size_and_mtime_is_found_by_the_check(repository: Repository) -> None:
    path = make_rpm(repository.root, "a", summary="package")
    createrepo(repository.root)
    before = path.stat()
    make_rpm(repository.root, "a", summary="another")
    os.utime(path, ns=(before.st_mtime_ns, before.st_mtime_ns))
    assert path.stat().st_size == before.st_size
    repository.start()
    assert b"<summary>package</summary>" in published(repository.root)["primary"]
    repository.index.check_all()
    assert b"<summary>another</summary>" in published(repository.root)["primary"]
    assert repository.is_exact()


def test_metadata_that_was_made_otherwise_is_corrected_by_the_check(repository: Repository) -> None:
    createrepo(repository.root, "--changelog-limit=2")
    repository.start()
    assert published(repository.root)["other"].count(b"<changelog") == 2
    repository.index.check_all()
    assert published(repository.root)["other"].count(b"<changelog") == 10
    assert repository.is_exact()


def test_records_of_other_kinds_are_carried_along(repository: Repository) -> None:
    comps = repository.root / "comps.xml"
    comps.write_text("<comps/>")
    createrepo(repository.root, f"--groupfile={comps}")
    repository.start()
    records = parse((repository.root / "repodata" / "repomd.xml").read_bytes()).records
    assert {"group", "primary"} <= {record.type for record in records}
    assert all((repository.root / record.location_href).exists() for record in records)


def reordered(text: bytes) -> bytes:
    """The first package last."""
    head, first, *rest = text.split(b"<package ")
    *middle, last = rest
    end = last.index(b"</package>") + len(b"</package>\n")
    return b"<package ".join([head, *middle, last[:end], first]) + last[end:]


ODD: dict[str, Callable[[bytes], bytes]] = {
    "another order": reordered,
    "a package missing": lambda text: text[: text.rindex(b"<package ")] + b"</filelists>",
    "no XML": lambda text: text.replace(b"<version", b"<&"),
    "nothing": lambda text: b"",
}


def with_other_filelists(root: Path, change: Callable[[bytes], bytes]) -> None:
    """Publish altered filelists as a tool would that means it."""
    text = gzip.decompress(next((root / "repodata").glob("*-filelists.xml.gz")).read_bytes())
    altered = root.parent / "filelists.xml"
    altered.write_bytes(change(text))
    repodata = str(root / "repodata")
    command = str(Path(sys.executable).with_name("modifyrepo_c"))
    subprocess.run([command, "--mdtype=filelists", "--compress-type=gz", str(altered), repodata], check=True)


@pytest.mark.parametrize("odd", ODD)
def test_metadata_that_can_not_be_taken_over_is_told_and_the_packages_read(
    repository: Repository, odd: str, caplog: pytest.LogCaptureFixture
) -> None:
    createrepo(repository.root)
    with_other_filelists(repository.root, ODD[odd])
    with caplog.at_level("INFO"):
        repository.start()
    assert (repository.read, repository.index.unchecked) == (3, 0)
    assert "can not be taken over" in caplog.text
    assert repository.is_exact()


def test_other_checksums_than_sha256_are_not_taken_over(repository: Repository) -> None:
    createrepo(repository.root, "--checksum=sha512")
    repository.start()
    assert (repository.read, repository.index.unchecked) == (3, 0)
    assert repository.is_exact()


def test_what_is_not_checked_yet_is_remembered_by_the_next_start(
    repository: Repository, readers: Readers, pool: ThreadPoolExecutor
) -> None:
    cut_short(repository.root / A)
    createrepo(repository.root)
    repository.start()
    repository.index.save()
    repository.index.close()
    repository.index = Index(
        str(repository.root), name="test", readers=readers, pool=pool, clock=SystemClock()
    )
    repository.start()
    assert repository.index.unchecked == 3
    repository.index.check_all()
    assert repository.listed == {B, C}


def test_a_check_that_is_late_does_not_undo_what_came_meanwhile(repository: Repository) -> None:
    createrepo(repository.root)
    repository.start()
    checking = repository.index.check_some()
    assert checking is not None
    late = checking.result(10)
    make_rpm(repository.root, "a", summary="newer")
    (repository.root / C).unlink()
    repository.index.turn([], at_once=[A, C])
    repository.index.turn([], checked=[late])
    assert repository.index.unchecked == 0
    assert repository.listed == {A, B}
    assert repository.is_exact()


def test_a_file_that_is_gone_when_it_is_checked_is_unlisted(repository: Repository) -> None:
    createrepo(repository.root)
    repository.start()
    (repository.root / C).unlink()
    repository.index.check_all()
    assert repository.listed == {A, B}
    assert repository.is_exact()


def test_a_file_that_is_fresh_is_listed_only_as_far_as_it_is_what_the_metadata_says(
    repository: Repository, readers: Readers, pool: ThreadPoolExecutor
) -> None:
    createrepo(repository.root)
    make_rpm(repository.root, "a", summary="longer than it was before")
    repository.index = Index(
        str(repository.root), name="test", readers=readers, pool=pool, clock=SystemClock(), settle=3600
    )
    repository.index.open()
    again = repository.index.turn([""])
    assert repository.listed == {B, C}
    assert A in again.unsettled
    repository.index.turn([], at_once=[A])
    assert repository.listed == {A, B, C}
    assert repository.is_exact()
