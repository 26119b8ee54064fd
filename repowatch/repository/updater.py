"""When a repository is brought up to date: one thread, and the one list of what wakes it.

Others only put something into its inbox: the watcher names that changed, the doors arrivals and
departures. They never wait for the work, except on an answer that they asked for.
"""

from __future__ import annotations

import contextlib
import logging
import math
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, InvalidStateError
from dataclasses import dataclass, field
from typing import Any, TypeVar

from repowatch.errors import Conflict, RepowatchError
from repowatch.model.digests import Inspection
from repowatch.model.package import Entry, Stamp
from repowatch.model.pending import Expected, Pending
from repowatch.model.pruning import Plan, Rule
from repowatch.model.publication import Listed
from repowatch.repository.changes import (
    Again,
    Arrival,
    Change,
    Departure,
    PublicationFailed,
    Stopped,
    Together,
)
from repowatch.repository.index import Index
from repowatch.repository.pruner import Pruner
from repowatch.repository.readers import Batch
from repowatch.repository.signing import SignBy
from repowatch.repository.tree import REPODATA
from repowatch.system.clock import Clock

log = logging.getLogger(__name__)

T = TypeVar("T")

CHECK = 10.0  # seconds between two looks at the root and the published files themselves
RESCAN = 600.0  # seconds between two looks at the whole tree, in case an event was lost
POLLING = 2.0  # seconds between them where the tree can not be watched
RETRY = (1.0, 30.0)  # seconds until a failed publication is tried again: first, and at most
SAVE = 10.0  # seconds after a publication until the cache knows it
GATHER = 0.5  # seconds that uploads which arrived wait for others that began just now, at most
COMPANY = 0.02  # seconds without a new one until several that arrived are all that come at once
LATE = 30.0  # seconds beyond the deadline after which health says so


@dataclass(frozen=True, slots=True, eq=False)
class _Job:
    act: Callable[[], Any]
    answer: Future[Any] = field(default_factory=Future)

    def do(self) -> None:
        if self.answer.done() or not self.answer.set_running_or_notify_cancel():
            return
        try:
            self.answer.set_result(self.act())
        except BaseException as error:
            self.answer.set_exception(error)
            if not isinstance(error, OSError | RepowatchError):
                raise


@dataclass(slots=True)
class _Inbox:
    names: set[str] = field(default_factory=set)  # to settle
    now: set[str] = field(default_factory=set)  # to look at without settling
    changes: list[Change] = field(default_factory=list)  # arrivals and departures as they came
    looks: list[Future[Listed]] = field(default_factory=list)  # answered after the next turn
    checked: list[Batch] = field(default_factory=list)  # files that another tool had described
    jobs: list[_Job] = field(default_factory=list)  # to be done after the next turn
    first_change_at: float = math.inf  # monotonic

    def change(self, change: Change, now: float) -> None:
        self.changes.append(change)
        self.first_change_at = min(self.first_change_at, now)

    def is_urgent(self) -> bool:
        return bool(self.now or self.changes or self.looks or self.checked or self.jobs)

    def refuse(self, error: Exception) -> None:
        """Answer everything that was not answered yet."""
        for answer in (*(change.answer for change in self.changes), *self.looks):
            with contextlib.suppress(InvalidStateError):  # answered already, or taken back
                answer.set_exception(error)


class Updater:
    """Keeps one repository's metadata up to date."""

    def __init__(
        self, index: Index, *, clock: Clock, settle: float, deadline: float, prune: Sequence[Rule] = ()
    ) -> None:
        self.index = index
        self.trouble: str | None = None  # why the last publication failed
        self.rounds = 0  # a pulse: how often the thread looked whether there is something to do
        self._rescan_every = RESCAN
        self._clock = clock
        self._deadline = deadline
        self._pending = Pending(settle=settle, deadline=deadline)
        self._changed = threading.Condition()
        self._inbox = _Inbox()
        self._stopping = False
        self._has_ended = False  # nobody takes what is in the inbox
        self._retry_at: float | None = None
        self._retry_after = RETRY[0]
        self._rescan_at = clock.monotonic()
        self._check_at = clock.monotonic() + CHECK
        self._save_at = math.inf
        self._due_since: float | None = None
        self._checking: Future[Batch] | None = None
        self._expected = Expected(patience=GATHER, quiet=COMPANY)
        self.pruner = Pruner(index, prune, clock=clock)
        index.hooks.stopping = lambda: self._stopping

    # -- for other threads -------------------------------------------------------------------

    def hint(self, name: str) -> None:
        """Something may have happened to a path relative to the root; "" means anywhere."""
        tree = self.index.tree
        if name and not tree.is_package_name(name) and not tree.is_companion(name):
            self.index.arrivals.hear(name, self._clock.now())
        with self._posting() as inbox:
            inbox.names.add(name)

    def rescan(self, *, every: float = RESCAN) -> None:
        """Look at the whole tree now, and again after as many seconds each time."""
        with self._posting():
            self._rescan_every = every
            self._rescan_at = self._clock.monotonic()

    def look(self, name: str) -> Future[Listed]:
        """Look at a name without letting it settle; the answer comes when what was found is published."""
        answer: Future[Listed] = Future()
        with self._posting() as inbox:
            inbox.now.add(name)
            inbox.looks.append(answer)
        return answer

    def admit(
        self,
        location_href: str,
        *,
        staged: str,
        inspection: Inspection | None,
        stamp: Stamp,
        check: Callable[[], None],
        departs: str | None = None,
    ) -> Future[Listed]:
        """Publish a staged file under a name; `inspection` None means an empty file, which is not listed.

        `check` is called right before the file gets its name and may raise; the answer then carries that.
        Raises BadPackage when the package can not be described.
        """
        package, came_at = None, self._clock.now()
        if inspection is not None and self.index.keys.are_old():
            with contextlib.suppress(TimeoutError):
                self.look(REPODATA).result(LATE)  # a turn takes the new keys before it does anything else
        policy = self.index.policy
        if inspection is not None:
            package = self.index.describe(inspection, location_href=location_href, stamp=stamp, path=staged)

        def check_all() -> None:
            check()
            if package and self.index.policy != policy:
                raise RepowatchError("the keys that sign packages changed while it came; send it again")

        arrival = Arrival(location_href, staged, package, check_all, departs, came_at=came_at)

        def answered(answer: Future[Listed]) -> None:
            if answer.cancelled():  # it gets its name now, by the client's thread, and is listed later
                self.index.arrivals.tell(location_href, came_at)

        arrival.answer.add_done_callback(answered)
        with self._posting() as inbox:
            inbox.change(arrival, self._clock.monotonic())
        return arrival.answer

    def sign(self, by: SignBy | None) -> None:
        """Have what is published signed by these keys, at once where it is not yet."""
        self.index.signing.want(by)
        self.look(REPODATA)

    def do(self, act: Callable[[], T]) -> Future[T]:
        """Have something done by the updater's thread, when no publication is in hand.

        It sees what is published, and may raise OSError and RepowatchError, which the answer carries.
        """
        job = _Job(act)
        with self._posting() as inbox:
            inbox.jobs.append(job)
        return job.answer

    def take_links(self, entries: Iterable[Entry]) -> Future[None]:
        """Listed files got or lost a name elsewhere: their ctime changed, and nothing else."""
        stamps = {}
        for entry in entries:
            found = self.index.tree.look(entry.location_href)
            if found and found.stamp and found.stamp != entry.stamp and found.stamp.is_moved(entry.stamp):
                stamps[entry.location_href] = (entry.stamp, found.stamp)
        return self.do(lambda: self.index.take_stamps(stamps))

    def first(self, together: Together) -> None:
        """Publish these changes before all that wait already; to be called by what `do` does."""
        with self._posting() as inbox:
            inbox.changes.insert(0, together)
            inbox.first_change_at = min(inbox.first_change_at, self._clock.monotonic())

    def expect(self) -> Callable[[], None]:
        """An upload began. What is returned has to be called when it was received, or given up."""
        with self._changed:
            token = self._expected.begin(self._clock.monotonic())

        def end() -> None:
            with self._changed:
                self._expected.end(token)
                self._changed.notify_all()

        return end

    def remove(self, location_href: str, *, check: Callable[[], None]) -> Future[Listed]:
        """Unlist a package, then remove its file."""
        departure = Departure(location_href, check)
        with self._posting() as inbox:
            inbox.change(departure, self._clock.monotonic())
        return departure.answer

    def prune(self) -> tuple[Plan, Sequence[Future[Listed]]]:
        """Prune now; what goes, and an answer for each. Waits for the thread.

        Raises Conflict where there is no rule, and RepowatchError.
        """
        if not self.pruner.rules:
            raise Conflict("no `prune` is configured for this repository")

        def act() -> tuple[Plan, Sequence[Departure]]:
            found = self.pruner.plan(by_hand=True)
            departures = self.pruner.departures(found.out)
            self._post(departures)
            return found, departures

        found, departures = self.do(act).result()
        return found, [each.answer for each in departures]

    def would_prune(self, rules: Sequence[Rule] | None) -> Plan:
        """What would go now by these rules, or by those in use. Otherwise as `prune`."""
        if not (self.pruner.rules if rules is None else rules):
            raise Conflict("no `prune` is configured for this repository")
        return self.do(lambda: self.pruner.plan(rules, by_hand=True)).result()

    def prune_by(self, rules: Sequence[Rule], *, grace: float) -> None:
        """Go by other rules from now on."""

        def act() -> None:
            if tuple(rules) != self.pruner.rules:
                self.pruner.take(rules)
            self.index.keeping.retired.grace = grace

        self.do(act)

    def _post(self, changes: Sequence[Change]) -> None:
        if changes:
            with self._posting() as inbox:
                for change in changes:
                    inbox.change(change, self._clock.monotonic())

    def together(self, together: Together) -> Future[Listed]:
        """Publish several changes at once, all of them or none."""
        with self._posting() as inbox:
            inbox.change(together, self._clock.monotonic())
        return together.answer

    def stop(self) -> None:
        """End `run` after the publication in hand; what only settles is left to the next start."""
        with self._changed:
            self._stopping = True
            self._changed.notify_all()

    def health(self) -> str | None:
        """Why clients may not see what is in the tree; None when they do."""
        if self.trouble is not None:
            return self.trouble
        if (reason := self.index.signing.trouble()) is not None:
            return reason
        since = self._due_since
        if since is not None and self._clock.monotonic() - since > self._deadline + LATE:
            return f"the metadata is {self._clock.monotonic() - since:.0f} s behind the tree"
        return None

    @property
    def waiting(self) -> int:
        """Names that were heard of and not yet looked at."""
        return len(self._pending)

    @property
    def uploads(self) -> int:
        """Packages that clients send just now, or have sent and wait for."""
        return len(self._expected) + len(self._inbox.changes)

    # -- the thread --------------------------------------------------------------------------

    def run(self) -> None:
        """Keep the metadata up to date until `stop`."""
        while (work := self._wait()) is not None:
            names, inbox = work
            self._due_since = self._due_since or self._clock.monotonic()
            if names or inbox.is_urgent():
                self._turn(names, inbox)
            for job in inbox.jobs:
                job.do()
            self.index.sweep()
            self.index.batches.expire()
            if self._clock.monotonic() >= self._save_at:
                self.index.save()
                self.pruner.save()
                self._save_at = math.inf
            if not self._inbox.is_urgent():
                self._due_since = None
                self._prepare()
        with self._changed:
            self._has_ended = True
            self._refuse_all()
        self.index.save()
        self.pruner.save()

    def _refuse_all(self) -> None:
        """Answer what came too late: the repository is closed."""
        error = RepowatchError("this is no repository any more, or the daemon stops; send it again")
        self._inbox.refuse(error)
        for job in self._inbox.jobs:
            with contextlib.suppress(InvalidStateError):
                job.answer.set_exception(error)
        self._inbox = _Inbox()

    def _prepare(self) -> None:
        """What a turn left for when nobody waits."""
        try:
            self.index.warm()
        except PublicationFailed as error:
            self._failed(error)
        if self._checking is None and (checking := self.index.check_some()) is not None:
            self._checking = checking
            checking.add_done_callback(self._checked)
        if not self._stopping:
            self._post(self.pruner.look())

    def _checked(self, checking: Future[Batch]) -> None:
        with self._posting() as inbox:
            self._checking = None
            if not checking.cancelled() and checking.exception() is None:
                inbox.checked.append(checking.result())

    def _wait(self) -> tuple[set[str], _Inbox] | None:
        """Sleep until there is something to do; None when asked to stop and nothing is owed."""
        with self._changed:
            while True:
                self.rounds += 1
                now = self._clock.monotonic()
                for name in self._inbox.names:
                    self._pending.hear(name, now)
                self._inbox.names.clear()
                if self._stopping and not self._inbox.is_urgent():
                    return None
                wake_at = self._wake_at()
                if wake_at <= now:
                    return self._taken(now)
                self._changed.wait(min(wake_at - now, CHECK))

    def _wake_at(self) -> float:
        """Every reason to wake up; the earliest. What may publish waits until a publication may be."""
        publication_at, sweep_at = self.index.generations
        publishing = [self._rescan_at, self._check_at]
        if self._inbox.now or self._inbox.looks or self._inbox.checked or self._inbox.jobs or self._stopping:
            publishing.append(-math.inf)
        elif self._inbox.changes:
            publishing.append(
                self._expected.wait_until(
                    first=self._inbox.first_change_at,
                    arrived=len(self._inbox.changes),
                    now=self._clock.monotonic(),
                )
            )
        if (due_at := self._pending.due_at()) is not None:
            publishing.append(max(due_at, self._retry_at or due_at))
        if self._retry_at is not None:
            publishing.append(self._retry_at)
        return min(
            max(min(publishing), publication_at), self._save_at, math.inf if sweep_at is None else sweep_at
        )

    def _taken(self, now: float) -> tuple[set[str], _Inbox]:
        names: set[str] = set()
        publication_at, _ = self.index.generations
        if publication_at > now:
            return names, _Inbox()
        if now >= self._rescan_at or (self._retry_at is not None and now >= self._retry_at):
            self._rescan_at = now + self._rescan_every
            self._retry_at = None
            names.add("")
        if now >= self._check_at:
            self._check_at = now + CHECK
            names.add(REPODATA)
        names |= self._pending.take(now)
        taken, self._inbox = self._inbox, _Inbox()
        taken.changes, self._inbox.changes = _without_conflict(taken.changes)
        if self._inbox.changes:
            self._inbox.first_change_at = taken.first_change_at
        return names | taken.now, taken

    def _turn(self, names: Iterable[str], inbox: _Inbox) -> None:
        try:
            again = self.index.turn(names, at_once=inbox.now, changes=inbox.changes, checked=inbox.checked)
        except Stopped:
            inbox.refuse(RepowatchError("the daemon stops; nothing was kept, send it again"))
        except PublicationFailed as error:
            self._failed(error)
            inbox.refuse(error.error)
        else:
            self._succeeded(again, inbox)

    def _succeeded(self, again: Again, inbox: _Inbox) -> None:
        self.trouble = None
        self._retry_after = RETRY[0]
        self._save_at = min(self._save_at, self._clock.monotonic() + SAVE)
        publication = self.index.publication
        with self._posting() as later:
            later.names |= again.unsettled
            later.now |= again.left_over
            if again.left_over:
                later.looks += inbox.looks
                return
        for look in inbox.looks:
            look.set_result(Listed(publication.revision if publication else 0, replaced=True))

    def _failed(self, error: PublicationFailed) -> None:
        self.trouble = str(error)
        self.index.tally.failures += 1
        log.error("%s: %s; the published metadata stays as it was", self.index.name, error)
        self._retry_at = self._clock.monotonic() + self._retry_after
        self._retry_after = min(2 * self._retry_after, RETRY[1])
        with self._posting() as later:
            later.names |= error.again

    @contextlib.contextmanager
    def _posting(self) -> Iterator[_Inbox]:
        with self._changed:
            yield self._inbox
            if self._has_ended:
                self._refuse_all()
            self._changed.notify_all()


def _without_conflict(changes: Sequence[Change]) -> tuple[list[Change], list[Change]]:
    """(now, later): in a publication each name changes once, and no change overtakes one before it.

    What comes together has a publication for itself.
    """
    now: list[Change] = []
    later: list[Change] = []
    touched: set[str] = set()
    if changes and isinstance(changes[0], Together):
        return [changes[0]], list(changes[1:])
    for number, change in enumerate(changes):
        if isinstance(change, Together):
            return now, [*later, *changes[number:]]
        (later if touched & change.touches else now).append(change)
        touched |= change.touches
    return now, later
