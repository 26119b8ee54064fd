"""The door to WsgiDAV: the tree as WebDAV resources (RFC 4918).

WsgiDAV speaks the protocol (methods, locks, properties, `If`); what a change means is decided in
`uploads`. Its own file provider is not used: it writes straight into the final name. What a change is
answered with is left in the request's environment, and `Answers` says it in the place of WsgiDAV's own
words, which are HTML and know neither 202 nor a revision.
"""

from __future__ import annotations

import contextlib
import io
import logging
import os
import stat
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from http import HTTPStatus
from typing import IO, Any
from urllib.parse import quote, urlsplit
from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

from wsgidav import util
from wsgidav.dav_error import DAVError, PRECONDITION_CODE_PropfindFiniteDepth
from wsgidav.dav_provider import DAVCollection, DAVNonCollection, DAVProvider
from wsgidav.mw.base_mw import BaseMiddleware
from wsgidav.request_resolver import RequestResolver
from wsgidav.util import SubAppStartResponse
from wsgidav.wsgidav_app import WsgiDAVApp

from repowatch.system.files import make_sure_of
from repowatch.web.batched import in_batch
from repowatch.web.http.body import BodyError
from repowatch.web.names import BadName, is_hidden, is_reserved, path_of
from repowatch.web.replies import Headers, plain
from repowatch.web.served import Served, content_type
from repowatch.web.uploads import ANSWER, Answer, Expected, Refusal, Upload, told
from repowatch.web.webdav import moves
from repowatch.web.webdav.destination import destination
from repowatch.web.webdav.locks import Locks
from repowatch.web.webdav.properties import DeadProperties
from repowatch.web.webdav.propfind import Known, Multistatus, asked_for
from repowatch.web.webdav.put import plain_put, receive
from repowatch.web.webdav.xmlbody import document, read_body

log = logging.getLogger(__name__)

_REPLY = "repowatch.reply"
_READING = frozenset({"GET", "HEAD", "OPTIONS", "PROPFIND"})
_LONGEST_TIMEOUT = 256  # characters


def application(repository: Served, *, max_upload: int | None) -> WSGIApplication:
    """The WebDAV application of one repository, to be called with its URL as SCRIPT_NAME."""
    quiet = logging.getLogger("wsgidav")  # it logs a traceback for every upload that is refused
    quiet.propagate = False
    quiet.addHandler(logging.NullHandler())
    locks = Locks()
    dav = WsgiDAVApp(
        {
            "provider_mapping": {"/": _Provider(repository, max_upload)},
            "mount_path": repository.url.rstrip("/"),
            "middleware_stack": [Answers, RequestResolver],
            "property_manager": DeadProperties(),
            "lock_storage": locks,
            "logging": {"enable": False},
            "verbose": 1,
            # Its error pages and listings are not used; this keeps it from looking for them.
            "dir_browser": {"enable": False},
            "http_authenticator": {"accept_basic": False, "accept_digest": False},
        }
    )

    def call(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        """Answer beside WsgiDAV's own way out: there it reads bodies to their end and closes connections."""
        try:
            answer = in_batch(environ, repository, locks=locks)
            if environ["REQUEST_METHOD"] == "PUT":
                answer = plain_put(environ, repository, locks=locks, most=max_upload)
        except Refusal as refusal:
            answer = Answer(refusal.status, text=str(refusal))
        if answer is not None:
            environ[ANSWER] = answer
            return _say(answer, start_response)
        for _ in dav(environ, start_response):
            pass
        reply: _Reply = environ.pop(_REPLY)
        start_response(reply.status, reply.headers)
        return reply.body

    return call


@dataclass(frozen=True, slots=True)
class _Reply:
    """What WSGI is to be told."""

    status: str
    headers: Headers
    body: Iterable[bytes]


class Answers(BaseMiddleware):  # type: ignore[misc]
    """Says what became of a request: our answer where there is one, errors in one line of text."""

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        said = SubAppStartResponse()
        try:
            body: Iterable[bytes] = list(self.next_app(environ, said))
        except DAVError as error:
            body = self._refuse(error, environ, said)
        except Exception:
            log.exception("unexpected error in %s %s", environ["REQUEST_METHOD"], environ["PATH_INFO"])
            body = plain(said, HTTPStatus.INTERNAL_SERVER_ERROR, "unexpected error; the log has it")
        else:
            if answer := environ.get(ANSWER):
                body = _say(answer, said)
        environ.setdefault(_REPLY, _Reply(said.status, said.response_headers, body))
        return ()

    def _refuse(
        self, error: DAVError, environ: WSGIEnvironment, start_response: StartResponse
    ) -> Iterable[bytes]:
        answer: Answer | None = environ.get(ANSWER)
        if answer is not None:
            return _say(answer, start_response)
        status = HTTPStatus(error.value)
        if status is HTTPStatus.INTERNAL_SERVER_ERROR:
            log.error(
                "unexpected error in %s", environ["REQUEST_METHOD"], exc_info=error.src_exception or error
            )
        if error.err_condition:
            kind, page = error.get_response_page()
            start_response(
                f"{status} {status.phrase}", [("Content-Type", kind), ("Content-Length", str(len(page)))]
            )
            return [page]
        return plain(start_response, status, error.context_info or status.phrase)


def _say(answer: Answer, start_response: StartResponse) -> Iterable[bytes]:
    headers = []
    if answer.revision is not None:
        headers.append(("Repowatch-Revision", str(answer.revision)))
    if answer.etag is not None:
        headers.append(("ETag", f'"{answer.etag}"'))
    return plain(start_response, answer.status, answer.text, headers)


@contextlib.contextmanager
def _answering(environ: WSGIEnvironment) -> Iterator[None]:
    """Leave a refusal in the environment as the answer, and tell WsgiDAV in its own way."""
    try:
        with told():
            try:
                yield
            except BodyError as error:
                raise Refusal(error.status, str(error)) from error
    except Refusal as refusal:
        environ[ANSWER] = Answer(refusal.status, text=str(refusal))
        raise DAVError(refusal.status, str(refusal)) from refusal


class _Provider(DAVProvider):  # type: ignore[misc]
    """One repository's tree."""

    def __init__(self, repository: Served, max_upload: int | None) -> None:
        super().__init__()
        self.repository = repository
        self.max_upload = max_upload

    def get_resource_inst(self, path: str, environ: WSGIEnvironment) -> _File | _Directory | None:
        location_href = path.strip("/")
        if environ["REQUEST_METHOD"] not in _READING and is_reserved(location_href):
            raise DAVError(HTTPStatus.FORBIDDEN, f"/{location_href} is not for clients to write")
        if environ["REQUEST_METHOD"] not in _READING and self.repository.is_behind_link(location_href):
            raise DAVError(HTTPStatus.FORBIDDEN, f"/{location_href} lies behind a symbolic link")
        resolved = self.repository.resolve(location_href)
        if resolved is None or is_hidden(location_href):
            return None
        try:
            status = os.lstat(resolved)
        except OSError:
            return None
        if stat.S_ISDIR(status.st_mode):
            return _Directory(path, environ, status)
        if stat.S_ISREG(status.st_mode):
            return _File(path, environ, status)
        return None

    def custom_request_handler(
        self, environ: WSGIEnvironment, start_response: StartResponse, default_handler: WSGIApplication
    ) -> Iterable[bytes]:
        method = environ["REQUEST_METHOD"]
        if method in ("PUT", "DELETE", "MOVE", "COPY") and not environ["PATH_INFO"].strip("/"):
            # WsgiDAV would look for the directory above it.
            raise DAVError(HTTPStatus.FORBIDDEN, "the root of a repository stays what and where it is")
        with _answering(environ):
            if method != "PUT":
                _settle_body(environ)
            _settle_fields(environ, self.repository)
        if method == "PROPPATCH" and self.prop_manager.is_full():
            raise DAVError(HTTPStatus.INSUFFICIENT_STORAGE, "no room for more properties")
        if method == "LOCK" and environ["CONTENT_LENGTH"] != "0" and self.lock_manager.storage.is_full():
            raise DAVError(HTTPStatus.INSUFFICIENT_STORAGE, "no room for more locks")
        if method == "PROPFIND":
            self._propfind(environ)
            return ()
        return default_handler(environ, start_response)

    def _propfind(self, environ: WSGIEnvironment) -> None:
        """Leave the answer to a PROPFIND in the environment; it is made while it is sent."""
        depth = environ.get("HTTP_DEPTH", "infinity")
        if depth == "infinity":
            raise DAVError(HTTPStatus.FORBIDDEN, err_condition=PRECONDITION_CODE_PropfindFiniteDepth)
        if depth not in ("0", "1"):
            raise DAVError(HTTPStatus.BAD_REQUEST, "Depth is neither 0 nor 1")
        resource = self.get_resource_inst(environ["PATH_INFO"], environ)
        if resource is None:
            raise DAVError(HTTPStatus.NOT_FOUND, "not found")
        self._evaluate_if(resource, environ)
        location_href = resource.path.strip("/")
        with _answering(environ):
            body = Multistatus(
                self.repository,
                location_href,
                members=depth == "1",
                asked=asked_for(environ["wsgi.input"].read()),
                known=Known(
                    self.prop_manager.in_directory(location_href),
                    self.lock_manager.storage.in_directory(location_href),
                ),
            )
        headers = [("Content-Type", "application/xml; charset=utf-8")]
        if body.length is not None:
            headers.append(("Content-Length", str(body.length)))
        environ[_REPLY] = _Reply("207 Multi-Status", headers, body)

    def _evaluate_if(self, resource: _File | _Directory, environ: WSGIEnvironment) -> None:
        """Raise DAVError (412) when the If field does not hold (RFC 4918, 10.4)."""
        conditions = environ["wsgidav.conditions.if"]
        if conditions is None:
            return
        url, user = resource.get_ref_url(), environ["wsgidav.user_name"]
        tokens = [lock["token"] for lock in self.lock_manager.get_indirect_url_lock_list(url, principal=user)]
        if not util.test_if_header_dict(resource, conditions, url, tokens, resource.get_etag() or "[]"):
            raise DAVError(HTTPStatus.PRECONDITION_FAILED, "'If' does not hold")


def _settle_body(environ: WSGIEnvironment) -> None:
    """Read and check a body that is no file before WsgiDAV does. Raises Refusal, BodyError."""
    method, body = environ["REQUEST_METHOD"], read_body(environ)
    environ["wsgi.input"] = io.BytesIO(body)
    environ["CONTENT_LENGTH"] = str(len(body))  # WsgiDAV takes a chunked body for none
    if method in ("LOCK", "PROPPATCH") and body:
        root = document(body)
        # WsgiDAV keeps the owner with the text after it, and can not read that again.
        if method == "LOCK" and any((element.tail or "").strip() for element in root):
            raise Refusal(HTTPStatus.BAD_REQUEST, "the body has text between its elements")


def _settle_fields(environ: WSGIEnvironment, repository: Served) -> None:
    """Give WsgiDAV the header fields so that it can not misread them. Raises Refusal."""
    if environ["REQUEST_METHOD"] in ("MOVE", "COPY") and "HTTP_DESTINATION" in environ:
        target = destination(environ["HTTP_DESTINATION"], host=environ["HTTP_HOST"], url=repository.url)
        environ["HTTP_DESTINATION"] = quote(f"{repository.url}{target}")
    if len(environ.get("HTTP_TIMEOUT", "")) > _LONGEST_TIMEOUT:
        del environ["HTTP_TIMEOUT"]  # a wish that need not be granted, and int() refuses thousands of digits
    util.parse_if_header_dict(environ)
    conditions = environ["wsgidav.conditions.if"]
    if conditions is not None:
        # A list that WsgiDAV can not read it leaves out, which only narrows; one without a condition it takes
        # for one that holds.
        if not conditions or not all(each for lists in conditions.values() for each in lists):
            raise Refusal(HTTPStatus.BAD_REQUEST, "If can not be read")
        tagged = [(key, lists) for tag, lists in conditions.items() for key in _keys(tag, repository.url)]
        environ["wsgidav.conditions.if"] = dict(tagged)


def _keys(tag: str, url: str) -> tuple[str, ...]:
    """What WsgiDAV calls the resource that a list of conditions is tagged with: it leaves out our URL."""
    try:
        path = path_of(urlsplit(tag).path)
        if tag != "*" and path.startswith(url):
            name = quote(path[len(url) - 1 :].rstrip("/"))
            return (name, f"{name}/")
    except (BadName, ValueError):
        pass
    return (tag,)


class _File(DAVNonCollection):  # type: ignore[misc]
    """A file; without a status one that is about to be uploaded."""

    def __init__(self, path: str, environ: WSGIEnvironment, status: os.stat_result | None) -> None:
        super().__init__(path, environ)
        self._place = _Place(self)
        self._status = status
        self._upload: Upload | None = None

    def get_content_length(self) -> int | None:
        return self._status.st_size if self._status else None

    def get_content_type(self) -> str:
        return content_type(self.path)

    def get_creation_date(self) -> float | None:
        return self._status.st_ctime if self._status else None

    def get_last_modified(self) -> float | None:
        return self._status.st_mtime if self._status else None

    def get_etag(self) -> str | None:
        if self._status is None:
            return None
        return self._place.repository.etag(self._place.location_href, self._status)

    def support_etag(self) -> bool:
        return True

    def support_ranges(self) -> bool:
        return True

    def get_content(self) -> IO[bytes]:
        """Only asked for by WsgiDAV's own GET, which is not used here."""
        return open(self._place.file_path, "rb")

    def begin_write(self, *, content_type: str | None = None) -> _File:
        return self

    def writelines(self, blocks: Iterable[bytes]) -> None:
        """Take the body of a PUT (WsgiDAV gives it to an object that has this method).

        `blocks` would be joined to be of one size; they are taken as they come instead.
        """
        place = self._place
        with _answering(self.environ):
            self._upload = Upload(
                place.repository,
                place.location_href,
                Expected.of(self.environ),
                most=self.provider.max_upload,
            )
            receive(self.environ, self._upload)

    def close(self) -> None:
        """The end of the body."""
        assert self._upload is not None
        with _answering(self.environ):
            self.environ[ANSWER] = self._upload.finish()

    def end_write(self, *, with_errors: bool) -> None:
        if self._upload:
            self._upload.discard()

    def handle_delete(self) -> bool:
        return self._place.delete(moves.remove_file)

    def handle_copy(self, dest_path: str, *, depth_infinity: bool) -> bool:
        return self._place.copy(moves.copy_file, dest_path)

    def handle_move(self, dest_path: str) -> bool:
        return self._place.move(moves.move_file, dest_path)


class _Directory(DAVCollection):  # type: ignore[misc]
    """A directory."""

    def __init__(self, path: str, environ: WSGIEnvironment, status: os.stat_result) -> None:
        super().__init__(path, environ)
        self._place = _Place(self)
        self._status = status

    def get_creation_date(self) -> float:
        return self._status.st_ctime

    def get_last_modified(self) -> float:
        return self._status.st_mtime

    def get_member_names(self) -> list[str]:
        """Only asked for by WsgiDAV's own PROPFIND and its way of removing, which are not used here."""
        return []

    def create_empty_resource(self, name: str) -> _File:
        path = f"{self.path.rstrip('/')}/{name}"
        if self.environ["REQUEST_METHOD"] == "PUT":
            return _File(path, self.environ, None)
        with _answering(self.environ):  # LOCK of a name that does not exist yet (RFC 4918, 7.3)
            target = self._place.repository.path(path.strip("/"))
            os.close(os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644))
            make_sure_of(os.path.dirname(target))
        return _File(path, self.environ, os.lstat(target))

    def create_collection(self, name: str) -> None:
        with _answering(self.environ):
            os.mkdir(os.path.join(self._place.file_path, name))
            make_sure_of(self._place.file_path)
            self.environ[ANSWER] = Answer(HTTPStatus.CREATED)

    def handle_delete(self) -> bool:
        return self._place.delete(moves.remove_directory)

    def handle_copy(self, dest_path: str, *, depth_infinity: bool) -> bool:
        copy = partial(moves.copy_directory, whole=depth_infinity)
        return self._place.copy(copy, dest_path, whole=depth_infinity)

    def handle_move(self, dest_path: str) -> bool:
        return self._place.move(moves.move_directory, dest_path)


class _Place:
    """Where a resource lies, and what files and directories do alike."""

    def __init__(self, resource: Any) -> None:
        self._resource = resource
        self.repository: Served = resource.provider.repository
        self.location_href: str = resource.path.strip("/")
        self.file_path = self.repository.path(self.location_href)

    def refuse_if_locked(self) -> None:
        """Raise DAVError (423) when a lock that the request does not hold is on this or below it.

        (WsgiDAV checks the parent alone before it asks a provider to delete.)
        """
        environ = self._resource.environ
        self._resource.provider.lock_manager.check_write_permission(
            url=self._resource.get_ref_url(),
            depth="infinity",
            token_list=environ["wsgidav.ifLockTokenList"],
            principal=environ["wsgidav.user_name"],
        )

    def delete(self, remove: Callable[[Served, str], Answer | None]) -> bool:
        """Raises DAVError."""
        resource = self._resource
        self.refuse_if_locked()
        with _answering(resource.environ):
            resource.environ[ANSWER] = remove(self.repository, self.location_href)
        resource.remove_all_properties(recursive=True)
        resource.remove_all_locks(recursive=True)
        return True

    def copy(self, copy: Callable[[Served, str, str], Answer], dest_path: str, *, whole: bool = True) -> bool:
        """Raises DAVError."""
        resource = self._resource
        with _answering(resource.environ):
            resource.environ[ANSWER] = copy(self.repository, self.location_href, dest_path.strip("/"))
        properties = resource.provider.prop_manager
        properties.copy_properties(resource.get_ref_url(), quote(dest_path), whole=whole)
        return True

    def move(self, move: Callable[[Served, str, str], Answer], dest_path: str) -> bool:
        """Raises DAVError."""
        resource = self._resource
        with _answering(resource.environ):
            resource.environ[ANSWER] = move(self.repository, self.location_href, dest_path.strip("/"))
        properties = resource.provider.prop_manager
        properties.move_properties(resource.get_ref_url(), quote(dest_path))
        resource.remove_all_locks(recursive=True)
        return True
