"""One turn of a repository: look at names, read what changed, publish, answer.

`Index` joins the parts of a repository and owns its state. It is used by one thread: the updater's in the
daemon, the command's in `repowatch index`.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Executor, Future
from dataclasses import replace
from types import MappingProxyType

from repowatch.errors import RepowatchError
from repowatch.model.digests import Inspection
from repowatch.model.figures import Tally
from repowatch.model.package import Entry, Package, Rejected, Stamp
from repowatch.model.publication import Publication
from repowatch.model.recipe import DEFAULT, Recipe
from repowatch.model.segment import Damaged
from repowatch.model.signatures import Policy
from repowatch.model.twins import Duplicate
from repowatch.repository.arrivals import Arrivals
from repowatch.repository.batches import Batches
from repowatch.repository.changes import Again, Change, PublicationFailed
from repowatch.repository.companions import Companions
from repowatch.repository.files import MOST_READ, Files
from repowatch.repository.history import History
from repowatch.repository.home import Home, News
from repowatch.repository.inventory import Inventory
from repowatch.repository.journal import Journal
from repowatch.repository.keeping import Keeping
from repowatch.repository.notices import Notices
from repowatch.repository.publisher import Publisher
from repowatch.repository.publishing import Publishing
from repowatch.repository.readers import MOST_BYTES, Batch, Readers, ToRead, in_batches
from repowatch.repository.retired import GRACE
from repowatch.repository.segments import warm
from repowatch.repository.signed import Keys
from repowatch.repository.signing import SignBy
from repowatch.repository.snapshots import Changing, Snapshots, Summary
from repowatch.repository.state import Hooks, State
from repowatch.repository.store import Store
from repowatch.repository.telling import Telling
from repowatch.repository.tree import REPODATA, Tree
from repowatch.system.clock import Clock

log = logging.getLogger(__name__)

# Files that are checked at once, of those that another tool described.
MOST_CHECKED = 32


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
        self.keys = keys or Keys("any")
        self.hooks = Hooks()
        self._readers = readers
        self._pool = pool
        self._clock = clock
        self._settle = settle
        self._is_warm = True  # whether all segments are open
        self._to_adopt = False  # whether the first turn takes over what another tool published
        self._state = State(recipe, Inventory(name, recipe.form))

        self.tree = Tree(root, exclude=exclude, follow=follow, metadata=metadata)
        self.home = Home(root)
        self.history = History(clock=clock)
        self.tally = Tally()
        self.arrivals = Arrivals()
        self.notices = Notices(name, may_replace=may_replace)
        self.companions = Companions(self.tree, directory=self.home.companions, name=name, recipe=recipe)
        self.keeping = Keeping(self.tree, clock=clock, grace=grace)
        self.snapshots = Snapshots(root, keeper=self.keeping.retired, clock=clock)
        self.snapshots.publication = lambda: self.publication
        self.keeping.held = lambda: self.snapshots.held
        self.batches = Batches(self.home, clock=clock, lasts=batch)
        self._store = Store(self.home, name=name, root=root, recipe=recipe, newest_build=newest_build)
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
        self._files = Files(
            self._state,
            name=name,
            tree=self.tree,
            readers=readers,
            store=self._store,
            clock=clock,
            settle=settle,
            hooks=self.hooks,
        )
        self._publishing = Publishing(
            self._state,
            name=name,
            tree=self.tree,
            home=self.home,
            files=self._files,
            publisher=self._publisher,
            journal=self._journal,
            keeping=self.keeping,
            companions=self.companions,
            notices=self.notices,
            history=self.history,
            pool=pool,
            clock=clock,
            hooks=self.hooks,
            newest_build=newest_build,
        )
        self._telling = Telling(
            self._state,
            name=name,
            tally=self.tally,
            arrivals=self.arrivals,
            notices=self.notices,
            clock=clock,
        )

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
            self._publishing.settle_journal()
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
        self._state.inventory = start.inventory
        self._is_warm = False
        if start.location_hrefs and self._publisher.is_current(start.location_hrefs):
            self._state.written = start.segments
        # What another tool described may be listed before it is read, but not before its signatures are.
        may_adopt = start.may_adopt and not self.policy.signed
        self._publishing.says_anew = not start.may_adopt
        is_unknown = may_adopt and not start.inventory.catalog.entries
        self._to_adopt = is_unknown and self._publisher.is_whole()

    def save(self) -> None:
        """Write for the next start what it needs to know."""
        self._store.save(self.publication, self._state.inventory, self.history)
        if self.home.is_here():
            self.keeping.save(at_once=True)

    def close(self) -> None:
        self._store.close()
        self.home.release()

    @property
    def publication(self) -> Publication | None:
        """What clients see; for any thread."""
        return self._state.publication

    @property
    def reading(self) -> tuple[int, int]:
        """Files read of files to read, in this turn; for any thread."""
        return self._files.reading

    @property
    def rejected(self) -> Mapping[str, Rejected]:
        """Files that are not listed, and why."""
        more = {**self._state.inventory.held_back(), **self.companions.rejected}
        return {**self._state.inventory.rejected, **more} if more else self._state.inventory.rejected

    @property
    def duplicates(self) -> Sequence[Duplicate]:
        """Packages that several files hold."""
        return tuple(self._state.inventory.duplicates.values())

    @property
    def held(self) -> Mapping[str, Entry]:
        """Files that are not listed because another one is a newer build."""
        return self._state.inventory.held

    @property
    def policy(self) -> Policy:
        """By which signatures packages are let in now."""
        return self._state.recipe.policy

    @property
    def generations(self) -> tuple[float, float | None]:
        """When the next publication may be, and when there is next something to sweep (monotonic)."""
        generations = self._publisher.generations
        return generations.next_publication_at(), generations.next_sweep_at()

    def listed(self, location_href: str) -> Entry | None:
        """What is known of a file that is listed, or about to be."""
        return self._state.inventory.catalog.entries.get(location_href)

    def sweep(self) -> None:
        """Remove superseded metadata files, and packages kept beside the tree, whose time has come."""
        if not self.home.is_here():
            return
        try:
            for name in self._publisher.sweep():
                log.debug("%s: removed the superseded %s", self.name, name)
        except OSError as error:
            log.error("%s: superseded metadata can not be removed, it is kept: %s", self.name, error)
        if self.publication:
            self._publishing.set_stamps(self.keeping.sweep(self.publication.entries))
            self.keeping.save()

    def snapshot(self, name: str, *, by: str | None) -> Summary:
        """Keep what is published under a name. Raises RepowatchError (Changing: in a moment), OSError."""
        publication, stamps = self.publication, dict[str, Stamp]()
        if publication is None or publication.entries is not self._state.inventory.catalog.entries:
            raise Changing("what is in the tree is not published yet; take the snapshot when it is")
        self.home.open_staging()  # which raises where the directory is away
        try:
            return self.snapshots.take(name, by=by, tree=self.tree, publication=publication, stamps=stamps)
        finally:
            self._publishing.set_stamps(stamps)
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
            warm(self._state.inventory.catalog.segments, pool=self._pool)
        except Damaged as error:
            raise self._damaged(error) from error
        self._is_warm = True

    def _damaged(self, error: Damaged) -> PublicationFailed:
        """The cache said what is not so: forget it, and read everything again."""
        self._forget()
        self._store.forget()
        return PublicationFailed(RepowatchError(f"the cache is damaged ({error})"), again={""})

    def _forget(self) -> None:
        self._state.inventory = Inventory(self.name, self._state.recipe.form)
        self._state.written = None
        self._state.is_known = False
        self._publishing.forget()

    def describe(self, inspection: Inspection, *, location_href: str, stamp: Stamp, path: str) -> Package:
        """What is published of a staged package, the file at `path`. May be called from any thread.

        Raises BadPackage, and ChangedWhileRead when it is another file by now.
        """
        return self._readers.describe(
            inspection, location_href=location_href, stamp=stamp, recipe=self._state.recipe, path=path
        )

    def read(self, files: Sequence[ToRead]) -> Iterator[Batch]:
        """What is published of files that lie aside, in any order. May be called from any thread."""
        return self._readers.read(in_batches(files), self._state.recipe)

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
            self._publishing.settle_journal()
        except (OSError, RepowatchError) as error:
            raise self._publishing.failed(error, changes) from error
        self._check_disk(names)
        if before is not None and not self._state.is_known:
            at_once.add("")  # what was forgotten is listed, and stays so
        if self._to_adopt:
            self._adopt()
        try:
            unsettled = self._verify_again(names) if self.keys.look() else set()
            unsettled |= self._look_beside(names, at_once)
            looked_at = [*self._files.look(names, settled=True), *self._files.look(at_once, settled=False)]
            if "" in names:
                self._files.check_empty(looked_at)
            again = self._files.update(looked_at)
            again.unsettled |= unsettled
            for batch in checked:
                again.unsettled |= self._state.inventory.take_checked(batch)
            again.unsettled |= self._publishing.publish(changes, started)
        except Damaged as error:
            failed = self._damaged(error)
            self._publishing.refuse(failed.error, changes)
            raise failed from error
        if "" in names | at_once:
            self._state.is_known = True
        self._telling.turned(
            before,
            changes,
            names=names | at_once,
            looked_at=looked_at,
            again=again,
            began=began,
            published=self._publisher.repomd.revision != revision,
        )
        if before is None or len(looked_at) > MOST_READ:
            self.hooks.rests()
        return again

    def _look_beside(self, names: set[str], at_once: set[str]) -> set[str]:
        """Look at what is no package and has a record; names to look at again. Raises PublicationFailed."""
        try:
            unsettled = self.companions.look(names, settle=self._settle, now=self._clock.now())
            return unsettled | self.companions.look(at_once, settle=None, now=self._clock.now())
        except OSError as error:
            raise PublicationFailed(error, again={""}) from error

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
                self._state.written = None
        except (OSError, RepowatchError) as error:
            raise PublicationFailed(error, again={""}) from error
        if news is not News.NONE:
            names.add("")
            self.arrivals.came_back(self._clock.now())
            self.hooks.returned()

    def _move_in(self) -> None:
        """Begin anew with the directory that stands at the root now. Raises UsageError and OSError."""
        self.close()
        self._forget()
        self.open()
        log.info("%s: opened %s", self.name, self.root)

    def _verify_again(self, names: set[str]) -> set[str]:
        """Read all that is listed again, for the keys are others; what is refused is listed no more.

        Adds to the names what has to be looked at for that; returns those that changed meanwhile.
        Raises Damaged, Stopped.
        """
        log.info("%s: the keys that sign packages changed; all packages are verified again", self.name)
        self._state.recipe = replace(self._state.recipe, policy=self.keys.policy)
        self._state.inventory.doubt()
        unsettled: set[str] = set()
        for batch in self._files.each_read(self._files.to_check(most=self.unchecked, most_bytes=math.inf)):
            unsettled |= self._state.inventory.take_checked(batch)
        self._state.inventory.change([], self._state.inventory.unchecked)
        self._store.take(self._state.recipe)
        names.add("")
        return unsettled

    def _adopt(self) -> None:
        """List what another tool described. Raises Stopped."""
        self._files.adopt(self._publisher.repomd.records)
        self._to_adopt = False

    @property
    def unchecked(self) -> int:
        """Packages that are listed as another tool described them, and whose files were not read yet."""
        return len(self._state.inventory.unchecked)

    def check_some(self) -> Future[Batch] | None:
        """Have some of them read, for the `checked` of a later turn; None when there are none."""
        files = self._files.to_check(most=MOST_CHECKED, most_bytes=MOST_BYTES)
        return self._readers.read_one(files, self._state.recipe) if files else None

    def check_all(self) -> Again:
        """Read them all, and publish what is not as it is listed. Raises as `turn` does."""
        files = self._files.to_check(most=self.unchecked, most_bytes=math.inf)
        return self.turn([], checked=self._files.each_read(files))

    def take_stamps(self, stamps: Mapping[str, tuple[Stamp, Stamp]]) -> None:
        """Listed files got a name more elsewhere: their stamps, as (before, after)."""
        known = self._state.inventory.stamp_of
        self._publishing.set_stamps({name: new for name, (old, new) in stamps.items() if known(name) == old})
