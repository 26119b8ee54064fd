"""The first run of `repowatch index` where createrepo_c was used so far, against createrepo_c once more."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from benchmarks import corpus
from benchmarks.contenders import createrepo

SEED = 1


@dataclass(frozen=True, slots=True)
class Result:
    """Seconds, medians of some rounds, for `size` packages with metadata of createrepo_c's, and one more."""

    size: int
    ours: float  # `repowatch index` without a .repowatch, until its publication is there
    checked: float  # and until it has read every package and ends
    createrepo: float  # createrepo_c --update


def run(size: int, *, scratch: Path, rounds: int) -> Result:
    """Both in turns over one tree, from the same metadata each time."""
    root = scratch / "tree"
    corpus.make(root, size, seed=SEED)
    createrepo(root)
    saved = Path(shutil.copytree(root / "repodata", scratch / "repodata"))
    corpus.make(root, 1, seed=SEED, skip=size)
    published, ended, theirs = [], [], []
    for _ in range(rounds):
        _restore(root, saved)
        one, other = _ours(root)
        published.append(one)
        ended.append(other)
        _restore(root, saved)
        theirs.append(_theirs(root))
    return Result(size, median(published), median(ended), median(theirs))


def _restore(root: Path, saved: Path) -> None:
    for made in ("repodata", ".repowatch"):
        shutil.rmtree(root / made, ignore_errors=True)
    shutil.copytree(saved, root / "repodata")
    os.sync()


def _ours(root: Path) -> tuple[float, float]:
    """Seconds until the publication is there, and until the command ends."""
    repomd = root / "repodata" / "repomd.xml"
    before = repomd.stat().st_ino
    began = time.perf_counter()
    command = [sys.executable, "-m", "repowatch", "index", str(root)]
    with subprocess.Popen(command, stderr=subprocess.DEVNULL) as process:  # noqa: S603 - our own command
        while repomd.stat().st_ino == before and process.poll() is None:
            time.sleep(0.002)
        published = time.perf_counter() - began
    if process.returncode:
        raise AssertionError(f"it ended with {process.returncode}")
    return published, time.perf_counter() - began


def _theirs(root: Path) -> float:
    began = time.perf_counter()
    createrepo(root, "--update")
    return time.perf_counter() - began
