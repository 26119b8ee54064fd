"""The changes to a repository that faults strike, each made of the packages that `prepared` put there."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from tests.faults.lane import Lane
from tests.faults.tracing import Point, attached, has_ended, logging_to, points_in
from tests.kit.daemon import wait_until
from tests.kit.rpms import make_rpm

Change = Callable[[Lane, str], object]


def upload(lane: Lane, name: str) -> None:
    lane.put(f"{name}-new.rpm", lane.package(name, "2"))


def replace(lane: Lane, name: str) -> None:
    lane.put(f"{name}.rpm", lane.package(name, "2"))


def delete(lane: Lane, name: str) -> None:
    lane.delete(f"{name}.rpm")


def move(lane: Lane, name: str) -> None:
    lane.move(f"{name}.rpm", to=f"{name}-moved.rpm")


def drop(lane: Lane, name: str) -> None:
    """Leave a package in the tree, as any tool may, and wait until it is listed."""
    target = lane.tree / f"{name}-dropped.rpm"
    os.rename(lane.package(name, "2"), target)
    wait_until(lambda: has_ended(lane.daemon.pid) or lane.is_up_to_date())


def prepared(lane: Lane, name: str) -> None:
    """Something to replace, delete or move."""
    answer = lane.put(f"{name}.rpm", lane.package(name))
    assert answer is not None and answer.status == 201


def new_lane(directory: Path) -> Lane:
    (directory / "rpm").mkdir(parents=True)
    make_rpm(directory / "rpm", "first")
    return Lane(directory / "rpm", directory / "scratch")


def clean_run(change: Change, directory: Path) -> list[Point]:
    """The steps that a change takes when nothing happens to it."""
    lane = new_lane(directory)
    log = directory / "strace.log"
    with lane.daemon:
        prepared(lane, "p")
        with attached(lane.daemon.pid, logging_to(log)):
            change(lane, "p")
        lane.assert_kept()
        assert lane.is_up_to_date()
    return points_in(log)
