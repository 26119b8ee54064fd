"""What is to come: names that were heard of and not yet looked at, and uploads that are on their way.

Settle is the quiet time after the last event about a name; a file that is still written to makes
events all the time and stays here, unread. Deadline bounds the batch: the names that are quiet do
not wait longer than this for the others.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

# More names than this at once are not worth telling apart: look at the whole tree instead.
MOST_NAMES = 8192


@dataclass(slots=True)
class _Heard:
    first: float
    last: float


class Pending:
    """Names that settle. Times are monotonic seconds, passed in."""

    def __init__(self, *, settle: float, deadline: float) -> None:
        self.settle = settle
        self.deadline = deadline
        self._heard: dict[str, _Heard] = {}
        self._everything: _Heard | None = None

    def __len__(self) -> int:
        return len(self._heard) + bool(self._everything)

    def hear(self, name: str, now: float) -> None:
        """Something may have happened to `name`, a path relative to the repository root; "" is all of it."""
        if name == "" or (name not in self._heard and len(self._heard) >= MOST_NAMES):
            if self._everything is None:
                self._everything = _Heard(now, now)
            self._everything.last = now
            return
        heard = self._heard.setdefault(name, _Heard(now, now))
        heard.last = now

    def due_at(self) -> float | None:
        """When there is next something to take; None when nothing is pending."""
        heards = list(self._heard.values())
        ready = [heard.last + self.settle for heard in heards]
        if self._everything is not None:
            heards.append(self._everything)
            ready.append(self._everything_ready_at(self._everything))
        if not heards:
            return None
        patience_ends = min(heard.first for heard in heards) + self.deadline
        return min(max(ready), max(patience_ends, min(ready)))

    def _everything_ready_at(self, heard: _Heard) -> float:
        """The whole tree is looked at when the deadline says so, quiet or not: files that are still
        written to are recognised one by one."""
        return min(heard.last + self.settle, heard.first + self.deadline)

    def take(self, now: float) -> set[str]:
        """The names to look at now: empty before `due_at`, else all that are quiet."""
        due = self.due_at()
        if due is None or now < due:
            return set()
        taken = {name for name, heard in self._heard.items() if heard.last + self.settle <= now}
        for name in taken:
            del self._heard[name]
        if self._everything is not None and self._everything_ready_at(self._everything) <= now:
            self._everything = None
            taken.add("")
        return taken


class Expected:
    """Uploads that are on their way. Those that come at once are worth one publication, not a hundred.

    So what has arrived waits for what began a moment ago, and where it came in company, until nothing
    began for a moment; but for `patience` seconds at most, and not for one that takes longer. Times are
    monotonic seconds, passed in.
    """

    def __init__(self, *, patience: float, quiet: float) -> None:
        self._patience = patience
        self._quiet = quiet
        self._began: dict[object, float] = {}
        self._latest = -math.inf

    def __len__(self) -> int:
        return len(self._began)

    def begin(self, now: float) -> object:
        """An upload begins; what `end` has to be told."""
        token = object()
        self._began[token] = self._latest = now
        return token

    def end(self, token: object) -> None:
        """It has arrived, or never will. May be said twice."""
        self._began.pop(token, None)

    def wait_until(self, *, first: float, arrived: int, now: float) -> float:
        """Until when `arrived` uploads, the first of them at `first`, wait for others; -inf: not at all."""
        until = max(self._began.values(), default=-math.inf) + self._patience
        if arrived > 1:
            until = max(until, self._latest + self._quiet)
        until = min(until, first + self._patience)
        return until if until > now else -math.inf
