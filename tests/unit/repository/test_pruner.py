"""A repository prunes itself. The clock stands still unless a test moves it."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from repowatch.errors import Conflict
from repowatch.model.pruning import Plan, Rule, plan
from repowatch.repository import pruner as pruner_module
from repowatch.repository.ages import HELD
from repowatch.repository.index import Index
from repowatch.repository.pruner import BARRED, EVERY, LOOK, SHARE, Pruner
from repowatch.repository.readers import Batch, Readers, ToRead
from repowatch.repository.updater import Updater
from repowatch.system.threads import Thread
from tests.kit.clock import FakeClock
from tests.kit.daemon import wait_until
from tests.kit.oracle import published
from tests.kit.rpms import make_rpm

DAY = 86400.0
GRACE = 7 * DAY
KEEP_TWO = (Rule(keep=2),)
NO_SNAPSHOTS = (Rule("*SNAPSHOT*", older_than=DAY, spares_newest=False), Rule(older_than=30 * DAY))


class Repository:
    """A tree whose updater runs from `start` to `stop`, and may be started again."""

    def __init__(self, root: Path, readers: Readers, pool: ThreadPoolExecutor) -> None:
        self.root, self.aside = root / "root", root / "aside"
        self.root.mkdir()
        self.aside.mkdir()
        self.clock = FakeClock()
        self._readers, self._pool = readers, pool
        self._thread: Thread | None = None

    def open(self) -> Index:
        index = Index(
            str(self.root),
            name="test",
            readers=self._readers,
            pool=self._pool,
            clock=self.clock,
            follow=[str(self.aside)],
            grace=GRACE,
        )
        index.open()
        return index

    def start(self, rules: Sequence[Rule]) -> None:
        self.index = self.open()
        self.updater = Updater(self.index, clock=self.clock, settle=0.0, deadline=0.0, prune=rules)
        self.failed: list[str] = []
        self._thread = Thread("updater", self.updater.run, failed=self.failed.append)
        self._thread.start()
        self.turn()

    def stop(self) -> None:
        if self._thread:
            self.updater.stop()
            assert self._thread.join(30)
            assert self.failed == []
            self.index.close()
            self._thread = None

    def turn(self) -> None:
        """Make the updater look, when it is time to ask the rules, and do what follows from that."""
        self.clock.advance(LOOK)
        self.updater.look("").result(30)
        wait_until(lambda: self.updater.pruner.next_at() > self.clock.monotonic())
        self.updater.look("nothing").result(30)

    def make(self, version: str, name: str = "p", *, days: float = 0.0) -> Path:
        """A package whose file is so old."""
        path = make_rpm(self.root, name, version)
        at = self.clock.now() - days * DAY
        os.utime(path, (at, at))
        return path

    @property
    def listed(self) -> list[str]:
        assert self.index.publication is not None
        return sorted(each.nevra.version for each in self.index.publication.entries.values())

    @property
    def files(self) -> list[str]:
        return sorted(path.name.split("-")[1] for path in self.root.glob("*.rpm"))

    @property
    def retired(self) -> list[str]:
        return sorted(name.location_href.split("-")[1] for name in self.index.keeping.retired.names)

    def out(self) -> list[str]:
        """What would go."""
        return [each.entry.nevra.version for each in self.updater.would_prune(None).out]

    def prune(self) -> list[str]:
        plan, answers = self.updater.prune()
        for each in answers:
            each.result(30)
        return [each.entry.nevra.version for each in plan.out]


@pytest.fixture
def repository(tmp_path: Path, readers: Readers, pool: ThreadPoolExecutor) -> Iterator[Repository]:
    repository = Repository(tmp_path, readers, pool)
    yield repository
    repository.stop()


def test_what_comes_prunes_what_is_too_many_in_one_publication(repository: Repository) -> None:
    for version in ("1.0~rc1", "1.0", "1.9", "1.10"):
        repository.make(version)
    repository.start(KEEP_TWO)
    repository.turn()
    assert repository.listed == repository.files == ["1.10", "1.9"]
    assert repository.retired == ["1.0", "1.0~rc1"]
    assert repository.updater.pruner.last is not None
    assert repository.updater.pruner.last.packages == 2
    assert len([each for each in repository.index.history.events if each.how == "prune"]) == 2
    assert {each.revision for each in repository.index.history.events if each.how == "prune"} == {
        repository.index.publication.revision if repository.index.publication else 0
    }
    primary = published(repository.root)["primary"]
    assert primary.count(b"<package ") == 2
    assert b'href="p-1.9-1.noarch.rpm"' in primary


def test_a_publication_is_followed_by_a_pruning_but_not_by_one_each(repository: Repository) -> None:
    repository.start(KEEP_TWO)
    for version in "1234":
        repository.make(version)
        repository.clock.advance(10)
        repository.turn()
    first = repository.listed
    assert first == ["2", "3", "4"]  # 1 went with the first; 2 waits until it is not a publication each
    repository.clock.advance(EVERY)
    repository.turn()
    assert repository.listed == ["3", "4"]


def test_a_package_goes_when_its_time_is_over_and_nothing_else_happens(repository: Repository) -> None:
    repository.start(NO_SNAPSHOTS)
    repository.make("1.SNAPSHOT", days=400)
    repository.make("1")
    repository.turn()
    repository.clock.advance(DAY - 60)
    repository.turn()
    assert repository.listed == ["1", "1.SNAPSHOT"]
    repository.clock.advance(61)
    repository.updater.do(lambda: None).result(30)
    wait_until(lambda: repository.listed == ["1"])
    assert repository.retired == ["1.SNAPSHOT"]


def test_the_rules_are_asked_again_when_the_next_package_falls_due(repository: Repository) -> None:
    repository.start(NO_SNAPSHOTS)
    repository.make("1.SNAPSHOT")
    repository.turn()
    seen_at = repository.clock.monotonic()
    repository.turn()
    assert repository.updater.pruner.next_at() == seen_at + DAY


def test_old_files_of_a_tree_that_is_taken_over_wait_until_the_clock_is_believed(
    repository: Repository,
) -> None:
    repository.make("1", days=40)
    repository.make("2", days=40)
    repository.start(NO_SNAPSHOTS)
    repository.clock.advance(HELD - 60)
    repository.turn()
    assert repository.listed == ["1", "2"]
    assert "2 packages are not pruned" in (repository.updater.pruner.paused() or "")
    repository.clock.advance(60)
    repository.turn()
    assert repository.listed == ["2"]
    assert repository.updater.pruner.paused() is None


def test_a_clock_that_jumped_prunes_nothing(repository: Repository) -> None:
    repository.make("1", days=4)
    repository.make("2")
    repository.start(NO_SNAPSHOTS)
    repository.make("2.SNAPSHOT")
    repository.turn()
    repository.clock.jump(3650 * DAY)
    repository.turn()
    assert repository.out() == []
    assert "the clock jumped" in (repository.updater.pruner.paused() or "")
    repository.clock.jump(-3650 * DAY)
    for _ in range(3):
        repository.clock.advance(HELD / 2)
        repository.turn()
    assert repository.listed == ["1", "2", "2.SNAPSHOT"]
    repository.clock.advance(26 * DAY)
    repository.turn()
    assert repository.listed == ["2"]


def test_who_asks_by_hand_vouches_for_the_clock(repository: Repository) -> None:
    repository.make("1", days=40)
    repository.make("2", days=40)
    repository.start(NO_SNAPSHOTS)
    assert repository.out() == ["1"]
    assert repository.listed == ["1", "2"]
    assert repository.prune() == ["1"]
    assert repository.listed == ["2"]


def test_rules_can_be_tried_before_they_are_in_use(repository: Repository) -> None:
    repository.make("1", days=40)
    repository.make("2", days=40)
    repository.make("3", days=1)
    repository.start(())
    tried = repository.updater.would_prune(NO_SNAPSHOTS).out
    assert [each.entry.nevra.version for each in tried] == ["1", "2"]
    assert "40 d old" in tried[0].reason
    assert [each.entry.nevra.version for each in repository.updater.would_prune(KEEP_TWO).out] == ["1"]
    repository.turn()
    assert repository.listed == ["1", "2", "3"]


def test_other_rules_are_taken_while_it_runs(repository: Repository) -> None:
    for version in "1234":
        repository.make(version)
    repository.start(())
    repository.updater.prune_by(KEEP_TWO, grace=0.0)
    repository.turn()
    assert repository.listed == ["3", "4"]
    assert repository.retired == []
    repository.updater.prune_by(NO_SNAPSHOTS, grace=GRACE)
    repository.clock.advance(EVERY)
    repository.turn()
    assert repository.updater.pruner.paused() is not None  # ages are asked for the first time
    repository.updater.prune_by((), grace=GRACE)
    repository.turn()
    assert repository.listed == ["3", "4"]


def test_without_a_rule_there_is_nothing_to_ask(repository: Repository) -> None:
    repository.start(())
    with pytest.raises(Conflict, match="no `prune` is configured"):
        repository.updater.prune()
    with pytest.raises(Conflict, match="no `prune` is configured"):
        repository.out()
    assert not (repository.root / ".repowatch/ages").exists()


def test_ages_and_retired_packages_outlast_a_restart(repository: Repository) -> None:
    repository.start(NO_SNAPSHOTS)
    repository.make("1.SNAPSHOT")
    repository.make("2")
    repository.turn()
    repository.clock.advance(DAY / 2)
    repository.stop()
    repository.start(NO_SNAPSHOTS)
    repository.clock.advance(DAY / 2 + 60)
    repository.turn()
    assert repository.listed == ["2"]
    repository.stop()
    repository.start(NO_SNAPSHOTS)
    assert repository.retired == ["1.SNAPSHOT"]
    repository.clock.advance(GRACE)
    repository.turn()
    wait_until(lambda: repository.retired == [])
    assert not list((repository.root / ".repowatch/retired").glob("*.rpm"))


def test_a_package_that_can_not_be_pruned_stays_listed_and_is_left_alone_for_a_while(
    repository: Repository, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def busy(source: str, target: str) -> None:
        if source.endswith("p-1-1.noarch.rpm"):
            raise OSError(errno.EBUSY, os.strerror(errno.EBUSY))
        rename(source, target)

    rename = os.rename
    monkeypatch.setattr(os, "rename", busy)
    for version in "123":
        repository.make(version)
    repository.start(KEEP_TWO)
    repository.turn()
    assert "p-1-1.noarch.rpm could not be pruned: [Errno 16]" in caplog.text
    repository.clock.advance(EVERY)
    repository.turn()
    revision = repository.index.publication.revision if repository.index.publication else 0
    assert repository.listed == repository.files == ["1", "2", "3"]
    repository.clock.advance(EVERY)
    repository.turn()
    assert repository.index.publication
    assert repository.index.publication.revision == revision
    monkeypatch.setattr(os, "rename", rename)
    repository.clock.advance(BARRED)
    repository.turn()
    assert repository.listed == ["2", "3"]


def test_a_file_that_changed_since_it_was_listed_is_not_pruned(repository: Repository) -> None:
    for version in "012":
        repository.make(version)
    repository.start(KEEP_TWO)
    repository.turn()
    old = repository.make("0")
    repository.turn()
    assert repository.listed == ["0", "1", "2"]  # it was pruned just now

    def replaced_after_the_decision() -> list[str]:
        found = repository.updater.pruner.plan()
        make_rpm(old.parent, "p", "0", summary="another")
        refused = []
        for each in repository.updater.pruner.departures(found.out):
            with pytest.raises(Conflict):
                each.check()
            refused.append(each.location_href)
        return refused

    assert repository.updater.do(replaced_after_the_decision).result(30) == [old.name]


def test_what_lies_behind_a_link_is_not_pruned(repository: Repository) -> None:
    for version in "0123":
        repository.make(version)
    outside = repository.aside / "p-0-1.noarch.rpm"
    os.rename(repository.root / outside.name, outside)
    os.symlink(repository.aside, repository.root / "link")
    repository.start(KEEP_TWO)
    repository.turn()
    assert repository.listed == ["0", "2", "3"]
    assert outside.exists()


def test_a_snapshot_and_its_end_let_no_file_be_read_again(
    repository: Repository, monkeypatch: pytest.MonkeyPatch
) -> None:
    repository.make("1")
    repository.start(KEEP_TWO)
    repository.turn()
    index = repository.index
    assert index.publication is not None
    [name] = index.publication.entries
    repository.updater.do(lambda: index.snapshot("s", by=None)).result(30)
    assert os.stat(repository.root / name).st_nlink == 2
    assert index.publication.entries[name].stamp.ctime_ns == os.stat(repository.root / name).st_ctime_ns

    read: list[str] = []

    def take_note(files: Sequence[ToRead]) -> list[Batch]:
        read.extend(each.location_href for each in files)
        return []

    monkeypatch.setattr(index._files, "read", take_note)
    repository.turn()
    repository.updater.do(lambda: index.forget_snapshot("s")).result(30)
    wait_until(lambda: os.stat(repository.root / name).st_nlink == 1)
    repository.turn()
    assert read == []


def test_who_asks_before_anything_is_published_makes_no_package_new(repository: Repository) -> None:
    repository.start(NO_SNAPSHOTS)
    for version in ("1", "2"):
        repository.make(version)
    repository.turn()
    repository.clock.advance(29 * DAY)
    repository.stop()
    index = repository.open()
    early = Pruner(index, NO_SNAPSHOTS, clock=repository.clock)
    assert early.plan(by_hand=True).out == ()
    early.save()
    index.close()
    repository.start(NO_SNAPSHOTS)
    repository.clock.advance(2 * DAY)
    assert repository.out() == ["1"]


def test_a_look_that_takes_long_is_made_less_often(
    repository: Repository, monkeypatch: pytest.MonkeyPatch
) -> None:
    def slow(*arguments: Any, **named: Any) -> Plan:
        repository.clock.advance(1)
        return plan(*arguments, **named)

    monkeypatch.setattr(pruner_module, "plan", slow)
    repository.start(NO_SNAPSHOTS)
    repository.make("1")
    repository.updater.look("").result(30)
    assert repository.updater.pruner.next_at() - repository.clock.monotonic() == SHARE - 1
