"""A clock that stands still until a test moves it."""

from __future__ import annotations

import time


class FakeClock:
    """Both clocks of `repowatch.system.clock.Clock`.

    It begins a minute ahead of the machine's, so that files made by the test count as quiet.
    """

    def __init__(self, now: float | None = None) -> None:
        self._now = time.time() + 60 if now is None else now
        self._monotonic = 1000.0

    def now(self) -> float:
        return self._now

    def monotonic(self) -> float:
        return self._monotonic

    def advance(self, seconds: float) -> None:
        """Let time pass, on both clocks."""
        self._now += seconds
        self._monotonic += seconds

    def jump(self, seconds: float) -> None:
        """Set the wall clock, forth or back, as an administrator or NTP does."""
        self._now += seconds
