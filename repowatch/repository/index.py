"""One turn of a repository: look at names, read what changed, publish, answer.

`Index` owns the tree's catalog and what is rejected. It is used by one thread: the updater's in the
daemon, the command's in `repowatch index`.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

from repowatch.errors import RepowatchError
from repowatch.model.catalog import Catalog, Segment
from repowatch.model.digests import Inspection
from repowatch.model.package import Entry, Package, Rejected, Stamp
from repowatch.model.publication import Listed, Publication
from repowatch.repository import cache
from repowatch.repository.changes import Again, Arrival, Change, Departure, PublicationFailed, Stopped
from repowatch.repository.formats import FORMATS
from repowatch.repository.home import Home, News
from repowatch.repository.publisher import NotShown, Placement, PlacementRefused, Publisher
from repowatch.repository.readers import Gone, Readers, ToRead, Unsettled
from repowatch.repository.segments import Segments
from repowatch.repository.tree import REPODATA, Found, Tree
from repowatch.system.clock import Clock
from repowatch.system.memory import give_back

log = logging.getLogger(__name__)

# Files read between two publications once something is published, so that uploads get their turn.
MOST_READ = 512

EMPTY = "empty file"


class Index:
    """A repository on disk: its lock, tree, catalog and publisher."""

    def __init__(
        self,
        root: str,
        *,
        name: str,
        readers: Readers,
        pool: ThreadPoolExecutor,
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
        self.rejected: Mapping[str, Rejected] = {}
        self.publication: Publication | None = None
        self.reading: tuple[int, int] = (0, 0)  # files read of files to read, in this turn
        self.stopping: Callable[[], bool] = lambda: False
        self.progress: Callable[[int, int], None] = lambda done, total: None
        self._catalog = Catalog()
        self._readers = readers
        self._clock = clock
        self._settle = settle
        self._segments = Segments(pool, FORMATS[profile])
        self._publisher = Publisher(root, staging=self.home.staging, clock=clock, keep_space=keep_space)
        self._saved: Mapping[str, Entry] | None = None  # the entries that the cache on disk knows
        self._written: Sequence[Segment] | None = None  # the segments that are published
        self.returned: Callable[[], None] = lambda: None  # called when the tree has to be watched anew
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
        """Take over from the cache what need not be read again."""
        restored = cache.load(self.home.cache, self.root)
        if restored is None:
            return
        self._catalog = restored.catalog
        self.rejected = restored.rejected
        wanted = all(each.endswith(f".{self._segments.suffix}") for each in restored.location_hrefs)
        if wanted and self._publisher.is_current(restored.location_hrefs):
            self._written = restored.catalog.segments

    def save(self) -> None:
        """Write the cache when it does not know the publication yet."""
        publication = self.publication
        if publication is None or publication.entries is self._saved or self.home.is_away:
            return
        self._saved = publication.entries
        try:
            cache.save(
                self.home.cache,
                entries=self._catalog.entries,
                segments=self._catalog.segments,
                rejected=self.rejected.values(),
                records=publication.records,
            )
        except OSError as error:
            log.warning("%s: the cache can not be written: %s; the next start is slower", self.name, error)

    def close(self) -> None:
        self.home.release()

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
        """Compress what a restart took over open, so that the next change finds it done."""
        self._segments.compress(self._catalog.segments)

    def describe(self, inspection: Inspection, *, location_href: str, stamp: Stamp) -> Package:
        """What is published of a staged package. Raises BadPackage. May be called from any thread."""
        return self._readers.describe(inspection, location_href=location_href, stamp=stamp)

    def turn(
        self,
        names: Iterable[str],
        *,
        at_once: Iterable[str] = (),
        changes: Sequence[Change] = (),
    ) -> Again:
        """Look at names, read what changed, publish, and answer changes, of which no two touch one name.

        Files below a name that is a directory must have been left alone for `settle` seconds, except for
        the names of `at_once`. Raises PublicationFailed after refusing the changes, and Stopped.
        """
        started = time.perf_counter()
        before, revision = self.publication, self._publisher.repomd.revision
        names, at_once = set(names), set(at_once)
        self._check_disk(names)
        looked_at = [*self._look(names, settled=True), *self._look(at_once, settled=False)]
        if "" in names:
            self._check_empty(looked_at)
        again = self._update_from_files(looked_at)
        again.unsettled.update(self._publish(changes, started))
        self._log_news(before, published=self._publisher.repomd.revision != revision)
        if before is None or len(looked_at) > MOST_READ:
            give_back()
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
            self.returned()

    def _move_in(self) -> None:
        """Begin anew with the directory that stands at the root now. Raises UsageError and OSError."""
        self.close()
        self._catalog = Catalog()
        self.rejected = {}
        self._written = None
        self.open()
        log.info("%s: opened %s", self.name, self.root)

    def _check_empty(self, looked_at: Sequence[tuple[str, Found | None]]) -> None:
        """A tree that had packages and is empty is published only when it is so a second time.

        Below the root a file system may be away, which looks the same. Raises PublicationFailed.
        """
        gone = {name for name, found in looked_at if found is None}
        listed = self._catalog.entries.keys()
        empty = bool(listed) and listed <= gone and all(found is None for _, found in looked_at)
        if empty and not self._seen_empty:
            self._seen_empty = True
            text = f"all {len(listed)} packages are gone from {self.root}; it is looked at once more"
            raise PublicationFailed(RepowatchError(text), again={""})
        self._seen_empty = False

    def _update_from_files(self, looked_at: Iterable[tuple[str, Found | None]]) -> Again:
        again = Again()
        to_read: list[ToRead] = []
        unlisted: list[str] = []
        rejected = dict(self.rejected)
        for location_href, found in looked_at:
            if found is None:
                unlisted.append(location_href)
                rejected.pop(location_href, None)
            elif found.problem is not None:
                unlisted.append(location_href)
                self._reject(Rejected(location_href, found.stamp, found.problem), rejected)
            elif found.fresh:
                again.unsettled.add(location_href)
            else:
                to_read.append(ToRead(found.path, location_href, found.stamp))
        if self.publication is not None and len(to_read) > MOST_READ:
            again.left_over.update(file.location_href for file in to_read[MOST_READ:])
            del to_read[MOST_READ:]
        if any(each.endswith("/") and each not in rejected for each in self.rejected):
            self.returned()  # a directory that could not be read could not be watched either
        put = self._read(to_read, unlisted, again, rejected)
        self._catalog.change(put, unlisted)
        self.rejected = rejected
        return again

    def _look(self, names: set[str], *, settled: bool) -> Iterator[tuple[str, Found | None]]:
        """What changed on disk for each name, and for each known name below those that are directories."""
        seen: dict[str, Found | None] = {}
        quiet_since = self._clock.now() - self._settle if settled else None
        known = self._catalog.entries.keys() | self.rejected.keys()
        for name in names:
            if name and self.tree.is_package_name(name) and not os.path.isdir(self.tree.path(name)):
                seen[name] = self.tree.look(name)
                continue
            prefix = f"{name}/" if name else ""
            seen.update((each, None) for each in known if each.startswith(prefix) or each == name)
            if not name or self.tree.concerns(name):
                seen.update(
                    (found.location_href, found) for found in self.tree.scan(name, quiet_since=quiet_since)
                )
        for name, found in seen.items():
            if found is None or found.stamp is None or found.stamp != self._known(name):
                yield name, found

    def _known(self, location_href: str) -> Stamp | None:
        """The stamp of a file whose content is known already, listed or rejected."""
        entry = self._catalog.entries.get(location_href)
        if entry is not None:
            return entry.stamp
        rejected = self.rejected.get(location_href)
        return rejected.stamp if rejected else None

    def _read(
        self, files: Sequence[ToRead], unlisted: list[str], again: Again, rejected: dict[str, Rejected]
    ) -> list[Package]:
        """The packages read; what is no package is added to the others."""
        put: list[Package] = []
        self.reading = (0, len(files))
        for outcome in self._readers.read_each(files):
            if self.stopping():
                raise Stopped
            self.reading = (self.reading[0] + 1, len(files))
            self.progress(*self.reading)
            match outcome:
                case Package():
                    put.append(outcome)
                    rejected.pop(outcome.entry.location_href, None)
                case Rejected():
                    unlisted.append(outcome.location_href)
                    self._reject(outcome, rejected)
                case Gone():
                    unlisted.append(outcome.location_href)
                    rejected.pop(outcome.location_href, None)
                case Unsettled():
                    again.unsettled.add(outcome.location_href)
        self.reading = (0, 0)
        return put

    def _reject(self, new: Rejected, rejected: dict[str, Rejected]) -> None:
        old = rejected.get(new.location_href)
        rejected[new.location_href] = new
        # A file that grows slowly is told once, not with every length it has meanwhile.
        if old is None or old.reason.partition(":")[0] != new.reason.partition(":")[0]:
            log.warning("%s: not listed: %s: %s", self.name, new.location_href, new.reason)

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
        facts = self._catalog.entries, self._catalog.segments
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
        touched = {name for change in allowed for name in change.touches}
        self.rejected = {name: each for name, each in self.rejected.items() if name not in touched}
        again = self._restamp(wanted)
        revision = self.publication.revision if self.publication else 0
        for departure in leaving:
            departure.answer.set_result(Listed(revision, replaced=True))
        for arrival in wanted:
            arrival.answer.set_result(Listed(revision, replaced=replaced[arrival]))
        return again

    def _take_back(self, facts: tuple[Mapping[str, Entry], tuple[Segment, ...]]) -> None:
        """Say again what the files say; what is published may be anything by now."""
        self._written = None
        self._catalog.entries, self._catalog.segments = facts

    def _failed(self, error: Exception, changes: Sequence[Change]) -> PublicationFailed:
        for change in changes:
            if not change.answer.done():
                change.answer.set_exception(error)
        return PublicationFailed(error, again={name for change in changes for name in change.touches})

    def _list(self, arrivals: Sequence[Arrival], departures: Sequence[Departure]) -> None:
        unlisted = [departure.location_href for departure in departures]
        unlisted += [arrival.departs for arrival in arrivals if arrival.departs]
        unlisted += [arrival.location_href for arrival in arrivals if not arrival.package]
        self._catalog.change([arrival.package for arrival in arrivals if arrival.package], unlisted)

    def _write(self, placements: Sequence[Placement], removals: Sequence[str], started: float) -> None:
        """Bring disk and `publication` to what the catalog says."""
        self.home.make_staging()
        segments = self._catalog.segments
        files = None if segments is self._written else self._segments.files(segments)
        changed = files is not None and not self._publisher.is_published(files)
        if files is not None and changed:
            self._publisher.publish(files, placements=placements, removals=removals)
        else:
            self._publisher.place(placements)
            self._publisher.remove(removals)
        self._written = segments
        if changed or self.publication is None or self.publication.entries is not self._catalog.entries:
            self._show(started, changed=changed)

    def _show(self, started: float, *, changed: bool) -> None:
        """Let the other threads see what is published now."""
        before = self.publication
        repomd = self._publisher.repomd
        seconds = time.perf_counter() - started
        self.publication = Publication(
            revision=repomd.revision,
            records=repomd.records,
            entries=self._catalog.entries,
            repomd=self._publisher.repomd_file,
            published_at=self._clock.now() if changed or before is None else before.published_at,
            seconds=seconds if changed or before is None else before.seconds,
        )

    def _log_news(self, before: Publication | None, *, published: bool) -> None:
        """One line for a publication, and one for what a start took over."""
        now = self.publication
        if now is None or (before is not None and not published):
            return
        if not published:
            log.info("%s: revision %d stands, %d packages", self.name, now.revision, len(now.entries))
            return
        old, new = before.entries if before else {}, now.entries
        log.info(
            "%s: revision %d: %d packages, %d added, %d replaced, %d removed, %.0f ms",
            self.name,
            now.revision,
            len(new),
            len(new.keys() - old.keys()),
            sum(name in old and old[name].pkgid != entry.pkgid for name, entry in new.items()),
            len(old.keys() - new.keys()),
            now.seconds * 1000,
        )

    def _restamp(self, arrivals: Sequence[Arrival]) -> set[str]:
        """Take the stamps that the rename gave; the names that are another file already."""
        entries: list[Entry] = []
        again: set[str] = set()
        rejected = dict(self.rejected)
        for arrival in arrivals:
            found = self.tree.look(arrival.location_href)
            stamp = found.stamp if found else None
            if arrival.package is None:
                rejected[arrival.location_href] = Rejected(arrival.location_href, stamp, EMPTY)
            elif stamp is None or not stamp.is_moved(arrival.package.entry.stamp):
                again.add(arrival.location_href)
            else:
                entries.append(replace(arrival.package.entry, stamp=stamp))
        if entries and self.publication:
            self._catalog.restamp(entries)
            self.publication = replace(self.publication, entries=self._catalog.entries)
        self.rejected = rejected
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
