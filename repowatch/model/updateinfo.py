"""updateinfo.xml: advisories, checked for what clients need, and joined with those that are written in YAML.

What they need is libsolv's (ext/repo_updateinfoxml.c): an advisory is called by its id, chosen by its type,
and says of each package by name, version, release and architecture what is fixed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from repowatch.errors import BadMetadata
from repowatch.model.elements import Path, walk

HEAD = b'<?xml version="1.0" encoding="UTF-8"?>\n<updates>\n'
FOOT = b"</updates>\n"

_UPDATE: Path = ("updates", "update")
_PACKAGE: Path = (*_UPDATE, "pkglist", "collection", "package")
_NEEDED = ("name", "version", "release", "arch")


@dataclass(frozen=True, slots=True)
class Updates:
    """What a whole updateinfo.xml says."""

    ids: tuple[str, ...]
    end: int  # the offset of the root's end tag, in bytes; behind it where that is its start tag as well


def read(content: bytes) -> Updates:
    """What it says. Raises BadMetadata where a client could not use it."""
    ids: dict[str, None] = {}
    found: list[str] = []  # the id of the advisory at hand

    def start(path: Path, attributes: Mapping[str, str], line: int) -> None:
        if len(path) == 1 and path[0] != "updates":
            raise BadMetadata(f"the root element is <{path[0]}>, not <updates>", line=line)
        if path == _UPDATE:
            found.clear()
            if not attributes.get("type"):
                raise BadMetadata("<update> has no type; write security, bugfix or enhancement", line=line)
        elif path == _PACKAGE and (missing := [each for each in _NEEDED if not attributes.get(each)]):
            raise BadMetadata(f"<package> has no {' and no '.join(missing)}", line=line)

    def end(path: Path, text: str, line: int) -> None:
        if path == (*_UPDATE, "id"):
            found.append(text)
        elif path == _UPDATE:
            if len(found) != 1 or not found[0]:
                raise BadMetadata("the <update> that ends here does not have one <id>", line=line)
            ids[found[0]] = None  # there may be several, which clients read all

    offset = walk(content, start=start, end=end)
    return Updates(tuple(ids), offset)


def joined(content: bytes | None, advisories: Sequence[bytes]) -> bytes:
    """The file with more advisories behind its own; they are ASCII, so its encoding does not matter.

    Without a file, one that has only these.
    """
    more = b"".join(advisories)
    if content is None:
        return HEAD + more + FOOT
    if not more:
        return content
    end = read(content).end
    before, after = content[:end], content[end:]
    if not after.startswith(b"</"):
        return before.removesuffix(b"/>") + b">\n" + more + b"</updates>" + after
    return before + more + after
