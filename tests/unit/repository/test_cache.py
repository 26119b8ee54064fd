"""A restart reads nothing again that did not change, and believes a cache only as far as it can check it."""

from __future__ import annotations

import gzip
import hashlib
import json
import os
import shutil
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from repowatch.model.formats import FORMATS
from repowatch.model.recipe import DEFAULT, Recipe
from repowatch.repository import files
from repowatch.repository.changes import PublicationFailed
from repowatch.repository.index import Index
from repowatch.repository.readers import Readers
from repowatch.system.clock import SystemClock
from tests.kit.rpms import make_rpm, truncate


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    root = tmp_path / "rpm"
    (root / "sub").mkdir(parents=True)
    for number in range(200):
        make_rpm(root / "sub" if number % 3 else root, f"package{number}")
    truncate(make_rpm(root, "cut"), size=1000)
    return root


@dataclass(slots=True)
class Start:
    """What one start of an index did: look at everything once, check what it took over, save, close."""

    index: Index
    read: int = 0  # packages, before it published
    taken_over: int = 0  # packages that were listed as metadata described them
    checked: int = 0  # of them

    def count(self, done: int, total: int) -> None:
        if self.taken_over:
            self.checked = done
        else:
            self.read = done


@pytest.fixture
def start(tree: Path, readers: Readers, pool: ThreadPoolExecutor) -> Callable[..., Start]:
    def run(root: Path = tree, recipe: Recipe = DEFAULT) -> Start:
        index = Index(
            os.fspath(root), name="rpm", readers=readers, pool=pool, clock=SystemClock(), recipe=recipe
        )
        start = Start(index)
        index.hooks.progress = start.count
        index.open()
        try:
            index.turn([], at_once=[""])
            start.taken_over = index.unchecked
            index.check_all()
            index.save()
        finally:
            index.close()
        return start

    return run


def cache_of(tree: Path) -> Path:
    return tree / ".repowatch" / "cache" / "catalog"


def published(tree: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in (tree / "repodata").iterdir()}


def test_a_restart_reads_no_package_and_publishes_nothing(tree: Path, start: Callable[[], Start]) -> None:
    first = start()
    before = published(tree)
    second = start()
    assert (first.read, second.read, second.taken_over) == (201, 0, 0)
    assert published(tree) == before
    assert second.index.rejected.keys() == {"cut-1.0-1.noarch.rpm"}


@pytest.mark.parametrize(
    "recipe", [Recipe(checksum="sha512"), Recipe(changelogs=11), Recipe(changelogs=None)], ids=repr
)
def test_another_checksum_or_limit_reads_all_anew_and_is_published_once(
    tree: Path, start: Callable[..., Start], recipe: Recipe
) -> None:
    """Neither the cache nor what is published is taken over: it does not say what is to be said."""
    changelog = [(1_600_000_000 + day, "Anna <anna@example.org>", f"- {day}") for day in range(12)]
    make_rpm(tree, "changes", changelog=changelog)
    first = start()
    before = published(tree)
    second = start(recipe=recipe)
    assert (second.read, second.taken_over) == (first.read, 0)
    assert first.index.publication is not None
    assert second.index.publication is not None
    assert second.index.publication.revision == first.index.publication.revision + 1
    assert published(tree).keys() > before.keys()  # what the first one named is kept for a while
    assert second.index.history.events == first.index.history.events  # no package came or went
    assert start(recipe=recipe).read == 0


def test_another_profile_takes_the_elements_over(tree: Path, start: Callable[..., Start]) -> None:
    start()
    again = start(recipe=Recipe(FORMATS["modern"]))
    assert (again.read, again.taken_over) == (1, 200)


def test_what_changed_while_nobody_watched_is_read_and_no_more(
    tree: Path, start: Callable[[], Start]
) -> None:
    start()
    make_rpm(tree, "new")
    make_rpm(tree, "package0", "2.0", filename="package0-1.0-1.noarch.rpm")
    (tree / "package3-1.0-1.noarch.rpm").unlink()
    again = start()
    assert again.read == 2
    assert again.index.publication is not None
    assert len(again.index.publication.entries) == 200
    assert again.index.publication.entries["package0-1.0-1.noarch.rpm"].nevra.version == "2.0"


def test_a_stale_cache_is_good_for_what_it_knows(tree: Path, start: Callable[[], Start]) -> None:
    start()
    stale = cache_of(tree).read_bytes()
    make_rpm(tree, "new")
    start()
    fresh = published(tree)
    cache_of(tree).write_bytes(stale)
    assert start().read == 1
    assert published(tree) == fresh


def rewritten(tree: Path, change: Callable[[list[Any]], object]) -> None:
    """Change the lines of a cache and give it a right checksum again."""
    lines = [json.loads(line) for line in cache_of(tree).read_bytes().splitlines()[:-1]]
    change(lines)
    body = b"".join(json.dumps(line).encode() + b"\n" for line in lines)
    cache_of(tree).write_bytes(body + hashlib.sha256(body).hexdigest().encode() + b"\n")


def shift_lengths(lines: list[Any]) -> None:
    """One package's element a byte longer, the next one's a byte shorter."""
    lines[2][0][0][-1] += 1
    lines[2][0][1][-1] -= 1


LOST: dict[str, Callable[[Path], object]] = {
    "deleted": lambda tree: shutil.rmtree(cache_of(tree).parent),
    "the whole private directory deleted": lambda tree: shutil.rmtree(tree / ".repowatch"),
    "half-written": lambda tree: truncate(cache_of(tree), size=cache_of(tree).stat().st_size // 2),
    "empty": lambda tree: truncate(cache_of(tree), size=0),
    "of a newer version": lambda tree: rewritten(tree, lambda lines: lines[0].update(format=99)),
    "without a part": lambda tree: rewritten(tree, lambda lines: lines[0].pop("files")),
    "with other lengths": lambda tree: rewritten(tree, lambda lines: lines[2][0][0].__setitem__(-1, 7)),
    "with another CRC": lambda tree: rewritten(tree, lambda lines: lines[2][1][0].__setitem__(1, 7)),
    "with pieces elsewhere": lambda tree: rewritten(tree, lambda lines: lines[2][1][0].__setitem__(0, 7)),
    "with packages missing": lambda tree: rewritten(tree, lambda lines: lines.pop()),
    "in another order": lambda tree: rewritten(tree, lambda lines: lines[2][0].reverse()),
    "no object": lambda tree: rewritten(tree, lambda lines: lines.insert(0, 5)),
}
DAMAGED: dict[str, Callable[[Path], object]] = {
    "files that are gone": lambda tree: shutil.rmtree(tree / "repodata"),
    "a published file altered": lambda tree: [
        path.write_bytes(path.read_bytes()[:-9] + b"damaged!!")
        for path in (tree / "repodata").glob("*-primary.xml.gz")
    ],
    "a published file missing": lambda tree: os.unlink(next((tree / "repodata").glob("*-other.xml.gz"))),
}


@pytest.mark.parametrize("damage", LOST)
def test_without_a_cache_the_metadata_is_taken_over_and_checked(
    damage: str, tree: Path, start: Callable[[], Start]
) -> None:
    start()
    before = published(tree)
    LOST[damage](tree)
    again = start()
    assert (again.read, again.taken_over, again.checked) == (1, 200, 200)  # the rejected one is read at once
    assert published(tree).keys() == before.keys()
    assert again.index.publication is not None
    assert len(again.index.publication.entries) == 200


@pytest.mark.parametrize("damage", DAMAGED)
def test_with_damaged_metadata_everything_is_read_again(
    damage: str, tree: Path, start: Callable[[], Start]
) -> None:
    start()
    before = published(tree)
    DAMAGED[damage](tree)
    again = start()
    assert (again.read, again.taken_over) == (201, 0)
    assert published(tree).keys() == before.keys()


def test_lengths_that_only_the_next_change_would_stumble_over_are_never_published(
    tree: Path, start: Callable[[], Start]
) -> None:
    start()
    rewritten(tree, shift_lengths)
    neighbour = tree / json.loads(cache_of(tree).read_bytes().splitlines()[2])[0][-1][0]
    make_rpm(neighbour.parent, "package", "2.0", filename=neighbour.name)
    with pytest.raises(PublicationFailed, match="the cache is damaged"):
        start()
    again = start()
    assert again.taken_over + again.read == 201
    assert again.index.publication is not None
    assert len(again.index.publication.entries) == 200
    assert all(element.endswith(b"</package>\n") for element in elements(tree))


def test_what_a_damaged_cache_made_unknown_stays_listed_whatever_comes_next(
    tree: Path,
    readers: Readers,
    pool: ThreadPoolExecutor,
    start: Callable[[], Start],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    start()
    rewritten(tree, shift_lengths)
    neighbour = tree / json.loads(cache_of(tree).read_bytes().splitlines()[2])[0][-1][0]
    monkeypatch.setattr(files, "MOST_READ", 16)
    index = Index(os.fspath(tree), name="rpm", readers=readers, pool=pool, clock=SystemClock())
    index.open()
    try:
        index.turn([], at_once=[""])
        make_rpm(neighbour.parent, "package", "2.0", filename=neighbour.name)
        with pytest.raises(PublicationFailed, match="the cache is damaged"):
            index.turn([], at_once=[os.path.relpath(neighbour, tree)])
        index.turn([], at_once=[make_rpm(tree, "another").name])
        assert index.publication is not None
        assert len(index.publication.entries) == 201
    finally:
        index.close()


def elements(tree: Path) -> list[bytes]:
    content = gzip.decompress(next((tree / "repodata").glob("*-primary.xml.gz")).read_bytes())
    return [b"<package " + part for part in content.removesuffix(b"</metadata>").split(b"<package ")[1:]]


def test_a_copy_on_another_machine_is_listed_at_once_and_checked(
    tree: Path, start: Callable[..., Start]
) -> None:
    start()
    copy = tree.parent / "copy"
    shutil.copytree(tree, copy)  # with mtimes, as rsync -a and a backup do; inodes and ctimes are new
    again = start(copy)
    assert again.read + again.taken_over == 201
    assert published(copy).keys() == published(tree).keys()
