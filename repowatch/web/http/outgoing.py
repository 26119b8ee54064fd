"""What is still to be sent on one connection: bytes, parts of files, and blocks that are made while they go.

Nothing here waits. Who owns the connection calls `advance` when the client can take more; files go straight
from the kernel where the connection is plain.
"""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import ssl
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import Enum

from repowatch.errors import RepowatchError

AT_ONCE = 1 << 20  # bytes that one connection sends before others have their turn
JOINED = 64 * 1024  # bytes of a file that are copied to go in one packet with the head
OVER_TLS = 64 * 1024  # bytes that are read from a file at once, to be encrypted

_AGAIN = {errno.EAGAIN, errno.EWOULDBLOCK}


class ShortFileError(RepowatchError):
    """A file became shorter while it was sent; the connection has to be closed."""


class Sent(Enum):
    """How far `advance` came."""

    ALL = "all"
    BLOCKED = "blocked"  # the client has to read first
    MORE = "more"  # there is more, and the client may take it; others first
    MAKE = "make"  # the next block has to be made, which may take a while: not in the loop


@dataclass(slots=True)
class FilePart:
    """Bytes of an open file, from `position` up to `stop`."""

    descriptor: int
    position: int
    stop: int

    def read(self, most: int) -> bytes:
        """The next bytes, at most `most`. Raises ShortFileError."""
        data = os.pread(self.descriptor, min(most, self.stop - self.position), self.position)
        if not data:
            raise self.too_short()
        self.position += len(data)
        return data

    def too_short(self) -> ShortFileError:
        name = "a file"
        with contextlib.suppress(OSError):
            name = os.readlink(f"/proc/self/fd/{self.descriptor}")
        return ShortFileError(
            f"{name}: ended at byte {self.position} while bytes up to {self.stop} were sent"
        )


class Outgoing:
    """The rest of one response. Owned by one thread at a time."""

    __slots__ = ("_chunked", "_closers", "_made", "_pieces", "sent")

    def __init__(self) -> None:
        self._pieces: deque[memoryview | FilePart] = deque()
        self._made: Iterator[bytes] | None = None
        self._chunked = False
        self._closers: list[Callable[[], None]] = []
        self.sent = 0  # bytes that the kernel took, over the connection's life

    def __bool__(self) -> bool:
        return bool(self._pieces) or self._made is not None

    def write(self, data: bytes) -> None:
        if data:
            self._pieces.append(memoryview(data))

    def write_file(self, part: FilePart) -> None:
        if part.position < part.stop:
            self._pieces.append(part)

    def write_blocks(self, blocks: Iterator[bytes], *, chunked: bool) -> None:
        """Send what an iterator makes, after everything else; `chunked` frames it (RFC 9112, 7.1)."""
        self._made = blocks
        self._chunked = chunked

    def when_done(self, close: Callable[[], None]) -> None:
        """Have a function called when all is sent, or given up."""
        self._closers.append(close)

    def give_up(self) -> None:
        """Forget the rest and close what it came from."""
        self._pieces.clear()
        self._made = None
        closers, self._closers = self._closers, []
        for close in closers:
            close()

    def advance(self, connection: socket.socket, *, make: bool) -> Sent:
        """Send what the client takes without waiting; blocks are made only where `make` says so.

        Raises OSError when the client is gone, ShortFileError, and what the blocks raise.
        """
        budget = AT_ONCE
        while True:
            if not self._pieces:
                if self._made is None:
                    self.give_up()
                    return Sent.ALL
                if not make:
                    return Sent.MAKE
                self._make()
                continue
            if budget <= 0:
                return Sent.MORE
            count = self._send(connection)
            if count < 0:
                return Sent.BLOCKED
            self.sent += count
            budget -= count

    def _make(self) -> None:
        assert self._made is not None
        block = next(self._made, None)
        if block is None:
            self._made = None
            if self._chunked:
                self.write(b"0\r\n\r\n")
        elif block:
            self.write(b"%x\r\n%b\r\n" % (len(block), block) if self._chunked else block)

    def _send(self, connection: socket.socket) -> int:
        """Send of what comes first; the number of bytes taken, -1 for none because the client has to read."""
        if isinstance(self._pieces[0], FilePart) and not isinstance(connection, ssl.SSLSocket):
            part = self._pieces[0]
            if part.stop - part.position > JOINED:
                return self._send_file(connection, part)
        self._join()
        data = self._pieces[0]
        assert isinstance(data, memoryview)
        more = socket.MSG_MORE if len(self._pieces) > 1 and not isinstance(connection, ssl.SSLSocket) else 0
        try:
            count = connection.send(data, more)
        except (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError):
            return -1
        if count == len(data):
            self._pieces.popleft()
        else:
            self._pieces[0] = data[count:]
        return count

    def _join(self) -> None:
        """Turn what comes first into bytes, a head and a small file into one piece."""
        gathered: list[memoryview | bytes] = []
        size = 0
        while self._pieces and size < JOINED:
            piece = self._pieces[0]
            if isinstance(piece, FilePart):
                room = OVER_TLS if not gathered else JOINED - size
                if gathered and piece.stop - piece.position > room:
                    break
                gathered.append(piece.read(room))
                if piece.position < piece.stop:
                    size = JOINED
                else:
                    self._pieces.popleft()
            elif gathered and size + len(piece) > JOINED:
                break
            else:
                gathered.append(self._pieces.popleft())  # type: ignore[arg-type]
            size += len(gathered[-1])
        whole = gathered[0] if len(gathered) == 1 else b"".join(gathered)
        self._pieces.appendleft(memoryview(whole))

    def _send_file(self, connection: socket.socket, part: FilePart) -> int:
        count = min(part.stop - part.position, AT_ONCE)
        try:
            done = os.sendfile(connection.fileno(), part.descriptor, part.position, count)
        except OSError as error:
            if error.errno in _AGAIN:
                return -1
            raise
        if done == 0:
            raise part.too_short()
        part.position += done
        if part.position == part.stop:
            self._pieces.popleft()
        return done
