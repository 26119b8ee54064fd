"""With `same_nevra: newest_build`, what is listed follows from the files alone, whatever their history."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from repowatch.errors import RepowatchError
from repowatch.model.catalog import order_key
from repowatch.model.digests import inspect
from repowatch.model.package import Stamp
from repowatch.repository.changes import Arrival, Departure, PublicationFailed, Together
from repowatch.repository.files import Files
from repowatch.repository.index import Index
from repowatch.repository.readers import Batch, Readers, ToRead
from tests.kit.clock import FakeClock
from tests.kit.rpms import make_rpm

NAMES = ("a.rpm", "b.rpm", "sub/a.rpm")
BUILDS = tuple((version, build_time) for version in ("1", "2") for build_time in (100, 200))

Build = tuple[str, int]  # version, and when it was built


class Repository:
    """A tree with few names, and the index of it."""

    def __init__(
        self, path: Path, readers: Readers, pool: ThreadPoolExecutor, *, newest: bool = True
    ) -> None:
        self.path = path
        self.root = path / "root"
        (self.root / "sub").mkdir(parents=True)
        self.packages = {build: self._make(*build) for build in BUILDS}
        self._parts = (readers, pool)
        self._arrivals = 0
        self.index = self.open(newest=newest)

    def _make(self, version: str, build_time: int) -> Path:
        return make_rpm(self.path / f"{version}.{build_time}", "p", version, build_time=build_time)

    def open(self, *, newest: bool = True) -> Index:
        readers, pool = self._parts
        clock = FakeClock()
        self.index = Index(
            str(self.root), name="test", readers=readers, pool=pool, clock=clock, newest_build=newest
        )
        self.index.open()
        return self.index

    def restart(self, *, newest: bool = True) -> None:
        self.index.save()
        self.index.close()
        self.open(newest=newest)
        self.look()

    def look(self) -> None:
        try:
            self.index.turn([], at_once=[""])
        except PublicationFailed:  # an empty tree is believed the second time
            self.index.turn([], at_once=[""])

    def put(self, name: str, build: Build) -> None:
        """By file, in one step."""
        aside = self.path / "aside"
        shutil.copy(self.packages[build], aside)
        aside.rename(self.root / name)

    def arrival(self, name: str, build: Build, *, refused: bool = False) -> Arrival:
        def check() -> None:
            if refused:
                raise RepowatchError("no")

        self._arrivals += 1
        staged = self.path / f"staged{self._arrivals}"
        shutil.copy(self.packages[build], staged)
        stamp = Stamp.of(staged.stat())
        with open(staged, "rb", buffering=0) as stream:
            inspection = inspect(stream, size=stamp.size)
        package = self.index.describe(inspection, location_href=name, stamp=stamp, path=str(staged))
        return Arrival(name, str(staged), package, check)

    @property
    def listed(self) -> set[str]:
        publication = self.index.publication
        return set(publication.entries) if publication else set()


def expected(files: dict[str, Build]) -> set[str]:
    """Of each version the one that was built last, and of those the last in order."""
    found: dict[str, str] = {}
    for name in sorted(files, key=lambda each: (files[each][1], order_key(each))):
        found[files[name][0]] = name
    return set(found.values())


@pytest.fixture
def repository(tmp_path: Path, readers: Readers, pool: ThreadPoolExecutor) -> Repository:
    return Repository(tmp_path, readers, pool)


STEPS = st.lists(
    st.tuples(
        st.sampled_from(["file", "file", "upload", "refused", "remove", "delete", "look", "restart"]),
        st.sampled_from(NAMES),
        st.sampled_from(BUILDS),
    ),
    min_size=3,
    max_size=12,
)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=STEPS)
def test_what_is_listed_is_a_function_of_the_files(
    readers: Readers, pool: ThreadPoolExecutor, steps: list[tuple[str, str, Build]]
) -> None:
    with tempfile.TemporaryDirectory() as directory:
        repository, files = Repository(Path(directory), readers, pool), dict[str, Build]()
        repository.look()
        for step, name, build in steps:
            take_step(repository, files, step, name, build)
        repository.look()
        assert repository.listed == expected(files)
        assert set(repository.index.rejected) == files.keys() - expected(files)
        repository.index.close()


def take_step(repository: Repository, files: dict[str, Build], step: str, name: str, build: Build) -> None:
    match step:
        case "file":
            repository.put(name, build)
            files[name] = build
        case "upload" | "refused":
            arrival = repository.arrival(name, build, refused=step == "refused")
            repository.index.turn([], at_once=[""], changes=[arrival])
            if step == "upload":
                files[name] = build
            assert repository.listed == expected(files)
        case "remove":
            (repository.root / name).unlink(missing_ok=True)
            files.pop(name, None)
        case "delete" if name in files:
            repository.look()
            repository.index.turn([], changes=[Departure(name, lambda: None)])
            del files[name]
            assert repository.listed == expected(files)
        case "look":
            repository.look()
            assert repository.listed == expected(files)
        case "restart":
            repository.restart()
            assert repository.listed == expected(files)


def test_when_the_winner_is_deleted_the_runner_up_is_in_the_same_publication(repository: Repository) -> None:
    repository.put("a.rpm", ("1", 200))
    repository.put("b.rpm", ("1", 100))
    repository.look()
    assert repository.listed == {"a.rpm"}
    departure = Departure("a.rpm", lambda: None)
    before = repository.index.publication
    repository.index.turn([], changes=[departure])
    assert before and departure.answer.result(0).revision == before.revision + 1
    assert repository.listed == {"b.rpm"}
    assert not repository.index.rejected


def test_who_uploads_an_older_build_is_told_that_it_is_stored_and_not_listed(repository: Repository) -> None:
    repository.put("a.rpm", ("1", 200))
    repository.look()
    arrival = repository.arrival("b.rpm", ("1", 100))
    repository.index.turn([], changes=[arrival])
    note = arrival.answer.result(0).note
    assert note.startswith(
        "b.rpm is stored, and not listed: p-1-1.noarch is listed from a.rpm: a newer build"
    )
    assert (repository.root / "b.rpm").is_file()
    assert repository.listed == {"a.rpm"}


def test_what_is_held_back_is_not_read_again_when_nothing_changed(
    repository: Repository, monkeypatch: pytest.MonkeyPatch
) -> None:
    repository.put("a.rpm", ("1", 200))
    repository.put("b.rpm", ("1", 100))
    repository.look()
    asked: list[ToRead] = []

    def note(self: Files, files: list[ToRead]) -> Iterator[Batch]:
        asked.extend(files)
        return iter(())

    monkeypatch.setattr(Files, "each_read", note)
    repository.restart()
    repository.look()
    assert not asked
    assert repository.listed == {"a.rpm"}


def test_a_publication_that_fails_holds_back_what_was_held_back(repository: Repository) -> None:
    repository.put("a.rpm", ("1", 200))
    repository.put("b.rpm", ("1", 100))
    repository.look()
    departure = Departure("a.rpm", lambda: None)
    os.rename(repository.root / "repodata", repository.root / "gone")
    (repository.root / "repodata").write_text("in the way")
    with pytest.raises(PublicationFailed):
        repository.index.turn([], changes=[departure])
    (repository.root / "repodata").unlink()
    os.rename(repository.root / "gone", repository.root / "repodata")
    repository.look()
    assert repository.listed == {"a.rpm"}
    assert "b.rpm" in repository.index.rejected


def test_all_of_them_are_listed_again_where_the_option_is_taken_back(repository: Repository) -> None:
    repository.put("a.rpm", ("1", 200))
    repository.put("b.rpm", ("1", 100))
    repository.look()
    repository.restart(newest=False)
    assert repository.listed == {"a.rpm", "b.rpm"}
    [duplicate] = repository.index.duplicates
    assert duplicate.locations == duplicate.listed == ("a.rpm", "b.rpm")
    repository.restart(newest=True)
    assert repository.listed == {"a.rpm"}
    [duplicate] = repository.index.duplicates
    assert duplicate.listed == ("a.rpm",)


def test_by_default_all_are_listed_and_that_is_told_once(
    tmp_path: Path, readers: Readers, pool: ThreadPoolExecutor, caplog: pytest.LogCaptureFixture
) -> None:
    repository = Repository(tmp_path, readers, pool, newest=False)
    repository.put("a.rpm", ("1", 200))
    repository.put("b.rpm", ("1", 100))
    repository.look()
    repository.look()
    repository.put("sub/a.rpm", ("2", 100))
    repository.look()
    assert repository.listed == {"a.rpm", "b.rpm", "sub/a.rpm"}
    told = [each.getMessage() for each in caplog.records if "several files" in each.getMessage()]
    assert told == ["test: p-1-1.noarch is in several files, and all are listed: a.rpm, b.rpm"]


def test_an_arrival_that_is_refused_at_the_last_moment_is_no_duplicate(
    tmp_path: Path, readers: Readers, pool: ThreadPoolExecutor
) -> None:
    repository = Repository(tmp_path, readers, pool, newest=False)
    repository.put("a.rpm", ("1", 200))
    repository.look()
    answers = iter([None, RepowatchError("no")])

    def refuse_the_second_time() -> None:
        if error := next(answers):
            raise error

    arrival = replace(repository.arrival("b.rpm", ("1", 100)), check=refuse_the_second_time)
    repository.index.turn([], changes=[arrival])
    assert arrival.answer.exception() is not None
    assert repository.listed == {"a.rpm"}
    assert repository.index.duplicates == ()


def test_what_was_held_back_and_is_retired_is_kept_as_what_was_listed_is(repository: Repository) -> None:
    repository.put("a.rpm", ("1", 200))
    repository.put("b.rpm", ("1", 100))
    repository.look()
    for changes in (
        [Departure("b.rpm", lambda: None, retire=True)],
        [Together((), (Departure("a.rpm", lambda: None, retire=True),))],
    ):
        repository.index.turn([], changes=changes)
    assert repository.listed == set()
    for name, build in {"a.rpm": ("1", 200), "b.rpm": ("1", 100)}.items():
        path, _ = repository.index.keeping.served(name) or ("", "")
        assert Path(path).read_bytes() == repository.packages[build].read_bytes()
