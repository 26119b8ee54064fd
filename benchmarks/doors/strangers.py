"""A thousand connections that do nothing good, in a process of their own, and small GETs beside them."""

from __future__ import annotations

import contextlib
import itertools
import resource
import socket
import ssl
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from multiprocessing import get_context
from multiprocessing.sharedctypes import Synchronized
from typing import Any

from benchmarks.doors.content import LARGE, SMALL
from benchmarks.doors.servers import Server

PACE = 100  # GETs in a second, each on a connection of its own
PATIENCE = 2.0  # seconds after which a GET counts as not answered
ENOUGH = 3  # that were not answered one after the other: nobody is served any more
STEP = 0.1  # seconds; a part of the connections does something then
TURNS = 10  # until each did
OPENING = 30.0  # seconds for all connections to be opened

SILENT, TRICKLING, SLOW = "silent", "trickling head", "reading slowly"
KINDS = (SILENT, TRICKLING, SLOW)

_HEAD = b"GET %s HTTP/1.1\r\nHost: localhost\r\n"


@dataclass(frozen=True, slots=True)
class Probed:
    """Small GETs beside `kind`: seconds of each that was answered."""

    kind: str
    tls: bool
    seconds: Sequence[float]
    unanswered: int
    strangers: int  # that were there at the end


def probe_all(server: Server, *, count: int, seconds: float) -> list[Probed]:
    """Idle, and beside each kind, plain and with TLS."""
    found = []
    for tls in (False, True):
        found.append(_probe(server, "idle", tls=tls, seconds=seconds, strangers=0))
        for kind in KINDS:
            with _crowd(server, kind, tls=tls, count=count) as there:
                found.append(_probe(server, kind, tls=tls, seconds=seconds, strangers=there))
            _recover(server, tls=tls)
    return found


def _probe(
    server: Server, kind: str, *, tls: bool, seconds: float, strangers: Synchronized[int] | int
) -> Probed:
    """GETs that are due at a fixed pace. One that can not be sent in time counts from when it was due."""
    answered: list[float] = []
    unanswered = in_a_row = 0
    began = time.perf_counter()
    for number in range(round(seconds * PACE)):
        due = began + number / PACE
        time.sleep(max(0.0, due - time.perf_counter()))
        try:
            get(server, tls=tls)
        except OSError:
            unanswered, in_a_row = unanswered + 1, in_a_row + 1
            if in_a_row == ENOUGH:
                break
        else:
            answered.append(time.perf_counter() - due)
            in_a_row = 0
    there = strangers if isinstance(strangers, int) else strangers.value
    return Probed(kind, tls, answered, unanswered, there)


def get(server: Server, *, tls: bool) -> None:
    """One small GET on a connection of its own, read to its end. Raises OSError when it is not answered."""
    with _connected(_address(server, tls=tls), tls=tls, timeout=PATIENCE) as connection:
        connection.sendall(_HEAD % SMALL.encode() + b"Connection: close\r\n\r\n")
        answer = bytearray()
        while block := connection.recv(65536):
            answer += block
        if not answer.startswith(b"HTTP/1.1 200"):
            raise ConnectionError(f"answered {bytes(answer[:40])!r}")


def _address(server: Server, *, tls: bool) -> tuple[str, int]:
    return "127.0.0.1", server.place.tls if tls else server.place.plain


def _recover(server: Server, *, tls: bool) -> None:
    """Wait until the server serves again. Raises OSError when it does not."""
    deadline = time.monotonic() + 90
    while True:
        try:
            return get(server, tls=tls)
        except OSError:
            if time.monotonic() > deadline:
                raise


@contextlib.contextmanager
def _crowd(server: Server, kind: str, *, tls: bool, count: int) -> Iterator[Synchronized[int]]:
    """So many connections; the number that stand."""
    context = get_context("spawn")
    there: Synchronized[int] = context.Value("i", 0)
    ready, over = context.Event(), context.Event()
    crowd = [_Stranger(kind, _address(server, tls=tls), tls=tls) for _ in range(count)]
    process = context.Process(target=_attend, args=(crowd, there, ready, over))
    process.start()
    try:
        ready.wait(OPENING + 30)
        yield there
    finally:
        over.set()
        process.join(10)
        process.kill()
        process.join()


def _attend(crowd: Sequence[_Stranger], there: Synchronized[int], ready: Any, over: Any) -> None:
    """Open connections, and keep them in their state until it is over; one that was closed comes again."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    deadline = time.monotonic() + OPENING
    for each in crowd:
        if time.monotonic() < deadline:
            each.come()
    for turn in itertools.count(1):
        if over.wait(STEP):
            return
        for each in crowd[turn % TURNS :: TURNS]:
            each.go_on()
        if turn == TURNS:  # what comes with their opening, buffers that are filled, is over
            ready.set()
        there.value = sum(each.is_there for each in crowd)


class _Stranger:
    """One connection, which does a little each second."""

    def __init__(self, kind: str, address: tuple[str, int], *, tls: bool) -> None:
        self._kind = kind
        self._address = address
        # A silent client of a TLS port says nothing at all, not even its hello.
        self._tls = tls and kind != SILENT
        self._socket: socket.socket | None = None

    @property
    def is_there(self) -> bool:
        return self._socket is not None

    def come(self) -> None:
        with contextlib.suppress(OSError):
            self._socket = _connected(
                self._address, tls=self._tls, timeout=1, receives=4096 if self._kind == SLOW else None
            )
            if self._kind == TRICKLING:
                self._socket.sendall(_HEAD % SMALL.encode() + b"X-Stranger: ")
            if self._kind == SLOW:
                self._socket.sendall(_HEAD % LARGE.encode() + b"\r\n")
            self._socket.settimeout(0)

    def go_on(self) -> None:
        if self._socket is None:
            return self.come()
        try:
            if self._kind == TRICKLING:
                self._socket.send(b"a")
            elif not self._socket.recv(512):
                self._leave()
        except (BlockingIOError, ssl.SSLWantReadError):
            pass
        except OSError:
            self._leave()

    def _leave(self) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None


def _connected(
    address: tuple[str, int], *, tls: bool, timeout: float, receives: int | None = None
) -> socket.socket:
    """Connect. `receives` is the size of the receive buffer, set before the window is told."""
    connection = socket.socket()
    try:
        if receives is not None:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receives)
        connection.settimeout(timeout)
        connection.connect(address)
        return _TLS.wrap_socket(connection) if tls else connection
    except BaseException:
        connection.close()
        raise


def _trusting() -> ssl.SSLContext:
    """What the certificate says is not what is measured."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


_TLS = _trusting()
