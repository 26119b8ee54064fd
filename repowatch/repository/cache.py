"""What a restart need not read again: which files were looked at, and what was published of them.

The cache says of each segment which packages it is made of and where its pieces lie in the published
metadata files; those are the store of the elements. While a large tree is read for the first time, and
nothing of it is published, finished runs are kept beside it with their pieces, in a file that grows.

Both may be deleted, half-written, stale, or from another machine: then packages are read again, and that is
all. A stale one is good for what it knows as long as the files it names are kept (`generations`).
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import os
from array import array
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, BinaryIO

from repowatch.model.catalog import Catalog
from repowatch.model.formats import Format, Piece
from repowatch.model.package import Entry, Rejected, Stamp
from repowatch.model.recipe import Recipe
from repowatch.model.segment import KINDS, Damaged, Run, Segment
from repowatch.repository.segments import frame, joined
from repowatch.system.files import remove_if_there

log = logging.getLogger(__name__)

# To be raised when the meaning of the file changes, or what createrepo_c writes of a package.
FORMAT = 3

# What reading something raises that `save` did not write.
_ODD = (ValueError, LookupError, TypeError, AttributeError, OverflowError)

_CHECKSUM = hashlib.sha256().digest_size * 2 + 1  # bytes of a line


class Outdated(Exception):
    """What was published says of each package what it is no longer to say."""


@dataclass(frozen=True, slots=True)
class Restored:
    """What a cache knew."""

    catalog: Catalog
    rejected: Mapping[str, Rejected]
    unchecked: frozenset[str]  # listed as another tool described them
    location_hrefs: tuple[str, ...]  # of the metadata files that hold the pieces
    held: Mapping[str, Entry]  # not listed, for another file holds a newer build


# -- what is published -----------------------------------------------------------------------


def save(
    path: str,
    catalog: Catalog,
    *,
    recipe: Recipe,
    rejected: Iterable[Rejected],
    unchecked: Iterable[str],
    files: Sequence[str],
    held: Iterable[Entry] = (),
) -> None:
    """Write the cache of what is published in `files`, by kind. Raises OSError.

    Nothing is synced: a torn file is told by its checksum.
    """
    content = {
        "format": FORMAT,
        "recipe": recipe.row(),
        "files": list(files),
        "rejected": [[each.location_href, _of_stamp(each.stamp), each.reason] for each in rejected],
        "unchecked": sorted(unchecked),
        "held": [entry.row() for entry in held],
    }
    aside = f"{path}.new"
    digest = hashlib.sha256()
    with open(aside, "wb") as file:
        # Line by line, so that other threads get their turn.
        for line in (content, *(_of_segment(segment, catalog.entries) for segment in catalog.segments)):
            text = _json(line)
            digest.update(text)
            file.write(text)
        file.write(digest.hexdigest().encode() + b"\n")
    os.rename(aside, path)


def load(path: str, root: str, recipe: Recipe) -> Restored | None:
    """What the cache at `path` knows of the repository at `root`; None when it is of no use.

    Raises Outdated when what is published has to be read anew.
    """
    form = recipe.form
    try:
        with open(path, "rb") as file:
            text = file.read()
        body, checksum = text[:-_CHECKSUM], text[-_CHECKSUM:]
        if hashlib.sha256(body).hexdigest().encode() != checksum.rstrip():
            raise ValueError("its checksum does not match")
        first, *lines = body.splitlines()
        content = json.loads(first)
        if content["format"] != FORMAT:
            raise ValueError(f"it has format {content['format']}, not {FORMAT}")
        _, checksum_type, changelogs, policy = content["recipe"]
        if (checksum_type, changelogs) != (recipe.checksum, recipe.changelogs):
            raise Outdated("the checksum, or how many changelog entries are kept, was another")
        if policy != recipe.policy.row():
            raise Outdated("other packages were let in, or other keys")
        if content["recipe"] != recipe.row():
            raise ValueError("the profile was another one")
        files = [_read(root, name, recipe.checksum) for name in content["files"]]
        return Restored(
            Catalog.restored(_published([json.loads(line) for line in lines], files, form), form),
            {row[0]: Rejected(row[0], _stamp(row[1]), row[2]) for row in content["rejected"]},
            frozenset(content["unchecked"]),
            tuple(content["files"]),
            {entry.location_href: entry for entry in map(Entry.of_row, content["held"])},
        )
    except Outdated:
        raise
    except FileNotFoundError as error:
        log.debug("no cache: %s", error)
    except (OSError, *_ODD) as error:
        log.info("%s is of no use (%s); packages are read again", path, error)
    return None


def _read(root: str, location_href: str, checksum_type: str) -> bytes:
    """A metadata file whose name is its checksum."""
    with open(os.path.join(root, location_href), "rb") as file:
        content = file.read()
    checksum = hashlib.new(checksum_type, content).hexdigest()
    if not os.path.basename(location_href).startswith(f"{checksum}-"):
        raise ValueError(f"{location_href} is damaged")
    return content


def _published(rows: Sequence[Any], files: Sequence[bytes], form: Format) -> list[Run]:
    """The runs whose pieces stand one after the other in the metadata files, and fill them."""
    count = sum(len(row[0]) for row in rows)
    at = [form.lead + len(form.compress(frame(kind, count)[0]).packed) for kind in range(len(KINDS))]
    runs = []
    for row in rows:
        ends = [start + size for start, (size, _) in zip(at, row[1], strict=True)]
        packed = [content[start:end] for content, start, end in zip(files, at, ends, strict=True)]
        runs.append(_run(row, packed, form))
        at = ends
    segments = [run.segment for run in runs]
    if any(b"".join(joined(kind, segments, form)) != content for kind, content in enumerate(files)):
        raise Damaged("the pieces do not make up the files")
    return runs


# -- what is read and not yet published ------------------------------------------------------


class Progress:
    """A file of runs that were read, each behind a checksum of its own; it ends where one does not match."""

    def __init__(self, path: str, recipe: Recipe) -> None:
        self._path = path
        self._form = recipe.form
        self._head = _json({"format": FORMAT, "recipe": recipe.row()})
        self._file: BinaryIO | None = None
        self._is_empty = False  # there is nothing to discard

    def load(self) -> list[Run]:
        """The runs of a reading that was stopped or killed; the next ones are added behind them."""
        runs: list[Run] = []
        with contextlib.suppress(FileNotFoundError), open(self._path, "r+b") as file:
            if file.readline() == self._head:
                while (run := self._next(file)) is not None:
                    runs.append(run)
                return runs
        self.discard()
        return []

    def _next(self, file: BinaryIO) -> Run | None:
        """The next run; None, and the file cut off there, where there is none."""
        start = file.tell()
        checksum, _, line = file.readline().partition(b" ")
        rest = os.fstat(file.fileno()).st_size - file.tell()
        with contextlib.suppress(*_ODD):
            row = json.loads(line)
            sizes = [size for size, _ in row[1]]
            if min(sizes) < 0 or sum(sizes) > rest:
                raise ValueError("it says more than there is")
            packed = [file.read(size) for size in sizes]
            if hashlib.sha256(b"".join([line, *packed])).hexdigest().encode() == checksum:
                return _run(row, packed, self._form)
        file.truncate(start)
        return None

    def add(self, run: Run) -> None:
        """Keep one more. Raises OSError."""
        self._is_empty = False
        if self._file is None:
            self._file = open(self._path, "ab")  # noqa: SIM115 - closed by `close` and `discard`
            if not self._file.tell():
                self._file.write(self._head)
        line = _json(_of_segment(run.segment, {entry.location_href: entry for entry in run.entries}))
        parts = [line, *(run.segment.piece(kind).packed for kind in range(len(KINDS)))]
        checksum = hashlib.sha256(b"".join(parts)).hexdigest().encode()
        self._file.writelines([checksum, b" ", *parts])
        self._file.flush()

    def close(self) -> None:
        if self._file is not None:
            with contextlib.suppress(OSError):  # what can not be written is found torn
                self._file.close()
            self._file = None

    def discard(self) -> None:
        """Forget all: it is published, or of no use. Raises OSError."""
        self.close()
        if not self._is_empty:
            remove_if_there(self._path)
            self._is_empty = True


# -- rows ------------------------------------------------------------------------------------


def _json(value: object) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode() + b"\n"


def _of_segment(segment: Segment, entries: Mapping[str, Entry]) -> tuple[Any, ...]:
    """Its packages, each with the lengths of its elements, and size and CRC-32 of its pieces."""
    packages = [
        (*entries[name].row(), *lengths)
        for name, *lengths in zip(segment.location_hrefs, *segment.lengths, strict=True)
    ]
    pieces = [segment.piece(kind) for kind in range(len(KINDS))]
    return packages, [(len(piece.packed), piece.crc) for piece in pieces]


def _run(row: Sequence[Any], packed: Sequence[bytes], form: Format) -> Run:
    packages, pieces = row
    entries = tuple(Entry.of_row(each[: -len(KINDS)]) for each in packages)
    lengths = [array("L", column) for column in list(zip(*packages, strict=True))[-len(KINDS) :]]
    sealed = [
        Piece(content, sum(column), crc)
        for content, column, (_, crc) in zip(packed, lengths, pieces, strict=True)
    ]
    return Run(entries, Segment([entry.location_href for entry in entries], lengths, form, pieces=sealed))


def _of_stamp(stamp: Stamp | None) -> list[int] | None:
    return [stamp.size, stamp.mtime_ns, stamp.ctime_ns, stamp.inode] if stamp else None


def _stamp(numbers: Sequence[int] | None) -> Stamp | None:
    return None if numbers is None else Stamp(*map(int, numbers))
