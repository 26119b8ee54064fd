"""Every kind of damage is found, and nothing where there is none."""

from __future__ import annotations

import dataclasses
import gzip
import hashlib
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from repowatch.model.recipe import DEFAULT, Recipe
from repowatch.model.repomd import Record, parse, render
from repowatch.repository.index import Index
from repowatch.repository.readers import Readers
from repowatch.repository.tree import Tree
from repowatch.repository.verify import differences
from repowatch.system.clock import SystemClock
from tests.kit.oracle import createrepo
from tests.kit.rpms import flip_byte, make_rpm, truncate

A, B, C = (f"{name}-1.0-1.noarch.rpm" for name in "abc")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A tree of two packages, not yet indexed."""
    make_rpm(tmp_path, "a")
    make_rpm(tmp_path / "sub", "b", changelog=[(1, "A <a@example.org>", "- <x> & y")])
    return tmp_path


@pytest.fixture
def index(root: Path, readers: Readers, pool: ThreadPoolExecutor) -> Callable[[], None]:
    def run(recipe: Recipe = DEFAULT) -> None:
        index = Index(str(root), name="test", readers=readers, pool=pool, clock=SystemClock(), recipe=recipe)
        index.open()
        index.turn([], at_once=[""])
        index.close()

    return run


@pytest.fixture
def verify(root: Path, readers: Readers, pool: ThreadPoolExecutor) -> Callable[[], list[str]]:
    def run(**recipe: Any) -> list[str]:
        parts: dict[str, Any] = {"readers": readers, "pool": pool, "progress": lambda done, total: None}
        return list(differences(Tree(str(root)), **parts, **recipe))

    return run


def record(root: Path, kind: str = "primary") -> Record:
    records = parse((root / "repodata" / "repomd.xml").read_bytes()).records
    return next(each for each in records if each.type == kind)


def test_nothing_differs_after_indexing(
    root: Path, index: Callable[[], None], verify: Callable[[], list[str]]
) -> None:
    truncate(make_rpm(root, "damaged"), size=300)
    make_rpm(root / ".hidden", "c")
    index()
    assert verify() == []


@pytest.mark.parametrize("compression", ["gz", "bz2", "xz", "zstd"])
def test_nothing_differs_after_createrepo_c(
    root: Path, verify: Callable[[], list[str]], compression: str
) -> None:
    createrepo(root, "--general-compress-type", compression)
    assert verify() == []


def test_the_checksum_is_taken_to_be_the_one_that_is_published(
    root: Path, index: Callable[..., None], verify: Callable[..., list[str]]
) -> None:
    index(Recipe(checksum="sha512"))
    assert verify() == []
    assert verify(checksum="sha512") == []
    assert verify(checksum="sha256") == [
        "primary: its packages have sha512 checksums, not sha256 as it is configured"
    ]


def test_another_number_of_changelogs_is_a_difference(
    root: Path, index: Callable[..., None], verify: Callable[..., list[str]]
) -> None:
    index(Recipe(changelogs=0))
    assert verify(changelogs=0) == []
    assert verify() == [
        "other: sub/b-1.0-1.noarch.rpm is in the tree, but not (or not as it is) in the metadata",
        "other: 1 packages are in the metadata, but not (or not as they are) in the tree",
    ]


def test_a_missing_repomd_is_told(root: Path, verify: Callable[[], list[str]]) -> None:
    assert verify() == ["repodata/repomd.xml is missing"]


def test_a_damaged_repomd_is_told(
    root: Path, index: Callable[[], None], verify: Callable[[], list[str]]
) -> None:
    index()
    truncate(root / "repodata" / "repomd.xml", size=100)
    (told,) = verify()
    assert told.startswith("repodata/repomd.xml: ")


@pytest.mark.parametrize("kind", ["primary", "filelists", "other"])
def test_a_file_that_repomd_names_and_that_is_missing_is_told(
    root: Path, index: Callable[[], None], verify: Callable[[], list[str]], kind: str
) -> None:
    index()
    href = record(root, kind).location_href
    (root / href).unlink()
    (told,) = verify()
    assert told.startswith(f"{href}: ")
    assert "No such file" in told


def test_a_metadata_file_cut_short_is_told_with_both_sizes(
    root: Path, index: Callable[[], None], verify: Callable[[], list[str]]
) -> None:
    index()
    damaged = record(root)
    truncate(root / damaged.location_href, size=100)
    assert verify() == [f"{damaged.location_href}: it has 100 bytes, repomd.xml says {damaged.size}"]


def test_one_wrong_byte_is_told_with_both_checksums(
    root: Path, index: Callable[[], None], verify: Callable[[], list[str]]
) -> None:
    index()
    damaged = record(root)
    flip_byte(root / damaged.location_href, offset=100, mask=1)
    (told,) = verify()
    assert told.startswith(f"{damaged.location_href}: its sha256 is ")
    assert told.endswith(f", repomd.xml says {damaged.checksum}")


def test_a_record_that_repomd_does_not_name_is_told(
    root: Path, index: Callable[[], None], verify: Callable[[], list[str]]
) -> None:
    index()
    repomd = root / "repodata" / "repomd.xml"
    repomd.write_bytes(repomd.read_bytes().replace(b'type="other"', b'type="another"'))
    assert verify() == ["repomd.xml names no other"]


@pytest.mark.parametrize("element", ["open-checksum", "open-size"])
def test_a_wrong_open_checksum_or_size_is_told(
    root: Path, index: Callable[[], None], verify: Callable[[], list[str]], element: str
) -> None:
    index()
    wrong = record(root)
    repomd = root / "repodata" / "repomd.xml"
    old = wrong.open_checksum if element == "open-checksum" else str(wrong.open_size)
    assert old is not None
    repomd.write_bytes(repomd.read_bytes().replace(f">{old}<".encode(), f">{old[::-1]}<".encode()))
    (told,) = verify()
    assert told.startswith(f"{wrong.location_href}: ")
    assert "open" in told


def add(root: Path) -> None:
    make_rpm(root, "c")


def remove(root: Path) -> None:
    (root / A).unlink()


def replace(root: Path) -> None:
    make_rpm(root, "a", summary="Another")


def touch(root: Path) -> None:
    os.utime(root / A, (1, 1))


def move(root: Path) -> None:
    (root / A).rename(root / "sub" / A)


def damage(root: Path) -> None:
    path = root / A
    flip_byte(path, offset=path.stat().st_size - 1)


@pytest.mark.parametrize(
    ("change", "missing", "surplus"),
    [
        (add, {C}, 0),
        (remove, set(), 1),
        (replace, {A}, 1),
        (touch, {A}, 1),
        (move, {f"sub/{A}"}, 1),
        (damage, set(), 1),
    ],
)
def test_a_change_behind_the_metadata_is_told(
    root: Path,
    index: Callable[[], None],
    verify: Callable[[], list[str]],
    change: Callable[[Path], None],
    missing: set[str],
    surplus: int,
) -> None:
    index()
    change(root)
    told = [line.removeprefix("primary: ") for line in verify() if line.startswith("primary: ")]
    assert {line.split(" is in the tree")[0] for line in told if " is in the tree" in line} == missing
    assert [line.split()[0] for line in told if " packages are in the metadata" in line] == (
        [str(surplus)] if surplus else []
    )


def test_packages_in_another_order_are_told(root: Path, verify: Callable[[], list[str]]) -> None:
    createrepo(root)
    before = record(root)
    content = gzip.decompress((root / before.location_href).read_bytes())
    head, *elements = content.split(b"<package ")
    one, other = elements[0], elements[1].removesuffix(b"</metadata>")
    swapped = b"<package ".join([head, other, one + b"</metadata>"])
    assert sorted(swapped) == sorted(content)
    publish_instead(root, before, swapped)
    assert verify() == ["primary: order, count or frame differ from what the tree gives"]


def publish_instead(root: Path, before: Record, content: bytes) -> None:
    """Put other content into a record, all checksums right."""
    packed = gzip.compress(content)
    (root / before.location_href).write_bytes(packed)
    after = dataclasses.replace(
        before,
        checksum=hashlib.sha256(packed).hexdigest(),
        size=len(packed),
        open_checksum=hashlib.sha256(content).hexdigest(),
    )
    repomd = root / "repodata" / "repomd.xml"
    told = parse(repomd.read_bytes())
    records = tuple(after if each == before else each for each in told.records)
    repomd.write_bytes(render(dataclasses.replace(told, records=records)))
