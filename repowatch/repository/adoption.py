"""Taking over the metadata that another tool published.

The text is cut into batches for the readers. createrepo_c parses it and writes each element anew
(`reader.Reader.adopt`), so that nothing foreign is published as it is.
"""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise

from repowatch.errors import BadPackage, ChangedWhileRead
from repowatch.model.catalog import cuts
from repowatch.model.formats import opened
from repowatch.model.markup import unescape
from repowatch.model.recipe import Recipe
from repowatch.model.repomd import Record
from repowatch.model.segment import KINDS, Run
from repowatch.repository.changes import Stopped
from repowatch.repository.readers import Readers

log = logging.getLogger(__name__)

Texts = tuple[bytes, bytes, bytes]  # some packages' elements of primary, filelists and other

_END = b"</package>"
_PKGIDS = {
    "sha256": re.compile(rb"<checksum type=\"sha256\" pkgid=\"YES\">([0-9a-f]{64})</checksum>"),
    "sha512": re.compile(rb"<checksum type=\"sha512\" pkgid=\"YES\">([0-9a-f]{128})</checksum>"),
}
_HREF = re.compile(rb"<location [^>]*href=\"([^\"]*)\"")
_OTHER_PKGID = re.compile(rb"<package [^>]*pkgid=\"([0-9a-f]{64,128})\"")


def take_over(
    root: str,
    records: Sequence[Record],
    readers: Readers,
    recipe: Recipe,
    *,
    stopping: Callable[[], bool],
) -> list[Run]:
    """The packages that the metadata describes; none, and why in the log, when it can not be taken over.

    Raises Stopped.
    """
    runs: list[Run] = []
    try:
        for batch in readers.adopt(_batches(root, records, recipe.checksum), recipe):
            if stopping():
                raise Stopped
            runs += [batch.run] if batch.run else []
    except (ValueError, OSError, BadPackage, ChangedWhileRead) as error:
        log.info("%s: the metadata can not be taken over (%s); packages are read", root, error)
        return []
    return runs


def _batches(root: str, records: Sequence[Record], checksum: str) -> Iterator[Texts]:
    """The packages of published metadata, in batches that are segments where the order is ours.

    Raises ValueError when they can not be taken over, OSError.
    """
    by_type = {record.type: record for record in records}
    columns = [_packages(root, by_type[kind]) for kind in KINDS if kind in by_type]
    if len(columns) < len(KINDS):
        raise ValueError("primary, filelists and other are not all there")
    primary, filelists, other = columns
    pkgids = [_only(_PKGIDS[checksum], element) for element in primary]
    for column in (filelists, other):
        if [_only(_OTHER_PKGID, element) for element in column] != pkgids:
            raise ValueError("the packages are not in the same order in each of them")
    names = [unescape(_only(_HREF, element).decode()) for element in primary]
    for start, end in pairwise([*cuts(names), len(names)] if names else []):
        yield b"".join(primary[start:end]), b"".join(filelists[start:end]), b"".join(other[start:end])


def _packages(root: str, record: Record) -> list[bytes]:
    """The elements of one metadata file."""
    with open(os.path.join(root, record.location_href), "rb") as file:
        text = opened(record.location_href, file.read())
    start = text.find(b"<package ")
    elements = text[start:].split(_END) if start >= 0 else [b""]
    return [element + _END + b"\n" for element in elements[:-1]]


def _only(pattern: re.Pattern[bytes], element: bytes) -> bytes:
    found = pattern.search(element)
    if found is None:
        raise ValueError("a package has no checksum of the kind that is wanted, or no location")
    return found[1]
