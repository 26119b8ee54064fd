"""Short answers in plain text or JSON."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any
from wsgiref.types import StartResponse

Headers = list[tuple[str, str]]


@dataclass(frozen=True, slots=True)
class Reply:
    """A short answer that was decided before the application is called."""

    status: HTTPStatus
    text: str
    headers: Headers = field(default_factory=list)

    def through(self, start_response: StartResponse) -> Iterable[bytes]:
        return plain(start_response, self.status, self.text, self.headers)


READING = ("GET", "HEAD")


def not_among(methods: Sequence[str], method: str, why: str) -> Reply | None:
    """The answer to a method that is none of these: 405, or what OPTIONS asks for; else None."""
    if method in methods:
        return None
    allow = [("Allow", ", ".join([*methods, "OPTIONS"]))]
    if method == "OPTIONS":
        return Reply(HTTPStatus.OK, "", allow)
    return Reply(HTTPStatus.METHOD_NOT_ALLOWED, why, allow)


_WITHOUT_BODY = frozenset({HTTPStatus.NO_CONTENT, HTTPStatus.NOT_MODIFIED})


def plain(
    start_response: StartResponse, status: HTTPStatus, text: str = "", headers: Headers | None = None
) -> Iterable[bytes]:
    """One line of text."""
    return _reply(start_response, status, f"{text}\n" if text else "", "text/plain; charset=utf-8", headers)


def page(start_response: StartResponse, body: bytes, headers: Headers | None = None) -> Iterable[bytes]:
    """A page of HTML."""
    return _reply(start_response, HTTPStatus.OK, body, "text/html; charset=utf-8", headers)


def json_of(value: Any) -> bytes:
    """A value as JSON, in ASCII."""
    return json.dumps(value, indent=1, ensure_ascii=True).encode("ascii") + b"\n"


def as_json(start_response: StartResponse, value: Any) -> Iterable[bytes]:
    """A value as JSON, or what `json_of` made of one; not to be kept by caches."""
    body = value if isinstance(value, bytes) else json_of(value)
    return _reply(start_response, HTTPStatus.OK, body, "application/json", [("Cache-Control", "no-store")])


def _reply(
    start_response: StartResponse,
    status: HTTPStatus,
    body: str | bytes,
    content_type: str,
    headers: Headers | None,
) -> Iterable[bytes]:
    data = body.encode("utf-8", "backslashreplace") if isinstance(body, str) else body
    fields = [*(headers or [])]
    if status in _WITHOUT_BODY:
        data = b""
    else:
        fields += [("Content-Type", content_type), ("Content-Length", str(len(data)))]
    start_response(f"{status.value} {status.phrase}", fields)
    return [data]
