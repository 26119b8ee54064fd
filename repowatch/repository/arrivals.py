"""Since when a file waits to be listed: when it was last changed, or came along with a directory.

A directory that is moved into the tree takes its files along, and their ctime stays as it was. So a file is
never older here than the word of its directory, nor, where nothing told of it, than the last whole look.
"""

from __future__ import annotations

import os
from collections.abc import Container, Iterable, Mapping
from dataclasses import dataclass, field

from repowatch.model.package import Stamp

LATER = 60.0  # seconds that a file may come into its place after it arrived: a client waits for 30


@dataclass(slots=True)
class Arrivals:
    """What its ctime does not say of a file. Times in seconds since 1970.

    Any thread may `tell` and `hear`.
    """

    _told: dict[str, float] = field(default_factory=dict)
    _directories: dict[str, float] = field(default_factory=dict)  # when each was first heard of
    _looked: float = 0.0  # when the last whole look that ended well began

    def tell(self, location_href: str, at: float) -> None:
        """A file arrived, and gets its name later."""
        self._told[location_href] = at

    def hear(self, directory: str, at: float) -> None:
        """Something happened to a directory."""
        self._directories.setdefault(directory, at)

    def came_back(self, at: float) -> None:
        """The whole tree was away: what is new in it came with it."""
        self._looked = at

    def of(self, location_href: str, stamp: Stamp, *, names: Container[str]) -> float:
        """Since when a file waits that was found by a look at `names`."""
        changed = stamp.ctime_ns / 1e9
        told = self._told.get(location_href)
        if told is not None and changed - told <= LATER:
            return told
        directory = os.path.dirname(location_href)
        while directory:
            if directory in names and (heard := self._directories.get(directory)) is not None:
                return max(changed, heard)
            directory = os.path.dirname(directory)
        return changed if location_href in names else max(changed, self._looked)

    def turned(
        self, names: Container[str], *, seen: Iterable[str], left_over: Mapping[str, Stamp], began: float
    ) -> None:
        """A look at `names` ended well: `seen` is settled, but for what is left to the next one."""
        waiting = {name: self.of(name, stamp, names=names) for name, stamp in left_over.items()}
        for name in seen:
            self._told.pop(name, None)
        for directory in [each for each in tuple(self._directories) if each in names]:
            self._directories.pop(directory, None)
        if "" in names:
            self._looked = began
            # What got no name after all.
            for name in [name for name, at in tuple(self._told.items()) if at < began - LATER]:
                self._told.pop(name, None)
        self._told.update(waiting)
