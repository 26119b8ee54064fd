"""Takes the bytes of an upload: written aside by one thread, hashed by another, on their way to disk early.

A large body costs what its slowest part costs, not the sum: while the next block is received, the last one is
hashed, and the kernel writes what came before. A small one costs no thread at all.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor, wait

ASIDE = 128 * 1024  # bytes from which a block is hashed by another thread
EARLY = 32 << 20  # bytes that are written before the disk is asked to begin with them

_processors = len(os.sched_getaffinity(0))
_hashing = ThreadPoolExecutor(_processors, thread_name_prefix="hash")
_syncing = ThreadPoolExecutor(_processors, thread_name_prefix="sync")  # waits for the disk, computes nothing


class Intake:
    """One file on its way in."""

    def __init__(self, path: str, *, hash_with: Callable[[bytes], None]) -> None:
        """Make the file. `hash_with` is called with each block, in order. Raises OSError."""
        self._descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)
        self._hash_with = hash_with
        self._hashed: Future[None] | None = None
        self._synced: Future[None] | None = None
        self._unsynced = 0

    def take(self, data: bytes) -> None:
        """Take the next bytes. Raises OSError, and what hashing them or those before raised."""
        self.finish_hashing()
        if len(data) >= ASIDE:
            self._hashed = _hashing.submit(self._hash_with, data)
        else:
            self._hash_with(data)
        view = memoryview(data)
        while view:
            view = view[os.write(self._descriptor, view) :]
        self._unsynced += len(data)
        if self._unsynced >= EARLY and (self._synced is None or self._synced.done()):
            self._wait_for_sync()
            self._unsynced = 0
            self._synced = _syncing.submit(os.fdatasync, self._descriptor)

    def finish_hashing(self) -> None:
        """Wait until all that came is hashed. Raises as `take` does."""
        hashed, self._hashed = self._hashed, None
        if hashed is not None:
            hashed.result()

    def sync(self) -> None:
        """Wait until the content is durable (its name is not). Raises OSError."""
        # The kernel tells a failed write once, to whoever asks first: that may be the early one.
        self._wait_for_sync()
        os.fsync(self._descriptor)

    def close(self) -> None:
        """Let go of the file; safe to call again."""
        wait([each for each in (self._hashed, self._synced) if each is not None and not each.cancel()])
        self._hashed = self._synced = None
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def _wait_for_sync(self) -> None:
        synced, self._synced = self._synced, None
        if synced is not None:
            synced.result()
