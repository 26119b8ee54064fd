"""A publication: one revision of a repository as clients see it."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from dataclasses import dataclass

from repowatch.model.package import Entry
from repowatch.model.repomd import Record
from repowatch.model.signing import Signed


@dataclass(frozen=True, slots=True)
class RepomdFile:
    """Which file repomd.xml is, so that its ETag can be told from stat alone."""

    checksum: str  # SHA-256 of its bytes, in hexadecimal
    inode: int

    @classmethod
    def of(cls, text: bytes, status: os.stat_result) -> RepomdFile:
        return cls(hashlib.sha256(text).hexdigest(), status.st_ino)


@dataclass(frozen=True, slots=True)
class Publication:
    """One revision. Replaced whole; other threads than the updater's see nothing else."""

    revision: int
    records: tuple[Record, ...]
    entries: Mapping[str, Entry]  # the listed packages by location_href
    repomd: RepomdFile
    published_at: float  # seconds since 1970
    seconds: float  # what making it took
    signed: Signed | None = None  # repomd.xml and its signature, where they are ours


class Sizes:
    """Adds up the bytes of all listed packages: when it is asked, once for each publication."""

    def __init__(self) -> None:
        self._known: tuple[Mapping[str, Entry], int] | None = None  # replaced whole, for any thread

    def of(self, publication: Publication) -> int:
        """Bytes."""
        known = self._known
        if known is None or known[0] is not publication.entries:
            entries = publication.entries
            known = self._known = entries, sum(each.stamp.size for each in entries.values())
        return known[1]


class Hints:
    """Finds the listed packages that some clients can not verify: when asked, once for each publication."""

    def __init__(self) -> None:
        self._known: tuple[Mapping[str, Entry], list[Entry]] | None = None  # replaced whole, for any thread

    def of(self, publication: Publication) -> list[Entry]:
        """Those that have a hint."""
        known = self._known
        if known is None or known[0] is not publication.entries:
            entries = publication.entries
            known = self._known = entries, [each for each in entries.values() if each.hint]
        return known[1]


@dataclass(frozen=True, slots=True)
class Listed:
    """The answer to a change: the revision that shows it, None where one will only later."""

    revision: int | None
    replaced: bool  # whether something had the name before
    note: str = ""  # what the client should know of it
