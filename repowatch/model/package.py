"""The values that describe one package file: what identifies it, and what is published of it."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from sys import intern
from typing import Any


@dataclass(frozen=True, slots=True)
class Stamp:
    """What stat(2) says of a file. Equal stamps mean unchanged content.

    ctime can not be set by a program, so a file replaced by another of the same size and mtime
    (rsync -t, cp -p) still has another stamp.
    """

    size: int  # bytes
    mtime_ns: int
    ctime_ns: int
    inode: int

    @classmethod
    def of(cls, status: os.stat_result) -> Stamp:
        return cls(status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino)

    def is_moved(self, before: Stamp) -> bool:
        """Whether this is the same file after a rename, which changes nothing but ctime."""
        return (self.size, self.mtime_ns, self.inode) == (before.size, before.mtime_ns, before.inode)


@dataclass(frozen=True, slots=True)
class Nevra:
    """Name, epoch, version, release and architecture of a package."""

    name: str
    epoch: str
    version: str
    release: str
    arch: str

    def __str__(self) -> str:
        epoch = "" if self.epoch in ("", "0") else f"{self.epoch}:"
        return f"{self.name}-{epoch}{self.version}-{self.release}.{self.arch}"


@dataclass(frozen=True, slots=True)
class Entry:
    """A listed package, as the catalog remembers it."""

    location_href: str
    pkgid: str  # the checksum of the whole file, in hexadecimal
    nevra: Nevra
    stamp: Stamp
    build_time: int = 0  # seconds since 1970
    hint: str = ""  # what keeps some clients from it

    def row(self) -> tuple[str | int, ...]:
        """All of it, flat, for pipes and caches."""
        nevra, stamp = self.nevra, self.stamp
        return (
            self.location_href,
            self.pkgid,
            nevra.name,
            nevra.epoch,
            nevra.version,
            nevra.release,
            nevra.arch,
            stamp.size,
            stamp.mtime_ns,
            stamp.ctime_ns,
            stamp.inode,
            self.build_time,
            self.hint,
        )

    @classmethod
    def of_row(cls, row: Sequence[Any]) -> Entry:
        """What `row` gave. Raises ValueError and TypeError when it can not be that."""
        location_href, pkgid, name, epoch, version, release, arch, *stamp, build_time, hint = row
        nevra = Nevra(name, intern(epoch), intern(version), intern(release), intern(arch))
        return cls(location_href, pkgid, nevra, Stamp(*map(int, stamp)), int(build_time), intern(hint))


@dataclass(frozen=True, slots=True)
class Package:
    """A package that was read whole, with its elements of the three metadata files."""

    entry: Entry
    primary: bytes
    filelists: bytes
    other: bytes


@dataclass(frozen=True, slots=True)
class Rejected:
    """A file that is not listed, and why."""

    location_href: str
    stamp: Stamp | None  # None where not even stat was possible
    reason: str
