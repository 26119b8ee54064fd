"""`repowatch status` asks by any kind of door, here of a small server that tells nothing but a status."""

from __future__ import annotations

import json
import socket
import socketserver
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from repowatch.asking import Door, ask, doors_of
from repowatch.config import Config, TlsConfig, parse_address
from repowatch.errors import RepowatchError
from tests.kit.certificates import Authority, Pair
from tests.kit.daemon import repowatch

STATUS = json.dumps({"version": "7.5", "repositories": []})


class _Handler(socketserver.StreamRequestHandler):
    answer = f"HTTP/1.1 200 OK\r\nContent-Length: {len(STATUS)}\r\nConnection: close\r\n\r\n{STATUS}"

    def handle(self) -> None:
        asked = self.rfile.readline()
        while self.rfile.readline().strip():
            pass
        answer = self.answer if asked == b"GET /-/api/v1/status HTTP/1.1\r\n" else "HTTP/1.1 404 no\r\n\r\n"
        self.wfile.write(answer.encode())


class _Stranger(_Handler):
    answer = "SSH-2.0-x\r\n"


@contextmanager
def serving(
    listening: socket.socket, handler: type[_Handler] = _Handler, *, pair: Pair | None = None
) -> Iterator[None]:
    server = socketserver.TCPServer(("", 0), handler, bind_and_activate=False)
    server.socket.close()
    server.socket = listening
    if pair is not None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(pair.certificate, pair.key)
        server.socket = context.wrap_socket(listening, server_side=True)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.fixture
def tcp() -> Iterator[tuple[socket.socket, int]]:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        yield listening, listening.getsockname()[1]


def test_a_unix_socket_is_asked(tmp_path: Path) -> None:
    path = str(tmp_path / "http.sock")
    listening = socket.socket(socket.AF_UNIX)
    listening.bind(path)
    listening.listen()
    with serving(listening):
        done = repowatch("status", "--json", "--url", f"unix:{path}")
    assert (done.returncode, done.stdout, done.stderr) == (0, STATUS, "")
    done = repowatch("status", "--url", f"unix:{path}")
    assert done.returncode == 1
    assert f"unix:{path} does not answer as repowatch does" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_daemon_that_listens_everywhere_is_asked_on_the_loopback(
    tmp_path: Path, tcp: tuple[socket.socket, int]
) -> None:
    listening, port = tcp
    path = tmp_path / "c.yaml"
    path.write_text(f"listen: 0.0.0.0:{port}\nrepositories: {{rpm: {{path: {tmp_path}/rpm}}}}")
    with serving(listening):
        assert repowatch("status", "--config", path).stdout == "repowatch 7.5\n"


def test_the_certificate_of_the_configuration_is_believed_and_no_other(
    tmp_path: Path, tcp: tuple[socket.socket, int]
) -> None:
    authority = Authority(tmp_path)
    own, other = authority.server("rpm.example.org"), authority.server("rpm.example.org")
    chain = tmp_path / "chain.pem"
    chain.write_text(own.certificate.read_text() + authority.certificate.read_text())
    listening, port = tcp
    config = Config(
        listen=(parse_address(f"127.0.0.1:{port}"),),
        tls=TlsConfig(certificate=str(chain), key=str(own.key)),
        repositories=(),
    )
    with serving(listening.dup(), pair=own):
        assert ask(doors_of(config)) == STATUS
    with (
        serving(listening.dup(), pair=other),
        pytest.raises(RepowatchError, match="certificate verify failed"),
    ):
        ask(doors_of(config))


def test_the_next_door_is_asked_when_one_does_not_answer(
    tmp_path: Path, tcp: tuple[socket.socket, int]
) -> None:
    listening, port = tcp
    with serving(listening):
        assert ask([Door(f"unix:{tmp_path}/none"), Door(f"http://127.0.0.1:{port}/")]) == STATUS


def test_another_server_is_told_from_ours(tcp: tuple[socket.socket, int]) -> None:
    listening, port = tcp
    with serving(listening, _Stranger), pytest.raises(RepowatchError, match="is it running"):
        ask([Door(f"http://127.0.0.1:{port}")])
