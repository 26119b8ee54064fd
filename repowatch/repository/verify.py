"""Does the published metadata say what the tree says? Compared byte for byte, from scratch."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from repowatch.model.catalog import Catalog
from repowatch.model.digests import CHECKSUMS
from repowatch.model.formats import opened
from repowatch.model.recipe import CHANGELOGS, Recipe
from repowatch.model.repomd import BadRepomd, Record, parse
from repowatch.model.segment import KINDS, Segment
from repowatch.model.signatures import ANY, Policy
from repowatch.model.twins import older_builds
from repowatch.repository import companions as beside
from repowatch.repository.readers import Readers, ToRead, in_batches
from repowatch.repository.segments import open_bytes
from repowatch.repository.signed import mismatch
from repowatch.repository.tree import Tree

_OLD_NAMES = {"sha": "sha1"}  # as createrepo wrote it

_END = b"</package>\n"
_PKGID_TYPE = re.compile(rb'<checksum type="([^"]*)" pkgid="YES">')


def differences(
    tree: Tree,
    *,
    readers: Readers,
    pool: ThreadPoolExecutor,
    progress: Callable[[int, int], None],
    checksum: str | None = None,
    changelogs: int | None = CHANGELOGS,
    policy: Policy = ANY,
    newest_build: bool = False,
) -> Iterator[str]:
    """Each difference between what is published and what is in the tree, in one line; none when they agree.

    `checksum`, `changelogs` and `policy` are those of a Recipe; with None, the checksum is the one that is
    published. `newest_build`: whether only that is listed of each package.
    Nothing is written and no lock is taken; a tree that changes meanwhile may be found different.
    """
    try:
        with open(os.path.join(tree.root, "repodata", "repomd.xml"), "rb") as file:
            repomd = file.read()
        records = {record.type: record for record in parse(repomd).records}
    except FileNotFoundError:
        yield "repodata/repomd.xml is missing"
        return
    except (OSError, BadRepomd) as error:
        yield f"repodata/repomd.xml: {error}"
        return
    yield from _signature(tree, repomd)
    damaged = set()
    problems = pool.map(lambda record: _damage(tree, record), records.values())
    for record, problem in zip(records.values(), problems, strict=True):
        if problem:
            damaged.add(record.type)
            yield f"{record.location_href}: {problem}"
    found = "" if "primary" not in records or "primary" in damaged else _checksum(tree, records["primary"])
    if found and found != (checksum or found):
        yield f"primary: its packages have {found} checksums, not {checksum} as it is configured"
    yield from beside.differences(tree, records)
    used = found if found in CHECKSUMS else checksum or "sha256"
    recipe = Recipe(checksum=used, changelogs=changelogs, policy=policy)
    segments = _segments(tree, readers, progress, recipe, newest_build)
    for kind, name in enumerate(KINDS):
        if name not in records:
            yield f"repomd.xml names no {name}"
        elif name not in damaged:
            yield from _compare(kind, segments, _opened(tree, records[name]))


def _signature(tree: Tree, repomd: bytes) -> Iterator[str]:
    """What is wrong with the signature beside repomd.xml, where the keys for it lie there as well."""
    try:
        found = [
            Path(tree.path(f"repodata/{name}")).read_bytes() for name in ("repomd.xml.asc", "repomd.xml.key")
        ]
    except FileNotFoundError:
        return
    except OSError as error:
        yield f"repodata/repomd.xml.asc: {error}"
        return
    if problem := mismatch(repomd, signature=found[0], keys=found[1]):
        yield f"repodata/repomd.xml.asc: {problem}"


def _checksum(tree: Tree, primary: Record) -> str:
    """What kind of checksum the published packages have; "" where there are none."""
    found = _PKGID_TYPE.search(_opened(tree, primary))
    return found[1].decode("ascii", "replace") if found else ""


def _segments(
    tree: Tree,
    readers: Readers,
    progress: Callable[[int, int], None],
    recipe: Recipe,
    newest_build: bool,
) -> Sequence[Segment]:
    """The catalog of the tree as it is now, made from nothing."""
    files = [
        ToRead(found.path, found.location_href, found.stamp) for found in tree.scan() if found.problem is None
    ]
    catalog = Catalog(recipe.form)
    runs = []
    done = 0
    for batch in readers.read(in_batches(files), recipe):
        done += len(batch)
        progress(done, len(files))
        runs += [batch.run] if batch.run else []
    catalog.change(runs)
    if newest_build:
        catalog.change([], older_builds(catalog.entries.values()))
    return catalog.segments


def _damage(tree: Tree, record: Record) -> str | None:
    """What is wrong with a published file; None when it is what its record says."""
    try:
        with open(tree.path(record.location_href), "rb") as file:
            content = file.read()
        problem = _mismatch(
            content, size=record.size or None, checksum=record.checksum, algorithm=record.checksum_type
        )
        if problem is None and record.open_checksum is not None:
            problem = _mismatch(
                _opened(tree, record),
                size=record.open_size,
                checksum=record.open_checksum,
                algorithm=record.open_checksum_type,
            )
            problem = problem and f"opened, {problem}"
    except (OSError, ValueError) as error:
        return str(error)
    return problem


def _mismatch(content: bytes, *, size: int | None, checksum: str, algorithm: str) -> str | None:
    if size is not None and len(content) != size:
        return f"it has {len(content)} bytes, repomd.xml says {size}"
    found = hashlib.new(_OLD_NAMES.get(algorithm, algorithm), content).hexdigest()
    return None if found == checksum else f"its {algorithm} is {found}, repomd.xml says {checksum}"


def _opened(tree: Tree, record: Record) -> bytes:
    with open(tree.path(record.location_href), "rb") as file:
        return opened(record.location_href, file.read())


def _compare(kind: int, segments: Sequence[Segment], published: bytes) -> Iterator[str]:
    name = KINDS[kind]
    if published == b"".join(open_bytes(kind, segments)):
        return
    ours = {elements[kind]: name for segment in segments for name, elements in segment.items()}
    start = published.find(b"<package ")
    theirs = [part + _END for part in published[max(start, 0) :].split(_END)[:-1]]
    known = set(theirs)
    missing = [location_href for element, location_href in ours.items() if element not in known]
    surplus = sum(element not in ours for element in theirs)
    for location_href in missing:
        yield f"{name}: {location_href} is in the tree, but not (or not as it is) in the metadata"
    if surplus:
        yield f"{name}: {surplus} packages are in the metadata, but not (or not as they are) in the tree"
    if not missing and not surplus:
        yield f"{name}: order, count or frame differ from what the tree gives"
