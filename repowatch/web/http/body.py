"""Reads the body of a request from its connection, never past the end of it, whole or with an error.

The object is the `wsgi.input` of PEP 3333. A body that ends early raises; it never looks like a shorter one.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from http import HTTPStatus

from repowatch.errors import RepowatchError
from repowatch.web.http.head import BadHead, parse_fields

MOST_JOINED = 16 * 1024 * 1024  # bytes that one `read` puts together in memory
MOST_CHUNK_LINE = 4 * 1024  # bytes, with extensions
MOST_TRAILERS = 8 * 1024  # bytes
_BLOCK = 64 * 1024

_TOKEN = rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]++"
_QUOTED = rb'"(?:[\t \x21\x23-\x5b\x5d-\x7e\x80-\xff]|\\[\t \x21-\x7e\x80-\xff])*+"'
_BLANK = rb"[ \t]*+"
_EXTENSION = rb"%b;%b%b(?:%b=%b(?:%b|%b))?+" % (_BLANK, _BLANK, _TOKEN, _BLANK, _BLANK, _TOKEN, _QUOTED)
# RFC 9112 section 7.1; one more digit than 2**60 needs is spent on a leading zero.
_CHUNK_LINE = re.compile(rb"([0-9A-Fa-f]{1,16}+)(?:%b)*+" % _EXTENSION)


class BodyError(RepowatchError):
    """A body that can not be read to its end: `status` is the answer, the text is the reason in one line.

    What follows on the connection can not be told from the body, so it has to be closed.
    """

    def __init__(self, status: HTTPStatus, text: str) -> None:
        super().__init__(text)
        self.status = status


class Body:
    """The body of one request; one thread reads it."""

    def __init__(
        self,
        receive: Callable[[int], bytes],
        *,
        length: int | None,
        buffered: bytes = b"",
        before_first: Callable[[], None] | None = None,
    ) -> None:
        """`receive(n)` waits and returns 1 to n bytes, or none when the client ended the connection.

        `length` is that of `Head`. `buffered` was received together with the head, and may go on after the
        end of the body. `before_first` is called once, before the first byte is waited for.
        """
        self._source = receive
        self._before_first = before_first
        self._ahead = bytearray(buffered)
        self._chunked = length is None
        self._left = length or 0  # of the body or of the chunk at hand
        self._in_chunk = False
        self._failed: Exception | None = None
        self.received = 0
        """Bytes of content that were handed out."""
        self.done = length == 0
        """Whether the whole body was read, with its trailers."""

    @property
    def touched(self) -> bool:
        """Whether anything of it was read, or could not be: what was received with the head is not whole."""
        return self.received > 0 or self._failed is not None

    def read(self, size: int = -1) -> bytes:
        """The next `size` bytes, fewer only at the end of the body; without a size all that is left.

        Raises BodyError: 400 when the body is malformed or ends early, 413 when more than MOST_JOINED bytes
        would have to be joined; whatever `receive` raises is passed on. Every later call raises the same.
        """
        if not self._chunked:
            size = self._left if size < 0 else min(size, self._left)
            if size > MOST_JOINED:
                raise self._failure(_too_large())
        piece = self.read1(size)
        if len(piece) == size or not piece:
            return piece
        joined = bytearray(piece)
        while len(joined) != size and (piece := self.read1(size - len(joined) if size >= 0 else -1)):
            joined += piece
            if len(joined) > MOST_JOINED:
                raise self._failure(_too_large())
        return bytes(joined)

    def read1(self, size: int = -1) -> bytes:
        """At least one and at most `size` bytes, as they come; none at the end. Raises as `read`.

        Of a body with a length, what `receive` returned is returned as it is.
        """
        if self._failed is not None:
            raise self._failed
        if size < 0:
            size = _BLOCK
        if self.done or size == 0:
            return b""
        content = self._from_chunks(size) if self._chunked else self._content(size)
        self.received += len(content)
        return content

    def readline(self, size: int = -1) -> bytes:
        """The next line with its end, or its first `size` bytes. Raises as `read`."""
        # PEP 3333 asks for it and nothing here calls it: byte by byte is fast enough.
        most = size if size >= 0 else MOST_JOINED
        line = bytearray()
        while len(line) < most and not line.endswith(b"\n") and (byte := self.read1(1)):
            line += byte
        return bytes(line)

    def readlines(self, hint: int = -1) -> list[bytes]:
        """All lines that are left; `hint` is ignored, as PEP 3333 allows."""
        return list(self)

    def __iter__(self) -> Iterator[bytes]:
        return iter(self.readline, b"")

    def leftover(self) -> bytes:
        """What was received after the end of the body: the next request. Empty before `done`."""
        return bytes(self._ahead) if self.done else b""

    def _content(self, size: int) -> bytes:
        size = min(size, self._left)
        if self._ahead:
            content = bytes(self._ahead[:size])
            del self._ahead[:size]
        else:
            content = self._receive(size)
        self._left -= len(content)
        self.done = not self._chunked and self._left == 0
        return content

    def _from_chunks(self, size: int) -> bytes:
        first = self._from_chunk(size)
        if len(first) == size or not self._ahead or self.done:
            return first
        # What is here already goes out together, or a body of tiny chunks would cost a write for each.
        joined = bytearray(first)
        while len(joined) < size and self._ahead and (content := self._from_chunk(size - len(joined))):
            joined += content
        return bytes(joined)

    def _from_chunk(self, size: int) -> bytes:
        if self._left == 0:
            self._next_chunk()
            if self.done:
                return b""
        # The rest of a small chunk is received together with what follows it.
        if not self._ahead and self._left < _BLOCK:
            self._ahead += self._receive(_BLOCK)
        return self._content(size)

    def _next_chunk(self) -> None:
        if self._in_chunk:
            self._line(0, otherwise="a chunk is not as long as it says")
        line = self._line(MOST_CHUNK_LINE, otherwise="the line before a chunk is too long")
        match = _CHUNK_LINE.fullmatch(line)
        if match is None or (left := int(match[1], 16)) >= 2**60:
            raise self._malformed("the size of a chunk is malformed")
        self._left = left
        self._in_chunk = True
        if left == 0:
            self._skip_trailers()
            self.done = True

    def _skip_trailers(self) -> None:
        # RFC 9112 section 7.1.2 lets a server discard them; no field that we heed may come in a trailer.
        lines = []
        left = MOST_TRAILERS
        while line := self._line(left, otherwise="the trailers are too long"):
            left = max(0, left - len(line) - 2)
            lines.append(line.decode("latin-1"))
        try:
            parse_fields(lines)
        except BadHead as error:
            raise self._malformed(f"in the trailers, {error}") from error

    def _line(self, most: int, *, otherwise: str) -> bytes:
        searched = 0
        while (end := self._ahead.find(b"\r\n", searched, most + 2)) < 0:
            searched = max(0, len(self._ahead) - 1)
            if searched > most:
                raise self._malformed(otherwise)
            self._ahead += self._receive(_BLOCK)
        line = bytes(self._ahead[:end])
        del self._ahead[: end + 2]
        return line

    def _receive(self, size: int) -> bytes:
        try:
            if self._before_first is not None:
                before_first, self._before_first = self._before_first, None
                before_first()
            content = self._source(size)
        except Exception as error:
            self._failed = error
            raise
        if not content:
            raise self._malformed("the connection ended before the body")
        return content

    def _malformed(self, text: str) -> BodyError:
        return self._failure(BodyError(HTTPStatus.BAD_REQUEST, text))

    def _failure(self, error: BodyError) -> BodyError:
        self._failed = error
        return error


def _too_large() -> BodyError:
    return BodyError(
        HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"a body of more than {MOST_JOINED >> 20} MiB is not taken here"
    )
