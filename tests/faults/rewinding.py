"""Takes a snapshot, rolls back to one, or just starts, as a process that can be killed.

    python -m tests.faults.rewinding take|careless|rollback|start TREE NAME

`careless` is `take` by one who holds the packages after the snapshot appeared: the guilty one.
"""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from repowatch.model.package import Entry
from repowatch.model.snapshot import Kept
from repowatch.repository.index import Index
from repowatch.repository.readers import Readers
from repowatch.repository.rollback import Rollback
from repowatch.repository.snapshots import Snapshots
from repowatch.repository.updater import Updater
from repowatch.system.clock import SystemClock

_hold, _take = Snapshots._hold, Snapshots.take


def _only_list(self: Snapshots, entries: Mapping[str, Entry], *rest: Any) -> dict[str, Kept]:
    return {name: Kept.of(entry) for name, entry in entries.items()}


def _hold_at_last(self: Snapshots, name: str, **rest: Any) -> Any:
    taken = _take(self, name, **rest)
    _hold(self, rest["publication"].entries, rest["tree"], rest["stamps"])
    return taken


def main(what: str, tree: str, name: str) -> None:
    if what == "careless":
        Snapshots._hold = _only_list  # type: ignore[method-assign, assignment]
        Snapshots.take = _hold_at_last  # type: ignore[method-assign]
    readers = Readers(processes=1)
    with ThreadPoolExecutor(1) as pool:
        index = Index(os.path.realpath(tree), name="rpm", readers=readers, pool=pool, clock=SystemClock())
        index.open()
        updater = Updater(index, clock=SystemClock(), settle=0.0, deadline=0.0)
        thread = threading.Thread(target=updater.run)
        thread.start()
        try:
            updater.look("").result()
            if what in ("take", "careless"):
                updater.do(lambda: index.snapshot(name, by=None)).result()
            if what == "rollback":
                Rollback(updater, name).run()
        finally:
            updater.stop()
            thread.join()
            index.close()
            readers.close()


if __name__ == "__main__":
    main(*sys.argv[1:])
