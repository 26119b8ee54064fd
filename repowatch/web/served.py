"""A repository as the doors see it: its names, and the functions that the daemon hands them."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any, Protocol

from repowatch.model.digests import Inspection
from repowatch.model.package import Stamp
from repowatch.model.publication import Listed, Publication

_NAMED_BY_CHECKSUM = re.compile(r"^repodata/([0-9a-f]{64,128})-[^/]+$")


_CONTENT_TYPES = {
    "rpm": "application/x-rpm",
    "xml": "application/xml",
    "gz": "application/gzip",
    "zst": "application/zstd",
    "bz2": "application/x-bzip2",
    "xz": "application/x-xz",
    "asc": "application/pgp-signature",
    "repo": "text/plain; charset=utf-8",
    "txt": "text/plain; charset=utf-8",
    "json": "application/json",
    "html": "text/html",
    "htm": "text/html",
}


def content_type(path: str) -> str:
    """The media type of a file by the end of its name."""
    return _CONTENT_TYPES.get(path.rpartition(".")[2], "application/octet-stream")


class Admit(Protocol):
    """Publish a staged file under a name; `inspection` None is an empty file. Raises BadPackage."""

    def __call__(
        self,
        location_href: str,
        *,
        staged: str,
        inspection: Inspection | None,
        stamp: Stamp,
        check: Callable[[], None],
        departs: str | None = None,
    ) -> Future[Listed]: ...


class Remove(Protocol):
    """Unlist a package, then remove its file."""

    def __call__(self, location_href: str, *, check: Callable[[], None]) -> Future[Listed]: ...


class EndClaim(Protocol):
    """The client has its answer; `owed` where the publication of what it did is still to come."""

    def __call__(self, *, owed: bool) -> None: ...


class Claim(Protocol):
    """A client is about to change files or directories; the history tells who and how."""

    def __call__(self, locations: Iterable[str], *, who: str | None, how: str) -> EndClaim: ...


def _nobody_asks(locations: Iterable[str], *, who: str | None, how: str) -> EndClaim:
    return lambda *, owed: None


@dataclass(frozen=True, slots=True)
class Operation:
    """What is done by a POST to /-/api/v1/<repository>/<name>, for whoever may write to the repository."""

    # Arguments, and who asks; what is told of the outcome. In a thread that may wait. Raises RepowatchError.
    run: Callable[[dict[str, Any], str | None], dict[str, Any]]
    reads: str | None = None  # the argument that names another repository, which has to be readable as well


@dataclass(frozen=True, slots=True)
class Served:
    """One repository."""

    name: str
    url: str  # begins and ends with a slash
    root: str
    staging: Callable[[], str]  # a directory on the same file system; raises RepowatchError when it is away
    is_local: Callable[[], bool]  # whether it lies on a file system that answers at once, or fails
    reserve: int | None  # bytes of free space that uploads leave; None: a small part of the disk
    replace: bool  # whether other content may come under an existing package name
    is_package_name: Callable[[str], bool]
    may_lead_to: Callable[[str], bool]  # whether symbolic links may lead to a path
    publication: Callable[[], Publication | None]
    expect: Callable[[], Callable[[], None]]  # an upload begins; to be called when it is received
    admit: Admit
    remove: Remove
    look: Callable[[str], Future[Listed]]
    health: Callable[[], str | None]
    status: Callable[[], dict[str, Any]]
    claim: Claim = _nobody_asks
    operations: Mapping[str, Operation] = field(default_factory=dict)  # by name
    reports: Mapping[str, Callable[[], Any]] = field(default_factory=dict)  # GET of the same kind: JSON
    when_published: Callable[[Callable[[], None]], None] = lambda act: None  # calls it at each publication

    def resolve(self, location_href: str) -> str | None:
        """The path behind a name, None where a symbolic link leads to what it may not."""
        path = self.path(location_href)
        real = os.path.realpath(path)
        return real if real == path or self.may_lead_to(real) else None

    def is_behind_link(self, location_href: str) -> bool:
        """Whether a directory above a name is a symbolic link."""
        parent = os.path.dirname(self.path(location_href))
        return bool(location_href) and os.path.realpath(parent) != parent

    def path(self, location_href: str) -> str:
        return os.path.join(self.root, location_href) if location_href else self.root

    def pkgid(self, location_href: str, status: os.stat_result) -> str | None:
        """The checksum of a file that is a listed package, None when it is not (or no longer) one."""
        publication = self.publication()
        entry = publication.entries.get(location_href) if publication else None
        return entry.pkgid if entry and entry.stamp == Stamp.of(status) else None

    def etag(self, location_href: str, status: os.stat_result) -> str:
        """The opaque tag of a file, without quotes; equal tags mean equal bytes."""
        if named := _NAMED_BY_CHECKSUM.match(location_href):
            return named[1]
        publication = self.publication()
        if publication and location_href == "repodata/repomd.xml":
            if publication.repomd.inode == status.st_ino:
                return publication.repomd.checksum
        elif pkgid := self.pkgid(location_href, status):
            return pkgid
        return f"{status.st_size:x}-{status.st_mtime_ns:x}-{status.st_ctime_ns:x}-{status.st_ino:x}"

    def cache_control(self, location_href: str) -> str | None:
        if _NAMED_BY_CHECKSUM.match(location_href):
            return "public, max-age=31536000, immutable"
        if location_href in ("repodata/repomd.xml", "repodata/repomd.xml.asc"):
            return "no-cache"
        return None
