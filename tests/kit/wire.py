"""Speaks HTTP by hand, so that a test decides each byte; and runs cheroot with WsgiDAV as they are shipped.

The second is who the tests of the doors have to convict: a check that it passes proves nothing.
"""

from __future__ import annotations

import contextlib
import http.client
import io
import socket
import ssl
import struct
import subprocess
import sys
from collections.abc import Iterable, Iterator
from itertools import chain, repeat
from pathlib import Path
from types import TracebackType
from typing import Self

from tests.kit.daemon import Answer

PATIENCE = 15.0  # seconds that a client waits for the next byte, or to be rid of one
MOST = 1 << 16  # bytes that are received at once
_RESET_ON_CLOSE = struct.pack("ii", 1, 0)  # SO_LINGER


class Cut(Exception):
    """The connection ended before the answer did."""


def head(method: str, path: str, *fields: str) -> bytes:
    """The head of a request; `fields` as they are written."""
    return "\r\n".join((f"{method} {path} HTTP/1.1", "Host: localhost", *fields, "", "")).encode("latin-1")


def chunked(*blocks: bytes) -> bytes:
    """A whole body in the chunked coding, one chunk for each block."""
    return b"".join(b"%x\r\n%b\r\n" % (len(block), block) for block in (*blocks, b""))


class Client:
    """One connection, plain or TLS."""

    def __init__(
        self,
        address: tuple[str, int],
        *,
        context: ssl.SSLContext | None = None,
        receive_buffer: int | None = None,
    ) -> None:
        """Connect. `receive_buffer`: bytes that the kernel takes for us while we do not read."""
        connection = socket.socket()
        try:
            connection.settimeout(PATIENCE)
            if receive_buffer is not None:
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
            connection.connect(address)
            self.socket = (
                context.wrap_socket(connection, server_hostname="localhost") if context else connection
            )
        except BaseException:
            connection.close()
            raise
        self._received = b""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        self.socket.close()

    def reset(self) -> None:
        """End the connection with RST, as a client that dies does."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
        self.socket.close()

    def finish(self) -> None:
        """Send FIN: there is no more to come, and we still read."""
        self.socket.shutdown(socket.SHUT_WR)

    def send(self, data: bytes) -> None:
        self.socket.sendall(data)

    def send_while_taken(self, blocks: Iterable[bytes]) -> int:
        """Send without a look at what comes back, until the server ends the connection; the bytes sent."""
        sent = 0
        with contextlib.suppress(ConnectionError, ssl.SSLError):
            for block in blocks:
                self.socket.sendall(block)
                sent += len(block)
        return sent

    def answer(self, *, to: str = "GET") -> Answer:
        """The next answer whole, 100 Continue as well; `to` is the method. Raises Cut, TimeoutError."""
        line, _, fields = self._until(b"\r\n\r\n").partition(b"\r\n")
        status = int(line.split()[1])
        headers = http.client.parse_headers(io.BytesIO(fields))
        if to == "HEAD" or status < 200 or status in (204, 304):
            return Answer(status, headers, b"")
        if headers["Transfer-Encoding"] == "chunked":
            return Answer(status, headers, b"".join(iter(self._chunk, b"")))
        return Answer(status, headers, self._take(int(headers["Content-Length"])))

    def rest(self) -> bytes:
        """All that comes until the connection ends, by FIN or RST. Raises TimeoutError when it does not."""
        with contextlib.suppress(Cut):
            while True:
                self._receive()
        rest, self._received = self._received, b""
        return rest

    def ask(self, method: str, path: str, *fields: str, body: bytes = b"") -> Answer:
        """Send a request with a whole body, and take its answer."""
        if body:
            fields = (*fields, f"Content-Length: {len(body)}")
        self.send(head(method, path, *fields) + body)
        return self.answer(to=method)

    def _chunk(self) -> bytes:
        content = self._take(int(self._until(b"\r\n"), 16))
        self._until(b"\r\n")
        return content

    def _until(self, mark: bytes) -> bytes:
        while mark not in self._received:
            self._receive()
        return self._take(self._received.index(mark) + len(mark))

    def _take(self, count: int) -> bytes:
        while len(self._received) < count:
            self._receive()
        taken, self._received = self._received[:count], self._received[count:]
        return taken

    def _receive(self) -> None:
        try:
            data = self.socket.recv(MOST)
        except (ConnectionError, ssl.SSLError) as error:
            raise Cut(str(error)) from error
        if not data:
            raise Cut("the server closed the connection")
        self._received += data


def endless(size: int, *, coding: str) -> tuple[str, Iterator[bytes]]:
    """The header field for a body of zeros, and its blocks.

    `coding` is "length", "chunked" (it never ends) or "one chunk".
    """
    block = bytes(MOST)
    blocks = repeat(block, size // MOST)
    match coding:
        case "length":
            return f"Content-Length: {size}", blocks
        case "chunked":
            return "Transfer-Encoding: chunked", repeat(b"%x\r\n%b\r\n" % (MOST, block))
        case "one chunk":
            return "Transfer-Encoding: chunked", chain([b"%x\r\n" % size], blocks)
    raise ValueError(coding)


@contextlib.contextmanager
def as_shipped(tree: Path, *, password: str = "") -> Iterator[tuple[subprocess.Popen[str], tuple[str, int]]]:
    """cheroot and WsgiDAV with their own defaults on a directory: the process, and its address.

    With a password, anna has to tell it; without, anyone may do anything. SIGTERM stops it in order.
    """
    command = [sys.executable, "-m", "tests.kit.wire", str(tree), password]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            yield process, ("127.0.0.1", int(process.stdout.readline()))
        finally:
            process.kill()


def _serve_as_shipped(tree: str, password: str) -> None:
    import signal  # noqa: PLC0415

    from cheroot.wsgi import Server  # noqa: PLC0415
    from wsgidav.wsgidav_app import WsgiDAVApp  # noqa: PLC0415

    application = WsgiDAVApp(
        {
            "provider_mapping": {"/": tree},
            "simple_dc": {"user_mapping": {"*": {"anna": {"password": password}} if password else True}},
            "verbose": 0,
        }
    )
    server = Server(("127.0.0.1", 0), application, shutdown_timeout=1)  # not 5 s, for the tests' time
    signal.signal(signal.SIGTERM, lambda *_: sys.exit())
    server.prepare()
    print(server.bind_addr[1], flush=True)
    try:
        server.serve()
    finally:
        server.stop()


if __name__ == "__main__":
    _serve_as_shipped(*sys.argv[1:])
