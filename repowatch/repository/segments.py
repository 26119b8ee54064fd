"""Metadata files out of segments: what changed is compressed, all of it hashed, joined and written.

The three files are made side by side. What waits for the disk is begun first, so that the hashes of the
open bytes, which are most of the work, are computed meanwhile.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from typing import Any

from repowatch.model.formats import Format
from repowatch.model.segment import KINDS, Segment

# createrepo_c's own words (src/xml_file.c), the number of packages to be filled in.
HEADS = (
    b'<?xml version="1.0" encoding="UTF-8"?>\n'
    b'<metadata xmlns="http://linux.duke.edu/metadata/common" xmlns:rpm="http://linux.duke.edu/metadata/rpm"'
    b' packages="%d">\n',
    b'<?xml version="1.0" encoding="UTF-8"?>\n'
    b'<filelists xmlns="http://linux.duke.edu/metadata/filelists" packages="%d">\n',
    b'<?xml version="1.0" encoding="UTF-8"?>\n'
    b'<otherdata xmlns="http://linux.duke.edu/metadata/other" packages="%d">\n',
)
FEET = (b"</metadata>", b"</filelists>", b"</otherdata>")


# The longest first, for all to end at about the same time.
_ORDER = (KINDS.index("filelists"), KINDS.index("other"), KINDS.index("primary"))

Write = Callable[[str, Sequence[bytes]], None]  # what is to become of a kind's file: its parts


@dataclass(frozen=True, slots=True)
class MetadataFile:
    """What is known of one metadata file that was written."""

    kind: str
    suffix: str
    checksum: str  # of its bytes
    size: int
    open_checksum: str
    open_size: int
    checksum_type: str = "sha256"  # of both

    @property
    def name(self) -> str:
        return f"{self.checksum}-{self.kind}.xml.{self.suffix}"


def compress(segments: Iterable[Segment], *, pool: Executor) -> None:
    """Compress what is not compressed yet."""
    wanted = ((each, kind) for each in segments for kind in _ORDER if not each.is_compressed(kind))
    _await([pool.submit(each.piece, kind) for each, kind in wanted])


def warm(segments: Iterable[Segment], *, pool: Executor) -> None:
    """Open what a restart took over compressed, so that the next change finds it open. Raises Damaged."""
    wanted = ((each, kind) for each in segments for kind in _ORDER if not each.is_open(kind))
    _await([pool.submit(each.opened, kind) for each, kind in wanted])


def _await(tasks: Iterable[Future[Any]]) -> None:
    for task in tasks:
        task.result()


def make_files(
    segments: Sequence[Segment],
    form: Format,
    *,
    checksum: str = "sha256",
    pool: Executor,
    write: Write,
) -> tuple[MetadataFile, ...]:
    """The primary, filelists and other files of the packages in these segments.

    The pool has as many threads as there are cores: with more of them the longest hash would end last, and
    alone. `write` is called for each file by a thread of its own, which waits for the disk. Raises what it
    raises, and Damaged; whatever is raised, nothing is going on any more.
    """
    compress(segments, pool=pool)
    with ThreadPoolExecutor(len(KINDS)) as writers:
        longest, *others = _ORDER
        opened = {longest: pool.submit(_hash, checksum, open_bytes(longest, segments))}
        parts = {kind: joined(kind, segments, form) for kind in _ORDER}
        written = [writers.submit(write, KINDS[kind], parts[kind]) for kind in _ORDER]
        opened |= {kind: pool.submit(_hash, checksum, open_bytes(kind, segments)) for kind in others}
        packed = {kind: pool.submit(_hash, checksum, parts[kind]) for kind in _ORDER}
        wait([*opened.values(), *packed.values()])
    _await(written)
    return tuple(
        MetadataFile(name, form.suffix, *packed[kind].result(), *opened[kind].result(), checksum)
        for kind, name in enumerate(KINDS)
    )


def joined(kind: int, segments: Sequence[Segment], form: Format) -> list[bytes]:
    """The compressed bytes of one metadata file, in parts."""
    head, foot = frame(kind, sum(len(segment.location_hrefs) for segment in segments))
    pieces = [segment.piece(kind) for segment in segments]
    return form.join([form.compress(head), *pieces, form.compress(foot, last=True)])


def open_bytes(kind: int, segments: Sequence[Segment]) -> Iterator[bytes]:
    """The open bytes of one metadata file, in parts."""
    head, foot = frame(kind, sum(len(segment.location_hrefs) for segment in segments))
    yield head
    for segment in segments:
        yield segment.opened(kind)
    yield foot


def frame(kind: int, packages: int) -> tuple[bytes, bytes]:
    """What stands before and behind the packages."""
    return HEADS[kind] % packages, FEET[kind]


def _hash(algorithm: str, parts: Iterable[bytes]) -> tuple[str, int]:
    digest, size = hashlib.new(algorithm), 0
    for part in parts:
        digest.update(part)
        size += len(part)
    return digest.hexdigest(), size
