"""Renders a directory as an HTML page for people."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from html import escape
from urllib.parse import quote_from_bytes

from repowatch.model.units import in_units
from repowatch.model.versions import filename_key

STYLE = """\
:root{color-scheme:light dark;--line:#ddd;--dim:#666}
@media(prefers-color-scheme:dark){:root{--line:#333;--dim:#999}}
body{font:1rem/1.5 system-ui,sans-serif;max-width:60rem;margin:1rem auto;padding:0 1rem}
h1{font-size:1.2rem;overflow-wrap:anywhere}
table{border-collapse:collapse;width:100%}
a{text-decoration:none}
td{border-top:1px solid var(--line);padding:.2rem 0 .2rem 1rem;white-space:nowrap;color:var(--dim)}
td:first-child{padding-left:0;white-space:normal;overflow-wrap:anywhere}
"""
_LISTING_STYLE = """\
td:nth-child(2){text-align:right}
@media(max-width:40rem){td:nth-child(3){display:none}}
"""


@dataclass(frozen=True, slots=True)
class DirectoryEntry:
    """What a listing shows of one name, which is as os.fsdecode() makes it."""

    name: str
    is_directory: bool
    size: int  # bytes
    mtime: float  # seconds since 1970


def render(entries: Iterable[DirectoryEntry], *, title_path: str, about: str | None = None) -> bytes:
    """An HTML page, to be served under a URL that ends in a slash.

    Directories come first, then files, each in the order of `filename_key`. `title_path` is the decoded
    path of the directory; every directory but `/` has a link to its parent. `about` is a link to the page
    that tells about the repository.
    """
    title = escape(printable(title_path))
    in_order = sorted(entries, key=lambda entry: (not entry.is_directory, filename_key(entry.name)))
    parent = "" if title_path == "/" else '<tr><td><a href="../">../</a></td><td></td><td></td></tr>\n'
    link = f'<p><a href="{escape(about)}">status, and how to use it</a></p>\n' if about else ""
    page = (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{title}</title>\n<style>\n{STYLE}{_LISTING_STYLE}</style>\n</head>\n<body>\n<h1>{title}</h1>\n"
        f"{link}<table>\n{parent}{''.join(map(_row, in_order))}</table>\n</body>\n</html>\n"
    )
    return page.encode()


def _row(entry: DirectoryEntry) -> str:
    slash = "/" if entry.is_directory else ""
    # Also `:` is encoded, so that no name is taken for a scheme.
    href = quote_from_bytes(os.fsencode(entry.name), safe="")
    size = "" if entry.is_directory else f'<span title="{entry.size} bytes">{in_units(entry.size)}</span>'
    return (
        f'<tr><td><a href="{href}{slash}">{escape(printable(entry.name))}{slash}</a></td>'
        f"<td>{size}</td><td>{date(entry.mtime)}</td></tr>\n"
    )


def printable(name: str) -> str:
    """`name` with escapes for undecodable bytes, control characters and what would turn the line around."""
    if name.isprintable():
        return name
    text = os.fsencode(name).decode("utf-8", "backslashreplace")
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text)


def date(mtime: float) -> str:
    """The date in UTC, nothing where the calendar has none for it."""
    try:
        return f"{datetime.fromtimestamp(mtime, tz=UTC):%Y-%m-%d %H:%M} UTC"
    except (ValueError, OverflowError, OSError):
        return ""
