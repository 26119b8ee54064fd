"""The disk is full, or fails at any step: the old view stands, the client is told, it goes on by itself."""

from __future__ import annotations

import contextlib
import os
import random
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from repowatch.repository.generations import KEPT
from repowatch.repository.index import Index
from repowatch.repository.readers import Readers
from repowatch.repository.updater import Updater
from repowatch.system.threads import Thread
from tests.faults.changes import Change, clean_run, delete, move, prepared, replace, upload
from tests.faults.extent import sample
from tests.faults.lane import Lane, assert_converged, pkgid
from tests.faults.tracing import Point, attached, fail_at, has_ended
from tests.kit.clock import FakeClock
from tests.kit.daemon import Answer, wait_until
from tests.kit.loopfs import fill, memory_disk, new_disk, require_mounts
from tests.kit.rpms import make_rpm
from tests.kit.views import from_disk, read_view

MANY = 150  # packages whose metadata needs more room than one more package does


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Lane]:
    """A repository with old.rpm and many others on a disk of its own, and its daemon."""
    require_mounts()
    with memory_disk(tmp_path / "disk", kilobytes=8192) as root:
        lane = Lane(root / "rpm", tmp_path / "scratch")
        chance = random.Random(1)
        for number in range(MANY):
            make_rpm(lane.tree, f"p{number}", summary=chance.randbytes(40).hex())
        with lane.daemon:
            wait_until(lane.is_up_to_date)
            answer = lane.put("old.rpm", lane.package("old"))
            assert answer is not None and answer.status == 201
            yield lane


def staged(lane: Lane) -> list[str]:
    return os.listdir(lane.tree / ".repowatch" / "staging")


def health(lane: Lane) -> Answer:
    return lane.daemon.get("/healthz")


def test_an_upload_that_does_not_fit_is_told_507_and_the_old_file_stands(small: Lane) -> None:
    ballast = fill(small.tree, leave=8192)
    large = make_rpm(small.tree.parents[1] / "in", "old", files={"/usr/share/large": os.urandom(1 << 16)})
    answer = small.put("old.rpm", large)
    assert answer is not None and answer.status == 507
    assert answer.text.count("\n") <= 1
    view = small.assert_kept()
    assert view is not None and view.packages["old.rpm"] == pkgid(small.tree / "old.rpm") != pkgid(large)
    assert staged(small) == []
    assert health(small).status == 200
    ballast.unlink()
    answer = small.put("old.rpm", large)
    assert answer is not None and answer.status == 204
    small.assert_kept()


def test_a_stream_that_runs_out_of_space_is_told_507_and_leaves_nothing(small: Lane) -> None:
    ballast = fill(small.tree, leave=1 << 16)
    large = make_rpm(small.tree.parents[1] / "in", files={"/usr/share/large": os.urandom(1 << 18)})

    with open(large, "rb") as stream:  # its size is not known beforehand: it is sent in chunks
        answer = small.daemon.request("PUT", "/rpm/new.rpm", stream)  # type: ignore[arg-type]
    assert answer.status == 507
    assert staged(small) == []
    assert not (small.tree / "new.rpm").exists()
    ballast.unlink()


def test_an_upload_whose_metadata_does_not_fit_is_told_507_and_the_old_file_stands(small: Lane) -> None:
    ballast = fill(small.tree, leave=8192)
    before = read_view(from_disk(small.tree))
    newer = small.package("old", "2")
    answer = small.put("old.rpm", newer)
    assert answer is not None and answer.status == 507
    assert read_view(from_disk(small.tree)) == before
    assert pkgid(small.tree / "old.rpm") == before.packages["old.rpm"]
    assert staged(small) == []
    ballast.unlink()
    answer = small.put("old.rpm", newer)
    assert answer is not None and answer.status == 204
    wait_until(lambda: health(small).status == 200)
    small.assert_kept()


def test_a_batch_whose_metadata_does_not_fit_is_told_507_and_can_be_committed_when_there_is_room(
    small: Lane,
) -> None:
    for name in ("one", "two"):
        answer = small.daemon.put(
            f"/rpm/{name}.rpm", small.package(name), headers={"Repowatch-Batch": "nightly"}
        )
        assert answer.status == 202
    before = read_view(from_disk(small.tree))
    ballast = fill(small.tree, leave=8192)
    commit = ("POST", "/-/api/v1/rpm/commit", b'{"batch": "nightly"}')
    answer = small.daemon.request(*commit)
    assert answer.status == 507
    assert "no space left" in answer.text
    assert read_view(from_disk(small.tree)) == before
    ballast.unlink()
    assert small.daemon.request(*commit).status == 200
    after = read_view(from_disk(small.tree)).packages.keys()
    assert after - before.packages.keys() == {"one.rpm", "two.rpm"}


def test_publications_that_do_not_fit_leave_none_of_their_metadata(small: Lane) -> None:
    before = set(os.listdir(small.tree / "repodata"))
    for leave in range(4096, 1 << 16, 4096):
        ballast = fill(small.tree, leave=leave)
        answer = small.put("new.rpm", small.package("new", str(leave)))
        ballast.unlink()
        assert answer is not None
        if answer.status == 201:
            break
        assert set(os.listdir(small.tree / "repodata")) == before
    else:
        pytest.fail("no publication was small enough")


def test_a_dropped_package_whose_metadata_does_not_fit_is_told_by_health_and_listed_when_there_is_room(
    small: Lane,
) -> None:
    (small.tree / ".in").mkdir()
    dropped = make_rpm(small.tree / ".in", "dropped")
    ballast = fill(small.tree)
    os.rename(dropped, small.tree / "dropped.rpm")
    wait_until(lambda: health(small).status == 503)
    assert "no space left" in health(small).text.lower()
    assert "dropped.rpm" not in read_view(from_disk(small.tree)).packages
    ballast.unlink()
    wait_until(lambda: "dropped.rpm" in read_view(from_disk(small.tree)).packages)
    wait_until(lambda: health(small).status == 200)
    assert small.daemon.terminate() == 0
    assert_converged(small.tree)


def test_a_start_on_a_full_disk_serves_what_is_published(small: Lane) -> None:
    small.daemon.kill()
    ballast = fill(small.tree)
    small.daemon.start()
    assert small.daemon.get("/rpm/old.rpm").status == 200
    assert small.daemon.get("/rpm/repodata/repomd.xml").status == 200
    answer = small.put("old.rpm", small.package("old", "2"))
    assert answer is not None and answer.status == 507
    small.assert_kept()
    ballast.unlink()


def test_a_directory_that_can_not_be_copied_leaves_nothing(small: Lane) -> None:
    assert small.daemon.request("MKCOL", "/rpm/d").status == 201
    large = make_rpm(small.tree.parents[1] / "in", "large", files={"/usr/share/large": os.urandom(1 << 18)})
    assert small.daemon.put("/rpm/d/large.rpm", large).status == 201
    ballast = fill(small.tree, leave=1 << 17)
    answer = small.daemon.request("COPY", "/rpm/d/", headers={"Destination": f"{small.daemon.url}rpm/e/"})
    assert answer.status == 507
    assert staged(small) == []
    assert not (small.tree / "e").exists()
    ballast.unlink()


def test_a_directory_whose_move_fails_leaves_the_one_it_was_to_replace(small: Lane) -> None:
    for name in ("d", "e"):
        assert small.daemon.request("MKCOL", f"/rpm/{name}").status == 201
        assert small.daemon.put(f"/rpm/{name}/x.rpm", small.package(name)).status == 201
    before = pkgid(small.tree / "e" / "x.rpm")
    with attached(small.daemon.pid, fail_at(Point("rename", 2), "EIO")):
        answer = small.daemon.request(
            "MOVE", "/rpm/d/", headers={"Destination": f"{small.daemon.url}rpm/e/", "Overwrite": "T"}
        )
    assert answer.status >= 500
    assert pkgid(small.tree / "e" / "x.rpm") == before
    small.assert_kept()


def test_a_disk_that_becomes_read_only_keeps_serving_and_refuses_changes(tmp_path: Path) -> None:
    require_mounts()
    with contextlib.ExitStack() as stack:
        disk = stack.enter_context(new_disk(tmp_path))
        lane = Lane(disk.root / "rpm", tmp_path / "scratch")
        lane.tree.mkdir()
        daemon = stack.enter_context(lane.daemon)
        prepared(lane, "p")
        disk.fail()
        for change in (upload, replace, delete, move):
            change(lane, "p")
        lane.assert_kept()
        assert daemon.get("/rpm/p.rpm").status == 200
        assert lane.refusals and all(answer.status >= 500 for answer in lane.refusals)
        assert daemon.terminate() == 0


def test_superseded_metadata_that_can_not_be_removed_ends_no_daemon(tmp_path: Path) -> None:
    require_mounts()
    clock = FakeClock()
    ended: list[str] = []
    with contextlib.ExitStack() as stack:
        disk = stack.enter_context(new_disk(tmp_path))
        readers = Readers(processes=1)
        stack.callback(readers.close)
        pool = stack.enter_context(ThreadPoolExecutor(1))
        index = Index(str(disk.root), name="rpm", readers=readers, pool=pool, clock=clock)
        index.open()
        stack.callback(index.close)
        for name in ("first", "second"):
            make_rpm(disk.root, name)
            index.turn([""])
        disk.fail()
        clock.advance(2 * KEPT)
        updater = Updater(index, clock=clock, settle=0, deadline=0)
        thread = Thread("updater", updater.run, failed=ended.append)
        thread.start()
        for _ in range(2):  # the second answer comes after the sweep that followed the first
            answer = updater.look("")
            wait_until(lambda: ended or answer.done())  # noqa: B023
        updater.stop()
        thread.join()
    assert ended == []


@pytest.mark.client("strace")
@pytest.mark.parametrize("change", [upload, replace, delete, move])
def test_a_call_that_fails_at_any_step_breaks_no_view_and_no_promise(change: Change, tmp_path: Path) -> None:
    points = clean_run(change, tmp_path / "clean")
    strikes = sample([(point, error) for point in points for error in ("ENOSPC", "EIO")], most=8)
    with ThreadPoolExecutor(2) as pool:
        lanes = [
            pool.submit(fail_at_each, strikes[lane::2], change, tmp_path / f"lane{lane}") for lane in (0, 1)
        ]
        troubles = [trouble for lane in lanes for trouble in lane.result()]
    assert not troubles, "\n".join(troubles)


def fail_at_each(strikes: Sequence[tuple[Point, str]], change: Change, directory: Path) -> list[str]:
    """Let one call of a change fail, with one error, for each of these; what was wrong after that."""
    tree = directory / "rpm"
    tree.mkdir(parents=True)
    lane = Lane(tree, directory / "scratch")
    troubles = []
    with lane.daemon as daemon:
        for number, (point, error) in enumerate(strikes):
            prepared(lane, f"p{number}")
            before = read_view(from_disk(tree)).packages
            files = {name: pkgid(tree / name) for name in before}
            lane.refusals.clear()
            with attached(daemon.pid, fail_at(point, error)):
                change(lane, f"p{number}")
            try:
                assert not has_ended(daemon.pid), "the daemon ended"
                lane.assert_kept()
                if lane.refusals and "nothing was changed" in lane.refusals[0].text:
                    assert {name: pkgid(tree / name) for name in before} == files, "something was changed"
                lane.converge()
                wait_until(lambda: daemon.get("/healthz").status == 200, 5)
            except AssertionError as trouble:
                told = [f"{answer.status} {answer.text.strip()}" for answer in lane.refusals]
                troubles.append(
                    f"{error} of {point.call} {point.at}: {str(trouble).splitlines()[0]}; told {told}"
                )
                daemon.kill()
                daemon.start()
                lane.converge()
        daemon.kill()
        daemon.start()
        assert daemon.terminate() == 0
    assert_converged(tree)
    return troubles
