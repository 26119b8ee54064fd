"""Reads the Destination of a MOVE or COPY: a field in, a name in the same repository out (RFC 4918, 10.3)."""

from __future__ import annotations

from http import HTTPStatus
from urllib.parse import quote, urlsplit

from repowatch.web.names import BadName, path_of
from repowatch.web.uploads import Refusal

_DEFAULT_PORTS = {"http": ":80", "https": ":443"}
_IN_PROPER_FORM = (
    "%/?#:@[]!$&'()*+,;="  # what a URL is made of, beside letters, digits and what quote() leaves
)


def destination(field: str, *, host: str, url: str) -> str:
    """The location_href that a Destination names in the repository whose URL is `url`.

    `field` and `host` are as the request says them. The scheme is not compared: behind a proxy that speaks
    TLS the client's is another than ours. Raises Refusal: 400, 403 for the repository itself, 501 for what
    WsgiDAV would misread, 502 for another server or repository.
    """
    try:
        parts = urlsplit(quote(field.encode("latin-1"), safe=_IN_PROPER_FORM))
        path = path_of(parts.path)
        path.encode()
    except BadName as error:
        raise Refusal(HTTPStatus.BAD_REQUEST, f"Destination: {error}") from error
    except ValueError as error:
        raise Refusal(HTTPStatus.BAD_REQUEST, "Destination is no URL in UTF-8") from error
    if parts.query or parts.fragment:
        raise Refusal(HTTPStatus.BAD_REQUEST, "Destination has a query or a fragment; ? is to be sent as %3F")
    if parts.scheme not in ("", *_DEFAULT_PORTS) or not parts.path.startswith("/"):
        raise Refusal(HTTPStatus.BAD_REQUEST, "Destination is neither an http URL nor an absolute path")
    _refuse_other_server(parts.netloc.rpartition("@")[2], host, port=_DEFAULT_PORTS.get(parts.scheme, ""))
    if path.rstrip("/") == url.rstrip("/"):
        raise Refusal(HTTPStatus.FORBIDDEN, "Destination is a repository itself")
    if not path.startswith(url):
        raise Refusal(HTTPStatus.BAD_GATEWAY, f"Destination is not in this repository, which is at {url}")
    if ";" in path or "?" in path:
        raise Refusal(HTTPStatus.NOT_IMPLEMENTED, "names with ; or ? can not be moved or copied to")
    return path[len(url) :].strip("/")


def _refuse_other_server(authority: str, host: str, *, port: str) -> None:
    """`port` is what both may say or leave out."""
    if authority and authority.lower().removesuffix(port) != host.lower().removesuffix(port):
        raise Refusal(HTTPStatus.BAD_GATEWAY, f"Destination is on another server: {authority} is not {host}")
