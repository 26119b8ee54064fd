"""The power is cut; what was acknowledged is there, whole and listed, and no view is broken.

A real ext4 in a file: the daemon is stopped, the file copied, and the copy mounted, which replays the
journal of what had reached the disk. REPOWATCH_FAULTS=all cuts more often.
"""

from __future__ import annotations

import contextlib
import itertools
import random
import signal
import threading
import time
from pathlib import Path

import pytest

from tests.faults.extent import ALL
from tests.faults.lane import DONE, Lane, assert_converged
from tests.faults.tracing import WITHOUT_FSYNC, attached
from tests.kit.daemon import repowatch
from tests.kit.loopfs import Disk, mounted, new_disk, require_mounts
from tests.kit.views import BrokenView

pytestmark = pytest.mark.client("strace")

UPLOADS = 20
SEEDS = range(40 if ALL else 4)


@pytest.fixture(autouse=True)
def _mounts() -> None:
    require_mounts()


def new_lane(disk: Disk, scratch: Path) -> Lane:
    tree = disk.root / "rpm"
    tree.mkdir()
    return Lane(tree, scratch)


def upload_all(lane: Lane) -> None:
    """New packages, some in new directories, some replaced, some deleted again; all of it acknowledged."""
    for number in range(UPLOADS):
        if number % 4 == 0:
            assert lane.daemon.request("MKCOL", f"/rpm/d{number}").status == 201
        name = f"d{number // 4 * 4}/p{number}.rpm"
        for version in "12" if number % 3 == 0 else "1":
            answer = lane.put(name, lane.package(f"p{number}", version))
            assert answer is not None and answer.status in DONE
        if number % 5 == 0:
            answer = lane.delete(name)
            assert answer is not None and answer.status == 204


def stop_and_cut(lane: Lane, disk: Disk) -> Path:
    """Stop the daemon where it stands, and cut the power; the image that is left."""
    image = disk.image.with_suffix(".left")
    lane.daemon.signal(signal.SIGSTOP)
    disk.cut_power(image)
    lane.daemon.kill()
    return image


def test_what_was_acknowledged_survives_a_power_cut(tmp_path: Path) -> None:
    with contextlib.ExitStack() as stack:
        disk = stack.enter_context(new_disk(tmp_path))
        lane = new_lane(disk, tmp_path / "scratch")
        stack.enter_context(lane.daemon)
        upload_all(lane)
        left = stack.enter_context(mounted(stop_and_cut(lane, disk), tmp_path / "left"))
        lane.assert_kept(left.root / "rpm")
        assert repowatch("index", left.root / "rpm").returncode == 0
        assert_converged(left.root / "rpm")


def test_a_daemon_without_fsync_is_convicted(tmp_path: Path) -> None:
    with contextlib.ExitStack() as stack:
        disk = stack.enter_context(new_disk(tmp_path))
        lane = new_lane(disk, tmp_path / "scratch")
        stack.enter_context(lane.daemon)
        with attached(lane.daemon.pid, WITHOUT_FSYNC):
            upload_all(lane)
        left = stack.enter_context(mounted(stop_and_cut(lane, disk), tmp_path / "left"))
        with pytest.raises((AssertionError, BrokenView)):
            lane.assert_kept(left.root / "rpm")


@pytest.mark.parametrize("seed", SEEDS)
def test_what_was_acknowledged_survives_a_power_cut_in_a_stream_of_uploads(seed: int, tmp_path: Path) -> None:
    chance = random.Random(seed)
    with contextlib.ExitStack() as stack:
        disk = stack.enter_context(new_disk(tmp_path))
        lane = new_lane(disk, tmp_path / "scratch")
        stack.enter_context(lane.daemon)
        clients = [threading.Thread(target=stream, args=(lane, client, seed)) for client in range(3)]
        for client in clients:
            client.start()
        time.sleep(chance.uniform(0.05, 0.6))  # the moment is what is tried
        left = stack.enter_context(mounted(stop_and_cut(lane, disk), tmp_path / "left"))
        for client in clients:
            client.join()
        lane.assert_kept(left.root / "rpm")
        assert repowatch("index", left.root / "rpm").returncode == 0
        assert_converged(left.root / "rpm")


def stream(lane: Lane, client: int, seed: int) -> None:
    """Upload until cut off: new packages and replacing ones, each client under names of its own."""
    chance = random.Random(f"{seed}/{client}")
    for number in itertools.count():
        name = f"c{client}-{chance.randrange(8)}"
        if lane.put(f"{name}.rpm", lane.package(name, str(number))) is None:
            return
