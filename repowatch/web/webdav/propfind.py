"""Answers PROPFIND: what a request asks for, and a listing that is sent while it is read (RFC 4918)."""

from __future__ import annotations

import os
import stat
import time
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from http import HTTPStatus
from itertools import islice
from typing import Any, Literal, NamedTuple
from urllib.parse import quote_from_bytes
from xml.etree.ElementTree import Element

from repowatch.model.markup import escape, quoteattr
from repowatch.web.conditions import http_date, modification_time
from repowatch.web.names import is_hidden
from repowatch.web.served import Served, content_type
from repowatch.web.uploads import Refusal
from repowatch.web.webdav.xmlbody import document

BLOCK = 32 * 1024  # characters, of one piece of an answer
MOST_NAMES = 256  # properties that one request may ask for

_END_OF_9999 = 253402300799

# Nautilus chokes where `(` is encoded (WsgiDAV found out); these need no escape in XML either.
_SAFE_IN_HREF = "/!*'(),$-_|."
_DAV = "{DAV:}"
_BEGIN = '<?xml version="1.0" encoding="utf-8"?>\n<D:multistatus xmlns:D="DAV:">\n'
_END = "</D:multistatus>\n"
_FOUND = "</D:prop><D:status>HTTP/1.1 200 OK</D:status></D:propstat>"
_NOT_FOUND = "</D:prop><D:status>HTTP/1.1 404 Not Found</D:status></D:propstat>"
_LOCK_ENTRIES = "".join(
    f"<D:lockentry><D:lockscope><D:{scope}/></D:lockscope><D:locktype><D:write/></D:locktype></D:lockentry>"
    for scope in ("exclusive", "shared")
)


@dataclass(frozen=True, slots=True)
class Asked:
    """What a request asks for (RFC 4918, 9.1)."""

    what: Literal["allprop", "propname", "prop"]
    names: tuple[str, ...]  # of `prop`, or of what `allprop` is to include; {namespace}name


@dataclass(frozen=True, slots=True)
class Known:
    """What was stored with resources, by location_href: most have nothing."""

    properties: Mapping[str, Mapping[str, str]]  # elements in XML by their names, as {namespace}name
    locks: Mapping[str, Sequence[Mapping[str, Any]]]  # as WsgiDAV's lock manager describes them


class _Resource(NamedTuple):
    """A tuple, since ten thousand of them are made for one answer."""

    location_href: str
    name: str
    status: os.stat_result
    is_directory: bool


_Value = Callable[[_Resource], str | None]  # the content of a property's element; None where it has none


def asked_for(body: bytes) -> Asked:
    """What a PROPFIND with this body asks for; one without a body asks for all. Raises Refusal (400).

    Elements that are not known are ignored (RFC 4918, 17).
    """
    if not body:
        return Asked("allprop", ())
    root = document(body)
    if root.tag != _DAV + "propfind":
        raise Refusal(HTTPStatus.BAD_REQUEST, "the body is no propfind element")
    kinds = [
        element for element in root if element.tag in (_DAV + "allprop", _DAV + "propname", _DAV + "prop")
    ]
    if len(kinds) != 1:
        raise Refusal(
            HTTPStatus.BAD_REQUEST, "the body asks for none, or for several, of allprop, propname, prop"
        )
    [kind] = kinds
    included = [child for element in root.findall(_DAV + "include") for child in element]
    match kind.tag.removeprefix(_DAV):
        case "allprop":
            return Asked("allprop", _names(included))
        case "propname":
            return Asked("propname", ())
        case _:
            return Asked("prop", _names(kind))


def _names(elements: Element | Sequence[Element]) -> tuple[str, ...]:
    names = tuple(dict.fromkeys(element.tag for element in elements))
    if len(names) > MOST_NAMES:
        raise Refusal(HTTPStatus.BAD_REQUEST, f"the body asks for more than {MOST_NAMES} properties")
    return names


class Multistatus:
    """The body of an answer: a resource and, where wanted, what is in it, in the order of the directory.

    It is made while it is sent, and the directory is open until then or until `close`. A name that is not
    UTF-8 is told by its href, which carries any byte, and has no displayname.
    """

    def __init__(
        self, repository: Served, location_href: str, *, members: bool, asked: Asked, known: Known
    ) -> None:
        """Make the first block. Raises OSError when the resource can not be read."""
        resources = _resources(repository, location_href, members=members)
        self._rest = _blocks(resources, _renderer(repository, asked, known))
        self._first = list(islice(self._rest, 2))
        self.length = len(self._first[0]) if len(self._first) == 1 else None
        """Bytes; None where that is not known yet."""

    def __iter__(self) -> Iterator[bytes]:
        yield from self._first
        yield from self._rest

    def close(self) -> None:
        self._rest.close()


def _blocks(
    resources: Iterator[_Resource], render: Callable[[_Resource], str]
) -> Generator[bytes, None, None]:
    pieces, size = [_BEGIN], len(_BEGIN)
    for resource in resources:
        piece = render(resource)
        pieces.append(piece)
        size += len(piece)
        if size >= BLOCK:
            yield "".join(pieces).encode()
            pieces, size = [], 0
    pieces.append(_END)
    yield "".join(pieces).encode()


def _resources(repository: Served, location_href: str, *, members: bool) -> Iterator[_Resource]:
    path = repository.resolve(location_href)
    if path is None:
        raise FileNotFoundError(location_href)
    status = os.lstat(path)
    is_directory = stat.S_ISDIR(status.st_mode)
    yield _Resource(location_href, location_href.rpartition("/")[2], status, is_directory)
    if members and is_directory:
        yield from _members(repository, location_href, path)


def _members(repository: Served, location_href: str, path: str) -> Iterator[_Resource]:
    prefix = f"{location_href}/" if location_href else ""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        with os.scandir(descriptor) as entries:
            for entry in entries:
                name = entry.name
                if name.startswith(".") and is_hidden(name):
                    continue
                href = prefix + name
                status = _status(repository, href, entry)
                if status is None:
                    continue
                if stat.S_ISREG(status.st_mode) or stat.S_ISDIR(status.st_mode):
                    yield _Resource(href, name, status, stat.S_ISDIR(status.st_mode))
    finally:
        os.close(descriptor)


def _status(repository: Served, location_href: str, entry: os.DirEntry[str]) -> os.stat_result | None:
    """What stat says of it; None where it is gone, or a link that may not be followed."""
    try:
        if not entry.is_symlink():
            return entry.stat(follow_symlinks=False)
        path = repository.resolve(location_href)
        return os.lstat(path) if path is not None else None
    except OSError:
        return None


def _renderer(repository: Served, asked: Asked, known: Known) -> Callable[[_Resource], str]:
    """The function that writes the response element of one resource."""
    live = _live_properties(repository, known)
    if asked.what == "prop":
        tags = [(*_tags(name), live.get(name), name) for name in asked.names]
    else:
        names = dict.fromkeys((*live, *(asked.names)))
        tags = [(*_tags(name), live.get(name), name) for name in names]
    quiet = (
        set() if asked.what == "prop" else set(live).difference(asked.names)
    )  # no 404 for what nobody named
    names_only = asked.what == "propname"
    base = quote_from_bytes(os.fsencode(repository.url), _SAFE_IN_HREF)
    nothing: Mapping[str, str] = {}

    def render(resource: _Resource) -> str:
        dead = known.properties.get(resource.location_href, nothing)
        found, missing = [], []
        for begin, end, empty, value_of, name in tags:
            value = value_of(resource) if value_of else None
            if value is not None:
                found.append(empty if names_only else f"{begin}{value}{end}")
            elif name in dead:
                found.append(dead[name])
            elif name not in quiet:
                missing.append(empty)
        if dead and asked.what != "prop":
            others = (name for name in dead if name not in asked.names)
            found += [_tags(name)[2] if names_only else dead[name] for name in others]
        href = quote_from_bytes(os.fsencode(resource.location_href), _SAFE_IN_HREF)
        slash = "/" if resource.is_directory and href else ""
        not_found = f"<D:propstat><D:prop>{''.join(missing)}{_NOT_FOUND}" if missing else ""
        ok = f"<D:propstat><D:prop>{''.join(found)}{_FOUND}" if found or not missing else ""
        return f"<D:response><D:href>{base}{href}{slash}</D:href>{ok}{not_found}</D:response>\n"

    return render


def _tags(name: str) -> tuple[str, str, str]:
    """The begin, the end, and the empty element of a property called {namespace}name."""
    namespace, brace, local = name[1:].rpartition("}") if name.startswith("{") else ("", "", name)
    if brace and namespace == "DAV:":
        return f"<D:{local}>", f"</D:{local}>", f"<D:{local}/>"
    if brace:
        return (
            f"<x:{local} xmlns:x={quoteattr(namespace)}>",
            f"</x:{local}>",
            f"<x:{local} xmlns:x={quoteattr(namespace)}/>",
        )
    return f"<{local}>", f"</{local}>", f"<{local}/>"


def _live_properties(repository: Served, known: Known) -> dict[str, _Value]:
    """The properties that the server knows by itself (RFC 4918, 15)."""
    now = time.time()
    etag = repository.etag

    def last_modified(resource: _Resource) -> str | None:
        seconds = modification_time(resource.status.st_mtime_ns, now=now)
        return None if seconds is None else http_date(seconds)

    def lock_discovery(resource: _Resource) -> str:
        if not known.locks:
            return ""
        found = known.locks.get(resource.location_href, ())
        return "".join(_active_lock(lock, repository, resource, now=now) for lock in found)

    values: dict[str, _Value] = {
        "resourcetype": lambda each: "<D:collection/>" if each.is_directory else "",
        "creationdate": lambda each: _internet_date(int(each.status.st_ctime)),
        "getcontentlength": lambda each: None if each.is_directory else str(each.status.st_size),
        "getcontenttype": lambda each: None if each.is_directory else content_type(each.name),
        "getlastmodified": last_modified,
        "displayname": lambda each: escape(each.name) if each.name.isprintable() else None,
        "getetag": lambda each: None if each.is_directory else f'"{etag(each.location_href, each.status)}"',
        "lockdiscovery": lock_discovery,
        "supportedlock": lambda each: _LOCK_ENTRIES,
    }
    return {_DAV + name: value for name, value in values.items()}


def _active_lock(lock: Mapping[str, Any], repository: Served, resource: _Resource, *, now: float) -> str:
    href = quote_from_bytes(os.fsencode(repository.url + resource.location_href), _SAFE_IN_HREF)
    slash = "/" if resource.is_directory and resource.location_href else ""
    owner = lock["owner"].decode().partition("?>")[2].strip()  # WsgiDAV keeps it with an XML declaration
    timeout = f"Second-{max(0, int(lock['expire'] - now))}"
    return (
        f"<D:activelock><D:locktype><D:{lock['type']}/></D:locktype>"
        f"<D:lockscope><D:{lock['scope']}/></D:lockscope><D:depth>{lock['depth']}</D:depth>{owner}"
        f"<D:timeout>{timeout}</D:timeout><D:locktoken><D:href>{lock['token']}</D:href></D:locktoken>"
        f"<D:lockroot><D:href>{href}{slash}</D:href></D:lockroot></D:activelock>"
    )


@lru_cache(maxsize=4096)
def _internet_date(seconds: int) -> str | None:
    """`seconds` since 1970 by RFC 3339, None where it has no date for it."""
    if not 0 <= seconds <= _END_OF_9999:
        return None
    year, month, day, hour, minute, second, *_ = time.gmtime(seconds)
    return f"{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z"
