"""Publication: the one place that writes repomd.xml, and the order that keeps every view whole.

    1. write the metadata files aside, fsync each (`write_aside`, while they are still being hashed)
    2. give them their checksums' names, write repomd.xml aside, fsync it and repodata/
       where the repository is signed: sign it, write the signature aside, fsync it
    3. rename the arrived packages to their names, fsync their directories
    4. rename the signature, then repomd.xml, fsync repodata/
    5. remove the packages that were deleted, or rename them into `retired`

A client that read the old repomd.xml finds its files, because they are removed only later
(`generations`); one that read the new finds its files, because they were durable before it was. What can
run out of space comes before the first step that clients can see. A process that dies anywhere leaves
either the old view or the new one, and at most files that no repomd.xml names.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

from repowatch.errors import RepowatchError, Unfinished
from repowatch.model.companion import is_ours
from repowatch.model.publication import RepomdFile
from repowatch.model.repomd import LARGEST, BadRepomd, Record, Repomd, parse, render
from repowatch.model.segment import KINDS
from repowatch.model.signing import Signed
from repowatch.repository.generations import Generations
from repowatch.repository.segments import MetadataFile
from repowatch.repository.signing import SignBy, Signing
from repowatch.system.clock import Clock
from repowatch.system.files import (
    fsync_directory,
    make_directories,
    make_sure_of,
    remove_if_there,
    write_durably,
)

# Record types that are made here, or that other tools make from the same packages: never carried along.
_MADE = frozenset(f"{kind}{form}" for kind in (*KINDS, "filelists-ext") for form in ("", "_db", "_zck"))


Ready = Callable[[str], None]  # takes the SHA-256 of the repomd.xml that will stand when all is done


@dataclass(frozen=True, slots=True)
class Placement:
    """A package to be renamed to its name in the tree."""

    staged: str
    target: str
    check: Callable[[], None]  # made right before the rename; raises what refuses it


class PlacementRefused(RepowatchError):
    """A package could not get its name; nothing was published, but those of `placed` have theirs."""

    def __init__(self, refused: Placement, error: Exception, *, placed: Sequence[Placement]) -> None:
        super().__init__(str(error))
        self.refused = refused
        self.error = error
        self.placed = tuple(placed)


class NotShown(RepowatchError):
    """The packages have their names for good, but not so the metadata that lists them."""

    def __init__(self, error: OSError) -> None:
        super().__init__(str(error))
        self.error = error


class Publisher:
    """Writes one repository's repodata/. Not safe for use from several threads."""

    def __init__(
        self,
        root: str,
        *,
        staging: str,
        clock: Clock,
        keep_space: int | None,
        sign_by: SignBy | None = None,
        retire: Callable[[Sequence[str]], Sequence[str]] = lambda paths: paths,
    ) -> None:
        """`retire` keeps those of the files to be removed that it was told of, and returns the others."""
        self.directory = os.path.join(root, "repodata")
        self._root = root
        self._staging = staging
        self._clock = clock
        self._retire = retire
        self.generations = Generations(self.directory, keep_space=keep_space)
        note = os.path.join(os.path.dirname(staging), "cache", "signed")
        self.signing = Signing(self.directory, staging=staging, note=note, clock=clock, by=sign_by)
        self.repomd = Repomd(0, ())
        self.repomd_file = RepomdFile("", 0)
        self._good: set[str] = set()  # names of files known to be whole on disk
        self._is_durable = True  # whether the repomd.xml that clients see survives a power cut
        self._companions: Sequence[Record] = ()  # records beside those of packages
        self._replaced: frozenset[str] = frozenset()  # types in whose place they are, or nothing is

    def take_over(self) -> None:
        """Go on from what is published. A missing or damaged repomd.xml counts as one without records.

        Raises OSError.
        """
        make_directories(self.directory, below=self._root)
        revision, text = self.repomd.revision, None
        self.repomd, self.repomd_file = Repomd(0, ()), RepomdFile("", 0)
        with contextlib.suppress(FileNotFoundError, BadRepomd), open(self._path("repomd.xml"), "rb") as file:
            text = file.read()
            self.repomd = parse(text)
            self.repomd_file = RepomdFile.of(text, os.fstat(file.fileno()))
        self.signing.take_over(text)
        # Clients may have seen the revision before that: yum refuses an older one.
        self.repomd = replace(self.repomd, revision=max(revision, self.repomd.revision))
        self._good = {
            os.path.basename(record.location_href) for record in self.repomd.records if self._is_whole(record)
        }
        self._supersede(os.listdir(self.directory))

    def is_disturbed(self) -> bool:
        """Whether something else wrote repodata/ since the last publication."""
        try:
            status = os.stat(self._path("repomd.xml"))
            sizes = [
                os.stat(os.path.join(self._root, each.location_href)).st_size for each in self.repomd.records
            ]
        except FileNotFoundError:
            return True
        is_other = status.st_ino != self.repomd_file.inode or self.signing.is_disturbed()
        return is_other or sizes != [each.size for each in self.repomd.records]

    def is_published(self, files: Sequence[MetadataFile]) -> bool:
        """Whether just these files are published, durable and whole already."""
        made = {record.type: record.checksum for record in self.repomd.records if record.type in _MADE}
        return (
            self._is_durable
            and made == {file.kind: file.checksum for file in files}
            and all(file.name in self._good for file in files)
            and self.signing.is_right()
            and self.carries_all()
        )

    def is_current(self, location_hrefs: Sequence[str]) -> bool:
        """Whether just these metadata files are published and whole."""
        made = [record.location_href for record in self.repomd.records if record.type in _MADE]
        return sorted(made) == sorted(location_hrefs) and all(
            os.path.basename(location_href) in self._good for location_href in made
        )

    def is_whole(self) -> bool:
        """Whether the files of all packages are published and whole, whoever wrote them."""
        made = {record.type: record.location_href for record in self.repomd.records}
        return all(kind in made and os.path.basename(made[kind]) in self._good for kind in KINDS)

    def publish(
        self,
        files: Sequence[MetadataFile],
        *,
        placements: Sequence[Placement] = (),
        removals: Sequence[str] = (),
        ready: Ready = lambda repomd: None,
    ) -> Repomd:
        """Publish these files in the order above; what clients see then.

        The files were written by `write_aside`; `ready` is called before the first rename, with the SHA-256
        of the coming repomd.xml. Raises PlacementRefused and OSError where nothing was shown, and NotShown
        and Unfinished where a package has its name already; `repomd` says which revision clients see.
        """
        try:
            repomd, aside, text, signed = self._prepare(files)
            ready(hashlib.sha256(text).hexdigest())
        except BaseException:
            self.discard(files)
            raise
        try:
            self.place(placements)
        except RepowatchError:
            self.discard(files)
            raise
        try:
            self.signing.place(signed)
            os.rename(aside, self._path("repomd.xml"))
        except OSError as error:
            self.discard(files)
            self.signing.take_back(signed)
            if placements:
                raise NotShown(error) from error
            raise
        self._is_durable = False
        self._show(repomd, text, files)
        self.signing.shown(signed)
        try:
            fsync_directory(self.directory)
        except OSError as error:
            raise (NotShown(error) if placements else Unfinished(error)) from error
        self._is_durable = True
        self.remove(removals)
        return repomd

    def _prepare(self, files: Sequence[MetadataFile]) -> tuple[Repomd, str, bytes, Signed | None]:
        """Step 2: what will be published, where its repomd.xml lies until then, its text and signature."""
        for file in files:
            if file.name in self._good:
                remove_if_there(self._aside(file.kind))
            else:
                os.rename(self._aside(file.kind), self._path(file.name))
        now = max([int(self._clock.now()), *(record.timestamp for record in self.repomd.records)])
        companions = (self._dated(record, now) for record in self._companions)
        records = (*(self._record(file, now) for file in files), *companions, *self._carried())
        repomd = Repomd(max(self.repomd.revision + 1, int(self._clock.now())), records)
        text = render(repomd)
        if len(text) > LARGEST:
            raise RepowatchError(f"repomd.xml would have {len(text)} bytes; yum reads at most {LARGEST}")
        aside = os.path.join(self._staging, "repomd.xml")
        write_durably(aside, [text])
        signed = self.signing.sign(text)
        fsync_directory(self.directory)
        return repomd, aside, text, signed

    def _show(self, repomd: Repomd, text: bytes, files: Sequence[MetadataFile]) -> None:
        """Take note of what clients see from now on."""
        before, self.repomd = self.repomd, repomd
        self.repomd_file = RepomdFile.of(text, os.stat(self._path("repomd.xml")))
        self._good |= {file.name for file in files}
        self.generations.published(
            _names(repomd.records), before=_names(before.records), now=self._clock.monotonic()
        )

    def _supersede(self, names: Iterable[str]) -> None:
        """Files that no repomd.xml names go the way of those that one named."""
        current = _names(self.repomd.records)
        self.generations.found(names, current=current, now=self._clock.monotonic())

    # -- beside the packages -----------------------------------------------------------------

    def carry(self, records: Sequence[Record], *, instead_of: frozenset[str], kinds: Iterable[str]) -> None:
        """Have these records in every publication from now on, and no others of the types `instead_of`.

        Their files were `put` before. `kinds` are those that were ever ours. Raises OSError.
        """
        self._companions, self._replaced = tuple(records), instead_of
        ours = is_ours(kinds)
        if ours != self.generations.companions:
            self.generations.companions = ours
            self._supersede(os.listdir(self.directory))

    def carries_all(self) -> bool:
        """Whether what is published has just the records that it should have beside those of packages."""
        wanted = {(record.type, record.location_href) for record in self._companions}
        records = [record for record in self.repomd.records if record.type in self._replaced]
        found = {(record.type, record.location_href) for record in records}
        return wanted == found and all(map(self.has, self._companions))

    def has(self, record: Record) -> bool:
        """Whether the file of a record is there, and whole."""
        return os.path.basename(record.location_href) in self._good

    def put(self, record: Record, parts: Sequence[bytes]) -> None:
        """Give a record its file, which counts as superseded until it is published. Raises OSError."""
        if not self.has(record):
            name, aside = os.path.basename(record.location_href), self._aside("companion")
            write_durably(aside, parts)
            os.rename(aside, self._path(name))
            self._good.add(name)
            self.generations.found([name], current=(), now=self._clock.monotonic())

    def _dated(self, record: Record, now: int) -> Record:
        for each in self.repomd.records:
            if (each.type, each.checksum) == (record.type, record.checksum):
                now = each.timestamp
        return replace(record, timestamp=now)

    # -- files -------------------------------------------------------------------------------

    def write_aside(self, kind: str, parts: Sequence[bytes]) -> None:
        """Step 1, for one metadata file; may be called from any thread. Raises OSError."""
        write_durably(self._aside(kind), parts)

    def discard(self, files: Sequence[MetadataFile] = ()) -> None:
        """Remove what was written for a publication that is not to be: a full disk needs the room."""
        paths = [self._aside(kind) for kind in KINDS]
        paths += [self._path(name) for name in {file.name for file in files} - self._good]
        for path in paths:
            with contextlib.suppress(OSError):
                os.unlink(path)

    def place(self, placements: Sequence[Placement]) -> None:
        """Step 3: rename packages to their names, durably. Raises PlacementRefused and Unfinished."""
        placed: list[Placement] = []
        try:
            for placement in placements:
                try:
                    placement.check()
                    make_directories(os.path.dirname(placement.target), below=self._root)
                    os.rename(placement.staged, placement.target)
                except (OSError, RepowatchError) as error:
                    raise PlacementRefused(placement, error, placed=placed) from error
                placed.append(placement)
        finally:
            directories = {os.path.dirname(path) for each in placed for path in (each.staged, each.target)}
            # What comes back into staging after a power cut, the next start clears.
            make_sure_of(*(directories - {self._staging}))

    def remove(self, paths: Sequence[str]) -> None:
        """Step 5: remove package files, durably. Raises OSError and Unfinished."""
        paths = self._retire(paths)
        for path in paths:
            remove_if_there(path)
        make_sure_of(*{os.path.dirname(path) for path in paths if os.path.isdir(os.path.dirname(path))})

    def sweep(self) -> list[str]:
        """Remove the superseded files whose time has come; their names."""
        removed = self.generations.sweep(self._clock.monotonic())
        self._good.difference_update(removed)
        return removed

    def _record(self, file: MetadataFile, now: int) -> Record:
        for record in self.repomd.records:
            if record.type == file.kind and record.checksum == file.checksum:
                now = record.timestamp
        return Record(
            type=file.kind,
            checksum=file.checksum,
            checksum_type=file.checksum_type,
            location_href=f"repodata/{file.name}",
            timestamp=now,
            size=file.size,
            open_checksum=file.open_checksum,
            open_checksum_type=file.checksum_type,
            open_size=file.open_size,
        )

    def _carried(self) -> tuple[Record, ...]:
        """Records of other kinds that another tool put into repomd.xml: group, updateinfo, modules, ..."""
        return tuple(
            record
            for record in self.repomd.records
            if record.type not in _MADE
            and record.type not in self._replaced
            and os.path.exists(os.path.join(self._root, record.location_href))
        )

    def _is_whole(self, record: Record) -> bool:
        try:
            with open(os.path.join(self._root, record.location_href), "rb") as file:
                return hashlib.file_digest(file, record.checksum_type).hexdigest() == record.checksum
        except (OSError, ValueError):
            return False

    def _path(self, name: str) -> str:
        return os.path.join(self.directory, name)

    def _aside(self, kind: str) -> str:
        return os.path.join(self._staging, f"{kind}.xml")


def _names(records: Sequence[Record]) -> list[str]:
    return [os.path.basename(record.location_href) for record in records]
