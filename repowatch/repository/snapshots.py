"""The snapshots of one repository: what was published at a moment, kept as files that nothing removes.

    .repowatch/snapshots/NAME/packages     the list (`model/snapshot`)
    .repowatch/snapshots/NAME/repodata/    what was published then, the same files by hard link
    .repowatch/retired/                    the packages, by hard link (`retired`)

A snapshot appears by one rename, after all that it names is held and durable, and goes by one rename, before
anything is let go. A process that dies in between leaves files that the next start clears.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
import re
import shutil
import threading
from collections import Counter, OrderedDict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Protocol

from repowatch.errors import Conflict, Nameless, RepowatchError
from repowatch.model.package import Entry, Stamp
from repowatch.model.publication import Publication
from repowatch.model.snapshot import BadSnapshot, Kept, Snapshot, algorithm_of, checked_name
from repowatch.repository.tree import PRIVATE, REPODATA, Tree
from repowatch.system.clock import Clock
from repowatch.system.files import fsync_directory, make_directories, make_sure_of, write_durably
from repowatch.system.second import may_link
from repowatch.system.space import space_at

log = logging.getLogger(__name__)

PACKAGES = "packages"
REPOMD = "repomd.xml"

_VIEWS = 4  # snapshots whose lists are kept in memory
SPARED = 50  # one part in so many of the file system is left free by copies
COARSE = 1.0  # seconds by which the ctime of a file may be behind the clock
_VERDICTS = 16384  # files that were looked into are remembered

# What a client needs beside repomd.xml where the repository is signed.
_BESIDE = re.compile(r"^(?:repomd\.xml\.asc|[\w.-]+\.key)$")


class Changing(RepowatchError):
    """The tree is not what is published; in a moment it may be."""


class Keeper(Protocol):
    """Where packages lie that snapshots name."""

    def hold(self, path: str, *, pkgid: str) -> None: ...

    def hold_apart(self, path: str, *, pkgid: str, may_copy: bool) -> bool: ...

    def settle(self) -> None: ...

    def path_of(self, pkgid: str) -> str | None: ...

    def drop(self, pkgids: Iterable[str]) -> None: ...


@dataclass(frozen=True, slots=True)
class Summary:
    """What is told of a snapshot without its list."""

    name: str
    revision: int
    created_at: float  # seconds since 1970
    by: str | None
    packages: int
    size: int  # bytes of all its packages

    @classmethod
    def of(cls, snapshot: Snapshot) -> Summary:
        kept = snapshot.packages
        return cls(
            snapshot.name, snapshot.revision, snapshot.created_at, snapshot.by, len(kept), snapshot.size
        )


@dataclass(frozen=True, slots=True)
class Shown:
    """A file of a snapshot."""

    path: str
    etag: str | None  # without quotes; None: to be made of what stat says


class Snapshots:
    """Belongs to the thread of the index, which alone may `open`, `take` and `delete`; others read."""

    def __init__(self, root: str, *, keeper: Keeper, clock: Clock) -> None:
        self.summaries: tuple[Summary, ...] = ()  # by age; replaced whole
        self.damaged: Mapping[str, str] = {}  # why a snapshot can not be used, by its name
        self.publication: Callable[[], Publication | None] = lambda: None  # what is published now
        self._directory = os.path.join(root, PRIVATE, "snapshots")
        self._root = root
        self._keeper = keeper
        self._clock = clock
        self._held: Counter[str] = Counter()  # by how many snapshots each pkgid is named
        self._views: OrderedDict[str, View] = OrderedDict()
        self._lock = threading.Lock()  # of the views and verdicts
        self._verdicts: dict[tuple[str, Stamp], bool] = {}
        self._extra: tuple[object, object, int] | None = None  # replaced whole

    # -- for the index -----------------------------------------------------------------------

    def open(self) -> None:
        """Take note of the snapshots that there are. Raises OSError."""
        self._held, self.damaged = Counter(), {}
        summaries = []
        for name in sorted(self._names()):
            if name.startswith("."):
                shutil.rmtree(self._path(name), ignore_errors=True)
                continue
            try:
                snapshot = self._read(name)
            except (OSError, BadSnapshot) as error:
                self._mark_damaged(name, str(error))
            else:
                self._count(snapshot)
                summaries.append(Summary.of(snapshot))
        self.summaries = _in_order(summaries)
        with self._lock:
            self._views.clear()

    @property
    def held(self) -> Collection[str] | None:
        """The pkgids that have to be kept; None where that is not known: a snapshot can not be read."""
        return None if self.damaged else self._held.keys()

    def take(
        self, name: str, *, by: str | None, tree: Tree, publication: Publication, stamps: dict[str, Stamp]
    ) -> Summary:
        """Keep what is published under a name.

        Into `stamps` comes what stat says of the listed files now, also where this fails: a hard link changes
        their ctime. Raises Misunderstood, Conflict, Changing and OSError; there is no snapshot then. And
        Unfinished, when there is one that may not last.
        """
        checked_name(name)
        if os.path.lexists(self._path(name)):
            raise Conflict(f"there is a snapshot {name} already; delete it first, or take another name")
        make_directories(self._directory, below=self._root)
        aside = self._path(f".new-{name}")
        shutil.rmtree(aside, ignore_errors=True)
        try:
            kept = self._hold(publication.entries, tree, stamps)
            self._keeper.settle()
            snapshot = Snapshot(name, publication.revision, self._clock.now(), by, kept)
            self._write(aside, snapshot, publication)
            os.rename(aside, self._path(name))
        except BaseException:
            shutil.rmtree(aside, ignore_errors=True)
            raise
        self._count(snapshot)
        summary = Summary.of(snapshot)
        self.summaries = _in_order([*self.summaries, summary])
        make_sure_of(self._directory)
        return summary

    def delete(self, name: str) -> list[str]:
        """Forget a snapshot; pkgids that none names any more. Raises Nameless, OSError and Unfinished."""
        checked_name(name)
        if not os.path.isdir(self._path(name)):
            raise self._nameless(name)
        named: Iterable[str] = ()
        if name not in self.damaged:
            try:
                named = {each.pkgid for each in self._read(name).packages.values()}
            except BadSnapshot as error:
                log.error("%s: %s; what it kept goes after the next start", self._path(name), error)
        gone = self._path(f".old-{name}")
        shutil.rmtree(gone, ignore_errors=True)
        os.rename(self._path(name), gone)
        self._held = self._held - Counter(named)
        self.summaries = tuple(each for each in self.summaries if each.name != name)
        self.damaged = {key: why for key, why in self.damaged.items() if key != name}
        with self._lock:
            self._views.pop(name, None)
        make_sure_of(self._directory)
        shutil.rmtree(gone, ignore_errors=True)
        return [pkgid for pkgid in named if pkgid not in self._held]

    def _hold(self, entries: Mapping[str, Entry], tree: Tree, stamps: dict[str, Stamp]) -> dict[str, Kept]:
        """Hold each package. Raises Changing and OSError."""
        kept: dict[str, Kept] = {}
        by_inode: dict[int, Stamp] = {}  # as they are since a link was made
        for name, entry in entries.items():
            path = _path(tree, name)
            stamp = _stamp(path)
            if stamp is None or stamp not in (entry.stamp, by_inode.get(entry.stamp.inode)):
                raise Changing(f"{name} is being changed; take the snapshot again when that is published")
            kept[name] = self._hold_one(path, entry)
            if (after := _stamp(path)) and after.is_moved(stamp):
                stamps[name] = by_inode[after.inode] = after
        return kept

    def _hold_one(self, path: str, entry: Entry) -> Kept:
        kept = Kept.of(entry)
        for _ in range(2):
            self._keeper.hold(path, pkgid=entry.pkgid)
            held = self._keeper.path_of(entry.pkgid)
            stamp = _stamp(held) if held else None
            if held and stamp:
                if kept.seems(stamp):
                    return kept
                if self._has_pkgid(held, stamp, entry.pkgid):  # another file with the same bytes
                    return replace(kept, mtime_ns=stamp.mtime_ns)
                self._keeper.drop([entry.pkgid])  # somebody wrote into it, by its name in the tree
        raise Changing(f"{entry.location_href} is being changed; take the snapshot again in a moment")

    def _write(self, aside: str, snapshot: Snapshot, publication: Publication) -> None:
        """The list, and the metadata as it is published. Raises Changing and OSError."""
        published, repodata = os.path.join(self._root, REPODATA), os.path.join(aside, REPODATA)
        os.makedirs(repodata)
        with open(os.path.join(published, REPOMD), "rb") as file:
            text = file.read()
        if hashlib.sha256(text).hexdigest() != publication.repomd.checksum:
            raise Changing("another program wrote repodata/; take the snapshot again in a moment")
        for record in publication.records:
            name = record.location_href.removeprefix(f"{REPODATA}/")
            _link_or_copy(os.path.join(published, name), os.path.join(repodata, name))
        for name in filter(_BESIDE.match, os.listdir(published)):
            with open(os.path.join(published, name), "rb") as file:
                write_durably(os.path.join(repodata, name), [file.read()])
        write_durably(os.path.join(repodata, REPOMD), [text])
        write_durably(os.path.join(aside, PACKAGES), snapshot.lines())
        fsync_directory(repodata)
        fsync_directory(aside)

    def _count(self, snapshot: Snapshot) -> None:
        """Replaces the whole, for other threads."""
        self._held = self._held + Counter({each.pkgid for each in snapshot.packages.values()})

    def _mark_damaged(self, name: str, why: str) -> None:
        log.error(
            "%s: the snapshot can not be used: %s; until it is put back or deleted, no package that a "
            "snapshot may name is removed",
            self._path(name),
            why,
        )
        self.damaged = {**self.damaged, name: why}

    # -- for any thread ----------------------------------------------------------------------

    def prepare(self, tree: Tree) -> None:
        """Hold what a link would not do for, so that `take` need not wait for it.

        Where the file system can share blocks, all packages: whoever writes over one in place changes
        nothing then. Else those that no link can be made of, which are copied. Raises Conflict where that
        needs more room than there is, OSError.
        """
        publication = self.publication()
        device, can_share = os.stat(self._root).st_dev, True
        to_copy: list[tuple[str, Entry]] = []
        for name, entry in publication.entries.items() if publication else ():
            path = _path(tree, name)
            with contextlib.suppress(FileNotFoundError, NotADirectoryError):
                status = os.stat(path)
                is_here = status.st_dev == device
                if self._keeper.path_of(entry.pkgid):
                    continue
                if can_share and is_here:
                    can_share = self._keeper.hold_apart(path, pkgid=entry.pkgid, may_copy=False)
                if not (can_share and is_here) and not (is_here and may_link(path, status)):
                    to_copy.append((path, entry))
        self._copy(to_copy)

    def _copy(self, files: Sequence[tuple[str, Entry]]) -> None:
        if not files:
            return
        needed, space = sum(entry.stamp.size for _, entry in files), space_at(self._root)
        if space and needed > space[0] - space[1] // SPARED:
            raise Conflict(
                f"{len(files)} packages, {needed} bytes, would have to be copied, for they lie on another "
                "file system or belong to another user; there is no room for that: give them to the user "
                "that the daemon runs as"
            )
        log.info("%s: %d packages are copied for a snapshot, %d bytes", self._root, len(files), needed)
        for path, entry in files:
            self._keeper.hold_apart(path, pkgid=entry.pkgid, may_copy=True)

    def find(self, name: str) -> View:
        """A snapshot to look into. Raises Nameless, and Conflict where it is damaged."""
        if why := self.damaged.get(name):
            raise Conflict(f"the snapshot {name} is damaged: {why}")
        if not any(each.name == name for each in self.summaries):
            raise self._nameless(name)
        with self._lock:
            if view := self._views.get(name):
                self._views.move_to_end(name)
                return view
        try:
            snapshot = self._read(name)
        except FileNotFoundError:
            raise self._nameless(name) from None
        except BadSnapshot as error:  # by now; the next start tells it in the status as well
            raise Conflict(f"the snapshot {name} is damaged: {error}") from error
        view = View(snapshot, self._path(name), partial(self._sure_path_of, taken_at=snapshot.created_at))
        with self._lock:
            if any(each.name == name for each in self.summaries):
                self._views[name] = view
            while len(self._views) > _VIEWS:
                self._views.popitem(last=False)
        return view

    def path_of(self, kept: Kept) -> str | None:
        """The file that seems to be a package, by size and mtime; None where nothing is it any more."""
        path = self._keeper.path_of(kept.pkgid)
        stamp = _stamp(path) if path else None
        if path and stamp and (kept.seems(stamp) or self._has_pkgid(path, stamp, kept.pkgid)):
            return path
        publication = self.publication()
        entry = publication.entries.get(kept.location_href) if publication else None
        listed = os.path.join(self._root, kept.location_href)
        if entry and entry.pkgid == kept.pkgid and entry.stamp == _stamp(listed):
            return listed
        return None

    def _sure_path_of(self, kept: Kept, *, taken_at: float) -> str | None:
        """As `path_of`, also where somebody wrote into the file and gave it its time again."""
        path = self.path_of(kept)
        stamp = _stamp(path) if path else None
        if not path or not stamp:
            return None
        is_untouched = stamp.ctime_ns / 1e9 < taken_at - COARSE
        return path if is_untouched or self._has_pkgid(path, stamp, kept.pkgid) else None

    def is_same(self, kept: Kept, entry: Entry) -> bool:
        """Whether a listed package is there, with these bytes; another algorithm may make pkgids now."""
        path = os.path.join(self._root, entry.location_href)
        stamp = _stamp(path)
        if stamp is None or not stamp.is_moved(entry.stamp):
            return False
        are_alike = len(kept.pkgid) == len(entry.pkgid)
        if are_alike and (stamp == entry.stamp or kept.pkgid != entry.pkgid):
            return kept.pkgid == entry.pkgid
        return self.has_bytes(path, kept.pkgid)  # also where only a name of the file came or went

    def has_bytes(self, path: str, pkgid: str) -> bool:
        """Whether a file has the bytes that a pkgid is the checksum of; read once while it stays the same."""
        stamp = _stamp(path)
        return stamp is not None and self._has_pkgid(path, stamp, pkgid)

    def lost(self, name: str) -> list[str]:
        """The locations of packages that a snapshot names and nothing has any more. Raises as `find`."""
        packages = self.find(name).snapshot.packages
        return [each.location_href for each in packages.values() if self.path_of(each) is None]

    @property
    def counts(self) -> tuple[int, int]:
        """How many there are, and how many of them can not be used."""
        return len(self.summaries) + len(self.damaged), len(self.damaged)

    def extra(self) -> int:
        """Bytes of packages that are kept for snapshots alone: no listed file has them."""
        publication, summaries = self.publication(), self.summaries
        entries = publication.entries if publication else {}
        if self._extra is None or self._extra[0] is not entries or self._extra[1] is not summaries:
            self._extra = (entries, summaries, self._beyond({each.pkgid for each in entries.values()}))
        return self._extra[2]

    def _beyond(self, listed: set[str]) -> int:
        total = 0
        for pkgid in self._held.keys() - listed:
            path = self._keeper.path_of(pkgid)
            stamp = _stamp(path) if path else None
            total += stamp.size if stamp else 0
        return total

    def _has_pkgid(self, path: str, stamp: Stamp, pkgid: str) -> bool:
        """Whether a file has these bytes; it is read once as long as nobody changes it."""
        known = self._verdicts.get((pkgid, stamp))
        if known is None:
            try:
                with open(path, "rb") as file:
                    known = hashlib.file_digest(file, algorithm_of(pkgid)).hexdigest() == pkgid
            except (OSError, BadSnapshot):
                return False
            with self._lock:
                if len(self._verdicts) >= _VERDICTS:
                    self._verdicts.clear()
                self._verdicts[pkgid, stamp] = known
        return known

    def _read(self, name: str) -> Snapshot:
        """Raises OSError and BadSnapshot."""
        with open(os.path.join(self._path(name), PACKAGES), "rb") as file:
            snapshot = Snapshot.parse(file.read())
        if snapshot.name != name:
            raise BadSnapshot(f"it was made under the name {snapshot.name}")
        return snapshot

    def _names(self) -> list[str]:
        try:
            return os.listdir(self._directory)
        except FileNotFoundError:
            return []

    def _nameless(self, name: str) -> Nameless:
        names = ", ".join(each.name for each in self.summaries[:20])
        return Nameless(f"there is no snapshot {name}; there is {names or 'none at all'}")

    def _path(self, name: str) -> str:
        return os.path.join(self._directory, name)


def _path(tree: Tree, location_href: str) -> str:
    """Where the file of a listed package lies; looked for only where there are links."""
    found = tree.look(location_href) if tree.has_links else None
    return found.path if found else tree.path(location_href)


class View:
    """One snapshot as clients see it."""

    def __init__(self, snapshot: Snapshot, directory: str, path_of: Callable[[Kept], str | None]) -> None:
        self.snapshot = snapshot
        self._repodata = os.path.join(directory, REPODATA)
        self._path_of = path_of
        self._directories: Mapping[str, list[Kept | str]] | None = None

    def find(self, location_href: str) -> Shown | None:
        """The file of a name, None where the snapshot has none. Raises Conflict where its bytes are lost."""
        directory, _, name = location_href.rpartition("/")
        if directory == REPODATA:
            return self._metadata(name)
        kept = self.snapshot.packages.get(location_href)
        if kept is None:
            return None
        if (path := self._path_of(kept)) is None:
            raise Conflict("the file was written over or removed since this snapshot was taken")
        return Shown(path, kept.pkgid)

    def entries(self, directory: str) -> list[tuple[str, bool, int, float]] | None:
        """Name, whether it is a directory, bytes, and mtime of what is in a directory ("" is the root)."""
        if directory == REPODATA:
            return [_told(entry) for entry in os.scandir(self._repodata)]
        if self._directories is None:
            self._directories = _by_directory(self.snapshot.packages.values())
        inside = self._directories.get(directory)
        if inside is None and directory:
            return None
        told = [
            (each, True, 0, self.snapshot.created_at)
            if isinstance(each, str)
            else (each.location_href.rpartition("/")[2], False, each.size, each.mtime_ns / 1e9)
            for each in inside or []
        ]
        return told if directory else [*told, (REPODATA, True, 0, self.snapshot.created_at)]

    def _metadata(self, name: str) -> Shown | None:
        path = os.path.join(self._repodata, name)
        if name == REPOMD:
            with open(path, "rb") as file:
                return Shown(path, hashlib.file_digest(file, "sha256").hexdigest())
        return Shown(path, None) if name and os.path.isfile(path) else None


def _told(entry: os.DirEntry[str]) -> tuple[str, bool, int, float]:
    status = entry.stat()
    return entry.name, entry.is_dir(), status.st_size, status.st_mtime


def _by_directory(packages: Iterable[Kept]) -> Mapping[str, list[Kept | str]]:
    """What is in each directory: packages, and the names of directories."""
    found: dict[str, list[Kept | str]] = {}
    for each in packages:
        directory, inside = each.location_href.rpartition("/")[0], found
        for above, name in _steps(directory):
            if f"{above}/{name}".lstrip("/") in inside:
                break
            inside[f"{above}/{name}".lstrip("/")] = []
            inside.setdefault(above, []).append(name)
        inside.setdefault(directory, []).append(each)
    return found


def _steps(directory: str) -> Iterator[tuple[str, str]]:
    """Each directory with the one above it, the deepest first."""
    while directory:
        above, _, name = directory.rpartition("/")
        yield above, name
        directory = above


def _in_order(summaries: Iterable[Summary]) -> tuple[Summary, ...]:
    return tuple(sorted(summaries, key=lambda each: (each.created_at, each.name)))


def _stamp(path: str) -> Stamp | None:
    with contextlib.suppress(OSError):
        return Stamp.of(os.stat(path))
    return None


def _link_or_copy(source: str, target: str) -> None:
    """A published metadata file, which is durable and never changed. Raises OSError."""
    try:
        os.link(source, target)
    except OSError:  # a file system without links, or the file is another user's (protected_hardlinks)
        with open(source, "rb") as file:
            write_durably(target, [file.read()])
