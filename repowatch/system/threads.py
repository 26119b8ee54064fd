"""Threads that fail together: an unexpected error in one ends the process, never passes unseen."""

from __future__ import annotations

import contextlib
import logging
import os
import threading
from collections.abc import Callable

log = logging.getLogger(__name__)


NICE = 3  # what a thread that computes for long is less urgent than one that answers


def give_way() -> None:
    """Let other threads go before the calling one (setpriority(2), which Linux does by thread)."""
    with contextlib.suppress(OSError):
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), NICE)


class Thread:
    """A named thread whose unexpected error is logged and told to `failed`."""

    def __init__(self, name: str, run: Callable[[], None], *, failed: Callable[[str], None]) -> None:
        self._run = run
        self._failed = failed
        self._thread = threading.Thread(target=self._guarded, name=name, daemon=True)

    def start(self) -> None:
        self._thread.start()

    def join(self, timeout: float | None = None) -> bool:
        """Wait for the end, at most `timeout` seconds; whether it has ended."""
        self._thread.join(timeout)
        return not self._thread.is_alive()

    def _guarded(self) -> None:
        try:
            self._run()
        except Exception:
            log.critical("the thread %s failed; the daemon stops", self._thread.name, exc_info=True)
            self._failed(self._thread.name)
