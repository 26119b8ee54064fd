"""The daemon: joins the parts, starts them in order, stops them in reverse.

The wings do not know each other. What the doors may do with a repository is a handful of functions of its
updater, handed over here.
"""

from __future__ import annotations

import contextlib
import logging
import signal
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from queue import Empty, SimpleQueue
from typing import Any

from repowatch import __version__
from repowatch.config import Config, RepositoryConfig
from repowatch.doors import Doors
from repowatch.errors import RepowatchError
from repowatch.opening import Progress, open_index
from repowatch.repository.index import Index
from repowatch.repository.readers import Readers
from repowatch.repository.updater import POLLING, Updater
from repowatch.repository.watcher import Watcher
from repowatch.system.clock import SystemClock
from repowatch.system.memory import share_one_heap
from repowatch.system.threads import Thread, give_way
from repowatch.web.served import Served
from repowatch.web.sockets import Listening

log = logging.getLogger(__name__)

# Seconds after which a thread that computes lets another one go on; Python's own 5 ms are a long time for
# a client that waits for an answer while the metadata is made.
SWITCH = 0.0005

LOOK = 0.5  # seconds between two looks whether a signal came

FIRST = 5.0  # seconds that the doors wait for a first publication where nothing is published yet


@dataclass(frozen=True, slots=True)
class _Repository:
    """The parts of one repository."""

    config: RepositoryConfig
    index: Index
    updater: Updater
    watcher: Watcher
    thread: Thread

    @classmethod
    def assemble(
        cls, config: RepositoryConfig, index: Index, *, failed: Callable[[str], None]
    ) -> _Repository:
        updater = Updater(index, clock=SystemClock(), settle=config.settle, deadline=config.deadline)
        watcher = Watcher(index.tree, hint=updater.hint, blind=lambda: updater.rescan(every=POLLING))

        def returned() -> None:
            updater.rescan()
            watcher.restart()

        index.returned = returned
        thread = Thread(f"updater {config.name}", updater.run, failed=failed)
        return cls(config, index, updater, watcher, thread)

    def start(self) -> None:
        """The watcher before the first scan, so that nothing falls between."""
        self.watcher.start()
        self.thread.start()

    def stop(self) -> None:
        self.watcher.stop()
        self.updater.stop()
        self.thread.join()
        self.index.close()

    def served(self, *, reserve: int | None) -> Served:
        """What the doors get to know."""
        return Served(
            name=self.config.name,
            url=self.config.url,
            root=self.index.root,
            staging=self.index.home.open_staging,
            is_local=lambda: self.watcher.mode != "polling",
            reserve=reserve,
            replace=self.config.replace == "allow",
            is_package_name=self.index.tree.is_package_name,
            may_lead_to=self.index.tree.may_lead_to,
            publication=lambda: self.index.publication,
            expect=self.updater.expect,
            admit=self.updater.admit,
            remove=self.updater.remove,
            look=self.updater.look,
            health=self.updater.health,
            status=self.status,
        )

    def status(self) -> dict[str, Any]:
        """One repository in the JSON status. Times in seconds since 1970, durations in seconds."""
        publication = self.index.publication
        done, total = self.index.reading
        rejected = sorted(self.index.rejected.values(), key=lambda each: each.location_href)
        return {
            "name": self.config.name,
            "url": self.config.url,
            "path": self.config.path,
            "packages": len(publication.entries) if publication else 0,
            "revision": publication.revision if publication else 0,
            "published_at": publication.published_at if publication else None,
            "publication_seconds": publication.seconds if publication else None,
            "trouble": self.updater.health(),
            "watcher": self.watcher.mode,
            "waiting": self.updater.waiting,
            "reading": {"done": done, "total": total},
            "unchecked": self.index.unchecked,
            "rejected": [{"location": each.location_href, "reason": each.reason} for each in rejected],
        }


class Daemon:
    """Everything that `repowatch serve` runs."""

    def __init__(self, config: Config, *, progress: Progress, handed_over: Sequence[Listening] = ()) -> None:
        """`handed_over`: listening sockets of systemd, in the place of those that are configured."""
        self._config = config
        self._doors = Doors(config, handed_over=handed_over, version=__version__)
        self._progress = progress
        self._stopping = False
        self._failed: str | None = None
        # A SimpleQueue, because a signal handler may interrupt whoever holds another's lock.
        self._news: SimpleQueue[Callable[[], None]] = SimpleQueue()

    def run(self, *, ready: Callable[[str], None], reload: Callable[[], Config]) -> int:
        """Start, say so with the URL of each address, run until a signal; the exit code.

        Raises RepowatchError when it can not start.
        """
        sys.setswitchinterval(SWITCH)
        share_one_heap()
        signal.signal(signal.SIGTERM, lambda *_: self._stop())
        signal.signal(signal.SIGINT, lambda *_: self._stop())
        signal.signal(signal.SIGHUP, lambda *_: self._news.put(lambda: self._again(reload)))
        with contextlib.ExitStack() as stack:
            readers = Readers()
            stack.callback(readers.close)
            readers.start()
            pool = stack.enter_context(
                ThreadPoolExecutor(readers.processes, thread_name_prefix="metadata", initializer=give_way)
            )
            repositories = self._start_repositories(stack, readers, pool)
            self._await_first(repositories)
            if not self._stopping:
                reserve = self._config.limits.reserve
                served = [each.served(reserve=reserve) for each in repositories]
                for url in self._doors.open(served, failed=self._fail):
                    ready(url if url.startswith("unix:") else f"{url}/")
                stack.callback(self._doors.close)
            while not self._stopping:
                # A signal that comes just before the wait begins does not end it.
                with contextlib.suppress(Empty):
                    self._news.get(timeout=LOOK)()
            log.info("stopping")
        return 1 if self._failed else 0

    def _start_repositories(
        self, stack: contextlib.ExitStack, readers: Readers, pool: ThreadPoolExecutor
    ) -> list[_Repository]:
        repositories = []
        for config in self._config.repositories:
            index = open_index(
                config, readers=readers, pool=pool, progress=self._progress, may_come_late=True
            )
            repository = _Repository.assemble(config, index, failed=self._fail)
            repository.start()
            stack.callback(repository.stop)
            repositories.append(repository)
        return repositories

    def _await_first(self, repositories: Sequence[_Repository]) -> None:
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
        self._doors.reopen()
        try:
            wanted = reload()
            before, waiting = self._config, self._doors.take(wanted)
        except RepowatchError as error:
            log.error("the configuration is refused, the old one stays:\n%s", error)
            return
        self._config = wanted
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
