"""The door to cheroot: sockets, threads, and an orderly end.

Waiting uploads hold a thread each, so their number is bounded well below that of all threads: whatever
waits for a publication, there are threads left for everybody else.
"""

from __future__ import annotations

import logging
import os
import re
import threading
from collections.abc import Iterable, Iterator
from http import HTTPStatus
from typing import Any
from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

from cheroot.wsgi import Server as CherootServer

from repowatch.system.threads import Thread
from repowatch.web.replies import plain

log = logging.getLogger(__name__)

UPLOADS = 256  # changes in hand at once; one more is told 503 and may come back
OTHERS = 32  # threads that changes never take
CLOSING = 35  # seconds that requests in hand get on stop: an upload waits 30 s for its publication

_READING = frozenset({"GET", "HEAD", "OPTIONS", "PROPFIND"})


class Server:
    """One listening socket and its threads."""

    def __init__(self, application: WSGIApplication, *, host: str, port: int, name: str) -> None:
        self._slots = threading.BoundedSemaphore(UPLOADS)
        self._application = application
        self._server = CherootServer(
            (host, port),
            self._admitted,
            numthreads=UPLOADS + OTHERS,
            server_name=name,
            request_queue_size=1024,
            timeout=60,
            shutdown_timeout=CLOSING,
        )
        setattr(self._server, "error_log", _log)  # noqa: B010 - cheroot's own extension point, untyped
        self._thread: Thread | None = None

    def bind(self) -> tuple[str, int]:
        """Take the address; requests are answered after `start`. The real host and port. Raises OSError."""
        try:
            self._server.prepare()
        except OSError as error:
            # cheroot puts what the kernel said into the middle of a text of its own.
            if number := re.search(r"\[Errno (\d+)\]", str(error)):
                raise OSError(int(number[1]), os.strerror(int(number[1]))) from error
            raise
        host, port = self._server.bind_addr[:2]
        return host, port

    def start(self, *, failed: Any) -> None:
        self._thread = Thread("server", self._server.serve, failed=failed)
        self._thread.start()

    def stop(self) -> None:
        """No new connections; requests in hand finish."""
        self._server.stop()
        if self._thread:
            self._thread.join(CLOSING)

    def _admitted(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        if environ["REQUEST_METHOD"] in _READING:
            return self._application(environ, start_response)
        return self._in_a_slot(environ, start_response)

    def _in_a_slot(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterator[bytes]:
        if not self._slots.acquire(blocking=False):
            headers = [("Retry-After", "1"), ("Connection", "close")]
            yield from plain(
                start_response, HTTPStatus.SERVICE_UNAVAILABLE, "too many uploads at once", headers
            )
            return
        try:
            yield from self._application(environ, start_response)
        finally:
            self._slots.release()


def _log(message: str = "", level: int = logging.INFO, traceback: bool = False) -> None:
    log.log(level, "%s", message.strip(), exc_info=traceback)
