"""The floor below all contenders: hash, write and sync the bytes, here or in a process of its own."""

from __future__ import annotations

import contextlib
import gzip
import os
import re
import shutil
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import count
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path

from benchmarks.contenders import CORES, Task
from repowatch.system.files import fsync_directory, write_durably
from repowatch.system.hashing import hashed


class Floor:
    """What no server that publishes these bytes can do without: hash them all, write, fsync.

    Each file has a thread that writes it, for most of that is waiting. The hashes have as many threads as
    there are cores, the longest first: with more of them the longest one ends last, and alone. A file is
    written before its checksum is known, since a name is given quickly.
    """

    label = "floor: hash, write, fsync"
    alone = False

    def __init__(self, root: Path, *, scratch: Path) -> None:
        """Take the files that the repomd.xml of `root` names."""
        self._compressed = _published(root)
        contents = self._compressed + [gzip.decompress(content) for content in self._compressed]
        self._longest_first = sorted(contents, key=len, reverse=True)
        self._directory = scratch
        self._numbers = count()
        self._writers = ThreadPoolExecutor(len(self._compressed))
        self._hashers = ThreadPoolExecutor(CORES)
        scratch.mkdir(parents=True)

    def do(self, task: Task) -> None:
        self.publish()

    def publish(self) -> None:
        written = [self._writers.submit(self._write, content) for content in self._compressed]
        hashes = [self._hashers.submit(hashed, "sha256", [content]) for content in self._longest_first]
        for write in written:
            write.result()
        for checksum in hashes:
            checksum.result()
        fsync_directory(str(self._directory))

    def _write(self, content: bytes) -> None:
        write_durably(str(self._directory / str(next(self._numbers))), [content])

    def cpu(self) -> float:
        return time.process_time()

    def finish(self) -> None:
        pass

    def close(self) -> None:
        self._writers.shutdown()
        self._hashers.shutdown()
        shutil.rmtree(self._directory)


def _published(root: Path) -> list[bytes]:
    repomd = (root / "repodata" / "repomd.xml").read_text()
    return [(root / href).read_bytes() for href in re.findall(r'<location href="([^"]+)"', repomd)]


@contextlib.contextmanager
def elsewhere(root: Path, *, scratch: Path) -> Iterator[None]:
    """The floor, again and again in a process of its own, for as long as the context lasts."""
    spawn = get_context("spawn")
    ours, its = spawn.Pipe()
    process = spawn.Process(target=_again_and_again, args=(root, scratch, its))
    process.start()
    its.close()
    try:
        ours.recv()  # it is ready; EOFError when it is gone
        yield
    finally:
        ours.close()
        process.join()
    if process.exitcode:
        raise AssertionError(f"the floor ended with {process.exitcode}")


def _again_and_again(root: Path, scratch: Path, told: Connection) -> None:
    floor = Floor(root, scratch=scratch)
    try:
        told.send(os.getpid())
        while not told.poll():  # the other end is open
            floor.publish()
    finally:
        floor.close()
