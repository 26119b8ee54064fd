"""The order of versions and file names."""

from __future__ import annotations

import itertools

import pytest

from repowatch.model.versions import evr_key, filename_key, version_key

OLDER_AND_NEWER = [
    ("1.0", "2.0"),
    ("2.0", "2.0.1"),
    ("1.9", "1.10"),
    ("5.5p1", "5.5p2"),
    ("5.5p9", "5.5p10"),
    ("10xyz", "10.1xyz"),
    ("xyz10", "xyz10.1"),
    ("xyz.4", "8"),
    ("xyz", "xyz.4"),
    ("1.0aa", "1.0b"),
    ("1.0A", "1.0a"),
    ("6.0", "6.0.rc1"),
    ("20101121", "20101122"),
    ("1.0~rc1", "1.0"),
    ("1.0~rc1", "1.0~rc2"),
    ("1.0~rc1~git123", "1.0~rc1"),
    ("~~", "~"),
    ("~", ""),
    ("1.0", "1.0^"),
    ("1.0^git1", "1.0^git2"),
    ("1.0^git1", "1.01"),
    ("1.0^20160101", "1.0.1"),
    ("1.0^20160101", "1.0^20160101^git1"),
    ("1.0~rc1", "1.0~rc1^git1"),
    ("1.0^git1~pre", "1.0^git1"),
    ("", "^"),
    ("^", "a"),
    ("a", "0"),
    ("1", "9" * 5000),
]

EQUAL = [
    ("1.0", "1.0"),
    ("1.0", "1_0"),
    ("1.0", "1..0."),
    ("1.01", "1.1"),
    ("1.0-", "1.0+"),
    ("2_0", "2.0"),
    ("1é1", "1.1"),
    ("\udcff1", "1"),
    ("٣", "é"),
]


def compare(a: str, b: str) -> int:
    """-1, 0 or 1, as rpmvercmp() says it."""
    return (version_key(a) > version_key(b)) - (version_key(a) < version_key(b))


def compare_evr(a: tuple[str, str, str], b: tuple[str, str, str]) -> int:
    return (evr_key(*a) > evr_key(*b)) - (evr_key(*a) < evr_key(*b))


@pytest.mark.parametrize(("older", "newer"), OLDER_AND_NEWER)
def test_the_older_version_compares_as_smaller_from_both_sides(older: str, newer: str) -> None:
    assert compare(older, newer) == -1
    assert compare(newer, older) == 1


@pytest.mark.parametrize(("one", "other"), EQUAL)
def test_separators_leading_zeros_and_characters_beyond_ascii_do_not_count(one: str, other: str) -> None:
    assert compare(one, other) == compare(other, one) == 0
    assert version_key(one) == version_key(other)


def test_the_epoch_weighs_more_than_the_version_and_the_version_more_than_the_release() -> None:
    ascending = [("", "1", "9"), ("0", "2", "1"), ("0", "2", "1.1"), ("1", "1", "1"), ("10", "0", "0")]
    for older, newer in itertools.combinations(ascending, 2):
        assert compare_evr(older, newer) == -1
        assert compare_evr(newer, older) == 1


def test_an_empty_epoch_is_zero() -> None:
    assert compare_evr(("", "1", "1"), ("0", "1", "1")) == 0


@pytest.mark.parametrize(
    "in_order",
    [
        ["foo-1.9-1.noarch.rpm", "foo-1.10-1.noarch.rpm", "foo-2~rc1-1.noarch.rpm", "foo-2-1.noarch.rpm"],
        ["foo-1-2.fc39.x86_64.rpm", "foo-1-2.fc40.x86_64.rpm", "foo-1-10.fc39.x86_64.rpm"],
        ["foo-1-1.aarch64.rpm", "foo-1-1.src.rpm", "foo-1-1.x86_64.rpm", "foo-1-2.aarch64.rpm"],
        ["python3.9-3.9.1-1.x86_64.rpm", "python3.10-3.10.1-1.x86_64.rpm"],
        ["foo-9-1.noarch.rpm", "foo-bar-1-1.noarch.rpm"],
        ["alpha-1-1.noarch.rpm", "Beta-1-1.noarch.rpm", "gamma-1-1.noarch.rpm"],
        ["source-1.9.tar.gz", "source-1.10.tar.gz"],
        ["8.9", "8.10", "9"],
        ["", "-", "-1-1.noarch.rpm", "--.rpm", ".rpm", "foo-1-1.rpm", "foo.rpm", "foo\udcff.rpm", "²"],
    ],
)
def test_file_names_are_in_the_order_people_expect(in_order: list[str]) -> None:
    assert sorted(set(in_order), key=filename_key) == in_order


def test_no_two_names_share_a_key() -> None:
    names = ["foo-1.0-1.noarch.rpm", "foo-1_0-1.noarch.rpm", "FOO-1.0-1.noarch.rpm", "foo-01.0-1.noarch.rpm"]
    assert len({filename_key(name) for name in names}) == len(names)
