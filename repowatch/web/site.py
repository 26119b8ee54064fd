"""Which door a request goes to: files and listings, WebDAV, or what the daemon says of itself."""

from __future__ import annotations

import errno
import logging
import os
import stat
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from hashlib import sha256
from http import HTTPStatus
from typing import Any
from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

from repowatch.model.publication import Publication
from repowatch.system.clock import SystemClock
from repowatch.system.files import is_where_it_seems
from repowatch.web import snapshots
from repowatch.web.downloads import CONDITIONAL_FIELDS, FileBody, send_file
from repowatch.web.http.head import Head
from repowatch.web.http.wire import Wait
from repowatch.web.info import about, clients
from repowatch.web.info import status as says
from repowatch.web.info.counts import Counts
from repowatch.web.info.listing import DirectoryEntry, render
from repowatch.web.info.metrics import Busy, Metrics
from repowatch.web.kept import MOST, SETTLED, Kept, Shelf, stamp_of
from repowatch.web.names import BadName, href_of, is_hidden, path_of
from repowatch.web.openings import Opening, Unserved, make, no_opening
from repowatch.web.operations import Asked, perform
from repowatch.web.pairs import PAIRED, REPOMD, Pairs, as_file
from repowatch.web.records import Outcome, Recorder, claimed
from repowatch.web.replies import READING, Headers, Reply, not_among, page, plain
from repowatch.web.rights.guard import Act, Guard, Login
from repowatch.web.rights.origins import REBOUND, REFUSAL, is_foreign, is_rebound
from repowatch.web.rights.rules import Action
from repowatch.web.served import Served, content_type
from repowatch.web.uploads import Refusal
from repowatch.web.webdav.dav import application
from repowatch.web.webdav.destination import destination

log = logging.getLogger(__name__)

LONGEST_KEPT = 512  # characters of a target whose meaning is remembered, and whose answer may be kept

_ROUTE = "repowatch.route"
_METRICS = "/metrics"
_NOTHING_HERE = "no repository and no operation has this URL"

# O_NONBLOCK: opening a FIFO that nobody writes to would wait forever.
_OPEN_FLAGS = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK

_ACTIONS = {
    "GET": Action.READ,
    "HEAD": Action.READ,
    "OPTIONS": Action.READ,
    "PROPFIND": Action.READ,
    "COPY": Action.READ,
    "DELETE": Action.DELETE,
    "MOVE": Action.DELETE,
}


@dataclass(frozen=True, slots=True)
class _Door:
    """Where the requests below one URL go."""

    url: str
    repository: Served
    dav: WSGIApplication

    def leads_to(self, path: str) -> bool:
        return path.startswith(self.url) or path == self.url.rstrip("/")

    def location(self, path: str) -> str:
        """The location_href that a path means, with its slash where it is a directory."""
        location_href = path[len(self.url) :]
        if location_href and not location_href.endswith("/"):
            directory = os.path.isdir(self.repository.path(location_href))
            return f"{location_href}/" if directory else location_href
        return location_href


@dataclass(frozen=True, slots=True)
class _Route:
    """What a request is about."""

    path: str
    door: _Door | None
    location_href: str
    file_path: str | None  # None where no file can be meant
    snapshot: snapshots.Meant | None = None


class Site:
    """The WSGI application behind the server: `admit` first, then `quick` or the call itself."""

    def __init__(
        self,
        repositories: Sequence[Served],
        *,
        guard: Guard,
        base_url: Callable[[], str],
        max_upload: int | None,
        version: str,
        record: Recorder | None = None,
        counts: Counts,
        metrics: Metrics,
        opening: Callable[[str], Opening | None] = no_opening,
        unserved: Callable[[], Sequence[Unserved]] = tuple,
    ) -> None:
        """`base_url` is what clients are told to begin with, without a slash at its end.

        `record` keeps an account of each change. `opening` tells what may be made where no repository is,
        `unserved` which directories are none.
        """
        self._max_upload = max_upload
        self._repositories = tuple(repositories)
        self._doors = tuple(map(self._door, repositories))
        self._opening = opening
        self._unserved = unserved
        self._published: Callable[[], None] = lambda: None
        self._guard = guard
        self._shelf = Shelf()
        self._pairs = Pairs(clock=SystemClock())
        self._shared = about.Shared()
        self._route = lru_cache(maxsize=4096)(self._find_route)
        self._base_url = base_url
        self._version = version
        self._record = record
        self._counts = counts
        self._metrics = metrics

    def take(self, guard: Guard) -> None:
        """Ask another guard from now on; from another thread."""
        self._guard = guard
        self._shelf = Shelf()  # after the guard, see `_keep`

    def _door(self, repository: Served) -> _Door:
        return _Door(repository.url, repository, application(repository, max_upload=self._max_upload))

    def serve(self, repositories: Sequence[Served]) -> None:
        """Serve these from now on; from another thread. Those that were served before keep their locks."""
        known = {id(door.repository): door for door in self._doors}
        self._doors = tuple(known.get(id(each)) or self._door(each) for each in repositories)
        self._repositories = tuple(repositories)
        # A request that is on its way puts what it found into the old cache, and into the old shelf.
        self._route = lru_cache(maxsize=4096)(self._find_route)
        self._shelf = Shelf()
        self._shared = about.Shared()  # which has publications of those that are gone
        self.when_published(self._published)

    def admit(self, environ: WSGIEnvironment) -> Reply | Login | None:
        """Whether a request may go on, before anything of its body is read: None, why not, or a Login first.

        Quick enough for the loop that collects the heads.
        """
        try:
            target = environ["REQUEST_URI"]
            route = self._route(target) if len(target) <= LONGEST_KEPT else self._find_route(target)
        except BadName as error:
            self._guard.admit(environ, ())
            return Reply(HTTPStatus.BAD_REQUEST, str(error))
        environ[_ROUTE] = route
        if refusal := self._refused_to_pages(environ):
            self._guard.peer(environ)
            return Reply(HTTPStatus.FORBIDDEN, refusal)
        if route.snapshot is not None:
            act = (Action.READ, route.snapshot.repository.name, "")
            return self._guard.admit(environ, [act]) or snapshots.refusal(environ["REQUEST_METHOD"])
        if route.door is None:
            return self._admit_beside(route.path, environ)
        return self._guard.admit(environ, self._acts(environ, route.door, route.path))

    def _refused_to_pages(self, environ: WSGIEnvironment) -> str | None:
        """Why a page may not have a browser send this; None where it may, or where none is behind it."""
        method, fields = environ["REQUEST_METHOD"], environ["repowatch.fields"]
        if is_foreign(method, fields):
            return REFUSAL
        direct = environ["REMOTE_ADDR"] or None
        if environ["repowatch.certificate"] or not is_rebound(direct, method, fields):
            return None
        # A browser that comes by a proxy of this host is elsewhere, if the proxy is one to be believed.
        return REBOUND if is_rebound(self._guard.address(direct, fields), method, fields) else None

    def _admit_beside(self, path: str, environ: WSGIEnvironment) -> Reply | Login | None:
        """The same for what is not below a repository."""
        method, admit = environ["REQUEST_METHOD"], self._guard.admit
        if path == _METRICS:  # which tell of all repositories at once
            acts = [(Action.READ, each.name, "") for each in self._repositories]
            return admit(environ, acts) or _not_here(method)
        if method not in ("GET", "HEAD") and (asked := Asked.of(path, self._repositories)):
            # Of some file: the operation asks for each that it changes.
            return admit(environ, [(Action.WRITE, asked.repository.name, None)])
        if method == "MKCOL" and (opening := self._opening(path)):
            return admit(environ, [(Action.WRITE, opening.name, "")])
        verdict = admit(environ, (), ask_who=not path.startswith("/healthz"))
        return verdict or _not_here(method)

    def _find_route(self, target: str) -> _Route:
        """What a request target means, whatever there is on the disk. Raises BadName."""
        path = path_of(target)
        door = next((door for door in self._doors if door.leads_to(path)), None)
        if meant := snapshots.Meant.by(path, self._repositories, door=door):
            return _Route(path, None, "", None, meant)
        if door is None:
            return _Route(path, None, "", None)
        location_href = path[len(door.url) :]
        means_file = location_href and not location_href.endswith("/") and not is_hidden(location_href)
        return _Route(path, door, location_href, door.repository.path(location_href) if means_file else None)

    def _acts(self, environ: WSGIEnvironment, door: _Door, path: str) -> list[Act]:
        method = environ["REQUEST_METHOD"]
        if method in ("GET", "HEAD"):
            return [(Action.READ, door.repository.name, "")]
        action = _ACTIONS.get(method, Action.WRITE)
        location = path[len(door.url) :]
        if method == "MKCOL":
            location = f"{location.rstrip('/')}/"
        elif method in ("DELETE", "MOVE", "COPY"):
            location = door.location(path)
        acts: list[Act] = [(action, door.repository.name, location)]
        if method in ("COPY", "MOVE") and (there := _destination(environ, door)) is not None:
            target = door.location(f"{door.url}{there}")
            if location == "" or location.endswith("/"):
                target = f"{target.rstrip('/')}/"
            acts.append((Action.WRITE, door.repository.name, target))
        return acts

    def quick(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes] | None:
        """The answer to a GET or HEAD of a file, by a few system calls; None for what takes longer."""
        route: _Route = environ[_ROUTE]
        if route.door is None or route.file_path is None:
            return None
        repository, location_href = route.door.repository, route.location_href
        paired = self._send_paired(repository, location_href, environ, start_response)
        if paired is not None:
            return paired
        if not route.door.repository.is_local():
            return None
        try:
            descriptor = _open_where_it_seems(route.file_path)
        except FileNotFoundError:
            return _send_retired(repository, location_href, environ, start_response)
        except OSError:
            return None
        said: list[tuple[str, Headers]] = []

        def start(status: str, headers: Headers, exc_info: Any = None, /) -> Callable[[bytes], object]:
            said.append((status, headers))
            return start_response(status, headers, exc_info)

        publication = route.door.repository.publication()  # before the ETag is made of it
        body = _send(route.door.repository, route.location_href, descriptor, environ, start)
        target = environ["REQUEST_URI"]
        is_whole = (
            isinstance(body, FileBody) and environ["REQUEST_METHOD"] == "GET" and said[-1][0] == "200 OK"
        )
        if is_whole and len(target) <= LONGEST_KEPT:
            self._keep(target, route, descriptor, said[-1][1], publication)
        return body

    def _send_paired(
        self, repository: Served, location_href: str, environ: WSGIEnvironment, start_response: StartResponse
    ) -> Iterable[bytes] | None:
        """repomd.xml or its signature, as they belong together for this client; None for any other file."""
        publication = repository.publication() if location_href in PAIRED else None
        if publication is None or publication.signed is None:
            return None
        signed = self._pairs.choose(repository.name, location_href, environ, current=publication.signed)
        content = signed.repomd if location_href == REPOMD else signed.signature
        return send_file(
            environ,
            start_response,
            as_file(content, at=signed.at),
            etag=lambda _: sha256(content).hexdigest(),
            content_type=content_type(location_href),
            cache_control=repository.cache_control(location_href),
        )

    def again(self, head: Head) -> Kept | None:
        """The answer to a GET that is the same as a moment ago: of a small file that anyone may read."""
        if head.method != "GET" or head.length != 0 or not CONDITIONAL_FIELDS.isdisjoint(head.fields):
            return None
        return self._shelf.find(head.target)

    def client(self, direct: str | None, head: Head) -> str | None:
        """The address of the client behind a connection from `direct`; None for a unix socket."""
        return self._guard.address(direct, head.fields)

    def _keep(
        self, target: str, route: _Route, descriptor: int, headers: Headers, publication: Publication | None
    ) -> None:
        """Keep an answer that was just begun, if it is small and public and has been the same for a while."""
        assert route.door is not None
        assert route.file_path is not None
        # The shelf before the guard: what the old guard calls public never comes into the new shelf.
        shelf, repository, status = self._shelf, route.door.repository, os.fstat(descriptor)
        if status.st_size > MOST or status.st_ctime > time.time() - SETTLED:
            return
        content = os.pread(descriptor, status.st_size, 0)
        if len(content) == status.st_size and self._guard.is_public(repository.name):
            lines = "".join(f"{name}: {value}\r\n" for name, value in headers)
            head = f"HTTP/1.1 200 OK\r\n{lines}".encode("latin-1")
            asked = repository.publication
            shelf.put(target, Kept(route.file_path, stamp_of(status), publication, asked, head, content))

    def wait(self, environ: WSGIEnvironment) -> Wait | None:
        """What the answer to an admitted GET waits for; None where it can be given at once."""
        route: _Route = environ[_ROUTE]
        if route.door is not None or not route.path.startswith(about.ROOT):
            return None
        shown = (each for each in self._repositories if self._guard.may_read(environ, each.name))
        return about.wait_of(shown, route.path, environ)

    def when_published(self, act: Callable[[], None]) -> None:
        """Have a function called after each publication of any repository, by the thread that made it."""
        self._published = act
        for repository in self._repositories:
            repository.when_published(act)

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        """Answer a request that was admitted."""
        body = self._answer(environ, start_response)
        if environ["REQUEST_METHOD"] != "HEAD":
            return body
        if hasattr(body, "close"):
            body.close()
        return ()

    def _answer(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        route: _Route = environ[_ROUTE]
        if route.snapshot is not None:
            return snapshots.answer(route.snapshot, route.path, environ, start_response)
        if route.door is None:
            return self._beside(route.path, environ, start_response)
        if environ["REQUEST_METHOD"] in ("GET", "HEAD"):
            repository, location_href = route.door.repository, route.location_href
            paired = self._send_paired(repository, location_href, environ, start_response)
            if paired is not None:
                return paired
            return _download(route.door.repository, route.path, environ, start_response)
        if environ["REQUEST_METHOD"] != "PUT":
            return self._change(route, route.door, environ, start_response)
        with self._counts.upload(environ, start_response) as start:
            return self._change(route, route.door, environ, start)

    def _change(
        self, route: _Route, door: _Door, environ: WSGIEnvironment, start_response: StartResponse
    ) -> Iterable[bytes]:
        if self._record is None:
            return _write(door, route.path, environ, start_response)
        with self._record.change(door.repository, route.path, environ, start_response) as start:
            return _write(door, route.path, environ, start)

    def _operate(
        self, asked: Asked, environ: WSGIEnvironment, start_response: StartResponse
    ) -> Iterable[bytes]:
        def may_read(name: str) -> bool:
            return self._guard.may_read(environ, name)

        def done(arguments: dict[str, Any], outcome: dict[str, Any]) -> None:
            if self._record and not outcome.get("dry_run"):
                changed = Outcome.of(asked.repository, outcome)
                self._record.operation(asked.repository.name, asked.name, arguments, environ, outcome=changed)

        asker = self._guard.asker(environ, asked.repository.name)
        return perform(asked, environ, start_response, asker=asker, may_read=may_read, done=done)

    def _beside(self, path: str, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        """Answer where no repository is."""
        method = environ["REQUEST_METHOD"]
        if method not in ("GET", "HEAD") and (asked := Asked.of(path, self._repositories)):
            if (refusal := not_among(["POST"], method, "an operation takes POST")) is not None:
                return refusal.through(start_response)
            return self._operate(asked, environ, start_response)
        if method == "MKCOL" and (opening := self._opening(path)):
            return make(opening, environ, start_response, done=partial(self._made, opening, environ))
        if (refusal := _not_here(method)) is not None:  # after a login
            return refusal.through(start_response)
        return self._about(path, environ, start_response)

    def _made(self, opening: Opening, environ: WSGIEnvironment) -> None:
        if self._record:
            self._record.operation(opening.name, "MKCOL", {}, environ, status=HTTPStatus.CREATED.value)

    def _about(self, path: str, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        shown = [each for each in self._repositories if self._guard.may_read(environ, each.name)]
        match path:
            case "/":
                unserved = self._told_unserved(environ)
                return about.front(shown, start_response, unserved=unserved, version=self._version)
            case "/metrics":
                return self._show_metrics(environ, start_response)
            case "/healthz" | "/readyz":
                lines = says.trouble(self._repositories, ready=path == "/readyz")
                well = HTTPStatus.SERVICE_UNAVAILABLE if lines else HTTPStatus.OK
                return plain(start_response, well, "\n".join(lines) or "ok", [("Cache-Control", "no-store")])
        base_url, asks = self._base_url(), self._guard.asks_readers
        named = [*self._repositories, *snapshots.as_repositories(path, self._repositories)]
        if (told := clients.told(path, named, base_url=base_url, asks=asks)) is not None:
            return plain(start_response, HTTPStatus.OK, told, [("Cache-Control", "no-cache")])
        if path.startswith(about.ROOT):
            return about.answer(
                shown,
                path,
                environ,
                start_response,
                base_url=base_url,
                asks=asks,
                unserved=self._told_unserved(environ),
                version=self._version,
                shared=self._shared,
            )
        return plain(start_response, HTTPStatus.NOT_FOUND, "not found")

    def _told_unserved(self, environ: WSGIEnvironment) -> list[Unserved]:
        return [each for each in self._unserved() if self._guard.may_read(environ, each.pattern)]

    def _show_metrics(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        try:
            content_type, text = self._metrics.scrape(environ.get("HTTP_ACCEPT"))
        except Busy as error:
            return plain(start_response, HTTPStatus.SERVICE_UNAVAILABLE, str(error))
        start_response(
            "200 OK",
            [
                ("Content-Type", content_type),
                ("Content-Length", str(len(text))),
                ("Cache-Control", "no-store"),
                ("Vary", "Accept"),
            ],
        )
        return [text]


def _open_where_it_seems(path: str) -> int:
    """Open a regular file. Raises OSError, ELOOP among them when any part of the path is a symbolic link."""
    descriptor = os.open(path, _OPEN_FLAGS)
    if is_where_it_seems(descriptor, path) and stat.S_ISREG(os.fstat(descriptor).st_mode):
        return descriptor
    os.close(descriptor)
    raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), path)


def _not_here(method: str) -> Reply | None:
    """What is no repository can only be read."""
    return not_among(READING, method, _NOTHING_HERE)


def _destination(environ: WSGIEnvironment, door: _Door) -> str | None:
    """Where MOVE and COPY go in the repository; None where WebDAV's door refuses it."""
    host, field = environ.get("HTTP_HOST", "localhost"), environ.get("HTTP_DESTINATION", "")
    try:
        return destination(field, host=host, url=door.url)
    except Refusal:
        return None


def _write(
    door: _Door, path: str, environ: WSGIEnvironment, start_response: StartResponse
) -> Iterable[bytes]:
    with claimed(door.repository, path, environ, start_response) as start:
        return _ask_webdav(door, path, environ, start)


def _ask_webdav(
    door: _Door, path: str, environ: WSGIEnvironment, start_response: StartResponse
) -> Iterable[bytes]:
    """Every method but GET and HEAD, below a repository: WebDAV's."""
    try:
        inside = path[len(door.url) - 1 :].encode() or b"/"
    except UnicodeEncodeError:
        return plain(start_response, HTTPStatus.BAD_REQUEST, "a name that is not UTF-8")
    environ["SCRIPT_NAME"] = door.url.rstrip("/")
    environ["PATH_INFO"] = inside.decode("latin-1")
    environ["wsgidav.auth.user_name"] = environ.get("REMOTE_USER", "")
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
        return _send_retired(repository, inside, environ, start_response)
    if is_directory:
        return _list(repository, path, resolved, start_response)
    return _send(repository, location_href, resolved, environ, start_response)


def _send(
    repository: Served,
    location_href: str,
    target: int | str,
    environ: WSGIEnvironment,
    start_response: StartResponse,
) -> Iterable[bytes]:
    return send_file(
        environ,
        start_response,
        target,
        etag=lambda status: repository.etag(location_href, status),
        content_type=content_type(location_href),
        cache_control=repository.cache_control(location_href),
    )


def _send_retired(
    repository: Served, location_href: str, environ: WSGIEnvironment, start_response: StartResponse
) -> Iterable[bytes]:
    """What left the tree a while ago, for clients with older metadata; 404 for all else."""
    if (found := repository.retired(location_href)) is None:
        return plain(start_response, HTTPStatus.NOT_FOUND, "not found")
    path, pkgid = found
    return send_file(
        environ, start_response, path, etag=lambda status: pkgid, content_type=content_type(location_href)
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
    about_it = href_of(f"/-/{repository.name}") if path == repository.url else None
    listing = render(entries, title_path=path, about=about_it)
    return page(start_response, listing, [("Cache-Control", "no-cache")])


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
