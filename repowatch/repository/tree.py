"""The tree on disk: which files count as packages, and what stat says of them.

Symbolic links may lead to what else is in the tree, and below the directories of `follow`; a package is
listed under the link's name, with what stat says of the file behind it.
"""

from __future__ import annotations

import os
import stat
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from types import MappingProxyType

from repowatch.model.companion import Names
from repowatch.model.package import Stamp

PRIVATE = ".repowatch"  # in the root: ours
REPODATA = "repodata"  # in the root: the published metadata, never packages

_OUTSIDE = "a symbolic link out of the tree; `follow` does not name a directory above {0}"
_LOOP = "a symbolic link that leads back to a directory above it"
_NOWHERE = "a symbolic link to nothing"


@dataclass(frozen=True, slots=True)
class Found:
    """A file that may be a package, or something in its place that can not be one."""

    location_href: str
    path: str  # of the file itself, where a link leads to it
    stamp: Stamp | None
    problem: str | None = None  # why it can not be listed, known without opening it
    fresh: bool = False  # changed so lately that it may still be written to


class Tree:
    """The files below a repository root. Hidden names and the root's repodata/ do not exist here."""

    def __init__(
        self,
        root: str,
        *,
        exclude: Sequence[str] = (),
        follow: Sequence[str] = (),
        metadata: Mapping[str, str] = MappingProxyType({}),
    ) -> None:
        """`root` has no symbolic link in it; `metadata` is that of Names."""
        self.root = root
        self.companions = Names(metadata, tuple(exclude))
        self.exclude = tuple(exclude)
        self.follow = tuple(os.path.realpath(each) for each in follow)
        self._links: dict[str, str] = {}  # location_href of each link seen: the path that it leads to

    def path(self, location_href: str) -> str:
        return os.path.join(self.root, location_href) if location_href else self.root

    def concerns(self, name: str) -> bool:
        """Whether a path relative to the root is one that clients may see."""
        parts = name.split("/")
        return parts[0] != REPODATA and not any(part.startswith(".") for part in parts)

    def is_package_name(self, location_href: str) -> bool:
        """Whether a file of this name is taken for a package."""
        basename = location_href.rpartition("/")[2]
        return basename.endswith(".rpm") and not any(
            fnmatchcase(basename, pattern) or fnmatchcase(location_href, pattern) for pattern in self.exclude
        )

    def is_companion(self, location_href: str) -> bool:
        """Whether a file of this name has a record of its own, beside the packages."""
        return self.companions.kind_of(location_href) is not None

    def may_lead_to(self, path: str) -> bool:
        """Whether a link may lead to a path that has no link in it."""
        if is_below(path, self.root):
            return self.concerns(os.path.relpath(path, self.root))
        return any(is_below(path, each) for each in self.follow)

    def names_of(self, path: str) -> list[str]:
        """The names, relative to the root, under which a path is in the tree: its own and those by links."""
        names = [os.path.relpath(path, self.root)] if is_below(path, self.root) else []
        for link, target in tuple(self._links.items()):
            if is_below(path, target):
                names.append(os.path.normpath(os.path.join(link, os.path.relpath(path, target))))
        return [name for name in names if self.concerns(name) or name == "."]

    @property
    def has_links(self) -> bool:
        """Whether any symbolic link was there when it was last looked."""
        return bool(self._links)

    def is_link(self, name: str) -> bool:
        """Whether a path relative to the root is a symbolic link, or was one when it was last seen."""
        return name in self._links or os.path.islink(self.path(name))

    def look(self, location_href: str) -> Found | None:
        """One name; None when no package has it, nor what is in the place of one."""
        return self.find(location_href) if self.is_package_name(location_href) else None

    def find(self, location_href: str) -> Found | None:
        """One name, whatever it is called; None when nothing that clients may see has it."""
        if not self.concerns(location_href):
            return None
        path = self.path(location_href)
        try:
            status = os.lstat(path)
        except (FileNotFoundError, NotADirectoryError):
            self._links.pop(location_href, None)
            return None
        except OSError as error:
            return Found(location_href, path, None, _told(error))
        if os.path.realpath(path) == path:
            self._links.pop(location_href, None)
            return _found(location_href, path, status)
        return self._linked(location_href, path)

    def scan(self, directory: str = "", *, quiet_since: float | None = None) -> Iterator[Found]:
        """Everything that counts below a directory (relative to the root); nothing when it is missing.

        A directory that can not be read is found as a problem of its own, under its name with a slash.
        Files that changed after `quiet_since` (seconds since 1970, None: never) are found fresh; a time
        in the future says that the clock was set back, not that the file is written to.
        """
        real = os.path.realpath(self.path(directory))
        if is_below(real, self.root) or self.may_lead_to(real):
            yield from self._scan(directory, real, quiet_since, above=tuple(self._above(directory)))

    def _above(self, directory: str) -> Iterator[str]:
        """The paths of the directories above one, without links."""
        while directory:
            directory = directory.rpartition("/")[0]
            yield os.path.realpath(self.path(directory))

    def _scan(
        self, directory: str, real: str, quiet_since: float | None, *, above: tuple[str, ...]
    ) -> Iterator[Found]:
        try:
            with os.scandir(real) as entries:
                listed = list(entries)
        except (FileNotFoundError, NotADirectoryError):
            return
        except OSError as error:
            yield Found(f"{directory}/", real, None, _told(error))
            return
        now = time.time()
        for entry in listed:
            if entry.name.startswith(".") or (entry.name == REPODATA and not directory):
                continue
            name = f"{directory}/{entry.name}" if directory else entry.name
            if entry.is_symlink():
                yield from self._scan_link(name, entry, quiet_since, above=(*above, real))
            elif entry.is_dir():
                yield from self._scan(name, entry.path, quiet_since, above=(*above, real))
            elif self.is_package_name(name):
                try:
                    status = entry.stat()
                except FileNotFoundError:
                    continue
                fresh = quiet_since is not None and quiet_since < status.st_ctime <= now
                yield _found(name, entry.path, status, fresh=fresh)

    def _scan_link(
        self, name: str, entry: os.DirEntry[str], quiet_since: float | None, *, above: tuple[str, ...]
    ) -> Iterator[Found]:
        real = os.path.realpath(entry.path)
        if not os.path.isdir(real):
            if self.is_package_name(name):
                yield self._linked(name, entry.path)
            elif self.may_lead_to(real):
                self._links[name] = real  # other links may lead over it, and a directory may come there
        elif not self.may_lead_to(real) and real != self.root:
            yield Found(f"{name}/", real, None, _OUTSIDE.format(real))
        elif real in above:
            yield Found(f"{name}/", real, None, _LOOP)
        else:
            self._links[name] = real
            yield from self._scan(name, real, quiet_since, above=above)

    def _linked(self, location_href: str, path: str) -> Found:
        """A file behind a link."""
        real = os.path.realpath(path)
        own = Stamp.of(os.lstat(path))
        if not self.may_lead_to(real):
            return Found(location_href, path, own, _OUTSIDE.format(real))
        self._links[location_href] = real
        try:
            return _found(location_href, real, os.lstat(real))
        except FileNotFoundError:
            return Found(location_href, path, own, _NOWHERE)
        except OSError as error:
            return Found(location_href, path, None, _told(error))


def is_below(path: str, directory: str) -> bool:
    """Whether a path is a directory or below it; both without links."""
    return path == directory or path.startswith(directory.rstrip("/") + "/")


def _found(location_href: str, path: str, status: os.stat_result, *, fresh: bool = False) -> Found:
    if stat.S_ISREG(status.st_mode):
        return Found(location_href, path, Stamp.of(status), fresh=fresh)
    if stat.S_ISDIR(status.st_mode):
        what = "a directory whose name ends in .rpm" if location_href.endswith(".rpm") else "a directory"
        return Found(location_href, path, Stamp.of(status), what)
    return Found(location_href, path, Stamp.of(status), "not a regular file")


def _told(error: OSError) -> str:
    return f"not readable: {(error.strerror or str(error)).lower()}"
