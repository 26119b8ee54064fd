"""When a turn is made, and what becomes of its answers. The clock stands still unless a test moves it."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from repowatch.errors import RepowatchError
from repowatch.model.digests import inspect
from repowatch.model.package import Stamp
from repowatch.model.publication import Listed
from repowatch.repository import files as files_module
from repowatch.repository.index import Index
from repowatch.repository.readers import Readers
from repowatch.repository.together import made_of
from repowatch.repository.updater import CHECK, COMPANY, GATHER, LATE, RESCAN, Updater
from repowatch.system.threads import Thread
from tests.kit.clock import FakeClock
from tests.kit.daemon import wait_until
from tests.kit.oracle import published
from tests.kit.rpms import make_rpm

A, B, C = (f"{name}-1.0-1.noarch.rpm" for name in "abc")
SETTLE, DEADLINE = 0.5, 2.0
NOBODY = "no such file"


def allow() -> None:
    """Refuse nothing."""


class Repository:
    """A tree and its updater, whose thread runs from `start` to `stop`."""

    def __init__(
        self, path: Path, readers: Readers, pool: ThreadPoolExecutor, *, keep_space: int | None = None
    ) -> None:
        self.root = path / "root"
        self.aside = path / "aside"
        self.root.mkdir()
        self.clock = FakeClock()
        self.index = Index(
            str(self.root), name="test", readers=readers, pool=pool, clock=self.clock, keep_space=keep_space
        )
        self.index.open()
        self.updater = Updater(self.index, clock=self.clock, settle=SETTLE, deadline=DEADLINE)
        self.failed: list[str] = []
        self._thread = Thread("updater", self.updater.run, failed=self.failed.append)
        self._started = False

    def start(self, *, turn: bool = True) -> None:
        self._thread.start()
        self._started = True
        if turn:
            self.turn()

    def stop(self) -> None:
        self.updater.stop()
        assert not self._started or self._thread.join(30)
        assert self.failed == []
        self.index.close()

    def turn(self) -> Listed:
        """Make the updater do what is due by now."""
        return self.updater.look(NOBODY).result(30)

    @property
    def listed(self) -> set[str]:
        assert self.index.publication is not None
        return set(self.index.publication.entries)

    def admit(
        self,
        name: str,
        *,
        check: Callable[[], None] = allow,
        version: str = "1.0",
        departs: str | None = None,
    ) -> Future[Listed]:
        path = self.root / departs if departs else make_rpm(self.aside, name[0], version)
        stamp = Stamp.of(path.stat())
        with open(path, "rb", buffering=0) as stream:
            inspection = inspect(stream, size=stamp.size)
        return self.updater.admit(
            name, staged=str(path), inspection=inspection, stamp=stamp, check=check, departs=departs
        )


@pytest.fixture
def repository(tmp_path: Path, readers: Readers, pool: ThreadPoolExecutor) -> Iterator[Repository]:
    repository = Repository(tmp_path, readers, pool)
    yield repository
    repository.stop()


def test_what_comes_together_has_a_publication_for_itself_in_its_turn(repository: Repository) -> None:
    repository.start()
    made = made_of(repository.index, {B: str(make_rpm(repository.aside, "b"))}, check=lambda name: None)
    with repository.updater._changed:  # so that all of it comes at once
        first, together = repository.admit(A), repository.updater.together(made)
        again = repository.updater.remove(B, check=allow)
    revisions = [each.result(30).revision or 0 for each in (first, together, again)]
    assert revisions == sorted(set(revisions))
    assert repository.listed == {A}


def test_the_tree_is_looked_at_when_the_updater_starts(repository: Repository) -> None:
    make_rpm(repository.root, "a")
    repository.start()
    assert repository.listed == {A}


def test_a_file_is_listed_when_it_was_quiet_for_the_settle_time(repository: Repository) -> None:
    repository.start()
    make_rpm(repository.root, "a")
    repository.updater.hint(A)
    repository.turn()
    assert repository.listed == set()
    assert repository.updater.waiting == 1
    repository.clock.advance(SETTLE)
    repository.turn()
    assert repository.listed == {A}
    assert repository.updater.waiting == 0


def test_a_look_does_not_wait_for_the_settle_time(repository: Repository) -> None:
    repository.start()
    make_rpm(repository.root, "a")
    answer = repository.updater.look(A).result(30)
    assert repository.listed == {A}
    assert repository.index.publication is not None
    assert answer.revision == repository.index.publication.revision


def test_a_lost_event_is_made_good_by_the_next_rescan(repository: Repository) -> None:
    repository.start()
    make_rpm(repository.root, "a")
    repository.clock.advance(RESCAN - 1)
    repository.turn()
    assert repository.listed == set()
    repository.clock.advance(1)
    repository.turn()
    assert repository.listed == {A}


def test_a_rescan_can_be_asked_for_and_repeated_faster(repository: Repository) -> None:
    repository.start()
    make_rpm(repository.root, "a")
    repository.updater.rescan(every=2.0)
    wait_until(lambda: repository.listed == {A})
    make_rpm(repository.root, "b")
    repository.clock.advance(2)
    repository.turn()
    assert repository.listed == {A, B}


def test_repodata_that_another_program_removed_is_back_by_the_next_check(repository: Repository) -> None:
    make_rpm(repository.root, "a")
    repository.start()
    shutil.rmtree(repository.root / "repodata")
    repository.clock.advance(CHECK)
    repository.turn()
    assert A.encode() in published(repository.root)["primary"]


def test_superseded_files_are_removed_when_their_time_has_come(repository: Repository) -> None:
    repository.start()
    make_rpm(repository.root, "a")
    repository.updater.look(A).result(30)
    assert len(os.listdir(repository.root / "repodata")) == 7
    repository.clock.advance(3600)
    repository.turn()
    wait_until(lambda: len(os.listdir(repository.root / "repodata")) == 4)


def test_what_arrives_together_is_published_together(repository: Repository) -> None:
    answers = [repository.admit(A), repository.admit(B)]
    repository.start()
    assert len({answer.result(30).revision for answer in answers}) == 1
    assert repository.listed == {A, B}


def test_two_arrivals_for_one_name_are_published_one_after_the_other(repository: Repository) -> None:
    first, other = repository.admit(A), repository.admit(B)
    second = repository.admit(A, version="2.0")
    repository.start()
    early, also_early, late = (answer.result(30).revision or 0 for answer in (first, other, second))
    assert early == also_early < late
    assert second.result().replaced
    assert b'ver="2.0"' in published(repository.root)["primary"]


def test_an_arrival_does_not_overtake_one_that_touches_the_same_name(repository: Repository) -> None:
    """PUT a, MOVE b to a, PUT b: the moved package is the old b, never the new one."""
    make_rpm(repository.root, "b", summary="the old b")
    answers = [repository.admit(A), repository.admit(A, departs=B), repository.admit(B, version="2.0")]
    repository.start()
    for answer in answers:
        answer.result(30)
    assert repository.listed == {A, B}
    assert b"the old b" in (repository.root / A).read_bytes()
    assert b"the old b" in published(repository.root)["primary"]


def test_a_removal_before_an_arrival_of_the_same_name_does_not_take_the_new_file(
    repository: Repository,
) -> None:
    make_rpm(repository.root, "a")
    removed = repository.updater.remove(A, check=allow)
    arrived = repository.admit(A, version="2.0")
    repository.start()
    removed.result(30)
    arrived.result(30)
    assert b'ver="2.0"' in published(repository.root)["primary"]
    assert (repository.root / A).exists()


def test_a_removal_after_an_arrival_of_the_same_name_leaves_nothing_listed(repository: Repository) -> None:
    arrived = repository.admit(A)
    removed = repository.updater.remove(A, check=allow)
    repository.start()
    arrived.result(30)
    removed.result(30)
    assert not (repository.root / A).exists()
    assert repository.listed == set()


def test_a_look_is_answered_only_when_everything_it_found_is_listed(
    repository: Repository, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files_module, "MOST_READ", 3)
    repository.start()
    names = {make_rpm(repository.root / "many", f"p{number}").name for number in range(10)}
    repository.updater.look("many").result(30)
    assert repository.listed == {f"many/{name}" for name in names}


def test_a_failed_publication_is_told_and_tried_again(repository: Repository) -> None:
    make_rpm(repository.root, "a")
    repository.start()
    assert repository.updater.health() is None
    staging = repository.root / ".repowatch" / "staging"
    shutil.rmtree(staging)
    staging.write_bytes(b"a file in the place of the directory")
    make_rpm(repository.root, "b")
    with pytest.raises(OSError):
        repository.updater.look(B).result(30)
    with pytest.raises(OSError):
        repository.admit(C).result(30)
    assert repository.updater.health() == repository.updater.trouble
    assert "the publication failed" in str(repository.updater.trouble)
    assert repository.listed == {A}

    staging.unlink()
    repository.clock.advance(30)
    repository.turn()
    assert repository.updater.health() is None
    assert repository.listed == {A, B}


def test_an_updater_that_is_stuck_is_not_healthy(repository: Repository) -> None:
    told = []

    def check() -> None:
        told.append(repository.updater.health())
        repository.clock.advance(DEADLINE + LATE + 1)
        told.append(repository.updater.health())

    repository.start()
    repository.admit(A, check=check).result(30)
    assert told[:2] == [None, "the metadata is 33 s behind the tree"]
    repository.turn()
    wait_until(lambda: repository.updater.health() is None)


def test_what_is_owed_is_published_before_the_updater_stops(repository: Repository) -> None:
    answer = repository.admit(A)
    removed = repository.updater.remove(B, check=allow)
    repository.updater.stop()
    repository.updater.run()
    assert answer.result(0).revision == removed.result(0).revision
    assert repository.listed == {A}


def test_what_comes_after_the_updater_stopped_is_refused_at_once(repository: Repository) -> None:
    repository.updater.stop()
    repository.updater.run()
    updater = repository.updater
    answers: list[Future[Any]] = [repository.admit(A), updater.remove(B, check=allow)]
    answers += [updater.look(A), updater.do(dict)]
    for answer in answers:
        with pytest.raises(RepowatchError, match="this is no repository any more"):
            answer.result(0)


def test_a_turn_that_reads_is_given_up_when_the_updater_stops(repository: Repository) -> None:
    make_rpm(repository.root, "b")
    answer = repository.updater.look(B)
    repository.updater.stop()
    repository.updater.run()
    with pytest.raises(RepowatchError, match="the daemon stops"):
        answer.result(0)
    assert repository.index.publication is None


@pytest.fixture
def crowded(tmp_path: Path, readers: Readers, pool: ThreadPoolExecutor) -> Iterator[Repository]:
    """A repository that published, and has so little space that the next publication has to wait."""
    repository = Repository(tmp_path, readers, pool, keep_space=400)
    repository.start(turn=False)
    wait_until(lambda: repository.index.publication is not None)
    yield repository
    repository.stop()


def test_arrivals_wait_while_the_space_for_superseded_files_is_taken(crowded: Repository) -> None:
    answer = crowded.admit(A)
    published_at = crowded.clock.now()
    crowded.clock.advance(CHECK)
    crowded.updater.hint(A)
    crowded.clock.advance(300 - CHECK)
    crowded.updater.hint(A)  # wakes it; nobody told it that time has passed
    answer.result(30)
    assert crowded.index.publication is not None
    assert crowded.index.publication.published_at == published_at + 300


@pytest.mark.parametrize("reason", ["a check", "a rescan"])
def test_an_updater_whose_work_has_to_wait_sleeps_meanwhile(crowded: Repository, reason: str) -> None:
    if reason == "a rescan":
        crowded.updater.rescan()
    else:
        crowded.clock.advance(CHECK)
    crowded.updater.hint(NOBODY)
    wait_until(lambda: crowded.updater._wake_at() > crowded.clock.monotonic())


def test_uploads_that_come_at_once_are_one_publication(repository: Repository) -> None:
    repository.start()
    ends = [repository.updater.expect() for _ in range(3)]
    answers = []
    for end, name in zip(ends, (A, B, C), strict=True):
        answers.append(repository.admit(name))
        end()
    repository.clock.advance(COMPANY)
    repository.updater.hint(NOBODY)
    assert len({answer.result(30).revision for answer in answers}) == 1


def test_an_upload_that_is_given_up_holds_up_nobody(repository: Repository) -> None:
    repository.start()
    end = repository.updater.expect()
    answer = repository.admit(A)
    end()
    assert answer.result(30).revision is not None


def test_an_upload_that_takes_long_holds_up_nobody(repository: Repository) -> None:
    repository.start()
    repository.updater.expect()
    answer = repository.admit(A)
    repository.clock.advance(GATHER)
    repository.updater.hint(NOBODY)
    assert answer.result(30).revision is not None
