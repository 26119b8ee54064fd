"""The daemon: joins the parts, starts them in order, stops them in reverse.

The wings do not know each other. What the doors may do with a repository is a handful of functions of its
updater, handed over here.
"""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from queue import Empty, SimpleQueue

from repowatch import __version__
from repowatch.config import Config, RepositoryConfig
from repowatch.config.patterns import Refused, base_of, expand, is_pattern
from repowatch.doors import Doors
from repowatch.errors import RepowatchError
from repowatch.fleet import Fleet

# Not when the first such file comes: an upgrade below a running daemon would have put others in their place.
from repowatch.model import advisories, comps, modules, updateinfo  # noqa: F401
from repowatch.model.armor import armored
from repowatch.opening import Progress, open_index, sign_by
from repowatch.pruning import prune_rules
from repowatch.repository.readers import Readers
from repowatch.repository.updater import Updater
from repowatch.running import UPDATER_PATIENCE, Repository, Running
from repowatch.system.clock import SystemClock
from repowatch.system.gpg import Keyrings
from repowatch.system.memory import share_one_heap
from repowatch.system.systemd import Extension, Part, ServiceManager, Watchdog, explained
from repowatch.system.threads import Thread, give_way
from repowatch.web.http.sockets import Listening
from repowatch.web.openings import Opening, Unserved

log = logging.getLogger(__name__)

# Seconds after which a thread that computes lets another one go on; Python's own 5 ms are a long time for
# a client that waits for an answer while the metadata is made.
SWITCH = 0.0005

LOOK = 0.5  # seconds between two looks whether a signal came

FIRST = 5.0  # seconds that the doors wait for a first publication where nothing is published yet

# Seconds without going around after which the loop of the doors hangs. It never waits, and looks at what is
# overdue twice a second; a machine that swaps makes it slow, but hardly by this much.
LOOP_PATIENCE = 10.0

# Seconds for which systemd is asked to wait for a start, which reads a cache from a cold disk, and for what
# is in hand at a stop, beyond `limits.stop`: saving the cache, the publication of a large repository.
PATIENT = 600.0


class Daemon:
    """Everything that `repowatch serve` runs."""

    def __init__(
        self,
        config: Config,
        *,
        progress: Progress,
        handed_over: Sequence[Listening] = (),
        manager: ServiceManager,
    ) -> None:
        """`handed_over`: listening sockets of systemd, in the place of those that are configured.

        `manager` is told how the daemon is.
        """
        self._config = config
        self._manager = manager
        self._extension = Extension(manager)
        self._doors = Doors(config, handed_over=handed_over, version=__version__)
        self._progress = progress
        self._stopping = False
        self._failed: str | None = None
        self._sign: Callable[[Config], None] = lambda config: None
        self._fleet: Fleet[Running] | None = None
        self._watchdog: Watchdog | None = None
        self._lasting = [
            Part("the loop of the doors", lambda: self._doors.turns, LOOP_PATIENCE),
            Part("the fleet", lambda: self._fleet and self._fleet.rounds, UPDATER_PATIENCE),
        ]
        # A SimpleQueue, because a signal handler may interrupt whoever holds another's lock.
        self._news: SimpleQueue[Callable[[], None]] = SimpleQueue()

    def run(self, *, ready: Callable[[str], None], reload: Callable[[], Config]) -> int:
        """Start, say so with the URL of each address, run until a signal; the exit code.

        Raises RepowatchError when it can not start.
        """
        try:
            return self._run(ready=ready, reload=reload)
        except RepowatchError as error:
            self._manager.last_words(str(error))
            raise explained(error, _written(self._config)) from error.__cause__

    def _run(self, *, ready: Callable[[str], None], reload: Callable[[], Config]) -> int:
        sys.setswitchinterval(SWITCH)
        share_one_heap()
        signal.signal(signal.SIGTERM, lambda *_: self._stop())
        signal.signal(signal.SIGINT, lambda *_: self._stop())
        signal.signal(signal.SIGHUP, lambda *_: self._news.put(lambda: self._again(reload)))
        with contextlib.ExitStack() as stack:
            self._extension.begin(most=PATIENT)
            stack.callback(self._extension.end)
            readers = Readers()
            stack.callback(readers.close)
            readers.start()
            pool = stack.enter_context(
                ThreadPoolExecutor(readers.processes, thread_name_prefix="metadata", initializer=give_way)
            )
            keyrings = Keyrings()
            stack.callback(keyrings.close)
            fleet = Fleet(
                self._config,
                open=partial(self._open, readers, pool, keyrings),
                changed=self._changed,
                clock=SystemClock(),
            )
            self._fleet = fleet
            stack.callback(fleet.close)
            fleet.start()
            self._await_first([each.repository for each in fleet.running])
            self._sign = partial(_sign, fleet, keyrings)
            if not self._stopping:
                urls = self._doors.open(
                    [each.served for each in fleet.running],
                    figures=lambda: [each.repository.figures() for each in fleet.running],
                    opening=self._opening,
                    unserved=lambda: list(map(_unserved, fleet.refused)),
                    failed=self._fail,
                )
                for url in urls:
                    ready(url if url.startswith("unix:") else f"{url}/")
                stack.callback(self._doors.close)
                watching = Thread("fleet", fleet.watch, failed=self._fail)
                watching.start()
                stack.callback(watching.join)
                stack.callback(fleet.end)
                self._manager.ready()
            self._extension.end()
            watchdog = self._watchdog = Watchdog(self._manager, self._parts(), clock=SystemClock())
            while not self._stopping:
                self._manager.status(_summary(fleet))
                watchdog.look()
                # A signal that comes just before the wait begins does not end it.
                with contextlib.suppress(Empty):
                    self._news.get(timeout=LOOK)()
            log.info("stopping")
            self._manager.stopping()
            self._extension.begin(most=PATIENT + self._config.limits.stop)
        return 1 if self._failed else 0

    def _open(
        self, readers: Readers, pool: ThreadPoolExecutor, keyrings: Keyrings, config: RepositoryConfig
    ) -> Running:
        index = open_index(
            config,
            readers=readers,
            pool=pool,
            keyrings=keyrings,
            progress=self._progress,
            may_come_late=True,
        )
        if (trouble := index.signing.trouble()) is not None:
            log.error("%s: nothing new can be published: %s", config.name, trouble)
        repository = Repository.assemble(config, index, failed=self._fail)
        served = replace(
            repository.served(reserve=self._config.limits.reserve, others=self._updater_of),
            baseurl=lambda: self._fleet.baseurl(config) if self._fleet else None,
            came_late=self._watchdog is not None,
            package_keys=partial(_keys_in, config.packages),
        )
        return Running(repository, served, tuple(repository.parts()))

    def _updater_of(self, name: str) -> Updater | None:
        running = self._fleet.running if self._fleet else ()
        return next((each.repository.updater for each in running if each.config.name == name), None)

    def _opening(self, path: str) -> Opening | None:
        fleet = self._fleet
        member = fleet.at_url(path) if fleet else None
        return Opening(member.name, partial(fleet.make, member)) if fleet and member else None

    def _changed(self) -> None:
        """Others run now."""
        if self._fleet:
            self._doors.serve([each.served for each in self._fleet.running])
        self._news.put(lambda: self._watchdog.take(self._parts()) if self._watchdog else None)

    def _parts(self) -> list[Part]:
        """Those that the watchdog feels the pulse of."""
        running = self._fleet.running if self._fleet else ()
        return [*self._lasting, *(part for each in running for part in each.parts)]

    def _await_first(self, repositories: Sequence[Repository]) -> None:
        """A new, small repository is published when the doors open; a large one is served as it is."""
        clock = SystemClock()
        patience_ends = clock.monotonic() + FIRST
        while (
            any(each.index.publication is None and not each.updater.trouble for each in repositories)
            and clock.monotonic() < patience_ends
            and not self._stopping
        ):
            time.sleep(0.01)

    def _again(self, reload: Callable[[], Config]) -> None:
        """SIGHUP: logs are opened anew, and the configuration is read again; a bad one changes nothing."""
        self._manager.reloading()
        try:
            self._take(reload)
        finally:
            self._manager.ready()

    def _take(self, reload: Callable[[], Config]) -> None:
        self._doors.reopen()
        try:
            wanted = reload()
            before, waiting = self._config, self._doors.take(wanted)
        except RepowatchError as error:
            log.error("the configuration is refused, the old one stays:\n%s", error)
            return
        self._config = wanted
        if self._fleet:
            self._fleet.take(wanted)
        self._sign(wanted)
        if wanted == before:
            log.info("the configuration did not change")
        if waiting:
            log.warning("%s: changes take effect at the next start; restart the daemon", ", ".join(waiting))
        elif wanted != before:
            log.info("the configuration is in use as it is now")

    def _stop(self) -> None:
        self._stopping = True
        self._news.put(lambda: None)

    def _fail(self, part: str) -> None:
        self._failed = part
        self._stop()


def _sign(fleet: Fleet[Running], keyrings: Keyrings, config: Config) -> None:
    """Have all repositories signed and pruned as a configuration says, where that is not so yet."""
    wanted = {each.name: each for each in expand(config).repositories}
    for repository in (each.repository for each in fleet.running):
        if (own := wanted.get(repository.config.name)) is not None:
            repository.updater.sign(sign_by(own, keyrings))
            repository.updater.prune_by(prune_rules(own), grace=own.grace)


def _keys_in(packages: str | Sequence[str]) -> bytes:
    """The keys that clients may check every package with, armored; empty where not every one is checked."""
    keys = b""
    for path in () if isinstance(packages, str) else packages:
        try:
            with open(path, "rb") as file:
                keys += armored(file.read())
        except OSError as error:
            log.error("%s: clients are not told this key: %s", path, error.strerror or error)
    return keys


def _unserved(refused: Refused) -> Unserved:
    return Unserved(refused.path, refused.reason, refused.pattern)


def _written(config: Config) -> list[str]:
    """The directories that the daemon has to write."""
    logs = [each for each in (config.access_log, config.audit) if each and os.path.isabs(each)]
    configured = (*config.repositories, *config.patterns)
    keyrings = {each.sign.keyring: None for each in configured if each.sign}
    return (
        [os.path.realpath(base_of(each.path) if is_pattern(each) else each.path) for each in configured]
        + [os.path.dirname(os.path.realpath(each)) for each in logs]
        + list(map(os.path.realpath, keyrings))
    )


def _summary(fleet: Fleet[Running]) -> str:
    """How things are, in a line for people. It has no ages, which would have to be told anew all the time."""
    repositories = [each.repository for each in fleet.running]
    listed = [(each, each.index.publication) for each in repositories]
    packages = sum(len(publication.entries) for _, publication in listed if publication)
    rejected = sum(len(each.index.rejected) for each in repositories)
    told = [f"{_counted(len(repositories), 'repository', 'repositories')}"]
    told += [_counted(packages, "package", "packages"), f"{rejected:,} rejected"]
    if fleet.refused:
        told.append(_counted(len(fleet.refused), "directory not served", "directories not served"))
    troubles = [
        f"{each.config.name}: {trouble}" for each in repositories if (trouble := each.updater.health())
    ]
    parts = [f"TROUBLE: {' | '.join(troubles)}"] if troubles else []
    parts.append(", ".join(told))
    for each in repositories:
        done, total = each.index.reading
        if total > done:
            parts.append(f"reading {each.config.name}: {done:,} of {total:,} files")
    if last := max(
        ((shown.published_at, each.config.name, shown.revision) for each, shown in listed if shown),
        default=None,
    ):
        at = datetime.fromtimestamp(last[0], UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
        parts.append(f"last published {last[1]} {last[2]} at {at}")
    return "; ".join(parts)


def _counted(number: int, one: str, many: str) -> str:
    return f"{number:,} {one if number == 1 else many}"
