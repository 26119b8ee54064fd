"""Sends one file over WSGI, whole or in ranges, to whoever does not have it yet (RFC 9110)."""

from __future__ import annotations

import errno
import os
import re
import secrets
import stat
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from http import HTTPStatus
from itertools import pairwise
from wsgiref.types import StartResponse, WSGIEnvironment

from repowatch.web.conditions import Conditions, evaluate, http_date, if_range_holds, modification_time
from repowatch.web.http.outgoing import FilePart, Outgoing

BLOCK = 256 * 1024  # bytes
MOST_RANGES = 16
LONGEST_RANGE_FIELD = 1024  # characters; also keeps int() away from numbers of absurd length

# O_NONBLOCK: opening a FIFO that nobody writes to would wait forever.
_OPEN_FLAGS = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
_NO_FILE = {errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ENAMETOOLONG, errno.ENXIO}
_CLOSED = -1
_RANGE = re.compile("([0-9]+)-([0-9]*)|-([0-9]+)")

# Without any of these the answer depends on the file alone.
CONDITIONAL_FIELDS = frozenset(
    {"if-match", "if-modified-since", "if-none-match", "if-unmodified-since", "range"}
)
_CONDITIONAL = frozenset(f"HTTP_{name.upper().replace('-', '_')}" for name in CONDITIONAL_FIELDS)

Headers = list[tuple[str, str]]


@dataclass(frozen=True, slots=True)
class _Representation:
    size: int  # bytes
    etag: str
    last_modified: int | None  # seconds since 1970
    content_type: str
    cache_control: str | None

    @classmethod
    def of(
        cls, status: os.stat_result, etag: str, content_type: str, cache_control: str | None
    ) -> _Representation:
        last_modified = modification_time(status.st_mtime_ns, now=time.time())
        return cls(status.st_size, etag, last_modified, content_type, cache_control)


@dataclass(frozen=True, slots=True)
class _Answer:
    status: str
    headers: Headers
    content: Sequence[bytes | range]  # a range is that part of the file


class FileBody:
    """The content of one answer: bytes, and parts of the file behind `descriptor`, which it owns.

    A server lays it out (`lay_out`), so that the file goes straight from the kernel.
    """

    __slots__ = ("_content", "_descriptor")

    def __init__(self, descriptor: int, content: Sequence[bytes | range]) -> None:
        self._descriptor = descriptor
        self._content = content

    def lay_out(self, outgoing: Outgoing) -> None:
        """Put the content into what is to be sent; the file is closed when that is done."""
        for piece in self._content:
            if isinstance(piece, bytes):
                outgoing.write(piece)
            else:
                outgoing.write_file(FilePart(self._descriptor, piece.start, piece.stop))
        descriptor, self._descriptor = self._descriptor, _CLOSED
        if descriptor != _CLOSED:
            outgoing.when_done(partial(os.close, descriptor))

    def __iter__(self) -> Iterator[bytes]:
        """The content in blocks, for a WSGI server that does not lay it out. Raises ShortFileError."""
        for piece in self._content:
            if isinstance(piece, bytes):
                yield piece
                continue
            part = FilePart(self._descriptor, piece.start, piece.stop)
            while self._descriptor != _CLOSED and part.position < part.stop:
                yield part.read(BLOCK)

    def close(self) -> None:
        descriptor, self._descriptor = self._descriptor, _CLOSED
        if descriptor != _CLOSED:
            os.close(descriptor)


def send_file(
    environ: WSGIEnvironment,
    start_response: StartResponse,
    target: int | str | bytes | os.PathLike[str],
    *,
    etag: Callable[[os.stat_result], str],
    content_type: str,
    cache_control: str | None = None,
) -> Iterable[bytes]:
    """Answer a GET or HEAD of the regular file `target` and return the body, which has to be closed.

    `target` is a path whose last component is not followed when it is a symbolic link, or an open
    descriptor, which is closed here in any case. `etag` makes the strong tag, without quotes, from what
    fstat says of the file that is sent. 404 where there is no regular file, 403 where it may not be
    read; another OSError is the caller's. The body raises ShortFileError where the file became shorter.
    """
    try:
        descriptor = target if isinstance(target, int) else os.open(target, _OPEN_FLAGS)
    except OSError as error:
        answer = _refusal_of(error)
        start_response(answer.status, answer.headers)
        return () if environ["REQUEST_METHOD"] == "HEAD" else FileBody(_CLOSED, answer.content)
    try:
        status = os.fstat(descriptor)
        if stat.S_ISREG(status.st_mode):
            answer = _answer(environ, _Representation.of(status, etag(status), content_type, cache_control))
        else:
            answer = _no_such_file()
        start_response(answer.status, answer.headers)
    except BaseException:
        os.close(descriptor)
        raise
    if environ["REQUEST_METHOD"] == "HEAD" or not answer.content:
        os.close(descriptor)
        return ()
    return FileBody(descriptor, answer.content)


def requested_ranges(field: str, *, size: int) -> list[range] | None:
    """The satisfiable byte ranges in a Range field, in the order asked for (RFC 9110 section 14.1.2).

    None where the field is to be ignored: another unit, malformed, too many, overlapping, or an empty
    file, which no Content-Range can describe. An empty list where no range is satisfiable.
    """
    if size == 0 or len(field) > LONGEST_RANGE_FIELD:
        return None
    unit, _, range_set = field.partition("=")
    specs = [spec.strip(" \t") for spec in range_set.split(",")]
    ranges = [_range(spec, size=size) for spec in specs if spec]
    if unit.lower() != "bytes" or None in ranges or not 0 < len(ranges) <= MOST_RANGES:
        return None
    satisfiable = [one for one in ranges if one]
    return None if _overlap(satisfiable) else satisfiable


def _range(spec: str, *, size: int) -> range | None:
    """The part of the file that one range-spec means, empty if it can not be satisfied; None if malformed."""
    match = _RANGE.fullmatch(spec)
    if match is None:
        return None
    first, last, suffix_length = match.groups()
    if suffix_length is not None:
        return range(max(0, size - int(suffix_length)), size)
    if last and int(last) < int(first):
        return None
    return range(int(first), min(int(last) + 1, size) if last else size)


def _overlap(ranges: list[range]) -> bool:
    in_order = sorted(ranges, key=lambda one: one.start)
    return any(one.stop > other.start for one, other in pairwise(in_order))


def _answer(environ: WSGIEnvironment, file: _Representation) -> _Answer:
    if _CONDITIONAL.isdisjoint(environ):
        return _whole(file)
    method = environ["REQUEST_METHOD"]
    verdict = evaluate(
        Conditions.of(environ),
        method=method,
        exists=True,
        etag=file.etag,
        last_modified=file.last_modified,
    )
    if verdict is HTTPStatus.NOT_MODIFIED:
        return _Answer(_line(verdict), _cache_headers(file), ())
    if verdict is not None:
        return _refusal(verdict, "the file is not in the state that the request asks for")
    ranges = _obeyed_ranges(environ, file) if method == "GET" and "HTTP_RANGE" in environ else None
    if ranges is None:
        return _whole(file)
    if not ranges:
        return _unsatisfiable(file)
    return _one_range(file, ranges[0]) if len(ranges) == 1 else _several_ranges(file, ranges)


@lru_cache(maxsize=4096)
def _whole(file: _Representation) -> _Answer:
    """The answer without conditions and ranges; nobody may change it."""
    return _Answer("200 OK", _headers(file, file.content_type, file.size), (range(file.size),))


def _obeyed_ranges(environ: WSGIEnvironment, file: _Representation) -> list[range] | None:
    same = if_range_holds(environ.get("HTTP_IF_RANGE"), etag=file.etag, last_modified=file.last_modified)
    return requested_ranges(environ["HTTP_RANGE"], size=file.size) if same else None


def _one_range(file: _Representation, part: range) -> _Answer:
    headers = _headers(file, file.content_type, len(part))
    headers.append(("Content-Range", _content_range(part, file.size)))
    return _Answer(_line(HTTPStatus.PARTIAL_CONTENT), headers, (part,))


def _several_ranges(file: _Representation, parts: list[range]) -> _Answer:
    boundary = secrets.token_hex(16)
    content: list[bytes | range] = []
    for part in parts:
        head = (
            f"\r\n--{boundary}\r\nContent-Type: {file.content_type}\r\n"
            f"Content-Range: {_content_range(part, file.size)}\r\n\r\n"
        )
        content += (head.encode("latin-1"), part)
    content.append(f"\r\n--{boundary}--\r\n".encode("latin-1"))
    headers = _headers(file, f"multipart/byteranges; boundary={boundary}", sum(map(len, content)))
    return _Answer(_line(HTTPStatus.PARTIAL_CONTENT), headers, content)


def _unsatisfiable(file: _Representation) -> _Answer:
    refusal = _refusal(
        HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE,
        f"the file has {file.size} bytes, none of them in the range",
    )
    refusal.headers.append(("Content-Range", f"bytes */{file.size}"))
    return refusal


def _content_range(part: range, size: int) -> str:
    return f"bytes {part.start}-{part.stop - 1}/{size}"


def _headers(file: _Representation, content_type: str, length: int) -> Headers:
    headers = [
        ("Content-Type", content_type),
        ("Content-Length", str(length)),
        ("Accept-Ranges", "bytes"),
        *_cache_headers(file),
    ]
    if file.last_modified is not None:
        headers.append(("Last-Modified", http_date(file.last_modified)))
    return headers


def _cache_headers(file: _Representation) -> Headers:
    """What also a 304 carries (RFC 9110 section 15.4.5)."""
    headers = [("ETag", f'"{file.etag}"')]
    if file.cache_control is not None:
        headers.append(("Cache-Control", file.cache_control))
    return headers


def _refusal_of(error: OSError) -> _Answer:
    if error.errno in _NO_FILE:
        return _no_such_file()
    if isinstance(error, PermissionError):
        return _refusal(HTTPStatus.FORBIDDEN, "the server is not allowed to read this file")
    raise error


def _no_such_file() -> _Answer:
    return _refusal(HTTPStatus.NOT_FOUND, "there is no such file")


def _refusal(status: HTTPStatus, reason: str) -> _Answer:
    text = f"{reason}\n".encode()
    headers = [("Content-Type", "text/plain; charset=utf-8"), ("Content-Length", str(len(text)))]
    return _Answer(_line(status), headers, (text,))


def _line(status: HTTPStatus) -> str:
    return f"{status.value} {status.phrase}"
