"""A first reading that is stopped or killed goes on where it was."""

from __future__ import annotations

import json
import os
import re
import subprocess
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from repowatch.model.recipe import Recipe
from repowatch.repository.changes import Stopped
from repowatch.repository.files import MANY
from repowatch.repository.home import Home
from repowatch.repository.index import Index
from repowatch.repository.readers import Readers
from repowatch.repository.store import Store
from repowatch.system.clock import SystemClock
from tests.kit.daemon import COMMAND, repowatch, wait_until
from tests.kit.loopfs import memory_disk, require_mounts
from tests.kit.rpms import make_rpm
from tests.unit.repository.test_readers import PLAIN, make_endless, to_read

COUNT = 2 * MANY


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    root = tmp_path / "rpm"
    for number in range(COUNT):
        make_rpm(root, f"p{number}")
    return root


def progress_of(tree: Path) -> Path:
    return tree / ".repowatch" / "cache" / "progress"


def metadata(tree: Path) -> set[str]:
    """The names of the metadata files, which say all that is in them."""
    return {path.name for path in (tree / "repodata").glob("*.gz")}


class Reading:
    """One start of an index over a tree, which may be told to stop."""

    def __init__(self, root: Path, readers: Readers, pool: ThreadPoolExecutor, recipe: Recipe) -> None:
        self.read = 0
        self.index = Index(
            str(root), name="test", readers=readers, pool=pool, clock=SystemClock(), recipe=recipe
        )
        self.index.hooks.progress = self._count

    def _count(self, done: int, total: int) -> None:
        self.read = done

    def run(self, *, stop_after: int | None = None, save: bool = False) -> int:
        """How many packages were read."""
        if stop_after is not None:
            self.index.hooks.stopping = lambda: self.read >= stop_after
        self.index.open()
        try:
            self.index.turn([], at_once=[""])
            if save:
                self.index.save()
        finally:
            self.index.close()
        return self.read


@pytest.fixture
def reading(tree: Path, readers: Readers, pool: ThreadPoolExecutor) -> Callable[..., Reading]:
    return lambda recipe=PLAIN: Reading(tree, readers, pool, recipe)


def test_what_was_read_before_a_stop_is_not_read_again(tree: Path, reading: Callable[[], Reading]) -> None:
    with pytest.raises(Stopped):
        reading().run(stop_after=MANY)
    assert not metadata(tree)
    assert 0 < reading().run(save=True) <= COUNT - MANY
    assert not progress_of(tree).exists()
    wanted = metadata(tree)
    subprocess.run(["rm", "-rf", tree / ".repowatch", tree / "repodata"], check=True)
    assert reading().run() == COUNT
    assert metadata(tree) == wanted


def test_reading_anew_for_another_checksum_goes_on_after_a_stop_and_shows_nothing_until_it_is_done(
    tree: Path, reading: Callable[..., Reading]
) -> None:
    strong = Recipe(checksum="sha512")
    reading().run(save=True)
    before, repomd = metadata(tree), (tree / "repodata" / "repomd.xml").read_bytes()
    with pytest.raises(Stopped):
        reading(strong).run(stop_after=MANY)
    assert (metadata(tree), (tree / "repodata" / "repomd.xml").read_bytes()) == (before, repomd)
    assert 0 < count_kept(tree) < COUNT
    left = COUNT - count_kept(tree)
    assert reading(strong).run(save=True) == left
    assert reading(strong).run() == 0
    assert len(metadata(tree) - before) == 3


def test_what_was_read_for_settings_that_were_taken_back_is_forgotten(
    tree: Path, reading: Callable[..., Reading]
) -> None:
    reading().run(save=True)
    before = metadata(tree)
    with pytest.raises(Stopped):
        reading(Recipe(checksum="sha512")).run(stop_after=MANY)
    assert reading().run() == 0
    assert metadata(tree) == before


def test_a_package_that_changed_since_the_stop_is_read_again(
    tree: Path, reading: Callable[[], Reading]
) -> None:
    with pytest.raises(Stopped):
        reading().run(stop_after=MANY)
    left = COUNT - count_kept(tree)
    make_rpm(tree, "p0", summary="Changed")
    again = reading()
    assert again.run() in (left, left + 1)
    publication = again.index.publication
    assert publication is not None
    assert len(publication.entries) == COUNT


def count_kept(tree: Path) -> int:
    return len(re.findall(rb'"p\d+-1\.0-1\.noarch\.rpm"', progress_of(tree).read_bytes()))


@pytest.mark.parametrize("keep", [0.0, 0.3, 0.99])
def test_a_torn_end_costs_what_it_held(tree: Path, reading: Callable[[], Reading], keep: float) -> None:
    with pytest.raises(Stopped):
        reading().run(stop_after=MANY)
    path = progress_of(tree)
    os.truncate(path, int(path.stat().st_size * keep))
    with pytest.raises(Stopped):
        reading().run(stop_after=20)  # goes on behind what is whole
    kept = count_kept(tree)
    assert reading().run() == COUNT - kept


def test_altered_bytes_end_what_is_believed(tree: Path, reading: Callable[[], Reading]) -> None:
    with pytest.raises(Stopped):
        reading().run(stop_after=MANY)
    content = bytearray(progress_of(tree).read_bytes())
    content[len(content) // 2] ^= 1
    progress_of(tree).write_bytes(content)
    whole = reading()
    whole.run()
    wanted = metadata(tree)
    subprocess.run(["rm", "-rf", tree / ".repowatch", tree / "repodata"], check=True)
    reading().run()
    assert metadata(tree) == wanted


def test_a_killed_process_loses_the_batch_in_hand_and_no_more(tree: Path, tmp_path: Path) -> None:
    endless = make_endless(tree, "zzz")  # the last one in order
    process = subprocess.Popen([*COMMAND, "index", tree], stderr=subprocess.DEVNULL)
    try:
        wait_until(lambda: progress_of(tree).exists() and count_kept(tree) > COUNT - MANY)
    finally:
        process.kill()
        process.wait()
    assert not metadata(tree)
    endless.unlink()
    again = repowatch("index", tree)
    assert again.returncode == 0, again.stderr
    found = re.search(r"(\d+) packages were read before", again.stderr)
    assert found is not None
    assert int(found[1]) > COUNT - MANY
    assert repowatch("verify", tree).returncode == 0


@pytest.mark.parametrize("size", [-1, 1 << 60])
def test_a_size_that_can_not_be_ends_what_is_believed(
    tree: Path, reading: Callable[[], Reading], size: int
) -> None:
    with pytest.raises(Stopped):
        reading().run(stop_after=MANY)
    head, first, *_ = progress_of(tree).read_bytes().split(b"\n")
    checksum, _, row = first.partition(b" ")
    packages, pieces = json.loads(row)
    pieces[1][0] = size
    line = json.dumps([packages, pieces]).encode()
    progress_of(tree).write_bytes(head + b"\n" + checksum + b" " + line + b"\n" + bytes(100))
    assert reading().run() == COUNT


def test_a_disk_that_is_full_for_the_progress_costs_nothing_else(
    tree: Path, tmp_path: Path, readers: Readers, caplog: pytest.LogCaptureFixture
) -> None:
    require_mounts()
    with memory_disk(tmp_path / "full", kilobytes=16) as disk:
        store = Store(Home(str(disk)), name="test", root=str(disk), recipe=PLAIN)
        os.makedirs(disk / ".repowatch" / "cache")
        [batch] = readers.read([[to_read(path) for path in tree.iterdir()]], PLAIN)
        assert batch.run is not None
        assert not store.keep(batch.run)
        store.close()
        assert os.listdir(disk / ".repowatch" / "cache") == []
    assert "begins anew" in caplog.text
