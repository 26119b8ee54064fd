"""The repositories that run: those that are named, and those that the patterns find, as they come and go.

One thread looks, opens and closes. The doors are told before one is closed and after one is opened.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable, Sequence
from queue import SimpleQueue
from typing import Generic, Protocol, TypeVar

from repowatch.config import Config, RepositoryConfig
from repowatch.config.patterns import Refused, at_url, base_of, baseurl, expand, pattern_of
from repowatch.errors import RepowatchError
from repowatch.system.clock import Clock
from repowatch.system.files import make_directories

log = logging.getLogger(__name__)

LOOK = 1.0  # seconds between two looks at what the patterns find
AGAIN = 10.0  # seconds until one that could not be opened is tried again
PATIENCE = 30.0  # seconds that the maker of a repository waits until it is served
POLL = 0.02  # seconds


class Runs(Protocol):
    """What runs of one repository."""

    @property
    def config(self) -> RepositoryConfig: ...

    @property
    def is_published(self) -> bool: ...

    def start(self) -> None: ...

    def stop(self) -> None: ...


R = TypeVar("R", bound=Runs)

_Identity = tuple[str, str, str]


class Fleet(Generic[R]):
    """All repositories of a daemon."""

    def __init__(
        self,
        config: Config,
        *,
        open: Callable[[RepositoryConfig], R],
        changed: Callable[[], None],
        clock: Clock,
    ) -> None:
        """`open` takes a repository's directory and does not start it yet; raises RepowatchError.

        `changed` is called by the thread whenever others run.
        """
        self.running: tuple[R, ...] = ()  # replaced whole
        self.refused: tuple[Refused, ...] = ()  # likewise: what is found, and not served
        self.rounds = 0  # a pulse
        self._config = config
        self._open = open
        self._changed = changed
        self._clock = clock
        self._devices: dict[_Identity, int] = {}  # of the directories of what runs
        self._failed: dict[_Identity, tuple[float, str]] = {}  # when to try again (monotonic), and why
        self._asked: SimpleQueue[_Identity] = SimpleQueue()  # to be tried again at once
        self._wake = threading.Event()
        self._stopping = False

    # -- for the thread that starts and stops the daemon -------------------------------------

    def start(self) -> None:
        """Run what there is. Raises RepowatchError where one that is named can not be opened."""
        found = expand(self._config)
        for config in found.repositories:
            if config.pattern is None:
                self._run(config)
        self._settle(found.repositories, found.refused)

    def close(self) -> None:
        """Stop them in reverse; the thread must have ended."""
        running, self.running = self.running, ()
        for each in reversed(running):
            each.stop()

    def end(self) -> None:
        """Have `watch` return."""
        self._stopping = True
        self._wake.set()

    def take(self, config: Config) -> None:
        """Run what another configuration says, soon. One that runs already keeps its settings."""
        self._config = config
        self._wake.set()

    # -- for clients -------------------------------------------------------------------------

    def at_url(self, path: str) -> RepositoryConfig | None:
        """What may be made at a URL that no repository has."""
        config = self._config
        member = at_url(config, path)
        # Whose rights hold is decided by the name, so that has to be the same pattern.
        return member if member and pattern_of(config.patterns, member.name) == member.pattern else None

    def make(self, member: RepositoryConfig) -> bool:
        """Make the directory of a repository, durably; whether it is served by now.

        Raises RepowatchError.
        """
        _make(member, expand(self._config, also=[member.path]).refused)
        wanted = _identity(member)
        before = self._failed.get(wanted)
        self._asked.put(wanted)
        patience_ends = self._clock.monotonic() + PATIENCE
        while self._clock.monotonic() < patience_ends and not self._stopping:
            self._wake.set()
            if any(_identity(each.config) == wanted and each.is_published for each in self.running):
                return True
            if (failed := self._failed.get(wanted)) is not None and failed is not before:
                raise RepowatchError(failed[1])
            time.sleep(POLL)
        return False

    def baseurl(self, config: RepositoryConfig) -> str | None:
        """The path that clients are told in the place of a repository's URL, if it is another."""
        return baseurl(config, [each.config for each in self.running])

    # -- the thread --------------------------------------------------------------------------

    def watch(self) -> None:
        """Look again and again until `end`."""
        while not self._stopping:
            self._wake.wait(LOOK)
            self._wake.clear()
            self.rounds += 1
            if not self._stopping:
                self.look()

    def look(self) -> None:
        """Close what is gone and open what came."""
        while not self._asked.empty():
            self._failed.pop(self._asked.get(), None)
        found = expand(self._config)
        wanted = {_identity(each) for each in found.repositories}
        stay = [each for each in self.running if _identity(each.config) in wanted or self._is_away(each)]
        if len(stay) < len(self.running):
            self._keep(stay)
        if self._settle(found.repositories, found.refused):
            self._changed()

    def _keep(self, stay: Sequence[R]) -> None:
        """Stop all others."""
        names = {each.config.name for each in stay}
        gone = [each for each in self.running if each.config.name not in names]
        self.running = tuple(stay)
        self._changed()
        for each in gone:
            each.stop()
            self._devices.pop(_identity(each.config), None)
            log.warning("%s: no longer served: %s is no repository now", each.config.name, each.config.path)

    def _settle(self, wanted: Sequence[RepositoryConfig], refused: Sequence[Refused]) -> int:
        """Open what is wanted and does not run; how many came."""
        running = {_identity(each.config) for each in self.running}
        now, count = self._clock.monotonic(), 0
        for config in wanted:
            again_at, _ = self._failed.get(_identity(config), (0.0, ""))
            if _identity(config) in running or now < again_at or self._stopping:
                continue
            try:
                self._run(config)
            except RepowatchError as error:
                self._failed[_identity(config)] = now + AGAIN, str(error)
            else:
                self._failed.pop(_identity(config), None)
                count += 1
        self._tell(wanted, refused)
        return count

    def _run(self, config: RepositoryConfig) -> None:
        opened = self._open(config)
        self.running = (*self.running, opened)
        opened.start()
        if config.pattern is not None:
            self._devices[_identity(config)] = _device_of(config.path)
            log.info("%s: %s is a repository now, at %s", config.name, config.path, config.url)

    def _tell(self, wanted: Sequence[RepositoryConfig], refused: Sequence[Refused]) -> None:
        """Log what is refused and was not before."""
        failed = [
            Refused(each.path, self._failed[_identity(each)][1], each.pattern.name if each.pattern else "")
            for each in wanted
            if _identity(each) in self._failed
        ]
        before, self.refused = set(self.refused), (*refused, *failed)
        for each in self.refused:
            if each not in before:
                log.warning("%s is not served: %s", each.path, each.reason)
        known = {_identity(each) for each in wanted}
        self._failed = {key: value for key, value in self._failed.items() if key in known}

    def _is_away(self, repository: R) -> bool:
        """Whether a directory that is not there may come back: its file system is not there, either.

        Then the repository tells of its trouble, as one does that is named.
        """
        config = repository.config
        pattern = config.pattern
        is_wanted = pattern and (pattern.name, pattern.path) in {
            (each.name, each.path) for each in self._config.patterns
        }
        if not is_wanted or os.path.isdir(config.path):
            return False
        return _device_of(config.path) != self._devices.get(_identity(config))


def _identity(config: RepositoryConfig) -> _Identity:
    return config.name, config.path, config.url


def _device_of(path: str) -> int:
    """Of the file system that a path lies on, or would lie on."""
    while path != "/":
        try:
            return os.stat(path).st_dev
        except OSError:
            path = os.path.dirname(path)
    return os.stat("/").st_dev


def _make(member: RepositoryConfig, refused: Sequence[Refused]) -> None:
    """Make the directory. Raises RepowatchError."""
    if why := next((each.reason for each in refused if each.path == member.path), None):
        raise RepowatchError(f"this can be no repository: {why}")
    base = base_of(member.pattern.path if member.pattern else member.path)
    above = os.path.dirname(member.path)
    if os.path.realpath(above) != os.path.normpath(f"{os.path.realpath(base)}/{above[len(base) :]}"):
        raise RepowatchError("this lies behind a symbolic link, where nothing is made")
    if not os.path.isdir(base):
        raise RepowatchError("the directory of all these repositories is not there; is it not mounted?")
    try:
        make_directories(member.path, below=base)
    except OSError as error:
        log.error("%s can not be made: %s", member.path, error.strerror or error)
        raise RepowatchError(f"the directory can not be made: {error.strerror or error}") from error
