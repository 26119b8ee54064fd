"""Packages that are uploaded, and what their clients are told."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

from benchmarks import corpus
from benchmarks.contenders import Http, Task

# Publications come slower when superseded metadata fills half of the space for it; here it never does.
KEEP_SPACE = "256GiB"


@dataclass(frozen=True, slots=True)
class Upload:
    """An upload that was answered."""

    began: float  # on time.perf_counter
    seconds: float
    revision: int  # which lists it


def packages(root: Path, count: int, *, seed: int, size: int, aside: Path) -> list[Task]:
    """`count` packages made in `aside` that are new to a tree of `size`, which gets a place for them."""
    tasks = []
    for file in corpus.make(aside, count, seed=seed, skip=size):
        href = file.relative_to(aside)
        (root / href).parent.mkdir(parents=True, exist_ok=True)
        tasks.append(Task("added", str(href), file))
    return tasks


def upload(server: Http, task: Task) -> Upload:
    """PUT one package, on a connection of its own."""
    began = time.perf_counter()
    answer = server.change(task)
    return Upload(began, time.perf_counter() - began, int(answer.headers["Repowatch-Revision"]))
