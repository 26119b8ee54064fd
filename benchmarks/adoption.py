"""The first run of `repowatch index` where createrepo_c was used so far, against createrepo_c once more."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from benchmarks import corpus
from benchmarks.contenders import createrepo
from benchmarks.first_index import index

SEED = 1


@dataclass(frozen=True, slots=True)
class Result:
    """Seconds, medians of some rounds, for `size` packages with metadata of createrepo_c's, and one more."""

    size: int
    ours: float  # `repowatch index` without a .repowatch
    createrepo: float  # createrepo_c --update


def run(size: int, *, scratch: Path, rounds: int) -> Result:
    """Both in turns over one tree, from the same metadata each time."""
    root = scratch / "tree"
    corpus.make(root, size, seed=SEED)
    createrepo(root)
    saved = Path(shutil.copytree(root / "repodata", scratch / "repodata"))
    corpus.make(root, 1, seed=SEED, skip=size)
    ours, theirs = [], []
    for _ in range(rounds):
        ours.append(_updated(root, index, saved=saved))
        theirs.append(_updated(root, _update, saved=saved))
    return Result(size, median(ours), median(theirs))


def _update(root: Path) -> None:
    createrepo(root, "--update")


def _updated(root: Path, command: Callable[[Path], None], *, saved: Path) -> float:
    for made in ("repodata", ".repowatch"):
        shutil.rmtree(root / made, ignore_errors=True)
    shutil.copytree(saved, root / "repodata")
    os.sync()
    began = time.perf_counter()
    command(root)
    return time.perf_counter() - began
