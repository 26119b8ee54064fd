"""Which files of a tree are metadata beside its packages, and which records are made of each kind.

Pure: names and bytes in, what is to be published or a mistake out. The same files make the same bytes.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase

from repowatch.errors import BadMetadata
from repowatch.model.formats import FORMATS, Format, is_packed, opening
from repowatch.model.package import Nevra

COMPS, MODULES, UPDATEINFO = "comps.xml", "modules.yaml", "updateinfo.xml"
ADVISORIES = "advisories"  # the directory

GROUP, MODULE, UPDATE = "group", "modules", "updateinfo"
_KIND_OF = {COMPS: GROUP, MODULES: MODULE, UPDATEINFO: UPDATE}

# Beside its own, the types of records by which other tools publish the same.
_FORMS = ("_gz", "_xz", "_bz2", "_zst", "_zck", "_db")

# What can not be configured: made of packages, or of files with names of their own.
TAKEN = frozenset(
    f"{kind}{form}"
    for kind in ("primary", "filelists", "filelists-ext", "other", GROUP, MODULE, UPDATE)
    for form in ("", *_FORMS)
)
TYPE = re.compile(r"[A-Za-z][A-Za-z0-9_.+-]{0,63}")

# Bytes. Fedora's are 1.5, 7 and 30 MB.
MOST = {GROUP: 32 << 20, MODULE: 32 << 20, UPDATE: 256 << 20}
MOST_OTHER = 512 << 20
MOST_OPEN = 2 << 30
MOST_ADVISORY = 1 << 20

EMPTY = "empty file"


@dataclass(frozen=True, slots=True)
class Read:
    """What is known of a file that clients can use."""

    ids: tuple[str, ...] = ()  # of its advisories
    packages: tuple[Nevra, ...] = ()  # that an advisory in YAML names


@dataclass(frozen=True, slots=True)
class Content:
    """A metadata file to be published; `opened` are its size and hexadecimal checksum after decompression."""

    kind: str
    name: str  # behind the checksum
    parts: Sequence[bytes]
    opened: tuple[int, str] | None = None


@dataclass(frozen=True, slots=True)
class Names:
    """The names that count in one repository."""

    metadata: Mapping[str, str] = field(default_factory=dict)  # type: location_href of what travels along
    exclude: tuple[str, ...] = ()  # fnmatch patterns

    def kind_of(self, location_href: str) -> str | None:
        """The type of the record that a file of this name is published in; None for any other file."""
        directory, _, name = location_href.rpartition("/")
        if any(fnmatchcase(name, each) or fnmatchcase(location_href, each) for each in self.exclude):
            return None
        for kind, path in self.metadata.items():
            if path == location_href:
                return kind
        if directory == ADVISORIES and name.endswith(".yaml") and not name.startswith("."):
            return UPDATE
        return None if directory else _KIND_OF.get(name)

    def fixed(self) -> Iterator[str]:
        """Those that are known without a look at the disk."""
        return (name for name in (*_KIND_OF, *self.metadata.values()) if self.kind_of(name))

    @property
    def directories(self) -> frozenset[str]:
        """Every directory that any of them may be in; "" is the root."""
        found = {"", ADVISORIES}
        for path in self.metadata.values():
            found |= {path[:at] for at, character in enumerate(path) if character == "/"}
        return frozenset(found)

    def most(self, location_href: str) -> int:
        """Bytes that such a file may have."""
        if location_href.startswith(f"{ADVISORIES}/"):
            return MOST_ADVISORY
        return MOST.get(self.kind_of(location_href) or "", MOST_OTHER)

    def read(self, location_href: str, content: bytes) -> Read:
        """Look whether clients can use it. Raises BadMetadata with the line and the reason."""
        # Most repositories have no such file, and `index` ends sooner than YAML is loaded.
        from repowatch.model import advisories, comps, modules, updateinfo  # noqa: PLC0415

        kind = self.kind_of(location_href)
        if not content:
            raise BadMetadata(EMPTY)
        if kind == GROUP:
            comps.check(content)
        elif kind == MODULE:
            modules.check(content)
        elif kind == UPDATE and location_href != UPDATEINFO:
            advisory = advisories.read(content)
            return Read((advisory.id,), advisory.packages)
        elif kind == UPDATE:
            return Read(updateinfo.read(content).ids)
        else:
            _opened(location_href, content, "sha256")
        return Read()


def replaced_by(kind: str) -> frozenset[str]:
    """The types of records that say the same, whoever made them."""
    return frozenset(f"{kind}{form}" for form in ("", *_FORMS))


def is_ours(kinds: Iterable[str]) -> re.Pattern[str]:
    """Matches the names behind the checksum of what is published of these kinds."""
    names = {kind: name for name, kind in _KIND_OF.items()}
    stems = "|".join(sorted(re.escape(names.get(kind, kind)) for kind in kinds))
    return re.compile(rf"(?:{stems})(?:\.[a-z0-9.]+)?" if stems else "(?!)")


def make(kind: str, sources: Mapping[str, bytes], form: Format, checksum: str) -> list[Content]:
    """What is published of the files of one kind; `checksum` is hashlib's name of the one to be taken.

    They were all read before. Raises BadMetadata when one is another by now.
    """
    from repowatch.model import advisories, updateinfo  # noqa: PLC0415 - see `Names.read`

    if kind == GROUP:
        content = sources[COMPS]
        return [Content(GROUP, COMPS, [content]), _packed("group_gz", COMPS, content, _GZIP, checksum)]
    if kind == MODULE:
        return [_packed(MODULE, MODULES, sources[MODULES], form, checksum)]
    if kind == UPDATE:
        written = [name for name in sorted(sources) if name != UPDATEINFO]
        more = [advisories.read(sources[name]).text for name in written]
        content = updateinfo.joined(sources.get(UPDATEINFO), more)
        return [_packed(UPDATE, UPDATEINFO, content, form, checksum)]
    [(location_href, content)] = sources.items()
    ends = re.sub("[^a-z0-9.]", "", location_href.rpartition("/")[2].partition(".")[2].lower())
    name = f"{kind}.{ends}" if ends else kind  # `is_ours`
    return [Content(kind, name, [content], _opened(location_href, content, checksum))]


# yum of EL7 looks for group_gz alone, and every client since reads gzip: no other form, whatever the profile.
_GZIP = FORMATS["compatible"]


def _packed(kind: str, name: str, content: bytes, form: Format, checksum: str) -> Content:
    opened = len(content), hashlib.new(checksum, content).hexdigest()
    return Content(kind, f"{name}.{form.suffix}", form.join([form.compress(content, last=True)]), opened)


def _opened(location_href: str, content: bytes, checksum: str) -> tuple[int, str] | None:
    """Size and checksum of what is in a compressed file; None where it is not one. Raises BadMetadata."""
    name = location_href.rpartition("/")[2]
    if not is_packed(name):
        return None
    digest, size = hashlib.new(checksum), 0
    try:
        for block in opening(name, content):
            digest.update(block)
            size += len(block)
            if size > MOST_OPEN:
                raise BadMetadata(f"it has more than {MOST_OPEN >> 30} GiB when it is opened")
    except ValueError as error:
        raise BadMetadata(str(error)) from error
    return size, digest.hexdigest()
