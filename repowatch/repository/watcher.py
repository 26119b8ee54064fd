"""The door to watchdog: something may have happened to this name.

An event is a hint, never a fact: inotify tells a rename as half of one, loses events when its queue
runs over, and tells nothing of what was in a directory that moved away. So every event becomes "look
here", with the nearest name that says enough.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable

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
from watchdog.observers import Observer

from repowatch.repository.tree import Tree

log = logging.getLogger(__name__)

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


class Watcher:
    """Watches one tree and passes on names relative to its root."""

    def __init__(self, tree: Tree, *, hint: Callable[[str], None]) -> None:
        self._observer = Observer()
        self._handler = _Handler(tree, hint)
        self._root = tree.root
        self.mode = "none"  # or "inotify"; status says it

    def start(self) -> bool:
        """Begin to watch; False when the machine can not, with the reason in the log."""
        try:
            self._observer.schedule(self._handler, self._root, recursive=True, event_filter=_EVENTS)
            self._observer.start()
        except OSError as error:
            log.error(
                "%s can not be watched (%s), its files are looked at every few seconds instead; "
                "see sysctl fs.inotify.max_user_watches and max_user_instances",
                self._root,
                error.strerror or error,
            )
            self.mode = "polling"
            return False
        self.mode = "inotify"
        return True

    def stop(self) -> None:
        if self._observer.is_alive():
            self._observer.stop()
            self._observer.join()


class _Handler(FileSystemEventHandler):
    def __init__(self, tree: Tree, hint: Callable[[str], None]) -> None:
        self._tree = tree
        self._hint = hint

    def dispatch(self, event: FileSystemEvent) -> None:
        for path in (event.src_path, event.dest_path):
            if path:
                self._tell(os.fsdecode(path), is_directory=event.is_directory)

    def _tell(self, path: str, *, is_directory: bool) -> None:
        name = os.path.relpath(path, self._tree.root)
        if name == ".":
            self._hint("")
        elif self._tree.concerns(name) and (is_directory or self._tree.is_package_name(name)):
            self._hint(name)
