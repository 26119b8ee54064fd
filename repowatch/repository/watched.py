"""Watched time: the seconds for which a repository had a daemon, in all its runs together.

Whatever is removed because it is old is measured by it: no clock that jumps, and no machine that was off,
makes a package older. What a run killed in the middle had not written yet counts as not watched.
"""

from __future__ import annotations

import contextlib
import os

from repowatch.repository.tree import PRIVATE
from repowatch.system.clock import Clock
from repowatch.system.files import make_directories, replace_durably

SAVE = 600.0  # seconds between two notes of it


class WatchedTime:
    """Seconds since the repository was first watched. One thread writes, others may ask."""

    def __init__(self, root: str, *, clock: Clock) -> None:
        self._root = root
        self._path = os.path.join(root, PRIVATE, "watched")
        self._clock = clock
        self._offset = -clock.monotonic()
        self._saved = 0.0

    def open(self) -> None:
        """Go on from what was noted; from zero where nothing was."""
        known = 0.0
        with contextlib.suppress(OSError, ValueError), open(self._path, encoding="ascii") as file:
            known = max(0.0, min(float(file.read(64)), 1e12))
        self._offset = known - self._clock.monotonic()
        self._saved = known

    def now(self) -> float:
        """Seconds."""
        return self._clock.monotonic() + self._offset

    def save(self, *, at_once: bool = False) -> None:
        """Note it for the next start, now and then. Raises OSError."""
        now = self.now()
        if at_once or now >= self._saved + SAVE:
            self._saved = now
            make_directories(os.path.dirname(self._path), below=self._root)
            replace_durably(self._path, [f"{now:.3f}\n".encode("ascii")])
