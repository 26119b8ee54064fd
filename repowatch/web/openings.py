"""MKCOL where no repository is: makes one, where a pattern of the configuration says so."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from http import HTTPStatus
from wsgiref.types import StartResponse, WSGIEnvironment

from repowatch.errors import RepowatchError
from repowatch.web.http.body import BodyError
from repowatch.web.replies import plain
from repowatch.web.uploads import Refusal
from repowatch.web.webdav.xmlbody import read_body


@dataclass(frozen=True, slots=True)
class Opening:
    """A repository that may be made."""

    name: str
    make: Callable[[], bool]  # in a thread that may wait; whether it is served by now. Raises RepowatchError


@dataclass(frozen=True, slots=True)
class Unserved:
    """A directory that could be a repository by a pattern, and is none."""

    path: str
    reason: str
    pattern: str  # its name: whoever may read what it finds is told


def no_opening(path: str) -> Opening | None:
    """Where there are no patterns."""
    return None


def make(
    opening: Opening, environ: WSGIEnvironment, start_response: StartResponse, *, done: Callable[[], None]
) -> Iterable[bytes]:
    """Answer the MKCOL (RFC 4918, 9.3); `done` is called when the directory is made.

    201 when the repository is served, 202 when that takes longer, 409 with the reason when it can not be.
    """
    try:
        if read_body(environ):
            raise Refusal(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, "MKCOL takes no body")
        is_served = opening.make()
    except (Refusal, BodyError) as error:
        return plain(start_response, error.status, str(error))
    except RepowatchError as error:
        return plain(start_response, HTTPStatus.CONFLICT, str(error))
    done()
    if is_served:
        return plain(start_response, HTTPStatus.CREATED, f"{opening.name} is a repository now")
    return plain(start_response, HTTPStatus.ACCEPTED, f"the directory is made; {opening.name} is served soon")
