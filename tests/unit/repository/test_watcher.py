"""What the watcher says of what happens in a real directory. Only the names matter: an event is a hint."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from watchdog.events import FileSystemEvent, FileSystemEventHandler
from watchdog.observers import Observer

from repowatch.repository import watcher as module
from repowatch.repository.tree import Tree
from repowatch.repository.watcher import Watcher
from tests.kit.daemon import wait_until

LAST = "last.rpm"  # an event about it comes after all others


class Watched:
    """A directory under a watcher, and what it said."""

    def __init__(self, path: Path, *, follow: tuple[str, ...] = ()) -> None:
        self.root = path / "root"
        self.root.mkdir()
        self.hints: list[str] = []
        self.blind = 0
        self.tree = Tree(str(self.root), exclude=("*.drpm.rpm",), follow=follow)
        self.watcher = Watcher(self.tree, hint=self.hints.append, blind=self._count)

    def _count(self) -> None:
        self.blind += 1

    def said(self, *, settled: Callable[[], bool] | None = None) -> set[str]:
        """All names so far, when everything that happened was told; no longer remembered after that."""
        last = self.root / LAST
        last.touch()
        last.unlink()
        wait_until(lambda: self.hints.count(LAST) >= 3 and (settled is None or settled()))
        said = set(self.hints) - {LAST}
        self.hints.clear()
        return said


@pytest.fixture
def watched(tmp_path: Path) -> Iterator[Watched]:
    watched = Watched(tmp_path, follow=(str(tmp_path / "pool"),))
    (tmp_path / "pool").mkdir()
    watched.watcher.start()
    yield watched
    watched.watcher.stop()


def make(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"content")
    return path


def test_a_file_is_told_when_it_comes_changes_and_goes(watched: Watched) -> None:
    path = make(watched.root / "a.rpm")
    assert watched.said() == {"a.rpm"}
    with open(path, "ab") as file:
        file.write(b"more")
    assert watched.said() == {"a.rpm"}
    os.utime(path, (0, 0))
    assert watched.said() == {"a.rpm"}
    path.chmod(0o600)
    assert watched.said() == {"a.rpm"}
    path.unlink()
    assert watched.said() == {"a.rpm"}


def test_a_rename_tells_both_names(watched: Watched) -> None:
    make(watched.root / "a.rpm")
    watched.said()
    (watched.root / "a.rpm").rename(watched.root / "b.rpm")
    assert watched.said() == {"a.rpm", "b.rpm"}


def test_a_move_out_and_a_move_in_tell_the_one_name_that_is_ours(watched: Watched, tmp_path: Path) -> None:
    make(watched.root / "a.rpm")
    watched.said()
    (watched.root / "a.rpm").rename(tmp_path / "a.rpm")
    # The half of a rename is held back, in case its other half comes.
    assert watched.said(settled=lambda: "a.rpm" in watched.hints) == {"a.rpm"}
    (tmp_path / "a.rpm").rename(watched.root / "b.rpm")
    assert watched.said() == {"b.rpm"}


def test_a_directory_is_told_by_its_own_name_when_it_comes_and_goes(watched: Watched, tmp_path: Path) -> None:
    make(tmp_path / "d" / "sub" / "a.rpm")
    (tmp_path / "d").rename(watched.root / "d")
    assert "d" in watched.said()
    make(watched.root / "d" / "sub" / "b.rpm")
    assert "d/sub/b.rpm" in watched.said()
    (watched.root / "d").rename(tmp_path / "d")
    assert "d" in watched.said(settled=lambda: "d" in watched.hints)


def test_what_no_client_sees_is_not_told(watched: Watched) -> None:
    for name in (".hidden.rpm", ".hidden/a.rpm", ".repowatch/staging/a.rpm", "repodata/a.rpm", "a.drpm.rpm"):
        make(watched.root / name)
    make(watched.root / "README")
    assert watched.said() <= {"repodata"}


def test_metadata_that_another_program_replaces_is_told(watched: Watched) -> None:
    make(watched.root / "repodata" / "repomd.xml")
    watched.said()
    make(watched.root / "repodata" / "x-primary.xml.gz")
    assert watched.said() == set()
    make(watched.root / "new.xml").rename(watched.root / "repodata" / "repomd.xml")
    assert watched.said() == {"repodata"}


def test_downloads_make_no_hints(watched: Watched) -> None:
    path = make(watched.root / "d" / "a.rpm")
    watched.said()
    for _ in range(10):
        path.read_bytes()
        os.listdir(path.parent)
    assert watched.said() == set()


def test_a_name_that_is_not_utf8_is_told_as_the_tree_spells_it(watched: Watched) -> None:
    name = os.fsdecode(b"caf\xe9.rpm")
    make(watched.root / name)
    assert watched.said() == {name}


def test_a_change_behind_a_link_is_told_under_the_links_name(watched: Watched, tmp_path: Path) -> None:
    make(tmp_path / "pool" / "a.rpm")
    (watched.root / "d").symlink_to(tmp_path / "pool")
    list(watched.tree.scan())
    watched.said()
    make(tmp_path / "pool" / "b.rpm")
    wait_until(lambda: "d/b.rpm" in watched.hints)


@pytest.mark.parametrize("change", ["made", "turned", "removed"])
def test_a_link_to_a_directory_is_told_when_it_is(watched: Watched, tmp_path: Path, change: str) -> None:
    (tmp_path / "pool" / "one").mkdir()
    (tmp_path / "pool" / "two").mkdir()
    link = watched.root / "d"
    if change != "made":
        link.symlink_to(tmp_path / "pool" / "one")
        list(watched.tree.scan())
        watched.said()
    if change == "turned":
        (watched.root / ".next").symlink_to(tmp_path / "pool" / "two")
        (watched.root / ".next").rename(link)
    elif change == "removed":
        link.unlink()
    else:
        link.symlink_to(tmp_path / "pool" / "one")
    assert watched.said() & {"", "d"}


def test_dropped_events_are_told_as_a_change_anywhere(watched: Watched) -> None:
    logging.getLogger("watchdog.observers.inotify_c").warning("Inotify queue overflowed")
    assert "" in watched.hints


def test_nothing_is_told_after_the_end(watched: Watched) -> None:
    watched.watcher.stop()
    make(watched.root / "a.rpm")
    logging.getLogger("watchdog.observers.inotify_c").warning("Inotify queue overflowed")
    assert watched.hints == []


def test_a_directory_put_in_the_place_of_the_root_is_watched_after_a_restart(
    watched: Watched, tmp_path: Path
) -> None:
    watched.root.rename(tmp_path / "old")
    watched.root.mkdir()
    watched.watcher.restart()
    assert watched.watcher.mode == "inotify"
    make(watched.root / "a.rpm")
    assert "a.rpm" in watched.said()
    assert watched.blind == 0


def test_a_tree_that_is_not_there_is_polled_until_it_is(tmp_path: Path) -> None:
    watched = Watched(tmp_path)
    watched.root.rmdir()
    watched.watcher.start()
    assert (watched.watcher.mode, watched.blind) == ("polling", 1)
    watched.root.mkdir()
    watched.watcher.restart()
    assert watched.watcher.mode == "inotify"
    make(watched.root / "a.rpm")
    assert "a.rpm" in watched.said()
    watched.watcher.stop()


@pytest.mark.parametrize("blind", ["root", "pool"])
def test_a_tree_with_a_part_on_a_blind_file_system_is_polled(
    tmp_path: Path, blind: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(module, "type_of", lambda path: "nfs4" if path.endswith(blind) else "ext4")
    watched = Watched(tmp_path, follow=(str(tmp_path / "pool"),))
    watched.watcher.start()
    assert (watched.watcher.mode, watched.blind) == ("polling", 1)
    assert "nfs4" in caplog.text
    watched.watcher.stop()


def test_a_tree_is_polled_when_a_thread_of_watchdog_ends(tmp_path: Path) -> None:
    watched = Watched(tmp_path)
    watched.hints = _Full()
    watched.watcher = Watcher(watched.tree, hint=watched.hints.append, blind=watched._count)
    watched.watcher.start()
    make(watched.root / "a.rpm")
    wait_until(lambda: watched.watcher.mode == "polling" and watched.blind == 1)
    watched.watcher.stop()


class _Full(list[str]):
    def append(self, name: str) -> None:
        raise OSError(f"no room for {name}")


# -- events as facts -------------------------------------------------------------------------------


class Believer(FileSystemEventHandler):
    """Takes events for facts, and keeps what they say."""

    def __init__(self, files: set[str]) -> None:
        self.files = files

    def dispatch(self, event: FileSystemEvent) -> None:
        if event.event_type in ("deleted", "moved"):
            self.files.discard(str(event.src_path))
        if event.event_type in ("created", "moved") and not event.is_directory:
            self.files.add(str(event.dest_path or event.src_path))


def _moved_away(watched: Watched, aside: Path) -> None:
    (watched.root / "d").rename(aside / "away")


def _replaced(watched: Watched, aside: Path) -> None:
    (watched.root / "d").rename(aside / "away")
    make(aside / "d" / "b.rpm")
    (aside / "d").rename(watched.root / "d")


@pytest.mark.parametrize("change", [_moved_away, _replaced])
def test_looking_where_events_point_finds_what_believing_them_misses(
    watched: Watched, tmp_path: Path, change: Callable[[Watched, Path], None]
) -> None:
    known = {os.path.relpath(make(watched.root / "d" / "a.rpm"), watched.root)}
    watched.said()
    believer = Believer({str(watched.root / name) for name in known})
    observer = Observer()
    observer.schedule(believer, str(watched.root), recursive=True)
    observer.start()
    change(watched, tmp_path)
    for name in watched.said(settled=lambda: "d" in watched.hints):
        known = {each for each in known if not each.startswith(f"{name}/")}
        known.update(found.location_href for found in watched.tree.scan(name))
    wait_until(observer.event_queue.empty)
    observer.stop()
    observer.join()
    truth = {found.location_href for found in watched.tree.scan()}
    assert known == truth
    assert {os.path.relpath(path, watched.root) for path in believer.files} != truth


def test_a_watcher_whose_thread_ended_in_silence_is_not_alive(watched: Watched) -> None:
    watcher = watched.watcher
    assert watcher.is_alive
    observer = watcher._observer
    assert observer is not None
    for emitter in observer.emitters:
        emitter.stop()
    wait_until(lambda: not watcher.is_alive)
    watcher.restart()
    assert watcher.is_alive
    watcher.failed(OSError("it"))
    assert watcher.mode == "polling"
    assert watcher.is_alive


def test_a_watchdog_that_lost_its_books_is_left_and_another_one_watches(
    watched: Watched, caplog: pytest.LogCaptureFixture
) -> None:
    for emitter in watched.watcher._observer.emitters:  # type: ignore[union-attr]
        books: Any = emitter
        books._inotify._active_callbacks_by_path.clear()
    watched.watcher.restart()
    assert "were not ended in order" in caplog.text
    make(watched.root / "a.rpm")
    assert "a.rpm" in watched.said()
    assert watched.watcher.is_alive


def test_plain_files_that_are_no_packages_say_nothing(watched: Watched) -> None:
    make(watched.root / "notes.txt").rename(watched.root / "other.txt")
    make(watched.root / "other.txt").unlink()
    assert watched.said() == set()


def test_a_file_that_becomes_a_package_or_was_one_is_told(watched: Watched) -> None:
    make(watched.root / "a.tmp").rename(watched.root / "a.rpm")
    assert "a.rpm" in watched.said()
    (watched.root / "a.rpm").rename(watched.root / "a.old")
    assert "a.rpm" in watched.said()
