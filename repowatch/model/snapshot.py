"""A snapshot: what was published at one moment, as a named list of locations and pkgids.

Its file has a head, a line for each package, and the SHA-256 of all lines before the last, so that what a
disk damaged is not taken for a shorter list.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Self

from repowatch.errors import Misunderstood, RepowatchError
from repowatch.model.package import Entry, Stamp

FORMAT = 1
LONGEST_NAME = 64  # characters

# What is safe in a URL, in a file name, and in the id of a repository (dnf takes no others there).
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_END = b"sha256 "

# What made a pkgid, by the digits that it has.
_ALGORITHMS = {40: "sha1", 64: "sha256", 128: "sha512"}


class BadSnapshot(RepowatchError):
    """A file that is not a whole snapshot; the text says why."""


def checked_name(name: str) -> str:
    """A name that a snapshot may have. Raises Misunderstood."""
    if not _NAME.fullmatch(name) or len(name) > LONGEST_NAME or name.endswith(".repo"):
        raise Misunderstood(
            f"{name[:LONGEST_NAME]!r} can not be the name of a snapshot: it may have letters, digits, dots, "
            f"- and _, at most {LONGEST_NAME}, begins with a letter or digit and does not end in .repo"
        )
    return name


def algorithm_of(pkgid: str) -> str:
    """Hashlib's name of what made a pkgid. Raises BadSnapshot."""
    try:
        return _ALGORITHMS[len(pkgid)]
    except KeyError:
        raise BadSnapshot(f"{pkgid[:20]!r} is no pkgid") from None


@dataclass(frozen=True, slots=True)
class Kept:
    """A package of a snapshot."""

    location_href: str
    pkgid: str
    size: int  # bytes
    mtime_ns: int

    @classmethod
    def of(cls, entry: Entry) -> Kept:
        return cls(entry.location_href, entry.pkgid, entry.stamp.size, entry.stamp.mtime_ns)

    def seems(self, stamp: Stamp) -> bool:
        """Whether a file may be this package without a look into it: nothing wrote to it since."""
        return (self.size, self.mtime_ns) == (stamp.size, stamp.mtime_ns)


@dataclass(frozen=True, slots=True)
class Snapshot:
    """What was published, when it was kept, and by whom."""

    name: str
    revision: int
    created_at: float  # seconds since 1970
    by: str | None  # who asked for it, None where nobody gave a name
    packages: Mapping[str, Kept] = field(repr=False)  # by location_href

    @property
    def size(self) -> int:
        """Bytes of all its packages."""
        return sum(each.size for each in self.packages.values())

    def lines(self) -> Iterable[bytes]:
        """The file, in lines."""
        digest = hashlib.sha256()
        head: dict[str, Any] = {
            "snapshot": self.name,
            "format": FORMAT,
            "revision": self.revision,
            "created_at": self.created_at,
            "by": self.by,
            "packages": len(self.packages),
        }
        rows = ([each.location_href, each.pkgid, each.size, each.mtime_ns] for each in self.packages.values())
        for value in (head, *rows):
            line = json.dumps(value).encode("ascii") + b"\n"
            digest.update(line)
            yield line
        yield _END + digest.hexdigest().encode() + b"\n"

    @classmethod
    def parse(cls, text: bytes) -> Self:
        """The snapshot that `lines` wrote. Raises BadSnapshot."""
        body, end, checksum = text.rpartition(_END)
        if not end or checksum.decode("ascii", "replace").strip() != hashlib.sha256(body).hexdigest():
            raise BadSnapshot("it is not whole: its checksum is missing or wrong")
        try:
            head, *rows = map(json.loads, body.splitlines())
            if head["format"] != FORMAT:
                raise BadSnapshot(f"it has the format {head['format']} of another version of repowatch")
            packages = [Kept(str(href), str(pkgid), int(size), int(at)) for href, pkgid, size, at in rows]
            return cls(
                checked_name(head["snapshot"]),
                int(head["revision"]),
                float(head["created_at"]),
                head["by"],
                {each.location_href: each for each in packages},
            )
        except (ValueError, OverflowError, TypeError, KeyError, Misunderstood) as error:
            raise BadSnapshot(f"it is no snapshot: {error}") from error


@dataclass(frozen=True, slots=True)
class Difference:
    """What a rollback has to do: a package that changed counts once, as one that changed."""

    missing: tuple[str, ...]  # locations of packages that left since
    changed: tuple[str, ...]  # of those that are other packages by now
    surplus: tuple[str, ...]  # of those that came since

    @property
    def is_empty(self) -> bool:
        return not (self.missing or self.changed or self.surplus)


def difference(
    kept: Mapping[str, Kept], listed: Mapping[str, Entry], *, is_same: Callable[[Kept, Entry], bool]
) -> Difference:
    """What listed packages differ in from those of a snapshot."""
    both = kept.keys() & listed.keys()
    return Difference(
        missing=tuple(sorted(kept.keys() - listed.keys())),
        changed=tuple(sorted(name for name in both if not is_same(kept[name], listed[name]))),
        surplus=tuple(sorted(listed.keys() - kept.keys())),
    )
