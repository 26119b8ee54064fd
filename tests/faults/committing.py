"""Fills a batch, commits it, or brings a tree up to date, as a process that can be killed.

    python -m tests.faults.committing fill|commit|index|forgetful TREE [PACKAGE...]

`forgetful` is `index` by one who does not read what was written down before the renames: the guilty one.
"""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from repowatch.repository.batches import Member
from repowatch.repository.index import Index
from repowatch.repository.journal import Journal
from repowatch.repository.readers import Readers
from repowatch.repository.together import made_of
from repowatch.system.clock import SystemClock

BATCH = "nightly"


def fill(index: Index, packages: Sequence[Path]) -> None:
    """The packages come, and what is called gone-* leaves."""
    for package in packages:
        staged = os.path.join(index.home.open_staging(), package.name)
        shutil.copy(package, staged)
        member = Member(package.name, None, None, package.stat().st_size)
        index.batches.put(BATCH, member, staged=staged, who=None)
    for path in Path(index.root).glob("gone-*.rpm"):
        index.batches.put(BATCH, Member(path.name, None, None, 0), staged=None, who=None)


def commit(index: Index) -> None:
    with index.batches.taken(BATCH, who=None, is_operator=False) as batch:
        files = {each.location_href: batch.path(each) for each in batch.members if each.file}
        leaving = [each.location_href for each in batch.members if not each.file]
        together = made_of(index, files, leaving, check=lambda name: None, scratch=batch.directory)
        index.turn([], changes=[together])
        together.answer.result(0)
        index.batches.forget(BATCH)


def main(what: str, tree: str, *packages: str) -> None:
    if what == "forgetful":
        Journal.load = lambda self: None  # type: ignore[method-assign]
    readers = Readers(processes=1)
    with ThreadPoolExecutor(1) as pool:
        index = Index(os.path.realpath(tree), name="rpm", readers=readers, pool=pool, clock=SystemClock())
        index.open()
        index.turn([], at_once=[""])
        if what == "fill":
            fill(index, [Path(each) for each in packages])
        if what == "commit":
            commit(index)
        index.save()
        index.close()
        readers.close()


if __name__ == "__main__":
    main(*sys.argv[1:])
