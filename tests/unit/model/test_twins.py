"""Which files hold the same package, and which of them is the newest build."""

from __future__ import annotations

from collections.abc import Mapping

from hypothesis import given
from hypothesis import strategies as st

from repowatch.model.package import Entry, Nevra, Stamp
from repowatch.model.twins import Duplicate, Twins, newest_build, why_held_back

NAMES = ("a.rpm", "b.rpm", "sub/a.rpm", "sub/c.rpm")


def entry(name: str, *, version: str = "1", build_time: int = 0) -> Entry:
    nevra = Nevra("p", "0", version, "1", "noarch")
    return Entry(name, "0" * 64, nevra, Stamp(1, 2, 3, 4), build_time)


def test_the_newest_build_is_the_one_that_was_built_last() -> None:
    entries = [entry("a.rpm", build_time=2), entry("b.rpm", build_time=3), entry("c.rpm", build_time=1)]
    assert newest_build(entries).location_href == "b.rpm"


def test_of_builds_of_one_second_the_last_in_order_is_the_newest() -> None:
    entries = [entry("b.rpm"), entry("z/a.rpm"), entry("a/b.rpm")]
    assert newest_build(entries).location_href == newest_build(reversed(entries)).location_href == "a/b.rpm"


def test_the_reason_names_the_file_that_is_listed() -> None:
    old, new = entry("a.rpm"), entry("b.rpm", build_time=1)
    assert why_held_back(old, new) == (
        "p-1-1.noarch is listed from b.rpm: a newer build (same_nevra: newest_build)"
    )
    assert "built at the same time" in why_held_back(old, entry("b.rpm"))


CHANGES = st.lists(
    st.tuples(st.sampled_from(NAMES), st.one_of(st.none(), st.sampled_from("12")), st.booleans()), max_size=30
)


@given(CHANGES)
def test_after_any_changes_the_duplicates_are_those_of_the_files(
    changes: list[tuple[str, str | None, bool]],
) -> None:
    files: dict[str, Entry] = {}
    twins = Twins()
    duplicates: Mapping[Nevra, Duplicate] = {}
    for name, version, is_looked_at in changes:
        after = None if version is None else entry(name, version=version)
        twins.replace(files.pop(name, None), after)
        if after:
            files[name] = after
        if is_looked_at:
            duplicates = twins.settled(duplicates, files)
    assert twins.settled(duplicates, files) == from_scratch(files)
    assert not twins.touched


@given(CHANGES)
def test_what_did_not_change_is_the_same_object(changes: list[tuple[str, str | None, bool]]) -> None:
    twins = Twins(entry(name) for name in NAMES)
    before = twins.settled({}, {})
    assert twins.settled(before, {}) is before
    twins.replace(entry(NAMES[0]), entry(NAMES[0], build_time=1))
    assert twins.settled(before, {}) is before


def from_scratch(files: Mapping[str, Entry]) -> dict[Nevra, Duplicate]:
    found: dict[Nevra, list[str]] = {}
    for name in sorted(files, key=lambda each: (each.rpartition("/")[2], each.rpartition("/")[0])):
        found.setdefault(files[name].nevra, []).append(name)
    return {
        nevra: Duplicate(nevra, tuple(names), tuple(names))
        for nevra, names in found.items()
        if len(names) > 1
    }
