"""Keeps an account of changes: who did what, with what outcome, for the audit."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol
from wsgiref.types import StartResponse, WSGIEnvironment

from repowatch.model.digests import checksum_type
from repowatch.model.package import Entry
from repowatch.system.audit import Change
from repowatch.web.rights.guard import IDENTITY
from repowatch.web.rights.rules import Identity
from repowatch.web.served import Served
from repowatch.web.uploads import ANSWER, BATCH, Answer, Refusal
from repowatch.web.webdav.destination import destination

log = logging.getLogger(__name__)

_LONGEST_ARGUMENTS = 2000  # characters

_CLAIMS = frozenset({"PUT", "DELETE", "MOVE", "COPY"})
_CHANGES = frozenset({"PUT", "DELETE", "MOVE", "COPY", "MKCOL", "LOCK"})


class Write(Protocol):
    """Append a change to the account; a `durable` one takes all before it along. Raises OSError."""

    def __call__(self, change: Change, *, durable: bool) -> None: ...


@dataclass(frozen=True, slots=True)
class _Before:
    """What was listed when a request began."""

    there: Entry | None
    below: Sequence[Entry]  # in a directory that goes


@dataclass(frozen=True, slots=True)
class Outcome:
    """What an operation changed."""

    revision: int | None = None
    came: Sequence[Entry] = ()
    gone: Sequence[str] = ()  # locations

    @classmethod
    def of(cls, repository: Served, told: Mapping[str, Any]) -> Outcome:
        """What the answer to an operation tells: `revision`, and the names of packages below these keys."""
        came = [name for key in ("locations", "returned", "replaced") for name in told.get(key, ())]
        gone = [name for key in ("removed", "retired") for name in told.get(key, ())]
        listed = (_listed(repository, each) for each in came)
        return cls(told.get("revision"), [each for each in listed if each], gone)


NO_OUTCOME = Outcome()


class Recorder:
    """Writes a line for each change that was done, and for each package in a directory that went."""

    def __init__(self, write: Write) -> None:
        """Where `write` fails, what is done is done, and the log tells that the account has a hole."""
        self._write = write

    @contextlib.contextmanager
    def change(
        self, repository: Served, path: str, environ: WSGIEnvironment, start_response: StartResponse
    ) -> Iterator[StartResponse]:
        """Listen to the status of one request, and record it at the end when it changed something."""
        method = environ["REQUEST_METHOD"]
        if method not in _CHANGES:
            yield start_response
            return
        location = path[len(repository.url) :]
        goes = method in ("DELETE", "MOVE")
        before = _Before(_listed(repository, location), _below(repository, location) if goes else ())
        status: list[int] = []

        def start(line: str, headers: list[tuple[str, str]], exc_info: Any = None) -> Any:
            status.append(int(line[:3]))
            return start_response(line, headers, exc_info)

        yield start
        if status and (status[-1] == 201 or (status[-1] < 300 and method != "LOCK")):  # which makes a file
            self._record(_change(repository, location, environ, status[-1], before), before.below)

    def operation(
        self,
        repository: str,
        name: str,
        arguments: dict[str, Any],
        environ: WSGIEnvironment,
        *,
        outcome: Outcome = NO_OUTCOME,
        status: int = 200,
    ) -> None:
        """Record that an operation was done: its name as the method, its arguments, if any, as the location.

        Before that a line for each package that came or left by it.
        """
        identity = environ[IDENTITY]
        change = Change(
            at=time.time(),
            who=identity.name,
            how=identity.how,
            address=environ["REMOTE_ADDR"] or None,
            method=name,
            repository=repository,
            location=json.dumps(arguments, sort_keys=True)[:_LONGEST_ARGUMENTS] if arguments else "",
            revision=outcome.revision,
            status=status,
        )
        came = [
            replace(change, location=each.location_href, nevra=str(each.nevra), **_checksums(each.pkgid))
            for each in outcome.came
        ]
        self._append(change, [*came, *(replace(change, location=each) for each in outcome.gone)])

    def _record(self, change: Change, below: Sequence[Entry]) -> None:
        self._append(change, [_of_package(change, entry) for entry in below])

    def _append(self, change: Change, parts: Sequence[Change]) -> None:
        try:
            for part in parts:
                self._write(part, durable=False)
            self._write(change, durable=True)
        except OSError as error:
            log.error("the audit lacks %s of %s: %s", change.method, change.location, error.strerror or error)


@contextlib.contextmanager
def claimed(
    repository: Served, path: str, environ: WSGIEnvironment, start_response: StartResponse
) -> Iterator[StartResponse]:
    """While one request is answered, the history knows whose the changes are that it makes."""
    if environ["REQUEST_METHOD"] not in _CLAIMS or BATCH in environ:  # a batch is claimed by its commit
        yield start_response
        return
    locations = [path[len(repository.url) :]]
    if environ["REQUEST_METHOD"] in ("MOVE", "COPY") and (there := _aim(repository, environ)) is not None:
        locations.append(there)
    identity: Identity = environ[IDENTITY]
    end = repository.claim(locations, who=identity.name, how=identity.how)
    status: list[str] = []

    def start(line: str, headers: list[tuple[str, str]], exc_info: Any = None) -> Any:
        status.append(line[:3])
        return start_response(line, headers, exc_info)

    try:
        yield start
    finally:
        end(owed="202" in status)


def _change(
    repository: Served, location: str, environ: WSGIEnvironment, status: int, before: _Before
) -> Change:
    answer: Answer | None = environ.get(ANSWER)
    there = _destination(repository, environ)
    came = answer.checksum if answer else None
    if environ["REQUEST_METHOD"] == "PUT":
        # What is listed there may still be, or already be, another package.
        package = _listed(repository, location)
        package = package if package and package.pkgid == came else None
    else:
        package = before.there or _listed(repository, there or location)
    identity = environ[IDENTITY]
    return Change(
        at=time.time(),
        who=identity.name,
        how=identity.how,
        address=environ["REMOTE_ADDR"] or None,
        method=environ["REQUEST_METHOD"],
        repository=repository.name,
        location=location,
        destination=there,
        batch=environ.get(BATCH),
        **_checksums(package.pkgid if package else came),
        nevra=str(package.nevra) if package else None,
        revision=answer.revision if answer else None,
        status=status,
    )


def _checksums(checksum: str | None) -> dict[str, Any]:
    """Under the name of its kind."""
    return {checksum_type(checksum): checksum} if checksum else {}


def _of_package(change: Change, entry: Entry) -> Change:
    """What the change of a directory was to one package in it."""
    rest = entry.location_href.removeprefix(f"{change.location.rstrip('/')}/")
    there = change.destination
    return replace(
        change,
        location=entry.location_href,
        destination=None if there is None else f"{there.rstrip('/')}/{rest}",
        **_checksums(entry.pkgid),
        nevra=str(entry.nevra),
    )


def _destination(repository: Served, environ: WSGIEnvironment) -> str | None:
    if environ["REQUEST_METHOD"] not in ("MOVE", "COPY"):
        return None
    return destination(
        environ.get("HTTP_DESTINATION", ""), host=environ.get("HTTP_HOST", ""), url=repository.url
    )


def _aim(repository: Served, environ: WSGIEnvironment) -> str | None:
    """Where MOVE and COPY go; None also where they will be refused."""
    try:
        return _destination(repository, environ)
    except Refusal:
        return None


def _below(repository: Served, location: str) -> list[Entry]:
    """The listed packages in a directory, and in those below it."""
    publication = repository.publication()
    if publication is None or not os.path.isdir(repository.path(location)):
        return []
    prefix = f"{location.rstrip('/')}/"
    return [entry for name, entry in publication.entries.items() if name.startswith(prefix)]


def _listed(repository: Served, location: str) -> Entry | None:
    publication = repository.publication()
    return publication.entries.get(location) if publication else None
