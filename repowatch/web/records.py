"""Keeps an account of changes: who did what, with what outcome, for the audit."""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Callable, Iterator
from typing import Any
from wsgiref.types import StartResponse, WSGIEnvironment

from repowatch.system.audit import Change
from repowatch.web.destination import destination
from repowatch.web.guard import IDENTITY
from repowatch.web.served import Served
from repowatch.web.uploads import ANSWER, Answer

log = logging.getLogger(__name__)

_CHANGES = frozenset({"PUT", "DELETE", "MOVE", "COPY", "MKCOL"})


class Recorder:
    """Writes one line for each change that was done."""

    def __init__(self, write: Callable[[Change], None]) -> None:
        """`write` may raise OSError: what is done is done, and the log tells that the account has a hole."""
        self._write = write

    @contextlib.contextmanager
    def change(
        self, repository: Served, path: str, environ: WSGIEnvironment, start_response: StartResponse
    ) -> Iterator[StartResponse]:
        """Listen to the status of one request, and record it at the end when it changed something."""
        if environ["REQUEST_METHOD"] not in _CHANGES:
            yield start_response
            return
        location = path[len(repository.url) :]
        before = _nevra(repository, location), _pkgid(repository, location)
        status: list[int] = []

        def start(line: str, headers: list[tuple[str, str]], exc_info: Any = None) -> Any:
            status.append(int(line[:3]))
            return start_response(line, headers, exc_info)

        yield start
        if status and status[-1] < 300:
            self._record(repository, location, environ, status[-1], before)

    def _record(
        self,
        repository: Served,
        location: str,
        environ: WSGIEnvironment,
        status: int,
        before: tuple[str | None, str | None],
    ) -> None:
        answer: Answer | None = environ.get(ANSWER)
        destination = _destination(repository, environ)
        now_at = location if destination is None else destination
        identity = environ[IDENTITY]
        change = Change(
            at=time.time(),
            who=identity.name,
            how=identity.how,
            address=environ["REMOTE_ADDR"] or None,
            method=environ["REQUEST_METHOD"],
            repository=repository.name,
            location=location,
            destination=destination,
            sha256=(answer and answer.sha256) or _pkgid(repository, now_at) or before[1],
            nevra=_nevra(repository, now_at) or before[0],
            revision=answer.revision if answer else None,
            status=status,
        )
        try:
            self._write(change)
        except OSError as error:
            log.error("the audit lacks %s of %s: %s", change.method, location, error.strerror or error)


def _destination(repository: Served, environ: WSGIEnvironment) -> str | None:
    if environ["REQUEST_METHOD"] not in ("MOVE", "COPY"):
        return None
    return destination(
        environ.get("HTTP_DESTINATION", ""), host=environ.get("HTTP_HOST", ""), url=repository.url
    )


def _nevra(repository: Served, location: str) -> str | None:
    publication = repository.publication()
    entry = publication.entries.get(location) if publication else None
    return str(entry.nevra) if entry else None


def _pkgid(repository: Served, location: str) -> str | None:
    publication = repository.publication()
    entry = publication.entries.get(location) if publication else None
    return entry.pkgid if entry else None
