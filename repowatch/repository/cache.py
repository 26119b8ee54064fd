"""What a restart need not read again: which files were looked at, and what was published of them.

The cache is one JSON file beside a checksum of its own. It holds names, stamps and lengths; the elements
themselves stay where they are published, in the metadata files, and are cut out of those. It may be
deleted, half-written, stale, or from another machine: then packages are read again, and that is all.
A stale one is good for what it knows as long as the files it names are kept (`generations`).
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from repowatch.model.catalog import KINDS, Catalog, Segment, location_of
from repowatch.model.package import Entry, Nevra, Rejected, Stamp
from repowatch.model.repomd import Record
from repowatch.repository.formats import opened

log = logging.getLogger(__name__)

# To be raised when the meaning of the file changes, or what createrepo_c writes of a package.
FORMAT = 1


@dataclass(frozen=True, slots=True)
class Restored:
    """What a cache knew."""

    catalog: Catalog
    rejected: Mapping[str, Rejected]
    location_hrefs: tuple[str, ...]  # of the metadata files that it was cut from


def save(
    path: str,
    *,
    entries: Mapping[str, Entry],
    segments: Sequence[Segment],
    rejected: Iterable[Rejected],
    records: Sequence[Record],
) -> None:
    """Write the cache of a publication. Raises OSError.

    Nothing is synced: a torn file is told by its checksum.
    """
    files = {record.type: [record.location_href, record.open_checksum] for record in records}
    packages = [
        [*_of_entry(entries[location_of(key)]), *lengths]
        for segment in segments
        for key, *lengths in zip(segment.keys, *segment.lengths, strict=True)
    ]
    content = {
        "format": FORMAT,
        "files": [files[kind] for kind in KINDS],
        "packages": packages,
        "rejected": [[each.location_href, _of_stamp(each.stamp), each.reason] for each in rejected],
    }
    body = json.dumps(content, separators=(",", ":")).encode()
    aside = f"{path}.new"
    with open(aside, "wb") as file:
        file.write(hashlib.sha256(body).hexdigest().encode() + b"\n" + body)
    os.rename(aside, path)


def load(path: str, root: str) -> Restored | None:
    """What the cache at `path` knows of the repository at `root`; None when it is of no use."""
    try:
        with open(path, "rb") as file:
            checksum, _, body = file.read().partition(b"\n")
        if hashlib.sha256(body).hexdigest().encode() != checksum:
            raise ValueError("its checksum does not match")
        content = json.loads(body)
        if content["format"] != FORMAT:
            raise ValueError(f"it has format {content['format']}, not {FORMAT}")
        files = [_open_file(root, *file) for file in content["files"]]
        return Restored(
            _catalog(content["packages"], files),
            {row[0]: Rejected(row[0], _stamp(row[1]), row[2]) for row in content["rejected"]},
            tuple(location_href for location_href, _ in content["files"]),
        )
    except FileNotFoundError as error:
        log.debug("no cache: %s", error)
    except (OSError, ValueError, LookupError, TypeError) as error:
        log.info("%s is of no use (%s); packages are read again", path, error)
    return None


def _open_file(root: str, location_href: str, open_checksum: str) -> bytes:
    with open(os.path.join(root, location_href), "rb") as file:
        content = opened(location_href, file.read())
    if hashlib.sha256(content).hexdigest() != open_checksum:
        raise ValueError(f"{location_href} does not match")
    return content


def _catalog(rows: Iterable[list[object]], files: Sequence[bytes]) -> Catalog:
    """The catalog whose elements stand one after the other in the open metadata files."""
    entries = []
    lengths: list[tuple[int, int, int]] = []
    for row in rows:
        location_href, pkgid, *nevra, stamp, primary, filelists, other = row
        entries.append(Entry(str(location_href), str(pkgid), Nevra(*map(str, nevra)), _known_stamp(stamp)))
        lengths.append((_length(primary), _length(filelists), _length(other)))
    return Catalog.restored(entries, lengths, files)


def _of_entry(entry: Entry) -> list[object]:
    nevra = entry.nevra
    return [
        entry.location_href,
        entry.pkgid,
        nevra.name,
        nevra.epoch,
        nevra.version,
        nevra.release,
        nevra.arch,
        _of_stamp(entry.stamp),
    ]


def _of_stamp(stamp: Stamp | None) -> list[int] | None:
    return [stamp.size, stamp.mtime_ns, stamp.ctime_ns, stamp.inode] if stamp else None


def _stamp(numbers: object) -> Stamp | None:
    return None if numbers is None else _known_stamp(numbers)


def _known_stamp(numbers: object) -> Stamp:
    if not isinstance(numbers, list):
        raise TypeError(f"{numbers!r} is no stamp")
    return Stamp(*map(int, numbers))


def _length(number: object) -> int:
    if not isinstance(number, int) or number < 0:
        raise ValueError(f"{number!r} is no length")
    return number
