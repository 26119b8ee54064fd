"""Asks the running daemon for its status and for packages, by the nearest of its doors."""

from __future__ import annotations

import http.client
import json
import os
import re
import socket
import ssl
import time
from base64 import b64encode
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any
from urllib.parse import quote, urlencode, urlsplit

from repowatch.config import DEFAULT_LISTEN, Address, Config, TcpAddress, UnixAddress
from repowatch.errors import RepowatchError
from repowatch.system.logs import printable

STATUS = "/-/api/v1/status"
_TIMEOUT = 10.0  # seconds
_LONGEST_ACT = 600.0  # seconds
_LONGEST_WAIT = 30.0  # seconds of one question, so that a proxy between does not give up
_NEAR = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 - where who listens everywhere is found from here


@dataclass(frozen=True, slots=True)
class Door:
    """Where the daemon answers."""

    url: str  # http://, https:// or unix:PATH
    certificate: str | None = None  # a file of PEM: the only certificate to believe, whatever its name
    credentials: tuple[str, str] | None = None  # user and password
    is_control: bool = False  # the operators' own: whoever comes by it may do everything


DEFAULT = Door(f"http://{DEFAULT_LISTEN}")

# Where the unit that is shipped has the socket for operators.
CONTROL = "/run/repowatch/control"


def installed() -> list[Door]:
    """Return the door for operators of the service that is installed here, if there is one."""
    return _for_operators(CONTROL)


def _for_operators(path: str) -> list[Door]:
    """One that this account may not use is named as well: where no other answers, that is the reason."""
    return [Door(f"unix:{path}", is_control=True)] if os.path.exists(path) else []


def doors_of(config: Config) -> list[Door]:
    """Return where to ask a daemon of this configuration from its own host, the nearest first."""
    control = _for_operators(config.control) if config.control else installed()
    nearest = sorted(config.listen, key=lambda each: _way(config, each))
    return [*control, *(_door(config, address) for address in nearest)]


def _way(config: Config, address: Address) -> tuple[bool, bool]:
    return config.speaks_tls(address), not address.is_loopback


def _door(config: Config, address: Address) -> Door:
    if isinstance(address, UnixAddress):
        return Door(str(address))
    near = TcpAddress(_NEAR.get(address.host, address.host), address.port)
    if config.tls is not None and config.speaks_tls(address):
        # The names in it are for clients elsewhere. Here the file itself tells who is the right one.
        return Door(f"https://{near}", certificate=config.tls.certificate)
    return Door(f"http://{near}")


def ask(doors: Sequence[Door], path: str = STATUS, *, wait: float = 0.0) -> str:
    """Return the JSON as it was sent, from the first door that answers. Raises RepowatchError.

    `wait`: seconds that the daemon may take to answer, beyond what is usual.
    """
    wanted = {"version", "repositories"} if path == STATUS else {"version", "revision", "rejected", "found"}
    failures = []
    for door in doors:
        try:
            text = _get(door, path, _TIMEOUT + wait)
            told = json.loads(text)
            if not isinstance(told, dict) or not wanted <= told.keys():
                raise ValueError("this is another answer")
            return text
        except (OSError, ValueError, http.client.HTTPException) as error:
            failures.append(_failure(door, error))
    raise RepowatchError("\n".join(failures))


@dataclass(frozen=True, slots=True)
class Found:
    """What came of waiting for a package."""

    packages: Sequence[dict[str, Any]]  # as the JSON has them; none where the time was over
    revision: int
    rejected: Sequence[str]  # files of that name that are not listed, each with why


def await_listed(doors: Sequence[Door], repository: str, package: str, *, timeout: float) -> Found:
    """Wait until a package is listed, by name, NEVRA or file name; at most `timeout` seconds.

    Raises RepowatchError when the daemon does not answer.
    """
    ends = time.monotonic() + timeout
    left, after = 0.0, 0  # the first question is answered at once
    while True:
        asked = urlencode({"match": package, "after": after, "wait": f"{left:.3f}"}, errors="surrogateescape")
        told = json.loads(ask(doors, f"/-/api/v1/{quote(os.fsencode(repository))}?{asked}", wait=left))
        left = min(_LONGEST_WAIT, ends - time.monotonic())
        if told["found"] or left <= 0:
            rejected = [
                f"{each['location']}: {each['reason']}"
                for each in told["rejected"]
                if package in each["location"].rpartition("/")[2]
            ]
            return Found(told["found"], told["revision"], rejected)
        after = told["revision"]


def act(
    doors: Sequence[Door], repository: str, operation: str, arguments: Mapping[str, Any]
) -> dict[str, Any]:
    """Have something done by the first door that answers, and return what is told of it.

    Raises RepowatchError with the daemon's reason when it refuses, or when no door answers.
    """
    path = f"/-/api/v1/{quote(os.fsencode(repository))}/{quote(operation)}"
    failures = []
    for door in doors:
        try:
            connection = _connected(door, _LONGEST_ACT)
        except (OSError, ValueError) as error:
            failures.append(_failure(door, error))
            continue
        # Nothing is asked twice: who does not hear the end of it can not know what was done.
        try:
            status, text = _exchange(connection, "POST", door, path, json.dumps(arguments))
            if status == HTTPStatus.METHOD_NOT_ALLOWED:  # the URL is none that anything can be done at
                raise _nameless(door, repository)
            if status != HTTPStatus.OK:
                raise RepowatchError(text.strip() or f"{door.url} answers {status}")
            told = json.loads(text)
        except (OSError, ValueError, http.client.HTTPException) as error:
            raise RepowatchError(f"{door.url} ended without an answer: {error}; look at the status") from None
        return told if isinstance(told, dict) else {}
    raise RepowatchError("\n".join(failures))


def report(doors: Sequence[Door], repository: str, name: str) -> Any:
    """Return what is told of a repository by the first door that answers. Raises RepowatchError."""
    path = f"/-/api/v1/{quote(os.fsencode(repository))}/{quote(name)}"
    failures = []
    for door in doors:
        try:
            status, text = _exchange(_connected(door, _TIMEOUT), "GET", door, path)
            if status == HTTPStatus.NOT_FOUND:
                raise _nameless(door, repository)
            if status != HTTPStatus.OK:
                raise RepowatchError(f"{door.url} answers {status} {text.strip()[:200]}")
            return json.loads(text)
        except (OSError, ValueError, http.client.HTTPException) as error:
            failures.append(_failure(door, error))
    raise RepowatchError("\n".join(failures))


def _nameless(door: Door, repository: str) -> RepowatchError:
    return RepowatchError(f"{door.url} has no repository {printable(repository)} that you may see")


def _failure(door: Door, error: Exception) -> str:
    if isinstance(error, PermissionError):
        return f"{door.url} is not for this account; ask as root, or another address with --url and --user"
    return f"{door.url} does not answer as repowatch does: {error}; is it running?"


def _get(door: Door, path: str, timeout: float) -> str:
    status, text = _exchange(_connected(door, timeout), "GET", door, path)
    if status != HTTPStatus.OK:
        raise ValueError(f"{status} {text.strip()[:200]}")
    return text


def _exchange(
    connection: http.client.HTTPConnection, method: str, door: Door, path: str, body: str | None = None
) -> tuple[int, str]:
    """Status and text of an answer."""
    fields = {"Accept": "application/json"}
    if body is not None:
        fields["Content-Type"] = "application/json"
    if door.credentials is not None:
        fields["Authorization"] = f"Basic {b64encode(':'.join(door.credentials).encode()).decode()}"
    prefix = "" if door.url.startswith("unix:") else urlsplit(door.url).path.rstrip("/")
    try:
        connection.request(method, prefix + path, body=body, headers=fields)
        answer = connection.getresponse()
        return answer.status, answer.read().decode("utf-8", "replace")
    finally:
        connection.close()


def _connected(door: Door, timeout: float) -> http.client.HTTPConnection:
    """A connection to a door. Raises OSError, and ValueError for a URL that is none."""
    if door.url.startswith("unix:"):
        connection = http.client.HTTPConnection("localhost", timeout=timeout)
        connection.sock = socket.socket(socket.AF_UNIX)
        try:
            connection.sock.settimeout(timeout)
            connection.sock.connect(door.url.removeprefix("unix:"))
        except OSError:
            connection.close()
            raise
        return connection
    parts = urlsplit(door.url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError("no URL of http:// or https://, and no unix:PATH")
    if parts.scheme == "https":
        context = _believing(door.certificate) if door.certificate else ssl.create_default_context()
        connection = http.client.HTTPSConnection(parts.hostname, parts.port, timeout=timeout, context=context)
    else:
        connection = http.client.HTTPConnection(parts.hostname, parts.port, timeout=timeout)
    connection.connect()
    return connection


def _believing(certificate: str) -> ssl.SSLContext:
    """A context that believes the first certificate in the file, and no other."""
    with open(certificate, encoding="utf-8", errors="replace") as file:
        match = re.search("-----BEGIN CERTIFICATE-----.+?-----END CERTIFICATE-----", file.read(), re.DOTALL)
    if match is None:
        raise ValueError(f"{certificate} holds no certificate in PEM")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN  # it need not be its own root
    context.load_verify_locations(cadata=match[0])
    return context
