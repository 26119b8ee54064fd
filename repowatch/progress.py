"""How a long reading goes, for whoever waits for it."""

from __future__ import annotations

import logging
import sys
import time

log = logging.getLogger("repowatch")


class ShownProgress:
    """Tells how a long reading goes: one changing line on a terminal, a log line now and then elsewhere."""

    def __init__(self) -> None:
        self._terminal = sys.stderr.isatty()
        self._every = 0.2 if self._terminal else 10.0
        self._next: dict[str, float] = {}  # by repository: when to tell again
        self._told: set[str] = set()  # repositories whose line is not ended

    def __call__(self, name: str, done: int, total: int) -> None:
        now = time.monotonic()
        next_at = self._next.setdefault(name, now + self._every)
        ends = done == total and name in self._told
        if done == total:
            del self._next[name]
        if now < next_at and not ends:
            return
        if done < total:
            self._next[name] = now + self._every
        text = f"{name}: {done} of {total} files read"
        if self._terminal:
            print(f"\r{text}", end="\n" if ends else "", file=sys.stderr, flush=True)
        else:
            log.info("%s", text)
        (self._told.discard if ends else self._told.add)(name)
