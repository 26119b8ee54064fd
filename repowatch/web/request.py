"""One request and its answer: the environment of PEP 3333 in, the answer laid out into what is to be sent."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Iterator
from email.utils import formatdate
from functools import lru_cache
from http import HTTPStatus
from itertools import chain
from typing import Any
from wsgiref.types import WSGIApplication, WSGIEnvironment

from repowatch.web.access import AccessLog
from repowatch.web.downloads import FileBody
from repowatch.web.http.body import Body, BodyError
from repowatch.web.http.head import Head
from repowatch.web.http.wire import Wire
from repowatch.web.info.counts import Counts
from repowatch.web.replies import Headers, Reply

log = logging.getLogger(__name__)

SKIPPED = 64 * 1024  # bytes of a body that nobody wanted, which are read so that the connection can go on

_WITHOUT_BODY = ("204", "304")


class Request:
    """Owned by whoever owns its connection."""

    __slots__ = (
        "_access",
        "_answered",
        "_began",
        "_body",
        "_buffered",
        "_chunked",
        "_closing",
        "_counts",
        "_head_size",
        "_headers",
        "_sent_before",
        "_server",
        "_status",
        "_wire",
        "environ",
        "head",
    )

    def __init__(
        self,
        wire: Wire,
        head: Head,
        *,
        name: str,
        certificate: str | None,
        access: AccessLog | None,
        counts: Counts,
    ) -> None:
        """`name` of the server; `certificate`: whom the client's certificate is made out to."""
        self.head = head
        self._wire = wire
        self._server = name
        self._access = access
        self._counts = counts
        self._closing = wire.closing
        self._body: Body | None = None
        self._buffered = b""
        self._chunked = False
        self._status = ""
        self._headers: Headers = []
        self._head_size = 0  # bytes of the answer's head; 0 before it is laid out
        self._sent_before = wire.outgoing.sent
        self._answered: list[Callable[[], None]] = []
        self._began = time.time()
        self.environ = self._make_environ(certificate)
        if access is not None:
            wire.outgoing.when_done(self._note)

    def _make_environ(self, certificate: str | None) -> WSGIEnvironment:
        """REQUEST_URI is the target as it was sent; `repowatch.fields` are the head's, by lower-case name.

        `repowatch.connection` is a number that no other connection has.
        """
        head, wire = self.head, self._wire
        path, _, query = head.target.partition("?")
        environ: WSGIEnvironment = {
            "REQUEST_METHOD": head.method,
            "REQUEST_URI": head.target,
            "SCRIPT_NAME": "",
            "PATH_INFO": path,
            "QUERY_STRING": query,
            "SERVER_NAME": "localhost",
            "SERVER_PORT": "",
            "SERVER_PROTOCOL": f"HTTP/1.{head.minor}",
            "SERVER_SOFTWARE": self._server,
            "REMOTE_ADDR": wire.address or "",
            "wsgi.version": (1, 0),
            "wsgi.url_scheme": "https" if wire.tls else "http",
            "wsgi.input": None,
            "wsgi.input_terminated": True,
            "wsgi.errors": _ERRORS,
            "wsgi.multithread": True,
            "wsgi.multiprocess": False,
            "wsgi.run_once": False,
            "repowatch.fields": head.fields,
            "repowatch.certificate": certificate,
            "repowatch.connection": wire.number,
            "repowatch.operator": wire.operator,
        }
        for name, value in head.fields.items():
            environ[_environ_key(name)] = value
        return environ

    def when_answered(self, act: Callable[[], None]) -> None:
        """Have a function called once the answer is laid out (it may still be on its way), or given up."""
        self._answered.append(act)

    def respond_by(self, application: WSGIApplication) -> None:
        """Call the application, in a worker: it may wait for the body, and for more. Raises OSError."""
        wire = self._wire
        if self.head.length != 0:
            self._buffered = bytes(wire.buffer)
            wire.buffer.clear()
            wire.begin_body()
        self._body = Body(
            wire.receive,
            length=self.head.length,
            buffered=self._buffered,
            before_first=self._send_continue if self.head.expects_continue else None,
        )
        self.environ["wsgi.input"] = self._body
        try:
            self.deliver(application(self.environ, self.start_response))
        except OSError:
            raise
        except BodyError as error:
            self.reply(Reply(error.status, str(error)))
        except Exception:
            log.exception("unexpected error in %s %s", self.head.method, self.head.target)
            self.fail()

    def start_response(self, status: str, headers: Headers, exc_info: Any = None) -> Callable[[bytes], Any]:
        """PEP 3333; the last word counts until the head is laid out."""
        if self._head_size:
            raise RuntimeError("the head of the answer is laid out already")
        self._status = status
        self._headers = headers
        return self._write

    def _write(self, data: bytes) -> None:
        raise NotImplementedError("answers are returned, not written")

    def reply(self, reply: Reply) -> None:
        """Answer with a status and a line of text."""
        self.deliver(reply.through(self.start_response))

    def fail(self) -> None:
        """Answer 500; where the answer has begun already, cut it."""
        if self._head_size:
            self.cut()
            return
        self._closing = True
        self.reply(Reply(HTTPStatus.INTERNAL_SERVER_ERROR, "unexpected error; the log has it"))

    def cut(self) -> None:
        """Have the connection closed, whatever was to be sent."""
        self._finish()
        self._wire.outgoing.give_up()
        self._wire.closing = True
        self._wire.lingers = False

    def deliver(self, body: Iterable[bytes]) -> None:
        """Lay out the answer: its head, and what follows. Blocks that take time to make stay unmade."""
        outgoing = self._wire.outgoing
        if isinstance(body, FileBody):
            self._lay_out_head()
            body.lay_out(outgoing)
        elif isinstance(body, (list, tuple)):
            self._lay_out_head()
            if self._chunked:
                outgoing.write_blocks(iter(body), chunked=True)
            elif self.head.method != "HEAD":
                outgoing.write(b"".join(body))
        else:
            blocks = iter(body)
            first = next(filter(None, blocks), b"")  # an application may speak of its headers this late
            self._lay_out_head()
            outgoing.write_blocks(chain([first], blocks), chunked=self._chunked)
            if close := getattr(body, "close", None):
                outgoing.when_done(close)
        self._leave_the_body()
        self._finish()

    def _finish(self) -> None:
        answered, self._answered = self._answered, []
        for act in answered:
            act()

    def _lay_out_head(self) -> None:
        """RFC 9112, section 4, with how the end of the answer is told (section 6)."""
        lines = [f"HTTP/1.1 {self._status}"]
        has_length = self._status[:3] in _WITHOUT_BODY or self.head.method == "HEAD"
        for name, value in self._headers:
            lines.append(f"{name}: {value}")
            has_length = has_length or name.lower() == "content-length"
        if not has_length:
            if self.head.minor == 1:
                self._chunked = True
                lines.append("Transfer-Encoding: chunked")
            else:
                self._closing = True
        if self._rest() is None:
            self._closing = True
        if self._closing:
            lines.append("Connection: close")
        elif self.head.minor == 0:
            lines.append("Connection: keep-alive")
        lines.append(last_lines(int(self._began), self._server))
        text = "\r\n".join(lines)
        if text.count("\n") != len(lines) + 2:
            raise ValueError("a header field with a line end in it")
        head = text.encode("latin-1")
        self._head_size = len(head)
        self._wire.outgoing.write(head)
        self._counts.answered(self.head.method, int(self._status[:3]))

    def _rest(self) -> int | None:
        """How many bytes of the body the client will still send; None where that is unknown, or too much."""
        if self.head.length == 0 or (self._body is not None and self._body.done):
            return 0
        if self._body is not None and self._body.touched:
            return None
        if self.head.length is None or self.head.length > SKIPPED or self.head.expects_continue:
            return None
        return self.head.length

    def _leave_the_body(self) -> None:
        """Make the connection ready for the next request, or for its end."""
        wire, rest = self._wire, self._rest()
        wire.closing = wire.closing or self._closing
        wire.lingers = rest != 0
        if self._body is not None and self.head.length != 0:
            wire.buffer[:0] = self._body.leftover() if rest == 0 else self._buffered
        wire.skip = rest or 0

    def _send_continue(self) -> None:
        self._wire.say(b"HTTP/1.1 100 Continue\r\n\r\n")

    def _note(self) -> None:
        assert self._access is not None
        head, environ = self.head, self.environ
        self._access.note(
            address=environ["REMOTE_ADDR"] or None,
            user=environ.get("REMOTE_USER"),
            request_line=f"{head.method} {head.target} HTTP/1.{head.minor}",
            status=int(self._status[:3] or 0),
            sent=max(0, self._wire.outgoing.sent - self._sent_before - self._head_size),
            referer=head.fields.get("referer"),
            agent=head.fields.get("user-agent"),
            at=self._began,
        )


class _Errors:
    """The wsgi.errors stream: lines go into the log."""

    def write(self, text: str) -> None:
        if text.strip():
            log.error("%s", text.strip())

    def writelines(self, lines: Iterator[str]) -> None:
        for line in lines:
            self.write(line)

    def flush(self) -> None:
        pass


_ERRORS = _Errors()


@lru_cache(maxsize=256)
def _known_key(name: str) -> str:
    return _key_of(name)


def _environ_key(name: str) -> str:
    """The name of a header field in a WSGI environment; a long one is nobody's, and not remembered."""
    return _known_key(name) if len(name) <= 64 else _key_of(name)


def _key_of(name: str) -> str:
    key = name.upper().replace("-", "_")
    return key if key in ("CONTENT_TYPE", "CONTENT_LENGTH") else f"HTTP_{key}"


@lru_cache(maxsize=4)
def last_lines(second: int, server: str) -> str:
    """The last two lines of an answer's head, and the empty one after them; seconds since 1970."""
    return f"Date: {formatdate(second, usegmt=True)}\r\nServer: {server}\r\n\r\n"
