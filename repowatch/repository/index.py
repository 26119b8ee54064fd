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
from functools import partial
from types import MappingProxyType

from repowatch.errors import RepowatchError
from repowatch.model.catalog import order_key
from repowatch.model.digests import Inspection
from repowatch.model.figures import Tally
from repowatch.model.package import Entry, Package, Rejected, Stamp
from repowatch.model.publication import Listed, Publication
from repowatch.model.recipe import DEFAULT, Recipe
from repowatch.model.segment import Damaged, Run, Segment
from repowatch.model.signatures import Policy
from repowatch.model.twins import Duplicate
from repowatch.repository import adoption
from repowatch.repository.arrivals import Arrivals
from repowatch.repository.batches import Batches
from repowatch.repository.changes import (
    Again,
    Arrival,
    Change,
    Departure,
    PublicationFailed,
    Stopped,
    Together,
    arrivals_in,
)
from repowatch.repository.companions import Companions
from repowatch.repository.history import History
from repowatch.repository.home import Home, News
from repowatch.repository.inventory import Facts, Inventory
from repowatch.repository.inventory import News as Changed
from repowatch.repository.journal import NO_METADATA, Journal
from repowatch.repository.keeping import Keeping
from repowatch.repository.notices import Notices
from repowatch.repository.publisher import NotShown, Placement, PlacementRefused, Publisher, Ready
from repowatch.repository.readers import MOST_BYTES, Batch, Readers, ToRead, in_batches
from repowatch.repository.retired import GRACE
from repowatch.repository.segments import MetadataFile, make_files, warm
from repowatch.repository.signed import Keys
from repowatch.repository.signing import SignBy
from repowatch.repository.snapshots import Changing, Snapshots, Summary
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
        metadata: Mapping[str, str] = MappingProxyType({}),
        keep_space: int | None = None,
        settle: float = 0.0,
        batch: float = 86400.0,
        sign_by: SignBy | None = None,
        recipe: Recipe = DEFAULT,
        grace: float = GRACE,
        keys: Keys | None = None,
        may_replace: bool = True,  # whether uploads may
        newest_build: bool = False,
    ) -> None:
        self.name = name
        self.root = root
        self.tree = Tree(root, exclude=exclude, follow=follow, metadata=metadata)
        self.home = Home(root)
        self.companions = Companions(self.tree, directory=self.home.companions, name=name, recipe=recipe)
        self.keeping = Keeping(self.tree, clock=clock, grace=grace)
        self.snapshots = Snapshots(root, keeper=self.keeping.retired, clock=clock)
        self.snapshots.publication = lambda: self.publication
        self.keeping.held = lambda: self.snapshots.held
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
        self._recipe = recipe
        self._form = recipe.form
        self._inventory = Inventory(name, self._form)
        self._store = Store(self.home, name=name, root=root, recipe=recipe, newest_build=newest_build)
        self.keys = keys or Keys("any")
        self.notices = Notices(name, may_replace=may_replace)
        self._newest_build = newest_build  # of each package only that is listed
        self._readers = readers
        self._pool = pool
        self._clock = clock
        self._settle = settle
        self._publisher = Publisher(
            root,
            staging=self.home.staging,
            clock=clock,
            keep_space=keep_space,
            sign_by=sign_by,
            retire=self.keeping.retired.retire,
        )
        self.signing = self._publisher.signing
        self._journal = Journal(root, leave=self._publisher.remove)
        self.batches = Batches(self.home, clock=clock, lasts=batch)
        self._written: Sequence[Segment] | None = None  # the segments that are published
        self._is_warm = True  # whether all segments are open
        self._to_adopt = False  # whether the first turn takes over what another tool published
        self._says_anew = False  # the first publication lists otherwise what was listed before
        self._seen_empty = False  # a tree that had packages was found empty, and is to be looked at again

    def open(self) -> None:
        """Take the directory, and go on from what is published in it.

        Raises UsageError when another process writes this repository, OSError.
        """
        self.home.take()
        try:
            self._publisher.take_over()
            self.keeping.open()
            self.snapshots.open()
            self._journal.load()
            self._settle_journal()
            self.batches.load()
            self.companions.open()
            self._restore()
        except BaseException:
            self.close()
            raise

    def _restore(self) -> None:
        start = self._store.restore()
        self.history.load(self.home.history)
        self.notices.load(self.history.events)
        self._inventory = start.inventory
        self._is_warm = False
        if start.location_hrefs and self._publisher.is_current(start.location_hrefs):
            self._written = start.segments
        # What another tool described may be listed before it is read, but not before its signatures are.
        may_adopt = start.may_adopt and not self.policy.signed
        self._says_anew = not start.may_adopt
        is_unknown = may_adopt and not start.inventory.catalog.entries
        self._to_adopt = is_unknown and self._publisher.is_whole()

    def save(self) -> None:
        """Write for the next start what it needs to know."""
        self._store.save(self.publication, self._inventory, self.history)
        if not self.home.is_away:
            self.keeping.save(at_once=True)

    def close(self) -> None:
        self._store.close()
        self.home.release()

    @property
    def rejected(self) -> Mapping[str, Rejected]:
        """Files that are not listed, and why."""
        more = {**self._inventory.held_back(), **self.companions.rejected}
        return {**self._inventory.rejected, **more} if more else self._inventory.rejected

    @property
    def duplicates(self) -> Sequence[Duplicate]:
        """Packages that several files hold."""
        return tuple(self._inventory.duplicates.values())

    @property
    def policy(self) -> Policy:
        """By which signatures packages are let in now."""
        return self._recipe.policy

    @property
    def generations(self) -> tuple[float, float | None]:
        """When the next publication may be, and when there is next something to sweep (monotonic)."""
        generations = self._publisher.generations
        return generations.next_publication_at(), generations.next_sweep_at()

    def listed(self, location_href: str) -> Entry | None:
        """What is known of a file that is listed, or about to be."""
        return self._inventory.catalog.entries.get(location_href)

    def sweep(self) -> None:
        """Remove superseded metadata files, and packages kept beside the tree, whose time has come."""
        try:
            for name in self._publisher.sweep():
                log.debug("%s: removed the superseded %s", self.name, name)
        except OSError as error:
            log.error("%s: superseded metadata can not be removed, it is kept: %s", self.name, error)
        if self.publication and not self.home.is_away:
            self._set_stamps(self.keeping.sweep(self.publication.entries))
            self.keeping.save()

    def snapshot(self, name: str, *, by: str | None) -> Summary:
        """Keep what is published under a name. Raises RepowatchError (Changing: in a moment), OSError."""
        publication, stamps = self.publication, dict[str, Stamp]()
        if publication is None or publication.entries is not self._inventory.catalog.entries:
            raise Changing("what is in the tree is not published yet; take the snapshot when it is")
        self.home.open_staging()  # which raises where the directory is away
        try:
            return self.snapshots.take(name, by=by, tree=self.tree, publication=publication, stamps=stamps)
        finally:
            self._set_stamps(stamps)
            self.save()  # else a start after a death would read all these files again

    def forget_snapshot(self, name: str) -> None:
        """Delete a snapshot, and what only it kept with the next sweep. Raises Nameless and OSError."""
        self.keeping.retired.let_go(self.snapshots.delete(name))

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

    def describe(self, inspection: Inspection, *, location_href: str, stamp: Stamp, path: str) -> Package:
        """What is published of a staged package, the file at `path`. May be called from any thread.

        Raises BadPackage, and ChangedWhileRead when it is another file by now.
        """
        return self._readers.describe(
            inspection, location_href=location_href, stamp=stamp, recipe=self._recipe, path=path
        )

    def read(self, files: Sequence[ToRead]) -> Iterator[Batch]:
        """What is published of files that lie aside, in any order. May be called from any thread."""
        return self._readers.read(in_batches(files), self._recipe)

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
        try:
            self._settle_journal()
        except (OSError, RepowatchError) as error:
            raise self._failed(error, changes) from error
        self._check_disk(names)
        if self._to_adopt:
            self._adopt()
        try:
            unsettled = self._verify_again(names) if self.keys.look() else set()
            unsettled |= self._look_beside(names, at_once)
            looked_at = [*self._look(names, settled=True), *self._look(at_once, settled=False)]
            if "" in names:
                self._check_empty(looked_at)
            again = self._update_from_files(looked_at)
            again.unsettled |= unsettled
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
        if published:
            came = {name for change in changes for name in change.touches}
            self.notices.published(self._news.changes, came=came, at=self._clock.now())
        self._count_turn(names | at_once, looked_at, again, began=began, published=published)
        if before is None or len(looked_at) > MOST_READ:
            settle()
        return again

    def _look_beside(self, names: set[str], at_once: set[str]) -> set[str]:
        """Look at what is no package and has a record; names to look at again. Raises PublicationFailed."""
        try:
            unsettled = self.companions.look(names, settle=self._settle, now=self._clock.now())
            return unsettled | self.companions.look(at_once, settle=None, now=self._clock.now())
        except OSError as error:
            raise PublicationFailed(error, again={""}) from error

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

    def _verify_again(self, names: set[str]) -> set[str]:
        """Read all that is listed again, for the keys are others; what is refused is listed no more.

        Adds to the names what has to be looked at for that; returns those that changed meanwhile.
        Raises Damaged, Stopped.
        """
        log.info("%s: the keys that sign packages changed; all packages are verified again", self.name)
        self._recipe = replace(self._recipe, policy=self.keys.policy)
        self._inventory.doubt()
        unsettled: set[str] = set()
        for batch in self._each_read(self._to_check(most=self.unchecked, most_bytes=math.inf)):
            unsettled |= self._inventory.take_checked(batch)
        self._inventory.change([], self._inventory.unchecked)
        self._store.take(self._recipe)
        names.add("")
        return unsettled

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
        for batch in self._readers.read(in_batches(files), self._recipe, compress=compress):
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
        runs = adoption.take_over(self.root, records, self._readers, self._recipe, stopping=self.stopping)
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
        return self._readers.read_one(files, self._recipe) if files else None

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
        if changes and isinstance(changes[0], Together):
            return self._publish_together(changes[0], started)
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
            unsettled = self._list(wanted, leaving)
            try:
                self.keeping.announce(leaving, facts.entries)
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
        again = self._restamp(wanted) | self.keeping.left(leaving) | unsettled
        notes = self._notes(wanted)
        revision = self.publication.revision if self.publication else 0
        for departure in leaving:
            departure.answer.set_result(Listed(revision, replaced=True))
        for arrival in wanted:
            note = notes.get(arrival.location_href, "")
            arrival.answer.set_result(Listed(revision, replaced=replaced[arrival], note=note))
        return again

    def _notes(self, arrivals: Sequence[Arrival]) -> dict[str, str]:
        """What clients are to know of what they sent, by location_href."""
        held_back = self._inventory.held_back()
        notes: dict[str, str] = {}
        for arrival in arrivals:
            name = arrival.location_href
            if name in held_back:
                notes[name] = f"{name} is stored, and not listed: {held_back[name].reason}"
            elif arrival.package and arrival.package.entry.hint:
                notes[name] = f"{name}: {arrival.package.entry.hint}"
        return notes

    def _publish_together(self, together: Together, started: float) -> set[str]:
        """Publish the catalog with all of them or, where one is refused, none; names to look at again."""
        if not _is_on(together):
            return self._publish((), started)
        path, facts = self.tree.path, self._inventory.facts
        arrivals, leaving = together.arrivals, [path(each.location_href) for each in together.departures]
        placements = [Placement(each.staged, path(each.location_href), each.check) for each in arrivals]
        begin = partial(
            self._journal.begin,
            [(each.staged, each.target) for each in placements],
            leaving,
            scratch=together.scratch,
        )
        try:
            unsettled = self._list(arrivals, together.departures)
            self.keeping.announce(together.departures, facts.entries)
            self._write(placements, (), started, ready=lambda repomd: begin(repomd=repomd))
            self._journal.finish()
        except (OSError, RepowatchError) as error:
            self._take_back(facts)
            is_refusal = isinstance(error, PlacementRefused)
            together.answer.set_exception(error.error if isinstance(error, PlacementRefused) else error)
            try:
                self._settle_journal()
            except (OSError, RepowatchError) as trouble:
                raise self._failed(trouble, [together]) from trouble
            if not is_refusal:
                raise self._failed(error, [together]) from error
            return self._publish((), started) | together.touches
        self._inventory.forget_rejected(together.touches)
        note = "\n".join(self._notes(arrivals).values())
        again = self._restamp(arrivals) | self.keeping.left(together.departures) | unsettled
        together.answer.set_result(Listed(self._publisher.repomd.revision, replaced=True, note=note))
        return again

    def _settle_journal(self) -> None:
        """Finish or take back what was published together, where a death or the disk came between.

        Raises OSError, RepowatchError.
        """
        if (done := self._journal.settle(self._publisher.repomd_file.checksum)) is not None:
            what = "finished" if done else "taken back"
            log.warning("%s: what was to be published together was interrupted; it is %s", self.name, what)

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

    def _list(self, arrivals: Sequence[Arrival], departures: Sequence[Departure]) -> set[str]:
        """List what arrives, and unlist what departs; names to look at again."""
        unlisted = [departure.location_href for departure in departures]
        unlisted += [arrival.departs for arrival in arrivals if arrival.departs]
        unlisted += [arrival.location_href for arrival in arrivals if not arrival.package]
        listed = [Run.of([arrival.package], self._form) for arrival in arrivals if arrival.package]
        self._inventory.change(listed, unlisted)
        return self._settle_twins()

    def _settle_twins(self) -> set[str]:
        """Decide which files are listed of a package that several hold; the names that changed meanwhile."""
        again: set[str] = set()
        while self._newest_build and (entries := self._inventory.returning()):
            names = [entry.location_href for entry in entries]
            found = [each for each in map(self.tree.look, names) if each and each.problem is None]
            files = [ToRead(each.path, each.location_href, each.stamp) for each in found]
            unsettled = self._inventory.take(self._read(files), drop=(), reject=())
            unsettled.update(set(names).difference(each.location_href for each in found))
            self._inventory.change([], unsettled)
            again |= unsettled
        if self._newest_build:
            self._inventory.hold_back()
        self.notices.twins(self._inventory.settle_twins())
        return again

    def _write(
        self,
        placements: Sequence[Placement],
        removals: Sequence[str],
        started: float,
        *,
        ready: Ready = lambda repomd: None,
    ) -> None:
        """Bring disk and `publication` to what the catalog says."""
        self.home.make_staging()
        catalog = self._inventory.catalog
        segments = catalog.segments
        self.companions.hand_over(self._publisher)
        is_written = segments is self._written and self.signing.is_right() and self._publisher.carries_all()
        files = None if is_written else self._make_files(segments)
        changed = files is not None and not self._publisher.is_published(files)
        if files is not None and changed:
            self._publisher.publish(files, placements=placements, removals=removals, ready=ready)
        else:
            if files is not None:
                self._publisher.discard()
            ready(NO_METADATA)
            self._publisher.place(placements)
            self._publisher.remove(removals)
        self._written = segments
        self.companions.shown()
        if changed or self.publication is None or self.publication.entries is not catalog.entries:
            self._show(started, changed=changed)

    def _make_files(self, segments: Sequence[Segment]) -> Sequence[MetadataFile]:
        try:
            return make_files(
                segments,
                self._form,
                checksum=self._recipe.checksum,
                pool=self._pool,
                write=self._publisher.write_aside,
            )
        except BaseException:
            self._publisher.discard()
            raise

    def _show(self, started: float, *, changed: bool) -> None:
        """Let the other threads see what is published now."""
        before = self.publication
        repomd = self._publisher.repomd
        seconds = time.perf_counter() - started
        self._news = self._inventory.news()
        self.keeping.listed(self._news.changes)
        if changed and not (before is None and self._says_anew):
            self.history.record(self._news.changes, revision=repomd.revision, at=self._clock.now())
        self.publication = Publication(
            revision=repomd.revision,
            records=repomd.records,
            entries=self._inventory.catalog.entries,
            repomd=self._publisher.repomd_file,
            signed=self.signing.signed,
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
        came = {each.location_href: each.came_at for each in arrivals_in(changes)}
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
        self._set_stamps(stamps)
        if empty:
            self._inventory.take([], drop=(), reject=empty)
        return again

    def take_stamps(self, stamps: Mapping[str, tuple[Stamp, Stamp]]) -> None:
        """Listed files got a name more elsewhere: their stamps, as (before, after)."""
        known = self._inventory.stamp_of
        self._set_stamps({name: new for name, (old, new) in stamps.items() if known(name) == old})

    def _set_stamps(self, stamps: Mapping[str, Stamp]) -> None:
        if stamps and self.publication:
            self._inventory.set_stamps(stamps)
            self.publication = replace(self.publication, entries=self._inventory.catalog.entries)


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
