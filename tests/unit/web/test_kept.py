"""Answers that are kept ready: given again as long as nothing changed, and not a moment longer."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from repowatch.web.kept import TOGETHER, Kept, Shelf, stamp_of


class Publications:
    """What a repository says it has published."""

    def __init__(self) -> None:
        self.now: object = object()

    def __call__(self) -> object:
        return self.now


@pytest.fixture
def publications() -> Publications:
    return Publications()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    (tmp_path / "f").write_bytes(b"content")
    return tmp_path / "f"


def kept(path: Path, publications: Publications, content: bytes = b"content") -> Kept:
    return Kept(str(path), stamp_of(path.stat()), publications.now, publications, b"head", content)


def test_an_answer_is_given_again(path: Path, publications: Publications) -> None:
    shelf = Shelf()
    answer = kept(path, publications)
    assert shelf.find("/rpm/f") is None
    shelf.put("/rpm/f", answer)
    assert shelf.find("/rpm/f") is answer
    assert shelf.find("/rpm/f") is answer
    assert shelf.find("/rpm/F") is None


def rewritten(path: Path) -> None:
    path.write_bytes(b"CONTENT")


def replaced_by_a_file_of_the_same_size_and_mtime(path: Path) -> None:
    before = path.stat()
    (path.parent / "new").write_bytes(b"CONTENT")
    os.utime(path.parent / "new", ns=(before.st_atime_ns, before.st_mtime_ns))
    (path.parent / "new").rename(path)


def rewritten_with_its_mtime_set_back(path: Path) -> None:
    before = path.stat()
    path.write_bytes(b"CONTENT")
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def removed(path: Path) -> None:
    path.unlink()


@pytest.mark.parametrize(
    "change",
    [rewritten, replaced_by_a_file_of_the_same_size_and_mtime, rewritten_with_its_mtime_set_back, removed],
)
def test_a_file_that_changed_is_not_given_again(
    path: Path, publications: Publications, change: Callable[[Path], None]
) -> None:
    shelf = Shelf()
    shelf.put("/rpm/f", kept(path, publications))
    assert shelf.find("/rpm/f") is not None
    before = path.stat().st_ctime_ns
    change(path)
    while path.exists() and path.stat().st_ctime_ns == before:  # until the kernel's clock has ticked
        change(path)
    assert shelf.find("/rpm/f") is None
    assert shelf.find("/rpm/f") is None


def test_a_publication_that_followed_makes_it_old(path: Path, publications: Publications) -> None:
    """The ETag of a package is its checksum only once it is listed."""
    shelf = Shelf()
    shelf.put("/rpm/f", kept(path, publications))
    publications.now = object()
    assert shelf.find("/rpm/f") is None


def test_what_was_not_asked_for_the_longest_goes_first(path: Path, publications: Publications) -> None:
    shelf = Shelf()
    big = bytes(TOGETHER // 4)
    for number in range(3):
        shelf.put(f"/{number}", kept(path, publications, big))
    assert shelf.find("/0") is not None
    shelf.put("/3", kept(path, publications, big))
    assert [shelf.find(f"/{number}") is not None for number in range(4)] == [True, False, True, True]


def test_an_answer_in_the_place_of_another_counts_once(path: Path, publications: Publications) -> None:
    shelf = Shelf()
    big = bytes(TOGETHER // 4)
    shelf.put("/other", kept(path, publications))
    for _ in range(9):
        shelf.put("/f", kept(path, publications, big))
    assert shelf.find("/other") is not None
