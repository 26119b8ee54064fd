"""Answers to GETs of small files that anyone may read, kept ready: what fleets ask for again and again.

Nothing is given that could be stale: each time the file is asked whether it is still the one that was read
(stat(2); no writer can set ctime), and the repository whether its publication is, for the ETag depends on it.
"""

from __future__ import annotations

import os
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

MOST = 64 * 1024  # bytes of one file
SETTLED = 1.0  # seconds: two writes closer than the kernel's clock ticks leave the same ctime
TOGETHER = 8 << 20  # bytes of all

_Stamp = tuple[int, int, int, int, int]


@dataclass(frozen=True, slots=True)
class Kept:
    """One answer: the lines of its head that do not change by the second, and the content."""

    path: str
    stamp: _Stamp
    publication: object
    asked: Callable[[], object]  # for the publication as it is now
    head: bytes
    content: bytes

    def is_fresh(self) -> bool:
        """Whether the file, and what is published of it, are what they were."""
        try:
            status = os.stat(self.path)
        except OSError:
            return False
        return stamp_of(status) == self.stamp and self.asked() is self.publication


class Shelf:
    """The answers by request target; the one that was asked for the longest time ago goes first."""

    def __init__(self) -> None:
        self._kept: OrderedDict[str, Kept] = OrderedDict()
        self._size = 0

    def find(self, target: str) -> Kept | None:
        """The answer to a GET without conditions and ranges, None when there is none any more."""
        kept = self._kept.get(target)
        if kept is None:
            return None
        if kept.is_fresh():
            self._kept.move_to_end(target)
            return kept
        self._drop(target)
        return None

    def put(self, target: str, kept: Kept) -> None:
        """Keep an answer, which has at most `MOST` bytes."""
        self._drop(target)
        self._kept[target] = kept
        self._size += _size(target, kept)
        while self._size > TOGETHER:
            self._drop(next(iter(self._kept)))

    def _drop(self, target: str) -> None:
        if kept := self._kept.pop(target, None):
            self._size -= _size(target, kept)


def stamp_of(status: os.stat_result) -> _Stamp:
    """What tells one content of a file from another."""
    return (status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_dev)


def _size(target: str, kept: Kept) -> int:
    return len(kept.content) + len(kept.head) + len(target) + 512
