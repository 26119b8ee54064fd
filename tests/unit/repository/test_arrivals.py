"""Since when a file waits, for each way that it may have come."""

from __future__ import annotations

import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from repowatch.model.package import Stamp
from repowatch.repository.arrivals import LATER, Arrivals
from repowatch.repository.readers import Readers
from tests.unit.repository.test_updater import A, Repository

LONG_AGO = 1_000.0
NOW = 50_000.0


def changed(at: float) -> Stamp:
    """The stamp of a file that was last changed then."""
    return Stamp(1, 0, int(at * 1e9), 1)


def test_a_file_that_is_written_waits_since_it_was_last_changed() -> None:
    assert Arrivals().of("a.rpm", changed(NOW), names={"a.rpm"}) == NOW


def test_a_file_waits_as_long_when_its_event_was_lost() -> None:
    arrivals = Arrivals()
    arrivals.turned({""}, seen=(), left_over={}, began=NOW - 600)
    assert arrivals.of("a.rpm", changed(NOW - 400), names={""}) == NOW - 400


def test_an_old_file_that_no_event_told_of_came_after_the_last_whole_look() -> None:
    arrivals = Arrivals()
    arrivals.turned({""}, seen=(), left_over={}, began=NOW - 600)
    assert arrivals.of("d/a.rpm", changed(LONG_AGO), names={""}) == NOW - 600


def test_an_old_file_came_when_its_directory_was_moved_into_the_tree() -> None:
    arrivals = Arrivals()
    arrivals.hear("d", NOW)
    arrivals.hear("d", NOW + 1)
    for names in ({"d"}, {"d", "d/e/a.rpm"}):
        assert arrivals.of("d/e/a.rpm", changed(LONG_AGO), names=names) == NOW


def test_a_new_file_in_a_directory_that_was_heard_of_first_waits_since_its_own_change() -> None:
    arrivals = Arrivals()
    arrivals.hear("d", NOW)
    assert arrivals.of("d/a.rpm", changed(NOW + 1), names={"d", "d/a.rpm"}) == NOW + 1


def test_the_word_of_a_directory_is_good_for_one_look() -> None:
    arrivals = Arrivals()
    arrivals.hear("d", NOW)
    arrivals.turned({"d"}, seen=["d/a.rpm"], left_over={}, began=NOW)
    assert arrivals.of("d/a.rpm", changed(NOW + 9), names={"d", "d/a.rpm"}) == NOW + 9
    arrivals.hear("d", NOW + 20)
    assert arrivals.of("d/b.rpm", changed(LONG_AGO), names={"d"}) == NOW + 20


def test_an_upload_that_gets_its_name_later_waits_since_it_arrived() -> None:
    arrivals = Arrivals()
    arrivals.tell("a.rpm", NOW)
    assert arrivals.of("a.rpm", changed(NOW + 30), names={"a.rpm"}) == NOW


def test_a_later_file_of_the_name_of_an_upload_that_never_got_it_waits_for_itself() -> None:
    arrivals = Arrivals()
    arrivals.tell("a.rpm", NOW)
    later = NOW + LATER + 1
    assert arrivals.of("a.rpm", changed(later), names={"a.rpm"}) == later


def test_what_is_left_to_the_next_look_is_not_taken_for_older_or_newer_there() -> None:
    arrivals = Arrivals()
    arrivals.hear("d", NOW)
    left_over = {"d/a.rpm": changed(LONG_AGO)}
    arrivals.turned({"d"}, seen=["d/a.rpm", "d/b.rpm"], left_over=left_over, began=NOW + 1)
    assert arrivals.of("d/a.rpm", changed(LONG_AGO), names={"d/a.rpm"}) == NOW


def test_what_comes_back_with_a_file_system_came_with_it() -> None:
    arrivals = Arrivals()
    arrivals.turned({""}, seen=(), left_over={}, began=NOW - 600)
    arrivals.came_back(NOW)
    assert arrivals.of("a.rpm", changed(LONG_AGO), names={""}) == NOW


def test_nothing_is_remembered_of_what_was_listed_or_never_came() -> None:
    arrivals = Arrivals()
    for number in range(100):
        arrivals.tell(f"{number}.rpm", NOW)
        arrivals.hear(f"{number}", NOW)
    names = {str(number) for number in range(100)}
    arrivals.turned(names, seen=[f"{number}.rpm" for number in range(50)], left_over={}, began=NOW)
    arrivals.turned({""}, seen=(), left_over={}, began=NOW + LATER + 1)
    assert arrivals == Arrivals(_looked=NOW + LATER + 1)


@pytest.fixture
def repository(tmp_path: Path, readers: Readers, pool: ThreadPoolExecutor) -> Iterator[Repository]:
    repository = Repository(tmp_path, readers, pool)
    repository.start()
    yield repository
    repository.stop()


def test_an_upload_waits_from_its_arrival_though_it_is_gathered_with_others(repository: Repository) -> None:
    end = repository.updater.expect()
    answer = repository.admit(A)
    repository.clock.advance(0.25)
    end()
    answer.result(30)
    assert repository.turn().revision
    waiting = repository.index.tally.waiting
    assert (waiting.count, round(waiting.total, 6)) == (1, 0.25)


def test_an_upload_that_was_taken_back_and_named_later_waits_from_its_arrival(repository: Repository) -> None:
    repository.updater.expect()
    assert repository.admit(A).cancel()
    repository.clock.advance(30)
    [staged] = repository.aside.iterdir()
    os.rename(staged, repository.root / A)
    repository.updater.look(A).result(30)
    waiting = repository.index.tally.waiting
    assert (waiting.count, round(waiting.total, 6)) == (1, 30)
