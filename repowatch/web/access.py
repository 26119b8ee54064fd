"""The access log: one line a request in Apache's combined format, gathered and written by the handful.

Whoever answers calls `note`, which only remembers; the loop calls `flush`. A full disk or a stuck reader of
standard error costs lines, never an answer.
"""

from __future__ import annotations

import logging
import os
import re
import select
import threading
import time
from collections.abc import Callable

from repowatch.errors import RepowatchError

log = logging.getLogger(__name__)

STDERR = "stderr"
MOST = 4 << 20  # bytes remembered, and as many again that could not be written: further lines are lost

_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
_ODD = re.compile(r"[^ !#-\[\]-~]")  # what could end a field or a line, or drive a terminal
_PASSWORD = re.compile(r"(?<=://)[^/?# ]*@")  # and the name before it, in a URL (RFC 3986, section 3.2.1)
_ODD_OR_SPACE = re.compile(r"[^!#-\[\]-~]")
# poll(2) promises room for this much, so that a write does not wait (pipe(7)).
_PIPE_ROOM = select.PIPE_BUF


class AccessLog:
    """A log of requests, for any number of threads.

    Its lines are Apache's `%h %l %u %t "%r" %>s %b "%{Referer}i" "%{User-Agent}i"`, but that a quote and a
    backslash are escaped by number like all that is odd, as nginx does: whoever takes a field to end at the
    next quote reads it right.
    """

    def __init__(self, path: str | None, *, most: int = MOST) -> None:
        """Log to a file, to "stderr", or not at all (None). Raises RepowatchError."""
        self._path = path
        self._most = most
        self._noting = threading.Lock()  # held for no longer than it takes to append
        self._lines: list[str] = []
        self._size = 0  # bytes of _lines
        self._lost = 0  # lines, since the log was last written whole
        self._writing = threading.Lock()
        self._unwritten = b""  # what the last write left over
        self._torn = False  # whether that begins inside a line
        self._failing = False
        self._second: tuple[int, str] = (-1, "")
        try:
            self._append, self._close = _opened(path)
        except OSError as error:
            raise RepowatchError(
                f"{path}: the access log can not be opened: {_reason(error)}; "
                f"make its directory, and let the daemon write there"
            ) from None

    def note(
        self,
        *,
        address: str | None,
        user: str | None,
        request_line: str,
        status: int,
        sent: int,
        referer: str | None,
        agent: str | None,
        at: float,
    ) -> None:
        """Remember a request that was answered; never waits for the disk, never raises.

        `sent` is in bytes without the head, `at` in seconds since 1970. `address` is None on a unix socket.
        The request line and the fields are as WSGI has them, where a character is a byte (PEP 3333); `user`
        is text.
        """
        if self._path is None:
            return
        request_line, referer, agent = request_line or "-", referer or "-", agent or "-"
        if "@" in request_line or "@" in referer:
            request_line, referer = (_PASSWORD.sub("", each) for each in (request_line, referer))
        if _ODD.search(f"{request_line}{referer}{agent}"):
            request_line, referer, agent = (_ODD.sub(_byte, each) for each in (request_line, referer, agent))
        line = (
            f"{_word(address)} - {_word(user)} {self._time(int(at))} "
            f'"{request_line}" {status} {sent or "-"} "{referer}" "{agent}"\n'
        )
        with self._noting:
            if self._size + len(line) > self._most:
                self._lost += 1
            else:
                self._lines.append(line)
                self._size += len(line)

    def flush(self) -> None:
        """Write what was noted, by one write(2) to a file; what can not be written waits for the next call.

        Never raises: the first failure in a row is logged, and so is that it works again.
        """
        if not (self._lines or self._unwritten):
            return
        with self._writing:
            if not self._unwritten:
                self._unwritten = self._take()
            while self._unwritten and self._write():
                pass

    def reopen(self) -> None:
        """Write on into the file that has the name now; the one before stays where there can be none."""
        if self._path in (None, STDERR):
            return
        self.flush()
        try:
            append, close = _opened(self._path)
        except OSError as error:
            log.error(
                "%s: the access log can not be reopened, the old file goes on: %s", self._path, _reason(error)
            )
            return
        with self._writing:
            self._close()
            self._append, self._close = append, close
            if self._torn:  # the rest of a line whose beginning is in the other file
                self._unwritten = self._unwritten.partition(b"\n")[2]
                self._torn = False

    def close(self) -> None:
        """Write what there is, and let go of the file. What is noted afterwards is lost."""
        self.flush()
        self.flush()  # the first may have written what an earlier one left over
        with self._writing:
            self._path = None
            self._close()
            self._append, self._close = _nowhere, _nothing

    def _time(self, second: int) -> str:
        known, text = self._second
        if known != second:
            text = _local_time(second)
            self._second = second, text
        return text

    def _take(self) -> bytes:
        with self._noting:
            lines, self._lines, self._size = self._lines, [], 0
        return "".join(lines).encode("ascii")

    def _write(self) -> bool:
        """Write on; whether anything could be written."""
        try:
            written = self._append(self._unwritten)
        except BlockingIOError:
            return False
        except OSError as error:
            if not self._failing:
                log.error(
                    "%s: the access log can not be written: %s; requests are answered, lines may get lost",
                    self._path,
                    _reason(error),
                )
            self._failing = True
            return False
        if written:
            self._torn = not self._unwritten.endswith(b"\n", 0, written)
            self._unwritten = self._unwritten[written:]
        if not self._unwritten and (self._failing or self._lost):
            self._works_again()
        return written > 0

    def _works_again(self) -> None:
        with self._noting:
            lost, self._lost = self._lost, 0
        self._failing = False
        log.warning("%s: the access log is written again; %d lines were lost", self._path, lost)


def _opened(path: str | None) -> tuple[Callable[[bytes], int], Callable[[], None]]:
    """How to append to the log, and how to close it. Raises OSError."""
    if path is None:
        return _nowhere, _nothing
    if path == STDERR:
        return _to_stderr, _nothing
    # Not to wait for whoever reads a named pipe; a file does not mind.
    flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
    descriptor = os.open(path, flags, 0o640)
    return (lambda data: os.write(descriptor, data)), (lambda: os.close(descriptor))


def _to_stderr(data: bytes) -> int:
    """Write as much as needs no waiting.

    Standard error is shared with other programs, so it can not be made non-blocking; it is asked instead.
    """
    poll = select.poll()
    poll.register(2, select.POLLOUT)
    return os.write(2, data[:_PIPE_ROOM]) if poll.poll(0) else 0


def _nowhere(data: bytes) -> int:
    return len(data)


def _nothing() -> None:
    pass


def _word(text: str | None) -> str:
    """A field that is not in quotes."""
    if not text:
        return "-"
    if _ODD_OR_SPACE.search(text) is None:
        return text
    return _ODD_OR_SPACE.sub(_byte, text.encode("utf-8", "surrogatepass").decode("latin-1"))


def _byte(odd: re.Match[str]) -> str:
    number = ord(odd[0])
    if number < 0x100:
        return f"\\x{number:02x}"
    return "".join(f"\\x{each:02x}" for each in odd[0].encode("utf-8", "surrogatepass"))


def _local_time(second: int) -> str:
    """A time as Apache writes it, month names in English whatever the locale."""
    then = time.localtime(second)
    sign = "-" if then.tm_gmtoff < 0 else "+"
    hours, minutes = divmod(abs(then.tm_gmtoff) // 60, 60)
    return (
        f"[{then.tm_mday:02}/{_MONTHS[then.tm_mon - 1]}/{then.tm_year:04}:"
        f"{then.tm_hour:02}:{then.tm_min:02}:{then.tm_sec:02} {sign}{hours:02}{minutes:02}]"
    )


def _reason(error: OSError) -> str:
    return (error.strerror or str(error)).lower()
