"""The checksums of opened metadata, each begun where it would be the same as the last one.

A hash can be copied while it is computed. So some are kept on the way through a file, and the next one goes
on from the last of them that has seen nothing but what is the same again: the first line with the number of
packages, and the segments up to the first that changed. A package that takes the place of another one thus
costs half of the file in the mean. One more or one fewer changes the first line, and all is hashed.

Only opened bytes are treated so. What is written is hashed whole, every time.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

from repowatch.model.segment import Segment
from repowatch.system.hashing import update

STEP = 1 << 20  # bytes between two hashes that are kept


@dataclass(frozen=True, slots=True)
class _Mark:
    """A hash that has seen the head and some segments."""

    segments: int
    size: int  # bytes
    digest: hashlib._Hash


@dataclass(frozen=True, slots=True)
class _Last:
    """How the last checksum of a kind was computed."""

    algorithm: str
    head: bytes
    segments: Sequence[Segment]
    marks: Sequence[_Mark]


class OpenSums:
    """The checksums of a repository's three metadata files. Only one thread at a time may ask for a kind."""

    def __init__(self) -> None:
        self._last: dict[int, _Last] = {}

    def of(
        self, kind: int, segments: Sequence[Segment], algorithm: str, *, head: bytes, foot: bytes
    ) -> tuple[str, int]:
        """Of head, segments and foot behind one another: in hexadecimal, and their bytes. Raises Damaged."""
        marks = self._marks(kind, segments, algorithm, head)
        if not marks:
            digest = hashlib.new(algorithm)
            update(digest, head)
            marks.append(_Mark(0, len(head), digest))
        digest, size = marks[-1].digest.copy(), marks[-1].size
        for index in range(marks[-1].segments, len(segments)):
            if size >= marks[-1].size + STEP:
                marks.append(_Mark(index, size, digest.copy()))
            content = segments[index].opened(kind)
            update(digest, content)
            size += len(content)
        self._last[kind] = _Last(algorithm, head, tuple(segments), marks)
        update(digest, foot)
        return digest.hexdigest(), size + len(foot)

    def _marks(self, kind: int, segments: Sequence[Segment], algorithm: str, head: bytes) -> list[_Mark]:
        """Those of the last time that have seen what is the same now."""
        last = self._last.get(kind)
        if last is None or (last.algorithm, last.head) != (algorithm, head):
            return []
        pairs = zip(last.segments, segments, strict=False)
        same = next((at for at, (one, other) in enumerate(pairs) if one is not other), len(segments))
        return [mark for mark in last.marks if mark.segments <= same]
