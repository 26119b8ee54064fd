"""Counts requests and uploads for the metrics, in plain numbers: for any thread, in a microsecond."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any
from wsgiref.types import StartResponse, WSGIEnvironment

from repowatch.web.replies import Headers

OTHER = "other"  # the method of what is no request, or asks for what nobody knows

_METHODS = frozenset(
    {
        *("GET", "HEAD", "OPTIONS", "PUT", "DELETE", "MKCOL", "MOVE", "COPY"),
        *("PROPFIND", "PROPPATCH", "LOCK", "UNLOCK", "POST"),
    }
)

# What an upload may come to.
DONE, LATER, CUT, FAILED = "done", "later", "cut", "failed"
_RESULT_OF = {
    200: DONE,
    201: DONE,
    204: DONE,
    202: LATER,
    400: "bad",
    408: CUT,
    409: "conflict",
    412: "conflict",
    413: "too_large",
    422: "bad",
    423: "conflict",
    503: FAILED,
    507: "no_space",
}
REFUSED = "refused"  # for another reason
RESULTS = tuple(dict.fromkeys((*_RESULT_OF.values(), REFUSED)))


@dataclass(frozen=True, slots=True)
class Counted:
    """The numbers at one moment, since the start."""

    requests: Mapping[tuple[str, int], int]  # by method and status code
    uploads: Mapping[str, int]  # by result
    upload_bytes: Mapping[str, int]  # of content, by the result of the upload
    in_hand: int  # uploads whose answer is still to come


class Counts:
    """Keeps the numbers."""

    def __init__(self) -> None:
        self._changing = threading.Lock()  # held for no longer than it takes to add
        self._requests: dict[tuple[str, int], int] = {}
        self._uploads = dict.fromkeys(RESULTS, 0)
        self._upload_bytes = dict.fromkeys(RESULTS, 0)
        self._in_hand = 0

    def answered(self, method: str, code: int) -> None:
        """An answer goes out. Any method may be told: there are no more names than are known here."""
        key = (method if method in _METHODS else OTHER, code)
        with self._changing:
            self._requests[key] = self._requests.get(key, 0) + 1

    @contextlib.contextmanager
    def upload(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterator[StartResponse]:
        """Listen to the status of one upload; it is in hand until the end, and counted there."""
        said: list[int] = []

        def start(line: str, headers: Headers, exc_info: Any = None) -> Any:
            said.append(int(line[:3]))
            return start_response(line, headers, exc_info)

        with self._changing:
            self._in_hand += 1
        result = FAILED
        try:
            yield start
            result = _result(said[-1], environ["wsgi.input"]) if said else FAILED
        except OSError:
            result = CUT
            raise
        finally:
            with self._changing:
                self._in_hand -= 1
                self._uploads[result] += 1
                self._upload_bytes[result] += environ["wsgi.input"].received

    def now(self) -> Counted:
        with self._changing:
            return Counted(dict(self._requests), dict(self._uploads), dict(self._upload_bytes), self._in_hand)


def _result(code: int, body: Any) -> str:
    """What an answer means; `body` is the request's `web.body.Body`."""
    if code == 400 and body.touched and not body.done:
        return CUT  # the client went away, or sent what has no end
    return _RESULT_OF.get(code, REFUSED if code < 500 else FAILED)
