"""Which door a request goes to: files and listings, WebDAV, or what the daemon says of itself."""

from __future__ import annotations

import logging
import os
import stat
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from urllib.parse import urlsplit
from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

from repowatch.web import status as says
from repowatch.web.dav import application
from repowatch.web.downloads import send_file
from repowatch.web.listing import DirectoryEntry, render
from repowatch.web.names import BadName, href_of, is_hidden, path_of
from repowatch.web.replies import as_json, page, plain
from repowatch.web.served import Served, content_type

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class _Door:
    """Where the requests below one URL go."""

    url: str
    repository: Served
    dav: WSGIApplication

    def leads_to(self, path: str) -> bool:
        return path.startswith(self.url) or path == self.url.rstrip("/")


class Site:
    """The WSGI application that cheroot calls."""

    def __init__(
        self,
        repositories: Sequence[Served],
        *,
        base_url: Callable[[], str],
        max_upload: int | None,
        version: str,
    ) -> None:
        """`base_url` is what clients are told to begin with, without a slash at its end."""
        self._repositories = tuple(repositories)
        self._doors = [
            _Door(each.url, each, application(each, max_upload=max_upload)) for each in repositories
        ]
        self._base_url = base_url
        self._version = version

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        body = self._answer(environ, start_response)
        if environ["REQUEST_METHOD"] != "HEAD":
            return body
        if hasattr(body, "close"):
            body.close()
        return ()

    def _answer(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        try:
            path = path_of(environ["REQUEST_URI"])
        except BadName as error:
            return plain(start_response, HTTPStatus.BAD_REQUEST, str(error))
        method = environ["REQUEST_METHOD"]
        reading = method in ("GET", "HEAD")
        door = next((door for door in self._doors if door.leads_to(path)), None)
        if door is None:
            return self._about(path, start_response) if reading else _not_here(method, start_response)
        if reading:
            return _download(door.repository, path, environ, start_response)
        return _write(door, path, environ, start_response)

    def _about(self, path: str, start_response: StartResponse) -> Iterable[bytes]:
        match path:
            case "/":
                return page(start_response, says.front_page(self._repositories, base_url=self._base_url()))
            case "/-/api/v1/status":
                return as_json(start_response, says.as_json(self._repositories, version=self._version))
            case "/healthz" | "/readyz":
                lines = says.trouble(self._repositories, ready=path == "/readyz")
                well = HTTPStatus.SERVICE_UNAVAILABLE if lines else HTTPStatus.OK
                return plain(start_response, well, "\n".join(lines) or "ok", [("Cache-Control", "no-store")])
        for repository in self._repositories:
            if path == f"/{repository.name}.repo":
                text = says.repo_file(repository, base_url=self._base_url())
                return plain(
                    start_response, HTTPStatus.OK, text.rstrip("\n"), [("Cache-Control", "no-cache")]
                )
        return plain(start_response, HTTPStatus.NOT_FOUND, "not found")


def _not_here(method: str, start_response: StartResponse) -> Iterable[bytes]:
    allow = [("Allow", "GET, HEAD, OPTIONS")]
    if method == "OPTIONS":
        return plain(start_response, HTTPStatus.OK, headers=allow)
    return plain(start_response, HTTPStatus.METHOD_NOT_ALLOWED, "no repository has this URL", allow)


def _write(
    door: _Door, path: str, environ: WSGIEnvironment, start_response: StartResponse
) -> Iterable[bytes]:
    """Every method but GET and HEAD, below a repository: WebDAV's."""
    try:
        inside = path[len(door.url) - 1 :].encode() or b"/"
        path_of(urlsplit(environ.get("HTTP_DESTINATION", "/")).path)
    except (UnicodeEncodeError, ValueError, BadName) as error:
        reason = str(error) if isinstance(error, BadName) else "a name that is not UTF-8, or no URL"
        return plain(start_response, HTTPStatus.BAD_REQUEST, reason)
    environ["SCRIPT_NAME"] = door.url.rstrip("/")
    environ["PATH_INFO"] = inside.decode("latin-1")
    environ["wsgidav.auth.user_name"] = ""
    environ.setdefault("HTTP_HOST", "localhost")
    return door.dav(environ, start_response)


def _download(
    repository: Served, path: str, environ: WSGIEnvironment, start_response: StartResponse
) -> Iterable[bytes]:
    """GET and HEAD of a path below a repository."""
    inside = path[len(repository.url) :]
    location_href = inside.rstrip("/")
    resolved = None if is_hidden(location_href) else repository.resolve(location_href)
    try:
        is_directory = stat.S_ISDIR(os.lstat(resolved).st_mode) if resolved else False
    except OSError:
        resolved = None
    if resolved is None or (inside.endswith("/") and not is_directory):
        return plain(start_response, HTTPStatus.NOT_FOUND, "not found")
    if is_directory:
        return _list(repository, path, resolved, start_response)
    return send_file(
        environ,
        start_response,
        resolved,
        etag=lambda status: repository.etag(location_href, status),
        content_type=content_type(location_href),
        cache_control=repository.cache_control(location_href),
    )


def _list(repository: Served, path: str, directory: str, start_response: StartResponse) -> Iterable[bytes]:
    """A directory; its URL ends with a slash, so that the links in it lead below it."""
    if not path.endswith("/"):
        link = href_of(f"{path}/")
        return plain(start_response, HTTPStatus.MOVED_PERMANENTLY, link, [("Location", link)])
    try:
        entries = list(_entries(repository, path[len(repository.url) :], directory))
    except OSError as error:
        return plain(start_response, HTTPStatus.FORBIDDEN, (error.strerror or "not readable").lower())
    return page(start_response, render(entries, title_path=path), [("Cache-Control", "no-cache")])


def _entries(repository: Served, prefix: str, directory: str) -> Iterable[DirectoryEntry]:
    with os.scandir(directory) as listed:
        for entry in listed:
            location_href = f"{prefix}{entry.name}"
            if is_hidden(entry.name) or (entry.is_symlink() and not repository.resolve(location_href)):
                continue
            try:
                status = entry.stat()
            except FileNotFoundError:
                continue
            yield DirectoryEntry(entry.name, entry.is_dir(), status.st_size, status.st_mtime)
