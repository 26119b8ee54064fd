"""Keeps the files of packages that left the tree: for a while under their names, or for a snapshot.

    .repowatch/retired/<pkgid>.rpm     the bytes, once, whoever wants them
    .repowatch/retired/names.json      the names they are still served under, each with its time

A name is announced, durably, before the metadata without it is published, and the file is renamed into the
store after that. A process that dies between leaves the file in the tree, where the next start lists it
again. Nothing here is a cache. Times are watched time (`watched`): a clock that jumps removes nothing.
"""

from __future__ import annotations

import errno
import hashlib
import json
import logging
import math
import os
import threading
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import astuple, dataclass, replace
from itertools import chain
from typing import Any

from repowatch.model.digests import checksum_type
from repowatch.model.package import Entry, Stamp
from repowatch.repository.tree import PRIVATE
from repowatch.system.files import (
    fsync_directory,
    make_directories,
    make_sure_of,
    remove_if_there,
    replace_durably,
)
from repowatch.system.second import NO_LINKS, give_second_place, share_blocks

log = logging.getLogger(__name__)

GRACE = 86400.0  # seconds for which a pruned package is served under its name, if nothing else is configured

# Seconds for which a file is kept that neither a name nor a snapshot wants: it was held just now for a
# snapshot that is still to be written, or the names could not be read.
LOOSE = 3600.0

_END = ".rpm"
_ASIDE = ".new"


@dataclass(frozen=True, slots=True)
class Leaving:
    """A listed package that is to leave the tree, and to be served for a while all the same."""

    path: str
    location_href: str
    pkgid: str
    stamp: Stamp


@dataclass(frozen=True, slots=True)
class Name:
    """A name that nothing in the tree has, and that is still served."""

    location_href: str
    pkgid: str
    until: float  # watched time
    retired_at: float  # seconds since 1970, to be told
    stamp: Stamp

    def row(self) -> list[object]:
        """All of it, for the file of names."""
        return [self.location_href, self.pkgid, self.until, self.retired_at, list(astuple(self.stamp))]

    @classmethod
    def of_row(cls, row: Sequence[Any]) -> Name:
        """What `row` gave. Raises ValueError, TypeError and LookupError when it can not be that."""
        location_href, pkgid, until, retired_at, stamp = row
        return cls(str(location_href), str(pkgid), float(until), float(retired_at), Stamp(*map(int, stamp)))


class Retired:
    """The files of one repository that are kept. Changed by one thread at a time; any may `find`."""

    def __init__(self, root: str, *, now: Callable[[], float], grace: float = GRACE) -> None:
        """`now` is watched time."""
        self.directory = os.path.join(root, PRIVATE, "retired")
        self.grace = grace
        self._root = root
        self._now = now
        self._lock = threading.RLock()
        # Replaced whole, for any thread.
        self._names: Mapping[str, Name] = {}
        self._sizes: dict[str, int] = {}  # bytes of each file, by pkgid
        self._loose: dict[str, float] = {}  # pkgids that nobody wants: since when (watched time)
        self._announced: dict[str, Leaving] = {}  # by path
        self._due_at = -math.inf  # nothing is due before that (watched time), unless something changes
        self._read_as: dict[str, tuple[Stamp, bool]] = {}  # files that were looked into, by pkgid

    def open(self) -> None:
        """Go on from what is on disk. Raises OSError."""
        with self._lock:
            _clear(self.directory)
            self._sizes = _sizes_in(self.directory)
            latest = self._now() + self.grace  # also where the watched time was lost
            names = [replace(name, until=min(name.until, latest)) for name in self._read()]
            self._names = {each.location_href: each for each in names if each.pkgid in self._sizes}
            # Whoever finishes what a run before began may still have to move these.
            missing = [self._leaving(each) for each in names if each.pkgid not in self._sizes]
            self._announced = {each.path: each for each in missing}
            self._loose, self._due_at = {}, -math.inf

    # -- for any thread ----------------------------------------------------------------------

    def find(self, location_href: str) -> str | None:
        """The path of what is still served under a name that nothing in the tree has."""
        name = self._names.get(location_href)
        if name is None or name.until <= self._now():
            return None
        path = self._path(name.pkgid)
        return path if self._is_unwritten(path, name) else None

    def path_of(self, pkgid: str) -> str | None:
        """The file with these bytes, if it is kept."""
        return self._path(pkgid) if pkgid in self._sizes else None

    def _is_unwritten(self, path: str, name: Name) -> bool:
        """Whether nobody wrote into a kept file, by another name that it has, since it left the tree."""
        try:
            status = os.lstat(path)
        except FileNotFoundError:
            return False
        found = (status.st_size, status.st_mtime_ns)
        same = (each.stamp for each in self._names.values() if each.pkgid == name.pkgid)
        if any(found == (stamp.size, stamp.mtime_ns) for stamp in chain([name.stamp], same)):
            return True
        return self._has_pkgid(path, Stamp.of(status), name.pkgid)

    def _has_pkgid(self, path: str, stamp: Stamp, pkgid: str) -> bool:
        """Whether a file has these bytes, though it came by a name that is served no more; read once."""
        known = self._read_as.get(pkgid)
        if known is None or known[0] != stamp:
            try:
                with open(path, "rb") as file:
                    is_so = hashlib.file_digest(file, checksum_type(pkgid)).hexdigest() == pkgid
            except OSError:
                return False
            known = self._read_as[pkgid] = stamp, is_so
        return known[1]

    @property
    def names(self) -> Sequence[Name]:
        """Every name that is served without being in the tree."""
        return tuple(self._names.values())

    @property
    def size(self) -> int:
        """Bytes of what is kept and served; what only a snapshot keeps is not counted."""
        sizes = self._sizes
        return sum(sizes.get(pkgid, 0) for pkgid in {name.pkgid for name in self._names.values()})

    # -- into the store ----------------------------------------------------------------------

    def announce(self, leaving: Sequence[Leaving], *, at: float) -> None:
        """Note packages that are about to leave the metadata; `at`: seconds since 1970. Raises OSError.

        Without a time of grace their files are just removed.
        """
        with self._lock:
            self._announced = {each.path: each for each in leaving}
            if leaving and self.grace:
                until = self._now() + self.grace
                fresh = [Name(each.location_href, each.pkgid, until, at, each.stamp) for each in leaving]
                self._write({**self._names, **{each.location_href: each for each in fresh}})

    def retire(self, paths: Sequence[str]) -> list[str]:
        """Rename into the store, durably, those of these files that were announced; the others.

        A file that is not the one that was listed stays. Raises OSError and Unfinished.
        """
        with self._lock:
            announced = {path: self._announced.pop(path) for path in paths if path in self._announced}
            leaving = [announced[path] for path in paths if path in announced]
            if leaving:
                make_directories(self.directory, below=self._root)
                self._due_at = -math.inf
                for each in leaving:
                    self._take(each)
                make_sure_of(self.directory)
                directories = {os.path.dirname(each.path) for each in leaving}
                make_sure_of(*filter(os.path.isdir, directories))
        return [path for path in paths if path not in announced]

    def hold(self, path: str, *, pkgid: str) -> None:
        """Keep the bytes of a listed file beside the tree, by a hard link; a copy where none can be made.

        It is durable after `settle`. The link changes the file's ctime. Without a snapshot that names it, it
        is kept for an hour. Raises OSError.
        """
        with self._lock:
            if pkgid not in self._sizes:
                make_directories(self.directory, below=self._root)
                target = self._path(pkgid)
                try:
                    remove_if_there(target)
                    os.link(path, target, follow_symlinks=False)
                except OSError as error:
                    if error.errno not in NO_LINKS:
                        raise
                    log.info("%s: no hard link can be made (%s); it is copied", path, error.strerror)
                    _copy(path, target)
                self._sizes[pkgid] = os.lstat(target).st_size
            self._loose[pkgid], self._due_at = self._now(), -math.inf

    def hold_apart(self, path: str, *, pkgid: str, may_copy: bool) -> bool:
        """Keep the bytes of a listed file in a file of its own, a clone or a copy; whether they are kept now.

        What is written into the file in the tree changes nothing here. May be called from any thread;
        otherwise as `hold`.
        """
        if pkgid in self._sizes:
            return True
        make_directories(self.directory, below=self._root)
        aside = f"{self._path(pkgid)}.{threading.get_ident()}{_ASIDE}"
        remove_if_there(aside)
        if may_copy:
            give_second_place(path, aside, may_link=False)
        elif not share_blocks(path, aside):
            return False
        with self._lock:
            if pkgid in self._sizes:  # it came meanwhile, and may be all that there is of it
                os.unlink(aside)
                return True
            os.rename(aside, self._path(pkgid))
            self._sizes[pkgid] = os.lstat(self._path(pkgid)).st_size
            self._loose[pkgid], self._due_at = self._now(), -math.inf
        return True

    def settle(self) -> None:
        """Make what was held durable. Raises OSError."""
        if os.path.isdir(self.directory):
            fsync_directory(self.directory)

    # -- out of the store --------------------------------------------------------------------

    def listed(self, changes: Iterable[tuple[Entry | None, Entry | None]]) -> None:
        """Take note of what a publication changed, as (before, after). Raises OSError.

        A name that is listed again is no retired one. A file that was overwritten in place is the kept one
        as well, where that is a hard link: then its bytes are lost.
        """
        with self._lock:
            back = {after.location_href for _, after in changes if after} & self._names.keys()
            if back:
                self.forget(back)
            for before, after in changes if self._sizes else ():
                if before and after and before.pkgid != after.pkgid and self._is_link(before, after):
                    log.error(
                        "%s was overwritten in place, and is lost where it was kept", after.location_href
                    )
                    self.drop([before.pkgid])

    def forget(self, location_hrefs: Iterable[str]) -> None:
        """Serve these names no longer; the bytes go with the next sweep, if nobody else wants them.

        Raises OSError.
        """
        with self._lock:
            gone = self._names.keys() & set(location_hrefs)
            if gone:
                pkgids = [self._names[each].pkgid for each in gone]
                self._write({name: each for name, each in self._names.items() if name not in gone})
                self.let_go(pkgids)

    def let_go(self, pkgids: Iterable[str]) -> None:
        """These are not wanted any more by who kept them: what nobody else wants is due at once."""
        with self._lock:
            self._due_at = -math.inf
            self._loose.update(dict.fromkeys(self._sizes.keys() & set(pkgids), -LOOSE))

    def due(self, held: Collection[str] | None) -> list[str]:
        """The pkgids that may be dropped now; names that are over their time are taken back first.

        `held`: the pkgids that snapshots want; None where that is not known. Raises OSError.
        """
        with self._lock:
            now = self._now()
            if now < self._due_at:
                return []
            over = [name.location_href for name in self._names.values() if name.until <= now]
            if over:
                self.forget(over)
            if held is None:
                return []
            wanted = {name.pkgid for name in self._names.values()}
            loose = [pkgid for pkgid in self._sizes if pkgid not in wanted and pkgid not in held]
            self._loose = {pkgid: self._loose.get(pkgid, now) for pkgid in loose}
            ends = [name.until for name in self._names.values()]
            self._due_at = min([*ends, *(since + LOOSE for since in self._loose.values())], default=math.inf)
            return [pkgid for pkgid, since in self._loose.items() if since + LOOSE <= now]

    def drop(self, pkgids: Iterable[str]) -> None:
        """Remove kept files. Raises OSError."""
        with self._lock:
            for pkgid in pkgids:
                remove_if_there(self._path(pkgid))
                self._sizes.pop(pkgid, None)
                self._loose.pop(pkgid, None)
                self._read_as.pop(pkgid, None)

    # -- on disk -----------------------------------------------------------------------------

    def _take(self, leaving: Leaving) -> None:
        """Rename one file into the store, if it is the one that was listed."""
        target = self._path(leaving.pkgid)
        if os.path.islink(leaving.path):  # which alone is ours to take out
            if _is_still(real := os.path.realpath(leaving.path), leaving.stamp):
                self.hold(real, pkgid=leaving.pkgid)
                os.unlink(leaving.path)
            return
        if not _is_still(leaving.path, leaving.stamp):
            return
        if not self.grace or (os.path.lexists(target) and os.path.samefile(leaving.path, target)):
            os.unlink(leaving.path)  # rename(2) does nothing between two links of one file
            return
        try:
            os.rename(leaving.path, target)
        except FileNotFoundError:
            return
        except OSError as error:
            if error.errno != errno.EXDEV:
                raise
            _copy(leaving.path, target)
            os.unlink(leaving.path)
        else:
            if not _is_still(target, leaving.stamp):  # replaced between the look and the rename
                _put_back(target, leaving.path)
                return
        self._sizes[leaving.pkgid] = leaving.stamp.size

    def _leaving(self, name: Name) -> Leaving:
        path = os.path.join(self._root, name.location_href)
        return Leaving(path, name.location_href, name.pkgid, name.stamp)

    def _is_link(self, before: Entry, after: Entry) -> bool:
        try:
            inode = os.lstat(self._path(before.pkgid)).st_ino
        except OSError:
            return False
        return inode == before.stamp.inode == after.stamp.inode

    def _path(self, pkgid: str) -> str:
        return os.path.join(self.directory, f"{pkgid}{_END}")

    @property
    def _ledger(self) -> str:
        return os.path.join(self.directory, "names.json")

    def _read(self) -> list[Name]:
        try:
            with open(self._ledger, "rb") as file:
                return [Name.of_row(row) for row in json.load(file)]
        except FileNotFoundError:
            return []
        except (ValueError, TypeError, LookupError, RecursionError) as error:
            told = "retired packages are not served under their names"
            log.error("%s is damaged (%s); %s", self._ledger, error, told)
            return []

    def _write(self, names: Mapping[str, Name]) -> None:
        rows = [each.row() for each in names.values()]
        make_directories(self.directory, below=self._root)
        replace_durably(self._ledger, [json.dumps(rows).encode("ascii")])
        self._names, self._due_at = names, -math.inf


def pkgid_of(path: str) -> str:
    """The checksum of a file that is kept, by its path."""
    return os.path.basename(path).removesuffix(_END)


def _clear(directory: str) -> None:
    """Remove what a death left half made."""
    if os.path.isdir(directory):
        for name in os.listdir(directory):
            if name.endswith(_ASIDE):
                remove_if_there(os.path.join(directory, name))


def _sizes_in(directory: str) -> dict[str, int]:
    try:
        with os.scandir(directory) as entries:
            return {pkgid_of(each.name): each.stat().st_size for each in entries if each.name.endswith(_END)}
    except FileNotFoundError:
        return {}


def _is_still(path: str, stamp: Stamp) -> bool:
    try:
        return Stamp.of(os.lstat(path)).is_moved(stamp)
    except FileNotFoundError:
        return False


def _put_back(target: str, path: str) -> None:
    """Give a file its name again, unless another has it by now."""
    try:
        os.link(target, path)
    except FileExistsError:
        log.warning("%s was replaced twice while it was pruned; the newest is kept", path)
    os.unlink(target)


def _copy(path: str, target: str) -> None:
    """Copy a file, with its times; durable but for its name. Raises OSError."""
    aside = f"{target}{_ASIDE}"
    remove_if_there(aside)
    give_second_place(path, aside, may_link=False)
    os.rename(aside, target)
