"""Groups, modules, advisories: files of the tree that become records of the next publication.

Each is looked at as packages are: by its stamp, when it is quiet. One that clients could use is copied into
`.repowatch/companions/`, and the records are made of the copies; so what was good last stays published
while the file in the tree is broken, over any restart. `state` there says which copy belongs to which name,
and is written before a publication that needs it. Deleting all of it loses that memory, and nothing else.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import os
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import astuple, dataclass, replace
from typing import Any

from repowatch.errors import BadMetadata, ChangedWhileRead
from repowatch.model.companion import ADVISORIES, Content, Names, Read, make, replaced_by
from repowatch.model.formats import FORMATS
from repowatch.model.package import Entry, Nevra, Rejected, Stamp
from repowatch.model.recipe import Recipe
from repowatch.model.repomd import Record
from repowatch.repository.publisher import Publisher
from repowatch.repository.tree import Found, Tree
from repowatch.system.files import fsync_directory, make_directories, write_durably

log = logging.getLogger(__name__)

FORMAT = 1  # to be raised when the meaning of `state` changes, or what is made of a file

_NOTHING = Read()

_ODD = (ValueError, LookupError, TypeError, AttributeError)


@dataclass(frozen=True, slots=True)
class Source:
    """A file in the tree."""

    stamp: Stamp | None
    reason: str | None  # why it can not be used as it is
    copy: str | None  # the SHA-256 of the copy that is published; None where it never could be used
    read: Read = _NOTHING  # what is in that copy


@dataclass(frozen=True, slots=True)
class Told:
    """What the status says of a file."""

    location: str
    type: str
    state: str  # published, kept (an older content is), or rejected
    reason: str | None
    unlisted: tuple[str, ...] = ()  # packages that an advisory names, and the repository does not list


@dataclass(frozen=True, slots=True)
class _Handed:
    """What the publisher was told last, and of what it was made."""

    sources: Mapping[str, Source]
    claimed: frozenset[str]
    there: frozenset[str]  # kinds that have a file
    records: Sequence[Record]
    instead_of: frozenset[str]


class Companions:
    """The files of one repository that are no packages and have a record. For the updater's thread, but for
    `rejected`, `tell` and `examine`."""

    def __init__(self, tree: Tree, *, directory: str, name: str, recipe: Recipe) -> None:
        """`directory` is where the copies are kept; `name` is the repository's, for the log."""
        self.rejected: Mapping[str, Rejected] = {}  # replaced whole
        self._tree = tree
        self._names = tree.companions
        self._directory = directory
        self._name = name
        self._recipe = recipe
        self._sources: Mapping[str, Source] = {}  # replaced whole
        self._claimed: frozenset[str] = frozenset()  # kinds whose records are ours
        self._had: frozenset[str] = frozenset()  # kinds that ever were
        self._saved: tuple[object, object] | None = None
        self._made: dict[str, tuple[object, Sequence[Record]]] = {}  # by kind: of what, and the records
        self._handed: _Handed | None = None

    def open(self) -> None:
        """Go on from what is known. What can not be read is forgotten."""
        self._forget()
        try:
            with open(self._path("state"), "rb") as file:
                state = json.load(file)
            if state["format"] == FORMAT:
                self._sources = {name: self._restored(row) for name, row in state["sources"].items()}
                self._claimed = frozenset(map(str, state["claimed"]))
                self._had = frozenset(map(str, state["had"]))
                self._made = {row[0]: _made(row) for row in state["made"]}
        except FileNotFoundError:
            pass
        except (OSError, *_ODD) as error:
            log.warning("%s: %s is of no use: %s", self._name, self._path("state"), error)
            self._forget()
        self._judge()

    def _forget(self) -> None:
        self._sources, self._claimed, self._had = {}, frozenset(), frozenset()
        self._saved, self._made, self._handed = None, {}, None

    def _restored(self, row: Sequence[Any]) -> Source:
        stamp, reason, copy, ids, packages = row
        if copy is not None and not os.path.exists(self._path(copy)):
            return Source(None, reason, None)  # to be looked at again
        read = Read(tuple(ids), tuple(Nevra(*each) for each in packages))
        return Source(None if stamp is None else Stamp(*map(int, stamp)), reason, copy, read)

    # -- files -------------------------------------------------------------------------------

    def look(self, names: set[str], *, settle: float | None, now: float) -> set[str]:
        """Look at those of the names that are such files, or where they may be; take the files' out of them.

        Files that changed in the last `settle` seconds (None: as they are) may still be written to: they are
        left, and their names returned. Raises OSError when what is good can not be kept.
        """
        files = {name for name in names if self._names.kind_of(name)}
        if not files and names.isdisjoint(self._names.directories):
            return set()
        names -= files
        for directory in names & self._names.directories:
            files |= self._below(directory)
        sources, unsettled = dict(self._sources), set[str]()
        for name in sorted(files):
            found = self._tree.find(name) if self._names.kind_of(name) else None
            if found is None:
                sources.pop(name, None)
            elif settle is not None and found.stamp and now - settle < found.stamp.ctime_ns / 1e9 <= now:
                unsettled.add(name)
            elif found.stamp is None or found.stamp != _stamp_of(sources.get(name)):
                self._take(found, sources, unsettled)
        if sources != self._sources:
            self._sources = sources
        self._judge()
        return unsettled

    def _below(self, directory: str) -> set[str]:
        """What may be there, or was."""
        prefix = f"{directory}/" if directory else ""
        names = _names_in(self._tree) | self._sources.keys()
        return {
            name
            for name in names
            if name.startswith(prefix) and (self._names.kind_of(name) or name in self._sources)
        }

    def _take(self, found: Found, sources: dict[str, Source], unsettled: set[str]) -> None:
        """Read a file that is not known as it is, and keep what can be used of it."""
        name, before = found.location_href, sources.get(found.location_href)
        old = before or Source(None, None, None)
        try:
            if found.problem is not None or found.stamp is None:
                raise BadMetadata(found.problem or "not readable")
            content = content_of(found.path, name, self._names, stamp=found.stamp)
            read = read_of(self._names, name, content)
        except (FileNotFoundError, ChangedWhileRead):
            unsettled.add(name)
        except OSError as error:
            reason = f"not readable: {(error.strerror or str(error)).lower()}"
            sources[name] = replace(old, stamp=None, reason=reason)
        except BadMetadata as error:
            sources[name] = replace(old, stamp=found.stamp, reason=str(error))
        else:
            sources[name] = Source(found.stamp, None, self._keep(content), read)

    def _keep(self, content: bytes) -> str:
        """Copy what is good, durably; the name of the copy. Raises OSError."""
        checksum = hashlib.sha256(content).hexdigest()
        if not os.path.exists(self._path(checksum)):
            make_directories(self._directory, below=self._tree.root)
            write_durably(self._path(f"{checksum}.new"), [content])
            os.rename(self._path(f"{checksum}.new"), self._path(checksum))
        return checksum

    def _judge(self) -> None:
        """Say which files can not be published, and why."""
        twice = self._twice()
        reasons = {name: each.reason for name, each in self._sources.items() if each.reason} | twice
        rejected = {
            name: Rejected(name, self._sources[name].stamp, reason)
            for name, reason in sorted(reasons.items())
        }
        for name, each in rejected.items():
            if name not in self.rejected or self.rejected[name].reason != each.reason:
                kept = self._sources[name].copy is not None and name not in twice
                log.warning(
                    "%s: not published: %s: %s%s",
                    self._name,
                    name,
                    each.reason,
                    "; what it said before stays" if kept else "",
                )
        if rejected != self.rejected:
            self.rejected = rejected

    def _twice(self) -> dict[str, str]:
        """Files whose advisories have the id of another, and which they have: updateinfo.xml comes first."""
        ids: dict[str, str] = {}
        left_out: dict[str, str] = {}
        for name in sorted(self._sources, key=_order):
            for each in self._sources[name].read.ids:
                if ids.setdefault(each, name) != name:
                    left_out[name] = f"the id {each} is in {ids[each]} already"
        return left_out

    # -- for other threads -------------------------------------------------------------------

    def examine(self, location_href: str, path: str) -> None:
        """Look at a file that is to get such a name. Raises BadMetadata with line and reason, OSError."""
        read = read_of(self._names, location_href, content_of(path, location_href, self._names))
        for name, source in self._sources.items():
            if name != location_href and (same := set(read.ids) & set(source.read.ids)):
                raise BadMetadata(f"the id {min(same)} is in {name} already")

    def tell(self, entries: Mapping[str, Entry]) -> list[Told]:
        """What is known of each file, where these packages are listed."""
        rejected, sources = self.rejected, self._sources
        listed = {each.nevra for each in entries.values()} if any(_packages(sources)) else set()
        told = []
        for name, source in sorted(sources.items()):
            reason = rejected[name].reason if name in rejected else None
            is_kept = source.copy is not None and source.reason is not None
            state = "published" if reason is None else "kept" if is_kept else "rejected"
            unlisted = tuple(str(each) for each in source.read.packages if each not in listed)
            told.append(Told(name, self._names.kind_of(name) or "", state, reason, unlisted))
        return told

    # -- publication -------------------------------------------------------------------------

    def hand_over(self, publisher: Publisher) -> None:
        """Tell the publisher the records of the next publication; their files are written then.

        Raises OSError and BadMetadata; nothing was shown.
        """
        handed = self._handed
        if handed is None or not self._is_as_handed(handed, publisher):
            handed = self._handed = self._to_hand(publisher)
        publisher.carry(handed.records, instead_of=handed.instead_of, kinds=self._had)

    def _is_as_handed(self, handed: _Handed, publisher: Publisher) -> bool:
        is_same = handed.sources is self._sources and handed.claimed is self._claimed
        return is_same and all(map(publisher.has, handed.records))

    def _to_hand(self, publisher: Publisher) -> _Handed:
        kinds: dict[str, dict[str, str]] = {}  # by kind: the copies to make it of, by name
        left_out = self._twice()
        for name, source in self._sources.items():
            kind = self._names.kind_of(name) or ""
            if kind and source.copy and name not in left_out:
                kinds.setdefault(kind, {})[name] = source.copy
        there = frozenset(self._names.kind_of(name) or "" for name in self._sources)
        records: list[Record] = []
        for kind, copies in sorted(kinds.items()):
            records += self._records(kind, copies, publisher)
        # One that is there and never could be used leaves what another tool published.
        gone = self._claimed - there
        if not kinds.keys() <= self._claimed:
            self._claimed = self._claimed.union(kinds)
            self._had = self._had.union(kinds)
        self._save()
        replaced = frozenset[str]().union(*(replaced_by(kind) for kind in (*kinds, *gone)))
        return _Handed(self._sources, self._claimed, there, records, replaced)

    def shown(self) -> None:
        """What was handed over is published: records that went are no longer ours."""
        if self._handed and not self._claimed <= self._handed.there:
            self._claimed &= self._handed.there
            with contextlib.suppress(OSError):
                self._save()

    def _records(self, kind: str, copies: Mapping[str, str], publisher: Publisher) -> Sequence[Record]:
        key = [FORMAT, self._recipe.form.suffix, self._recipe.checksum, *map(list, sorted(copies.items()))]
        before, records = self._made.get(kind, (None, ()))
        if before == key and all(publisher.has(record) for record in records):
            return records
        checksum, made = self._recipe.checksum, []
        for content in self._contents(kind, copies):
            digest = hashlib.new(checksum)
            for part in content.parts:
                digest.update(part)
            record = Record(
                type=content.kind,
                checksum=digest.hexdigest(),
                checksum_type=checksum,
                location_href=f"repodata/{digest.hexdigest()}-{content.name}",
                timestamp=0,
                size=sum(map(len, content.parts)),
                open_checksum=content.opened[1] if content.opened else None,
                open_checksum_type=checksum,
                open_size=content.opened[0] if content.opened else None,
            )
            publisher.put(record, content.parts)
            made.append(record)
        self._made[kind] = key, tuple(made)
        self._saved = None
        return made

    def _contents(self, kind: str, copies: Mapping[str, str]) -> Sequence[Content]:
        """What is published of the copies; where that can not be, the files are to be looked at again."""
        sources = {}
        try:
            for name, copy in copies.items():
                with open(self._path(copy), "rb") as file:
                    sources[name] = file.read()
            return make(kind, sources, self._recipe.form, self._recipe.checksum)
        except (FileNotFoundError, BadMetadata):
            lost = {name: Source(None, None, None) for name in copies}
            self._sources = {**self._sources, **lost}
            raise

    def _save(self) -> None:
        """Write `state`, durably, if it says something new; and drop the copies that nothing needs."""
        now = (self._sources, self._claimed)
        if self._saved is not None and all(a is b for a, b in zip(now, self._saved, strict=True)):
            return
        if self._sources or self._claimed or os.path.exists(self._path("state")):
            content = {
                "format": FORMAT,
                "claimed": sorted(self._claimed),
                "had": sorted(self._had),
                "sources": {name: _row(each) for name, each in self._sources.items()},
                "made": [[kind, key, [_record_row(r) for r in rs]] for kind, (key, rs) in self._made.items()],
            }
            make_directories(self._directory, below=self._tree.root)
            write_durably(self._path("state.new"), [json.dumps(content, separators=(",", ":")).encode()])
            os.rename(self._path("state.new"), self._path("state"))
            fsync_directory(self._directory)
            self._drop_copies({each.copy for each in self._sources.values()})
        self._saved = now

    def _drop_copies(self, needed: Collection[str | None]) -> None:
        for name in os.listdir(self._directory):
            if name != "state" and name not in needed:
                with contextlib.suppress(OSError):
                    os.unlink(self._path(name))

    def _path(self, name: str) -> str:
        return os.path.join(self._directory, name)


def differences(tree: Tree, records: Mapping[str, Record]) -> Iterator[str]:
    """How what is published (by type) differs from what the files in the tree say now, in one line each."""
    kinds: dict[str, dict[str, bytes]] = {}
    broken: set[str] = set()
    ids: set[str] = set()
    for name in sorted(_names_in(tree), key=_order):
        kind, found = tree.companions.kind_of(name), tree.find(name)
        if kind is None or found is None:
            continue
        try:
            if found.problem is not None:
                raise BadMetadata(found.problem)
            content = content_of(found.path, name, tree.companions)
            read = read_of(tree.companions, name, content)
            if same := ids.intersection(read.ids):
                raise BadMetadata(f"the id {min(same)} is in another file already")
        except (OSError, BadMetadata, ChangedWhileRead) as error:
            yield f"{name}: {error}"
            broken.add(kind)
        else:
            ids.update(read.ids)
            kinds.setdefault(kind, {})[name] = content
    for kind in kinds.keys() - broken:
        yield from _compare(kind, kinds[kind], records)


def _compare(kind: str, sources: Mapping[str, bytes], records: Mapping[str, Record]) -> Iterator[str]:
    says = " and ".join(sorted(sources)[:3])
    for content in make(kind, sources, FORMATS["compatible"], "sha256"):
        record = records.get(content.kind)
        if record is None:
            yield f"repomd.xml names no {content.kind}, which is made of {says}"
            continue
        algorithm = record.open_checksum_type if record.open_checksum else record.checksum_type
        [again] = (
            each
            for each in make(kind, sources, FORMATS["compatible"], algorithm)
            if each.kind == content.kind
        )
        plain = hashlib.new(algorithm, b"".join(again.parts)).hexdigest()
        if (again.opened[1] if again.opened else plain) != (record.open_checksum or record.checksum):
            yield f"{content.kind}: it does not say what is in {says}"


def content_of(path: str, name: str, names: Names, *, stamp: Stamp | None = None) -> bytes:
    """What is in a file, which has this stamp. Raises BadMetadata, ChangedWhileRead and OSError."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    with open(descriptor, "rb") as file:
        size, most = os.fstat(descriptor).st_size, names.most(name)
        if size > most:
            raise BadMetadata(f"it has {size} bytes; {most} are the most that is read")
        content = file.read(size + 1)
        if len(content) != size or (stamp and Stamp.of(os.fstat(descriptor)) != stamp):
            raise ChangedWhileRead(f"{name} changed while it was read")
    return content


def read_of(names: Names, name: str, content: bytes) -> Read:
    """What is in a file. Raises BadMetadata, also for what nobody thought of: it concerns this file alone."""
    try:
        return names.read(name, content)
    except BadMetadata:
        raise
    except Exception as error:
        log.exception("%s: unexpected error", name)
        raise BadMetadata(f"unexpected error; the log has it: {error!r}") from error


def _names_in(tree: Tree) -> set[str]:
    """Every name that a file may have that is looked at here."""
    names = set(tree.companions.fixed())
    real = os.path.realpath(tree.path(ADVISORIES))
    if tree.may_lead_to(real):
        with contextlib.suppress(OSError):
            names |= {f"{ADVISORIES}/{each}" for each in os.listdir(real)}
    return names


def _order(name: str) -> tuple[bool, str]:
    """In which advisories of the same id count: those of updateinfo.xml first."""
    return name.startswith(ADVISORIES), name


def _packages(sources: Mapping[str, Source]) -> list[Nevra]:
    return [each for source in sources.values() for each in source.read.packages]


def _stamp_of(source: Source | None) -> Stamp | None:
    return source.stamp if source else None


def _row(source: Source) -> list[Any]:
    stamp = source.stamp
    numbers = [stamp.size, stamp.mtime_ns, stamp.ctime_ns, stamp.inode] if stamp else None
    packages = [astuple(each) for each in source.read.packages]
    return [numbers, source.reason, source.copy, list(source.read.ids), packages]


def _record_row(record: Record) -> list[Any]:
    return [
        *(record.type, record.checksum, record.location_href, record.size, record.checksum_type),
        *(record.open_checksum, record.open_size),
    ]


def _made(row: Sequence[Any]) -> tuple[object, Sequence[Record]]:
    _, key, rows = row
    return key, tuple(
        Record(
            type=kind,
            checksum=checksum,
            location_href=location_href,
            timestamp=0,
            size=int(size),
            checksum_type=checksum_type,
            open_checksum=open_checksum,
            open_checksum_type=checksum_type,
            open_size=open_size,
        )
        for kind, checksum, location_href, size, checksum_type, open_checksum, open_size in rows
    )
