"""The process dies at every step of a change; no view breaks, no promise is lost, the next start converges.

A sample of the steps is struck; REPOWATCH_FAULTS=all strikes each of them.
"""

from __future__ import annotations

import contextlib
import shutil
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.faults import hasty
from tests.faults.changes import Change, clean_run, delete, drop, move, new_lane, prepared, replace, upload
from tests.faults.extent import sample
from tests.faults.lane import Lane, assert_converged
from tests.faults.tracing import Point, attached, has_ended, kill_at, logging_to, points_in, run
from tests.kit.daemon import COMMAND, repowatch, wait_until
from tests.kit.rpms import make_rpm
from tests.kit.views import BrokenView, Missing, from_disk, read_view

pytestmark = pytest.mark.client("strace")

# strace counts the calls of each thread, and which thread writes which file is for the scheduler to say: a
# step that did not come in one life comes in another.
LIVES = 8


def die_at_each(points: Sequence[Point], change: Change, directory: Path) -> int:
    """Lives of the daemon for each of the points, until one ends there; for how many points one did."""
    lane = new_lane(directory)
    deaths = 0
    with lane.daemon as daemon:
        for number, point in enumerate(points):
            deaths += any(dies_at(point, change, lane, f"p{number}-{life}") for life in range(LIVES))
        assert daemon.terminate() == 0
    assert_converged(lane.tree)
    return deaths


def dies_at(point: Point, change: Change, lane: Lane, name: str) -> bool:
    """Whether the daemon dies there in one change; it runs again after that."""
    prepared(lane, name)
    with attached(lane.daemon.pid, kill_at(point)):
        change(lane, name)
        # The last steps come after the answer.
        with contextlib.suppress(AssertionError):
            wait_until(lambda: has_ended(lane.daemon.pid), 1.0)
    died = has_ended(lane.daemon.pid)
    lane.daemon.kill()
    lane.assert_kept()
    lane.daemon.start()
    lane.converge()
    return died


@pytest.mark.parametrize("change", [upload, replace, delete, move, drop])
def test_a_death_at_any_step_breaks_no_view_and_no_promise(change: Change, tmp_path: Path) -> None:
    points = clean_run(change, tmp_path / "clean")
    struck = sample(points, most=10 if change is upload else 5)
    with ThreadPoolExecutor(2) as pool:
        lanes = [
            pool.submit(die_at_each, struck[lane::2], change, tmp_path / f"lane{lane}") for lane in (0, 1)
        ]
        deaths = sum(lane.result() for lane in lanes)
    # The last steps come after the answer: the change may be over before strace kills.
    assert deaths >= len(struck) - 1


def broken_at(point: Point, command: Sequence[str | Path], tree: Path, *, before: Path) -> str | None:
    """Die there in a first publication of a copy of `before`; what is broken in the view that is left."""
    for _ in range(LIVES):
        shutil.rmtree(tree, ignore_errors=True)
        shutil.copytree(before, tree)
        if run(kill_at(point), *command, "index", tree) < 0:
            break
    else:
        pytest.fail(f"{point} did not come in {LIVES} lives")
    try:
        read_view(from_disk(tree))
    except Missing:
        return None
    except BrokenView as error:
        return f"{point}: {error}"
    return None


def first_publications(command: Sequence[str | Path], directory: Path) -> dict[Path, str | None]:
    """Die at some steps of a first publication of an existing tree; what is broken in each copy of it."""
    before, clean, log = directory / "before", directory / "clean", directory / "strace.log"
    for number in range(3):
        make_rpm(before, f"p{number}")
    shutil.copytree(before, clean)
    assert run(logging_to(log), *command, "index", clean) == 0
    assert_converged(clean)

    def strike(point: Point) -> tuple[Path, str | None]:
        tree = directory / f"{point.call}-{point.at}"
        return tree, broken_at(point, command, tree, before=before)

    with ThreadPoolExecutor(2) as pool:
        return dict(pool.map(strike, sample(points_in(log), most=5)))


def test_a_death_at_any_step_of_a_first_publication_leaves_none_or_a_whole_one(tmp_path: Path) -> None:
    left = first_publications(COMMAND, tmp_path)
    assert not any(left.values()), left
    for tree in left:
        assert repowatch("index", tree).returncode == 0
        assert_converged(tree)


def test_a_publisher_that_is_hasty_with_repomd_is_convicted(tmp_path: Path) -> None:
    assert any(first_publications([sys.executable, "-m", hasty.__name__], tmp_path).values())
