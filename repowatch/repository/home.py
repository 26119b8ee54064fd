"""The directory that a repository lives in: its lock, its private places, and whether it is still there."""

from __future__ import annotations

import logging
import os
import shutil
from enum import Enum, auto

from repowatch.errors import RepowatchError
from repowatch.repository.tree import PRIVATE
from repowatch.system.files import Lock, make_directories
from repowatch.system.mounts import mounted_below

log = logging.getLogger(__name__)


class Away(RepowatchError):
    """The directory is not there, or is not the one that was taken."""


class News(Enum):
    """What became of the directory since the last look."""

    NONE = auto()
    BACK = auto()  # it was away, or something was mounted below it: look at everything, watch it anew
    OTHER = auto()  # another directory stands there, or none was taken yet: take it


class Home:
    """A root directory and `.repowatch/` in it."""

    def __init__(self, root: str) -> None:
        self.root = root
        self.staging = os.path.join(root, PRIVATE, "staging")
        self.cache = os.path.join(root, PRIVATE, "cache", "catalog")
        self.progress = os.path.join(root, PRIVATE, "cache", "progress")
        self.history = os.path.join(root, PRIVATE, "cache", "history")
        self.companions = os.path.join(root, PRIVATE, "companions")
        self.is_away = False
        self._lock: Lock | None = None
        self._identity: tuple[int, int] | None = None  # device and inode of the root
        self._seen: tuple[int, int] | None = None  # those of another that stands there now
        self._mounts: tuple[tuple[str, str], ...] = ()  # below the root

    def take(self) -> None:
        """Take the lock and clear staging.

        Raises UsageError when another process writes this repository, OSError.
        """
        self._take_lock()
        try:
            shutil.rmtree(self.staging, ignore_errors=True)
            self.make_staging()
            make_directories(os.path.dirname(self.cache), below=self.root)
            self._identity = _identity(self.root)
            self._mounts = mounted_below(self.root)
        except BaseException:
            self.release()
            raise
        self.is_away = False

    def release(self) -> None:
        if self._lock:
            self._lock.release()
            self._lock = None

    def make_staging(self) -> None:
        """Make the directory for what is to be published, if somebody removed it."""
        make_directories(self.staging, below=self.root)

    def open_staging(self) -> str:
        """The directory for arrivals. May be called from any thread. Raises Away, OSError."""
        if not self._is_taken():
            raise Away(f"{self.root} is away; nothing can be taken")
        self.make_staging()
        return self.staging

    def is_here(self) -> bool:
        """Whether what is below the root is ours to write, as it is now and not at the last look.

        What is written below a mount that went away would pass for a repository from then on.
        """
        return not self.is_away and self._is_taken()

    def _is_taken(self) -> bool:
        return self._lock is not None and _identity(self.root) == self._identity

    def news(self, *, thorough: bool) -> News:
        """Look at the directory; thoroughly, at its lock and at what is mounted below it as well.

        Raises Away, UsageError when another process has the lock by now, OSError.
        """
        found = _identity(self.root)
        if found is None or found != self._identity or self._lock is None:
            self._judge(found)
            return News.OTHER
        if self.is_away:
            self.is_away = False
            return News.BACK
        if not thorough:
            return News.NONE
        if not self._lock.is_in_place():
            log.warning("%s: its lock was removed; it is taken anew", self.root)
            self.release()
            self._take_lock()
        before, self._mounts = self._mounts, mounted_below(self.root)
        return News.NONE if before == self._mounts else News.BACK

    def _judge(self, found: tuple[int, int] | None) -> None:
        """Whether another directory may be taken. Raises Away.

        One on the same file system was put there on purpose, and is taken when it is seen a second time.
        One on another file system is what lies below a mount that is away, unless it is a repository of
        ours: then it was mounted anew.
        """
        before, seen = self._identity, self._seen
        self._seen = found
        self.is_away = True
        if found is None:
            raise Away(f"{self.root}: there is no such directory now")
        is_ours = os.path.isdir(os.path.dirname(self.staging))
        if before is not None and before[0] != found[0] and not is_ours:
            raise Away(f"{self.root} is on another file system than before; is it not mounted?")
        if before is not None and seen != found:
            raise Away(f"{self.root} was replaced by another directory; it is looked at once more")

    def _take_lock(self) -> None:
        private = os.path.dirname(self.staging)
        make_directories(private, below=self.root)
        os.chmod(private, 0o700)
        self._lock = Lock(os.path.join(private, "lock"))


def _identity(path: str) -> tuple[int, int] | None:
    try:
        status = os.stat(path)
    except OSError:
        return None
    return status.st_dev, status.st_ino
