"""Nothing is answered, and no repomd.xml put in place, before all that it relies on was synced.

A power cut of ext4 proves less: there, one fsync takes along whatever was done before it. So the calls
themselves are read.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import pytest

from tests.faults.changes import delete, move, prepared, replace, upload
from tests.faults.lane import Lane
from tests.faults.tracing import STEPS, WITHOUT_FSYNC, attached, logging_to
from tests.kit.daemon import wait_until
from tests.kit.loopfs import memory_disk, require_mounts

pytestmark = pytest.mark.client("strace")

CALLS = f"{STEPS},write,sendto"
_CALL = re.compile(r"^\d+ +(\w+)\((.*)\) += (\d+)( .*)?$")
_RESUMED = re.compile(r"^\d+ +<\.\.\. \w+ resumed>(.*)$")
_PATH = re.compile(r'"([^"]*)"')
_DESCRIPTOR = re.compile(r"^\d+<([^>]*)>")


@dataclass(slots=True)
class Disk:
    """What is not synced yet below a directory, as the calls tell it."""

    root: str
    unsynced: set[str] = field(default_factory=set)  # files with new content, directories with new names
    guilty: list[str] = field(default_factory=list)

    def take(self, call: str, arguments: str) -> None:
        named = _DESCRIPTOR.match(arguments)
        paths = _PATH.findall(arguments)
        match call:
            case "write" | "writev" if named and self._counts(named[1]):
                self.unsynced.add(named[1])
            case "fsync" if named:
                self.unsynced.discard(named[1])
            case "rename":
                self._rename(*paths)
            case "mkdir" | "unlink" if self._counts(paths[0]):
                self._change_names(paths[0])
            case "sendto" if '"HTTP/1.1 20' in arguments:
                self._hold("an answer", self.unsynced)

    def _rename(self, source: str, target: str) -> None:
        if not self._counts(target):
            return
        self._hold(f"the rename to {target}", self.unsynced & {source})
        if target.endswith("repodata/repomd.xml"):
            self._hold("the publication", self.unsynced)
        self._change_names(source, target)

    def _change_names(self, *paths: str) -> None:
        """What leaves staging may come back after a power cut: the next start clears it."""
        directories = {str(Path(path).parent) for path in paths}
        self.unsynced |= {each for each in directories if not each.endswith("/.repowatch/staging")}

    def _counts(self, path: str) -> bool:
        """The cache, the lock and the log are not relied on."""
        inside = path.removeprefix(self.root)
        return path.startswith(self.root) and not inside.startswith(("/.repowatch/cache", "/.repowatch/lock"))

    def _hold(self, what: str, unsynced: set[str]) -> None:
        if unsynced:
            self.guilty.append(f"{what} came before the fsync of {', '.join(sorted(unsynced))}")


def told(log: Path) -> Iterator[tuple[str, str]]:
    """The calls that were made and succeeded, with their arguments."""
    unfinished: dict[str, str] = {}
    for line in log.read_text().splitlines():
        thread = line.split()[0]
        if line.endswith("<unfinished ...>"):
            unfinished[thread] = line.removesuffix("<unfinished ...>").rstrip()
            continue
        resumed = _RESUMED.match(line)
        whole = unfinished.pop(thread) + resumed[1] if resumed else line
        if (call := _CALL.match(whole)) and "INJECTED" not in (call[4] or ""):
            yield call[1], call[2]


def misdeeds(log: Path, root: Path) -> list[str]:
    disk = Disk(str(root))
    for call, arguments in told(log):
        disk.take(call, arguments)
    return disk.guilty


def upload_into_new_directories(lane: Lane) -> None:
    for path in ("d", "d/e"):
        assert lane.daemon.request("MKCOL", f"/rpm/{path}").status == 201
    lane.put("d/e/x.rpm", lane.package("x"))
    lane.daemon.put("/rpm/d/comps.xml", b"<comps/>")


def change_everything(lane: Lane) -> None:
    for number, change in enumerate((upload, replace, delete, move)):
        prepared(lane, f"p{number}")
        change(lane, f"p{number}")
    upload_into_new_directories(lane)


def traced(tmp_path: Path, *options: str) -> list[str]:
    """Make all sorts of changes under strace with these options; what was done in the wrong order."""
    tree, log = tmp_path / "rpm", tmp_path / "strace.log"
    tree.mkdir()
    lane = Lane(tree, tmp_path / "scratch")
    with lane.daemon, attached(lane.daemon.pid, [*logging_to(log, calls=CALLS), *options]):
        change_everything(lane)
    assert sum(call == "sendto" and "HTTP/1.1 20" in rest for call, rest in told(log)) >= 12
    return misdeeds(log, tree)


def test_all_that_an_answer_or_a_publication_relies_on_is_synced_before(tmp_path: Path) -> None:
    assert traced(tmp_path) == []


def test_a_daemon_without_fsync_is_convicted(tmp_path: Path) -> None:
    assert traced(tmp_path, WITHOUT_FSYNC[-1])


def test_a_package_that_shares_a_publication_with_a_refused_one_is_synced_before_its_answer(
    tmp_path: Path,
) -> None:
    require_mounts()
    tree, log = tmp_path / "rpm", tmp_path / "strace.log"
    (tree / "first").mkdir(parents=True)
    lane = Lane(tree, tmp_path / "scratch")
    packages = {name: lane.package(name) for name in ("a", "b", "c")}
    # Another file system inside of the tree takes no rename from staging.
    with memory_disk(tree / "other", kilobytes=64), lane.daemon as daemon:
        slowly = [*logging_to(log, calls=CALLS), "--inject=fsync:delay_enter=100000"]  # microseconds
        statuses: dict[str, int] = {}

        def put(path: str, name: str) -> None:
            statuses[name] = daemon.put(f"/rpm/{path}", packages[name]).status

        with attached(daemon.pid, slowly):
            clients = [
                threading.Thread(target=put, args=arguments)
                for arguments in (("a.rpm", "a"), ("first/b.rpm", "b"), ("other/c.rpm", "c"))
            ]
            clients[0].start()
            wait_until(lambda: _has_begun(log))
            for count, client in enumerate(clients[1:], 2):
                client.start()
                wait_until(partial(_are_waiting, tree, count))
            for client in clients:
                client.join()
        assert (statuses["a"], statuses["b"]) == (201, 201)
        assert statuses["c"] >= 400
    assert misdeeds(log, tree) == []


def _has_begun(log: Path) -> bool:
    return "-primary.xml.gz" in log.read_text()


def _are_waiting(tree: Path, count: int) -> bool:
    return len(list((tree / ".repowatch" / "staging").glob("upload-*"))) >= count
