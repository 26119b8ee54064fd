"""One turn of a repository: look at names, read what changed, publish, answer.

`Index` owns the tree's inventory. It is used by one thread: the updater's in the daemon, the command's in
`repowatch index`.
"""

from __future__ import annotations

import logging
import math
import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Executor, Future
from dataclasses import replace

from repowatch.errors import RepowatchError
from repowatch.model.catalog import order_key
from repowatch.model.digests import Inspection
from repowatch.model.figures import Tally
from repowatch.model.formats import FORMATS
from repowatch.model.package import Package, Rejected, Stamp
from repowatch.model.publication import Listed, Publication
from repowatch.model.segment import Damaged, Run, Segment
from repowatch.repository import adoption
from repowatch.repository.arrivals import Arrivals
from repowatch.repository.changes import Again, Arrival, Change, Departure, PublicationFailed, Stopped
from repowatch.repository.history import History
from repowatch.repository.home import Home, News
from repowatch.repository.inventory import Facts, Inventory
from repowatch.repository.inventory import News as Changed
from repowatch.repository.publisher import NotShown, Placement, PlacementRefused, Publisher
from repowatch.repository.readers import MOST_BYTES, Batch, Readers, ToRead, in_batches
from repowatch.repository.segments import MetadataFile, make_files, warm
from repowatch.repository.store import Store
from repowatch.repository.tree import REPODATA, Found, Tree
from repowatch.system.clock import Clock
from repowatch.system.memory import settle

log = logging.getLogger(__name__)

# Files read between two publications once something is published, so that uploads get their turn.
MOST_READ = 512

# From so many on, most of them will make up whole segments: readers compress them right away.
MANY = 128

# Files that are checked at once, of those that another tool described.
MOST_CHECKED = 32

EMPTY = "empty file"


class Index:
    """A repository on disk: its lock, tree, catalog and publisher."""

    def __init__(
        self,
        root: str,
        *,
        name: str,
        readers: Readers,
        pool: Executor,
        clock: Clock,
        exclude: Sequence[str] = (),
        follow: Sequence[str] = (),
        keep_space: int | None = None,
        settle: float = 0.0,
        profile: str = "compatible",
    ) -> None:
        self.name = name
        self.root = root
        self.tree = Tree(root, exclude=exclude, follow=follow)
        self.home = Home(root)
        self.publication: Publication | None = None
        self.reading: tuple[int, int] = (0, 0)  # files read of files to read, in this turn
        self.stopping: Callable[[], bool] = lambda: False
        self.progress: Callable[[int, int], None] = lambda done, total: None
        self.returned: Callable[[], None] = lambda: None  # called when the tree has to be watched anew
        self.published: Callable[[], None] = lambda: None  # called when there is a newer publication to see
        self.history = History(clock=clock)
        self.tally = Tally()
        self.arrivals = Arrivals()
        self._news = Changed(0, 0, 0)  # of the last publication
        self._form = FORMATS[profile]
        self._inventory = Inventory(name, self._form)
        self._store = Store(self.home, name=name, root=root, form=self._form)
        self._readers = readers
        self._pool = pool
        self._clock = clock
        self._settle = settle
        self._publisher = Publisher(root, staging=self.home.staging, clock=clock, keep_space=keep_space)
        self._written: Sequence[Segment] | None = None  # the segments that are published
        self._is_warm = True  # whether all segments are open
        self._to_adopt = False  # whether the first turn takes over what another tool published
        self._seen_empty = False  # a tree that had packages was found empty, and is to be looked at again

    def open(self) -> None:
        """Take the directory, and go on from what is published in it.

        Raises UsageError when another process writes this repository, OSError.
        """
        self.home.take()
        try:
            self._publisher.take_over()
            self._restore()
        except BaseException:
            self.close()
            raise

    def _restore(self) -> None:
        start = self._store.restore()
        self.history.load(self.home.history)
        self._inventory = start.inventory
        self._is_warm = False
        if start.location_hrefs and self._publisher.is_current(start.location_hrefs):
            self._written = start.segments
        self._to_adopt = not start.inventory.catalog.entries and self._publisher.is_whole()

    def save(self) -> None:
        """Write for the next start what it needs to know."""
        self._store.save(self.publication, self._inventory, self.history)

    def close(self) -> None:
        self._store.close()
        self.home.release()

    @property
    def rejected(self) -> Mapping[str, Rejected]:
        """Files that are not listed, and why."""
        return self._inventory.rejected

    @property
    def generations(self) -> tuple[float, float | None]:
        """When the next publication may be, and when there is next something to sweep (monotonic)."""
        generations = self._publisher.generations
        return generations.next_publication_at(), generations.next_sweep_at()

    def sweep(self) -> None:
        """Remove superseded metadata files whose time has come."""
        try:
            for name in self._publisher.sweep():
                log.debug("%s: removed the superseded %s", self.name, name)
        except OSError as error:
            log.error("%s: superseded metadata can not be removed, it is kept: %s", self.name, error)

    def warm(self) -> None:
        """Open what a restart took over compressed, so that the next change finds it open.

        Raises PublicationFailed when that can not be: the cache was damaged.
        """
        if self._is_warm:
            return
        try:
            warm(self._inventory.catalog.segments, pool=self._pool)
        except Damaged as error:
            raise self._damaged(error) from error
        self._is_warm = True

    def _damaged(self, error: Damaged) -> PublicationFailed:
        """The cache said what is not so: forget it, and read everything again."""
        self._forget()
        self._store.forget()
        return PublicationFailed(RepowatchError(f"the cache is damaged ({error})"), again={""})

    def _forget(self) -> None:
        self._inventory = Inventory(self.name, self._form)
        self._written = None

    def describe(self, inspection: Inspection, *, location_href: str, stamp: Stamp) -> Package:
        """What is published of a staged package. Raises BadPackage. May be called from any thread."""
        return self._readers.describe(inspection, location_href=location_href, stamp=stamp)

    def turn(
        self,
        names: Iterable[str],
        *,
        at_once: Iterable[str] = (),
        changes: Sequence[Change] = (),
        checked: Iterable[Batch] = (),
    ) -> Again:
        """Look at names, read what changed, publish, and answer changes, of which no two touch one name.

        `checked` are answers to `check_some`.

        Files below a name that is a directory must have been left alone for `settle` seconds, except for
        the names of `at_once`. Raises PublicationFailed after refusing the changes, and Stopped.
        """
        started, began = time.perf_counter(), self._clock.now()
        before, revision = self.publication, self._publisher.repomd.revision
        names, at_once = set(names), set(at_once)
        self._check_disk(names)
        if self._to_adopt:
            self._adopt()
        looked_at = [*self._look(names, settled=True), *self._look(at_once, settled=False)]
        if "" in names:
            self._check_empty(looked_at)
        try:
            again = self._update_from_files(looked_at)
            for batch in checked:
                again.unsettled |= self._inventory.take_checked(batch)
            again.unsettled |= self._publish(changes, started)
        except Damaged as error:
            failed = self._damaged(error)
            self._refuse(failed.error, changes)
            raise failed from error
        published = self._publisher.repomd.revision != revision
        self._log_news(before, published=published)
        if published and before is not None:  # else what was there before us
            self._count_arrivals(changes, names=names | at_once)
        self._count_turn(names | at_once, looked_at, again, began=began, published=published)
        if before is None or len(looked_at) > MOST_READ:
            settle()
        return again

    # -- files -------------------------------------------------------------------------------

    def _check_disk(self, names: set[str]) -> None:
        """Whether the directory is still the one that was taken, and repodata/ as it was published.

        Adds to the names what has to be looked at for that. Raises PublicationFailed.
        """
        thorough = self.publication is not None and bool(names & {"", REPODATA})
        try:
            news = self.home.news(thorough=thorough)
            if news is News.OTHER:
                self._move_in()
            elif thorough and self._publisher.is_disturbed():
                log.warning("%s: another program wrote repodata/; the metadata is published anew", self.name)
                self._publisher.take_over()
                self._written = None
        except (OSError, RepowatchError) as error:
            raise PublicationFailed(error, again={""}) from error
        if news is not News.NONE:
            names.add("")
            self.arrivals.came_back(self._clock.now())
            self.returned()

    def _move_in(self) -> None:
        """Begin anew with the directory that stands at the root now. Raises UsageError and OSError."""
        self.close()
        self._forget()
        self.open()
        log.info("%s: opened %s", self.name, self.root)

    def _check_empty(self, looked_at: Sequence[tuple[str, Found | None]]) -> None:
        """A tree that had packages and is empty is published only when it is so a second time.

        Below the root a file system may be away, which looks the same. Raises PublicationFailed.
        """
        gone = {name for name, found in looked_at if found is None}
        listed = self._inventory.catalog.entries.keys()
        empty = bool(listed) and listed <= gone and all(found is None for _, found in looked_at)
        if empty and not self._seen_empty:
            self._seen_empty = True
            text = f"all {len(listed)} packages are gone from {self.root}; it is looked at once more"
            raise PublicationFailed(RepowatchError(text), again={""})
        self._seen_empty = False

    def _look(self, names: set[str], *, settled: bool) -> Iterator[tuple[str, Found | None]]:
        """What changed on disk for each name, and for each known name below those that are directories."""
        seen: dict[str, Found | None] = {}
        quiet_since = self._clock.now() - self._settle if settled else None
        directories = {name for name in names if not name or not self.tree.is_package_name(name)}
        directories |= {name for name in names - directories if os.path.isdir(self.tree.path(name))}
        if names:
            seen.update(dict.fromkeys(self._inventory.below(names, directories=directories)))
        for name in names - directories:
            seen[name] = self.tree.look(name)
        for name in directories:
            if not name or self.tree.concerns(name):
                seen.update(
                    (found.location_href, found) for found in self.tree.scan(name, quiet_since=quiet_since)
                )
        for name, found in seen.items():
            if found is None or found.stamp is None or found.stamp != self._inventory.stamp_of(name):
                yield name, found

    def _update_from_files(self, looked_at: Iterable[tuple[str, Found | None]]) -> Again:
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
        confirmed, other = self._inventory.confirm({name: each for name, each in stamps.items() if each})
        gone += other
        to_read = [file for file in to_read if file.location_href not in confirmed]
        if self.publication is not None and len(to_read) > MOST_READ:
            to_read.sort(key=lambda file: order_key(file.location_href))
            again.left_over.update(file.location_href for file in to_read[MOST_READ:])
            del to_read[MOST_READ:]
        names = {each.location_href for each in refused}
        if any(each.endswith("/") and each not in names for each in self.rejected):
            self.returned()  # a directory that could not be read could not be watched either
        again.unsettled |= self._inventory.take(self._read(to_read), drop=gone, reject=refused)
        return again

    def _read(self, files: Sequence[ToRead]) -> list[Batch]:
        """What came of files. Those of a large tree that is not published yet are kept, in case of a stop."""
        keep = self.publication is None and len(files) >= MANY
        batches: list[Batch] = []
        for batch in self._each_read(files):
            batches.append(batch)
            if keep and batch.run:
                keep = self._store.keep(batch.run)
        return batches

    def _each_read(self, files: Sequence[ToRead]) -> Iterator[Batch]:
        """What came of files, with progress. Raises Stopped."""
        self.reading = (0, len(files))
        compress = len(files) >= MANY
        for batch in self._readers.read(in_batches(files), self._form, compress=compress):
            if self.stopping():
                raise Stopped
            self.reading = (self.reading[0] + len(batch), len(files))
            self.progress(*self.reading)
            yield batch
        self.reading = (0, 0)

    # -- what another tool described ---------------------------------------------------------

    def _adopt(self) -> None:
        """List what another tool described. Raises Stopped."""
        records = self._publisher.repomd.records
        runs = adoption.take_over(self.root, records, self._readers, self._form, stopping=self.stopping)
        self._to_adopt = False
        if runs:
            self._inventory.adopt(runs)
            count = len(self._inventory.catalog.entries)
            log.info("%s: %d packages are taken over from the metadata, to be checked", self.name, count)

    @property
    def unchecked(self) -> int:
        """Packages that are listed as another tool described them, and whose files were not read yet."""
        return len(self._inventory.unchecked)

    def check_some(self) -> Future[Batch] | None:
        """Have some of them read, for the `checked` of a later turn; None when there are none."""
        files = self._to_check(most=MOST_CHECKED, most_bytes=MOST_BYTES)
        return self._readers.read_one(files, self._form) if files else None

    def check_all(self) -> Again:
        """Read them all, and publish what is not as it is listed. Raises as `turn` does."""
        files = self._to_check(most=self.unchecked, most_bytes=math.inf)
        return self.turn([], checked=self._each_read(files))

    def _to_check(self, *, most: int, most_bytes: float) -> list[ToRead]:
        entries = self._inventory.catalog.entries
        files = []
        for name in self._inventory.next_unchecked(most=most, most_bytes=most_bytes):
            found = self.tree.look(name)
            files.append(ToRead(found.path if found else self.tree.path(name), name, entries[name].stamp))
        return files

    # -- publication -------------------------------------------------------------------------

    def _publish(self, changes: Sequence[Change], started: float) -> set[str]:
        """Publish the catalog with the changes, and answer them.

        An arrival that is refused at the last moment is left out, and the rest published without it.
        Returns names to look at again.
        """
        allowed = [change for change in changes if _is_on(change)]
        wanted = [change for change in allowed if isinstance(change, Arrival)]
        leaving = [change for change in allowed if isinstance(change, Departure)]
        replaced = {arrival: os.path.lexists(self.tree.path(arrival.location_href)) for arrival in wanted}
        to_place = {
            Placement(arrival.staged, self.tree.path(arrival.location_href), arrival.check): arrival
            for arrival in wanted
        }
        facts = self._inventory.facts
        while True:
            self._list(wanted, leaving)
            try:
                self._write(list(to_place), [self.tree.path(each.location_href) for each in leaving], started)
            except PlacementRefused as error:
                self._take_back(facts)
                for placement in error.placed:
                    del to_place[placement]
                refused = to_place.pop(error.refused)
                wanted.remove(refused)
                refused.answer.set_exception(error.error)
            except NotShown as error:
                self._take_back(facts)
                for arrival in wanted:
                    arrival.answer.set_result(Listed(None, replaced=replaced[arrival]))
                raise self._failed(error.error, allowed) from error
            except (OSError, RepowatchError) as error:
                self._take_back(facts)
                raise self._failed(error, allowed) from error
            else:
                break
        self._inventory.forget_rejected(name for change in allowed for name in change.touches)
        again = self._restamp(wanted)
        revision = self.publication.revision if self.publication else 0
        for departure in leaving:
            departure.answer.set_result(Listed(revision, replaced=True))
        for arrival in wanted:
            arrival.answer.set_result(Listed(revision, replaced=replaced[arrival]))
        return again

    def _take_back(self, facts: Facts) -> None:
        """Say again what the files say; what is published may be anything by now."""
        self._written = None
        self._inventory.take_back(facts)

    def _failed(self, error: Exception, changes: Sequence[Change]) -> PublicationFailed:
        self._refuse(error, changes)
        return PublicationFailed(error, again={name for change in changes for name in change.touches})

    def _refuse(self, error: Exception, changes: Sequence[Change]) -> None:
        for change in changes:
            if not change.answer.done():
                change.answer.set_exception(error)

    def _list(self, arrivals: Sequence[Arrival], departures: Sequence[Departure]) -> None:
        unlisted = [departure.location_href for departure in departures]
        unlisted += [arrival.departs for arrival in arrivals if arrival.departs]
        unlisted += [arrival.location_href for arrival in arrivals if not arrival.package]
        listed = [Run.of([arrival.package], self._form) for arrival in arrivals if arrival.package]
        self._inventory.change(listed, unlisted)

    def _write(self, placements: Sequence[Placement], removals: Sequence[str], started: float) -> None:
        """Bring disk and `publication` to what the catalog says."""
        self.home.make_staging()
        catalog = self._inventory.catalog
        segments = catalog.segments
        files = None if segments is self._written else self._make_files(segments)
        changed = files is not None and not self._publisher.is_published(files)
        if files is not None and changed:
            self._publisher.publish(files, placements=placements, removals=removals)
        else:
            if files is not None:
                self._publisher.discard()
            self._publisher.place(placements)
            self._publisher.remove(removals)
        self._written = segments
        if changed or self.publication is None or self.publication.entries is not catalog.entries:
            self._show(started, changed=changed)

    def _make_files(self, segments: Sequence[Segment]) -> Sequence[MetadataFile]:
        try:
            return make_files(segments, self._form, pool=self._pool, write=self._publisher.write_aside)
        except BaseException:
            self._publisher.discard()
            raise

    def _show(self, started: float, *, changed: bool) -> None:
        """Let the other threads see what is published now."""
        before = self.publication
        repomd = self._publisher.repomd
        seconds = time.perf_counter() - started
        self._news = self._inventory.news()
        if changed:
            self.history.record(self._news.changes, revision=repomd.revision, at=self._clock.now())
        self.publication = Publication(
            revision=repomd.revision,
            records=repomd.records,
            entries=self._inventory.catalog.entries,
            repomd=self._publisher.repomd_file,
            published_at=self._clock.now() if changed or before is None else before.published_at,
            seconds=seconds if changed or before is None else before.seconds,
        )
        if changed or before is None:
            self.published()

    def _count_turn(
        self,
        names: set[str],
        looked_at: Sequence[tuple[str, Found | None]],
        again: Again,
        *,
        began: float,
        published: bool,
    ) -> None:
        """A turn ended well: count it, and remember since when what it left waits."""
        if published and self.publication:
            self.tally.published(self.publication.seconds)
        stamps = {name: found.stamp for name, found in looked_at if found and found.stamp}
        left_over = {name: stamps[name] for name in again.left_over if name in stamps}
        self.arrivals.turned(names, seen=[name for name, _ in looked_at], left_over=left_over, began=began)
        self.tally.succeeded_at = self._clock.now()

    def _count_arrivals(self, changes: Sequence[Change], *, names: set[str]) -> None:
        """Count how long each package waited that was listed just now."""
        now = self._clock.now()
        came = {each.location_href: each.came_at for each in changes if isinstance(each, Arrival)}
        for old, entry in self._news.changes:
            if entry is not None and (old is None or old.pkgid != entry.pkgid):
                at = came.get(entry.location_href)
                if at is None:
                    at = self.arrivals.of(entry.location_href, entry.stamp, names=names)
                self.tally.listed(now - at)

    def _log_news(self, before: Publication | None, *, published: bool) -> None:
        """One line for a publication, and one for what a start took over."""
        now = self.publication
        if now is None or (before is not None and not published):
            return
        if not published:
            log.info("%s: revision %d stands, %d packages", self.name, now.revision, len(now.entries))
            return
        news = self._news
        log.info(
            "%(repository)s: revision %(revision)d: %(packages)d packages, %(added)d added, "
            "%(replaced)d replaced, %(removed)d removed, %(ms)d ms",
            {
                "repository": self.name,
                "revision": now.revision,
                "packages": len(now.entries),
                "added": news.added,
                "replaced": news.replaced,
                "removed": news.removed,
                "ms": round(now.seconds * 1000),
            },
        )

    def _restamp(self, arrivals: Sequence[Arrival]) -> set[str]:
        """Take the stamps that the rename gave; the names that are another file already."""
        stamps: dict[str, Stamp] = {}
        again: set[str] = set()
        empty: list[Rejected] = []
        for arrival in arrivals:
            found = self.tree.look(arrival.location_href)
            stamp = found.stamp if found else None
            if arrival.package is None:
                empty.append(Rejected(arrival.location_href, stamp, EMPTY))
            elif stamp is None or not stamp.is_moved(arrival.package.entry.stamp):
                again.add(arrival.location_href)
            else:
                stamps[arrival.location_href] = stamp
        if stamps and self.publication:
            self._inventory.set_stamps(stamps)
            self.publication = replace(self.publication, entries=self._inventory.catalog.entries)
        if empty:
            self._inventory.take([], drop=(), reject=empty)
        return again


def _is_on(change: Change) -> bool:
    """Whether a change is still wanted and allowed; a refusal is its answer."""
    if not change.answer.set_running_or_notify_cancel():
        return False
    try:
        change.check()
    except (OSError, RepowatchError) as error:
        change.answer.set_exception(error)
        return False
    return True
