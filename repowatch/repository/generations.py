"""Superseded metadata files: how long they are kept, and how fast new ones may follow.

A client that took repomd.xml a moment ago still fetches the files it names. So a superseded file is
kept for an hour while all of them together stay small enough, and never less than a minute; when
publications come so fast that a minute of them would not fit, they have to come slower. Ages are
monotonic: a clock that jumps removes nothing.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable

from repowatch.model.companion import is_ours
from repowatch.system.files import remove_if_there

KEPT = 3600.0  # seconds, while there is space
KEPT_AT_LEAST = 60.0  # seconds, whatever the space

DEFAULT_SPACE = 2 << 30  # bytes, or four generations if that is more

# What createrepo_c and repowatch call metadata files; nothing else in repodata/ is ever removed.
_OURS = re.compile(
    r"^[0-9a-f]{32,128}-(primary|filelists|filelists-ext|other)(\.xml|\.sqlite)(\.(gz|zst|bz2|xz|zck))?$"
)
_CHECKSUM = re.compile(r"^[0-9a-f]{64,128}-")


class Generations:
    """The metadata files in repodata/ that no longer belong to the published revision."""

    def __init__(self, directory: str, *, keep_space: int | None) -> None:
        self._directory = directory
        self._space_wanted = keep_space
        self._superseded: dict[str, tuple[float, int]] = {}  # name: since when, bytes; oldest first
        self._generation = 0  # bytes of the current one
        self.companions = is_ours(())  # matches the names, behind their checksums, of what is no package's
        self._last = float("-inf")  # when the current one was published

    def found(self, names: Iterable[str], *, current: Iterable[str], now: float) -> None:
        """What lies in repodata/, is not current and not known yet counts as superseded from now on."""
        kept = set(current)
        for name in sorted(names):
            if name not in kept and name not in self._superseded and self._is_ours(name):
                self._superseded[name] = (now, self._size(name))

    def published(self, new: Iterable[str], *, before: Iterable[str], now: float) -> None:
        """A publication names the files of `new`; the one before it named those of `before`."""
        current = set(new)
        for name in before:
            if name not in current and self._is_ours(name):
                self._superseded.pop(name, None)
                self._superseded[name] = (now, self._size(name))
        for name in current:
            self._superseded.pop(name, None)
        self._generation = sum(map(self._size, current))
        self._last = now

    def _is_ours(self, name: str) -> bool:
        if _OURS.match(name):
            return True
        checksum = _CHECKSUM.match(name)
        return checksum is not None and self.companions.fullmatch(name, checksum.end()) is not None

    @property
    def space(self) -> int:
        """Bytes that superseded files may take together."""
        if self._space_wanted is not None:
            return self._space_wanted
        return max(DEFAULT_SPACE, 4 * self._generation)

    @property
    def kept(self) -> int:
        """Bytes that superseded files take now."""
        return sum(size for _, size in self._superseded.values())

    def next_publication_at(self) -> float:
        """The earliest moment for the next publication; in the past while there is space.

        Until three quarters of the space are taken, at once: that is room for a hundred in a row in a
        repository of 10,000 packages. Beyond, publications are spaced so that a minute of them fits the
        rest; more than a minute apart saves nothing.
        """
        rest = self.space / 4
        if self.kept + self._generation <= self.space - rest:
            return float("-inf")
        return self._last + KEPT_AT_LEAST * min(1.0, self._generation / max(rest, 1))

    def next_sweep_at(self) -> float | None:
        """When there is next something to remove; None when nothing is superseded."""
        for since, _ in self._superseded.values():
            return since + (KEPT_AT_LEAST if self.kept > self.space / 2 else KEPT)
        return None

    def sweep(self, now: float) -> list[str]:
        """Remove what has been kept long enough, oldest first; the names. Raises OSError."""
        removed = []
        while (due := self.next_sweep_at()) is not None and due <= now:
            name = next(iter(self._superseded))
            _, size = self._superseded.pop(name)
            try:
                remove_if_there(os.path.join(self._directory, name))
            except OSError:
                self._superseded[name] = (now, size)  # tried again when it is due once more
                raise
            removed.append(name)
        return removed

    def _size(self, name: str) -> int:
        try:
            return os.stat(os.path.join(self._directory, name)).st_size
        except FileNotFoundError:
            return 0
