"""What changed on disk, and what came of reading it.

Used by `index`, in its thread.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable, Iterator, Sequence

from repowatch.errors import RepowatchError
from repowatch.model.catalog import order_key
from repowatch.model.package import Rejected, Stamp
from repowatch.model.repomd import Record
from repowatch.repository import adoption
from repowatch.repository.changes import Again, PublicationFailed, Stopped
from repowatch.repository.readers import Batch, Readers, ToRead, in_batches
from repowatch.repository.state import Hooks, State
from repowatch.repository.store import Store
from repowatch.repository.tree import Found, Tree
from repowatch.system.clock import Clock

log = logging.getLogger(__name__)

# Files read between two publications once something is published, so that uploads get their turn.
MOST_READ = 512

# From so many on, most of them will make up whole segments: readers compress them right away.
MANY = 128


class Files:
    """Looks at the files of a tree, and has those read that changed."""

    def __init__(
        self,
        state: State,
        *,
        name: str,
        tree: Tree,
        readers: Readers,
        store: Store,
        clock: Clock,
        settle: float,
        hooks: Hooks,
    ) -> None:
        self.reading: tuple[int, int] = (0, 0)  # files read of files to read, in this turn
        self._state = state
        self._name = name
        self._tree = tree
        self._readers = readers
        self._store = store
        self._clock = clock
        self._settle = settle
        self._hooks = hooks
        self._seen_empty = False  # a tree that had packages was found empty, and is to be looked at again

    def look(self, names: set[str], *, settled: bool) -> Iterator[tuple[str, Found | None]]:
        """What changed on disk for each name, and for each known name below those that are directories."""
        seen: dict[str, Found | None] = {}
        quiet_since = self._clock.now() - self._settle if settled else None
        directories = {name for name in names if not name or not self._tree.is_package_name(name)}
        directories |= {name for name in names - directories if os.path.isdir(self._tree.path(name))}
        if names:
            seen.update(dict.fromkeys(self._state.inventory.below(names, directories=directories)))
        for name in names - directories:
            seen[name] = self._tree.look(name)
        for name in directories:
            if not name or self._tree.concerns(name):
                seen.update(
                    (found.location_href, found) for found in self._tree.scan(name, quiet_since=quiet_since)
                )
        for name, found in seen.items():
            if found is None or found.stamp is None or found.stamp != self._state.inventory.stamp_of(name):
                yield name, found

    def check_empty(self, looked_at: Sequence[tuple[str, Found | None]]) -> None:
        """A tree that had packages and is empty is published only when it is so a second time.

        Below the root a file system may be away, which looks the same. Raises PublicationFailed.
        """
        gone = {name for name, found in looked_at if found is None}
        listed = self._state.inventory.catalog.entries.keys()
        empty = bool(listed) and listed <= gone and all(found is None for _, found in looked_at)
        if empty and not self._seen_empty:
            self._seen_empty = True
            text = f"all {len(listed)} packages are gone from {self._tree.root}; it is looked at once more"
            raise PublicationFailed(RepowatchError(text), again={""})
        self._seen_empty = False

    def update(self, looked_at: Iterable[tuple[str, Found | None]]) -> Again:
        again = Again()
        to_read: list[ToRead] = []
        gone: list[str] = []
        fresh: dict[str, Stamp | None] = {}
        refused: list[Rejected] = []
        for location_href, found in looked_at:
            if found is None:
                gone.append(location_href)
            elif found.problem is not None:
                refused.append(Rejected(location_href, found.stamp, found.problem))
            elif found.fresh:
                again.unsettled.add(location_href)
                fresh[location_href] = found.stamp
            else:
                to_read.append(ToRead(found.path, location_href, found.stamp))
        stamps = fresh | {file.location_href: file.stamp for file in to_read}
        confirmed, other = self._state.inventory.confirm(
            {name: each for name, each in stamps.items() if each}
        )
        gone += other
        to_read = [file for file in to_read if file.location_href not in confirmed]
        if self._state.is_known and len(to_read) > MOST_READ:
            to_read.sort(key=lambda file: order_key(file.location_href))
            again.left_over.update(file.location_href for file in to_read[MOST_READ:])
            del to_read[MOST_READ:]
        names = {each.location_href for each in refused}
        if any(each.endswith("/") and each not in names for each in self._state.inventory.rejected):
            self._hooks.returned()  # a directory that could not be read could not be watched either
        again.unsettled |= self._state.inventory.take(self.read(to_read), drop=gone, reject=refused)
        return again

    def read(self, files: Sequence[ToRead]) -> list[Batch]:
        """What came of files. Those of a large tree that is not published yet are kept, in case of a stop."""
        keep = self._state.publication is None and len(files) >= MANY
        batches: list[Batch] = []
        for batch in self.each_read(files):
            batches.append(batch)
            if keep and batch.run:
                keep = self._store.keep(batch.run)
        return batches

    def each_read(self, files: Sequence[ToRead]) -> Iterator[Batch]:
        """What came of files, with progress. Raises Stopped."""
        self.reading = (0, len(files))
        compress = len(files) >= MANY
        for batch in self._readers.read(in_batches(files), self._state.recipe, compress=compress):
            if self._hooks.stopping():
                raise Stopped
            self.reading = (self.reading[0] + len(batch), len(files))
            self._hooks.progress(*self.reading)
            yield batch
        self.reading = (0, 0)

    def adopt(self, records: Sequence[Record]) -> None:
        """List what another tool described. Raises Stopped."""
        runs = adoption.take_over(
            self._tree.root, records, self._readers, self._state.recipe, stopping=self._hooks.stopping
        )
        if runs:
            self._state.inventory.adopt(runs)
            count = len(self._state.inventory.catalog.entries)
            log.info("%s: %d packages are taken over from the metadata, to be checked", self._name, count)

    def to_check(self, *, most: int, most_bytes: float) -> list[ToRead]:
        entries = self._state.inventory.catalog.entries
        files = []
        for name in self._state.inventory.next_unchecked(most=most, most_bytes=most_bytes):
            found = self._tree.look(name)
            files.append(ToRead(found.path if found else self._tree.path(name), name, entries[name].stamp))
        return files
