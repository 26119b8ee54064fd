"""Answers what is asked below `/-/`: pages and JSON about one repository each."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from http import HTTPStatus
from typing import Any
from wsgiref.types import StartResponse, WSGIEnvironment

from repowatch.model.publication import Publication
from repowatch.web.http.wire import Wait
from repowatch.web.info import api, page
from repowatch.web.info.clients import repo_file
from repowatch.web.openings import Unserved
from repowatch.web.replies import as_json, json_of, plain
from repowatch.web.replies import page as as_page
from repowatch.web.served import Served

ROOT = "/-/"

MOMENT = 0.25  # seconds that whoever waited may be told what others were


class Shared:
    """The JSON that all get who waited for one publication: made once, for a moment."""

    def __init__(self) -> None:
        self._made: dict[str, tuple[Publication | None, float, bytes]] = {}  # until when (monotonic)

    def get(self, repository: Served, make: Callable[[], bytes]) -> bytes:
        """What `make` returned a moment ago, of the same publication; or what it returns now."""
        publication = repository.publication()
        made = self._made.get(repository.name)
        if made is None or made[0] is not publication or made[1] < time.monotonic():
            made = self._made[repository.name] = publication, time.monotonic() + MOMENT, make()
        return made[2]


def answer(
    shown: Sequence[Served],
    path: str,
    environ: WSGIEnvironment,
    start_response: StartResponse,
    *,
    base_url: str,
    asks: Callable[[str], bool],
    unserved: Sequence[Unserved],
    version: str,
    shared: Shared,
) -> Iterable[bytes]:
    """Answer for those repositories that the client may read; of all others nothing is known (404).

    `asks`: whether the readers of a repository, by its name, have to log in.
    """
    if report := _report(shown, path, version, unserved):
        return as_json(start_response, report())
    root = api.ROOT if path.startswith(api.ROOT) else ROOT
    repository = _named(shown, path, root)
    if repository is None:
        return plain(start_response, HTTPStatus.NOT_FOUND, "not found")
    try:
        query = api.Query.of(environ["QUERY_STRING"])
    except api.BadQuery as error:
        return plain(start_response, HTTPStatus.BAD_REQUEST, str(error))

    def tell() -> dict[str, Any]:
        return api.about(repository, query, version=version, now=time.time())

    if root == api.ROOT:
        if query.after is not None and not query.is_search:
            return as_json(start_response, shared.get(repository, lambda: json_of(tell())))
        return as_json(start_response, tell())
    text = repo_file(repository, base_url=base_url, must_log_in=asks(repository.name))
    content = page.repository(tell(), query, base_url=base_url, repo_file=text, version=version)
    return as_page(start_response, content, page.HEADERS)


def front(
    shown: Sequence[Served], start_response: StartResponse, *, unserved: Sequence[Unserved], version: str
) -> Iterable[bytes]:
    """The page at `/`."""
    told = api.status(shown, version=version, unserved=unserved)
    content = page.front(told["repositories"], not_served=told["not_served"], version=version)
    return as_page(start_response, content, page.HEADERS)


def wait_of(shown: Iterable[Served], path: str, environ: WSGIEnvironment) -> Wait | None:
    """What the answer to a GET waits for; None where it can be given at once."""
    repository = _named(shown, path, api.ROOT)
    if repository is None or path == api.STATUS:
        return None
    try:
        return api.wait_for(repository, api.Query.of(environ["QUERY_STRING"]))
    except api.BadQuery:
        return None


def _report(
    shown: Sequence[Served], path: str, version: str, unserved: Sequence[Unserved]
) -> Callable[[], Any] | None:
    """What a path below `/-/api/v1/` tells, of all or of one; None when it is nothing that is told so."""
    if path == api.STATUS:
        return lambda: api.status(shown, version=version, unserved=unserved)
    name, _, report = path.removeprefix(api.ROOT).partition("/")
    if not path.startswith(api.ROOT):
        return None
    return next(
        (each.reports[report] for each in shown if each.name == name and report in each.reports), None
    )


def _named(shown: Iterable[Served], path: str, root: str) -> Served | None:
    return next((each for each in shown if path == f"{root}{each.name}"), None)
