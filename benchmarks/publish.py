"""One package more, another, or fewer, in a tree of N: wall time and processor time of every contender.

Contenders take turns: one does its task while the others are idle, and in each round another one begins, so
that what else the machine does meets all of them alike. The packages fall at random places in the order.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from random import Random

from benchmarks import corpus
from benchmarks.contenders import (
    ARCH,
    KINDS,
    Agent,
    Contender,
    Createrepo,
    Engine,
    Http,
    Missing,
    Task,
    createrepo,
)
from benchmarks.floor import Floor

MOST_ROUNDS = 100
LEAST_ROUNDS = 3
SEED = 1


@dataclass(frozen=True, slots=True)
class Result:
    """What one contender needed in a tree of `size` packages."""

    label: str
    size: int
    seconds: Mapping[str, Sequence[float]]  # wall time of each task, by kind
    cpu_seconds: float  # for one package, with everything that happened in the background

    @property
    def all_seconds(self) -> list[float]:
        return [each for kind in KINDS for each in self.seconds[kind]]


def percentile(values: Sequence[float], percent: int) -> float:
    """The smallest value that `percent` of all do not exceed: of fewer than 100, the 99th is the largest."""
    return sorted(values)[max(0, -(-len(values) * percent // 100) - 1)]


def run(size: int, *, scratch: Path, budget: float, tell: Callable[[str], None]) -> list[Result]:
    """Rounds for about `budget` seconds in a tree of `size` packages."""
    rounds = min(MOST_ROUNDS, size // 3)  # each replaces one package and removes another
    original = scratch / "original"
    listed = corpus.make(original, size, seed=SEED)
    plan = _plan(listed, rounds, original=original, arriving=scratch / "arriving")
    with contextlib.ExitStack() as stack:
        contenders = []
        for start in _starters(original, scratch):
            try:
                contender = start()
            except Missing as missing:
                tell(f"left out: {missing}")
                continue
            stack.callback(contender.close)
            contenders.append(contender)
        shutil.rmtree(original)
        os.sync()
        return _measured(contenders, plan, size=size, aside=scratch / "aside", budget=budget)


def _starters(original: Path, scratch: Path) -> list[Callable[[], Contender]]:
    """What starts each contender, on a tree of its own."""

    def tree(*parts: str) -> Path:
        return Path(shutil.copytree(original, scratch.joinpath(*parts)))

    createrepo(original)
    return [
        lambda: Floor(original, scratch=scratch / "floor"),
        lambda: Engine(tree("engine")),
        lambda: Http(tree("served"), scratch=scratch / "daemon"),
        lambda: Createrepo(tree("createrepo")),
        lambda: Agent(tree("agent", ARCH).parent, scratch=scratch / "gnupg"),
    ]


def _plan(listed: Sequence[Path], rounds: int, *, original: Path, arriving: Path) -> list[list[Task]]:
    """For each round a task of each kind; the first round is there to warm up."""
    size = len(listed)
    new = corpus.make(arriving / "added", rounds + 1, seed=SEED, skip=size)
    known = list(islice(corpus.members(SEED), size))
    chosen = Random(SEED).sample(range(size), 2 * (rounds + 1))  # noqa: S311 - to be the same each time
    plan = []
    for added, replaced, removed in zip(new, chosen[::2], chosen[1::2], strict=True):
        # A PUT needs the directory (RFC 4918, 9.7.1), and createrepo_c's tree a place for the file.
        (original / added.relative_to(arriving / "added")).parent.mkdir(exist_ok=True)
        other = corpus.write_member(arriving / "replaced", known[replaced], seed=SEED, edition=1)
        plan.append(
            [
                Task("added", str(added.relative_to(arriving / "added")), added),
                Task("replaced", str(listed[replaced].relative_to(original)), other),
                Task("removed", str(listed[removed].relative_to(original)), None),
            ]
        )
    return plan


def _measured(
    contenders: Sequence[Contender], plan: Sequence[Sequence[Task]], *, size: int, aside: Path, budget: float
) -> list[Result]:
    warm_up, *rounds = plan
    for contender in contenders:
        for task in warm_up:
            with _own_file(task, aside) as own:
                contender.do(own)
        contender.finish()
    meters = [_Meter(contender) for contender in contenders]
    ends = time.monotonic() + budget
    done = 0
    for number, tasks in enumerate(rounds):
        if number >= LEAST_ROUNDS and time.monotonic() > ends:
            break
        first = number % len(meters)
        for task in tasks:
            for meter in meters[first:] + meters[:first]:
                with _own_file(task, aside) as own:
                    meter.do(own)
        done += len(tasks)
    return [meter.result(size=size, tasks=done) for meter in meters]


@contextlib.contextmanager
def _own_file(task: Task, aside: Path) -> Iterator[Task]:
    """The task with a copy of its file that the contender may take away."""
    if task.file is None:
        yield task
        return
    aside.mkdir(exist_ok=True)
    # The agent takes the name over, too.
    own = Path(shutil.copy2(task.file, aside / task.file.name))
    try:
        yield Task(task.kind, task.location_href, own)
    finally:
        own.unlink(missing_ok=True)


class _Meter:
    """Counts what a contender costs."""

    def __init__(self, contender: Contender) -> None:
        self._contender = contender
        self._seconds: dict[str, list[float]] = {kind: [] for kind in KINDS}
        self._cpu = 0.0
        self._cpu_at_start = contender.cpu()

    def do(self, task: Task) -> None:
        cpu, began = self._contender.cpu(), time.perf_counter()
        self._contender.do(task)
        self._seconds[task.kind].append(time.perf_counter() - began)
        self._cpu += self._contender.cpu() - cpu

    def result(self, *, size: int, tasks: int) -> Result:
        cpu = self._contender.cpu()
        self._contender.finish()
        after = self._contender.cpu()
        used = after - self._cpu_at_start if self._contender.alone else self._cpu + after - cpu
        return Result(self._contender.label, size, self._seconds, used / tasks)
