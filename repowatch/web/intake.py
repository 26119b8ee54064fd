"""Takes the bytes of an upload: written aside by one thread, hashed by others, on their way to disk early.

A large body costs what its slowest part costs, not the sum: while the next block is received, the last ones
are hashed, each digest in a thread of its own, and the kernel writes what came before. A small one costs no
thread.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from typing import Protocol

from repowatch.model.digests import Spread, in_order

ASIDE = 128 * 1024  # bytes from which a block is hashed by another thread
JOINED = 1 << 20  # bytes of blocks that are hashed together
BEHIND = 4 << 20  # bytes that wait to be hashed; then more are not received
EARLY = 16 << 20  # bytes that are written before the disk is asked to begin with them

# Three pools, so that nobody waits for a thread that waits for him.
_hashing = ThreadPoolExecutor(8, thread_name_prefix="hash")
_digests = ThreadPoolExecutor(8, thread_name_prefix="digest")
_syncing = ThreadPoolExecutor(8, thread_name_prefix="sync")


class Hash(Protocol):
    """Takes the next bytes."""

    def __call__(self, data: bytes, *, spread: Spread) -> None: ...


class Intake:
    """One file on its way in."""

    def __init__(self, path: str, *, hash_with: Hash) -> None:
        """Make the file. `hash_with` is called with all bytes, in order. Raises OSError."""
        self._descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)
        self._hash_with = hash_with
        self._changed = threading.Condition()  # for the next four
        self._waiting: list[bytes] = []  # to be hashed
        self._behind = 0  # bytes of them, and of those in hand
        self._is_hashing = False  # another thread has some in hand
        self._failure: BaseException | None = None
        self._synced: Future[None] | None = None
        self._unsynced = 0

    def take(self, data: bytes) -> None:
        """Take the next bytes. Raises OSError, and what hashing those before raised."""
        self._hash(data)
        view = memoryview(data)
        while view:
            view = view[os.write(self._descriptor, view) :]
        self._unsynced += len(data)
        if self._unsynced >= EARLY and (self._synced is None or self._synced.done()):
            self._wait_for_sync()
            self._unsynced = 0
            self._synced = _syncing.submit(os.fdatasync, self._descriptor)

    def finish_hashing(self) -> None:
        """Wait until all that came is hashed. Raises what that raises."""
        with self._changed:
            self._changed.wait_for(lambda: not self._is_hashing)
            if self._failure:
                raise self._failure

    def sync(self) -> None:
        """Wait until the content is durable (its name is not). Raises OSError."""
        # The kernel tells a failed write once, to whoever asks first: that may be the early one.
        self._wait_for_sync()
        os.fsync(self._descriptor)

    def close(self) -> None:
        """Let go of the file; safe to call again."""
        with self._changed:
            self._waiting.clear()
            self._changed.wait_for(lambda: not self._is_hashing)
        if self._synced is not None:
            wait([self._synced])
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def _hash(self, data: bytes) -> None:
        with self._changed:
            self._changed.wait_for(lambda: self._behind <= BEHIND or self._failure)
            if self._failure:
                raise self._failure
            if self._is_hashing or len(data) >= ASIDE:
                self._behind += len(data)
                self._waiting.append(data)
                if not self._is_hashing:
                    self._is_hashing = True
                    _hashing.submit(self._catch_up)
                return
        self._hash_with(data, spread=in_order)

    def _catch_up(self) -> None:
        """Hash what waits, until nothing does."""
        while blocks := self._next_blocks():
            data = blocks[0] if len(blocks) == 1 else b"".join(blocks)
            try:
                self._hash_with(data, spread=_side_by_side)
            except BaseException as error:  # raised again where the bytes come from
                with self._changed:
                    self._failure = error
                    self._waiting.clear()
            with self._changed:
                self._behind -= len(data)
                self._changed.notify_all()

    def _next_blocks(self) -> list[bytes]:
        """What is to be hashed next, no less than there is and no more than is good at once."""
        blocks: list[bytes] = []
        with self._changed:
            size = 0
            while self._waiting and size < JOINED:
                blocks.append(self._waiting.pop(0))
                size += len(blocks[-1])
            if not blocks:
                self._is_hashing = False
                self._changed.notify_all()
        return blocks

    def _wait_for_sync(self) -> None:
        synced, self._synced = self._synced, None
        if synced is not None:
            synced.result()


def _side_by_side(updates: Sequence[Callable[[], None]]) -> None:
    others = [_digests.submit(update) for update in updates[1:]]
    for update in updates[:1]:
        update()
    for other in others:
        other.result()
