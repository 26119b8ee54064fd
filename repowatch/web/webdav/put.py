"""A PUT of which WebDAV has nothing to say: no lock, no `If`, a plain file. The way that most uploads take.

What WsgiDAV would do for it costs more than all the rest of a small upload.
"""

from __future__ import annotations

import os
import stat
from http import HTTPStatus
from wsgiref.types import WSGIEnvironment

from repowatch.system.files import is_where_it_seems
from repowatch.web.names import is_reserved
from repowatch.web.served import Served
from repowatch.web.uploads import Answer, Expected, Refusal, Upload, told
from repowatch.web.webdav.locks import Locks

BLOCK = 512 * 1024  # bytes read from a client at once

# WsgiDAV refuses the last two, and knows what the first is about.
_NOT_PLAIN = ("HTTP_IF", "HTTP_CONTENT_ENCODING", "HTTP_CONTENT_RANGE")


def plain_put(
    environ: WSGIEnvironment, repository: Served, *, locks: Locks, most: int | None
) -> Answer | None:
    """Take an upload; None, and nothing touched, where it is WsgiDAV's business. Raises Refusal.

    `most`: bytes that one upload may have.
    """
    location_href = environ["PATH_INFO"].encode("latin-1").decode().removeprefix("/")
    if any(each in environ for each in _NOT_PLAIN) or not locks.is_empty():
        return None
    if is_reserved(location_href) or not _is_plain(repository, location_href):
        return None
    upload = Upload(repository, location_href, Expected.of(environ), most=most)
    try:
        with told():
            receive(environ, upload)
        if locks.covers(location_href):
            raise Refusal(HTTPStatus.LOCKED, f"/{location_href} was locked while the upload came")
        return upload.finish()
    finally:
        upload.discard()


def receive(environ: WSGIEnvironment, upload: Upload) -> None:
    """Pass the body of a request on, in blocks as they come. Raises Refusal, BodyError, OSError."""
    body = environ["wsgi.input"]
    while block := body.read1(BLOCK):
        upload.write(block)


def _is_plain(repository: Served, location_href: str) -> bool:
    """Whether a name is a plain file's, or free, in a directory that is there and behind no link."""
    if not location_href or location_href.endswith("/"):
        return False
    path = repository.path(location_href)
    try:
        return _is_directory(os.path.dirname(path)) and (
            not os.path.lexists(path) or stat.S_ISREG(os.lstat(path).st_mode)
        )
    except OSError:
        return False


def _is_directory(path: str) -> bool:
    """Whether a path is a directory's, with no symbolic link in it. Raises OSError."""
    descriptor = os.open(path, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        return is_where_it_seems(descriptor, path)
    finally:
        os.close(descriptor)
