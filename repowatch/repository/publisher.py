"""Publication: the one place that writes repomd.xml, and the order that keeps every view whole.

    1. write the metadata files aside, fsync each (`write_aside`, while they are still being hashed)
    2. give them their checksums' names, write repomd.xml aside, fsync it and repodata/
    3. rename the arrived packages to their names, fsync their directories
    4. rename repomd.xml, fsync repodata/
    5. remove the packages that were deleted

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
from repowatch.model.publication import RepomdFile
from repowatch.model.repomd import LARGEST, BadRepomd, Record, Repomd, parse, render
from repowatch.model.segment import KINDS
from repowatch.repository.generations import Generations
from repowatch.repository.segments import MetadataFile
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

    def __init__(self, root: str, *, staging: str, clock: Clock, keep_space: int | None) -> None:
        self.directory = os.path.join(root, "repodata")
        self._root = root
        self._staging = staging
        self._clock = clock
        self.generations = Generations(self.directory, keep_space=keep_space)
        self.repomd = Repomd(0, ())
        self.repomd_file = RepomdFile("", 0)
        self._good: set[str] = set()  # names of files known to be whole on disk
        self._is_durable = True  # whether the repomd.xml that clients see survives a power cut

    def take_over(self) -> None:
        """Go on from what is published. A missing or damaged repomd.xml counts as one without records.

        Raises OSError.
        """
        make_directories(self.directory, below=self._root)
        revision = self.repomd.revision
        self.repomd, self.repomd_file = Repomd(0, ()), RepomdFile("", 0)
        with contextlib.suppress(FileNotFoundError, BadRepomd), open(self._path("repomd.xml"), "rb") as file:
            text = file.read()
            self.repomd = parse(text)
            self.repomd_file = RepomdFile.of(text, os.fstat(file.fileno()))
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
        return status.st_ino != self.repomd_file.inode or sizes != [each.size for each in self.repomd.records]

    def is_published(self, files: Sequence[MetadataFile]) -> bool:
        """Whether just these files are published, durable and whole already."""
        made = {record.type: record.checksum for record in self.repomd.records if record.type in _MADE}
        return (
            self._is_durable
            and made == {file.kind: file.checksum for file in files}
            and all(file.name in self._good for file in files)
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
    ) -> Repomd:
        """Publish these files in the order above; what clients see then.

        The files were written by `write_aside`. Raises PlacementRefused and OSError where nothing was
        shown, and NotShown and Unfinished where a package has its name already; `repomd` says which
        revision clients see.
        """
        try:
            repomd, aside, text = self._prepare(files)
        except BaseException:
            self.discard(files)
            raise
        try:
            self.place(placements)
        except PlacementRefused:
            self.discard(files)
            raise
        try:
            os.rename(aside, self._path("repomd.xml"))
        except OSError as error:
            self.discard(files)
            if placements:
                raise NotShown(error) from error
            raise
        self._is_durable = False
        self._show(repomd, text, files)
        try:
            fsync_directory(self.directory)
        except OSError as error:
            raise (NotShown(error) if placements else Unfinished(error)) from error
        self._is_durable = True
        self.remove(removals)
        return repomd

    def _prepare(self, files: Sequence[MetadataFile]) -> tuple[Repomd, str, bytes]:
        """Step 2: what will be published, and where its repomd.xml lies until then."""
        for file in files:
            if file.name in self._good:
                remove_if_there(self._aside(file.kind))
            else:
                os.rename(self._aside(file.kind), self._path(file.name))
        now = max([int(self._clock.now()), *(record.timestamp for record in self.repomd.records)])
        records = (*(self._record(file, now) for file in files), *self._carried())
        repomd = Repomd(max(self.repomd.revision + 1, int(self._clock.now())), records)
        text = render(repomd)
        if len(text) > LARGEST:
            raise RepowatchError(f"repomd.xml would have {len(text)} bytes; yum reads at most {LARGEST}")
        aside = os.path.join(self._staging, "repomd.xml")
        write_durably(aside, [text])
        fsync_directory(self.directory)
        return repomd, aside, text

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
            location_href=f"repodata/{file.name}",
            timestamp=now,
            size=file.size,
            open_checksum=file.open_checksum,
            open_size=file.open_size,
        )

    def _carried(self) -> tuple[Record, ...]:
        """Records of other kinds that another tool put into repomd.xml: group, updateinfo, modules, ..."""
        return tuple(
            record
            for record in self.repomd.records
            if record.type not in _MADE and os.path.exists(os.path.join(self._root, record.location_href))
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
