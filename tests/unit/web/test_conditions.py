"""Which conditions of a request hold."""

from __future__ import annotations

import time

import pytest

from repowatch.web.conditions import (
    Conditions,
    evaluate,
    http_date,
    if_range_holds,
    modification_time,
    parse_http_date,
)

CHANGED = 784111777
BEFORE, THEN, AFTER = (http_date(CHANGED + lead) for lead in (-1, 0, 1))
SAME, OTHER = '"same"', '"other"'
GO_ON = None


def verdict(method: str = "GET", **fields: str) -> int | None:
    return verdict_on(CHANGED, method, **fields)


def verdict_on(last_modified: float | None, method: str = "GET", **fields: str) -> int | None:
    conditions = Conditions(**fields)
    return evaluate(conditions, method=method, exists=True, etag="same", last_modified=last_modified)


def verdict_on_nothing(method: str, **fields: str) -> int | None:
    return evaluate(Conditions(**fields), method=method, exists=False, etag=None, last_modified=None)


def test_conditions_are_taken_from_a_wsgi_environment() -> None:
    environ = {
        "HTTP_IF_MATCH": "a",
        "HTTP_IF_UNMODIFIED_SINCE": "b",
        "HTTP_IF_NONE_MATCH": "c",
        "HTTP_IF_MODIFIED_SINCE": "d",
    }
    assert Conditions.of(environ) == Conditions("a", "b", "c", "d")
    assert Conditions.of({}) == Conditions()


@pytest.mark.parametrize(
    ("field", "matches"),
    [
        ("*", True),
        (" * ", True),
        (SAME, True),
        (OTHER, False),
        (f"{OTHER}, {SAME}", True),
        (f'{OTHER},{SAME},"third"', True),
        (f", ,{SAME},", True),
        ('"a,b" , "same"', True),
        ('"a b","same"', True),
        ('"other,same"', False),
        ('"SAME"', False),
        ("same", False),
        ('"*"', False),
        ('"', False),
        ("", False),
    ],
)
def test_a_tag_matches_when_it_is_in_the_list(field: str, matches: bool) -> None:
    assert verdict(if_match=field) == (GO_ON if matches else 412)
    assert verdict(if_none_match=field) == (304 if matches else GO_ON)


def test_a_weak_tag_counts_for_if_none_match_but_not_for_if_match() -> None:
    assert verdict(if_none_match=f"W/{SAME}") == 304
    assert verdict(if_match=f"W/{SAME}") == 412
    assert verdict(if_match=f"W/{SAME}, {SAME}") is GO_ON


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({}, GO_ON),
        ({"if_unmodified_since": BEFORE}, 412),
        ({"if_unmodified_since": THEN}, GO_ON),
        ({"if_unmodified_since": AFTER}, GO_ON),
        ({"if_modified_since": BEFORE}, GO_ON),
        ({"if_modified_since": THEN}, 304),
        ({"if_modified_since": AFTER}, 304),
        # If-Match silences If-Unmodified-Since, If-None-Match silences If-Modified-Since.
        ({"if_match": SAME, "if_unmodified_since": BEFORE}, GO_ON),
        ({"if_match": OTHER, "if_unmodified_since": AFTER}, 412),
        ({"if_none_match": OTHER, "if_modified_since": AFTER}, GO_ON),
        ({"if_none_match": SAME, "if_modified_since": BEFORE}, 304),
        # What may refuse comes before what may spare.
        ({"if_match": OTHER, "if_none_match": SAME}, 412),
        ({"if_match": SAME, "if_none_match": SAME}, 304),
        ({"if_match": SAME, "if_none_match": OTHER}, GO_ON),
        ({"if_match": SAME, "if_modified_since": THEN}, 304),
        ({"if_unmodified_since": BEFORE, "if_none_match": SAME}, 412),
        ({"if_unmodified_since": THEN, "if_none_match": SAME}, 304),
        ({"if_unmodified_since": THEN, "if_modified_since": THEN}, 304),
        ({"if_unmodified_since": BEFORE, "if_modified_since": THEN}, 412),
    ],
)
def test_conditions_are_evaluated_in_the_order_of_the_specification(
    fields: dict[str, str], expected: int | None
) -> None:
    assert verdict("GET", **fields) == expected
    assert verdict("HEAD", **fields) == expected


@pytest.mark.parametrize("method", ["PUT", "DELETE", "MOVE"])
def test_a_method_that_changes_the_target_is_refused_instead_of_spared(method: str) -> None:
    assert verdict(method, if_none_match=SAME) == 412
    assert verdict(method, if_none_match="*") == 412
    assert verdict(method, if_none_match=OTHER) is GO_ON
    assert verdict(method, if_modified_since=THEN) is GO_ON
    assert verdict(method, if_unmodified_since=BEFORE) == 412
    assert verdict(method, if_match=OTHER) == 412
    assert verdict(method, if_match=SAME) is GO_ON


def test_on_a_missing_target_only_if_match_refuses() -> None:
    assert verdict_on_nothing("PUT", if_match="*") == 412
    assert verdict_on_nothing("PUT", if_match=SAME) == 412
    assert verdict_on_nothing("PUT", if_none_match="*") is GO_ON
    assert verdict_on_nothing("PUT", if_none_match=SAME) is GO_ON
    assert verdict_on_nothing("PUT", if_unmodified_since=BEFORE) is GO_ON


@pytest.mark.parametrize("date", ["", "yesterday", f"{BEFORE}, {BEFORE}", f"{BEFORE} "[:-5], "0"])
def test_a_bad_date_is_ignored(date: str) -> None:
    assert verdict(if_unmodified_since=date) is GO_ON
    assert verdict(if_modified_since=date) is GO_ON


def test_dates_are_ignored_where_the_target_has_none() -> None:
    assert verdict_on(None, if_unmodified_since=BEFORE) is GO_ON
    assert verdict_on(None, if_modified_since=AFTER) is GO_ON


def test_fractions_of_a_second_do_not_count() -> None:
    assert verdict_on(CHANGED + 0.9, if_modified_since=THEN) == 304
    assert verdict_on(CHANGED + 0.9, if_unmodified_since=THEN) is GO_ON


@pytest.mark.parametrize(
    ("field", "holds"),
    [
        (None, True),
        (SAME, True),
        (OTHER, False),
        (f"W/{SAME}", False),
        (f"{SAME}, {OTHER}", False),
        ("same", False),
        ("*", False),
        (THEN, True),
        ("Sunday, 06-Nov-94 08:49:37 GMT", True),
        (BEFORE, False),
        (AFTER, False),
        ("", False),
    ],
)
def test_if_range_holds_for_the_same_tag_or_exactly_the_same_date(field: str | None, holds: bool) -> None:
    assert if_range_holds(field, etag="same", last_modified=CHANGED) is holds


def test_if_range_with_a_date_does_not_hold_for_a_target_without_one() -> None:
    assert not if_range_holds(THEN, etag="same", last_modified=None)
    assert not if_range_holds("no date", etag="same", last_modified=None)


@pytest.mark.parametrize(
    "text",
    ["Sun, 06 Nov 1994 08:49:37 GMT", "Sunday, 06-Nov-94 08:49:37 GMT", "Sun Nov  6 08:49:37 1994"],
)
def test_all_three_forms_of_a_date_are_read(text: str) -> None:
    assert parse_http_date(text) == CHANGED


@pytest.mark.parametrize(
    "text",
    [
        "Sun, 06 Nov 1994 08:49:37",
        "Sun, 06 Nov 1994 08:49:37 +0000",
        "Sun, 6 Nov 1994 08:49:37 GMT",
        "sun, 06 nov 1994 08:49:37 gmt",
        "06 Nov 1994 08:49:37 GMT",
        "Sun, 31 Feb 1994 08:49:37 GMT",
        "Sun, 06 Nov 0000 08:49:37 GMT",
        "Sun, 06 Nov 1994 24:00:00 GMT",
        "Sun, 06 Nov 1994 08:49:61 GMT",
        "Sun, 06 Nov 1994 08:49:37 GMT\n",
        "Sun, ٠٦ Nov 1994 08:49:37 GMT",
        "784111777",
    ],
)
def test_what_is_not_exactly_a_date_is_none(text: str) -> None:
    assert parse_http_date(text) is None


def test_a_leap_second_is_the_first_of_the_next_minute() -> None:
    assert parse_http_date("Sat, 31 Dec 2016 23:59:60 GMT") == parse_http_date(
        "Sun, 01 Jan 2017 00:00:00 GMT"
    )


@pytest.mark.parametrize(("years_ahead", "read_as"), [(0, 0), (49, 49), (52, -48), (-30, -30)])
def test_a_year_of_two_digits_is_never_more_than_fifty_years_ahead(years_ahead: int, read_as: int) -> None:
    this_year = time.gmtime().tm_year
    seconds = parse_http_date(f"Monday, 02-Jan-{(this_year + years_ahead) % 100:02} 00:00:00 GMT")
    assert seconds is not None
    assert time.gmtime(seconds).tm_year == this_year + read_as


def test_a_date_is_written_as_it_is_read() -> None:
    assert http_date(CHANGED) == "Sun, 06 Nov 1994 08:49:37 GMT"
    for seconds in (0, 68169599, 951782400, 253402300799):
        assert parse_http_date(http_date(seconds)) == seconds


def test_the_modification_time_is_whole_seconds_and_never_in_the_future() -> None:
    assert modification_time(1_999_999_999, now=100.0) == 1
    assert modification_time(500_000_000_000, now=100.9) == 100


def test_a_time_that_http_can_not_write_is_none() -> None:
    assert modification_time(-1, now=100.0) is None
    assert modification_time(10**21, now=1e12) is None
