"""A repository as the doors see it: its names, and the functions that the daemon hands them."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any, Protocol

from repowatch.errors import Nameless
from repowatch.model.digests import Inspection
from repowatch.model.package import Stamp
from repowatch.model.publication import Listed, Publication

_NAMED_BY_CHECKSUM = re.compile(r"^repodata/([0-9a-f]{64,128})-[^/]+$")
# What is replaced under its name: repomd.xml, its signature, and the keys.
_REPLACED = re.compile(r"^repodata/(?:repomd\.xml(?:\.asc|\.key)?|[0-9A-F]{40,64}\.key)$")

_CONTENT_TYPES = {
    "rpm": "application/x-rpm",
    "xml": "application/xml",
    "gz": "application/gzip",
    "zst": "application/zstd",
    "bz2": "application/x-bzip2",
    "xz": "application/x-xz",
    "asc": "application/pgp-signature",
    "key": "application/pgp-keys",
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
class Asker:
    """Whoever asks for an operation, and what it may do to the repository."""

    name: str | None
    how: str
    may_read: Callable[[str], None]  # takes a location_href; raises Forbidden
    may_write: Callable[[str], None]
    may_delete: Callable[[str], None]

    @property
    def is_operator(self) -> bool:
        """Whether it comes from this host by the door for operators."""
        return self.how == "control"


@dataclass(frozen=True, slots=True)
class Operation:
    """What is done by a POST to /-/api/v1/<repository>/<name>.

    Whoever may write to some name of the repository gets this far; it asks for the names that it changes.
    """

    # Arguments, and who asks; what is told of the outcome. In a thread that may wait. Raises RepowatchError.
    run: Callable[[dict[str, Any], Asker], dict[str, Any]]
    takes: frozenset[str]  # the arguments that it knows
    reads: str | None = None  # one of them, which names another repository that has to be readable


class Batched(Protocol):
    """Changes that wait for their commit. Raises BadPackage, Misunderstood, Conflict, OSError."""

    def put(
        self,
        batch: str,
        location_href: str,
        *,
        staged: str,
        inspection: Inspection,
        is_conditional: bool,
        who: str | None,
    ) -> str:
        """Take a staged package; what is said of it. `is_conditional`: what has the name now has to stay."""

    def remove(self, batch: str, location_href: str, *, is_conditional: bool, who: str | None) -> str:
        """A package is to leave; what is said of it. `is_conditional` as above."""


class SnapshotFile(Protocol):
    """A file of a snapshot."""

    @property
    def path(self) -> str: ...

    @property
    def etag(self) -> str | None: ...


class SnapshotView(Protocol):
    """What a snapshot has. Raises Conflict where the bytes of a package are lost."""

    def find(self, location_href: str) -> SnapshotFile | None: ...

    def entries(self, directory: str) -> Sequence[tuple[str, bool, int, float]] | None:
        """Name, whether it is a directory, bytes, and mtime of what is in one; None where there is none."""


def _no_snapshot(name: str) -> SnapshotView:
    raise Nameless(f"there is no snapshot {name}")


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
    is_companion: Callable[[str], bool] = lambda location_href: False  # whether it has a record of its own
    examine: Callable[[str, str], None] = lambda location_href, path: None  # such a file; raises BadMetadata
    checksum: str = "sha256"  # what a package is identified by, hashlib's name
    claim: Claim = _nobody_asks
    # Path and pkgid of what is still served under a name that nothing in the tree has.
    retired: Callable[[str], tuple[str, str] | None] = lambda location_href: None
    batched: Batched | None = None
    snapshot: Callable[[str], SnapshotView] = _no_snapshot  # by its name; raises Nameless and Conflict
    operations: Mapping[str, Operation] = field(default_factory=dict)  # by name
    reports: Mapping[str, Callable[[], Any]] = field(default_factory=dict)  # GET of the same kind: JSON
    when_published: Callable[[Callable[[], None]], None] = lambda act: None  # calls it at each publication
    baseurl: Callable[[], str | None] = lambda: None  # the path that clients are told, if another
    came_late: bool = False  # while others were served already
    metadata_keys: Callable[[], Sequence[str]] = tuple  # location_hrefs of the keys that sign the metadata
    package_keys: Callable[[], bytes] = bytes  # armored keys; one of them signed each package, if any

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
            # Not `public`: what needs a password is not for a cache that others share (RFC 9111, 3.5).
            return "max-age=31536000, immutable"
        if _REPLACED.match(location_href):
            return "no-cache"
        return None
