"""Places: paths, URLs and addresses, from text, or a ValueError that says what is wrong and what to do.

These are the values that a configuration without a file has as well.
"""

from __future__ import annotations

import ipaddress
import os
import re

from repowatch.config.settings import Address, TcpAddress, UnixAddress

PCHAR = r"A-Za-z0-9\-._~!$&'()*+,;=:@"  # RFC 3986, section 3.3, without percent-encoding
_RESERVED = frozenset({"healthz", "readyz", "metrics", "-"})
_SUN_PATH = 107  # bytes of a path in sockaddr_un, without its NUL: unix(7)


def parse_address(text: str) -> Address:
    """Return the address that `text` means. Raises ValueError in plain words.

    HOST:PORT, with IPv6 in brackets, may have http:// or https:// before it, which say whether TLS is
    spoken; unix:PATH is a socket in the file system.
    """
    if text.startswith("unix:"):
        return UnixAddress(_socket_path(printable(text.removeprefix("unix:"))))
    match = re.fullmatch(
        r"(?:(https?)://)?(?:\[([0-9A-Fa-f:.]+(?:%[\w.-]+)?)\]|([A-Za-z0-9._-]+)):([0-9]{1,5})",
        text,
        re.ASCII,
    )
    if match is None or int(match[4]) > 65535:
        forms = "127.0.0.1:8080, [::1]:8080, https://0.0.0.0:443 or unix:/run/repowatch/http.sock"
        raise ValueError(f"{shown(text)} is no address to listen on; write it like {forms}")
    host = match[2] or match[3]
    if match[2] or not re.search("[A-Za-z]", host):
        try:
            ipaddress.ip_address(host)
        except ValueError:
            raise ValueError(f"{shown(host)} is not an IP address; correct it, or write a name") from None
    return TcpAddress(host, int(match[4]), tls={"https": True, "http": False}.get(match[1]))


def _socket_path(text: str) -> str:
    path = absolute(text)
    if len(os.fsencode(path)) > _SUN_PATH:
        raise ValueError(f"{shown(text)} is too long for a socket; write at most {_SUN_PATH} bytes")
    return path


def absolute(text: str) -> str:
    if not os.path.isabs(text):
        raise ValueError(f"{shown(text)} is not absolute; begin it with /")
    return "/" + os.path.normpath(text).lstrip("/")


def directory(text: str) -> str:
    path = absolute(text)
    if "*" in text:
        raise ValueError("a pattern with * is not taken here; name one directory")
    if os.path.exists(text) and not os.path.isdir(text):
        raise ValueError(f"{shown(text)} is not a directory; name the directory of the packages")
    return path


def repository_name(text: str) -> str:
    if not text or text.startswith(".") or "/" in text:
        raise ValueError(f"{shown(text)} is empty, has a slash or begins with a dot; choose another name")
    return _not_reserved(text)


def url(text: str) -> str:
    if not re.fullmatch(rf"/(?:[{PCHAR}]+/)+", text):
        rule = "with letters, digits and - . _ ~ ! $ & ' ( ) * + , ; = : in each part"
        raise ValueError(f"{shown(text)} is not a path below /; write it like /rpm/, {rule}")
    if "/." in text:
        raise ValueError(f"{shown(text)} has a part that begins with a dot; such names are never served")
    _not_reserved(text.split("/")[1])
    return text


def _not_reserved(segment: str) -> str:
    if segment in _RESERVED or "@" in segment or segment.endswith(".repo"):
        rule = f"{', '.join(sorted(_RESERVED))}, anything with @ and anything that ends in .repo"
        raise ValueError(f"{shown(segment)} is reserved, as are {rule}; choose another")
    return segment


def printable(text: str) -> str:
    if not text.isprintable():
        raise ValueError(f"{shown(text)} has a character that can not be shown; leave it out")
    return text


def shown(text: str) -> str:
    """The text in backquotes for people: on one line, and not longer than a line."""
    short = "".join(char if char.isprintable() else repr(char)[1:-1] for char in text[:80])
    return f"`{short}`" if len(text) <= 80 else f"`{short}...`"
