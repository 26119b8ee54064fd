"""What is old by its time here, whatever clocks and files say."""

from __future__ import annotations

from pathlib import Path

import pytest

from repowatch.model.package import Entry, Nevra, Stamp
from repowatch.repository.ages import HELD, Ages, Evenness
from repowatch.repository.watched import SAVE, WatchedTime
from tests.kit.clock import FakeClock

DAY = 86400.0


class Here:
    """What one repository knows of time."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.clock = FakeClock()
        self.entries: dict[str, Entry] = {}
        self.start()

    def start(self) -> None:
        self.watched = WatchedTime(str(self.root), clock=self.clock)
        self.watched.open()
        self.ages = Ages(str(self.root), watched=self.watched, clock=self.clock)
        self.ages.open()

    def restart(self, *, off: float = 0.0) -> None:
        """In order, after the machine was off for a while."""
        self.watched.save(at_once=True)
        self.ages.save()
        self.clock.jump(off)
        self.start()
        self.ages.see(self.entries)

    def lists(self, pkgid: str, *, name: str | None = None, mtime: float | None = None) -> None:
        at = self.clock.now() if mtime is None else mtime
        stamp = Stamp(1, int(at * 1e9), 0, 0)
        entry = Entry(name or f"{pkgid}.rpm", pkgid, Nevra(pkgid, "0", "1", "1", "noarch"), stamp)
        self.entries = {**self.entries, entry.location_href: entry}
        self.ages.see(self.entries)

    def age(self, pkgid: str, *, believing: bool = False) -> float:
        return round(self.watched.now() - self.ages.born(believing=believing)[pkgid])


@pytest.fixture
def here(tmp_path: Path) -> Here:
    (tmp_path / ".repowatch").mkdir()
    here = Here(tmp_path)
    here.ages.see({})
    return here


def test_a_package_is_as_old_as_its_time_here_whatever_its_file_says(here: Here) -> None:
    here.lists("a", mtime=here.clock.now() - 400 * DAY)
    here.lists("b", mtime=here.clock.now() + 400 * DAY)
    here.clock.advance(5 * DAY)
    assert (here.age("a"), here.age("b")) == (5 * DAY, 5 * DAY)
    assert here.ages.doubtful == 0


@pytest.mark.parametrize("jump", [-50 * 365 * DAY, 400 * DAY])
def test_a_clock_that_jumps_makes_nothing_older_or_younger(here: Here, jump: float) -> None:
    here.lists("a")
    here.clock.advance(DAY)
    here.clock.jump(jump)
    assert here.age("a") == DAY
    here.restart()
    assert here.age("a") == DAY


def test_the_time_in_which_nobody_watched_does_not_count(here: Here) -> None:
    here.lists("a")
    here.clock.advance(DAY)
    here.restart(off=100 * DAY)
    here.clock.advance(60)
    assert here.age("a") == DAY + 60


def test_a_package_that_moves_keeps_its_age_and_one_that_comes_back_is_new(here: Here) -> None:
    here.lists("a")
    here.clock.advance(DAY)
    here.entries = {}
    here.lists("a", name="moved/a.rpm")
    assert here.age("a") == DAY
    here.ages.see({})
    here.clock.advance(10)
    here.lists("a")
    assert here.age("a") == 0


def test_what_was_there_before_is_as_old_as_its_file_once_the_clock_is_believed(tmp_path: Path) -> None:
    here = Here(tmp_path)
    here.entries = {}
    here.lists("a", mtime=here.clock.now() - 40 * DAY)
    assert here.ages.doubtful == 1
    assert (here.age("a"), here.age("a", believing=True)) == (0, 40 * DAY)
    here.restart()
    assert (here.age("a"), here.ages.doubtful) == (0, 1)
    here.ages.believe()
    assert (here.age("a"), here.ages.doubtful) == (40 * DAY, 0)
    here.clock.jump(1000 * DAY)
    here.ages.believe()
    assert here.age("a") == 40 * DAY


def test_a_file_from_the_future_is_new(tmp_path: Path) -> None:
    here = Here(tmp_path)
    here.lists("a", mtime=here.clock.now() + 40 * DAY)
    here.ages.believe()
    assert here.age("a") == 0


@pytest.mark.parametrize("damage", ["", "{", "[1]", '[["a"]]', '[["a", "b", null]]'])
def test_where_the_ages_are_damaged_all_packages_are_new(here: Here, damage: str) -> None:
    here.lists("a", mtime=0.0)
    here.clock.advance(DAY)
    here.ages.save()
    (here.root / ".repowatch/ages").write_text(damage)
    here.start()
    here.ages.see(here.entries)
    assert here.age("a") == 0
    assert here.ages.doubtful == 0


@pytest.mark.parametrize("noted", ["", "soon", "nan", "-5", "inf", "1e300"])
def test_a_watched_time_that_is_nonsense_does_no_harm(tmp_path: Path, noted: str) -> None:
    (tmp_path / ".repowatch").mkdir()
    (tmp_path / ".repowatch/watched").write_text(noted)
    watched = WatchedTime(str(tmp_path), clock=FakeClock())
    watched.open()
    assert 0.0 <= watched.now() <= 1e12


def test_the_watched_time_is_noted_now_and_then(tmp_path: Path) -> None:
    clock = FakeClock()
    watched = WatchedTime(str(tmp_path), clock=clock)
    clock.advance(SAVE)
    watched.save()
    clock.advance(SAVE - 1)
    watched.save()
    again = WatchedTime(str(tmp_path), clock=clock)
    again.open()
    assert again.now() == SAVE


def test_a_clock_is_believed_when_it_went_evenly_for_a_while(here: Here) -> None:
    evenness = Evenness(here.clock)
    assert evenness.holds_in == HELD
    here.clock.advance(HELD - 1)
    evenness.look()
    here.clock.jump(-3600)
    evenness.look()
    assert (evenness.holds_in, evenness.has_jumped) == (HELD, True)
    here.clock.advance(HELD)
    here.clock.jump(5)  # a correction
    evenness.look()
    assert (evenness.holds_in, evenness.has_jumped) == (0, False)
