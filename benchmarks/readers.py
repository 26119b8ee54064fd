"""What clients that read notice while the daemon publishes, at a moderate pace of small GETs.

Three states take turns: the daemon is idle; it is idle and the floor keeps the machine as busy as a
publication has to; and it publishes, for one upload follows the other.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks import corpus, floor
from benchmarks.contenders import Http, Task
from benchmarks.pace import Clients, answers, is_over
from benchmarks.uploads import KEEP_SPACE, packages, upload

SEED = 1
SECONDS = 15.0  # of each state; more than the 10 after which the cache is written
MOST_UPLOADS = 300  # in one round
A_FEW_KB = 4096
STATES = ("idle", "floor", "publishing")


@dataclass(frozen=True, slots=True)
class Result:
    """Seconds of every GET in a tree of `size` packages, by state."""

    size: int
    idle: Sequence[float]
    floor: Sequence[float]
    publishing: Sequence[float]
    publications: int  # meanwhile


def run(size: int, *, scratch: Path, rounds: int, seconds: float = SECONDS) -> Result:
    """Each state for so many seconds in each round; in each round another one begins."""
    root = scratch / "served"
    listed = corpus.make(root, size, seed=SEED)
    uploads = packages(root, rounds * MOST_UPLOADS, seed=SEED, size=size, aside=scratch / "arriving")
    with contextlib.ExitStack() as stack:
        server = Http(root, scratch=scratch / "daemon", keep_space=KEEP_SPACE)
        stack.callback(server.close)
        small = min(listed, key=lambda path: abs(path.stat().st_size - A_FEW_KB))
        paths = [f"/{root.name}/{each}" for each in ("repodata/repomd.xml", small.relative_to(root))]
        clients = Clients(server.daemon.address, paths)
        stack.callback(clients.close)
        run = _Run(server, clients, uploads, root=root, scratch=scratch / "floor", seconds=seconds)
        for number in range(rounds):
            first = number % len(STATES)
            for state in STATES[first:] + STATES[:first]:
                run.measure(state)
        return Result(size, **run.seconds, publications=len(run.revisions))


class _Run:
    """Measures one state after the other."""

    def __init__(
        self,
        server: Http,
        clients: Clients,
        uploads: Sequence[Task],
        *,
        root: Path,
        scratch: Path,
        seconds: float,
    ) -> None:
        self.seconds: dict[str, list[float]] = {state: [] for state in STATES}
        self.revisions: set[int] = set()
        self._server = server
        self._clients = clients
        self._uploads = iter(uploads)
        self._root = root
        self._scratch = scratch
        self._lasts = seconds

    def measure(self, state: str) -> None:
        self._server.finish()
        os.sync()
        measure = {"idle": self._idle, "floor": self._floor, "publishing": self._publishing}[state]
        self.seconds[state] += measure()

    def _idle(self) -> list[float]:
        return [get.seconds for get in answers(self._clients.ask(self._lasts))]

    def _floor(self) -> list[float]:
        with floor.elsewhere(self._root, scratch=self._scratch):
            return self._idle()

    def _publishing(self) -> list[float]:
        """Of the GETs that began while an upload was in hand."""
        asked = self._clients.ask(self._lasts)
        began = time.perf_counter()
        for number, task in enumerate(self._uploads, 1):
            self.revisions.add(upload(self._server, task).revision)
            if is_over(asked) or number == MOST_UPLOADS:
                break
        ended = time.perf_counter()
        return [get.seconds for get in answers(asked) if began <= get.at < ended]
