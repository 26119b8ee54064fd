"""The process dies at every step of a commit: the next start publishes all of the batch or none of it.

A sample of the steps is struck; REPOWATCH_FAULTS=all strikes each of them.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.faults import committing
from tests.faults.extent import sample
from tests.faults.lane import packages_in
from tests.faults.tracing import Point, kill_at, logging_to, points_in, run
from tests.kit.rpms import make_rpm
from tests.kit.views import from_disk, read_view

pytestmark = pytest.mark.client("strace")

COMMAND = (sys.executable, "-m", committing.__name__)

OLD = {"changed-1.0-1.noarch.rpm", "gone-1.0-1.noarch.rpm"}
NEW = {"changed-1.0-1.noarch.rpm", "come-1.0-1.noarch.rpm", "later-1.0-1.noarch.rpm"}


def do(*arguments: str | Path) -> None:
    subprocess.run([*COMMAND, *map(str, arguments)], check=True, timeout=60, stderr=subprocess.DEVNULL)


class Tree:
    """A repository with a batch that is full: what it has now, and what the commit makes of it."""

    def __init__(self, directory: Path) -> None:
        self.root = directory / "rpm"
        for name in ("changed", "gone"):
            make_rpm(self.root, name)
        coming = [make_rpm(directory / "made", name, summary="2") for name in ("changed", "come", "later")]
        do("fill", self.root, *coming)
        self.old = packages_in(self.root)
        self.new = {path.name: packages_in(path.parent)[path.name] for path in coming}
        assert (set(self.old), set(self.new)) == (OLD, NEW)

    @property
    def published(self) -> dict[str, str]:
        return dict(read_view(from_disk(self.root)).packages)

    @property
    def is_open(self) -> bool:
        """Whether the batch is there, with all of its packages."""
        directory = self.root / ".repowatch" / "batches" / committing.BATCH
        return (directory / "members").exists() and len(list(directory.glob("*.rpm"))) == len(NEW)


def clean_run(directory: Path) -> list[Point]:
    """The steps of a commit to which nothing happens."""
    tree, log = Tree(directory), directory / "strace.log"
    assert run(logging_to(log), *COMMAND, "commit", tree.root) == 0
    assert tree.published == packages_in(tree.root) == tree.new
    assert not tree.is_open
    return points_in(log)


def struck(point: Point, next_start: str, directory: Path) -> str | None:
    """Die there, and start again; what is wrong with what is there then."""
    tree = Tree(directory)
    run(kill_at(point), *COMMAND, "commit", tree.root)
    assert tree.published in (tree.old, tree.new), f"{point}: the death itself shows a part"
    do(next_start, tree.root)
    if tree.published != packages_in(tree.root):
        return f"{point}: the tree is not what is published"
    if tree.published not in (tree.old, tree.new):
        return f"{point}: a part is published: {sorted(tree.published)}"
    if tree.published == tree.old and not tree.is_open:
        return f"{point}: the batch is gone, and not published"
    if tree.published == tree.old:
        do("commit", tree.root)
    if tree.published != tree.new or tree.is_open:
        return f"{point}: the commit can not be made up for"
    return None


def wrong(points: Sequence[Point], next_start: str, directory: Path) -> list[str]:
    with ThreadPoolExecutor(2) as pool:
        outcomes = pool.map(
            lambda each: struck(each[1], next_start, directory / f"{next_start}{each[0]}"), enumerate(points)
        )
        return [outcome for outcome in outcomes if outcome]


def test_a_death_at_any_step_of_a_commit_leaves_all_or_nothing(tmp_path: Path) -> None:
    points = clean_run(tmp_path / "clean")
    renames = [point for point in points if point.call == "rename"]
    assert wrong(sample(renames, most=4), "forgetful", tmp_path), "the guilty one is not convicted"
    assert wrong(sample(points, most=10), "index", tmp_path) == []
