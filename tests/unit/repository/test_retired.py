"""What is kept beside the tree, for how long, and what is never lost."""

from __future__ import annotations

import errno
import hashlib
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from repowatch.model.package import Entry, Nevra, Stamp
from repowatch.repository import retired as module
from repowatch.repository.retired import LOOSE, Leaving, Retired
from repowatch.system.second import give_second_place

GRACE = 1000.0


class Store:
    """A tree with a store beside it, and a time of its own."""

    def __init__(self, root: Path, *, grace: float = GRACE) -> None:
        self.root = root
        self.now = 5.0
        self.grace = grace
        self.open()

    def open(self) -> None:
        """As a start does."""
        self.retired = Retired(str(self.root), now=lambda: self.now, grace=self.grace)
        self.retired.open()

    def leaving(self, name: str, content: str = "1") -> Leaving:
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
        return Leaving(str(path), name, f"{content}{'a' * 63}", Stamp.of(path.stat()))

    def retire(self, *leaving: Leaving) -> None:
        self.retired.announce(leaving, at=0.0)
        assert self.retired.retire([each.path for each in leaving]) == []

    def sweep(self, *held: str) -> None:
        self.retired.drop(self.retired.due(held))

    def served(self, name: str) -> str | None:
        path = self.retired.find(name)
        return Path(path).read_text() if path and os.path.exists(path) else None

    def kept(self) -> list[str]:
        return sorted(path.read_text() for path in (self.root / ".repowatch/retired").glob("*.rpm"))


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path)


def test_a_retired_file_leaves_the_tree_and_is_served_until_its_time_is_over(store: Store) -> None:
    store.retire(store.leaving("d/a.rpm"))
    assert not (store.root / "d/a.rpm").exists()
    store.now += GRACE - 1
    store.sweep()
    assert store.served("d/a.rpm") == "1"
    store.now += 1
    assert store.served("d/a.rpm") is None
    store.sweep()
    assert store.kept() == []
    assert not store.retired.names


def test_a_start_goes_on_with_the_time_that_is_left(store: Store) -> None:
    store.retire(store.leaving("a.rpm"))
    store.now += GRACE - 1
    store.open()
    assert store.served("a.rpm") == "1"
    store.now += 1
    store.sweep()
    assert store.kept() == []


def test_where_the_time_was_lost_nothing_is_kept_for_longer_than_the_grace(store: Store) -> None:
    store.now = 1e6
    store.retire(store.leaving("a.rpm"))
    store.now = 0.0
    store.open()
    store.now = GRACE
    store.sweep()
    assert store.kept() == []


def test_a_name_that_is_listed_again_is_no_retired_one(store: Store) -> None:
    store.retire(store.leaving("a.rpm"))
    entry = Entry("a.rpm", "2", Nevra("a", "0", "1", "1", "noarch"), Stamp(1, 1, 1, 1))
    store.retired.listed([(None, entry)])
    assert store.retired.find("a.rpm") is None
    store.sweep()
    assert store.kept() == []


def test_two_names_of_the_same_bytes_share_a_file_until_both_are_over(store: Store) -> None:
    first, second = store.leaving("a.rpm"), store.leaving("b.rpm")
    store.retire(first)
    store.now += GRACE / 2
    store.retire(second)
    assert store.kept() == ["1"]
    store.now += GRACE / 2
    store.sweep()
    assert (store.served("a.rpm"), store.served("b.rpm")) == (None, "1")


def test_a_file_that_was_replaced_meanwhile_stays_in_the_tree(store: Store) -> None:
    leaving = store.leaving("a.rpm")
    store.retired.announce([leaving], at=0.0)
    os.unlink(leaving.path)
    store.leaving("a.rpm", "newer")
    assert store.retired.retire([leaving.path]) == []
    assert (store.root / "a.rpm").read_text() == "newer"
    assert store.kept() == []


def test_a_file_that_is_replaced_in_the_last_moment_gets_its_name_again(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    leaving = store.leaving("a.rpm")
    rename = os.rename

    def replaced_just_before(source: str, target: str) -> None:
        if source == leaving.path:
            (store.root / "aside").write_text("newer")
            rename(store.root / "aside", source)
        rename(source, target)

    monkeypatch.setattr(os, "rename", replaced_just_before)
    store.retire(leaving)
    assert (store.root / "a.rpm").read_text() == "newer"
    assert store.kept() == []


def test_also_where_it_would_be_removed_a_file_that_was_replaced_stays(tmp_path: Path) -> None:
    store = Store(tmp_path, grace=0.0)
    leaving = store.leaving("a.rpm")
    os.unlink(leaving.path)
    store.leaving("a.rpm", "newer")
    store.retire(leaving)
    assert (store.root / "a.rpm").read_text() == "newer"


def test_without_a_time_of_grace_files_are_removed(tmp_path: Path) -> None:
    store = Store(tmp_path, grace=0.0)
    leaving = store.leaving("a.rpm")
    store.retire(leaving)
    assert not os.path.exists(leaving.path)
    assert store.served("a.rpm") is None


def test_what_was_not_announced_is_left_to_whoever_asked(store: Store) -> None:
    leaving = store.leaving("a.rpm")
    assert store.retired.retire([leaving.path]) == [leaving.path]
    assert os.path.exists(leaving.path)


def test_what_a_run_announced_and_did_not_do_is_done_after_it(store: Store) -> None:
    leaving = store.leaving("a.rpm")
    store.retired.announce([leaving], at=0.0)
    store.open()
    assert store.served("a.rpm") is None
    assert store.retired.retire([leaving.path]) == []
    assert store.kept() == ["1"]


def test_a_held_file_is_a_second_name_of_the_same_bytes(store: Store) -> None:
    leaving = store.leaving("a.rpm")
    store.retired.hold(leaving.path, pkgid=leaving.pkgid)
    store.retired.settle()
    found = store.retired.path_of(leaving.pkgid)
    assert found is not None
    assert os.path.samefile(found, leaving.path)


def test_a_held_file_that_is_pruned_leaves_the_tree_and_is_kept_as_long_as_it_is_held(store: Store) -> None:
    leaving = store.leaving("a.rpm")
    store.retired.hold(leaving.path, pkgid=leaving.pkgid)
    store.retire(leaving)
    assert not os.path.exists(leaving.path)
    store.now += GRACE
    store.sweep(leaving.pkgid)
    store.now += LOOSE
    store.sweep(leaving.pkgid)
    assert store.kept() == ["1"]
    store.retired.let_go([leaving.pkgid])
    store.sweep()
    assert store.kept() == []


def test_a_hold_without_a_snapshot_lasts_for_a_while_also_after_a_start(store: Store) -> None:
    leaving = store.leaving("a.rpm")
    store.retired.hold(leaving.path, pkgid=leaving.pkgid)
    store.sweep()
    store.now += LOOSE - 1
    store.open()
    store.sweep()
    store.now += LOOSE - 1
    store.sweep()
    assert store.kept() == ["1"]
    store.now += 1
    store.sweep()
    assert store.kept() == []


def test_while_snapshots_are_not_known_nothing_is_dropped(store: Store) -> None:
    store.retire(store.leaving("a.rpm"))
    store.now += GRACE + LOOSE
    assert store.retired.due(None) == []


@pytest.mark.parametrize("damage", [b"", b"{", b"[1]", b'[["a.rpm"]]', b'[["a", "b", "c", 1, 2]]'])
def test_where_the_names_are_damaged_the_bytes_are_kept_for_a_while(store: Store, damage: bytes) -> None:
    leaving = store.leaving("a.rpm")
    store.retire(leaving)
    (store.root / ".repowatch/retired/names.json").write_bytes(damage)
    store.open()
    assert store.retired.find("a.rpm") is None
    store.sweep()
    store.now += LOOSE - 1
    store.sweep()
    assert store.retired.path_of(leaving.pkgid)
    store.now += 1
    store.sweep()
    assert store.kept() == []


@pytest.mark.parametrize("name", ["Grüße é.rpm", "\udcff.rpm", 'a"\n.rpm'])
def test_any_name_that_a_file_can_have_is_remembered(store: Store, name: str) -> None:
    store.retire(store.leaving(name))
    store.open()
    assert store.served(name) == "1"


def no_link(source: str, target: str, **how: object) -> None:
    raise OSError(errno.EPERM, os.strerror(errno.EPERM))


def test_where_no_link_can_be_made_a_held_file_is_copied(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    leaving = store.leaving("a.rpm")
    monkeypatch.setattr(os, "link", no_link)
    store.retired.hold(leaving.path, pkgid=leaving.pkgid)
    (store.root / "a.rpm").write_text("other")
    assert store.kept() == ["1"]


def other_device(root: Path) -> Callable[[str, str], None]:
    rename = os.rename

    def refuse(source: str, target: str) -> None:
        if source.startswith(str(root / "mount")):
            raise OSError(errno.EXDEV, os.strerror(errno.EXDEV))
        rename(source, target)

    return refuse


def test_a_file_on_another_file_system_is_copied_and_then_removed(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    leaving = store.leaving("mount/a.rpm")
    monkeypatch.setattr(os, "rename", other_device(store.root))
    store.retire(leaving)
    assert not os.path.exists(leaving.path)
    assert store.served("mount/a.rpm") == "1"


def test_a_kept_file_that_is_overwritten_in_place_is_lost_and_said_so(
    store: Store, caplog: pytest.LogCaptureFixture
) -> None:
    leaving = store.leaving("a.rpm")
    store.retired.hold(leaving.path, pkgid=leaving.pkgid)
    (store.root / "a.rpm").write_text("other")
    nevra = Nevra("a", "0", "1", "1", "noarch")
    before = Entry("a.rpm", leaving.pkgid, nevra, leaving.stamp)
    after = Entry("a.rpm", "other", nevra, Stamp.of(os.stat(leaving.path)))
    store.retired.listed([(before, after)])
    assert store.kept() == []
    assert "a.rpm was overwritten in place" in caplog.text


def test_a_full_disk_refuses_before_anything_is_moved(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(descriptor: int, pieces: object) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    leaving = store.leaving("a.rpm")
    monkeypatch.setattr(os, "writev", full)
    with pytest.raises(OSError, match="No space left"):
        store.retired.announce([leaving], at=0.0)
    assert os.path.exists(leaving.path)
    assert not store.retired.names


def test_a_retired_file_that_was_written_to_by_another_of_its_names_is_not_served(store: Store) -> None:
    store.retire(leaving := store.leaving("a.rpm"))
    found = store.retired.path_of(leaving.pkgid)
    assert found is not None
    os.link(found, store.root / "elsewhere.rpm")
    assert store.served("a.rpm") == "1"
    (store.root / "elsewhere.rpm").write_text("other")
    assert store.served("a.rpm") is None


def test_a_clone_that_comes_late_takes_the_place_of_nothing(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between the look and the rename the package was retired, and its name went to another file."""
    leaving = store.leaving("a.rpm")
    copy = give_second_place

    def late(path: str, new: str, *, may_link: bool = True) -> str:
        store.retire(leaving)
        store.leaving("a.rpm", "2")
        return copy(path, new, may_link=may_link)

    monkeypatch.setattr(module, "give_second_place", late)
    assert store.retired.hold_apart(leaving.path, pkgid=leaving.pkgid, may_copy=True)
    assert store.kept() == ["1"]


def test_what_is_kept_is_looked_through_when_something_is_due_and_not_each_time(store: Store) -> None:
    store.retire(store.leaving("a.rpm"))
    held = store.leaving("b.rpm", "2")
    store.retired.hold(held.path, pkgid=held.pkgid)
    asked: list[str] = []

    class Held(set[str]):
        def __contains__(self, pkgid: object) -> bool:
            asked.append(str(pkgid))
            return super().__contains__(pkgid)

    for _ in range(3):
        assert store.retired.due(Held()) == []
    assert asked == [held.pkgid]
    store.now += GRACE
    [due] = store.retired.due(Held([held.pkgid]))
    assert due != held.pkgid


def test_a_name_outlives_another_one_whose_file_took_its_place(store: Store) -> None:
    pkgid = hashlib.sha256(b"1").hexdigest()
    first, second = (replace(store.leaving(name), pkgid=pkgid) for name in ("a.rpm", "b.rpm"))
    store.retire(first)
    store.retire(second)  # the same bytes, with another mtime
    store.retired.forget(["b.rpm"])
    assert store.served("a.rpm") == "1"
