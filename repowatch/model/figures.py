"""What is counted of a repository, in plain values: how its publications went, and how it is now."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import accumulate

_MAKING = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0)  # seconds
_WAITING = (0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 900.0)  # seconds


@dataclass(frozen=True, slots=True)
class Histogram:
    """How many values there were up to each bound. Replaced whole: no reader sees half of a value."""

    bounds: tuple[float, ...]  # ascending; a value that is one is below it
    counts: tuple[int, ...]  # between a bound and the one before; the last: beyond all of them
    total: float  # of all values

    @classmethod
    def empty(cls, bounds: tuple[float, ...]) -> Histogram:
        return cls(bounds, (0,) * (len(bounds) + 1), 0.0)

    def plus(self, value: float) -> Histogram:
        """With one value more; what is below zero is zero, for clocks jump."""
        value = max(0.0, value)
        counts = list(self.counts)
        counts[bisect_left(self.bounds, value)] += 1
        return Histogram(self.bounds, tuple(counts), self.total + value)

    @property
    def count(self) -> int:
        """How many values there were."""
        return sum(self.counts)

    def up_to(self) -> Iterator[tuple[float, int]]:
        """Each bound, and how many values are not beyond it; infinity last."""
        return zip((*self.bounds, float("inf")), accumulate(self.counts), strict=True)


@dataclass(slots=True)
class Tally:
    """How the publications of one repository went since the start. One thread writes, others read."""

    making: Histogram = field(default_factory=lambda: Histogram.empty(_MAKING))
    """Seconds of each publication."""
    waiting: Histogram = field(default_factory=lambda: Histogram.empty(_WAITING))
    """Seconds of each package, from its arrival to its listing."""
    failures: int = 0
    """Publications that failed."""
    succeeded_at: float | None = None
    """When the metadata was last known to be as the tree, in seconds since 1970."""

    def published(self, seconds: float) -> None:
        self.making = self.making.plus(seconds)

    def listed(self, seconds: float) -> None:
        self.waiting = self.waiting.plus(seconds)


@dataclass(frozen=True, slots=True)
class Figures:
    """One repository at one moment."""

    name: str
    packages: int
    rejected: int
    duplicates: int  # packages that several files hold
    replacements: int  # by file, where uploads may not replace
    unchecked: int
    making: Histogram
    waiting: Histogram
    failures: int
    succeeded_at: float | None
    is_well: bool  # as `/healthz` says
    watcher: Mapping[str, bool]  # each mode there is: whether the watcher is in it
    overflows: int
    signing_key_expires_at: float | None  # the first of them, in seconds since 1970
    disk: tuple[int, int] | None  # bytes free for the daemon, and of the whole file system
    pruned: int = 0  # packages since the start
    pruning_paused: bool = False  # some packages wait for a clock that goes evenly
    batches: int = 0  # that wait for their commit
    snapshots: tuple[int, int] = (0, 0)  # how many, and of those how many can not be read
    snapshots_extra: int = 0  # bytes of packages that only snapshots keep
    retired: tuple[int, int] = (0, 0)  # packages that are served without being in the tree, and bytes of them
