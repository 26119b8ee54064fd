"""The door to cheroot: its workers serve the connections that `connections` keeps.

cheroot's own connection manager gives a worker to each client that is silent, and its parser takes what
RFC 9112 forbids; neither is used. What we rely on beyond what cheroot documents is all in this file: a
worker calls `communicate` of what was put into `requests`, then the server's `put_conn` where that was true,
and else `close`; at the end the pool asks for `rfile.closed` and shuts `socket`.
"""

from __future__ import annotations

import logging
import ssl
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from http import HTTPStatus

from cheroot.server import HTTPConnection
from cheroot.wsgi import Server as CherootServer

from repowatch.errors import RepowatchError
from repowatch.system.threads import Thread
from repowatch.web.access import AccessLog
from repowatch.web.http.connections import Limits, Loop, comes_whole
from repowatch.web.http.head import BadHead, Head
from repowatch.web.http.sockets import Listening
from repowatch.web.http.tls import identity_of
from repowatch.web.http.wire import Wire
from repowatch.web.info.counts import OTHER, Counts
from repowatch.web.kept import Kept
from repowatch.web.replies import Reply
from repowatch.web.request import Request, last_lines
from repowatch.web.rights.guard import Login
from repowatch.web.site import Site

log = logging.getLogger(__name__)

OTHERS = 32  # threads that changes never take
TELLERS = 2  # threads that answer who waited for news: a thousand at once are not to be felt by others
LOGINS = 2  # passwords that are checked at once: bcrypt computes
WAITING_LOGINS = 256  # one more is told 503

_READING = frozenset({"GET", "HEAD", "OPTIONS", "PROPFIND"})


class Server:
    """The listening sockets, the loop, and the workers."""

    def __init__(
        self,
        site: Site,
        *,
        listening: Sequence[Listening],
        name: str,
        limits: Limits,
        uploads: int = 256,
        grace: float = 30.0,
        context: Callable[[], ssl.SSLContext],
        access: AccessLog | None = None,
        counts: Counts,
    ) -> None:
        """`uploads` changes are in hand at once; on stop, requests get `grace` seconds to finish."""
        self._site = site
        self._grace = grace
        self._access = access
        self._counts = counts
        self._name = name
        self._slots = threading.BoundedSemaphore(uploads)
        self._logins = ThreadPoolExecutor(LOGINS, thread_name_prefix="login")
        self._tellers = ThreadPoolExecutor(TELLERS, thread_name_prefix="teller")
        self._waiting_logins = threading.BoundedSemaphore(WAITING_LOGINS)
        self._loop = Loop(
            listening,
            limits=limits,
            context=context,
            answer=self._answer,
            refuse=self._refuse,
            resume=self._resume,
            turned=access.flush if access else _nothing,
        )
        self._cheroot = _Cheroot(self._loop, threads=uploads + OTHERS, name=name)
        self._thread: Thread | None = None

    def start(self, *, failed: Callable[[str], None]) -> None:
        """Answer requests. `failed` is told when the loop has ended unexpectedly."""
        self._site.when_published(self._loop.stir)
        self._cheroot.requests.start()
        self._thread = Thread("server", self._loop.run, failed=failed)
        self._thread.start()

    def stop(self) -> None:
        """No new connections; requests in hand finish, or are cut when the time is over."""
        self._loop.stop()
        ends = time.monotonic() + self._grace
        while not self._loop.is_quiet and time.monotonic() < ends:
            time.sleep(0.01)
        if cut := self._loop.busy:
            log.warning("%d requests did not finish in %g seconds and are cut", cut, self._grace)
        self._loop.end()
        if self._thread:
            self._thread.join(5)
        self._logins.shutdown(cancel_futures=True)
        self._tellers.shutdown(cancel_futures=True)
        self._cheroot.requests.stop(5)
        self._loop.close()

    @property
    def turns(self) -> int:
        """How often the loop went around, which it does at least twice a second."""
        return self._loop.turns

    @property
    def connections(self) -> int:
        """How many are open."""
        return self._loop.connections

    # In the loop's thread.

    def _answer(self, wire: Wire, head: Head) -> None:
        if (kept := self._site.again(head)) and head.minor == 1 and not wire.closing:
            self._give_again(wire, head, kept)
            return
        if wire.owner is None:
            wire.owner = _Connection(self._cheroot, wire)
        connection: _Connection = wire.owner
        request = connection.request = Request(
            wire,
            head,
            name=self._name,
            certificate=connection.certificate,
            access=self._access,
            counts=self._counts,
        )
        try:
            verdict = self._site.admit(request.environ)
            if verdict is None:
                self._go_on(connection, request)
            elif isinstance(verdict, Login):
                self._log_in(connection, verdict)
            else:
                request.reply(verdict)
        except Exception:
            log.exception("unexpected error in %s %s", head.method, head.target)
            request.fail()

    def _give_again(self, wire: Wire, head: Head, kept: Kept) -> None:
        now = time.time()
        last = last_lines(int(now), self._name).encode("ascii")
        wire.outgoing.write(b"%b%b%b" % (kept.head, last, kept.content))
        self._counts.answered("GET", 200)
        if self._access:
            self._access.note(
                address=self._site.client(wire.address, head),
                user=None,
                request_line=f"GET {head.target} HTTP/1.1",
                status=200,
                sent=len(kept.content),
                referer=head.fields.get("referer"),
                agent=head.fields.get("user-agent"),
                at=now,
            )

    def _go_on(self, connection: _Connection, request: Request) -> None:
        """A request that may: answered here when it reads a file, else given to a worker."""
        if request.head.method in ("GET", "HEAD") and request.head.length == 0:
            body = self._site.quick(request.environ, request.start_response)
            if body is not None:
                request.deliver(body)
                return
            if request.head.method == "GET" and (wait := self._site.wait(request.environ)):
                self._prepare(connection, request, waits=True)
                self._loop.park(connection.wire, wait)
                return
        if not self._take_slot(request):
            request.reply(
                Reply(HTTPStatus.SERVICE_UNAVAILABLE, "too many uploads at once", [("Retry-After", "1")])
            )
            return
        self._loop.take(connection.wire)
        self._give_to_worker(connection, request)

    def _take_slot(self, request: Request) -> bool:
        """Who may wait, for a publication or for a body, is bounded well below the threads there are."""
        if request.head.method in _READING and comes_whole(request.head):
            return True
        if not self._slots.acquire(blocking=False):
            return False
        request.when_answered(self._slots.release)
        return True

    def _give_to_worker(self, connection: _Connection, request: Request) -> None:
        self._prepare(connection, request)
        self._cheroot.requests.put(connection)

    def _prepare(self, connection: _Connection, request: Request, *, waits: bool = False) -> None:
        """Say what the next worker does."""
        connection.waits = waits
        connection.task = lambda: request.respond_by(self._site)

    def _log_in(self, connection: _Connection, login: Login) -> None:
        request = connection.request
        if not self._waiting_logins.acquire(blocking=False):
            request.reply(
                Reply(HTTPStatus.SERVICE_UNAVAILABLE, "too many logins at once", [("Retry-After", "1")])
            )
            return
        self._loop.take(connection.wire)

        def check() -> None:
            try:
                verdict = login.check()
                if verdict is None and not self._take_slot(request):
                    busy = [("Retry-After", "1")]
                    verdict = Reply(HTTPStatus.SERVICE_UNAVAILABLE, "too many uploads at once", busy)
                if verdict is not None:
                    request.reply(verdict)
                elif request.head.method == "GET" and (wait := self._site.wait(request.environ)):
                    self._prepare(connection, request, waits=True)
                    connection.wire.wait = wait  # the loop parks it
                else:
                    self._give_to_worker(connection, request)
                    return
            except Exception:
                log.exception("unexpected error in a login")
                request.fail()
            finally:
                self._waiting_logins.release()
            self._loop.give_back(connection.wire)

        self._logins.submit(check)

    def _refuse(self, wire: Wire, error: BadHead) -> None:
        text = f"{error}\n".encode()
        head = (
            f"HTTP/1.1 {error.status.value} {error.status.phrase}\r\n"
            "Content-Type: text/plain; charset=utf-8\r\n"
            f"Content-Length: {len(text)}\r\nConnection: close\r\n"
        ).encode("latin-1")
        last = last_lines(int(time.time()), self._name).encode("ascii")
        wire.outgoing.write(head + last + text)
        self._counts.answered(OTHER, error.status.value)
        if self._access:
            self._access.note(
                address=wire.address,
                user=None,
                request_line="-",
                status=error.status.value,
                sent=len(text),
                referer=None,
                agent=None,
                at=time.time(),
            )

    def _resume(self, wire: Wire) -> None:
        """An answer, or its next block, has to be made: a worker's job."""
        if wire.owner.waits:
            self._tellers.submit(self._tell, wire)
        else:
            self._cheroot.requests.put(wire.owner)

    def _tell(self, wire: Wire) -> None:
        """A teller's turn."""
        try:
            wire.owner.communicate()
        finally:
            self._loop.give_back(wire)


class _Cheroot(CherootServer):
    """cheroot's server, of which the workers are used."""

    can_add_keepalive_connection = True
    protocol = "HTTP/1.1"

    def __init__(self, loop: Loop, *, threads: int, name: str) -> None:
        super().__init__(("127.0.0.1", 0), None, numthreads=threads, server_name=name)
        self._loop = loop
        self.software = name

    def put_conn(self, conn: _Connection) -> None:
        self._loop.give_back(conn.wire)

    def error_log(self, msg: str = "", level: int = logging.INFO, traceback: bool = False) -> None:
        log.log(level, "%s", msg.strip(), exc_info=traceback)


class _Unread:
    """What cheroot would read a connection through; it asks whether it is closed when workers are to end."""

    closed = False


class _Connection(HTTPConnection):
    """A connection as cheroot's workers and requests know it."""

    def __init__(self, server: _Cheroot, wire: Wire) -> None:
        super().__init__(
            server, wire.socket, lambda _sock, mode, _size: wire.outgoing if "w" in mode else _Unread()
        )
        self.wire = wire
        self.remote_addr = wire.address
        self.remote_port = wire.port
        self.certificate = identity_of(wire.socket) if isinstance(wire.socket, ssl.SSLSocket) else None
        self.request: Request
        self.task: Callable[[], None] = _nothing
        self.waits = False  # the answer waits for news first

    def communicate(self) -> bool:
        """A worker's turn: do what is to be done, send what the client takes, give the connection back."""
        task, self.task = self.task, _nothing  # once: what follows is to make the next block
        try:
            task()
            self.wire.outgoing.advance(self.wire.socket, make=True)
        except OSError as error:
            log.debug("the connection from %s ended: %s", self.remote_addr, error)
            self.request.cut()
        except RepowatchError as error:
            log.warning("%s; the connection is closed", error)
            self.request.cut()
        except Exception:
            log.exception("an answer to %s failed and is cut off", self.remote_addr)
            self.request.cut()
        return True

    def close(self) -> None:
        """A worker that fails calls this; only the loop closes sockets."""
        self.request.cut()
        self.server.put_conn(self)


def _nothing() -> None:
    pass
