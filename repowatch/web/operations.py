"""Does what is asked for with POST below `/-/api/v1/`: an operation on a repository, JSON both ways."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any
from wsgiref.types import StartResponse, WSGIEnvironment

from repowatch.errors import BadPackage, Conflict, Forbidden, Misunderstood, Nameless, RepowatchError
from repowatch.system.logs import printable
from repowatch.web.info.api import ROOT
from repowatch.web.replies import as_json, plain
from repowatch.web.served import Asker, Operation, Served
from repowatch.web.uploads import FULL, Refusal
from repowatch.web.webdav.xmlbody import read_body

MOST_TEXTS = 1000  # in one argument: each may be compared with all packages

_STATUS = {
    Nameless: HTTPStatus.NOT_FOUND,
    Misunderstood: HTTPStatus.BAD_REQUEST,
    Conflict: HTTPStatus.CONFLICT,
    Forbidden: HTTPStatus.FORBIDDEN,
    BadPackage: HTTPStatus.UNPROCESSABLE_ENTITY,
}


@dataclass(frozen=True, slots=True)
class Asked:
    """An operation of a repository."""

    repository: Served
    name: str
    operation: Operation

    @classmethod
    def of(cls, path: str, repositories: Iterable[Served]) -> Asked | None:
        """What a path means; None when it is no operation."""
        name, slash, operation = path.removeprefix(ROOT).partition("/")
        if not path.startswith(ROOT) or not slash:
            return None
        repository = next((each for each in repositories if each.name == name), None)
        if repository is None or operation not in repository.operations:
            return None
        return cls(repository, operation, repository.operations[operation])


def perform(
    asked: Asked,
    environ: WSGIEnvironment,
    start_response: StartResponse,
    *,
    asker: Asker,
    may_read: Callable[[str], bool],
    done: Callable[[dict[str, Any], dict[str, Any]], None],
) -> Iterable[bytes]:
    """Do it, and tell what came of it; 400, 403, 404, 409, 413, 422, 503 or 507 with the reason, as text.

    `may_read`: whether the client may read another repository. `done` is called with the arguments and the
    outcome of what was done. Raises BodyError.
    """
    try:
        arguments = _arguments(read_body(environ), asked)
        if asked.operation.reads:
            _check_source(arguments, asked.operation.reads, may_read)
        outcome = asked.operation.run(arguments, asker)
        done(arguments, outcome)
        return as_json(start_response, outcome)
    except Refusal as error:
        return plain(start_response, error.status, str(error))
    except RepowatchError as error:
        status = _STATUS.get(type(error), HTTPStatus.SERVICE_UNAVAILABLE)
        return plain(start_response, status, printable(str(error)))
    except OSError as error:
        text = f"{(error.strerror or str(error)).lower()}; nothing is known to be changed, look at the status"
        is_full = error.errno in FULL
        status = HTTPStatus.INSUFFICIENT_STORAGE if is_full else HTTPStatus.SERVICE_UNAVAILABLE
        return plain(start_response, status, text)


def _arguments(body: bytes, asked: Asked) -> dict[str, Any]:
    """What the operation knows; what it does not is refused, and not left out: `dry-run` is no `dry_run`."""
    try:
        arguments = json.loads(body or b"{}")
    except (ValueError, RecursionError) as error:
        raise Misunderstood(f"the body is no JSON: {error}") from None
    if not isinstance(arguments, dict):
        raise Misunderstood("the body is no JSON object; send {} for no arguments")
    if unknown := sorted(arguments.keys() - asked.operation.takes):
        known = ", ".join(sorted(asked.operation.takes))
        raise Misunderstood(f'"{unknown[0][:40]}" is no argument of {asked.name}, which takes {known}')
    return arguments


def _check_source(arguments: dict[str, Any], key: str, may_read: Callable[[str], bool]) -> None:
    source = text(arguments, key)
    if not may_read(source):
        raise Nameless(f"there is no repository {source}")


def text(arguments: dict[str, Any], key: str) -> str:
    """An argument that is needed, and is text. Raises Misunderstood."""
    value = arguments.get(key)
    if not isinstance(value, str) or not value:
        raise Misunderstood(f'"{key}" is missing; send it as text')
    return value


def flag(arguments: dict[str, Any], key: str) -> bool:
    """An argument that is true or false; false where it is not there. Raises Misunderstood."""
    value = arguments.get(key, False)
    if not isinstance(value, bool):
        raise Misunderstood(f'"{key}" is neither true nor false')
    return value


def texts(arguments: dict[str, Any], key: str) -> Sequence[str]:
    """An argument that is needed, and is a list of texts. Raises Misunderstood."""
    value = arguments.get(key)
    if not isinstance(value, list) or not value or not all(isinstance(each, str) for each in value):
        raise Misunderstood(f'"{key}" is missing; send it as a list of texts')
    if len(value) > MOST_TEXTS:
        raise Misunderstood(f'"{key}" has {len(value)} texts; send at most {MOST_TEXTS} at once')
    return value
