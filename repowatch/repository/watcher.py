"""The door to watchdog: something may have happened to this name.

An event is a hint, never a fact: inotify tells a rename as half of one, loses events when its queue
runs over, and tells nothing of what was in a directory that moved away. So every event becomes "look
here", with the nearest name that says enough.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import queue
import stat
import threading
import warnings
from collections.abc import Callable, Iterator

from watchdog.events import (
    DirAttribEvent,
    DirCreatedEvent,
    DirDeletedEvent,
    DirMovedEvent,
    FileAttribEvent,
    FileClosedEvent,
    FileCreatedEvent,
    FileDeletedEvent,
    FileModifiedEvent,
    FileMovedEvent,
    FileSystemEvent,
    FileSystemEventHandler,
)
from watchdog.observers.api import BaseObserver
from watchdog.observers.inotify import InotifyEmitter, InotifyObserver
from watchdog.observers.inotify_c import (
    CallbackId,
    InotifyEvent,
    InotifyFD,
    Mask,
    WatchCallback,
    WatchDescriptor,
)
from watchdog.utils import BaseThread

from repowatch.repository.tree import PRIVATE, REPODATA, Tree, is_below
from repowatch.system.mounts import is_blind, mounted_below, type_of

log = logging.getLogger(__name__)

# A directory made inside of one just made is met twice, by the walk and by its event. That is no trouble.
warnings.filterwarnings("ignore", message="Callback with id", category=RuntimeWarning)

# Neither opening nor reading is among them: every download would make events.
_EVENTS: list[type[FileSystemEvent]] = [
    DirAttribEvent,
    DirCreatedEvent,
    DirDeletedEvent,
    DirMovedEvent,
    FileAttribEvent,
    FileClosedEvent,
    FileCreatedEvent,
    FileDeletedEvent,
    FileModifiedEvent,
    FileMovedEvent,
]


MODES = ("inotify", "polling")

# Ends of names that always say something: packages, and what another program may publish.
_TELLING = (b".rpm", b"repomd.xml", b"comps.xml", b"modules.yaml", b"updateinfo.xml", b".yaml")


class Watcher:
    """Watches one tree and passes on names relative to its root.

    Where that can not be done, or fails later, `blind` is called: the tree has to be looked at.
    """

    def __init__(self, tree: Tree, *, hint: Callable[[str], None], blind: Callable[[], None]) -> None:
        self.mode = "none"  # or one of MODES; status says it
        self.overflows = 0  # times that the kernel dropped events
        self._observer: _Observer | None = None
        self._tree = tree
        self._handler = _Handler(tree, hint)
        self._overflow = _Overflow(hint)
        self._root = tree.root
        self._follow = tuple(each for each in tree.follow if not is_below(each, tree.root))
        self._blind = blind

    @property
    def is_alive(self) -> bool:
        """Whether events would come, or nobody waits for them: a thread of watchdog may end in silence."""
        observer = self._observer
        if observer is None or self.mode != "inotify":
            return True
        threads = (observer, observer._inotify_fd, *observer.emitters)
        return all(each.is_alive() for each in threads)

    def start(self) -> None:
        """Begin to watch."""
        for directory, filesystem in self._filesystems():
            if is_blind(filesystem):
                self._poll(f"{directory} lies on {filesystem}, which does not tell of all changes")
                return
        _watchers.add(self)
        _watchdog_log.addHandler(self._overflow)
        self.mode = "inotify"
        try:
            self._observer = _Observer(self.failed, self._overflowed, tree=self._tree)
            for directory in (self._root, *self._follow):
                self._observer.schedule(self._handler, directory, recursive=True, event_filter=_EVENTS)
            self._observer.start()
        except OSError as error:
            self._poll(f"{error.strerror or error}; {_LIMITS}")

    def _filesystems(self) -> Iterator[tuple[str, str]]:
        for directory in (self._root, *self._follow):
            yield directory, type_of(directory)
            yield from mounted_below(directory)

    def stop(self) -> None:
        _watchers.discard(self)
        _watchdog_log.removeHandler(self._overflow)
        observer, self._observer = self._observer, None
        if observer is None or not observer.is_alive():
            return
        try:
            observer.stop()
        except Exception as error:
            # It lost its own books (7.1 does, when directories are moved over each other). What it watched
            # ends with its descriptor; a thread of it may stay that waits for nothing.
            log.warning("the old watches of %s were not ended in order: %r", self._root, error)
            observer.abandon()
        else:
            observer.join()

    def restart(self) -> None:
        """Watch anew: the directory was away, and the watches went with it."""
        self.stop()
        self.start()

    def failed(self, error: BaseException | None) -> None:
        """A thread of watchdog ended by an error: no event comes any more."""
        if self.mode == "inotify":
            self._poll(f"{error}; {_LIMITS}")

    def _overflowed(self) -> None:
        self.overflows += 1

    def _poll(self, reason: str) -> None:
        self.mode = "polling"
        log.error("%s can not be watched, it is looked at every few seconds instead: %s", self._root, reason)
        self._blind()


class _Inotify(InotifyFD):
    """watchdog goes on without a word when a directory below the root can not be watched.

    And it hands each event through four threads, which is most of what a small upload costs: so events that
    can mean nothing to a repository end here.
    """

    def __init__(
        self, failed: Callable[[OSError], None], overflowed: Callable[[], None], *, tree: Tree
    ) -> None:
        super().__init__()
        self._failed = failed
        self._overflowed = overflowed
        self._tree = tree
        # Not to be watched: what we do there ourselves would wake us up all the time.
        self._private = os.fsencode(os.path.join(tree.root, PRIVATE))
        self._moving = 0  # the cookie of the last half of a rename that was passed on
        others = (os.path.basename(path) for path in tree.companions.metadata.values())
        self._telling = (*_TELLING, *map(os.fsencode, others))

    def handle_event(self, event: InotifyEvent) -> None:
        if self._means_nothing(event):
            return
        if event.is_queue_overflow:
            self._overflowed()
        if event.is_moved_from:
            self._moving = event.cookie
        super().handle_event(event)

    def _means_nothing(self, event: InotifyEvent) -> bool:
        """Whether an event is about a plain file that is no package, and was none.

        Of a rename both halves are passed on, or watchdog would wait for the other.
        """
        if not event.name or event.is_directory or event.is_ignored or event.is_queue_overflow:
            return False
        if event.name.endswith(self._telling) or (event.is_moved_to and event.cookie == self._moving):
            return False
        if self._tree.has_links:  # a file may be in the place of one
            return False
        if event.is_delete or event.is_moved_from:
            return True
        watch = self._watch_for_wd.get(event.wd)
        return watch is not None and all(
            _is_plain_file(each._build_event_source_path(event))  # type: ignore[attr-defined]
            for each in tuple(watch.callbacks.values())
        )

    def add_callback(
        self, path: bytes, mask: Mask, callback: WatchCallback, id_: CallbackId
    ) -> WatchDescriptor:
        if path.startswith(self._private) and path[len(self._private) :][:1] in (b"", b"/"):
            raise FileNotFoundError(errno.ENOENT, "not to be watched", os.fsdecode(path))
        try:
            watch = super().add_callback(path, mask, callback, id_)
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.ENOMEM):
                self._failed(error)
            raise
        if watch == -1:  # it takes a directory that may not be read for one that is watched
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), os.fsdecode(path))
        return watch


def _is_plain_file(path: bytes | None) -> bool:
    try:
        return path is not None and stat.S_ISREG(os.lstat(path).st_mode)
    except OSError:
        return False


class _Observer(InotifyObserver):
    def __init__(
        self, failed: Callable[[OSError], None], overflowed: Callable[[], None], *, tree: Tree
    ) -> None:
        self._inotify_fd = _Inotify(failed, overflowed, tree=tree)
        self._inotify_fd.start()
        BaseObserver.__init__(self, InotifyEmitter, inotify_fd=self._inotify_fd)

    def abandon(self) -> None:
        """Hear no more events, where `stop` failed."""
        with contextlib.suppress(Exception):
            self._inotify_fd.stop()
        with contextlib.suppress(queue.Full):
            self.event_queue.put_nowait(BaseObserver.stop_event)


_LIMITS = "see sysctl fs.inotify.max_user_watches and fs.inotify.max_user_instances"

_watchdog_log = logging.getLogger("watchdog")
_watchers: set[Watcher] = set()
_before = threading.excepthook


def _thread_ended(args: threading.ExceptHookArgs) -> None:
    """watchdog adds watches in its own threads; one that can not ends there, and tells nobody."""
    if isinstance(args.thread, BaseThread):
        for watcher in tuple(_watchers):
            watcher.failed(args.exc_value)
    else:
        _before(args)


threading.excepthook = _thread_ended


class _Overflow(logging.Handler):
    """watchdog says only in its log that the kernel dropped events: then look everywhere."""

    def __init__(self, hint: Callable[[str], None]) -> None:
        super().__init__(logging.WARNING)
        self._hint = hint

    def emit(self, record: logging.LogRecord) -> None:
        if "overflow" in record.getMessage():
            self._hint("")


class _Handler(FileSystemEventHandler):
    def __init__(self, tree: Tree, hint: Callable[[str], None]) -> None:
        self._tree = tree
        self._hint = hint
        self._repodata = tree.path(REPODATA)
        self._repomd = tree.path(f"{REPODATA}/repomd.xml")

    def dispatch(self, event: FileSystemEvent) -> None:
        for path in (event.src_path, event.dest_path):
            if path:
                self._tell(os.fsdecode(path), is_directory=event.is_directory)

    def _tell(self, path: str, *, is_directory: bool) -> None:
        if path in (self._repodata, self._repomd):
            self._hint(REPODATA)
        for name in self._tree.names_of(path):
            if name == ".":
                self._hint("")
            elif self._tree.is_package_name(name) or self._tree.is_companion(name):
                self._hint(name)
            elif self._tree.is_link(name):
                self._hint("")  # other links may lead over this one
            elif is_directory:
                self._hint(name)
