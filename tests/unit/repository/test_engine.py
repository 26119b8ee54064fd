"""The engine from changes to files, over any history and any number of restarts, for every profile.

What is published has to be the elements in order, in files that another daemon over the same packages
publishes too, whatever was open, compressed, joined before or taken over from a cache.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule, run_state_machine_as_test

from repowatch.model import catalog as module
from repowatch.model.catalog import Catalog, order_key
from repowatch.model.formats import FORMATS, Format, opened
from repowatch.model.package import Package
from repowatch.model.recipe import Recipe
from repowatch.model.segment import KINDS, Run
from repowatch.repository import cache, sums
from repowatch.repository.segments import FEET, HEADS, MetadataFile, make_files, warm
from repowatch.repository.sums import OpenSums
from tests.unit.model.test_catalog import change, package

NAMES = [f"{number % 3}/p{number}.rpm" for number in range(60)]

locations = st.sampled_from(NAMES)
contents = st.dictionaries(locations, st.text("ab", max_size=40), max_size=20)


@pytest.fixture(scope="module", autouse=True)
def short_segments() -> Iterator[None]:
    """Segments of about five, so that a few packages make many of them, and a hash kept after each."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "REACH", 2)
        patch.setattr(sums, "STEP", 1)
        yield


def published(
    catalog: Catalog, pool: ThreadPoolExecutor, directory: Path, *, known: OpenSums
) -> tuple[tuple[MetadataFile, ...], dict[str, bytes]]:
    written: dict[str, bytes] = {}

    def write(kind: str, parts: Sequence[bytes]) -> None:
        written[kind] = b"".join(parts)

    files = make_files(catalog.segments, catalog.form, pool=pool, write=write, sums=known)
    for file in files:
        (directory / file.name).write_bytes(written[file.kind])
    return files, written


class Engine(RuleBasedStateMachine):
    """A catalog to which things happen, and the packages that it has to list."""

    form: Format
    pool: ThreadPoolExecutor

    @initialize()
    def begin(self) -> None:
        self.directory = Path(tempfile.mkdtemp())
        self.catalog = Catalog(self.form)
        self.listed: dict[str, Package] = {}
        self.files: tuple[MetadataFile, ...] = ()
        self.sums = OpenSums()

    def teardown(self) -> None:
        self.publish()
        shutil.rmtree(self.directory)

    @rule(put=contents, drop=st.sets(locations, max_size=20))
    def change_one_by_one(self, put: dict[str, str], drop: set[str]) -> None:
        self._list([package(*item) for item in put.items()], drop, together=False)

    @rule(put=contents, drop=st.sets(locations, max_size=20))
    def change_together(self, put: dict[str, str], drop: set[str]) -> None:
        self._list([package(*item) for item in put.items()], drop, together=True)

    @rule()
    def remove_everything(self) -> None:
        self._list([], set(self.listed), together=False)

    def _list(self, packages: list[Package], drop: set[str], *, together: bool) -> None:
        packages.sort(key=lambda each: order_key(each.entry.location_href))
        if together and packages:
            self.catalog.change([Run.of(packages, self.form)], drop)
        else:
            change(self.catalog, packages, drop)
        for name in drop:
            self.listed.pop(name, None)
        self.listed |= {each.entry.location_href: each for each in packages}

    @rule(opened=st.booleans())
    def restart(self, opened: bool) -> None:
        """With a cache of what is published; what came later is listed anew."""
        self.publish()
        path = str(self.directory / "catalog")
        names = [file.name for file in self.files]
        cache.save(path, self.catalog, recipe=Recipe(self.form), rejected=[], unchecked=[], files=names)
        restored = cache.load(path, str(self.directory), Recipe(self.form))
        assert restored is not None
        assert restored.catalog.entries == self.catalog.entries
        self.catalog = restored.catalog
        if opened:
            warm(self.catalog.segments, pool=self.pool)

    @rule(keep=st.integers(0, 5))
    def stop_while_it_is_read_for_the_first_time(self, keep: int) -> None:
        """All is lost but some runs that were kept."""
        path = str(self.directory / "progress")
        kept = [
            Run(tuple(self.catalog.entries[name] for name in segment.location_hrefs), segment)
            for segment in self.catalog.segments[:keep]
        ]
        progress = cache.Progress(path, Recipe(self.form))
        for run in kept:
            progress.add(run)
        progress.close()
        again = cache.Progress(path, Recipe(self.form))
        self.catalog = Catalog(self.form)
        self.catalog.change(again.load())
        assert self.catalog.entries.keys() == {entry.location_href for run in kept for entry in run.entries}
        again.discard()
        change(self.catalog, self.listed.values())

    @rule()
    def publish(self) -> None:
        self.files, written = published(self.catalog, self.pool, self.directory, known=self.sums)
        fresh = Catalog(self.form)
        change(fresh, self.listed.values())
        assert (self.files, written) == published(fresh, self.pool, self.directory, known=OpenSums())
        packages = [self.listed[name] for name in sorted(self.listed, key=order_key)]
        for kind, file in enumerate(self.files):
            elements = b"".join((each.primary, each.filelists, each.other)[kind] for each in packages)
            wanted = HEADS[kind] % len(packages) + elements + FEET[kind]
            assert opened(file.name, written[KINDS[kind]]) == wanted


@pytest.mark.parametrize("profile", FORMATS)
def test_any_history_publishes_what_is_listed_and_nothing_of_the_history(
    profile: str, pool: ThreadPoolExecutor
) -> None:
    class EngineOfProfile(Engine):
        pass

    EngineOfProfile.form = FORMATS[profile]
    EngineOfProfile.pool = pool
    run_state_machine_as_test(
        EngineOfProfile, settings=settings(max_examples=40, stateful_step_count=20, deadline=None)
    )
