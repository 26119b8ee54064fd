"""repomd.xml: what it says, and its text both ways.

The text is createrepo_c's (src/xml_dump_repomd.c), elements in its order.
"""

from __future__ import annotations

from dataclasses import dataclass
from xml.etree import ElementTree

from repowatch.errors import RepowatchError
from repowatch.model.markup import escape, quoteattr

NAMESPACE = "http://linux.duke.edu/metadata/repo"

# yum refuses a larger one (yum/yumRepo.py: repoMDFile is read with size=102400).
LARGEST = 100_000  # bytes


class BadRepomd(RepowatchError):
    """A repomd.xml that can not be read."""


@dataclass(frozen=True, slots=True)
class Record:
    """One metadata file of a publication."""

    type: str
    checksum: str  # of the file's bytes
    location_href: str  # relative to the repository root
    timestamp: int  # seconds
    size: int  # bytes
    checksum_type: str = "sha256"
    open_checksum: str | None = None  # of the bytes after decompression
    open_checksum_type: str = "sha256"
    open_size: int | None = None
    database_version: int | None = None  # of sqlite files that another tool made
    header_checksum: str | None = None  # of zchunk files that another tool made
    header_checksum_type: str = "sha256"
    header_size: int | None = None  # bytes


@dataclass(frozen=True, slots=True)
class Repomd:
    """One revision of a repository's metadata."""

    revision: int
    records: tuple[Record, ...]


def render(repomd: Repomd) -> bytes:
    """The text of repomd.xml."""
    lines = [
        '<?xml version="1.0" encoding="UTF-8"?>',
        f'<repomd xmlns="{NAMESPACE}" xmlns:rpm="http://linux.duke.edu/metadata/rpm">',
        f"  <revision>{repomd.revision}</revision>",
    ]
    for record in repomd.records:
        lines += _lines(record)
    return "\n".join([*lines, "</repomd>", ""]).encode()


def _lines(record: Record) -> list[str]:
    lines = [
        f"  <data type={quoteattr(record.type)}>",
        f'    <checksum type="{record.checksum_type}">{record.checksum}</checksum>',
    ]
    if record.open_checksum is not None:
        lines.append(
            f'    <open-checksum type="{record.open_checksum_type}">{record.open_checksum}</open-checksum>'
        )
    if record.header_checksum is not None:
        kind = record.header_checksum_type
        lines.append(f'    <header-checksum type="{kind}">{record.header_checksum}</header-checksum>')
    lines += [
        f"    <location href={quoteattr(record.location_href)}/>",
        f"    <timestamp>{record.timestamp}</timestamp>",
        f"    <size>{record.size}</size>",
    ]
    if record.open_size is not None:
        lines.append(f"    <open-size>{record.open_size}</open-size>")
    if record.header_size is not None:
        lines.append(f"    <header-size>{record.header_size}</header-size>")
    if record.database_version is not None:
        lines.append(f"    <database_version>{escape(str(record.database_version))}</database_version>")
    return [*lines, "  </data>"]


def parse(text: bytes) -> Repomd:
    """What a repomd.xml says. A revision that is no number counts as 0.

    Raises BadRepomd.
    """
    try:
        root = ElementTree.fromstring(text)  # noqa: S314 - a file of the repository's own
        if root.tag != f"{{{NAMESPACE}}}repomd":
            raise BadRepomd(f"repomd.xml: the root element is {root.tag}, not repomd")
        revision = _text(root, "revision") or ""
        number = int(revision) if revision.isdecimal() else 0
        records = tuple(_record(data) for data in root.iterfind(f"{{{NAMESPACE}}}data"))
    except (ElementTree.ParseError, ValueError, LookupError, OverflowError) as error:
        raise BadRepomd(f"repomd.xml can not be read: {error}") from error
    return Repomd(number, records)


def _text(element: ElementTree.Element, name: str) -> str | None:
    child = element.find(f"{{{NAMESPACE}}}{name}")
    return None if child is None else (child.text or "").strip()


def _number(element: ElementTree.Element, name: str) -> int | None:
    text = _text(element, name)
    return int(float(text)) if text else None  # createrepo (Python) wrote timestamps with a fraction


def _record(data: ElementTree.Element) -> Record:
    location = data.find(f"{{{NAMESPACE}}}location")
    checksum = data.find(f"{{{NAMESPACE}}}checksum")
    opened = data.find(f"{{{NAMESPACE}}}open-checksum")
    header = data.find(f"{{{NAMESPACE}}}header-checksum")
    if location is None or checksum is None:
        raise ValueError(f"the record {data.get('type')!r} has no location or no checksum")
    return Record(
        type=data.attrib["type"],
        checksum=(checksum.text or "").strip(),
        checksum_type=checksum.get("type", "sha256"),
        location_href=location.attrib["href"],
        timestamp=_number(data, "timestamp") or 0,
        size=_number(data, "size") or 0,
        open_checksum=None if opened is None else (opened.text or "").strip(),
        open_checksum_type="sha256" if opened is None else opened.get("type", "sha256"),
        open_size=_number(data, "open-size"),
        database_version=_number(data, "database_version"),
        header_checksum=None if header is None else (header.text or "").strip(),
        header_checksum_type="sha256" if header is None else header.get("type", "sha256"),
        header_size=_number(data, "header-size"),
    )
