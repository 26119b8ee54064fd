"""Reads the XML that a WebDAV request brings: bounded, without entities, not nested absurdly."""

from __future__ import annotations

from http import HTTPStatus
from wsgiref.types import WSGIEnvironment
from xml.etree.ElementTree import Element, ParseError

from defusedxml.common import DefusedXmlException  # type: ignore[import-untyped,unused-ignore]
from defusedxml.ElementTree import fromstring  # type: ignore[import-untyped,unused-ignore]

from repowatch.web.uploads import Refusal

MOST_BODY = 64 * 1024  # bytes, of a request that brings no file
MOST_DEPTH = 64  # elements inside each other


def read_body(environ: WSGIEnvironment) -> bytes:
    """The whole body of a request that brings no file. Raises Refusal (413), and BodyError."""
    length = int(environ.get("CONTENT_LENGTH") or 0)
    body: bytes = environ["wsgi.input"].read(MOST_BODY + 1) if length <= MOST_BODY else b""
    if max(length, len(body)) > MOST_BODY:
        text = f"the body is larger than {MOST_BODY} bytes, the most that is taken"
        raise Refusal(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, text)
    return body


def document(body: bytes) -> Element:
    """The root of a request's XML. Raises Refusal (400): malformed, nested absurdly, or with a DTD."""
    try:
        root: Element = fromstring(body, forbid_dtd=True)
    except DefusedXmlException as error:
        raise Refusal(HTTPStatus.BAD_REQUEST, "the body declares a DTD or entities") from error
    except (ParseError, ValueError, LookupError) as error:  # the last two: of odd encodings
        raise Refusal(HTTPStatus.BAD_REQUEST, f"the body is no XML: {error}") from error
    level, depth = [root], 0
    while level:
        depth += 1
        if depth > MOST_DEPTH:
            raise Refusal(HTTPStatus.BAD_REQUEST, f"more than {MOST_DEPTH} elements inside each other")
        level = [child for element in level for child in element]
    return root
