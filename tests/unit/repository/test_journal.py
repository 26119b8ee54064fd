"""What was written down before several renames: finished or taken back, whatever happened between."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from repowatch.errors import Conflict
from repowatch.repository import journal
from repowatch.repository.journal import NO_METADATA, Journal


class Tree:
    """Two files that come, one in the place of another, and one that leaves."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.aside = root / ".repowatch" / "batches"
        self.aside.mkdir(parents=True)
        for name, content in {"changed": "old", "gone": "gone"}.items():
            (root / name).write_text(content)
        for name in ("changed", "come"):
            (self.aside / name).write_text("new")
        self.coming = [(str(self.aside / name), str(root / name)) for name in ("changed", "come")]
        self.journal = self.start()

    def start(self) -> Journal:
        journal = Journal(str(self.root), leave=self.leave)
        journal.load()
        return journal

    def leave(self, paths: Sequence[str]) -> None:
        for path in paths:
            os.unlink(path)

    def begin(self, *, scratch: str | None = None, repomd: str = "new") -> None:
        self.journal.begin(self.coming, [str(self.root / "gone")], scratch=scratch, repomd=repomd)

    def rename(self, count: int) -> None:
        for staged, target in self.coming[:count]:
            os.rename(staged, target)

    @property
    def content(self) -> dict[str, str]:
        return {path.name: path.read_text() for path in self.root.iterdir() if path.is_file()}

    @property
    def left_aside(self) -> dict[str, str]:
        return {path.name: path.read_text() for path in self.aside.iterdir()}


OLD = {"changed": "old", "gone": "gone"}
NEW = {"changed": "new", "come": "new"}


@pytest.fixture
def tree(tmp_path: Path) -> Tree:
    return Tree(tmp_path)


@pytest.mark.parametrize("count", [0, 1, 2])
@pytest.mark.parametrize("restart", [False, True])
def test_a_part_is_taken_back(tree: Tree, count: int, restart: bool) -> None:
    tree.begin()
    tree.rename(count)
    journal = tree.start() if restart else tree.journal
    assert journal.settle("old") is False
    assert (tree.content, tree.left_aside) == (OLD, {"changed": "new", "come": "new"})
    assert journal.settle("old") is None
    assert tree.start().settle("old") is None


@pytest.mark.parametrize("restart", [False, True])
def test_what_repomd_shows_is_finished(tree: Tree, restart: bool) -> None:
    tree.begin(scratch=str(tree.aside))
    tree.rename(2)
    journal = tree.start() if restart else tree.journal
    assert journal.settle("new") is True
    assert tree.content == NEW
    assert not tree.aside.exists()
    assert tree.start().settle("new") is None


def test_without_metadata_a_part_is_taken_back_whatever_stands(tree: Tree) -> None:
    tree.begin(repomd=NO_METADATA)
    tree.rename(1)
    assert tree.start().settle("new") is False
    assert tree.content == OLD


@pytest.mark.parametrize("error", [1, 18, 31, 95])
def test_where_there_are_no_links_files_are_copied_and_renamed(
    tree: Tree, monkeypatch: pytest.MonkeyPatch, error: int
) -> None:
    def no_link(*_: object, **__: object) -> None:
        raise OSError(error, os.strerror(error))

    monkeypatch.setattr("os.link", no_link)
    tree.begin()
    tree.rename(2)
    tree.start().settle("old")
    assert (tree.content, tree.left_aside) == (OLD, {"changed": "new", "come": "new"})


@pytest.mark.parametrize("died_at", range(5))
def test_taking_back_can_itself_be_cut_off(tree: Tree, monkeypatch: pytest.MonkeyPatch, died_at: int) -> None:
    class Died(BaseException):
        pass

    calls = [0]

    def dying(act: Callable[..., object]) -> Callable[..., object]:
        def call(*arguments: object, **named: object) -> object:
            calls[0] += 1
            if calls[0] > died_at:
                raise Died
            return act(*arguments, **named)

        return call

    tree.begin()
    tree.rename(2)
    journal = tree.start()
    for name in ("os.link", "os.rename", "os.unlink"):
        monkeypatch.setattr(name, dying(getattr(os, name.partition(".")[2])))
    with pytest.raises(Died):
        journal.settle("old")
    monkeypatch.undo()
    tree.start().settle("old")
    assert (tree.content, tree.left_aside) == (OLD, {"changed": "new", "come": "new"})


def test_what_somebody_else_put_there_stays(tree: Tree) -> None:
    tree.begin()
    tree.rename(2)
    os.unlink(tree.root / "come")
    (tree.root / "come").write_text("of somebody else")
    tree.start().settle("old")
    assert tree.content == OLD | {"come": "of somebody else"}


def test_a_directory_in_the_way_is_told_before_anything_is_renamed(tree: Tree) -> None:
    (tree.root / "come").mkdir()
    with pytest.raises(Conflict, match="is a directory now"):
        tree.begin()
    assert tree.start().settle("old") is None


def test_a_damaged_journal_is_kept_and_told(tree: Tree, caplog: pytest.LogCaptureFixture) -> None:
    tree.begin()
    path = tree.root / ".repowatch" / "together" / "journal"
    path.write_text("[]")
    assert tree.start().settle("old") is None
    assert "may be there in part" in caplog.text
    assert path.with_name("journal.bad").exists()


def test_a_journal_that_may_not_last_is_in_hand_and_not_found_by_the_next_start(
    tree: Tree, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file that comes later may have the inode and the size of one that the journal names."""

    def fails(path: str) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    with monkeypatch.context() as patched:
        patched.setattr(journal, "fsync_directory", fails)
        tree.coming = tree.coming[1:]
        with pytest.raises(OSError, match="error"):
            tree.begin()
    assert tree.journal.settle("old") is False
    tree.rename(1)
    tree.journal = tree.start()
    assert tree.journal.settle("old") is None
    assert tree.content == OLD | {"come": "new"}
