"""The first index of N packages, and what a restart over them costs; then the daemon's memory."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from statistics import median
from typing import TypeVar

from benchmarks import corpus
from benchmarks.contenders import Http, createrepo
from benchmarks.processes import Peak, anonymous_bytes
from repowatch.repository.index import Index
from repowatch.repository.readers import Readers
from repowatch.system.clock import SystemClock
from repowatch.system.memory import settle

SEED = 1

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Result:
    """Seconds, medians of some rounds, for a tree of `size` packages."""

    size: int
    ours: float  # `repowatch index`
    createrepo: float
    restart: float  # until the publication stands again
    warm: float  # and until the next change finds everything open
    parsed: float  # createrepo_c's parser over the same metadata
    dumped: float  # and until it has written all their elements anew


@dataclass(frozen=True, slots=True)
class Memory:
    """Anonymous resident bytes of the daemon and its readers."""

    size: int
    open_metadata: int  # bytes of the three files, for comparison
    peak: int  # while it indexed for the first time
    idle: int  # after that
    restarted: int  # after a restart with everything in the cache


def run(size: int, *, scratch: Path, rounds: int) -> Result:
    """Ours and createrepo_c in turns over one tree, from nothing each time."""
    root = scratch / "tree"
    corpus.make(root, size, seed=SEED)
    _fresh(_restart, root)
    restarts, reads = [], []
    for _ in range(rounds):
        restarts.append(_fresh(_restart, root))
        reads.append(_fresh(_read_back, root))
    ours, theirs = [], []
    for _ in range(rounds):
        ours.append(_from_nothing(root, index))
        theirs.append(_from_nothing(root, createrepo))
    restart, warm = map(median, zip(*restarts, strict=True))
    parsed, dumped = map(median, zip(*reads, strict=True))
    return Result(size, median(ours), median(theirs), restart, warm, parsed, dumped)


def _from_nothing(root: Path, command: Callable[[Path], None]) -> float:
    for made in ("repodata", ".repowatch"):
        shutil.rmtree(root / made, ignore_errors=True)
    os.sync()
    began = time.perf_counter()
    command(root)
    return time.perf_counter() - began


def index(root: Path) -> None:
    """Run `repowatch index` over a tree."""
    subprocess.run(  # noqa: S603 - our own command
        [sys.executable, "-m", "repowatch", "index", str(root)], check=True, stderr=subprocess.DEVNULL
    )


def _fresh(function: Callable[[str], T], root: Path) -> T:
    """The answer of a function that runs in a new process."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return pool.submit(function, str(root)).result()


def _restart(root: str) -> tuple[float, float]:
    """Take over what the cache knows; seconds until it is published, and until all is compressed."""
    readers = Readers()
    with ThreadPoolExecutor(readers.processes) as pool:
        began = time.perf_counter()
        index = Index(root, name="restart", readers=readers, pool=pool, clock=SystemClock())
        index.hooks.rests = settle  # as in the daemon
        index.open()
        index.turn([], at_once=[""])
        published = time.perf_counter() - began
        index.warm()
        warm = time.perf_counter() - began
        index.save()
        index.close()
        readers.close()
    return published, warm


def _read_back(root: str) -> tuple[float, float]:
    """Read the published metadata with createrepo_c; seconds until it is parsed, and until it is dumped."""
    import createrepo_c  # noqa: PLC0415 - only this new process needs it

    began = time.perf_counter()
    metadata = createrepo_c.Metadata(key=createrepo_c.HT_KEY_FILENAME)
    metadata.locate_and_load_xml(root)
    parsed = time.perf_counter() - began
    for key in metadata.keys():  # noqa: SIM118 - not a mapping
        createrepo_c.xml_dump(metadata.get(key))
    return parsed, time.perf_counter() - began


def memory(size: int, *, scratch: Path) -> Memory:
    """What the daemon holds after it indexed a tree for the first time, and after a restart."""
    root = scratch / "served"
    corpus.make(root, size, seed=SEED)
    peak = Peak()
    with peak.watched():
        server = Http(root, scratch=scratch / "daemon")
    try:
        server.finish()
        idle = anonymous_bytes(server.daemon.pid)
    finally:
        server.close()
    server = Http(root, scratch=scratch / "daemon")
    try:
        server.finish()
        restarted = anonymous_bytes(server.daemon.pid)
        records = server.daemon.get(f"/{root.name}/repodata/repomd.xml").text
    finally:
        server.close()
    return Memory(size, _open_size(records), peak.bytes, idle, restarted)


def _open_size(repomd: str) -> int:
    return sum(map(int, re.findall("<open-size>([0-9]+)<", repomd)))
