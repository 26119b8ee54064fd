"""A restart reads nothing again that did not change, and believes a cache only as far as it can check it."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

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


@pytest.fixture
def turn(tree: Path, readers: Readers, pool: ThreadPoolExecutor) -> Callable[[], Index]:
    """Open the repository, look at everything once, save, close; the index, with what it read."""

    def run() -> Index:
        index = Index(os.fspath(tree), name="rpm", readers=readers, pool=pool, clock=SystemClock())
        index.most_read = 0  # type: ignore[attr-defined]

        def count(done: int, total: int) -> None:
            index.most_read = total  # type: ignore[attr-defined]

        index.progress = count
        index.open()
        try:
            index.turn([], at_once=[""])
            index.save()
        finally:
            index.close()
        return index

    return run


def read(index: Index) -> int:
    number: int = index.most_read  # type: ignore[attr-defined]
    return number


def cache_of(tree: Path) -> Path:
    return tree / ".repowatch" / "cache" / "catalog.json"


def published(tree: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in (tree / "repodata").iterdir()}


def test_a_restart_reads_no_package_and_publishes_nothing(tree: Path, turn: Callable[[], Index]) -> None:
    first = turn()
    before = published(tree)
    second = turn()
    assert (read(first), read(second)) == (201, 0)
    assert published(tree) == before
    assert second.rejected.keys() == {"cut-1.0-1.noarch.rpm"}


def test_what_changed_while_nobody_watched_is_read_and_no_more(tree: Path, turn: Callable[[], Index]) -> None:
    turn()
    make_rpm(tree, "new")
    make_rpm(tree, "package0", "2.0", filename="package0-1.0-1.noarch.rpm")
    (tree / "package3-1.0-1.noarch.rpm").unlink()
    index = turn()
    assert read(index) == 2
    assert index.publication is not None
    assert len(index.publication.entries) == 200
    assert index.publication.entries["package0-1.0-1.noarch.rpm"].nevra.version == "2.0"


def test_a_stale_cache_is_good_for_what_it_knows(tree: Path, turn: Callable[[], Index]) -> None:
    turn()
    stale = cache_of(tree).read_bytes()
    make_rpm(tree, "new")
    turn()
    fresh = published(tree)
    cache_of(tree).write_bytes(stale)
    index = turn()
    assert read(index) == 1
    assert published(tree) == fresh


def rewritten(tree: Path, change: Callable[[dict[str, object]], object]) -> None:
    """Change the content of a cache and give it a right checksum again."""
    content = json.loads(cache_of(tree).read_bytes().partition(b"\n")[2])
    change(content)
    body = json.dumps(content).encode()
    cache_of(tree).write_bytes(hashlib.sha256(body).hexdigest().encode() + b"\n" + body)


DAMAGE: dict[str, Callable[[Path], object]] = {
    "deleted": lambda tree: shutil.rmtree(cache_of(tree).parent),
    "the whole private directory deleted": lambda tree: shutil.rmtree(tree / ".repowatch"),
    "half-written": lambda tree: truncate(cache_of(tree), size=cache_of(tree).stat().st_size // 2),
    "empty": lambda tree: truncate(cache_of(tree), size=0),
    "of a newer version": lambda tree: rewritten(tree, lambda content: content.update(format=99)),
    "without a part": lambda tree: rewritten(tree, lambda content: content.pop("files")),
    "with other lengths": lambda tree: rewritten(
        tree,
        lambda content: content["packages"][5].__setitem__(-1, 7),  # type: ignore[index]
    ),
    "with packages missing": lambda tree: rewritten(
        tree,
        lambda content: content["packages"].pop(),  # type: ignore[attr-defined]
    ),
    "in another order": lambda tree: rewritten(
        tree,
        lambda content: content["packages"].reverse(),  # type: ignore[attr-defined]
    ),
    "with files that are gone": lambda tree: shutil.rmtree(tree / "repodata"),
    "with a published file altered": lambda tree: [
        path.write_bytes(path.read_bytes()[:-9] + b"damaged!!")
        for path in (tree / "repodata").glob("*-primary.xml.gz")
    ],
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_cache_that_can_not_be_trusted_costs_time_and_nothing_else(
    damage: str, tree: Path, turn: Callable[[], Index]
) -> None:
    turn()
    names = published(tree).keys()
    DAMAGE[damage](tree)
    index = turn()
    assert read(index) == 201
    assert published(tree).keys() == names
    assert index.publication is not None
    assert len(index.publication.entries) == 200


def test_a_copy_on_another_machine_reads_everything_again(
    tree: Path, turn: Callable[[], Index], readers: Readers, pool: ThreadPoolExecutor
) -> None:
    turn()
    copy = tree.parent / "copy"
    shutil.copytree(tree, copy)  # with mtimes, as rsync -a and a backup do; inodes and ctimes are new
    index = Index(os.fspath(copy), name="copy", readers=readers, pool=pool, clock=SystemClock())
    counts = []
    index.progress = lambda done, total: counts.append(total)
    index.open()
    index.turn([], at_once=[""])
    index.close()
    assert counts[-1] == 201
    assert published(copy).keys() == published(tree).keys()
