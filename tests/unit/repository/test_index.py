"""One turn: what it reads, lists, rejects, publishes and answers."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest

from repowatch.errors import RepowatchError, UsageError
from repowatch.model.digests import inspect
from repowatch.model.package import Stamp
from repowatch.model.publication import Listed
from repowatch.repository import files as module
from repowatch.repository.changes import Arrival, Departure, PublicationFailed, Stopped
from repowatch.repository.index import Index
from repowatch.repository.journal import Journal
from repowatch.repository.publishing import EMPTY
from repowatch.repository.readers import Readers
from tests.kit.clock import FakeClock
from tests.kit.loopfs import memory_disk, require_mounts
from tests.kit.oracle import published
from tests.kit.rpms import flip_byte, make_rpm, truncate

A, B, C = (f"{name}-1.0-1.noarch.rpm" for name in "abc")


class Repository:
    """A tree, its index, and a place beside it from where packages arrive."""

    def __init__(
        self, path: Path, readers: Readers, pool: ThreadPoolExecutor, *, settle: float = 0.0
    ) -> None:
        self.root = path / "root"
        self.aside = path / "aside"
        self.root.mkdir(exist_ok=True)
        self.clock = FakeClock()
        self.index = Index(
            str(self.root), name="test", readers=readers, pool=pool, clock=self.clock, settle=settle
        )
        self.index.open()

    def look(self, *names: str) -> None:
        self.index.turn([], at_once=names or [""])

    @property
    def listed(self) -> set[str]:
        """What is listed: the same in the publication and to a client."""
        publication = self.index.publication
        assert publication is not None
        seen = published(self.root)["primary"]
        assert seen.count(b"<package ") == len(publication.entries)
        assert all(f'<location href="{name}"/>'.encode() in seen for name in publication.entries)
        return set(publication.entries)

    @property
    def revision(self) -> int:
        assert self.index.publication is not None
        return self.index.publication.revision

    def arrival(
        self,
        name: str,
        *,
        check: Callable[[], None] = lambda: None,
        version: str = "1.0",
        departs: str | None = None,
    ) -> Arrival:
        """A package that was checked and lies in staging."""
        path = (
            self.root / departs if departs else make_rpm(self.aside, Path(name).name.split("-")[0], version)
        )
        stamp = Stamp.of(path.stat())
        with open(path, "rb", buffering=0) as stream:
            inspection = inspect(stream, size=stamp.size)
        package = self.index.describe(inspection, location_href=name, stamp=stamp, path=str(path))
        return Arrival(name, str(path), package, check, departs)


@pytest.fixture
def repository(tmp_path: Path, readers: Readers, pool: ThreadPoolExecutor) -> Iterator[Repository]:
    repository = Repository(tmp_path, readers, pool)
    yield repository
    repository.index.close()


def allow() -> None:
    """Refuse nothing."""


def refuse() -> None:
    raise RepowatchError("no longer wanted")


def revision_of(answer: Future[Listed]) -> int | None:
    return answer.result(timeout=0).revision


# -- files


def test_the_first_turn_publishes_even_an_empty_tree(repository: Repository) -> None:
    repository.look()
    assert repository.listed == set()
    assert repository.revision == int(repository.clock.now())


def test_packages_are_listed_replaced_moved_and_removed_by_file(repository: Repository) -> None:
    first = make_rpm(repository.root, "a")
    repository.look()
    assert repository.listed == {A}

    make_rpm(repository.root, "a", summary="Replaced")
    repository.look(A)
    assert b"Replaced" in published(repository.root)["primary"]

    (repository.root / "sub").mkdir()
    first.rename(repository.root / "sub" / B)
    repository.look(A, f"sub/{B}")
    assert repository.listed == {f"sub/{B}"}

    shutil.rmtree(repository.root / "sub")
    repository.look("sub")
    assert repository.listed == set()


def test_a_directory_that_moves_takes_its_packages_along(repository: Repository) -> None:
    make_rpm(repository.root / "old" / "deep", "a")
    make_rpm(repository.root / "older", "b")
    repository.look()
    (repository.root / "old").rename(repository.root / "new")
    repository.look("old", "new")
    assert repository.listed == {f"new/deep/{A}", f"older/{B}"}


def test_a_turn_without_news_publishes_nothing(repository: Repository) -> None:
    make_rpm(repository.root, "a")
    repository.look()
    before = repository.index.publication
    repository.clock.advance(10)
    repository.look()
    repository.look(A, "unknown", "unknown.rpm")
    assert repository.index.publication is before


def test_a_damaged_package_is_rejected_with_its_reason_until_it_is_whole(repository: Repository) -> None:
    path = make_rpm(repository.root, "a")
    size = path.stat().st_size
    flip_byte(path, offset=size - 3)
    repository.look()
    assert repository.listed == set()
    assert "does not match" in repository.index.rejected[A].reason
    flip_byte(path, offset=size - 3)
    repository.look(A)
    assert repository.listed == {A}
    assert repository.index.rejected == {}


def test_a_listed_package_that_becomes_damaged_is_unlisted(repository: Repository) -> None:
    path = make_rpm(repository.root, "a")
    repository.look()
    truncate(path, size=path.stat().st_size - 1)
    repository.look(A)
    assert repository.listed == set()
    assert set(repository.index.rejected) == {A}


def test_a_rejected_file_that_goes_is_forgotten(repository: Repository) -> None:
    truncate(make_rpm(repository.root / "sub", "a"), size=200)
    repository.look()
    shutil.rmtree(repository.root / "sub")
    repository.look("sub")
    assert repository.index.rejected == {}


def test_a_rejected_file_is_not_read_again_unless_it_changes(repository: Repository) -> None:
    truncate(make_rpm(repository.root, "a"), size=200)
    read: list[int] = []
    repository.index.hooks.progress = lambda done, total: read.append(total)
    repository.look()
    repository.look()
    assert read == [1]
    os.utime(repository.root / A, (1, 1))
    repository.look()
    assert read == [1, 1]


def test_a_replaced_file_of_the_same_size_and_mtime_is_seen(repository: Repository) -> None:
    for directory, summary in ((repository.root, "one"), (repository.aside, "two")):
        os.utime(make_rpm(directory, "a", summary=summary, payload="none"), (1, 1))
    assert (repository.root / A).stat().st_size == (repository.aside / A).stat().st_size
    repository.look()
    (repository.aside / A).rename(repository.root / A)
    repository.look(A)
    assert b"two" in published(repository.root)["primary"]


def test_a_file_that_changed_lately_waits_unless_it_is_asked_for_at_once(
    tmp_path: Path, readers: Readers, pool: ThreadPoolExecutor
) -> None:
    repository = Repository(tmp_path, readers, pool, settle=3600)
    make_rpm(repository.root, "a")
    again = repository.index.turn([""])
    assert again.unsettled == {A}
    assert repository.listed == set()
    repository.look(A)
    assert repository.listed == {A}
    repository.index.close()


def test_a_listed_file_that_is_written_to_stays_as_it_was_listed(
    tmp_path: Path, readers: Readers, pool: ThreadPoolExecutor
) -> None:
    repository = Repository(tmp_path, readers, pool, settle=3600)
    path = make_rpm(repository.root, "a")
    repository.look()
    before = published(repository.root)
    truncate(path, size=300)
    repository.index.turn([""])
    assert repository.listed == {A}
    assert published(repository.root) == before
    repository.index.close()


def test_a_tree_found_empty_is_believed_the_second_time(repository: Repository) -> None:
    make_rpm(repository.root, "a").rename(repository.root / A)
    repository.look()
    (repository.root / A).unlink()
    with pytest.raises(PublicationFailed, match="all 1 packages are gone"):
        repository.index.turn([""])
    assert repository.listed == {A}
    repository.index.turn([""])
    assert repository.listed == set()


def test_what_is_too_much_for_one_turn_is_left_over(
    repository: Repository, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MOST_READ", 2)
    names = {make_rpm(repository.root, f"p{number}").name for number in range(5)}
    repository.look()
    assert repository.listed == names, "nobody waits before the first publication"
    more = {make_rpm(repository.root, f"q{number}").name for number in range(5)}
    sizes = []
    left_over = repository.index.turn([], at_once=[""]).left_over
    while left_over:
        sizes.append(len(left_over))
        left_over = repository.index.turn([], at_once=left_over).left_over
    assert sizes == [3, 1]
    assert repository.listed == names | more


def test_a_turn_that_is_asked_to_stop_publishes_nothing(repository: Repository) -> None:
    repository.look()
    make_rpm(repository.root, "a")
    repository.index.hooks.stopping = lambda: True
    with pytest.raises(Stopped):
        repository.look()
    assert repository.listed == set()
    repository.index.hooks.stopping = lambda: False
    repository.look()
    assert repository.listed == {A}


# -- arrivals and departures


def test_an_arrival_is_listed_under_its_name_and_answered(repository: Repository) -> None:
    repository.look()
    arrival = repository.arrival(f"new/{A}")
    repository.index.turn([], changes=[arrival])
    assert repository.listed == {f"new/{A}"}
    assert arrival.answer.result(timeout=0) == Listed(repository.revision, replaced=False)
    assert (repository.root / "new" / A).exists()


def test_an_arrival_needs_no_second_look(repository: Repository) -> None:
    repository.index.turn([], changes=[repository.arrival(A)])
    before = repository.index.publication
    repository.index.hooks.progress = lambda done, total: pytest.fail("a package was read again")
    repository.look()
    assert repository.index.publication is before


def test_an_arrival_replaces_what_has_its_name(repository: Repository) -> None:
    make_rpm(repository.root, "a")
    repository.look()
    arrival = repository.arrival(A, version="2.0")
    repository.index.turn([], changes=[arrival])
    assert arrival.answer.result(timeout=0).replaced
    assert b'ver="2.0"' in published(repository.root)["primary"]


def test_a_move_lists_the_new_name_and_unlists_the_old(repository: Repository) -> None:
    make_rpm(repository.root, "a")
    repository.look()
    repository.index.turn([], changes=[repository.arrival(f"x/{B}", departs=A)])
    assert repository.listed == {f"x/{B}"}
    assert not (repository.root / A).exists()


@pytest.mark.parametrize("when", ["at once", "at the last moment"])
def test_a_refused_arrival_is_left_out_and_the_others_are_published(
    repository: Repository, when: str
) -> None:
    make_rpm(repository.root, "c")
    repository.look()
    verdicts = iter([refuse] if when == "at once" else [allow, refuse])

    def check() -> None:
        next(verdicts)()

    first, refused, last = (
        repository.arrival(A),
        repository.arrival(C, version="2.0", check=check),
        repository.arrival(B),
    )
    repository.index.turn([], changes=[first, refused, last])
    assert repository.listed == {A, B, C}
    assert b'ver="2.0"' not in published(repository.root)["primary"]
    assert revision_of(first.answer) == revision_of(last.answer) == repository.revision
    with pytest.raises(RepowatchError, match="no longer wanted"):
        refused.answer.result(timeout=0)
    assert Path(refused.staged).exists()


def test_an_arrival_that_was_taken_back_is_not_published(repository: Repository) -> None:
    repository.look()
    arrival = repository.arrival(A)
    assert arrival.answer.cancel()
    repository.index.turn([], changes=[arrival])
    assert repository.listed == set()
    assert Path(arrival.staged).exists()


def test_an_empty_file_gets_its_name_and_is_not_listed(repository: Repository) -> None:
    make_rpm(repository.root, "a")
    repository.look()
    staged = repository.root / ".repowatch" / "staging" / "empty"
    staged.write_bytes(b"")
    arrival = Arrival(A, str(staged), None, allow)
    repository.index.turn([], changes=[arrival])
    assert arrival.answer.result(timeout=0).replaced
    assert (repository.root / A).stat().st_size == 0
    assert repository.listed == set()
    assert repository.index.rejected[A].reason == EMPTY


def test_a_departure_is_unlisted_then_removed_and_answered(repository: Repository) -> None:
    make_rpm(repository.root, "a")
    make_rpm(repository.root, "b")
    repository.look()
    departure, refused = Departure(A, allow), Departure(B, refuse)
    repository.index.turn([], changes=[departure, refused])
    assert repository.listed == {B}
    assert not (repository.root / A).exists()
    assert revision_of(departure.answer) == repository.revision
    with pytest.raises(RepowatchError, match="no longer wanted"):
        refused.answer.result(timeout=0)


def test_a_rejected_file_can_depart_and_is_forgotten(repository: Repository) -> None:
    truncate(make_rpm(repository.root, "a"), size=200)
    repository.look()
    departure = Departure(A, allow)
    repository.index.turn([], changes=[departure])
    assert departure.answer.result(timeout=0)
    assert not (repository.root / A).exists()
    assert repository.index.rejected == {}


def test_an_arrival_that_was_overwritten_meanwhile_is_looked_at_again(repository: Repository) -> None:
    repository.look()
    arrival = repository.arrival(A)
    staged = Path(arrival.staged)
    os.truncate(staged, staged.stat().st_size - 1)
    assert repository.index.turn([], changes=[arrival]).unsettled == {A}
    repository.look(A)
    assert repository.listed == set()


# -- trouble


class Blocked:
    """Something in the way of every publication; leaving the context takes it away."""

    def __init__(self, repository: Repository) -> None:
        self._staging = repository.root / ".repowatch" / "staging"

    def __enter__(self) -> None:
        shutil.rmtree(self._staging)
        self._staging.write_bytes(b"a file in the place of the directory")

    def __exit__(self, *error: object) -> None:
        self._staging.unlink()


def test_a_failed_publication_leaves_the_old_view_and_the_next_one_heals(repository: Repository) -> None:
    make_rpm(repository.root, "a")
    repository.look()
    before = repository.index.publication
    arrival, departure = repository.arrival(B), Departure(A, allow)
    make_rpm(repository.root, "c")
    with Blocked(repository), pytest.raises(PublicationFailed) as raised:
        repository.index.turn([], at_once=[""], changes=[arrival, departure])
    assert raised.value.again == {A, B}
    for answer in (arrival.answer, departure.answer):
        with pytest.raises(OSError):
            answer.result(timeout=0)
    assert repository.listed == {A}
    assert repository.index.publication is before
    assert (repository.root / A).exists()
    assert Path(arrival.staged).exists()

    repository.look()
    assert repository.listed == {A, C}


def test_a_staging_directory_that_was_removed_is_made_again(repository: Repository) -> None:
    repository.look()
    shutil.rmtree(repository.root / ".repowatch" / "staging")
    make_rpm(repository.root, "a")
    repository.look()
    assert repository.listed == {A}


def test_a_package_that_can_not_be_removed_stays_listed(
    repository: Repository, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_rpm(repository.root, "a")
    repository.look()

    def unlink(path: str) -> None:
        raise PermissionError(1, "Operation not permitted", path)

    with monkeypatch.context() as patch, pytest.raises(PublicationFailed):
        patch.setattr(os, "unlink", unlink)
        repository.index.turn([], changes=[Departure(A, allow)])
    assert (repository.root / A).exists()
    repository.index.turn([""])
    assert repository.listed == {A}


def test_what_another_program_did_to_repodata_is_undone(repository: Repository) -> None:
    make_rpm(repository.root, "a")
    repository.look()
    revision = repository.revision
    shutil.rmtree(repository.root / "repodata")
    repository.index.turn(["repodata"])
    assert repository.listed == {A}
    assert repository.revision > revision


def test_a_repository_has_one_writer(
    repository: Repository, tmp_path: Path, readers: Readers, pool: ThreadPoolExecutor
) -> None:
    with pytest.raises(UsageError, match="another process"):
        Repository(tmp_path, readers, pool)
    repository.index.close()
    second = Repository(tmp_path, readers, pool)
    second.index.close()


def test_nobody_else_can_look_into_the_private_directory(repository: Repository) -> None:
    assert (repository.root / ".repowatch").stat().st_mode & 0o777 == 0o700


def test_a_file_system_mounted_below_the_root_is_noticed_without_an_event(repository: Repository) -> None:
    require_mounts()
    below = repository.root / "below"
    make_rpm(repository.root, "a")
    make_rpm(below, "b")
    repository.look()
    watched_anew = []
    repository.index.hooks.returned = lambda: watched_anew.append(True)
    with memory_disk(below, kilobytes=64):
        repository.index.turn(["repodata"])
        assert repository.listed == {A}
    repository.index.turn(["repodata"])
    assert repository.listed == {A, f"below/{B}"}
    assert len(watched_anew) == 2


def test_nothing_is_written_into_a_directory_that_took_the_place_of_the_root(repository: Repository) -> None:
    """What is below a mount that went away would pass for a repository from then on."""
    make_rpm(repository.root, "a")
    repository.look()
    repository.root.rename(repository.aside)
    repository.root.mkdir()
    repository.clock.advance(100_000)
    repository.index.sweep()
    repository.index.save()
    assert list(repository.root.iterdir()) == []


def test_a_stop_after_a_failed_publication_leaves_the_next_start_what_it_knew(
    repository: Repository,
) -> None:
    make_rpm(repository.root, "a")
    repository.look()
    repository.index.save()
    make_rpm(repository.root, "b")
    (repository.root / "c.rpm").write_bytes(b"no package")
    with Blocked(repository), pytest.raises(PublicationFailed):
        repository.look()
    repository.index.save()
    repository.index.close()
    repository.index.open()
    assert repository.index.listed(A)


class TakenBackJustNow(Future[Listed]):
    """A client's thread gives up right after somebody saw that it waits."""

    def done(self) -> bool:
        found = super().done()
        self.cancel()
        return found


def test_an_answer_that_is_taken_back_while_all_are_refused_ends_nothing(
    repository: Repository, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(self: Journal, repomd: str) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(Journal, "settle", fails)
    arrivals = [
        replace(repository.arrival(A), answer=answer) for answer in (TakenBackJustNow(), Future[Listed]())
    ]
    arrivals[1].answer.cancel()
    with pytest.raises(PublicationFailed):
        repository.index.turn([], changes=arrivals)
    assert arrivals[0].answer.exception(timeout=0)
