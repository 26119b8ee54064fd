"""How long each package has been here, in watched time: what pruning by age goes by.

    .repowatch/ages      since when, for each pkgid

A package that comes is as old as the time that it was listed here and watched, whatever its file says: a
mirror keeps the times of its source, and a clock that is wrong stamps files with nonsense. Only packages
that were there before anything was noted are as old as their files, as find -mtime has it; and only once
the clock has gone evenly for a while.
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from repowatch.model.package import Entry
from repowatch.repository.tree import PRIVATE
from repowatch.repository.watched import WatchedTime
from repowatch.system.clock import Clock
from repowatch.system.files import make_directories, replace_durably

log = logging.getLogger(__name__)

JUMP = 60.0  # seconds by which two clocks part in one look, from which on it is a jump
HELD = 3600.0  # seconds that the clock has to go evenly until it is believed


class Evenness:
    """Since when the wall's clock has gone evenly with the monotonic one."""

    def __init__(self, clock: Clock) -> None:
        self.has_jumped = False  # since HELD seconds at most
        self._clock = clock
        self._offset = clock.now() - clock.monotonic()
        self._since = clock.monotonic()

    def look(self) -> None:
        """Compare the two; to be called every few seconds, so that a slow correction is no jump."""
        offset = self._clock.now() - self._clock.monotonic()
        if abs(offset - self._offset) > JUMP:
            log.warning("the clock jumped by %.0f s", offset - self._offset)
            self._since = self._clock.monotonic()
            self.has_jumped = True
        self._offset = offset
        if self.holds_in == 0:
            self.has_jumped = False

    @property
    def holds_in(self) -> float:
        """Seconds until the clock is believed; 0 when it is."""
        return max(0.0, self._since + HELD - self._clock.monotonic())


@dataclass(frozen=True, slots=True)
class _Age:
    since: float  # watched time; below zero for what was here before
    mtime: float | None = None  # of the file, in seconds since 1970, while that is to be believed later


class Ages:
    """Belongs to the thread of the updater; what `born` returns may be kept."""

    def __init__(self, root: str, *, watched: WatchedTime, clock: Clock) -> None:
        self._root = root
        self._path = os.path.join(root, PRIVATE, "ages")
        self._watched = watched
        self._clock = clock
        self._ages: dict[str, _Age] = {}
        self._seen: Mapping[str, Entry] | None = None
        self._is_first = True  # whether nothing was noted yet
        self._is_saved = True

    def open(self) -> None:
        """Go on from what was noted."""
        self._ages, self._is_first, self._seen = {}, True, None
        try:
            with open(self._path, encoding="ascii") as file:
                rows = json.load(file)
            latest = self._watched.now()
            for pkgid, since, mtime in rows:
                self._ages[str(pkgid)] = _Age(
                    min(float(since), latest), None if mtime is None else float(mtime)
                )
            self._is_first = False
        except FileNotFoundError:
            pass
        except (OSError, ValueError, TypeError, RecursionError) as error:
            log.error("%s can not be read (%s); all packages count as new", self._path, error)
            self._ages, self._is_first = {}, False

    def see(self, entries: Mapping[str, Entry]) -> None:
        """Take note of what is listed now; what is not is forgotten."""
        if entries is self._seen:
            return
        now, known, first = self._watched.now(), self._ages, self._is_first
        self._ages = {
            entry.pkgid: known.get(entry.pkgid) or _Age(now, entry.stamp.mtime_ns / 1e9 if first else None)
            for entry in entries.values()
        }
        self._seen, self._is_first = entries, False
        self._is_saved = self._is_saved and not first and self._ages.keys() == known.keys()

    @property
    def doubtful(self) -> int:
        """Packages that were here before, while the clock is not believed."""
        return sum(age.mtime is not None for age in self._ages.values())

    def believe(self) -> None:
        """The clock is right: those that were here before are as old as their files."""
        if any(age.mtime is not None for age in self._ages.values()):
            self._ages = {pkgid: _Age(self._since(age)) for pkgid, age in self._ages.items()}
            self._is_saved = False

    def born(self, *, believing: bool = False) -> dict[str, float]:
        """Since when each is here (watched time); `believing` the clock as it is now."""
        return {pkgid: self._since(age) if believing else age.since for pkgid, age in self._ages.items()}

    def _since(self, age: _Age) -> float:
        if age.mtime is None:
            return age.since
        return min(age.since, self._watched.now() - (self._clock.now() - age.mtime))

    def save(self) -> None:
        """Note it for the next start, where anything changed. Raises OSError."""
        if not self._is_saved:
            rows: Iterable[object] = [[pkgid, age.since, age.mtime] for pkgid, age in self._ages.items()]
            make_directories(os.path.dirname(self._path), below=self._root)
            replace_durably(self._path, [json.dumps(rows).encode("ascii")])
            self._is_saved = True
