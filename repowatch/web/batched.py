"""What else than an upload can wait for the commit of a batch: that a package leaves."""

from __future__ import annotations

import os
import stat
from http import HTTPStatus
from wsgiref.types import WSGIEnvironment

from repowatch.web.conditions import Conditions
from repowatch.web.names import is_reserved
from repowatch.web.served import Served
from repowatch.web.uploads import BATCH, NO_CONDITIONS, Answer, Refusal, check_conditions, told
from repowatch.web.webdav.locks import Locks

_CHANGES = frozenset({"DELETE", "MOVE", "COPY", "MKCOL", "LOCK", "UNLOCK", "PROPPATCH", "POST", "PATCH"})


def in_batch(environ: WSGIEnvironment, repository: Served, *, locks: Locks) -> Answer | None:
    """Take a change that is part of a batch; None where it is none, or an upload. Raises Refusal."""
    batch, method = environ.get(BATCH), environ["REQUEST_METHOD"]
    if batch is None or method not in _CHANGES:
        return None
    if method != "DELETE" or repository.batched is None:
        raise Refusal(HTTPStatus.BAD_REQUEST, "only PUT and DELETE of packages can be part of a batch")
    location_href = environ["PATH_INFO"].encode("latin-1").decode().removeprefix("/")
    if is_reserved(location_href):
        raise Refusal(HTTPStatus.FORBIDDEN, f"/{location_href} is not for clients to write")
    if not repository.is_package_name(location_href) or not _is_file(repository.path(location_href)):
        raise Refusal(HTTPStatus.NOT_FOUND, "there is no package of this name")
    if repository.is_behind_link(location_href):
        raise Refusal(HTTPStatus.FORBIDDEN, f"/{location_href} lies behind a symbolic link")
    if locks.covers(location_href):
        raise Refusal(HTTPStatus.LOCKED, f"/{location_href} is locked")
    if "HTTP_IF" in environ:
        raise Refusal(HTTPStatus.BAD_REQUEST, "a DELETE of a batch takes no If; say it with If-Match")
    conditions = Conditions.of(environ)
    check_conditions(repository, location_href, conditions)
    with told():
        text = repository.batched.remove(
            batch,
            location_href,
            is_conditional=conditions != NO_CONDITIONS,
            who=environ.get("REMOTE_USER") or None,
        )
    return Answer(HTTPStatus.ACCEPTED, text=text)


def _is_file(path: str) -> bool:
    try:
        return stat.S_ISREG(os.lstat(path).st_mode)
    except OSError:
        return False
