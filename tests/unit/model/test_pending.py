"""Settle and deadline, with times passed in."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from repowatch.model import pending as module
from repowatch.model.pending import Expected, Pending


@pytest.fixture
def pending() -> Pending:
    return Pending(settle=0.5, deadline=2.0)


def test_nothing_is_due_when_nothing_was_heard(pending: Pending) -> None:
    assert pending.due_at() is None
    assert pending.take(math.inf) == set()


def test_a_name_is_taken_once_it_was_quiet_for_the_settle_time(pending: Pending) -> None:
    pending.hear("a.rpm", 10.0)
    pending.hear("a.rpm", 10.4)
    assert pending.due_at() == 10.9
    assert pending.take(10.8) == set()
    assert pending.take(10.9) == {"a.rpm"}
    assert pending.due_at() is None
    assert len(pending) == 0


def test_names_wait_for_each_other_and_make_one_batch(pending: Pending) -> None:
    pending.hear("a.rpm", 10.0)
    pending.hear("b.rpm", 10.3)
    assert pending.due_at() == 10.8
    assert pending.take(10.8) == {"a.rpm", "b.rpm"}


def test_quiet_names_wait_no_longer_than_the_deadline_for_noisy_ones(pending: Pending) -> None:
    pending.hear("quiet.rpm", 10.0)
    for step in range(8):
        pending.hear("noisy.rpm", 10.0 + step * 0.25)
    assert pending.due_at() == 12.0
    assert pending.take(12.0) == {"quiet.rpm"}
    assert len(pending) == 1


def test_a_name_that_stays_noisy_is_never_taken(pending: Pending) -> None:
    for step in range(100):
        now = 10.0 + step * 0.25
        pending.hear("growing.rpm", now)
        assert pending.take(now) == set()
    assert pending.take(now + 0.5) == {"growing.rpm"}


def test_the_whole_tree_is_looked_at_by_the_deadline_however_noisy(pending: Pending) -> None:
    for step in range(9):
        pending.hear("", 10.0 + step * 0.25)
    assert pending.due_at() == 12.0
    assert pending.take(12.0) == {""}


def test_too_many_names_become_a_look_at_everything(
    pending: Pending, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MOST_NAMES", 3)
    for name in "abcde":
        pending.hear(name, 10.0)
    assert pending.take(10.5) == {"a", "b", "c", ""}


def test_a_known_name_that_stays_noisy_is_not_taken_when_there_are_too_many(
    pending: Pending, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MOST_NAMES", 2)
    pending.hear("quiet.rpm", 10.0)
    for step in range(10):
        pending.hear("growing.rpm", 10.0 + step * 0.25)
    pending.hear("too many.rpm", 12.25)
    assert pending.take(12.25) == {"quiet.rpm"}


names = st.sampled_from(["a", "b", "c", ""])
moments = st.floats(0, 8, allow_nan=False).map(lambda seconds: round(seconds, 3))


@given(st.lists(st.tuples(names, moments), min_size=1), st.floats(0, 2), st.floats(0, 4))
def test_there_is_something_to_take_when_it_is_due_and_nothing_before(
    heard: list[tuple[str, float]], settle: float, deadline: float
) -> None:
    pending = Pending(settle=settle, deadline=deadline)
    for name, now in sorted(heard, key=lambda each: each[1]):
        pending.hear(name, now)
    taken: list[set[str]] = []
    dues: list[float] = []
    while (due := pending.due_at()) is not None:
        assert pending.take(math.nextafter(due, -math.inf)) == set()
        taken.append(pending.take(due))
        dues.append(due)
        assert taken[-1]
    assert sorted(name for names in taken for name in names) == sorted({name for name, _ in heard})
    assert all(before <= after for before, after in pairwise(dues))


@pytest.fixture
def expected() -> Expected:
    return Expected(patience=0.5, quiet=0.25)


NOT_AT_ALL = -math.inf


def test_what_arrived_waits_for_nothing_where_nothing_is_on_its_way(expected: Expected) -> None:
    expected.end(expected.begin(10.0))
    assert expected.wait_until(first=10.0, arrived=1, now=10.125) == NOT_AT_ALL


def test_what_arrived_waits_for_what_began_a_moment_ago(expected: Expected) -> None:
    one, other = expected.begin(10.0), expected.begin(10.125)
    assert expected.wait_until(first=10.25, arrived=1, now=10.25) == 10.625
    expected.end(other)
    assert expected.wait_until(first=10.25, arrived=1, now=10.25) == 10.5
    expected.end(one)
    expected.end(one)
    assert expected.wait_until(first=10.25, arrived=1, now=10.25) == NOT_AT_ALL


def test_several_wait_until_nothing_began_for_a_moment(expected: Expected) -> None:
    for moment in (10.0, 10.125):
        expected.end(expected.begin(moment))
    assert expected.wait_until(first=10.0, arrived=2, now=10.25) == 10.375
    assert expected.wait_until(first=10.0, arrived=2, now=10.375) == NOT_AT_ALL


def test_one_upload_that_takes_long_holds_up_nothing(expected: Expected) -> None:
    expected.begin(10.0)
    assert expected.wait_until(first=10.625, arrived=1, now=10.625) == NOT_AT_ALL


def test_uploads_that_never_end_to_come_hold_up_the_first_one_for_the_patience(expected: Expected) -> None:
    for number in range(100):
        expected.begin(10.0 + number / 128)
    assert expected.wait_until(first=10.0, arrived=7, now=10.25) == 10.5
    assert expected.wait_until(first=10.0, arrived=7, now=10.5) == NOT_AT_ALL
