"""Reads the head of a request, strictly (RFC 9112): bytes in, a `Head` or the refusal out.

Whatever two servers could read in two ways is refused, so that nobody in front of us or behind us takes a
request for something else. Where RFC 9112 lets a server mend a message, this one answers 400.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from http import HTTPStatus

from repowatch.errors import RepowatchError

MOST_HEAD = 32 * 1024  # bytes, with the blank line
MOST_TARGET = 8 * 1024  # bytes
MOST_FIELDS = 100
_MOST_REQUEST_LINE = 32 + MOST_TARGET + len("  HTTP/1.1")

_REQUEST_LINE = re.compile(r"([A-Z-]{1,32}) ([\x21-\x7e]+) HTTP/1\.([01])")
_METHOD = re.compile(r"[A-Z-]{1,32}")
_TARGET = re.compile(r"[\x21-\x7e]+")
_VERSION = re.compile(r"HTTP/[0-9]\.[0-9]")
# The `_` of RFC 9110's token is left out: `_` and `-` become the same name in a WSGI environment.
_FIELD = re.compile(r"([!#$%&'*+\-.^`|~0-9A-Za-z]++):[ \t]*+([^\x00-\x08\x0a-\x1f\x7f]*+)")
_ABSOLUTE = re.compile(r"(?i:https?)://([^/?]*+)(.*+)")
# Narrower than RFC 3986: no user, no percent-encoding, none of `!$&'()*+,;=`, which no name in use has.
_AUTHORITY = re.compile(r"(?:[0-9A-Za-z._~-]++|\[[0-9A-Fa-f:.]++\])(?::[0-9]{0,5})?")
_DIGITS = re.compile(r"[0-9]{1,19}")
_CODING = re.compile(r"([!#$%&'*+\-.^_`|~0-9A-Za-z]++)((?:[ \t]*+;[^,\"]*+)?)")

# With two of these, which one counts would be a guess.
_ONCE = frozenset(
    {
        "authorization",
        "content-length",
        "content-range",
        "content-type",
        "depth",
        "destination",
        "expect",
        "host",
        "if-modified-since",
        "if-range",
        "if-unmodified-since",
        "overwrite",
        "range",
    }
)


class BadHead(RepowatchError):
    """A head that is refused: `status` is the answer, the text is the reason in one line."""

    def __init__(self, status: HTTPStatus, text: str) -> None:
        super().__init__(text)
        self.status = status


@dataclass(frozen=True, slots=True)
class Head:
    """The head of one request, and what it says about the body and the connection."""

    method: str
    target: str
    """As it was sent, percent-encoded; of an absolute form the part after the authority."""
    minor: int
    """0 or 1, of HTTP/1.x."""
    fields: dict[str, str]
    """Lower-case names; repeated fields are joined with a comma (Cookie with a semicolon)."""
    length: int | None
    """Bytes of the body, 0 without one, None when it is chunked."""
    keep_alive: bool
    """Whether the client leaves the connection open for another request."""
    expects_continue: bool
    """Whether the client waits for 100 Continue before it sends a body."""


def end_of_head(buffer: bytearray, searched: int = 0) -> int:
    """The index after the blank line that ends the head, or -1 when it is not there yet.

    The first `searched` bytes were looked at before. Raises BadHead, 414 or 431, once the buffer is longer
    than a head may be.
    """
    end = buffer.find(b"\r\n\r\n", max(0, searched - 3))
    if end >= 0:
        return end + 4
    if len(buffer) > MOST_HEAD:
        if buffer.find(b"\n", 2, _MOST_REQUEST_LINE + 2) < 0:
            raise _target_too_long()
        raise _head_too_long()
    return -1


def parse(head: bytes) -> Head:
    """The request whose head, up to the blank line and with it, is given. Raises BadHead.

    One empty line before the request line is skipped (RFC 9112 section 2.2). An absolute-form target is
    accepted (section 3.2.2) when its scheme is http or https and its authority is the one in Host.
    The authority form of CONNECT is not: 400.
    """
    text = head.decode("latin-1")
    start = 2 if text.startswith("\r\n") else 0
    if not text.endswith("\r\n\r\n", start):
        raise _bad("the head does not end with an empty line")
    request_line, *lines = text[start:-4].split("\r\n")
    method, target, minor = _request_line(request_line)
    if len(head) > MOST_HEAD:
        raise _head_too_long()
    fields = parse_fields(lines)
    host = _host(fields, minor)
    if not target.startswith("/"):
        target = _other_form(method, target, host)
    length = _length(fields, minor)
    return Head(
        method,
        target,
        minor,
        fields,
        length,
        _keep_alive(fields, minor),
        _expects_continue(fields) and minor == 1 and length != 0,
    )


def parse_fields(lines: list[str]) -> dict[str, str]:
    """Header or trailer fields, of lines without their ends (RFC 9112 section 5). Raises BadHead."""
    if len(lines) > MOST_FIELDS:
        raise BadHead(
            HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, f"more than {MOST_FIELDS} header fields were sent"
        )
    fields: dict[str, str] = {}
    for number, line in enumerate(lines, 1):
        match = _FIELD.fullmatch(line)
        if match is None:
            # The line is not repeated in the text: it may hold a password, and the text goes into a log.
            raise _bad(f"header field {number} is malformed")
        name = match[1].lower()
        value = match[2].rstrip(" \t")
        fields[name] = value if name not in fields else _joined(name, fields[name], value)
    return fields


def _joined(name: str, before: str, value: str) -> str:
    if name in _ONCE:
        raise _bad(f"the header field {name} was sent more than once")
    return f"{before}; {value}" if name == "cookie" else f"{before}, {value}"


def _request_line(line: str) -> tuple[str, str, int]:
    match = _REQUEST_LINE.fullmatch(line)
    if match is None:
        raise _bad_request_line(line)
    method, target, minor = match.groups()
    if len(target) > MOST_TARGET:
        raise _target_too_long()
    if "#" in target:
        raise _bad("the request target has a fragment")
    return method, target, int(minor)


def _bad_request_line(line: str) -> BadHead:
    parts = line.split(" ")
    if len(parts) != 3:
        return _bad("the request line is not a method, a target and a version with one space between them")
    method, target, version = parts
    if not _METHOD.fullmatch(method):
        return _bad("the method is not one of upper-case letters")
    if len(target) > MOST_TARGET:
        return _target_too_long()
    if not _TARGET.fullmatch(target):
        return _bad("the request target is empty or has characters that must be percent-encoded")
    if _VERSION.fullmatch(version):
        return BadHead(HTTPStatus.HTTP_VERSION_NOT_SUPPORTED, "only HTTP/1.0 and HTTP/1.1 are spoken here")
    return _bad("the request line does not end with an HTTP version")


def _other_form(method: str, target: str, host: str | None) -> str:
    if target == "*" and method == "OPTIONS":
        return target
    match = _ABSOLUTE.fullmatch(target)
    if match is None:
        raise _bad("the request target does not begin with a slash")
    authority, rest = match.groups()
    if not _AUTHORITY.fullmatch(authority):
        raise _bad("the authority in the request target is malformed")
    if host is not None and authority.lower() != host.lower():
        raise _bad("the request target and the header field host name different servers")
    return rest if rest.startswith("/") else f"/{rest}"


def _host(fields: dict[str, str], minor: int) -> str | None:
    host = fields.get("host")
    if host is None:
        if minor == 1:
            raise _bad("the header field host is missing")
    elif not _AUTHORITY.fullmatch(host):
        raise _bad("the header field host is malformed")
    return host


def _length(fields: dict[str, str], minor: int) -> int | None:
    # RFC 9112 section 6.3, without its ways to go on after a mistake.
    content_length = fields.get("content-length")
    coding = fields.get("transfer-encoding")
    if coding is not None:
        if content_length is not None:
            raise _bad("content-length and transfer-encoding were both sent")
        if minor == 0:
            raise _bad("transfer-encoding was sent in HTTP/1.0")
        _check_coding(coding)
        return None
    if content_length is None:
        return 0
    if not _DIGITS.fullmatch(content_length) or (length := int(content_length)) >= 2**63:
        raise _bad("content-length is not a number of bytes")
    return length


def _check_coding(value: str) -> None:
    if value.lower() == "chunked":
        return
    names = []
    for element in value.split(","):
        match = _CODING.fullmatch(element.strip(" \t"))
        if match is None or (match[2] and match[1].lower() == "chunked"):
            raise _bad("transfer-encoding is malformed")
        names.append(match[1].lower())
    if names.count("chunked") != 1 or names[-1] != "chunked":
        raise _bad("transfer-encoding does not end with chunked, once")
    raise BadHead(HTTPStatus.NOT_IMPLEMENTED, "the only transfer coding known here is chunked")


def _keep_alive(fields: dict[str, str], minor: int) -> bool:
    connection = fields.get("connection")
    if connection is None:
        return minor == 1
    options = {option.strip(" \t") for option in connection.lower().split(",")}
    return "close" not in options and (minor == 1 or "keep-alive" in options)


def _expects_continue(fields: dict[str, str]) -> bool:
    expect = fields.get("expect")
    if expect is None:
        return False
    if expect.lower() != "100-continue":
        raise BadHead(HTTPStatus.EXPECTATION_FAILED, "the only expectation known here is 100-continue")
    return True


def _bad(text: str) -> BadHead:
    return BadHead(HTTPStatus.BAD_REQUEST, text)


def _head_too_long() -> BadHead:
    return BadHead(
        HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, f"the head is longer than {MOST_HEAD // 1024} KiB"
    )


def _target_too_long() -> BadHead:
    return BadHead(
        HTTPStatus.REQUEST_URI_TOO_LONG, f"the request target is longer than {MOST_TARGET // 1024} KiB"
    )
