"""How long superseded metadata files are kept, on a clock that tests move."""

from __future__ import annotations

import hashlib
import itertools
from pathlib import Path

import pytest

from repowatch.repository.generations import DEFAULT_SPACE, Generations
from tests.kit.clock import FakeClock

MIB = 1 << 20


class Repodata:
    """A directory of metadata files, and the publications in it."""

    def __init__(self, path: Path, *, keep_space: int | None = None) -> None:
        self.path = path
        self.clock = FakeClock()
        self.generations = Generations(str(path), keep_space=keep_space)
        self.current: list[str] = []
        self._names = itertools.count()

    def write(self, *, size: int = 1000, suffix: str = "primary.xml.gz") -> str:
        name = f"{hashlib.sha256(b'%d' % next(self._names)).hexdigest()}-{suffix}"
        with open(self.path / name, "wb") as file:
            file.truncate(size)
        return name

    def publish(self, *names: str) -> None:
        self.generations.published(names, before=self.current, now=self.clock.monotonic())
        self.current = list(names)

    def sweep(self) -> list[str]:
        return self.generations.sweep(self.clock.monotonic())

    def on_disk(self) -> set[str]:
        return {path.name for path in self.path.iterdir()}


@pytest.fixture
def repodata(tmp_path: Path) -> Repodata:
    return Repodata(tmp_path)


def test_a_superseded_file_is_kept_for_an_hour(repodata: Repodata) -> None:
    old, new = repodata.write(), repodata.write()
    repodata.publish(old)
    repodata.publish(new)
    repodata.clock.advance(3599)
    assert repodata.sweep() == []
    repodata.clock.advance(1)
    assert repodata.generations.next_sweep_at() == repodata.clock.monotonic()
    assert repodata.sweep() == [old]
    assert repodata.on_disk() == {new}
    assert repodata.generations.next_sweep_at() is None


def test_a_wall_clock_that_jumps_removes_nothing(repodata: Repodata) -> None:
    repodata.publish(repodata.write())
    repodata.publish(repodata.write())
    repodata.clock.jump(1e9)
    assert repodata.sweep() == []


def test_beyond_half_the_space_the_oldest_go_first_after_a_minute(tmp_path: Path) -> None:
    repodata = Repodata(tmp_path, keep_space=5 * MIB)
    names = [repodata.write(size=MIB) for _ in range(6)]
    for name in names:
        repodata.publish(name)
        repodata.clock.advance(1)
    repodata.clock.advance(53)
    assert repodata.sweep() == []
    repodata.clock.advance(10)
    assert repodata.sweep() == names[:3]
    assert repodata.on_disk() == set(names[3:])


def test_nothing_is_removed_within_a_minute_however_little_space_there_is(tmp_path: Path) -> None:
    repodata = Repodata(tmp_path, keep_space=0)
    old, new = repodata.write(size=MIB), repodata.write(size=MIB)
    repodata.publish(old)
    repodata.publish(new)
    repodata.clock.advance(59.9)
    assert repodata.sweep() == []
    repodata.clock.advance(0.1)
    assert repodata.sweep() == [old]


def test_a_file_that_becomes_current_again_is_not_removed(repodata: Repodata) -> None:
    again, other = repodata.write(), repodata.write()
    repodata.publish(again)
    repodata.publish(other)
    repodata.publish(again)
    repodata.clock.advance(3600)
    assert repodata.sweep() == [other]
    assert repodata.on_disk() == {again}


def test_a_file_that_is_superseded_twice_is_kept_from_the_second_time(repodata: Repodata) -> None:
    twice, other, last = repodata.write(), repodata.write(), repodata.write()
    repodata.publish(twice)
    repodata.publish(other)
    repodata.clock.advance(100)
    repodata.publish(twice)
    repodata.clock.advance(100)
    repodata.publish(last)
    repodata.clock.advance(3500)
    assert repodata.sweep() == [other]
    repodata.clock.advance(100)
    assert repodata.sweep() == [twice]


def test_what_lies_there_at_the_start_is_superseded_from_then_on(repodata: Repodata) -> None:
    current, old = repodata.write(), repodata.write()
    repodata.generations.found(repodata.on_disk(), current=[current], now=repodata.clock.monotonic())
    repodata.clock.advance(3600)
    assert repodata.sweep() == [old]
    assert repodata.on_disk() == {current}


FOREIGN = [
    "repomd.xml",
    "repomd.xml.asc",
    "comps.xml",
    "primary.xml.gz",
    f"{'ab' * 32}-updateinfo.xml.gz",
    f"{'ab' * 32}-comps.xml",
    f"{'ab' * 32}-primary.xml.gz.bak",
    "notes-primary.xml.gz",
]


@pytest.mark.parametrize("name", FOREIGN)
def test_a_foreign_file_is_never_removed(repodata: Repodata, name: str) -> None:
    (repodata.path / name).write_bytes(b"foreign")
    repodata.generations.found(repodata.on_disk(), current=[], now=repodata.clock.monotonic())
    repodata.publish(repodata.write(), name)
    repodata.publish(repodata.write())
    repodata.clock.advance(10_000)
    assert name not in repodata.sweep()
    assert name in repodata.on_disk()


def test_a_file_that_somebody_else_removed_is_no_trouble(repodata: Repodata) -> None:
    old = repodata.write()
    repodata.publish(old)
    repodata.publish(repodata.write())
    (repodata.path / old).unlink()
    repodata.clock.advance(3600)
    assert repodata.sweep() == [old]


def test_the_default_space_holds_four_generations_or_2_gib(tmp_path: Path) -> None:
    repodata = Repodata(tmp_path)
    repodata.publish(repodata.write(size=MIB))
    assert repodata.generations.space == DEFAULT_SPACE
    repodata.publish(repodata.write(size=DEFAULT_SPACE), repodata.write(size=MIB))
    assert repodata.generations.space == 4 * (DEFAULT_SPACE + MIB)


def test_publications_need_not_wait_while_there_is_space(tmp_path: Path) -> None:
    repodata = Repodata(tmp_path, keep_space=100 * MIB)
    for _ in range(40):
        repodata.publish(repodata.write(size=MIB))
        assert repodata.generations.next_publication_at() <= repodata.clock.monotonic()


def test_however_little_space_there_is_publications_come_every_minute(tmp_path: Path) -> None:
    repodata = Repodata(tmp_path, keep_space=1000)
    repodata.publish(repodata.write(size=MIB))
    assert repodata.generations.next_publication_at() == repodata.clock.monotonic() + 60


@pytest.mark.parametrize("generations_that_fit", [2, 4, 4.5, 10, 33])
def test_an_endless_stream_of_arrivals_stays_within_the_space(
    tmp_path: Path, generations_that_fit: float
) -> None:
    """As many publications as are allowed, for two hours, in the order of the updater: publish, sweep."""
    repodata = Repodata(tmp_path, keep_space=int(generations_that_fit * MIB))
    published_at: dict[str, float] = {}
    ends = repodata.clock.monotonic() + 7200
    kept = []
    while repodata.clock.monotonic() < ends:
        wake_at = max(repodata.clock.monotonic() + 0.1, repodata.generations.next_publication_at())
        sweep_at = repodata.generations.next_sweep_at()
        if sweep_at is not None and sweep_at < wake_at:
            repodata.clock.advance(max(0, sweep_at - repodata.clock.monotonic()))
        else:
            repodata.clock.advance(wake_at - repodata.clock.monotonic())
            published_at |= dict.fromkeys(repodata.current, repodata.clock.monotonic())
            repodata.publish(repodata.write(size=MIB))
        for name in repodata.sweep():
            assert repodata.clock.monotonic() - published_at[name] > 59.999
        kept.append(repodata.generations.kept)
    assert max(kept) <= repodata.generations.space
