"""Stop and restart under load: what was answered with success is there, and nothing half taken for whole."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import ssl
import subprocess
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

import pytest

from repowatch.web.http.connections import Limits, Loop
from repowatch.web.http.head import Head
from repowatch.web.http.sockets import listen_tcp
from repowatch.web.http.wire import Wire
from tests.kit.certificates import Authority
from tests.kit.daemon import Daemon, repowatch, wait_until
from tests.kit.metadata import locations
from tests.kit.rpms import make_rpm
from tests.kit.wire import Client, Cut, as_shipped, head

HELLO = "hello-1.0-1.noarch.rpm"
SIZE = 1 << 20  # bytes
SUCCESS = range(200, 300)

RESTARTS = 5
UPLOADERS = 8
READERS = 8
BETWEEN = 2  # uploads that succeed before the next restart
PACE = 0.02  # seconds from one request of a client to its next, or it would spin while the daemon is away


def configured(scratch: Path, *, stop: str, tls: str = "") -> Daemon:
    """A daemon for one repository, called rpm."""
    tree = scratch / "rpm"
    tree.mkdir(exist_ok=True)
    text = f"{tls}\nlimits: {{stop: {stop}}}\nrepositories:\n  rpm: {{path: {tree}}}\n"
    return Daemon(scratch=scratch / "scratch", configuration=text)


def staged(scratch: Path) -> list[str]:
    return os.listdir(scratch / "rpm" / ".repowatch" / "staging")


def is_closed(address: tuple[str, int]) -> bool:
    """Whether nobody listens there any more."""
    with socket.socket() as probe:
        return probe.connect_ex(address) != 0


def content_of(name: str, scratch: Path) -> bytes:
    """A megabyte: a package, or no package."""
    random = Random(name).randbytes(SIZE)
    return make_rpm(scratch, files={"/usr/share/x": random}).read_bytes() if name == HELLO else random


@contextlib.contextmanager
def half_sent(daemon: Daemon, content: bytes, name: str, context: ssl.SSLContext | None) -> Iterator[Client]:
    """A client in the middle of an upload that the daemon has begun to take."""
    with Client(daemon.address, context=context) as client:
        client.send(head("PUT", f"/rpm/{name}", f"Content-Length: {len(content)}", "Expect: 100-continue"))
        assert client.answer().status == 100
        client.send(content[: len(content) // 2])
        yield client


@pytest.fixture(params=[False, True], ids=["plain", "TLS"])
def tls(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[str, ssl.SSLContext | None]:
    """Lines of the configuration, and what a client connects with."""
    if not request.param:
        return "", None
    authority = Authority(tmp_path)
    pair = authority.server()
    return f"tls: {{certificate: {pair.certificate}, key: {pair.key}}}", authority.client_context()


def test_uploads_in_hand_finish_when_the_daemon_is_stopped(
    tmp_path: Path, tls: tuple[str, ssl.SSLContext | None]
) -> None:
    lines, context = tls
    contents = {name: content_of(name, tmp_path) for name in (HELLO, "x", "y")}
    with configured(tmp_path, stop="30s", tls=lines) as daemon, contextlib.ExitStack() as stack:
        clients = {
            name: stack.enter_context(half_sent(daemon, content, name, context))
            for name, content in contents.items()
        }
        daemon.signal(signal.SIGTERM)
        wait_until(lambda: is_closed(daemon.address))
        for name, client in clients.items():
            client.send(contents[name][len(contents[name]) // 2 :])
        for client in clients.values():
            assert client.answer().status == 201
            assert client.rest() == b""
        assert daemon.wait() == 0
    for name, content in contents.items():
        assert (tmp_path / "rpm" / name).read_bytes() == content
    assert repowatch("verify", tmp_path / "rpm").returncode == 0


@pytest.mark.parametrize("name", [HELLO, "x"])
def test_an_upload_that_does_not_finish_in_time_is_cut_without_success(
    tmp_path: Path, tls: tuple[str, ssl.SSLContext | None], name: str
) -> None:
    lines, context = tls
    content = content_of(name, tmp_path)
    with configured(tmp_path, stop="0.5s", tls=lines) as daemon:
        with half_sent(daemon, content, name, context) as client:
            daemon.signal(signal.SIGTERM)
            assert daemon.wait() == 0
            with contextlib.suppress(Cut):
                assert client.answer().status not in SUCCESS
        assert not (tmp_path / "rpm" / name).exists()
        assert staged(tmp_path) == []
        daemon.start()
        if not lines:
            assert daemon.get(f"/rpm/{name}").status == 404
            assert locations(daemon, "rpm") == set()


def test_who_was_accepted_just_before_a_stop_is_still_answered(
    tmp_path: Path, tls: tuple[str, ssl.SSLContext | None]
) -> None:
    lines, context = tls
    with configured(tmp_path, stop="30s", tls=lines) as daemon, contextlib.ExitStack() as stack:
        (tmp_path / "rpm" / "x").write_bytes(b"whole")
        newcomer = stack.enter_context(socket.create_connection(daemon.address, timeout=20))
        with Client(daemon.address, context=context) as later:  # accepted in order, so the first one is in
            later.send(head("GET", "/rpm/x"))
            assert later.answer().status == 200
            daemon.signal(signal.SIGTERM)
            wait_until(lambda: is_closed(daemon.address))
            assert later.rest() == b""  # it had its answer, and may ask whoever comes next
        if context:
            newcomer = stack.enter_context(context.wrap_socket(newcomer, server_hostname="localhost"))
        newcomer.sendall(head("GET", "/rpm/x"))
        received = b""
        while block := newcomer.recv(65536):
            received += block
        assert received.startswith(b"HTTP/1.1 200 ") and received.endswith(b"whole")
        assert daemon.wait() == 0


def test_cheroot_as_shipped_answers_a_cut_upload_with_success(tmp_path: Path) -> None:
    with as_shipped(tmp_path) as (process, address), Client(address) as client:
        client.send(head("PUT", "/x", f"Content-Length: {SIZE}") + bytes(SIZE // 2))
        wait_until((tmp_path / "x").exists)
        process.terminate()
        assert client.answer().status in SUCCESS
    assert (tmp_path / "x").stat().st_size < SIZE


def test_whoever_reads_from_a_tls_connection_that_is_cut_never_gets_what_was_not_decrypted(
    tmp_path: Path,
) -> None:
    authority = Authority(tmp_path)
    pair = authority.server()
    server_context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server_context.load_cert_chain(pair.certificate, pair.key)
    [listening] = listen_tcp("127.0.0.1", 0, tls=True)
    taken: list[Wire] = []

    def take(wire: Wire, _: Head) -> None:
        loop.take(wire)
        taken.append(wire)

    loop = Loop(
        [listening],
        limits=Limits(),
        context=lambda: server_context,
        answer=take,
        refuse=lambda wire, error: None,
        resume=lambda wire: None,
        turned=lambda: None,
    )
    thread = threading.Thread(target=loop.run)
    thread.start()
    try:
        address = ("127.0.0.1", listening.socket.getsockname()[1])
        with Client(address, context=authority.client_context()) as client:
            client.send(head("PUT", "/x", "Content-Length: 5"))
            wait_until(lambda: taken)
            client.send(b"hello")
            loop.end()
            thread.join()
            [wire] = taken
            wire.begin_body()
            assert wire.receive(1000) in (b"hello", b"")
            wire.close()
    finally:
        loop.end()
        listening.socket.close()


# -- restarts under load ---------------------------------------------------------------------------


@dataclass(slots=True)
class Load:
    """Clients that upload and read, whether the daemon is there or not, until it is over."""

    daemon: Daemon
    scratch: Path
    large: bytes
    stored: dict[str, bytes] = field(default_factory=dict)  # by the names that were answered with success
    read: int = 0
    cut: int = 0  # uploads that were not answered with success
    over: threading.Event = field(default_factory=threading.Event)

    def upload(self, number: int) -> None:
        """Send one file after another by curl, every other one too slowly to be done before a restart."""
        random = Random(number)
        count = 0
        while not self.over.wait(PACE):
            count += 1
            name = f"{number}-{count}"
            if number % 2:
                file = make_rpm(self.scratch / "in", f"p{name}", files={"/x": random.randbytes(100_000)})
            else:
                file = self.scratch / "in" / name
                file.write_bytes(random.randbytes(100_000))
            slowly = ("--limit-rate", "40k") if count % 2 else ()
            if put_by_curl(file, f"{self.daemon.url}rpm/{file.name}", *slowly) in SUCCESS:
                self.stored[file.name] = file.read_bytes()
            else:
                self.cut += 1

    def fetch(self) -> None:
        """Read a large file over and over: it comes whole, or the connection breaks."""
        while not self.over.wait(PACE):
            with contextlib.suppress(OSError, Cut), Client(self.daemon.address) as client:
                answer = client.ask("GET", "/rpm/large")
                assert answer.status == 200
                assert answer.body == self.large
                self.read += 1


def put_by_curl(file: Path, url: str, *options: str) -> int:
    """Upload; the status, 0 without a whole answer."""
    command = ["curl", "--disable", "--silent", "--max-time", "30", "-o", os.devnull, *options]
    done = subprocess.run(
        [*command, "-w", "%{http_code}", "-T", str(file), url], capture_output=True, text=True, check=False
    )
    return int(done.stdout) if done.returncode == 0 else 0


@pytest.mark.client("curl")
def test_restarts_under_load_lose_nothing_that_was_answered(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    large = Random(0).randbytes(SIZE)
    with configured(tmp_path, stop="0.5s") as daemon, ThreadPoolExecutor(UPLOADERS + READERS) as pool:
        (tmp_path / "rpm" / "large").write_bytes(large)
        load = Load(daemon, tmp_path, large)
        working = [pool.submit(load.upload, number) for number in range(UPLOADERS)]
        working += [pool.submit(load.fetch) for _ in range(READERS)]
        try:
            for _ in range(RESTARTS):
                enough = len(load.stored) + BETWEEN
                wait_until(lambda enough=enough: len(load.stored) >= enough, deadline=30)  # type: ignore[misc]
                assert daemon.terminate() == 0
                daemon.start()
        finally:
            load.over.set()
        for each in working:
            each.result()
        assert load.cut
        assert load.read
        packages = {name for name in load.stored if name.endswith(".rpm")}
        assert packages
        assert packages <= locations(daemon, "rpm")
        for name, content in load.stored.items():
            assert daemon.get(f"/rpm/{name}").body == content
        whole = {path.name: path.read_bytes() for path in (tmp_path / "in").iterdir()} | {"large": large}
        for path in (tmp_path / "rpm").iterdir():
            assert path.is_dir() or path.read_bytes() == whole[path.name]
        assert staged(tmp_path) == []
        assert daemon.terminate() == 0
    assert repowatch("verify", tmp_path / "rpm").returncode == 0
