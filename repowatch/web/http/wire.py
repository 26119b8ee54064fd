"""One connection: its socket, what was received and is not used yet, what is to be sent, and who owns it."""

from __future__ import annotations

import fcntl
import itertools
import select
import socket
import ssl
import struct
import termios
import time
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from http import HTTPStatus
from typing import Any

from repowatch.web.http.body import BodyError
from repowatch.web.http.head import Head
from repowatch.web.http.outgoing import Outgoing

WINDOW = 20.0  # seconds over which the least rates are measured

_NUMBERS = itertools.count(1)

TRY_LATER = (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError)


class State(Enum):
    """Who has a connection, and what it waits for."""

    HANDSHAKE = "handshake"
    SHAKING = "shaking"  # a thread computes the next step of its handshake
    HEAD = "head"
    WORKING = "working"  # somebody else owns it
    SENDING = "sending"
    LINGERING = "lingering"
    PARKED = "parked"  # its answer is to come when there is news, or when it has waited long enough
    CLOSED = "closed"  # its number may be another's by now


@dataclass(frozen=True, slots=True)
class Wait:
    """What an answer waits for, with no thread that waits."""

    is_over: Callable[[], bool]  # asked in the loop's thread, so it has to be quick
    seconds: float  # at most


class Wire:
    """One connection."""

    __slots__ = (
        "_rate",
        "_received",
        "_window_ends",
        "acknowledged",
        "address",
        "buffer",
        "closing",
        "collected",
        "deadline",
        "descriptor",
        "drained",
        "head",
        "is_new",
        "lingers",
        "number",
        "operator",
        "outgoing",
        "owner",
        "port",
        "receives",
        "searched",
        "secure",
        "since",
        "skip",
        "socket",
        "state",
        "tls",
        "wait",
    )

    def __init__(
        self, connection: socket.socket, *, address: str | None, port: int, tls: bool, rate: float
    ) -> None:
        self.socket = connection
        self.descriptor = connection.fileno()
        self.address = address  # None on a unix socket
        self.port = port
        self.number = next(_NUMBERS)  # no other connection has it, before and after
        self.tls = tls
        self.state = State.HANDSHAKE if tls else State.HEAD
        self.buffer = bytearray()  # received, not used yet
        self.searched = 0  # how far the buffer was looked at for the end of a head
        self.head: Head | None = None  # one whose body is still collected,
        self.collected = 0  # so many bytes of it
        self.skip = 0  # bytes of a body that nobody wanted, to be thrown away
        self.receives = 0  # of the present head
        self.outgoing = Outgoing()
        self.is_new = True  # it has not asked for anything yet
        self.closing = False  # after the present answer
        self.lingers = False  # the client may still be sending: let it read the answer first
        self.drained = 0
        self.acknowledged = 0  # bytes the client had read when the window began
        self.since = 0.0
        self.deadline = 0.0
        self.secure = False  # the handshake is done
        self.operator: str | None = None  # the account of whoever came by the control socket
        self.owner: Any = None  # what the server keeps with it
        self.wait: Wait | None = None  # what the answer in hand waits for
        self._rate = rate
        self._received = 0  # bytes of the body in the present window
        self._window_ends = 0.0

    def begin_body(self) -> None:
        """The client's time begins: from now on it has to keep the least rate."""
        self._received = 0
        self._window_ends = time.monotonic() + WINDOW

    def receive(self, size: int) -> bytes:
        """The next bytes of a body, b"" at the end of the connection. Waits; for whoever owns the connection.

        Raises BodyError (408) when the client stays below the least rate, OSError.
        """
        poll = None
        while True:
            try:
                data = self.socket.recv(size)
            except TRY_LATER:
                if poll is None:
                    poll = select.poll()
                    poll.register(self.descriptor, select.POLLIN)
                poll.poll(self._time_left() * 1000)
            else:
                self._received += len(data)
                return data

    def _time_left(self) -> float:
        """Seconds until the window ends; a new one begins where enough came in the last."""
        now = time.monotonic()
        if now >= self._window_ends:
            if self._received < self._rate * WINDOW:
                raise BodyError(
                    HTTPStatus.REQUEST_TIMEOUT, f"the body comes slower than {self._rate:g} bytes a second"
                )
            self.begin_body()
        return self._window_ends - now

    def say(self, text: bytes) -> None:
        """Send a few bytes at once (100 Continue). Raises OSError."""
        try:
            self.socket.send(text)
        except TRY_LATER:
            raise ConnectionError("the client does not read") from None

    def progress(self) -> int:
        """How many bytes of answers the client has taken so far."""
        waiting = struct.unpack("i", fcntl.ioctl(self.descriptor, termios.TIOCOUTQ, b"\0\0\0\0"))[0]
        return self.outgoing.sent - int(waiting)

    def close(self) -> None:
        """End the connection and whatever was to be sent.

        For the loop alone: the number of a descriptor that was closed may be another connection's.
        """
        self.state = State.CLOSED
        self.outgoing.give_up()
        self.socket.close()
