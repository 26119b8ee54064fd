"""How much is measured: all of it, or as much as fits into two minutes."""

from __future__ import annotations

from dataclasses import dataclass

MIB = 1 << 20


@dataclass(frozen=True, slots=True)
class Extent:
    """Sizes and numbers of one run."""

    rounds: int
    large: int  # bytes of the large file, and of the large package
    gets: int  # of 1 MiB, on one connection
    small_seconds: int  # that small files are asked for
    clients: int  # in the storm
    listed: int  # packages in the repository that they fetch from
    files: int  # small ones that are uploaded
    members: int  # of the directory that PROPFIND asks for
    strangers: int  # connections that do nothing good
    probing: float  # seconds of GETs beside them


FULL = Extent(
    rounds=5,
    large=1024 * MIB,
    gets=500,
    small_seconds=3,
    clients=200,
    listed=1000,
    files=1000,
    members=10_000,
    strangers=1000,
    probing=10,
)
QUICK = Extent(
    rounds=1,
    large=256 * MIB,
    gets=200,
    small_seconds=1,
    clients=200,
    listed=1000,
    files=1000,
    members=10_000,
    strangers=1000,
    probing=4,
)
