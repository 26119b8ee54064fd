"""The tree on disk: which files count as packages, and what stat says of them."""

from __future__ import annotations

import os
import stat
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase

from repowatch.model.package import Stamp

REPODATA = "repodata"  # in the root: the published metadata, never packages

LINK_REFUSED = "a symbolic link; links are not followed"


@dataclass(frozen=True, slots=True)
class Found:
    """A file that may be a package, or something in its place that can not be one."""

    location_href: str
    stamp: Stamp | None
    problem: str | None = None  # why it can not be listed, known without opening it
    fresh: bool = False  # changed so lately that it may still be written to


class Tree:
    """The files below a repository root. Hidden names and the root's repodata/ do not exist here."""

    def __init__(self, root: str, *, exclude: Sequence[str] = ()) -> None:
        self.root = root
        self.exclude = tuple(exclude)

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

    def look(self, location_href: str) -> Found | None:
        """One name; None when nothing that counts has it."""
        if not self.concerns(location_href) or not self.is_package_name(location_href):
            return None
        try:
            status = os.lstat(self.path(location_href))
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            return Found(location_href, None, _told(error))
        return _found(location_href, status)

    def scan(self, directory: str = "", *, quiet_since: float | None = None) -> Iterator[Found]:
        """Everything that counts below a directory (relative to the root); nothing when it is missing.

        A directory that can not be read is found as a problem of its own, under its name with a slash.
        Files that changed after `quiet_since` (seconds since 1970, None: never) are found fresh; a time
        in the future says that the clock was set back, not that the file is written to.
        """
        try:
            with os.scandir(self.path(directory)) as entries:
                listed = list(entries)
        except (FileNotFoundError, NotADirectoryError):
            return
        except OSError as error:
            yield Found(f"{directory}/", None, _told(error))
            return
        now = time.time()
        for entry in listed:
            name = f"{directory}/{entry.name}" if directory else entry.name
            if not self.concerns(name):
                continue
            if entry.is_dir(follow_symlinks=False):
                yield from self.scan(name, quiet_since=quiet_since)
            elif entry.is_symlink() and entry.is_dir():
                yield Found(f"{name}/", None, LINK_REFUSED)
            elif self.is_package_name(name):
                try:
                    status = entry.stat(follow_symlinks=False)
                    fresh = quiet_since is not None and quiet_since < status.st_ctime <= now
                    yield replace(_found(name, status), fresh=fresh)
                except FileNotFoundError:
                    continue
                except OSError as error:
                    yield Found(name, None, _told(error))


def _found(location_href: str, status: os.stat_result) -> Found:
    if stat.S_ISREG(status.st_mode):
        return Found(location_href, Stamp.of(status))
    if stat.S_ISLNK(status.st_mode):
        return Found(location_href, Stamp.of(status), LINK_REFUSED)
    if stat.S_ISDIR(status.st_mode):
        return Found(location_href, Stamp.of(status), "a directory whose name ends in .rpm")
    return Found(location_href, Stamp.of(status), "not a regular file")


def _told(error: OSError) -> str:
    return f"not readable: {(error.strerror or str(error)).lower()}"
