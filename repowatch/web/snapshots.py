"""Shows snapshots below `/<repository>@<name>/`: files and listings, which nobody can write."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from http import HTTPStatus
from typing import Protocol
from wsgiref.types import StartResponse, WSGIEnvironment

from repowatch.errors import Conflict, Nameless
from repowatch.system.logs import printable
from repowatch.web.downloads import send_file
from repowatch.web.info.listing import DirectoryEntry, render
from repowatch.web.names import href_of, is_hidden
from repowatch.web.replies import READING, Reply, not_among, page, plain
from repowatch.web.served import Served, SnapshotView, content_type

SEPARATOR = "@"

_CHECKSUM = re.compile(r"^repodata/([0-9a-f]{64,128})-[^/]+$")


class Door(Protocol):
    """Where the requests below one URL go."""

    @property
    def url(self) -> str: ...


@dataclass(frozen=True, slots=True)
class Meant:
    """A name in a snapshot, whether or not there is one."""

    repository: Served
    snapshot: str
    location_href: str  # as it was asked for, with the slash at its end

    @classmethod
    def by(cls, path: str, repositories: Iterable[Served], *, door: Door | None) -> Meant | None:
        """What a path means; None when it is no snapshot's. `door`: where it goes otherwise."""
        for each in repositories:
            above = _above(each)
            if not path.startswith(above) or (door and len(door.url) > len(each.url)):
                continue
            name, slash, inside = path.removeprefix(above).partition("/")
            if slash or not name.endswith(".repo"):
                return cls(each, name, inside if slash else "")
        return None


def _above(repository: Served) -> str:
    return f"{repository.url.rstrip('/') or '/'}{SEPARATOR}"


def url_of(repository: Served, snapshot: str) -> str:
    """Where a snapshot is shown, not percent-encoded; with a slash at its end."""
    return f"{_above(repository)}{snapshot}/"


def refusal(method: str) -> Reply | None:
    """The answer to whoever wants more than to read."""
    return not_among(READING, method, "a snapshot can only be read")


def answer(
    meant: Meant, path: str, environ: WSGIEnvironment, start_response: StartResponse
) -> Iterable[bytes]:
    """Answer a GET or HEAD."""
    try:
        return _show(meant, path, environ, start_response)
    except Nameless as error:
        return plain(start_response, HTTPStatus.NOT_FOUND, printable(str(error)))
    except Conflict as error:
        return plain(start_response, HTTPStatus.GONE, printable(str(error)), [("Cache-Control", "no-cache")])
    except OSError as error:
        text = f"the snapshot can not be read: {(error.strerror or str(error)).lower()}"
        return plain(start_response, HTTPStatus.SERVICE_UNAVAILABLE, text)


def _show(
    meant: Meant, path: str, environ: WSGIEnvironment, start_response: StartResponse
) -> Iterable[bytes]:
    """A file or a listing. Raises Nameless, Conflict and OSError."""
    location_href = meant.location_href
    view = meant.repository.snapshot(meant.snapshot)
    found = None if is_hidden(location_href) else view.find(location_href)
    if found is not None:
        return send_file(
            environ,
            start_response,
            found.path,
            etag=lambda status: (
                found.etag or _named(location_href) or f"{status.st_size:x}-{status.st_mtime_ns:x}"
            ),
            content_type=content_type(location_href),
            cache_control=meant.repository.cache_control(location_href),
        )
    entries = view.entries(location_href.rstrip("/"))
    if entries is None:
        return plain(start_response, HTTPStatus.NOT_FOUND, "not found")
    if not path.endswith("/"):
        link = href_of(f"{path}/")
        return plain(start_response, HTTPStatus.MOVED_PERMANENTLY, link, [("Location", link)])
    about = None if location_href else href_of(f"/-/{meant.repository.name}")
    listing = render((DirectoryEntry(*each) for each in entries), title_path=path, about=about)
    return page(start_response, listing, [("Cache-Control", "no-cache")])


def _named(location_href: str) -> str | None:
    """The checksum that a metadata file is called by."""
    found = _CHECKSUM.match(location_href)
    return found[1] if found else None


def as_repositories(path: str, repositories: Iterable[Served]) -> Sequence[Served]:
    """The snapshot that a path for people tells of, as a repository of its own; empty if there is none."""
    for each in repositories:
        if name := _snapshot_in(path, each.name):
            with suppress(Nameless, Conflict, OSError):
                return (_as_repository(each, name, each.snapshot(name)),)
    return ()


def _as_repository(repository: Served, name: str, view: SnapshotView) -> Served:
    keys, url = _keys(view), url_of(repository, name)
    return replace(
        repository,
        name=f"{repository.name}{SEPARATOR}{name}",
        url=url,
        baseurl=lambda: href_of(url).replace("%40", SEPARATOR),
        metadata_keys=lambda: keys,
    )


def _snapshot_in(path: str, repository: str) -> str:
    """The name in `/<repository>@<name>.repo` and `/-/<repository>@<name>/...`."""
    if path.startswith(start := f"/{repository}{SEPARATOR}") and path.endswith(end := ".repo"):
        return path.removeprefix(start).removesuffix(end)
    if path.startswith(start := f"/-/{repository}{SEPARATOR}"):
        return path.removeprefix(start).partition("/")[0]
    return ""


def _keys(view: SnapshotView) -> list[str]:
    """The location_hrefs of the keys that signed what was published."""
    names = sorted(name for name, *_ in view.entries("repodata") or () if name.endswith(".key"))
    single = [name for name in names if name != "repomd.xml.key"]
    return [f"repodata/{name}" for name in single or names]
