"""The process dies at every step of a snapshot or a rollback: either is there whole, or not at all.

A sample of the steps is struck; REPOWATCH_FAULTS=all strikes each of them.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from repowatch.model.snapshot import Snapshot
from tests.faults import rewinding
from tests.faults.extent import sample
from tests.faults.lane import packages_in, pkgid
from tests.faults.tracing import STEPS, Point, kill_at, logging_to, points_in, run
from tests.kit.rpms import make_rpm
from tests.kit.views import from_disk, read_view

pytestmark = pytest.mark.client("strace")

COMMAND = (sys.executable, "-m", rewinding.__name__)
CALLS = f"{STEPS},link,linkat"


def do(*arguments: str | Path) -> None:
    subprocess.run([*COMMAND, *map(str, arguments)], check=True, timeout=60, stderr=subprocess.DEVNULL)


class Tree:
    """A repository with a snapshot called one, in which everything changed since then."""

    def __init__(self, directory: Path) -> None:
        self.root = directory / "rpm"
        for name in ("changed", "left"):
            make_rpm(self.root, name)
        do("take", self.root, "one")
        self.kept = packages_in(self.root)
        (self.root / "left-1.0-1.noarch.rpm").unlink()
        make_rpm(directory / "made", "changed", summary="2").rename(self.root / "changed-1.0-1.noarch.rpm")
        make_rpm(self.root, "came")
        do("start", self.root, "-")
        self.there = packages_in(self.root)
        assert self.published == self.there != self.kept

    @property
    def published(self) -> dict[str, str]:
        return dict(read_view(from_disk(self.root)).packages)

    @property
    def snapshots(self) -> dict[str, dict[str, str | None]]:
        """What each snapshot has by location: the pkgids of the files that it would give out."""
        directories = [
            each
            for each in (self.root / ".repowatch" / "snapshots").iterdir()
            if not each.name.startswith(".")
        ]
        return {each.name: self._packages(each) for each in directories}

    def _packages(self, directory: Path) -> dict[str, str | None]:
        snapshot = Snapshot.parse((directory / "packages").read_bytes())
        listed = {name: kept.pkgid for name, kept in snapshot.packages.items()}
        assert read_view(from_disk(directory)).packages == listed
        return {name: pkgid(self._held(each)) for name, each in listed.items()}

    def _held(self, pkgid: str) -> Path:
        return self.root / ".repowatch" / "retired" / f"{pkgid}.rpm"

    def has(self, pkgids: Iterable[str | None]) -> bool:
        """Whether all of these are in the tree, or beside it."""
        there = set(packages_in(self.root).values())
        return all(each in there or (each and self._held(each).exists()) for each in pkgids)


def steps_of(what: str, name: str, directory: Path) -> list[Point]:
    tree, log = Tree(directory), directory / "strace.log"
    assert run(logging_to(log, calls=CALLS), *COMMAND, what, tree.root, name) == 0
    wanted = tree.kept if what == "rollback" else tree.there
    assert tree.published == packages_in(tree.root) == wanted
    assert what == "rollback" or tree.snapshots["two"] == tree.there
    return points_in(log)


def after_a_snapshot(tree: Tree) -> str | None:
    """What is wrong."""
    try:
        snapshots = tree.snapshots
    except Exception as error:
        return f"a snapshot is not whole: {error!r}"
    if tree.published != packages_in(tree.root) or tree.published != tree.there:
        return "the repository changed"
    return (
        None if snapshots in ({"one": tree.kept}, {"one": tree.kept, "two": tree.there}) else f"{snapshots}"
    )


def after_a_rollback(tree: Tree) -> str | None:
    """What is wrong."""
    if tree.published != packages_in(tree.root):
        return "the tree is not what is published"
    if tree.published not in (tree.kept, tree.there):
        return f"a part is published: {sorted(tree.published)}"
    if tree.snapshots != {"one": tree.kept}:
        return "the snapshot is damaged"
    came = tree.there["came-1.0-1.noarch.rpm"]
    return None if tree.has([came]) else "what came since is lost"


def wrong(
    what: str, name: str, points: Sequence[Point], check: Callable[[Tree], str | None], directory: Path
) -> list[str]:
    """Die at each of the points, and start again; what is wrong with what is there then."""

    def struck(number: int) -> str | None:
        tree = Tree(directory / f"{what}{number}")
        run(kill_at(points[number]), *COMMAND, what, tree.root, name)
        assert tree.published in (tree.there, tree.kept), f"{points[number]}: the death itself shows a part"
        do("start", tree.root, "-")
        outcome = check(tree)
        return outcome and f"{points[number]}: {outcome}"

    with ThreadPoolExecutor(2) as pool:
        return [outcome for outcome in pool.map(struck, range(len(points))) if outcome]


def test_a_death_at_any_step_of_a_snapshot_leaves_it_whole_or_not_at_all(tmp_path: Path) -> None:
    links = [each for each in steps_of("careless", "two", tmp_path / "guilty") if "link" in each.call]
    holding = [each for each in links if each.call != "unlink"][-1:]
    assert wrong("careless", "two", holding, after_a_snapshot, tmp_path), "the guilty one is not convicted"
    points = sample(steps_of("take", "two", tmp_path / "clean"), most=8)
    assert wrong("take", "two", points, after_a_snapshot, tmp_path) == []


def test_a_death_at_any_step_of_a_rollback_leaves_the_one_tree_or_the_other(tmp_path: Path) -> None:
    points = sample(steps_of("rollback", "one", tmp_path / "clean"), most=8)
    assert wrong("rollback", "one", points, after_a_rollback, tmp_path) == []
