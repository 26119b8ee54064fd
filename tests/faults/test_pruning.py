"""The process dies at every step of a pruning; what was ever listed is served, and the next start converges.

A sample of the steps is struck; REPOWATCH_FAULTS=all strikes each of them.
"""

from __future__ import annotations

import contextlib
import http.client
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.faults import forgetful
from tests.faults.extent import sample
from tests.faults.lane import assert_converged, packages_in, pkgid
from tests.faults.tracing import Point, attached, has_ended, kill_at, logging_to, points_in
from tests.kit import daemon as kit
from tests.kit.daemon import Daemon, wait_until
from tests.kit.rpms import make_rpm
from tests.kit.views import from_disk, read_view

pytestmark = pytest.mark.client("strace")

LIVES = 4  # see test_death


class Pruned:
    """A repository that keeps one version of each package, and everything that clients were ever told of."""

    def __init__(self, directory: Path) -> None:
        self.tree = directory / "rpm"
        self.tree.mkdir(parents=True)
        self.made = directory / "made"
        rule = "prune: [{match: 'p*', keep: 1}], grace: 1d"
        configuration = f"repositories:\n  rpm: {{path: {self.tree}, {rule}}}\n"
        self.daemon = Daemon(scratch=directory / "scratch", configuration=configuration)
        self.told: dict[str, str | None] = {}

    def upload_two_versions(self, name: str) -> None:
        for version in "12":
            package = make_rpm(self.made, name, version)
            assert self.daemon.put(f"/rpm/{package.name}", package).status in (201, 204)
            self.told[package.name] = pkgid(package)

    def prune(self) -> None:
        """Ask for it, and do not mind when the daemon dies of it."""
        with contextlib.suppress(OSError, http.client.HTTPException):
            self.daemon.request("POST", "/-/api/v1/rpm/prune", b"{}")

    def is_pruned(self) -> bool:
        newest = {name for name in self.told if "-2-1." in name}
        return read_view(from_disk(self.tree)).packages.keys() == packages_in(self.tree).keys() == newest

    def lost(self) -> list[str]:
        """What clients with older metadata would not get, or not as it was listed."""
        answers = {name: self.daemon.get(f"/rpm/{name}") for name in self.told}
        return [
            name
            for name, answer in answers.items()
            if answer.status != 200 or answer.headers["ETag"] != f'"{self.told[name]}"'
        ]


def steps_of_a_pruning(directory: Path) -> list[Point]:
    pruned, log = Pruned(directory), directory / "strace.log"
    with pruned.daemon:
        pruned.upload_two_versions("p")
        with attached(pruned.daemon.pid, logging_to(log)):
            pruned.prune()
        assert pruned.is_pruned()
        assert pruned.lost() == []
    return points_in(log)


def die_at_each(points: Sequence[Point], directory: Path) -> tuple[int, list[str]]:
    """For how many of the points a daemon died there, and what was lost by it."""
    pruned = Pruned(directory)
    deaths = 0
    with pruned.daemon:
        for number, point in enumerate(points):
            deaths += any(dies_at(point, pruned, f"p{number}-{life}") for life in range(LIVES))
        lost = pruned.lost()
        assert pruned.daemon.terminate() == 0
    return deaths, lost


def dies_at(point: Point, pruned: Pruned, name: str) -> bool:
    pruned.upload_two_versions(name)
    with attached(pruned.daemon.pid, kill_at(point)):
        pruned.prune()
        with contextlib.suppress(AssertionError):
            wait_until(lambda: has_ended(pruned.daemon.pid), 0.2)
    died = has_ended(pruned.daemon.pid)
    pruned.daemon.kill()
    read_view(from_disk(pruned.tree))
    pruned.daemon.start()
    wait_until(pruned.is_pruned, 15)
    return died


def test_a_death_at_any_step_of_a_pruning_loses_nothing_that_was_listed(tmp_path: Path) -> None:
    points = sample(steps_of_a_pruning(tmp_path / "clean"), most=8)
    deaths, lost = die_at_each(points, tmp_path / "dying")
    assert lost == []
    assert deaths >= len(points) - 1
    assert_converged(tmp_path / "dying" / "rpm")


def test_a_store_that_notes_names_too_late_is_convicted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kit, "COMMAND", (sys.executable, "-m", forgetful.__name__))
    renames = [each for each in steps_of_a_pruning(tmp_path / "clean") if each.call == "rename"]
    deaths, lost = die_at_each(renames[-2:], tmp_path / "dying")
    assert deaths
    assert lost
