"""The order of packages, and their cut into segments as a pure function of what is listed."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from itertools import pairwise

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from repowatch.model import catalog as module
from repowatch.model.catalog import REACH, Catalog, cuts, order_key
from repowatch.model.formats import FORMATS, Format, Piece
from repowatch.model.package import Entry, Nevra, Package, Stamp
from repowatch.model.segment import KINDS, Damaged, Run, Segment


@pytest.fixture(scope="module", autouse=True)
def short_segments() -> Iterator[None]:
    """Segments of about five, so that a few packages make many of them."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "REACH", 2)
        yield


def package(location_href: str, content: str = "") -> Package:
    """A package with elements that are told apart by name and content."""
    name = f"{location_href}={content}"
    entry = Entry(location_href, name, Nevra(name, "0", "1", "1", "noarch"), Stamp(len(name), 0, 0, 0))
    primary, filelists, other = (f"<package {kind}={name!a}></package>\n".encode() for kind in KINDS)
    return Package(entry, primary, filelists, other)


def change(catalog: Catalog, put: Iterable[Package], drop: Iterable[str] = ()) -> None:
    catalog.change([Run.of([each], catalog.form) for each in put], drop)


def catalog_of(packages: Iterable[Package]) -> Catalog:
    catalog = Catalog()
    change(catalog, packages)
    return catalog


def parts(catalog: Catalog) -> list[tuple[object, ...]]:
    return [
        (segment.location_hrefs, segment.lengths, [segment.opened(kind) for kind in range(3)])
        for segment in catalog.segments
    ]


NAMES = [f"{number % 3}/p{number}.rpm" for number in range(40)]

locations = st.sampled_from(NAMES)
contents = st.dictionaries(locations, st.sampled_from(["", "new", "newer and longer"]), max_size=30)
batches = st.tuples(contents, st.sets(locations, max_size=30))


def test_packages_stand_by_basename_then_directory_bytewise() -> None:
    wanted = ["B.rpm", "a.rpm", "x/a.rpm", "x-y/a.rpm", "x/y/a.rpm", "a0.rpm", "é.rpm"]
    catalog = catalog_of(map(package, reversed(wanted)))
    assert [each.entry.location_href for each in catalog.packages()] == wanted


def test_a_segment_begins_where_the_hash_is_least_within_reach(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "REACH", REACH)
    names = sorted((f"p{number}.rpm" for number in range(5000)), key=order_key)
    edges = [*cuts(names), len(names)]
    sizes = [end - start for start, end in pairwise(edges)]
    assert edges[0] == 0
    assert min(sizes[1:-1]) > REACH
    assert 1.5 * REACH < sum(sizes) / len(sizes) < 2.5 * REACH
    assert max(sizes) < 8 * REACH


@given(st.lists(batches, max_size=12))
@example([(dict.fromkeys(NAMES, ""), set()), ({}, set(NAMES[1:]))])
@example([(dict.fromkeys(NAMES[::2], ""), set()), (dict.fromkeys(NAMES[1::2], "new"), set(NAMES[::2]))])
def test_segments_depend_on_what_is_listed_and_never_on_history(
    history: list[tuple[dict[str, str], set[str]]],
) -> None:
    catalog = Catalog()
    listed: dict[str, str] = {}
    for put, drop in history:
        change(catalog, [package(*item) for item in put.items()], drop)
        for name in drop:
            listed.pop(name, None)
        listed |= put
        fresh = catalog_of(package(*item) for item in listed.items())
        assert parts(catalog) == parts(fresh)
        assert catalog.entries == fresh.entries


@given(st.sets(locations), st.sets(locations))
def test_packages_come_out_as_they_went_in(put: set[str], drop: set[str]) -> None:
    catalog = catalog_of(map(package, put))
    change(catalog, [], drop)
    wanted = [package(name) for name in sorted(put - drop, key=order_key)]
    assert list(catalog.packages()) == wanted


@given(st.lists(st.sets(locations, min_size=1), max_size=4), contents)
def test_runs_that_come_together_are_as_good_as_single_packages(
    runs: list[set[str]], before: dict[str, str]
) -> None:
    """The later one of two with one name counts; a run that fits a segment is that segment."""
    catalog = catalog_of(package(*item) for item in before.items())
    together = [
        Run.of([package(name, str(number)) for name in sorted(names, key=order_key)], catalog.form)
        for number, names in enumerate(runs)
    ]
    catalog.change(together)
    listed = before | {name: str(number) for number, names in enumerate(runs) for name in names}
    assert parts(catalog) == parts(catalog_of(package(*item) for item in listed.items()))


def test_a_run_that_fits_is_taken_as_it_is() -> None:
    wanted = catalog_of(map(package, NAMES))
    entries = wanted.entries
    runs = [
        Run(tuple(entries[name] for name in segment.location_hrefs), segment) for segment in wanted.segments
    ]
    catalog = Catalog()
    catalog.change(runs)
    assert list(map(id, catalog.segments)) == list(map(id, wanted.segments))


def test_one_change_leaves_all_but_a_few_segments_the_same_objects(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "REACH", REACH)
    names = [f"p{number}.rpm" for number in range(0, 4000, 2)]
    catalog = catalog_of(map(package, names))
    made = []
    for number in range(1, 400, 2):
        before = set(catalog.segments)
        change(catalog, [package(f"p{number}.rpm")], [f"p{2 * number}.rpm"])
        made.append(len(set(catalog.segments) - before))
    assert max(made) <= 8  # two changes, each of a segment and at most three that it joins or cuts
    assert sum(made) / len(made) < 3


def test_a_change_of_nothing_keeps_every_segment() -> None:
    catalog = catalog_of(map(package, NAMES))
    before = catalog.segments
    catalog.change([], ["unknown.rpm"])
    assert catalog.segments is before


def test_what_another_thread_took_stays_as_it_was() -> None:
    catalog = catalog_of(map(package, NAMES))
    entries, segments = catalog.entries, catalog.segments
    before = dict(entries), [segment.location_hrefs for segment in segments]
    change(catalog, [package("new.rpm")], NAMES[:8])
    assert (dict(entries), [segment.location_hrefs for segment in segments]) == before


def test_a_name_that_is_dropped_and_put_is_listed() -> None:
    catalog = catalog_of([package("a.rpm")])
    change(catalog, [package("a.rpm", "new")], ["a.rpm"])
    assert list(catalog.packages()) == [package("a.rpm", "new")]


def test_an_empty_catalog_has_no_segments() -> None:
    catalog = catalog_of([package("a.rpm")])
    catalog.change([], ["a.rpm"])
    assert (catalog.segments, dict(catalog.entries)) == ((), {})


def test_a_new_stamp_changes_no_segment() -> None:
    catalog = catalog_of(map(package, NAMES))
    before = catalog.segments
    moved = Entry(NAMES[0], "id", Nevra("a", "0", "1", "1", "noarch"), Stamp(1, 2, 3, 4))
    catalog.restamp([moved])
    assert catalog.segments is before
    assert catalog.entries[NAMES[0]] is moved


@given(st.sets(locations), st.sets(locations))
def test_elements_are_found_by_name(listed: set[str], asked: set[str]) -> None:
    packages = {name: package(name) for name in listed & asked}
    wanted = {name: (each.primary, each.filelists, each.other) for name, each in packages.items()}
    assert catalog_of(map(package, listed)).elements_of(asked) == wanted


def runs_of(catalog: Catalog) -> list[Run]:
    """The segments as a cache gives them: compressed, and not open."""
    return [
        Run(
            tuple(catalog.entries[name] for name in segment.location_hrefs),
            Segment(
                segment.location_hrefs,
                segment.lengths,
                catalog.form,
                pieces=[segment.piece(kind) for kind in range(3)],
            ),
        )
        for segment in catalog.segments
    ]


@given(st.sets(locations))
def test_a_restored_catalog_is_the_one_that_was_published(listed: set[str]) -> None:
    catalog = catalog_of(map(package, listed))
    restored = Catalog.restored(runs_of(catalog), catalog.form)
    assert not any(segment.is_open(kind) for segment in restored.segments for kind in range(3))
    assert parts(restored) == parts(catalog)
    assert restored.entries == catalog.entries


@pytest.mark.parametrize("wrong", ["order", "cut"])
def test_segments_that_no_catalog_would_make_are_refused(wrong: str) -> None:
    catalog = catalog_of(map(package, NAMES))
    first, second, *rest = runs_of(catalog)
    joined = Run.of([*first.packages(), *second.packages()], catalog.form)
    with pytest.raises(Damaged, match="not in order, or not cut"):
        Catalog.restored([joined, *rest] if wrong == "cut" else [second, first, *rest], catalog.form)


def test_lengths_that_do_not_fit_the_elements_are_found_before_a_change_uses_them() -> None:
    catalog = catalog_of(map(package, NAMES))
    runs = runs_of(catalog)
    lengths = runs[0].segment.lengths[0]
    lengths[0] += 1
    lengths[1] -= 1
    restored = Catalog.restored(runs, catalog.form)
    before = restored.entries, restored.segments
    with pytest.raises(Damaged, match="does not end"):
        change(restored, [package(f"{runs[0].segment.location_hrefs[0]}.rpm")])
    assert (restored.entries, restored.segments) == before


@pytest.mark.parametrize("form", FORMATS.values(), ids=FORMATS)
@pytest.mark.parametrize(
    "damage",
    [
        lambda piece: replace(piece, packed=piece.packed[:-9]),
        lambda piece: replace(piece, packed=b"no such thing"),
        lambda piece: replace(piece, crc=piece.crc ^ 1),
        lambda piece: replace(piece, length=piece.length - 1),
    ],
)
def test_pieces_that_are_damaged_are_found_when_they_are_opened(
    form: Format, damage: Callable[[Piece], Piece]
) -> None:
    segment = Run.of([package(name) for name in NAMES], form).segment
    pieces = [segment.piece(0), damage(segment.piece(1)), segment.piece(2)]
    restored = Segment(segment.location_hrefs, segment.lengths, form, pieces=pieces)
    assert restored.opened(0) == segment.opened(0)
    with pytest.raises(Damaged):
        restored.opened(1)
