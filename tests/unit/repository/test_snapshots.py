"""Snapshots on disk, and rollback: packages that leave the tree stay, wrong bytes are never given out."""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from repowatch.errors import Conflict, Misunderstood, Nameless, Unfinished
from repowatch.model.package import Stamp
from repowatch.model.snapshot import Difference
from repowatch.repository import snapshots as snapshots_module
from repowatch.repository.index import Index
from repowatch.repository.readers import Readers
from repowatch.repository.rollback import Outcome, Rollback, preview
from repowatch.repository.snapshots import Changing, Snapshots
from repowatch.repository.updater import Updater
from repowatch.system import files as files_module
from repowatch.system.threads import Thread
from tests.kit.clock import FakeClock
from tests.kit.oracle import published
from tests.kit.rpms import make_rpm

A, B, C = (f"{name}-1.0-1.noarch.rpm" for name in "abc")
NOBODY = "no such file"


class Repository:
    """A tree and its updater; its clock stands still."""

    def __init__(
        self, path: Path, readers: Readers, pool: ThreadPoolExecutor, *, newest_build: bool = False
    ) -> None:
        self.root, self.aside = path / "root", path / "aside"
        self.root.mkdir(exist_ok=True)
        self.readers, self.pool = readers, pool
        self.newest_build = newest_build
        self.start()

    def start(self) -> None:
        self.clock = FakeClock()
        self.index = Index(
            str(self.root),
            name="test",
            readers=self.readers,
            pool=self.pool,
            clock=self.clock,
            newest_build=self.newest_build,
        )
        self.index.open()
        self.updater = Updater(self.index, clock=self.clock, settle=0.5, deadline=2.0)
        self.failed: list[str] = []
        self.thread = Thread("updater", self.updater.run, failed=self.failed.append)
        self.thread.start()
        self.look()

    def stop(self) -> None:
        self.updater.stop()
        assert self.thread.join(30)
        assert self.failed == []
        self.index.close()

    def look(self, name: str = "") -> None:
        """Publish what is in the tree."""
        self.updater.look(name).result(30)

    def make(self, name: str, version: str = "1.0", *, directory: str = "", content: bytes = b"1") -> Path:
        (self.root / directory).mkdir(exist_ok=True)
        files = {f"/usr/share/{name}": content}
        return make_rpm(self.root / directory, name, version, files=files)

    def take(self, name: str) -> None:
        self.updater.do(lambda: self.index.snapshot(name, by="anna")).result(30)

    def forget(self, name: str) -> None:
        self.updater.do(lambda: self.index.forget_snapshot(name)).result(30)
        self.look(NOBODY)

    def roll_back(self, name: str, *, keep: str | None = None) -> Outcome:
        return Rollback(self.updater, name, keep=keep).run()

    @property
    def snapshots(self) -> Snapshots:
        return self.index.snapshots

    @property
    def listed(self) -> set[str]:
        assert self.index.publication is not None
        return set(self.index.publication.entries)

    @property
    def revision(self) -> int:
        assert self.index.publication is not None
        return self.index.publication.revision

    def files(self) -> dict[str, bytes]:
        """The packages of the tree."""
        paths = [path for path in self.root.rglob("*.rpm") if ".repowatch" not in path.parts]
        return {os.path.relpath(path, self.root): path.read_bytes() for path in paths}

    def seen(self, name: str) -> dict[str, bytes]:
        """What clients get of a snapshot."""
        view = self.snapshots.find(name)
        found = {each: view.find(each) for each in view.snapshot.packages}
        return {each: Path(shown.path).read_bytes() for each, shown in found.items() if shown}


@pytest.fixture
def repository(tmp_path: Path, readers: Readers, pool: ThreadPoolExecutor) -> Iterator[Repository]:
    repository = Repository(tmp_path, readers, pool)
    repository.make("a")
    repository.make("b", directory="sub")
    repository.look()
    yield repository
    repository.stop()


def removed(path: Path) -> None:
    path.unlink()


def moved_away(path: Path) -> None:
    path.rename(path.parent.parent / "elsewhere")


def replaced_by_rename(path: Path) -> None:
    new = make_rpm(path.parent.parent / "new", "a", files={"/usr/share/other": b"other"})
    new.rename(path)


@pytest.mark.parametrize("leave", [removed, moved_away, replaced_by_rename])
def test_what_leaves_the_tree_stays_in_the_snapshot(
    repository: Repository, leave: Callable[[Path], None]
) -> None:
    before = repository.files()
    repository.take("one")
    leave(repository.root / A)
    repository.look()
    assert repository.files() != before
    assert repository.seen("one") == before


def test_a_deleted_package_stays_in_the_snapshot(repository: Repository) -> None:
    before = repository.files()
    repository.take("one")
    repository.updater.remove(A, check=lambda: None).result(30)
    assert repository.seen("one") == before


def test_nothing_is_copied(repository: Repository) -> None:
    repository.take("one")
    view = repository.snapshots.find("one")
    shown = view.find(A)
    assert shown and os.path.samefile(shown.path, repository.root / A)
    for record in repository.index.publication.records:  # type: ignore[union-attr]
        kept = view.find(record.location_href)
        assert kept and os.path.samefile(kept.path, repository.root / record.location_href)


def test_no_package_is_read_again_after_a_snapshot_came_and_went(
    repository: Repository, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[object] = []
    once = Readers.read

    def reading(self: Readers, batches: Any, *arguments: Any, **named: Any) -> Any:
        batches = list(batches)
        read.extend(batches)
        return once(self, batches, *arguments, **named)

    monkeypatch.setattr(Readers, "read", reading)
    revision = repository.revision
    repository.take("one")
    repository.look()
    repository.forget("one")
    assert os.stat(repository.root / A).st_nlink == 1
    repository.look()
    assert read == []
    assert repository.revision == revision
    os.utime(repository.root / A)  # the guilty control
    repository.look()
    assert read


def test_a_start_after_a_death_reads_no_package_again(
    repository: Repository, readers: Readers, pool: ThreadPoolExecutor
) -> None:
    repository.take("one")
    stamps = {name: entry.stamp for name, entry in repository.index.publication.entries.items()}  # type: ignore[union-attr]
    cached = Index(str(repository.root), name="x", readers=readers, pool=pool, clock=FakeClock())._store
    entries = cached.restore().inventory.catalog.entries
    assert {name: entry.stamp for name, entry in entries.items()} == stamps


def test_its_metadata_is_what_was_published(repository: Repository, tmp_path: Path) -> None:
    before = published(repository.root)
    repository.take("one")
    repository.make("c")
    (repository.root / A).unlink()
    repository.look()
    assert published(repository.root) != before
    assert published(repository.root / ".repowatch" / "snapshots" / "one") == before


def test_a_snapshot_is_there_after_a_restart(repository: Repository) -> None:
    before = repository.files()
    repository.take("one")
    (repository.root / A).unlink()
    repository.stop()
    repository.start()
    assert repository.seen("one") == before
    assert [each.by for each in repository.snapshots.summaries] == ["anna"]
    repository.clock.advance(100_000)
    repository.look()
    assert repository.seen("one") == before


def test_what_only_a_deleted_snapshot_kept_is_gone(repository: Repository) -> None:
    repository.take("one")
    repository.take("two")
    (repository.root / A).unlink()
    repository.look()
    kept = repository.root / ".repowatch" / "retired"
    repository.forget("one")
    assert len(list(kept.glob("*.rpm"))) == 2
    assert repository.snapshots.extra() > 0
    repository.forget("two")
    assert list(kept.glob("*.rpm")) == []
    assert repository.snapshots.extra() == 0
    assert repository.files().keys() == {f"sub/{B}"}


def test_a_name_is_given_once(repository: Repository) -> None:
    repository.take("one")
    with pytest.raises(Conflict, match="there is a snapshot one already"):
        repository.take("one")
    with pytest.raises(Misunderstood):
        repository.take("../one")
    with pytest.raises(Nameless, match="there is one"):
        repository.snapshots.find("two")
    with pytest.raises(Nameless):
        repository.forget("two")


def test_a_file_that_changed_since_its_publication_is_waited_for(repository: Repository) -> None:
    replaced_by_rename(repository.root / A)
    with pytest.raises(Changing, match=A):
        repository.take("one")
    assert repository.snapshots.summaries == ()
    repository.look()
    repository.take("one")
    assert repository.seen("one") == repository.files()


@pytest.mark.parametrize("is_seen", [False, True])
def test_a_file_that_was_written_over_in_place_is_told_and_never_given_out(
    repository: Repository, is_seen: bool
) -> None:
    repository.take("one")
    other = make_rpm(repository.aside, "a", files={"/usr/share/a": b"2"}).read_bytes()
    (repository.root / A).write_bytes(other)
    if is_seen:
        repository.look()
    assert repository.snapshots.lost("one") == [A]
    with pytest.raises(Conflict, match="written over"):
        repository.snapshots.find("one").find(A)
    assert repository.snapshots.find("one").find(f"sub/{B}")
    if is_seen:
        before = repository.files()
        assert preview(repository.index, "one").lost == (A,)
        with pytest.raises(Conflict, match=A):
            repository.roll_back("one")
        assert repository.files() == before


def test_a_file_that_was_only_touched_is_no_damage(repository: Repository) -> None:
    before = repository.files()
    repository.take("one")
    os.utime(repository.root / A, ns=(1, 1))
    assert repository.snapshots.lost("one") == []
    repository.look()
    assert repository.seen("one") == before


def test_a_damaged_list_is_told_and_keeps_all_that_it_may_name(repository: Repository) -> None:
    repository.take("one")
    (repository.root / A).unlink()
    repository.look()
    path = repository.root / ".repowatch" / "snapshots" / "one" / "packages"
    whole = path.read_bytes()
    path.write_bytes(whole[:-20])
    repository.stop()
    repository.start()
    assert repository.snapshots.damaged.keys() == {"one"}
    with pytest.raises(Conflict, match="damaged"):
        repository.snapshots.find("one")
    repository.clock.advance(100_000)
    repository.look()
    path.write_bytes(whole)
    repository.stop()
    repository.start()
    assert repository.seen("one").keys() == {A, f"sub/{B}"}


def test_what_a_death_left_of_a_snapshot_is_cleared_at_the_start(repository: Repository) -> None:
    repository.take("one")
    directory = repository.root / ".repowatch" / "snapshots"
    for name in (".new-two", ".old-three"):
        shutil.copytree(directory / "one", directory / name)
    repository.stop()
    repository.start()
    assert os.listdir(directory) == ["one"]
    repository.take("two")


def test_directories_of_a_snapshot_are_listed(repository: Repository) -> None:
    repository.make("c", directory="sub")
    repository.look()
    repository.take("one")
    view = repository.snapshots.find("one")
    names = {name: is_directory for name, is_directory, *_ in view.entries("") or []}
    assert names == {A: False, "sub": True, "repodata": True}
    assert {name for name, *_ in view.entries("sub") or []} == {B, C}
    assert "repomd.xml" in {name for name, *_ in view.entries("repodata") or []}
    assert view.entries("nowhere") is None
    assert view.find("nowhere") is None and view.find("repodata/nothing") is None
    assert view.find("repodata/../packages") is None


def prepared(repository: Repository) -> None:
    repository.snapshots.prepare(repository.index.tree)


def test_where_blocks_can_be_shared_what_is_written_in_place_changes_nothing(
    repository: Repository, monkeypatch: pytest.MonkeyPatch
) -> None:
    def clone(target: int, request: int, origin: int) -> int:
        os.write(target, os.pread(origin, 1 << 20, 0))
        return 0

    monkeypatch.setattr(fcntl, "ioctl", clone)
    before = repository.files()
    prepared(repository)
    repository.take("one")
    assert os.stat(repository.root / A).st_nlink == 1
    (repository.root / A).write_bytes(make_rpm(repository.aside, "a", summary="2").read_bytes())
    repository.look()
    assert repository.files() != before
    assert repository.seen("one") == before


def test_what_can_not_be_linked_is_copied_before_the_thread_is_bothered(
    repository: Repository, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = repository.files()
    monkeypatch.setattr(snapshots_module, "may_link", lambda path, status: not path.endswith(A))
    prepared(repository)
    kept = repository.root / ".repowatch" / "retired"
    assert [path.read_bytes() for path in kept.glob("*.rpm")] == [before[A]]
    repository.take("one")
    assert os.stat(repository.root / A).st_nlink == 1
    assert os.stat(repository.root / "sub" / B).st_nlink == 2
    (repository.root / A).unlink()
    repository.look()
    assert repository.seen("one") == before


def test_nothing_is_copied_where_there_is_no_room(
    repository: Repository, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(snapshots_module, "may_link", lambda path, status: False)
    monkeypatch.setattr(snapshots_module, "space_at", lambda path: (3000, 100_000))
    with pytest.raises(Conflict, match=r"2 packages, .* no room"):
        prepared(repository)
    assert not list((repository.root / ".repowatch").glob("retired/*.rpm"))


# -- rollback --------------------------------------------------------------------------------


def test_a_rollback_makes_the_tree_so_again(repository: Repository) -> None:
    before, metadata = repository.files(), published(repository.root)
    repository.take("one")
    revision = repository.revision
    (repository.root / A).unlink()
    replaced = make_rpm(repository.aside, "b", files={"/usr/share/b": b"2"})
    replaced.rename(repository.root / "sub" / B)
    repository.make("c")
    repository.look()
    outcome = repository.roll_back("one")
    assert outcome.difference == Difference(missing=(A,), changed=(f"sub/{B}",), surplus=(C,))
    assert repository.files() == before
    assert published(repository.root) == metadata
    assert outcome.revision == repository.revision > revision + 1
    repository.look()
    assert repository.revision == outcome.revision  # and nothing is left to do
    assert repository.seen("one") == before


def test_a_preview_tells_the_same_and_changes_nothing(repository: Repository) -> None:
    repository.take("one")
    (repository.root / A).unlink()
    repository.make("c")
    repository.look()
    revision, files = repository.revision, repository.files()
    told = preview(repository.index, "one")
    assert (repository.revision, repository.files()) == (revision, files)
    assert told.difference == repository.roll_back("one").difference
    assert told.lost == ()


def test_what_came_since_is_still_served_for_a_while(repository: Repository) -> None:
    repository.take("one")
    content = repository.make("c").read_bytes()
    repository.look()
    repository.roll_back("one")
    found = repository.index.keeping.retired.find(C)
    assert found and Path(found).read_bytes() == content


def test_a_rollback_without_a_difference_publishes_nothing(repository: Repository) -> None:
    repository.take("one")
    revision = repository.revision
    assert repository.roll_back("one").difference.is_empty
    assert repository.revision == revision


def test_a_removal_that_is_not_published_yet_is_undone_as_well(repository: Repository) -> None:
    before = repository.files()
    repository.take("one")
    (repository.root / A).unlink()
    repository.roll_back("one")
    repository.look()
    assert repository.files() == before
    assert repository.index.publication and repository.index.publication.entries.keys() == before.keys()


def test_what_is_there_can_be_kept_first_and_come_back(repository: Repository) -> None:
    first = repository.files()
    repository.take("one")
    replaced_by_rename(repository.root / A)
    repository.make("c")
    repository.look()
    second = repository.files()
    repository.roll_back("one", keep="two")
    assert repository.files() == first
    repository.roll_back("two")
    assert repository.files() == second
    with pytest.raises(Conflict):
        repository.roll_back("one", keep="two")
    assert repository.files() == second


def test_a_change_that_comes_meanwhile_comes_after_it(
    repository: Repository, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = repository.files()
    repository.take("one")
    (repository.root / A).unlink()
    repository.look()
    prepare = Rollback._prepare
    calls: list[list[str]] = []

    def preparing(self: Rollback, names: list[str]) -> None:
        calls.append(names)
        prepare(self, names)
        if len(calls) == 1:  # published before the rollback is ordered, so it is undone
            repository.make("c")
            repository.look()
            (repository.root / "sub" / B).unlink()
            repository.look()

    monkeypatch.setattr(Rollback, "_prepare", preparing)
    outcome = repository.roll_back("one")
    assert calls == [[A], [f"sub/{B}"]]
    assert repository.files() == before
    assert outcome.difference.surplus == (C,)


def test_a_file_that_was_altered_in_place_and_looks_the_same_is_never_given_out(
    repository: Repository,
) -> None:
    """By size and mtime it is what it was (cp --preserve, rsync --inplace -t)."""
    repository.clock.jump(-120)
    repository.take("one")
    path = repository.root / A
    status, content = path.stat(), path.read_bytes()
    with open(path, "r+b") as file:
        file.seek(-1, os.SEEK_END)
        file.write(bytes([content[-1] ^ 1]))
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    with pytest.raises(Conflict, match="written over"):
        repository.snapshots.find("one").find(A)
    with pytest.raises(Conflict):
        repository.roll_back("one")


def test_a_snapshot_whose_list_was_damaged_since_can_be_deleted(repository: Repository) -> None:
    repository.take("one")
    path = repository.root / ".repowatch" / "snapshots" / "one" / "packages"
    path.write_bytes(path.read_bytes()[:-20])
    repository.forget("one")
    assert repository.snapshots.summaries == ()
    repository.take("one")


def test_what_the_disk_can_not_make_sure_of_is_told_as_it_is(
    repository: Repository, monkeypatch: pytest.MonkeyPatch
) -> None:
    directory = repository.root / ".repowatch" / "snapshots"
    fsync = files_module.fsync_directory

    def fails(path: str) -> None:
        if path == str(directory):
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        fsync(path)

    for act in (repository.take, repository.forget):
        with monkeypatch.context() as patched:
            patched.setattr(files_module, "fsync_directory", fails)
            patched.setattr(snapshots_module, "fsync_directory", fails)
            with pytest.raises(Unfinished):
                act("one")
        there = [each.name for each in repository.snapshots.summaries]
        assert there == [each.name for each in directory.iterdir() if not each.name.startswith(".")]


def test_a_rollback_of_a_second_file_with_the_same_bytes_leaves_nothing_to_roll_back(
    repository: Repository,
) -> None:
    """The second file takes the place of the kept one, of which the first was a link: its ctime changes."""
    repository.take("one")
    shutil.copyfile(repository.root / A, repository.root / C)
    repository.look()
    assert repository.roll_back("one").difference == Difference((), (), (C,))
    assert preview(repository.index, "one").difference.is_empty


def test_a_file_that_was_written_over_in_place_is_known_as_it_is_when_its_other_name_goes(
    repository: Repository,
) -> None:
    """Else no snapshot could be taken until the next look at the whole tree."""
    repository.take("one")
    other = make_rpm(repository.aside, "a", summary="other")
    shutil.copyfile(other, repository.root / A)
    repository.look()
    publication = repository.index.publication
    assert publication and publication.entries[A].stamp == Stamp.of((repository.root / A).stat())
    repository.take("two")
    assert repository.snapshots.lost("one") == [A]
    assert repository.snapshots.lost("two") == []


def test_what_was_moved_in_the_tree_is_rolled_back_and_kept_as_well(repository: Repository) -> None:
    repository.take("one")
    (repository.root / A).rename(repository.root / "moved.rpm")
    repository.look()
    repository.roll_back("one", keep="two")
    assert A in repository.files() and "moved.rpm" not in repository.files()
    repository.roll_back("two")
    assert "moved.rpm" in repository.files() and A not in repository.files()


def published_names(repository: Repository) -> set[str]:
    publication = repository.index.publication
    return set(publication.entries) if publication else set()


def test_no_other_build_takes_the_place_of_what_a_rollback_takes_out(
    tmp_path: Path, readers: Readers, pool: ThreadPoolExecutor
) -> None:
    """With `newest_build`, where an older build waits for the listed one to go."""
    repository = Repository(tmp_path, readers, pool, newest_build=True)
    repository.make("a")
    repository.look()
    repository.take("one")
    for build in (1, 2, 3):
        make_rpm(repository.root, "b", build_time=build, filename=f"b{build}.rpm")
    repository.look()
    assert published_names(repository) == {A, "b3.rpm"}
    told = preview(repository.index, "one").difference
    assert repository.roll_back("one").difference == told
    assert published_names(repository) == repository.files().keys() == {A}
    assert all(repository.index.keeping.served(f"b{build}.rpm") for build in (1, 2, 3))
    repository.stop()


def test_a_link_that_came_since_goes_with_a_rollback_and_what_is_behind_it_stays(
    repository: Repository,
) -> None:
    repository.take("one")
    before = repository.files()
    os.symlink(repository.root / A, repository.root / C)
    repository.look()
    repository.roll_back("one")
    assert repository.files() == before
    assert repository.listed == before.keys()
    assert repository.index.keeping.served(C)


@pytest.mark.parametrize("is_outside", [False, True])
def test_a_rollback_takes_nothing_out_of_a_directory_behind_a_link(
    repository: Repository, is_outside: bool
) -> None:
    repository.take("one")
    before = repository.files()
    os.symlink(repository.root / "sub", repository.root / "link")
    if is_outside:
        make_rpm(repository.aside, "c")
        (repository.root / "link").unlink()
        repository.index.tree.follow = (str(repository.aside),)
        os.symlink(repository.aside, repository.root / "link")
    repository.look()
    with pytest.raises(Conflict, match="symbolic link"):
        repository.roll_back("one")
    assert {name: each for name, each in repository.files().items() if "link" not in name} == before
    assert not is_outside or (repository.aside / C).exists()


def test_what_came_into_a_directory_that_a_link_leads_to_goes_with_a_rollback(
    repository: Repository,
) -> None:
    os.symlink(repository.root / "sub", repository.root / "link")
    repository.look()
    repository.take("one")
    listed = repository.listed
    repository.make("c", directory="sub")
    repository.look()
    assert repository.listed == listed | {f"sub/{C}", f"link/{C}"}
    repository.roll_back("one")
    assert repository.listed == listed
