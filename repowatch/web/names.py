"""The one gate for names that clients send: a request target in, a path below a repository out."""

from __future__ import annotations

import os
import re
from urllib.parse import quote, unquote_to_bytes

from repowatch.errors import RepowatchError

LONGEST_NAME = 255  # bytes, of one component: what Linux file systems take

# Hidden names that clients may see and write: installation trees carry them.
SHOWN_THOUGH_HIDDEN = frozenset({".treeinfo", ".discinfo"})

_BAD_ESCAPE = re.compile(r"%(?![0-9A-Fa-f]{2})")


class BadName(RepowatchError):
    """A request target that names nothing that could exist here."""


def path_of(target: str) -> str:
    """The path that a request target or a Destination asks for: decoded, with one slash at its start.

    A slash at the end is kept. Bytes that are not UTF-8 come through as surrogate escapes. Raises BadName
    for what no file here can be called, `..` and an encoded slash among it.
    """
    raw = target.partition("?")[0].partition("#")[0]
    if _BAD_ESCAPE.search(raw):
        raise BadName("the path has a percent sign that is no escape")
    if re.search("%2f", raw, re.IGNORECASE):
        raise BadName("the path has an encoded slash")
    decoded = unquote_to_bytes(raw)
    if b"\0" in decoded:
        raise BadName("the path has a NUL")
    parts = [part for part in decoded.split(b"/") if part]
    for part in parts:
        if part in (b".", b".."):
            raise BadName("the path has a relative component")
        if len(part) > LONGEST_NAME:
            raise BadName(f"a name in the path is longer than {LONGEST_NAME} bytes")
    end = "/" if decoded.endswith(b"/") and parts else ""
    return "/" + os.fsdecode(b"/".join(parts)) + end


def is_hidden(location_href: str) -> bool:
    """Whether a name below a repository is not shown to clients."""
    return any(part.startswith(".") and part not in SHOWN_THOUGH_HIDDEN for part in location_href.split("/"))


def is_reserved(location_href: str) -> bool:
    """Whether clients may not write a name: it is hidden, or belongs to the published metadata."""
    return is_hidden(location_href) or location_href.partition("/")[0] == "repodata"


def href_of(path: str) -> str:
    """The path as it stands in a link."""
    return quote(os.fsencode(path))
