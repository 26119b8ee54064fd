"""More events than anybody can take: what is published is what lies in the tree all the same."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest

from repowatch.repository.index import Index
from repowatch.repository.readers import Readers
from tests.kit.clock import FakeClock
from tests.kit.daemon import Daemon, repowatch, wait_until
from tests.kit.machine import launched_by, limit, stopped, with_limits
from tests.kit.metadata import locations
from tests.kit.rpms import make_rpm

HELLO = "hello-1.0-1.noarch.rpm"
OTHER = "other-1.0-1.noarch.rpm"

QUEUE = int(Path("/proc/sys/fs/inotify/max_queued_events").read_text())

SECONDS = 20.0  # until all is listed: seconds, where the next rescan is minutes away


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A tree with one package in a directory."""
    make_rpm(tmp_path / "rpm" / "d")
    return tmp_path / "rpm"


def packages(root: Path) -> set[str]:
    """What lies in the tree."""
    return {str(path.relative_to(root)) for path in root.rglob("*.rpm")}


def await_tree(daemon: Daemon, root: Path) -> None:
    """Wait until clients see the tree."""
    wait_until(lambda: daemon.repository("rpm")["packages"] == len(packages(root)), SECONDS)
    wait_until(lambda: locations(daemon, "rpm") == packages(root), SECONDS)


def rain(directory: Path, *, files: int) -> None:
    """Three events for each file: created, closed, removed."""
    for number in range(files):
        path = directory / str(number)
        os.close(os.open(path, os.O_WRONLY | os.O_CREAT))
        os.unlink(path)


def churn(root: Path) -> None:
    """Change the tree in every way, with packages that come, go and are renamed."""
    source = make_rpm(root, "source")
    for number in range(300):
        os.link(source, root / f"{number}.rpm")
    for number in range(0, 300, 3):
        os.unlink(root / f"{number}.rpm")
        os.rename(root / f"{number + 1}.rpm", root / "d" / f"{number + 1}.rpm")
    (root / "new" / "below").mkdir(parents=True)
    os.link(source, root / "new" / "below" / "a.rpm")


def test_after_fifty_thousand_events_the_metadata_is_that_of_the_tree(root: Path, tmp_path: Path) -> None:
    with Daemon(root, scratch=tmp_path) as daemon:
        rain(root / "d", files=9_000)
        churn(root)
        rain(root / "new", files=9_000)
        os.unlink(root / "d" / HELLO)
        await_tree(daemon, root)
    assert repowatch("verify", root).returncode == 0


def test_events_that_the_kernel_dropped_are_made_good(root: Path, tmp_path: Path) -> None:
    with Daemon(root, scratch=tmp_path) as daemon, believer(root) as believed:
        with stopped(daemon.pid, believed.pid):
            rain(root, files=QUEUE // 2)
            churn(root)
            os.unlink(root / "d" / HELLO)
        await_tree(daemon, root)
        assert "overflow" in daemon.log
        assert answer_of(believed) != packages(root), "events as facts would have done as well"
        make_rpm(root / "new" / "below", "late")
        await_tree(daemon, root)


# A watcher that takes events for facts: what most scripts around inotify do.
BELIEVER = """
import os, sys
from pathlib import Path
from watchdog.events import FileSystemEventHandler
from watchdog.observers import Observer

root = sys.argv[1]
listed = {str(path) for path in Path(root).rglob("*.rpm")}

class Believer(FileSystemEventHandler):
    def on_created(self, event): listed.add(event.src_path)
    def on_deleted(self, event): listed.discard(event.src_path)
    def on_moved(self, event): listed.discard(event.src_path), listed.add(event.dest_path)

observer = Observer()
observer.schedule(Believer(), root, recursive=True)
observer.start()
print("ready", flush=True)
sys.stdin.readline()
print(*(os.path.relpath(path, root) for path in listed if path.endswith(".rpm")), sep="\\n", flush=True)
os._exit(0)
"""


@contextmanager
def believer(root: Path) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-c", BELIEVER, str(root)]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as process:
        try:
            assert process.stdout and process.stdout.readline() == "ready\n"
            yield process
        finally:
            process.kill()


def answer_of(believed: subprocess.Popen[str]) -> set[str]:
    """What a believer takes for the tree."""
    return set(believed.communicate("tell\n")[0].split())


# -- where watching has an end -----------------------------------------------------------------------


def assert_polling(daemon: Daemon, root: Path, *, told: str) -> None:
    """The status and the log say that the tree is polled, and what comes is seen."""
    wait_until(lambda: daemon.repository("rpm")["watcher"] == "polling")
    assert told in daemon.log
    make_rpm(root / "d", "other")
    await_tree(daemon, root)


@pytest.mark.parametrize("watches", [0, 1], ids=["none", "one"])
def test_a_tree_with_too_many_directories_to_watch_is_polled(
    root: Path, tmp_path: Path, watches: int
) -> None:
    limits = with_limits(max_inotify_watches=watches)
    with launched_by(*limits), Daemon(root, scratch=tmp_path) as daemon:
        assert_polling(daemon, root, told="max_user_watches")


def test_a_tree_is_polled_where_inotify_can_not_be_used_at_all(root: Path, tmp_path: Path) -> None:
    limits = with_limits(max_inotify_instances=0)
    with launched_by(*limits), Daemon(root, scratch=tmp_path) as daemon:
        assert_polling(daemon, root, told="max_user_instances")


def test_a_tree_is_polled_when_a_new_directory_can_not_be_watched(root: Path, tmp_path: Path) -> None:
    limits = with_limits(max_inotify_watches=100)
    with launched_by(*limits), Daemon(root, scratch=tmp_path) as daemon:
        wait_until(lambda: daemon.repository("rpm")["watcher"] == "inotify")
        limit(daemon.pid, max_inotify_watches=0)
        (root / "new").mkdir()
        assert_polling(daemon, root, told="max_user_watches")
        make_rpm(root / "new")
        await_tree(daemon, root)


def test_a_tree_is_polled_when_the_watches_run_out_in_an_overflow(root: Path, tmp_path: Path) -> None:
    limits = with_limits(max_inotify_watches=100)
    with launched_by(*limits), Daemon(root, scratch=tmp_path) as daemon:
        limit(daemon.pid, max_inotify_watches=0)
        with stopped(daemon.pid):
            rain(root, files=QUEUE // 2)
        assert_polling(daemon, root, told="max_user_watches")


# -- one storm among others --------------------------------------------------------------------------


def test_a_storm_in_one_repository_holds_up_neither_uploads_nor_copies_in_another(tmp_path: Path) -> None:
    package = make_rpm(tmp_path)
    for name in ("rpm", "calm"):
        (tmp_path / name).mkdir()
    with Daemon(tmp_path / "rpm", tmp_path / "calm", scratch=tmp_path) as daemon:
        for number in range(2_500):
            os.link(package, tmp_path / "rpm" / f"{number}.rpm")
        wait_until(lambda: daemon.repository("rpm")["reading"]["total"] > 0)
        assert daemon.put(f"/calm/{HELLO}", package).status == 201
        make_rpm(tmp_path / "calm", "other")
        wait_until(lambda: locations(daemon, "calm") == {HELLO, OTHER}, SECONDS)
        behind = 2_500 - daemon.repository("rpm")["packages"]
        assert behind > 0, "the storm was over before anything else came"
        print(f"{behind} of 2500 packages were still to come")
        await_tree(daemon, tmp_path / "rpm")


def test_ten_thousand_unchanged_files_are_not_read_again(tmp_path: Path) -> None:
    package = make_rpm(tmp_path, payload="none")
    root = tmp_path / "rpm"
    for directory in range(20):
        (root / str(directory)).mkdir(parents=True)
        for number in range(500):
            os.link(package, root / str(directory) / f"{number}.rpm")
    readers = Readers()
    with ThreadPoolExecutor(2) as pool:
        index = Index(str(root), name="rpm", readers=readers, pool=pool, clock=FakeClock())
        index.open()
        readers.start()
        index.turn([""])
        readers.close()  # a file that is read now raises
        before = os.times()
        index.turn([""])
        after = os.times()
        index.close()
    assert index.publication and len(index.publication.entries) == 10_000
    print(f"{after.user + after.system - before.user - before.system:.2f} s of CPU")
