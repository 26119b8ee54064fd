"""The order of packages, and their cut into segments as a pure function of what is listed."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import count

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from repowatch.model.catalog import KINDS, Catalog, Segment, begins_segment, location_of, order_key
from repowatch.model.package import Entry, Nevra, Package, Stamp


def package(location_href: str, content: str = "") -> Package:
    """A package with elements that are told apart by name and content."""
    name = f"{location_href}={content}"
    entry = Entry(location_href, name, Nevra(name, "0", "1", "1", "noarch"), Stamp(len(name), 0, 0, 0))
    primary, filelists, other = (f"<package {kind}={name!a}></package>\n".encode() for kind in KINDS)
    return Package(entry, primary, filelists, other)


def catalog_of(packages: Iterable[Package]) -> Catalog:
    catalog = Catalog()
    catalog.change(packages)
    return catalog


def parts(catalog: Catalog) -> list[tuple[object, ...]]:
    return [(segment.keys, segment.lengths, segment.elements) for segment in catalog.segments]


def names(*, boundary: bool) -> Iterator[str]:
    """Names that begin a segment, or that do not."""
    locations = (f"{number % 3}/p{number}.rpm" for number in count())
    return (each for each in locations if begins_segment(order_key(each)) is boundary)


BOUNDARIES = [name for name, _ in zip(names(boundary=True), range(8), strict=False)]
OTHERS = [name for name, _ in zip(names(boundary=False), range(16), strict=False)]

locations = st.sampled_from([*BOUNDARIES, *OTHERS])
batches = st.tuples(
    st.dictionaries(locations, st.sampled_from(["", "new", "newer and longer"]), max_size=8),
    st.sets(locations, max_size=8),
)


def test_packages_stand_by_basename_then_directory_bytewise() -> None:
    wanted = ["B.rpm", "a.rpm", "x/a.rpm", "x-y/a.rpm", "x/y/a.rpm", "a0.rpm", "é.rpm"]
    catalog = catalog_of(map(package, reversed(wanted)))
    assert [each.entry.location_href for each in catalog.packages()] == wanted


@given(st.text(st.characters(exclude_characters="\0", codec="utf-8"), min_size=1))
@example("a/b/c.rpm")
@example("caf\udce9/x\udcff.rpm")
def test_a_location_is_found_again_in_its_key(text: str) -> None:
    location_href = text.strip("/") or "x"
    assert location_of(order_key(location_href)) == location_href


@given(st.lists(batches, max_size=12))
@example([({BOUNDARIES[0]: "", OTHERS[0]: ""}, set()), ({}, {BOUNDARIES[0]})])
@example([(dict.fromkeys(BOUNDARIES, ""), set()), ({}, set(BOUNDARIES[1:]))])
@example(
    [(dict.fromkeys([*BOUNDARIES, *OTHERS], ""), set()), (dict.fromkeys(OTHERS, "new"), set(BOUNDARIES))]
)
def test_segments_depend_on_what_is_listed_and_never_on_history(
    history: list[tuple[dict[str, str], set[str]]],
) -> None:
    catalog = Catalog()
    listed: dict[str, str] = {}
    for put, drop in history:
        catalog.change([package(*item) for item in put.items()], drop)
        for name in drop:
            listed.pop(name, None)
        listed |= put
        fresh = catalog_of(package(*item) for item in listed.items())
        assert parts(catalog) == parts(fresh)
        assert catalog.entries == fresh.entries


@given(st.sets(locations), st.sets(locations))
def test_packages_come_out_as_they_went_in(put: set[str], drop: set[str]) -> None:
    catalog = catalog_of(map(package, put))
    catalog.change([], drop)
    wanted = [package(name) for name in sorted(put - drop, key=order_key)]
    assert list(catalog.packages()) == wanted


@given(st.sets(locations), locations, st.sampled_from(["put", "drop"]))
def test_one_change_leaves_all_but_two_segments_the_same_objects(
    listed: set[str], changed: str, how: str
) -> None:
    catalog = catalog_of(map(package, listed))
    before = catalog.segments
    catalog.change([package(changed, "new")] if how == "put" else [], [changed])
    kept = {id(segment) for segment in catalog.segments}
    assert sum(id(segment) not in kept for segment in before) <= 2


def test_a_change_of_nothing_keeps_every_segment() -> None:
    catalog = catalog_of(map(package, OTHERS))
    before = catalog.segments
    catalog.change([], ["unknown.rpm"])
    assert catalog.segments is before


def test_what_another_thread_took_stays_as_it_was() -> None:
    catalog = catalog_of(map(package, OTHERS))
    entries, segments = catalog.entries, catalog.segments
    before = dict(entries), [segment.keys for segment in segments]
    catalog.change([package("new.rpm")], OTHERS[:8])
    assert (dict(entries), [segment.keys for segment in segments]) == before


def test_a_name_that_is_dropped_and_put_is_listed() -> None:
    catalog = catalog_of([package("a.rpm")])
    catalog.change([package("a.rpm", "new")], ["a.rpm"])
    assert list(catalog.packages()) == [package("a.rpm", "new")]


def test_an_empty_catalog_has_no_segments() -> None:
    catalog = catalog_of([package("a.rpm")])
    catalog.change([], ["a.rpm"])
    assert (catalog.segments, dict(catalog.entries)) == ((), {})


def test_a_new_stamp_changes_no_segment() -> None:
    catalog = catalog_of(map(package, OTHERS))
    before = catalog.segments
    moved = Entry(OTHERS[0], "id", Nevra("a", "0", "1", "1", "noarch"), Stamp(1, 2, 3, 4))
    catalog.restamp([moved])
    assert catalog.segments is before
    assert catalog.entries[OTHERS[0]] is moved


def _opened(segments: Iterable[Segment]) -> list[bytes]:
    joined = [b"".join(each) for each in zip(*(segment.elements for segment in segments), strict=True)]
    return [b"<metadata>\n" + content + b"</metadata>" for content in joined or [b"", b"", b""]]


@given(st.sets(locations))
def test_a_restored_catalog_is_the_one_that_was_published(listed: set[str]) -> None:
    catalog = catalog_of(map(package, listed))
    packages = list(catalog.packages())
    lengths = [(len(each.primary), len(each.filelists), len(each.other)) for each in packages]
    restored = Catalog.restored([each.entry for each in packages], lengths, _opened(catalog.segments))
    assert parts(restored) == parts(catalog)
    assert restored.entries == catalog.entries


@pytest.mark.parametrize("damage", ["a length", "the order", "one package too few", "one package too many"])
def test_lengths_that_do_not_fit_the_files_are_refused(damage: str) -> None:
    catalog = catalog_of(map(package, OTHERS))
    packages = list(catalog.packages())
    opened = _opened(catalog.segments)
    if damage == "the order":
        packages[0], packages[1] = packages[1], packages[0]
    if damage == "one package too few":
        packages.pop()
    lengths = [(len(each.primary), len(each.filelists), len(each.other)) for each in packages]
    entries = [each.entry for each in packages]
    if damage == "a length":
        lengths[3] = (lengths[3][0] + 1, *lengths[3][1:])
    if damage == "one package too many":
        entries.append(package("zzz.rpm").entry)
        lengths.append(lengths[-1])
    with pytest.raises(ValueError, match="elements"):
        Catalog.restored(entries, lengths, opened)
