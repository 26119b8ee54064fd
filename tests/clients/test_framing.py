"""Where a request ends: over altered requests, nginx and h11 never frame one in another way than we do.

A request that two servers frame differently is how one smuggles another past the first of them. Each altered
request is followed by a marker; compared are the method, the target, the body, and where the request ends.
"""

from __future__ import annotations

import json
import re
import socket
import subprocess
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from random import Random

import h11
import pytest

from repowatch.web.http.body import Body, BodyError
from repowatch.web.http.head import BadHead, end_of_head, parse
from tests.kit.daemon import wait_until
from tests.kit.heads import altered

REQUESTS = 100_000
LEAST_COMPARED = 15_000  # that neither of two servers refuses: fewer, and the alterations prove too little
SEED = 9112
MARKER = b"GET /marker HTTP/1.1\r\nHost: repo.example.org:8080\r\nConnection: close\r\n\r\n"
CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
AT_ONCE = 128  # connections to nginx

# What we take and another refuses, and why we may.
H11_REFUSES = {
    "an empty line before the request, which RFC 9112 section 2.2 asks to skip": rb"\A\r\n",
    "blanks in chunk extensions (RFC 9112 section 7.1.1)": rb"\r\n[0-9A-Fa-f]+([ \t]+;|;[^\r]*[ \t])",
    "trailers about the body, which we throw away": rb"(?i)\r\n0[^\r]*\r\n(.*\r\n)*(transfer|content)-",
}
NGINX_REFUSES = {
    "a tab beside a value (RFC 9110 section 5.6.3)": rb"(?im)^(host|content-length|transfer-encoding):.*\t",
    "paths it can not decode, which `names` refuses": rb"\A\s*\S+ \S*%(00|(?![0-9A-Fa-f]{2}))",
    "paths above the root, which `names` refuses": rb"\A\s*\S+ \S*(%2e%2e|/\.\.)",
    "no resource, which the application answers": rb"\A\s*(TRACE |CONNECT |OPTIONS \* )",
    "a list in two fields, RFC 9110 section 5.3": rb"(?ims)^if-none-match:.*^if-none-match:",
}


@dataclass(frozen=True, slots=True)
class Taken:
    """What a server makes of the first request in a stream."""

    method: str
    target: str
    body: bytes
    end: int  # where the next request begins


@dataclass(frozen=True, slots=True)
class Refused:
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Waits:
    """For more bytes: the request ends after the marker."""


Verdict = Taken | Refused | Waits


def of_ours(stream: bytes) -> Verdict:
    end = end_of_head(bytearray(stream))
    if end < 0:
        return Waits()
    try:
        head = parse(stream[:end])
        body = Body(lambda size: b"", length=head.length, buffered=stream[end:])
        content = b"".join(iter(body.read1, b""))
    except BadHead as error:
        return Refused(str(error))
    except BodyError as error:
        return Waits() if "ended before" in str(error) else Refused(str(error))
    return Taken(head.method, head.target, content, len(stream) - len(body.leftover()))


def of_h11(stream: bytes) -> Verdict:
    connection = h11.Connection(h11.SERVER)
    connection.receive_data(stream)
    method = target = ""
    content = b""
    while True:
        try:
            event = connection.next_event()
        except h11.RemoteProtocolError as error:
            return Refused(str(error))
        match event:
            case h11.Request():
                method, target = event.method.decode(), event.target.decode()
            case h11.Data():
                content += event.data
            case h11.EndOfMessage():
                return Taken(method, _path(target), content, len(stream) - len(connection.trailing_data[0]))
            case _:
                return Waits()


def of_a_lax_one(stream: bytes) -> Verdict:
    """Of a server that takes what `int` takes and the last of two fields, as many did."""
    head, _, rest = stream.partition(b"\r\n\r\n")
    request_line, *lines = head.removeprefix(b"\r\n").decode("latin-1").split("\r\n")
    fields = {}
    for line in lines:
        name, _, value = line.partition(":")
        fields[name.strip().lower().replace("_", "-")] = value.strip()
    try:
        method, target, _ = request_line.split(" ")
        if "chunked" in fields.get("transfer-encoding", "").lower():
            content, rest = _lax_chunks(rest)
        else:
            length = int(fields.get("content-length", "0"))
            if length > len(rest):
                return Waits()
            content, rest = rest[:length], rest[length:]
    except ValueError as error:
        return Refused(str(error))
    return Taken(method, _path(target), content, len(stream) - len(rest))


def _lax_chunks(rest: bytes) -> tuple[bytes, bytes]:
    content = b""
    while True:
        line, _, rest = rest.partition(b"\r\n")
        size = int(line.split(b";")[0], 16)
        if size <= 0:
            return content, rest.partition(b"\r\n")[2]
        content += rest[:size]
        rest = rest[size + 2 :]


class Nginx:
    """What nginx makes of streams, as a proxy that hands on whole requests would; its log tells."""

    def __init__(self, directory: Path, port: int) -> None:
        self._log = directory / "framed.log"
        self._port = port

    def verdicts(self, streams: Sequence[bytes]) -> list[Verdict]:
        """In order; called once, since each stream is recognised by the address it comes from."""
        open_ones: deque[socket.socket] = deque()
        for number, stream in enumerate(streams):
            open_ones.append(self._send(number, stream))
            if len(open_ones) == AT_ONCE:
                _drain(open_ones.popleft())
        for each in open_ones:
            _drain(each)
        told = self._told()
        return [
            self._verdict(told.get(_address(number), []), stream) for number, stream in enumerate(streams)
        ]

    def _send(self, number: int, stream: bytes) -> socket.socket:
        client = socket.socket()
        client.settimeout(20)
        client.bind((_address(number), 0))
        client.connect(("127.0.0.1", self._port))
        client.sendall(stream)
        client.shutdown(socket.SHUT_WR)
        return client

    def _told(self) -> dict[str, list[dict[str, str]]]:
        told: dict[str, list[dict[str, str]]] = {}
        for line in self._log.read_bytes().decode("latin-1").split("\n")[:-1]:
            request = json.loads(line)
            told.setdefault(request["from"], []).append(request)
        return told

    def _verdict(self, told: list[dict[str, str]], stream: bytes) -> Verdict:
        if not told:
            return Waits()
        first = told[0]
        if first["status"] != "200":
            # An early end of the stream is answered with nothing, or with nothing more than 100 Continue.
            return Waits() if int(first["sent"]) <= len(CONTINUE) else Refused(first["status"])
        before = len(stream) - len(stream.lstrip(b"\r\n"))
        end = before + int(first["length"])
        if len(told) > 1 and (told[1]["method"], told[1]["target"]) == ("GET", "/marker"):
            assert stream[end:].lstrip(b"\r\n") == MARKER, "nginx counts other bytes than it reads"
        return Taken(first["method"], _path(first["target"]), first["body"].encode("latin-1"), end)


def _address(number: int) -> str:
    return f"127.{1 + (number >> 16)}.{number >> 8 & 255}.{number & 255}"


def _drain(client: socket.socket) -> None:
    with client:
        try:
            while client.recv(65536):
                pass
        except ConnectionResetError:
            pass  # it closed with bytes of ours unread, after a refusal


def _path(target: str) -> str:
    # h11 leaves an absolute form as it is, and nginx an empty path.
    path = re.sub("^(?i:https?)://[^/?]*", "", target)
    return f"/{path}" if path[:1] in ("", "?") else path


CONFIGURATION = """
daemon off;
master_process off;
pid {directory}/nginx.pid;
error_log {directory}/error.log crit;
events {{ worker_connections 1024; }}
http {{
    client_body_temp_path {directory}/body;
    proxy_temp_path {directory}/proxy;
    fastcgi_temp_path {directory}/fastcgi;
    uwsgi_temp_path {directory}/uwsgi;
    scgi_temp_path {directory}/scgi;
    log_format framed escape=json '{{"from":"$remote_addr","status":"$status","sent":"$bytes_sent",'
        '"length":"$request_length","method":"$request_method","target":"$request_uri","body":"$request_body"}}';
    access_log off;
    upstream behind {{ server unix:{directory}/behind; keepalive 256; }}
    server {{
        listen 127.0.0.1:{port} backlog=1024;
        access_log {directory}/framed.log framed;
        client_max_body_size 0;
        client_body_buffer_size 64k;
        lingering_close off;
        location / {{
            # $request_body is known only of a request that is handed on.
            proxy_pass http://behind;
            proxy_http_version 1.1;
            proxy_method GET;
            proxy_pass_request_headers off;
            proxy_pass_request_body off;
            proxy_set_header Connection "";
            proxy_set_header Content-Length "";
            proxy_ignore_client_abort on;
        }}
    }}
    server {{
        listen unix:{directory}/behind;
        keepalive_requests 1000000;
        return 200;
    }}
}}
"""


@contextmanager
def running_nginx(directory: Path) -> Iterator[Nginx]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    configuration = directory / "nginx.conf"
    configuration.write_text(CONFIGURATION.format(directory=directory, port=port))
    command = ["nginx", "-e", str(directory / "error.log"), "-p", str(directory), "-c", str(configuration)]
    process = subprocess.Popen(command)
    try:
        wait_until(lambda: process.poll() is not None or _answers(port))
        assert process.poll() is None, (directory / "error.log").read_text()
        yield Nginx(directory, port)
    finally:
        process.terminate()
        process.wait(20)


def _answers(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


@pytest.fixture(scope="module")
def streams() -> list[bytes]:
    """Distinct altered requests, each with a marker behind it."""
    random = Random(SEED)
    distinct: dict[bytes, None] = {}
    while len(distinct) < REQUESTS:
        distinct[altered(random) + MARKER] = None
    return list(distinct)


@pytest.fixture(scope="module")
def ours(streams: list[bytes]) -> list[Verdict]:
    return [of_ours(stream) for stream in streams]


@pytest.fixture(scope="module")
def h11s(streams: list[bytes]) -> list[Verdict]:
    return [of_h11(stream) for stream in streams]


@pytest.fixture(scope="module")
def nginxs(streams: list[bytes], tmp_path_factory: pytest.TempPathFactory) -> list[Verdict]:
    with running_nginx(tmp_path_factory.mktemp("nginx")) as nginx:
        return nginx.verdicts(streams)


@pytest.fixture(scope="module")
def lax_ones(streams: list[bytes]) -> list[Verdict]:
    return [of_a_lax_one(stream) for stream in streams]


def differences(one: Sequence[Verdict], other: Sequence[Verdict], streams: Sequence[bytes]) -> list[str]:
    """Of the streams that neither refuses, those that the two frame differently; they are no handful."""
    compared = [
        (stream, mine, yours)
        for stream, mine, yours in zip(streams, one, other, strict=True)
        if not isinstance(mine, Refused) and not isinstance(yours, Refused)
    ]
    assert len(compared) >= LEAST_COMPARED
    return [f"{stream!r}\n{mine}\n{yours}" for stream, mine, yours in compared if mine != yours]


def unexplained(
    ours: Sequence[Verdict],
    theirs: Sequence[Verdict],
    streams: Sequence[bytes],
    *,
    known: Mapping[str, bytes],
) -> list[str]:
    """What we take and they refuse for no known reason; every known one occurs."""
    patterns = [re.compile(pattern) for pattern in known.values()]
    occurred = set()
    unexplained = []
    for stream, mine, yours in zip(streams, ours, theirs, strict=True):
        if isinstance(mine, Taken) and isinstance(yours, Refused):
            reasons = {pattern for pattern in patterns if pattern.search(stream)}
            occurred |= reasons
            if not reasons:
                unexplained.append(f"{stream!r}\n{yours}")
    assert occurred == set(patterns)
    return unexplained


def test_nothing_is_framed_differently_from_h11(
    ours: list[Verdict], h11s: list[Verdict], streams: list[bytes]
) -> None:
    assert differences(ours, h11s, streams) == []
    assert unexplained(ours, h11s, streams, known=H11_REFUSES) == []


@pytest.mark.client("nginx")
def test_nothing_is_framed_differently_from_nginx(
    ours: list[Verdict], nginxs: list[Verdict], streams: list[bytes]
) -> None:
    assert differences(ours, nginxs, streams) == []
    assert unexplained(ours, nginxs, streams, known=NGINX_REFUSES) == []


def test_the_comparison_with_h11_convicts_a_lax_server(
    lax_ones: list[Verdict], h11s: list[Verdict], streams: list[bytes]
) -> None:
    assert len(differences(lax_ones, h11s, streams)) > 1000


@pytest.mark.client("nginx")
def test_the_comparison_with_nginx_convicts_a_lax_server(
    lax_ones: list[Verdict], nginxs: list[Verdict], streams: list[bytes]
) -> None:
    assert len(differences(lax_ones, nginxs, streams)) > 1000
