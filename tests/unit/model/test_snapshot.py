"""The file of a snapshot, its names, and what a rollback would have to do."""

from __future__ import annotations

import re
from hashlib import sha256

import pytest

from repowatch.errors import Misunderstood
from repowatch.model.package import Entry, Nevra, Stamp
from repowatch.model.snapshot import (
    LONGEST_NAME,
    BadSnapshot,
    Kept,
    Snapshot,
    algorithm_of,
    checked_name,
    difference,
)

A = Kept("a-1.rpm", "a" * 64, 100, 5_000_000_001)
ODD = Kept("sub/n\udce4m e@\n.rpm", "b" * 64, 7, 0)
SNAPSHOT = Snapshot("weekly", 17, 1.5, "anna", {each.location_href: each for each in (A, ODD)})


def entry(name: str, pkgid: str) -> Entry:
    return Entry(name, pkgid, Nevra("a", "0", "1", "1", "noarch"), Stamp(100, 5, 5, 5))


def written(snapshot: Snapshot) -> bytes:
    return b"".join(snapshot.lines())


def test_what_is_written_is_read_whatever_the_names_of_files_are() -> None:
    assert Snapshot.parse(written(SNAPSHOT)) == SNAPSHOT
    assert SNAPSHOT.size == 107


def test_an_empty_repository_has_a_snapshot_as_well() -> None:
    empty = Snapshot("none", 1, 0.0, None, {})
    assert Snapshot.parse(written(empty)) == empty


@pytest.mark.parametrize("length", range(0, len(written(SNAPSHOT)), 7))
def test_a_file_that_was_cut_short_is_refused(length: int) -> None:
    with pytest.raises(BadSnapshot):
        Snapshot.parse(written(SNAPSHOT)[:length])


def test_a_file_in_which_a_digit_changed_is_refused() -> None:
    with pytest.raises(BadSnapshot, match="checksum"):
        Snapshot.parse(written(SNAPSHOT).replace(b"100", b"101"))


def test_a_number_that_is_none_is_told_as_such() -> None:
    body = b"".join(SNAPSHOT.lines()).rpartition(b"sha256 ")[0].replace(b'"revision": ', b'"revision": 1e', 1)
    body = re.sub(rb"1e[0-9]+", b"Infinity", body)
    with pytest.raises(BadSnapshot, match="it is no snapshot"):
        Snapshot.parse(body + b"sha256 " + sha256(body).hexdigest().encode() + b"\n")


@pytest.mark.parametrize("name", ["a", "A1", "2026-11-28_before.upgrade", "x" * LONGEST_NAME])
def test_a_name_that_is_safe_everywhere_is_taken(name: str) -> None:
    assert checked_name(name) == name


@pytest.mark.parametrize(
    "name", ["", ".x", "-x", "a/b", "a@b", "a b", "..", "ä", "a\n", "x.repo", "x" * (LONGEST_NAME + 1)]
)
def test_a_name_that_is_not_is_refused(name: str) -> None:
    with pytest.raises(Misunderstood):
        checked_name(name)


def test_what_made_a_pkgid_is_told_by_its_length() -> None:
    assert [algorithm_of("0" * digits) for digits in (40, 64, 128)] == ["sha1", "sha256", "sha512"]
    with pytest.raises(BadSnapshot):
        algorithm_of("0" * 63)


def test_a_difference_tells_what_left_what_changed_and_what_came() -> None:
    kept = {name: Kept(name, pkgid, 1, 1) for name, pkgid in (("left", "1"), ("changed", "2"), ("same", "3"))}
    listed = {name: entry(name, pkgid) for name, pkgid in (("changed", "9"), ("same", "3"), ("came", "4"))}
    found = difference(kept, listed, is_same=lambda one, other: one.pkgid == other.pkgid)
    assert (found.missing, found.changed, found.surplus) == (("left",), ("changed",), ("came",))
    assert not found.is_empty
    same = {"same": kept["same"]}, {"same": listed["same"]}
    assert difference(*same, is_same=lambda one, other: one.pkgid == other.pkgid).is_empty
