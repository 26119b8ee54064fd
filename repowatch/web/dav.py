"""The door to WsgiDAV: the tree as WebDAV resources (RFC 4918).

WsgiDAV speaks the protocol (methods, locks, properties, `If`); what a change means is decided in
`uploads`. Its own file provider is not used: it writes straight into the final name. What a change is
answered with is left in the request's environment, and `Answers` says it in the place of WsgiDAV's own
words, which are HTML and know neither 202 nor a revision.
"""

from __future__ import annotations

import contextlib
import logging
import os
import shutil
import stat
import uuid
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from http import HTTPStatus
from typing import IO, Any
from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

from wsgidav.dav_error import DAVError, PRECONDITION_CODE_PropfindFiniteDepth
from wsgidav.dav_provider import DAVCollection, DAVNonCollection, DAVProvider
from wsgidav.mw.base_mw import BaseMiddleware
from wsgidav.request_resolver import RequestResolver
from wsgidav.util import SubAppStartResponse
from wsgidav.wsgidav_app import WsgiDAVApp

from repowatch.model.digests import inspect
from repowatch.system.files import fsync_directory, fsync_file, make_sure_of
from repowatch.web.names import is_hidden, is_reserved
from repowatch.web.replies import Headers, plain
from repowatch.web.served import Served, content_type
from repowatch.web.uploads import Answer, Expected, Refusal, Upload, publish, told, wait_for

log = logging.getLogger(__name__)

_ANSWER = "repowatch.answer"
_BLOCK = 1 << 20  # bytes read from a client at once
_READING = frozenset({"GET", "HEAD", "OPTIONS", "PROPFIND"})


def application(repository: Served, *, max_upload: int | None) -> WSGIApplication:
    """The WebDAV application of one repository, to be called with its URL as SCRIPT_NAME."""
    quiet = logging.getLogger("wsgidav")  # it logs a traceback for every upload that is refused
    quiet.propagate = False
    quiet.addHandler(logging.NullHandler())
    dav = WsgiDAVApp(
        {
            "provider_mapping": {"/": _Provider(repository, max_upload)},
            "mount_path": repository.url.rstrip("/"),
            "middleware_stack": [Answers, RequestResolver],
            "property_manager": True,
            "lock_storage": True,
            "block_size": _BLOCK,
            "logging": {"enable": False},
            "verbose": 1,
            # Its error pages and listings are not used; this keeps it from looking for them.
            "dir_browser": {"enable": False},
            "http_authenticator": {"accept_basic": False, "accept_digest": False},
        }
    )

    def call(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        def start(status: str, headers: Headers, exc_info: Any = None) -> Any:
            """WsgiDAV closes connections over a 204 without a length; RFC 9110 (8.6) forbids to send one."""
            if status.startswith("204"):
                headers = [each for each in headers if each[0].lower() != "content-length"]
            return start_response(status, headers, exc_info)

        return dav(environ, start)  # type: ignore[no-any-return]

    return call


class Answers(BaseMiddleware):  # type: ignore[misc]
    """Says what became of a request: our answer where there is one, errors in one line of text."""

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        said = SubAppStartResponse()
        try:
            body = list(self.next_app(environ, said))
        except DAVError as error:
            return self._refuse(error, environ, start_response)
        except Exception:
            log.exception("unexpected error in %s %s", environ["REQUEST_METHOD"], environ["PATH_INFO"])
            return plain(start_response, HTTPStatus.INTERNAL_SERVER_ERROR, "unexpected error; the log has it")
        answer: Answer | None = environ.get(_ANSWER)
        if answer is not None:
            return _say(answer, start_response)
        start_response(said.status, said.response_headers)
        return body

    def _refuse(
        self, error: DAVError, environ: WSGIEnvironment, start_response: StartResponse
    ) -> Iterable[bytes]:
        answer: Answer | None = environ.get(_ANSWER)
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
    if answer.status is HTTPStatus.NO_CONTENT:
        headers.append(("Content-Length", "0"))  # taken out again on the way to the client
    return plain(start_response, answer.status, answer.text, headers)


@contextlib.contextmanager
def _answering(environ: WSGIEnvironment) -> Iterator[None]:
    """Leave a refusal in the environment as the answer, and tell WsgiDAV in its own way."""
    try:
        with told():
            yield
    except Refusal as refusal:
        environ[_ANSWER] = Answer(refusal.status, text=str(refusal))
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
        method, depth = environ["REQUEST_METHOD"], environ.get("HTTP_DEPTH", "infinity")
        if method in ("PUT", "DELETE", "MOVE", "COPY") and not environ["PATH_INFO"].strip("/"):
            # WsgiDAV would look for the directory above it.
            raise DAVError(HTTPStatus.FORBIDDEN, "the root of a repository stays what and where it is")
        if method == "PROPFIND" and depth == "infinity":
            raise DAVError(HTTPStatus.FORBIDDEN, err_condition=PRECONDITION_CODE_PropfindFiniteDepth)
        return default_handler(environ, start_response)


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
        """Take the body of a PUT (WsgiDAV gives it to an object that has this method)."""
        place = self._place
        with _answering(self.environ):
            self._upload = Upload(
                place.repository,
                place.location_href,
                Expected.of(self.environ),
                most=self.provider.max_upload,
            )
            for block in blocks:
                self._upload.write(block)

    def close(self) -> None:
        """The end of the body."""
        assert self._upload is not None
        with _answering(self.environ):
            self.environ[_ANSWER] = self._upload.finish()

    def end_write(self, *, with_errors: bool) -> None:
        if self._upload:
            self._upload.discard()

    def handle_delete(self) -> bool:
        place = self._place
        place.refuse_if_locked()
        with _answering(self.environ):
            if place.repository.is_package_name(place.location_href):
                answer = place.repository.remove(place.location_href, check=lambda: None)
                self.environ[_ANSWER] = wait_for(answer)
            else:
                os.unlink(place.file_path)
                make_sure_of(os.path.dirname(place.file_path))
        self.remove_all_properties(recursive=True)
        self.remove_all_locks(recursive=True)
        return True

    def handle_copy(self, dest_path: str, *, depth_infinity: bool) -> bool:
        place = self._place
        staged = place.aside()
        try:
            with _answering(self.environ):
                shutil.copyfile(place.file_path, staged)
                fsync_file(staged)
                self.environ[_ANSWER] = self._publish(dest_path, staged, departs=None)
        finally:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(staged)
        place.copy_properties(dest_path)
        return True

    def handle_move(self, dest_path: str) -> bool:
        place = self._place
        with _answering(self.environ):
            fsync_file(place.file_path)
            self.environ[_ANSWER] = self._publish(dest_path, place.file_path, departs=place.location_href)
        place.move_properties(dest_path)
        self.remove_all_locks(recursive=True)
        return True

    def _publish(self, dest_path: str, staged: str, *, departs: str | None) -> Answer:
        repository = self._place.repository
        target = dest_path.strip("/")
        inspection = None
        if repository.is_package_name(target) and (size := os.stat(staged).st_size):
            with open(staged, "rb", buffering=0) as stream:
                inspection = inspect(stream, size=size)
        replaced = os.path.isdir(repository.path(target))
        if replaced:
            self._place.throw_away(target)
        answer = publish(repository, target, staged=staged, inspection=inspection, departs=departs)
        return replace(answer, status=HTTPStatus.NO_CONTENT) if replaced else answer


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
        """The names to show; one that is not UTF-8 can not be told in XML and is left out."""
        with os.scandir(self._place.file_path) as entries:
            names = [
                entry.name
                for entry in entries
                if not is_hidden(entry.name) and entry.name.isprintable() and self._is_shown(entry)
            ]
        return sorted(names)

    def _is_shown(self, entry: os.DirEntry[str]) -> bool:
        place = self._place
        prefix = f"{place.location_href}/" if place.location_href else ""
        return not entry.is_symlink() or place.repository.resolve(f"{prefix}{entry.name}") is not None

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
            self.environ[_ANSWER] = Answer(HTTPStatus.CREATED)

    def handle_delete(self) -> bool:
        place = self._place
        place.refuse_if_locked()
        with _answering(self.environ):
            self.environ[_ANSWER] = place.throw_away(place.location_href)
        self.remove_all_properties(recursive=True)
        self.remove_all_locks(recursive=True)
        return True

    def handle_copy(self, dest_path: str, *, depth_infinity: bool) -> bool:
        place = self._place
        staged = place.aside()
        with _answering(self.environ):
            try:
                _copy_tree(place.file_path, staged, whole=depth_infinity)
                self.environ[_ANSWER] = place.rename_directory(staged, dest_path)
            finally:
                shutil.rmtree(staged, ignore_errors=True)
        place.copy_properties(dest_path)
        return True

    def handle_move(self, dest_path: str) -> bool:
        place = self._place
        with _answering(self.environ):
            self.environ[_ANSWER] = place.rename_directory(place.file_path, dest_path)
            place.repository.look(place.location_href)
        place.move_properties(dest_path)
        self.remove_all_locks(recursive=True)
        return True


class _Place:
    """Where a resource lies, and what files and directories do alike."""

    def __init__(self, resource: Any) -> None:
        self._resource = resource
        self.repository: Served = resource.provider.repository
        self.location_href: str = resource.path.strip("/")
        self.file_path = self.repository.path(self.location_href)

    def aside(self) -> str:
        """A new name in staging."""
        with _answering(self._resource.environ):
            return os.path.join(self.repository.staging(), f"dav-{uuid.uuid4().hex}")

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

    def throw_away(self, location_href: str) -> Answer:
        """Remove a directory at once, and wait until its packages are unlisted."""
        away = self.aside()
        path = self.repository.path(location_href)
        os.rename(path, away)
        make_sure_of(os.path.dirname(path))
        answer = wait_for(self.repository.look(location_href))
        shutil.rmtree(away)
        return answer

    def rename_directory(self, path: str, dest_path: str) -> Answer:
        """Give a directory its name, in the place of what had it, and wait until its packages are listed."""
        target = self.repository.path(dest_path.strip("/"))
        away = self.aside()
        replaced = os.path.lexists(target)
        if replaced:
            os.rename(target, away)
        try:
            os.rename(path, target)
        except OSError:
            if replaced:
                os.rename(away, target)
            raise
        make_sure_of(os.path.dirname(target), os.path.dirname(path))
        answer = wait_for(self.repository.look(dest_path.strip("/")))
        if replaced:
            shutil.rmtree(away) if os.path.isdir(away) else os.unlink(away)
        created = answer.status is HTTPStatus.NO_CONTENT and not replaced
        return Answer(HTTPStatus.CREATED if created else answer.status, answer.revision, text=answer.text)

    def copy_properties(self, dest_path: str) -> None:
        self._transfer(dest_path, lambda properties, here, there: properties.copy_properties(here, there))

    def move_properties(self, dest_path: str) -> None:
        self._transfer(
            dest_path,
            lambda properties, here, there: properties.move_properties(here, there, with_children=True),
        )

    def _transfer(self, dest_path: str, how: Callable[[Any, str, str], None]) -> None:
        provider = self._resource.provider
        there = provider.get_resource_inst(dest_path, self._resource.environ)
        if there is not None:
            how(provider.prop_manager, self._resource.get_ref_url(), there.get_ref_url())


def _copy_tree(source: str, target: str, *, whole: bool) -> None:
    """Copy a directory, `whole` with what is in it; all but its own name is durable then. Raises OSError."""
    os.mkdir(target)
    with os.scandir(source) as entries:
        for entry in entries if whole else ():
            copy = os.path.join(target, entry.name)
            if entry.is_symlink():
                os.symlink(os.readlink(entry.path), copy)
            elif entry.is_dir():
                _copy_tree(entry.path, copy, whole=True)
            else:
                shutil.copyfile(entry.path, copy)
                fsync_file(copy)
    fsync_directory(target)
