"""Asks the running daemon for its status and for packages, by the nearest of its doors."""

from __future__ import annotations

import http.client
import json
import os
import re
import socket
import ssl
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote, urlencode
from urllib.request import urlopen

from repowatch.config import DEFAULT_LISTEN, Address, Config, TcpAddress, UnixAddress
from repowatch.errors import RepowatchError

STATUS = "/-/api/v1/status"
_TIMEOUT = 10.0  # seconds
_LONGEST_WAIT = 30.0  # seconds of one question, so that a proxy between does not give up
_NEAR = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 - where who listens everywhere is found from here


@dataclass(frozen=True, slots=True)
class Door:
    """Where the daemon answers."""

    url: str  # http://, https:// or unix:PATH
    certificate: str | None = None  # a file of PEM: the only certificate to believe, whatever its name


DEFAULT = Door(f"http://{DEFAULT_LISTEN}")


def doors_of(config: Config) -> list[Door]:
    """Return where to ask a daemon of this configuration from its own host, the nearest first."""
    return [_door(config, address) for address in sorted(config.listen, key=lambda each: _way(config, each))]


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
            way = _ask_unix if door.url.startswith("unix:") else _ask_tcp
            text = way(door, path, _TIMEOUT + wait)
            told = json.loads(text)
            if not isinstance(told, dict) or not wanted <= told.keys():
                raise ValueError("this is another answer")
            return text
        except (OSError, ValueError, http.client.HTTPException) as error:
            failures.append(f"{door.url} does not answer as repowatch does: {error}; is it running?")
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


def _ask_tcp(door: Door, path: str, timeout: float) -> str:
    context = _believing(door.certificate) if door.certificate else None
    with urlopen(door.url.rstrip("/") + path, timeout=timeout, context=context) as answer:  # noqa: S310
        content: bytes = answer.read()
    return content.decode()


def _ask_unix(door: Door, path: str, timeout: float) -> str:
    connection = http.client.HTTPConnection("localhost", timeout=timeout)
    connection.sock = socket.socket(socket.AF_UNIX)
    try:
        connection.sock.settimeout(timeout)
        connection.sock.connect(door.url.removeprefix("unix:"))
        connection.request("GET", path)
        answer = connection.getresponse()
        if answer.status != http.client.OK:
            raise ValueError(f"{answer.status} {answer.reason}")
        return answer.read().decode()
    finally:
        connection.close()


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
