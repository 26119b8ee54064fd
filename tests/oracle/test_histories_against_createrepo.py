"""Any history of files, uploads, batches, snapshots and prunings: what is published, kept and served.

After each step what is published is what createrepo_c makes of the tree without what is rejected or held
back; every snapshot gives out the bytes that it named; the tree has what was acknowledged; and a pruned
package is served as long as was promised. REPOWATCH_HISTORIES says how many: 300 take eight minutes.
"""

from __future__ import annotations

import hashlib
import itertools
import logging
import os
import shutil
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar, cast

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    precondition,
    rule,
    run_state_machine_as_test,
)

from repowatch.errors import Conflict, RepowatchError
from repowatch.model import catalog
from repowatch.model.catalog import order_key
from repowatch.model.digests import inspect
from repowatch.model.package import Stamp
from repowatch.model.pruning import Rule
from repowatch.model.recipe import Recipe
from repowatch.model.repomd import parse
from repowatch.repository.changes import Arrival, Change, Departure, PublicationFailed
from repowatch.repository.index import Index
from repowatch.repository.pruner import Pruner
from repowatch.repository.readers import Readers
from repowatch.repository.rollback import Rollback
from repowatch.repository.together import made_of
from repowatch.repository.updater import Updater
from tests.kit.clock import FakeClock
from tests.kit.oracle import createrepo, packages, published
from tests.kit.rpms import make_rpm, truncate

T = TypeVar("T")

GRACE = 3600.0
NAMES = ["a.rpm", "b.rpm", "x/a.rpm", "x/d.rpm"]
SNAPSHOTS = ["one", "two"]
RULES = [Rule("*", None, 1, True), Rule("x/*", None, 0, False), Rule("*", 10.0, 0, False)]
COMPS = "<comps><group><id>{0}</id><name>{0}</name></group></comps>"

# Name and version, and when it was built.
BUILDS = [("p", "1", 100), ("p", "1", 200), ("p", "1", 300), ("p", "2", 100), ("q", "1", 100)]

names = st.sampled_from(NAMES)
# A history of thirty steps can be read as it is, and to shorten one takes minutes.
PHASES = [Phase.explicit, Phase.reuse, Phase.generate]


def digest(path: Path | str) -> str:
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()


class Pool:
    """What all histories use: packages, some of which are builds of the same, and damaged ones."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.builds = [
            make_rpm(directory / str(build), name, version, build_time=build)
            for name, version, build in BUILDS
        ]
        self.identities = dict(zip(map(digest, self.builds), BUILDS, strict=True))
        damaged = make_rpm(directory / "bad", "damaged")
        truncate(damaged, size=damaged.stat().st_size - 1)
        self.all = [*self.builds, damaged]
        self.readers = Readers(processes=1)
        self.threads = ThreadPoolExecutor(2)
        self._numbers = itertools.count()

    def close(self) -> None:
        self.readers.close()
        self.threads.shutdown()

    def new_path(self, kind: str) -> Path:
        return self.directory / f"{kind}{next(self._numbers)}"


class Hand:
    """Does at once, in this thread, what an updater does in its own."""

    def __init__(self, index: Index) -> None:
        self.index = index
        self.names: set[str] = {""}  # to be looked at

    def do(self, act: Callable[[], T]) -> Future[T]:
        answer: Future[T] = Future()
        try:
            answer.set_result(act())
        except (OSError, RepowatchError) as error:
            answer.set_exception(error)
        return answer

    take_links = Updater.take_links

    def first(self, change: Change) -> None:
        self.turn(change)

    def turn(self, *changes: Change) -> None:
        again = self.names
        for attempt in range(4):  # an empty tree is believed the second time
            try:
                told = self.index.turn([], at_once=again, changes=changes if attempt == 0 else ())
            except PublicationFailed as error:
                again = again | error.again | {""}
            else:
                again = told.unsettled | told.left_over
                if not again:
                    self.names = set()
                    return
        raise AssertionError("it does not come to rest")


class History(RuleBasedStateMachine):
    """A tree, its index, and what there has to be."""

    pool: Pool

    @initialize(newest_build=st.booleans(), checksum=st.sampled_from(["sha256", "sha512"]))
    def begin(self, newest_build: bool, checksum: str) -> None:
        self.root = self.pool.new_path("tree")
        self.root.mkdir()
        self.clock = FakeClock()
        self.newest_build, self.checksum = newest_build, checksum
        self.tree: dict[str, str] = {}  # SHA-256 of what lies there, by name
        self.kept: dict[str, dict[str, str]] = {}  # likewise, of each snapshot
        self.retired: dict[str, tuple[str, float]] = {}  # what is still served, and until when at least
        self.spoiled: set[str] = set()  # what was written over in place
        self.comps: str | None = None  # what the record of groups says
        self.open()
        self.hand.turn()
        self.check()

    def open(self) -> None:
        self.index = Index(
            str(self.root),
            name="test",
            readers=self.pool.readers,
            pool=self.pool.threads,
            clock=self.clock,
            recipe=Recipe(checksum=self.checksum),
            newest_build=self.newest_build,
            grace=GRACE,
        )
        self.index.open()
        self.hand = Hand(self.index)

    def teardown(self) -> None:
        self.index.close()
        shutil.rmtree(self.root)

    # -- by file -----------------------------------------------------------------------------

    def write(self, source: Path, name: str, *, in_place: bool = False) -> None:
        target = self.root / name
        target.parent.mkdir(exist_ok=True)
        if in_place and name in self.tree:
            self.spoiled.add(self.tree[name])
            shutil.copyfile(source, target)
        else:
            shutil.copyfile(source, self.root / ".aside")
            (self.root / ".aside").rename(target)
        self.tree[name] = digest(source)
        self.hand.names.add(name)

    @rule(data=st.data(), chosen=st.lists(names, min_size=1, max_size=3), in_place=st.booleans())
    def arrive(self, data: st.DataObject, chosen: list[str], in_place: bool) -> None:
        for name in chosen:
            self.write(data.draw(st.sampled_from(self.pool.all)), name, in_place=in_place)
        self.hand.turn()
        self.check()

    def present(self, data: st.DataObject) -> str:
        """The name of one of the files that there are."""
        return data.draw(st.sampled_from(sorted(self.tree)))

    @precondition(lambda self: self.tree)
    @rule(data=st.data(), new=names)
    def move(self, data: st.DataObject, new: str) -> None:
        old = self.present(data)
        (self.root / new).parent.mkdir(exist_ok=True)
        (self.root / old).rename(self.root / new)
        self.tree[new] = self.tree.pop(old)
        self.hand.names |= {old, new}
        self.hand.turn()
        self.check()

    @precondition(lambda self: self.tree)
    @rule(data=st.data())
    def remove(self, data: st.DataObject) -> None:
        name = self.present(data)
        (self.root / name).unlink()
        del self.tree[name]
        self.hand.names.add(name)
        self.hand.turn()
        self.check()

    @rule()
    def remove_directory(self) -> None:
        shutil.rmtree(self.root / "x", ignore_errors=True)
        self.tree = {each: what for each, what in self.tree.items() if not each.startswith("x/")}
        self.hand.names.add("x")
        self.hand.turn()
        self.check()

    @rule(group=st.sampled_from(["one", "two", "", None]))
    def set_groups(self, group: str | None) -> None:
        """'' is what can not be used, and leaves what was there; None is none."""
        path = self.root / "comps.xml"
        if group is None:
            path.unlink(missing_ok=True)
            self.comps = None
        else:
            path.write_text(COMPS.format(group) if group else "<comps>")
            self.comps = COMPS.format(group) if group else self.comps
        self.hand.names.add("comps.xml")
        self.hand.turn()
        self.check()

    # -- by clients --------------------------------------------------------------------------

    def staged(self, source: Path) -> Path:
        path = Path(self.index.home.open_staging(), self.pool.new_path("staged").name)
        shutil.copyfile(source, path)
        return path

    @rule(data=st.data(), name=names)
    def upload(self, data: st.DataObject, name: str) -> None:
        source = data.draw(st.sampled_from(self.pool.builds))
        staged = self.staged(source)
        stamp = Stamp.of(staged.stat())
        with open(staged, "rb", buffering=0) as stream:
            inspection = inspect(stream, size=stamp.size, checksum=self.checksum)
        package = self.index.describe(inspection, location_href=name, stamp=stamp, path=str(staged))
        arrival = Arrival(name, str(staged), package, lambda: None)
        self.hand.turn(arrival)
        assert arrival.answer.result().revision
        self.tree[name] = digest(source)
        self.check()

    @precondition(lambda self: self.tree)
    @rule(data=st.data())
    def delete(self, data: st.DataObject) -> None:
        departure = Departure(self.present(data), lambda: None)
        self.hand.turn(departure)
        assert departure.answer.result().revision is not None
        del self.tree[departure.location_href]
        self.check()

    @rule(
        data=st.data(),
        coming=st.sets(names, max_size=3),
        going=st.sets(names, max_size=2),
        bad=st.sampled_from([*NAMES, *(None for _ in NAMES)]),
    )
    def commit(self, data: st.DataObject, coming: set[str], going: set[str], bad: str | None) -> None:
        """A batch; one in which a name is refused at the last moment changes nothing."""
        sources = {name: data.draw(st.sampled_from(self.pool.builds)) for name in sorted(coming)}
        files = {name: str(self.staged(source)) for name, source in sources.items()}
        leaving = sorted((going & self.tree.keys()) - coming)

        def check(name: str) -> None:
            if name == bad:
                raise Conflict("no")

        if not files and not leaving:
            return
        together = made_of(self.index, files, leaving, check=check)
        self.hand.turn(together)
        if bad in files or bad in leaving:
            with pytest.raises(Conflict):
                together.answer.result()
        else:
            together.answer.result()
            self.tree |= {name: digest(source) for name, source in sources.items()}
            self.tree = {name: what for name, what in self.tree.items() if name not in leaving}
        self.check()

    # -- rules, snapshots, time --------------------------------------------------------------

    @rule(which=st.sampled_from(RULES))
    def prune(self, which: Rule) -> None:
        pruner = Pruner(self.index, [which], clock=self.clock)
        departures = pruner.departures(pruner.plan(by_hand=True).out)
        self.hand.turn(*departures)
        for each in departures:
            each.answer.result()
            self.retire(each.location_href)
        self.check()

    def retire(self, name: str) -> None:
        self.retired[name] = self.tree.pop(name), self.clock.monotonic() + GRACE

    @precondition(lambda self: len(self.kept) < len(SNAPSHOTS))
    @rule()
    def take(self) -> None:
        name = next(each for each in SNAPSHOTS if each not in self.kept)
        self.index.snapshot(name, by=None)
        self.keep(name)
        self.check()

    def keep(self, name: str) -> None:
        self.kept[name] = {each: self.tree[each] for each in self.listed()}

    @precondition(lambda self: self.kept)
    @rule(data=st.data())
    def forget(self, data: st.DataObject) -> None:
        name = data.draw(st.sampled_from(sorted(self.kept)))
        self.index.forget_snapshot(name)
        del self.kept[name]
        self.index.sweep()
        self.check()

    @precondition(lambda self: self.kept)
    @rule(data=st.data(), keep=st.booleans())
    def roll_back(self, data: st.DataObject, keep: bool) -> None:
        name = data.draw(st.sampled_from(sorted(self.kept)))
        also = next((each for each in SNAPSHOTS if keep and each not in self.kept), None)
        before = {each: self.tree[each] for each in self.listed()}
        try:
            outcome = Rollback(cast(Updater, self.hand), name, keep=also).run()
        except Conflict:
            assert set(self.kept[name].values()) & self.spoiled
        else:
            if also:
                self.kept[also] = before
            for each in outcome.difference.surplus:
                self.retire(each)
            self.tree |= self.kept[name]
            assert self.listed() == set(self.kept[name])
        self.check()

    @rule(seconds=st.sampled_from([1.0, 600.0, GRACE, 3 * GRACE]))
    def wait(self, seconds: float) -> None:
        self.clock.advance(seconds)
        self.index.sweep()
        self.check()

    @rule(how=st.sampled_from(["in order", "killed", "without a cache"]))
    def restart(self, how: str) -> None:
        if how == "in order":
            self.index.save()
        self.index.close()
        if how == "without a cache":
            for name in ("cache", "staging"):
                shutil.rmtree(self.root / ".repowatch" / name)
        self.open()
        self.hand.turn()
        while (checking := self.index.check_some()) is not None:
            self.index.turn([], checked=[checking.result()])
        self.check()

    # -- what there has to be ----------------------------------------------------------------

    def listed(self) -> set[str]:
        publication = self.index.publication
        assert publication is not None
        return set(publication.entries)

    def best_of(self, files: dict[str, str]) -> set[str]:
        """Those of these files that have to be listed."""
        whole = [name for name, what in files.items() if what in self.pool.identities]
        if not self.newest_build:
            return set(whole)
        best: dict[tuple[str, str], str] = {}
        for name in sorted(whole, key=lambda each: (self.pool.identities[files[each]][2], order_key(each))):
            best[self.pool.identities[files[name]][:2]] = name
        return set(best.values())

    def check(self) -> None:
        assert {str(path.relative_to(self.root)): digest(path) for path in packages(self.root)} == self.tree
        self.check_published()
        self.check_snapshots()
        self.check_retired()

    def check_published(self) -> None:
        best = self.best_of(self.tree)
        assert self.listed() == best
        assert self.index.rejected.keys() - {"comps.xml"} == self.tree.keys() - best
        assert published(self.root) == self.made_of(best)
        records = {
            each.type: each for each in parse((self.root / "repodata/repomd.xml").read_bytes()).records
        }
        assert ("group" in records) == (self.comps is not None)
        if self.comps:
            assert (self.root / records["group"].location_href).read_text() == self.comps

    def made_of(self, names: set[str]) -> dict[str, bytes]:
        """What createrepo_c makes of copies of these files; a link would change their ctime."""
        copy = self.pool.new_path("copy")
        for name in names:
            (copy / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(self.root / name, copy / name)
        copy.mkdir(exist_ok=True)
        createrepo(copy, "--no-database", "--checksum", self.checksum)
        made = published(copy)
        shutil.rmtree(copy)
        return made

    def check_snapshots(self) -> None:
        assert {each.name for each in self.index.snapshots.summaries} == self.kept.keys()
        for name, files in self.kept.items():
            view = self.index.snapshots.find(name)
            assert set(view.snapshot.packages) == set(files)
            published(self.root / ".repowatch/snapshots" / name)
            for location_href, what in files.items():
                try:
                    shown = view.find(location_href)
                except Conflict:
                    assert what in self.spoiled
                else:
                    assert shown and digest(shown.path) == what

    def check_retired(self) -> None:
        now = self.clock.monotonic()
        for name, (what, until) in list(self.retired.items()):
            if name in self.tree or until <= now:
                del self.retired[name]
                continue
            found = self.index.keeping.served(name)
            assert found or what in self.spoiled
            assert found is None or digest(found[0]) == what or what in self.spoiled


@pytest.fixture(scope="module", autouse=True)
def short_segments() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(catalog, "REACH", 2)
        logging.disable()  # thousands of lines, of which each is tested elsewhere
        yield
        logging.disable(logging.NOTSET)


@pytest.fixture(scope="module")
def pool(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pool]:
    pool = Pool(tmp_path_factory.mktemp("pool"))
    yield pool
    pool.close()


def test_any_history_publishes_what_createrepo_c_makes_and_loses_nothing(pool: Pool) -> None:
    class HistoryOfPool(History):
        pass

    HistoryOfPool.pool = pool
    run_state_machine_as_test(
        HistoryOfPool,
        settings=settings(
            max_examples=int(os.environ.get("REPOWATCH_HISTORIES", "5")),
            stateful_step_count=30,
            deadline=None,
            report_multiple_bugs=False,
            phases=PHASES,
            suppress_health_check=list(HealthCheck),
        ),
    )
