"""Changes that come together: one publication shows all or none, and a refusal leaves the tree as it was."""

from __future__ import annotations

import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from repowatch.errors import Conflict, RepowatchError
from repowatch.repository.changes import Departure, PublicationFailed, Together
from repowatch.repository.index import Index
from repowatch.repository.publisher import Publisher
from repowatch.repository.readers import Readers
from repowatch.repository.together import made_of
from tests.kit.loopfs import memory_disk, require_mounts
from tests.kit.rpms import flip_byte, make_rpm
from tests.kit.views import from_disk, read_view
from tests.unit.repository.test_index import A, B, C, Repository, allow, refuse


@pytest.fixture
def repository(tmp_path: Path, readers: Readers, pool: ThreadPoolExecutor) -> Iterator[Repository]:
    repository = Repository(tmp_path, readers, pool)
    make_rpm(repository.root, "a")
    repository.look()
    yield repository
    repository.index.close()


def private(repository: Repository, name: str) -> list[str]:
    """What lies in a private place."""
    return sorted(os.listdir(repository.root / ".repowatch" / name))


def contents(root: Path) -> dict[str, bytes]:
    return {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*.rpm")}


def test_all_changes_are_shown_by_one_publication(repository: Repository) -> None:
    before = repository.revision
    together = Together((repository.arrival(B), repository.arrival(f"sub/{C}")), (Departure(A, allow),))
    repository.index.turn([], changes=[together])
    assert repository.listed == {B, f"sub/{C}"}
    assert together.answer.result(0).revision == repository.revision == before + 1
    assert sorted(contents(repository.root)) == [B, f"sub/{C}"]
    assert private(repository, "together") == []


def test_nothing_is_read_again_after_a_publication_of_all(repository: Repository) -> None:
    repository.index.turn([], changes=[Together((repository.arrival(B),))])
    read: list[int] = []
    repository.index.hooks.progress = lambda done, total: read.append(total)
    repository.look()
    assert read == []


def test_one_that_is_refused_first_keeps_all_away(repository: Repository) -> None:
    before, files = repository.revision, contents(repository.root)
    together = Together((repository.arrival(B), repository.arrival(C, check=refuse)))
    repository.index.turn([], changes=[together])
    with pytest.raises(RepowatchError, match="no longer wanted"):
        together.answer.result(0)
    assert (repository.revision, contents(repository.root)) == (before, files)


class RefusedLate:
    """A check that refuses when it is asked again, right before the rename."""

    def __init__(self) -> None:
        self.asked = 0

    def __call__(self) -> None:
        self.asked += 1
        if self.asked > 1:
            raise Conflict("no longer wanted")


def test_one_that_is_refused_after_renames_brings_back_what_was_replaced(repository: Repository) -> None:
    before, files = repository.revision, contents(repository.root)
    staged = [repository.arrival(A, version="2.0"), repository.arrival(B)]
    moved = [Path(each.staged) for each in staged]
    together = Together((*staged, repository.arrival(C, check=RefusedLate())), (Departure(A, allow),))
    repository.index.turn([], changes=[together])
    with pytest.raises(Conflict):
        together.answer.result(0)
    assert (repository.revision, contents(repository.root)) == (before, files)
    assert all(path.exists() for path in moved)
    assert private(repository, "together") == []


def test_what_came_by_file_is_published_although_the_rest_is_refused(repository: Repository) -> None:
    make_rpm(repository.root, "b")
    together = Together((repository.arrival(C, check=RefusedLate()),))
    repository.index.turn([], at_once=[B], changes=[together])
    assert repository.listed == {A, B}


def test_a_full_disk_takes_all_back(tmp_path: Path, readers: Readers, pool: ThreadPoolExecutor) -> None:
    require_mounts()
    with memory_disk(tmp_path / "disk", kilobytes=512) as disk:
        repository = Repository(disk, readers, pool)
        make_rpm(repository.root, "a")
        repository.look()
        together = Together((repository.arrival(A, version="2.0"), repository.arrival(B)))
        files, before = contents(repository.root), repository.revision
        with open(disk / "filler", "wb", buffering=0) as filler, pytest.raises(OSError, match="No space"):
            while True:
                filler.write(b"\0" * 4096)
        with pytest.raises(PublicationFailed):
            repository.index.turn([], changes=[together])
        with pytest.raises(OSError, match="No space"):
            together.answer.result(0)
        assert (repository.revision, contents(repository.root)) == (before, files)
        os.unlink(disk / "filler")
        repository.look()
        assert repository.listed == {A}
        repository.index.close()


class Died(BaseException):
    """The process ends here."""


def test_a_death_between_the_renames_is_taken_back_by_the_next_start(
    repository: Repository, monkeypatch: pytest.MonkeyPatch, readers: Readers, pool: ThreadPoolExecutor
) -> None:
    files, seen = contents(repository.root), read_view(from_disk(repository.root))
    arrivals = (repository.arrival(A, version="2.0"), repository.arrival(B), repository.arrival(C))
    die_at_rename(monkeypatch, of=Path(arrivals[2].staged))
    with pytest.raises(Died):
        repository.index.turn([], changes=[Together(arrivals, ())])
    monkeypatch.undo()
    assert contents(repository.root) != files
    repository.index.close()

    repository.index = Index(
        str(repository.root), name="test", readers=readers, pool=pool, clock=repository.clock
    )
    repository.index.open()
    assert contents(repository.root) == files
    repository.look()
    assert read_view(from_disk(repository.root)).packages == seen.packages
    assert all(Path(each.staged).exists() for each in arrivals)


def die_at_rename(monkeypatch: pytest.MonkeyPatch, *, of: Path) -> None:
    rename = os.rename

    def rename_or_die(old: str, new: str) -> None:
        if old == str(of):
            raise Died
        rename(old, new)

    monkeypatch.setattr("os.rename", rename_or_die)


def test_a_death_after_repomd_is_finished_by_the_next_start(
    repository: Repository, monkeypatch: pytest.MonkeyPatch, readers: Readers, pool: ThreadPoolExecutor
) -> None:
    def die(self: Publisher, paths: object) -> None:
        raise Died

    scratch = repository.root / ".repowatch" / "scratch"
    scratch.mkdir()
    together = Together((repository.arrival(B),), (Departure(A, allow),), scratch=str(scratch))
    repository.index._journal._leave = lambda paths: die(repository.index._publisher, paths)
    with pytest.raises(Died):
        repository.index.turn([], changes=[together])
    assert sorted(contents(repository.root)) == [A, B]
    repository.index.close()

    repository.index = Index(
        str(repository.root), name="test", readers=readers, pool=pool, clock=repository.clock
    )
    repository.index.open()
    assert sorted(contents(repository.root)) == [B]
    assert not scratch.exists()
    repository.look()
    assert repository.listed == {B}


def test_what_somebody_else_put_there_meanwhile_is_left_alone(
    repository: Repository, monkeypatch: pytest.MonkeyPatch, readers: Readers, pool: ThreadPoolExecutor
) -> None:
    arrivals = (repository.arrival(A, version="2.0"), repository.arrival(B))
    die_at_rename(monkeypatch, of=Path(arrivals[1].staged))
    with pytest.raises(Died):
        repository.index.turn([], changes=[Together(arrivals)])
    monkeypatch.undo()
    repository.index.close()
    other = make_rpm(repository.aside, "a", version="3.0")
    content = other.read_bytes()
    other.rename(repository.root / A)
    repository.index = Index(
        str(repository.root), name="test", readers=readers, pool=pool, clock=repository.clock
    )
    repository.index.open()
    assert contents(repository.root) == {A: content}


def test_files_are_read_whole_and_a_damaged_one_is_named(repository: Repository) -> None:
    good, bad = make_rpm(repository.aside, "b"), make_rpm(repository.aside, "c")
    made = made_of(repository.index, {B: str(good)}, [A], check=lambda name: None)
    repository.index.turn([], changes=[made])
    assert repository.listed == {B}
    flip_byte(bad, offset=bad.stat().st_size - 3)
    with pytest.raises(Conflict, match=f"{C}: .*does not match"):
        made_of(repository.index, {C: str(bad)}, check=lambda name: None)
