"""Metadata files out of segments: what changed is compressed, all of it hashed, joined and written.

The three files are made side by side. The longest hash, of open bytes, needs nothing but the elements, so it
is begun first, and what changed is compressed meanwhile. Then each file is written as soon as it can be, for
that waits for the disk, and the other hashes fill the time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

from repowatch.model.formats import Format
from repowatch.model.segment import KINDS, Segment
from repowatch.repository.sums import OpenSums
from repowatch.system.hashing import hashed
from repowatch.system.threads import give_way

T = TypeVar("T")

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

# Threads that wait for the disk, for all repositories together; a disk that hangs must not hold up others.
_writers = ThreadPoolExecutor(64, thread_name_prefix="write", initializer=give_way)

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
    sums: OpenSums,
) -> tuple[MetadataFile, ...]:
    """The primary, filelists and other files of the packages in these segments.

    The pool has as many threads as there are cores: with more of them the longest hash would end last, and
    alone. `write` is called for each file by a thread of its own, which waits for the disk. `sums` are the
    repository's. Raises what `write` raises, and Damaged; whatever is raised, nothing is going on any more.
    """
    new = [each for each in segments if not each.is_compressed()]
    packages = count(segments)
    tasks: list[Future[Any]] = []

    def submit(to: Executor, function: Callable[..., T], *arguments: Any) -> Future[T]:
        tasks.append(to.submit(function, *arguments))
        return tasks[-1]

    def hash_open(kind: int) -> Future[tuple[str, int]]:
        head, foot = frame(kind, packages)
        return submit(pool, partial(sums.of, kind, segments, checksum, head=head, foot=foot))

    longest, *others = _ORDER
    packed: dict[int, Future[tuple[str, int]]] = {}
    try:
        opened = {longest: hash_open(longest)}
        compressed = {kind: [submit(pool, each.piece, kind) for each in new] for kind in _ORDER}
        opened |= {kind: hash_open(kind) for kind in others}
        for kind in _ORDER:
            _await(compressed[kind])
            parts = joined(kind, segments, form)
            submit(_writers, write, KINDS[kind], parts)
            packed[kind] = submit(pool, hashed, checksum, parts)
    finally:
        wait(tasks)
    _await(tasks)
    return tuple(
        MetadataFile(name, form.suffix, *packed[kind].result(), *opened[kind].result(), checksum)
        for kind, name in enumerate(KINDS)
    )


def joined(kind: int, segments: Sequence[Segment], form: Format) -> list[bytes]:
    """The compressed bytes of one metadata file, in parts."""
    head, foot = frame(kind, count(segments))
    pieces = [segment.piece(kind) for segment in segments]
    return form.join([form.compress(head), *pieces, form.compress(foot, last=True)])


def open_bytes(kind: int, segments: Sequence[Segment]) -> Iterator[bytes]:
    """The open bytes of one metadata file, in parts."""
    head, foot = frame(kind, count(segments))
    yield head
    for segment in segments:
        yield segment.opened(kind)
    yield foot


def count(segments: Iterable[Segment]) -> int:
    """How many packages they hold."""
    return sum([len(segment.location_hrefs) for segment in segments])


def frame(kind: int, packages: int) -> tuple[bytes, bytes]:
    """What stands before and behind the packages."""
    return HEADS[kind] % packages, FEET[kind]
