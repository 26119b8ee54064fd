"""Publishes what is known of the files with the changes that clients ask for, and answers these.

Used by `index`, in its thread.
"""

from __future__ import annotations

import contextlib
import logging
import os
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import Executor, InvalidStateError
from dataclasses import replace
from functools import partial

from repowatch.errors import Conflict, RepowatchError
from repowatch.model.package import Rejected, Stamp
from repowatch.model.publication import Listed, Publication
from repowatch.model.segment import Run, Segment
from repowatch.repository.changes import Arrival, Change, Departure, PublicationFailed, Together
from repowatch.repository.companions import Companions
from repowatch.repository.files import Files
from repowatch.repository.history import History
from repowatch.repository.home import Home
from repowatch.repository.inventory import Facts
from repowatch.repository.journal import NO_METADATA, Journal
from repowatch.repository.keeping import Keeping
from repowatch.repository.notices import Notices
from repowatch.repository.publisher import NotShown, Placement, PlacementRefused, Publisher, Ready
from repowatch.repository.readers import ToRead
from repowatch.repository.segments import MetadataFile, make_files
from repowatch.repository.state import Hooks, State
from repowatch.repository.sums import OpenSums
from repowatch.repository.tree import Tree
from repowatch.system.clock import Clock

log = logging.getLogger(__name__)

EMPTY = "empty file"


class Publishing:
    """Brings the disk, the clients' view and the answers to what the inventory and the changes say."""

    def __init__(
        self,
        state: State,
        *,
        name: str,
        tree: Tree,
        home: Home,
        files: Files,
        publisher: Publisher,
        journal: Journal,
        keeping: Keeping,
        companions: Companions,
        notices: Notices,
        history: History,
        pool: Executor,
        clock: Clock,
        hooks: Hooks,
        newest_build: bool,
    ) -> None:
        """`newest_build`: of each package that several files hold only that is listed."""
        self.says_anew = False  # the first publication lists otherwise what was listed before
        self._state = state
        self._name = name
        self._tree = tree
        self._home = home
        self._files = files
        self._publisher = publisher
        self._journal = journal
        self._keeping = keeping
        self._companions = companions
        self._notices = notices
        self._history = history
        self._pool = pool
        self._clock = clock
        self._hooks = hooks
        self._newest_build = newest_build
        self._sums = OpenSums()

    def publish(self, changes: Sequence[Change], started: float) -> set[str]:
        """Publish the catalog with the changes, and answer them.

        An arrival that is refused at the last moment is left out, and the rest published without it.
        Returns names to look at again.
        """
        if changes and isinstance(changes[0], Together):
            return self._publish_together(changes[0], started)
        allowed = [change for change in changes if _is_on(change)]
        wanted = [change for change in allowed if isinstance(change, Arrival)]
        leaving = [change for change in allowed if isinstance(change, Departure)]
        replaced = {arrival: os.path.lexists(self._tree.path(arrival.location_href)) for arrival in wanted}
        to_place = {
            Placement(arrival.staged, self._tree.path(arrival.location_href), arrival.check): arrival
            for arrival in wanted
        }
        facts = self._state.inventory.facts
        while True:
            unsettled = self._list(wanted, leaving)
            try:
                self._keeping.announce(leaving, facts)
                self._write(
                    list(to_place), [self._tree.path(each.location_href) for each in leaving], started
                )
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
                raise self.failed(error.error, allowed) from error
            except (OSError, RepowatchError) as error:
                self._take_back(facts)
                raise self.failed(error, allowed) from error
            else:
                break
        self._state.inventory.forget_rejected(name for change in allowed for name in change.touches)
        again = self._restamp(wanted) | self._keeping.left(leaving) | unsettled
        notes = self._notes_of(wanted)
        revision = self._state.publication.revision if self._state.publication else 0
        for departure in leaving:
            departure.answer.set_result(Listed(revision, replaced=True))
        for arrival in wanted:
            note = notes.get(arrival.location_href, "")
            arrival.answer.set_result(Listed(revision, replaced=replaced[arrival], note=note))
        return again

    def _publish_together(self, together: Together, started: float) -> set[str]:
        """Publish the catalog with all of them or, where one is refused, none; names to look at again."""
        if not _is_on(together):
            return self.publish((), started)
        path, facts = self._tree.path, self._state.inventory.facts
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
            self._keeping.announce(together.departures, facts)
            self._write(placements, (), started, ready=lambda repomd: begin(repomd=repomd))
            self._journal.finish()
        except (OSError, RepowatchError) as error:
            self._take_back(facts)
            is_refusal = isinstance(error, PlacementRefused | Conflict)
            together.answer.set_exception(error.error if isinstance(error, PlacementRefused) else error)
            try:
                self.settle_journal()
            except (OSError, RepowatchError) as trouble:
                raise self.failed(trouble, [together]) from trouble
            if not is_refusal:
                raise self.failed(error, [together]) from error
            return self.publish((), started) | together.touches
        self._state.inventory.forget_rejected(together.touches)
        note = "\n".join(self._notes_of(arrivals).values())
        again = self._restamp(arrivals) | self._keeping.left(together.departures) | unsettled
        together.answer.set_result(Listed(self._publisher.repomd.revision, replaced=True, note=note))
        return again

    def _list(self, arrivals: Sequence[Arrival], departures: Sequence[Departure]) -> set[str]:
        """List what arrives, and unlist what departs; names to look at again."""
        unlisted = [departure.location_href for departure in departures]
        unlisted += [arrival.departs for arrival in arrivals if arrival.departs]
        unlisted += [arrival.location_href for arrival in arrivals if not arrival.package]
        listed = [
            Run.of([arrival.package], self._state.recipe.form) for arrival in arrivals if arrival.package
        ]
        self._state.inventory.change(listed, unlisted)
        return self._settle_twins()

    def _settle_twins(self) -> set[str]:
        """Decide which files are listed of a package that several hold; the names that changed meanwhile."""
        again: set[str] = set()
        while self._newest_build and (entries := self._state.inventory.returning()):
            names = [entry.location_href for entry in entries]
            found = [each for each in map(self._tree.look, names) if each and each.problem is None]
            files = [ToRead(each.path, each.location_href, each.stamp) for each in found]
            unsettled = self._state.inventory.take(self._files.read(files), drop=(), reject=())
            unsettled.update(set(names).difference(each.location_href for each in found))
            self._state.inventory.change([], unsettled)
            again |= unsettled
        if self._newest_build:
            self._state.inventory.hold_back()
        self._notices.twins(self._state.inventory.settle_twins())
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
        self._home.make_staging()
        catalog = self._state.inventory.catalog
        segments = catalog.segments
        self._companions.hand_over(self._publisher)
        is_written = (
            segments is self._state.written
            and self._publisher.signing.is_right()
            and self._publisher.carries_all()
        )
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
        self._state.written = segments
        self._companions.shown()
        if (
            changed
            or self._state.publication is None
            or self._state.publication.entries is not catalog.entries
        ):
            self._show(started, changed=changed)

    def _make_files(self, segments: Sequence[Segment]) -> Sequence[MetadataFile]:
        try:
            return make_files(
                segments,
                self._state.recipe.form,
                checksum=self._state.recipe.checksum,
                pool=self._pool,
                write=self._publisher.write_aside,
                sums=self._sums,
            )
        except BaseException:
            self._publisher.discard()
            raise

    def _show(self, started: float, *, changed: bool) -> None:
        """Let the other threads see what is published now."""
        before = self._state.publication
        repomd = self._publisher.repomd
        seconds = time.perf_counter() - started
        self._state.news = self._state.inventory.news()
        stamps = self._keeping.listed(self._state.news.changes)
        if changed and not (before is None and self.says_anew):
            self._history.record(self._state.news.changes, revision=repomd.revision, at=self._clock.now())
        self._state.publication = Publication(
            revision=repomd.revision,
            records=repomd.records,
            entries=self._state.inventory.catalog.entries,
            repomd=self._publisher.repomd_file,
            signed=self._publisher.signing.signed,
            published_at=self._clock.now() if changed or before is None else before.published_at,
            seconds=seconds if changed or before is None else before.seconds,
        )
        self.set_stamps(stamps)
        if changed or before is None:
            self._hooks.published()

    def _restamp(self, arrivals: Sequence[Arrival]) -> set[str]:
        """Take the stamps that the rename gave; the names that are another file already."""
        stamps: dict[str, Stamp] = {}
        again: set[str] = set()
        empty: list[Rejected] = []
        for arrival in arrivals:
            found = self._tree.look(arrival.location_href)
            stamp = found.stamp if found else None
            if arrival.package is None:
                empty.append(Rejected(arrival.location_href, stamp, EMPTY))
            elif stamp is None or not stamp.is_moved(arrival.package.entry.stamp):
                again.add(arrival.location_href)
            else:
                stamps[arrival.location_href] = stamp
        self.set_stamps(stamps)
        if empty:
            self._state.inventory.take([], drop=(), reject=empty)
        return again

    def forget(self) -> None:
        """Keep nothing of segments that are no more."""
        self._sums = OpenSums()

    def set_stamps(self, stamps: Mapping[str, Stamp]) -> None:
        if stamps and self._state.publication:
            self._state.inventory.set_stamps(stamps)
            self._state.publication = replace(
                self._state.publication, entries=self._state.inventory.catalog.entries
            )

    def _notes_of(self, arrivals: Sequence[Arrival]) -> dict[str, str]:
        """What clients are to know of what they sent, by location_href."""
        held_back = self._state.inventory.held_back({each.location_href for each in arrivals})
        notes: dict[str, str] = {}
        for arrival in arrivals:
            name = arrival.location_href
            if name in held_back:
                notes[name] = f"{name} is stored, and not listed: {held_back[name].reason}"
            elif arrival.package and arrival.package.entry.hint:
                notes[name] = f"{name}: {arrival.package.entry.hint}"
        return notes

    def settle_journal(self) -> None:
        """Finish or take back what was published together, where a death or the disk came between.

        Raises OSError, RepowatchError.
        """
        if (done := self._journal.settle(self._publisher.repomd_file.checksum)) is not None:
            what = "finished" if done else "taken back"
            log.warning("%s: what was to be published together was interrupted; it is %s", self._name, what)

    def _take_back(self, facts: Facts) -> None:
        """Say again what the files say; what is published may be anything by now."""
        self._state.written = None
        self._state.inventory.take_back(facts)

    def failed(self, error: Exception, changes: Sequence[Change]) -> PublicationFailed:
        self.refuse(error, changes)
        return PublicationFailed(error, again={name for change in changes for name in change.touches})

    def refuse(self, error: Exception, changes: Sequence[Change]) -> None:
        for change in changes:
            with contextlib.suppress(InvalidStateError):  # answered already, or taken back
                change.answer.set_exception(error)


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
