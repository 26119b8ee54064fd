"""What is counted of a repository: every value once, in its bucket."""

from __future__ import annotations

from math import inf

from repowatch.model.figures import Histogram, Tally

EMPTY = Histogram.empty((1.0, 10.0))


def test_a_value_is_counted_below_its_bound_and_all_above() -> None:
    histogram = EMPTY.plus(0.5).plus(1.0).plus(1.5).plus(100.0)
    assert list(histogram.up_to()) == [(1.0, 2), (10.0, 3), (inf, 4)]
    assert (histogram.count, histogram.total) == (4, 103.0)


def test_whoever_holds_a_histogram_sees_no_later_value() -> None:
    EMPTY.plus(3.0)
    assert list(EMPTY.up_to()) == [(1.0, 0), (10.0, 0), (inf, 0)]


def test_a_clock_that_was_set_back_makes_no_negative_wait() -> None:
    histogram = EMPTY.plus(-5.0)
    assert (next(iter(histogram.up_to())), histogram.total) == ((1.0, 1), 0.0)


def test_two_repositories_are_counted_apart() -> None:
    one, other = Tally(), Tally()
    one.published(0.1)
    one.listed(0.2)
    assert (one.making.count, one.waiting.count) == (1, 1)
    assert (other.making.count, other.waiting.count) == (0, 0)
