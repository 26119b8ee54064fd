"""Crowds that say nothing, or little, or do not read: they take no thread, and others are served."""

from __future__ import annotations

import contextlib
import os
import resource
import ssl
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.kit import daemon as kit
from tests.kit.certificates import Authority
from tests.kit.daemon import Daemon, wait_until
from tests.kit.wire import Client, as_shipped, head

CROWD = 1000
LARGE = 16 << 20  # bytes of the file that slow readers ask for
UNREAD = 4096  # bytes that the kernel takes for a client that does not read
BODIES = 400  # clients whose body does not come: more than there are threads
TRICKLE_EVERY = 0.1  # seconds between two bytes of a client
LEAD = b"\xed\xab\xee\xdb\x03\x00\x00\x00\x00\x01"  # with which a package begins

CONFIGURATION = """
{tls}
limits: {{{limits}}}
repositories:
  rpm: {{path: {tree}}}
"""

# The daemon with two of its constants made small, which are many seconds and not for anyone to configure.
HURRIED = (
    "import sys; from repowatch.web.http import connections, wire; "
    "connections.WINDOW = connections.HANDSHAKE = wire.WINDOW = 1.0; "
    "from repowatch.cli import main; sys.exit(main())"
)


@dataclass(frozen=True, slots=True)
class Door:
    """A daemon, and how to speak to it."""

    daemon: Daemon
    context: ssl.SSLContext | None
    tree: Path
    at_rest: int = 0  # sockets that the daemon has when nobody is connected

    def connect(self, *, receive_buffer: int | None = None) -> Client:
        return Client(self.daemon.address, context=self.context, receive_buffer=receive_buffer)

    def silent(self) -> Client:
        """A client that has connected, and does not even shake hands."""
        return Client(self.daemon.address)

    def ask(self, method: str, path: str, *fields: str, body: bytes = b"") -> int:
        """The status of an answer, on a connection of its own."""
        with self.connect() as client:
            return client.ask(method, path, *fields, body=body).status

    @property
    def connections(self) -> int:
        """How many connections the daemon has."""
        return _sockets(self.daemon.pid) - self.at_rest

    @property
    def threads(self) -> int:
        return len(os.listdir(f"/proc/{self.daemon.pid}/task"))


def _sockets(pid: int) -> int:
    count = 0
    for each in os.scandir(f"/proc/{pid}/fd"):
        with contextlib.suppress(FileNotFoundError):
            count += os.readlink(each.path).startswith("socket:")
    return count


@contextlib.contextmanager
def a_door(scratch: Path, *, tls: bool, limits: str) -> Iterator[Door]:
    tree = scratch / "rpm"
    tree.mkdir()
    (tree / "small").write_bytes(b"small")
    with open(tree / "large", "wb") as large:
        large.truncate(LARGE)
    context, lines = None, ""
    if tls:
        authority = Authority(scratch)
        pair = authority.server()
        context = authority.client_context()
        lines = f"tls: {{certificate: {pair.certificate}, key: {pair.key}}}"
    text = CONFIGURATION.format(tls=lines, limits=limits, tree=tree)
    with Daemon(scratch=scratch / "scratch", configuration=text) as daemon:
        yield Door(daemon, context, tree, at_rest=_sockets(daemon.pid))


@pytest.fixture(scope="module", autouse=True)
def descriptors() -> Iterator[None]:
    """Enough of them for a crowd."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.fixture(scope="module", params=[False, True], ids=["plain", "TLS"])
def door(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Door]:
    with a_door(tmp_path_factory.mktemp("door"), tls=request.param, limits="head_time: 60s") as door:
        yield door


@pytest.fixture(scope="module", params=[False, True], ids=["plain", "TLS"])
def hurried(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Door]:
    """A door where everything is soon overdue."""
    scratch = tmp_path_factory.mktemp("hurried")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(kit, "COMMAND", (sys.executable, "-c", HURRIED))
        with a_door(scratch, tls=request.param, limits="head_time: 0.5s, idle: 1s") as door:
            yield door


@pytest.fixture(scope="module")
def narrow(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Door]:
    """A door for 50 connections and 2 uploads."""
    limits = "connections: 50, uploads: 2"
    with a_door(tmp_path_factory.mktemp("narrow"), tls=False, limits=limits) as door:
        yield door


class Crowd:
    """Clients that keep a server waiting, from `enter` until the end of the context."""

    def __init__(self) -> None:
        self._clients = contextlib.ExitStack()
        self._trickling: list[Client] = []
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._trickle)

    def __enter__(self) -> Crowd:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()
        self._clients.close()

    def enter(self, client: Client, *, says: bytes = b"", trickles: bool = False) -> None:
        self._clients.enter_context(client)
        client.send(says)
        if trickles:
            self._trickling.append(client)

    def _trickle(self) -> None:
        while not self._over.wait(TRICKLE_EVERY):
            for client in list(self._trickling):
                with contextlib.suppress(OSError):
                    client.send(b"x")


def fill(crowd: Crowd, door: Door) -> None:
    """Let a third come of each: who reads nothing of a large answer, who trickles, who is silent."""
    for _ in range(CROWD // 3):
        crowd.enter(door.connect(receive_buffer=UNREAD), says=head("GET", "/rpm/large"))
    for _ in range(CROWD // 3):
        crowd.enter(door.connect(), says=b"GET /", trickles=True)
    for _ in range(CROWD - 2 * (CROWD // 3)):
        crowd.enter(door.silent())


def serves(door: Door, name: str) -> None:
    """Assert that each kind of request is answered, on old and new connections."""
    with door.connect() as client:
        for number in range(3):
            assert client.ask("GET", "/rpm/small").body == b"small"
            assert client.ask("PUT", f"/rpm/{name}{number}", body=b"hello").status == 201
            assert client.ask("PROPFIND", "/rpm/small", "Depth: 0").status == 207
            assert door.ask("GET", "/healthz") == 200


def test_a_crowd_takes_no_thread_and_others_are_served(door: Door) -> None:
    serves(door, "before")
    threads = door.threads
    with Crowd() as crowd:
        fill(crowd, door)
        wait_until(lambda: door.connections >= CROWD)
        serves(door, "meanwhile")
        assert door.connections >= CROWD
        assert door.threads <= threads + 2  # that shake hands, and are made when they are first needed


def test_ten_trickling_clients_block_cheroot_as_shipped(tmp_path: Path) -> None:
    (tmp_path / "small").write_bytes(b"small")
    with as_shipped(tmp_path) as (_, address), Crowd() as crowd:
        with Client(address) as client:
            assert client.ask("GET", "/small").status == 200
        for _ in range(10):
            crowd.enter(Client(address), says=b"GET /", trickles=True)
        with Client(address) as client:
            client.socket.settimeout(2)
            with pytest.raises(TimeoutError):
                client.ask("GET", "/small")


def test_bodies_that_do_not_come_keep_nobody_from_reading(door: Door) -> None:
    with Crowd() as crowd:
        for _ in range(BODIES):
            crowd.enter(door.connect(), says=head("PROPFIND", "/rpm/", "Depth: 0", "Content-Length: 100"))
        assert door.ask("GET", "/rpm/small") == 200
        assert door.ask("GET", "/healthz") == 200
        assert door.ask("GET", "/rpm/") == 200
        assert door.ask("PROPFIND", "/rpm/small", "Depth: 0") == 207
    wait_until(lambda: door.ask("PUT", "/rpm/after", body=b"hello") in (201, 204))


# -- what is overdue -----------------------------------------------------------------------------


def test_a_head_that_does_not_come_in_time_is_answered_408(hurried: Door) -> None:
    with hurried.connect() as client:
        client.send(head("GET", "/rpm/small")[:-2])
        answer = client.answer()
        assert answer.status == 408
        assert answer.headers["Connection"] == "close"
        assert client.rest() == b""


def test_a_head_that_trickles_is_answered_408_all_the_same(hurried: Door) -> None:
    with hurried.connect() as client, Crowd() as crowd:
        crowd.enter(client, says=b"GET /", trickles=True)
        assert client.answer().status == 408


def test_a_connection_that_says_nothing_is_closed(hurried: Door) -> None:
    with hurried.silent() as client:
        assert client.rest() == b""


def test_a_connection_that_rests_is_closed_without_an_answer(hurried: Door) -> None:
    with hurried.connect() as client:
        assert client.ask("GET", "/rpm/small").status == 200
        assert client.rest() == b""


def test_a_beginning_that_trickles_is_ended(hurried: Door) -> None:
    """On plain connections it is a bad head, on TLS a handshake that does not come to its end."""
    with hurried.silent() as client, Crowd() as crowd:
        crowd.enter(client, says=b"\x16\x03\x01\x40\x00", trickles=True)
        assert hurried.context is None or client.rest() == b""
        assert hurried.context or client.answer().status == 408


@pytest.mark.parametrize("trickles", [False, True], ids=["not at all", "a byte at a time"])
@pytest.mark.parametrize("name", ["slow", "slow.rpm"])
def test_a_body_that_comes_too_slowly_is_refused(hurried: Door, name: str, trickles: bool) -> None:
    put = head("PUT", f"/rpm/{name}", "Content-Length: 100000")
    with hurried.connect() as client, Crowd() as crowd:
        crowd.enter(client, says=put + LEAD, trickles=trickles)
        answer = client.answer()
        assert answer.status == 408
        assert answer.headers["Connection"] == "close"
    assert not (hurried.tree / name).exists()
    assert os.listdir(hurried.tree / ".repowatch" / "staging") == []


def test_a_body_that_comes_fast_enough_is_taken_however_long_it_takes(hurried: Door) -> None:
    with hurried.connect() as client:
        client.send(head("PUT", "/rpm/steady", "Content-Length: 40000"))
        for _ in range(20):
            client.send(bytes(2000))
            time.sleep(TRICKLE_EVERY)  # its pace
        assert client.answer().status == 201


def test_a_reader_that_reads_nothing_is_cut_off(hurried: Door) -> None:
    wait_until(lambda: hurried.connections == 0)
    with hurried.connect(receive_buffer=UNREAD) as client:
        client.send(head("GET", "/rpm/large"))
        wait_until(lambda: hurried.connections == 1)
        wait_until(lambda: hurried.connections == 0)
        assert len(client.rest()) < LARGE


def test_a_slow_reader_that_is_fast_enough_gets_all(hurried: Door) -> None:
    with hurried.connect(receive_buffer=1 << 16) as client:
        client.send(head("GET", "/rpm/large", "Connection: close"))
        received = 0
        for _ in range(22):
            received += len(client.socket.recv(1 << 16))
            time.sleep(TRICKLE_EVERY)  # its pace
        assert received < LARGE
        assert received + len(client.rest()) > LARGE


# -- bounds --------------------------------------------------------------------------------------


def test_new_connections_push_out_those_that_are_silent_for_the_longest(narrow: Door) -> None:
    with contextlib.ExitStack() as stack:
        silent = [stack.enter_context(narrow.silent()) for _ in range(60)]
        assert silent[0].rest() == b""
        for _ in range(10):
            assert narrow.ask("GET", "/rpm/small") == 200
        assert narrow.connections <= 50
        assert silent[-1].ask("GET", "/rpm/small").status == 200


def test_new_connections_push_out_the_oldest_reader_where_nobody_is_silent(narrow: Door) -> None:
    with contextlib.ExitStack() as stack:
        readers = []
        for _ in range(60):
            readers.append(stack.enter_context(narrow.connect(receive_buffer=1 << 16)))
            readers[-1].send(head("GET", "/rpm/large"))
        for _ in range(10):
            assert narrow.ask("GET", "/rpm/small") == 200
        assert narrow.connections <= 50
        assert len(readers[0].rest()) < LARGE
        assert readers[-1].answer().status == 200


def test_uploads_beyond_the_limit_are_told_to_come_again_and_reading_goes_on(narrow: Door) -> None:
    with narrow.connect() as one, narrow.connect() as other, narrow.connect() as third:
        for number, client in enumerate((one, other)):
            client.send(head("PUT", f"/rpm/{number}", "Content-Length: 5", "Expect: 100-continue"))
            assert client.answer().status == 100
        answer = third.ask("PUT", "/rpm/third", body=b"hello")
        assert answer.status == 503
        assert int(answer.headers["Retry-After"]) > 0
        assert third.ask("GET", "/rpm/small").status == 200
        assert third.ask("PROPFIND", "/rpm/", "Depth: 1").status == 207
        assert narrow.ask("GET", "/healthz") == 200
        for client in (one, other):
            client.send(b"hello")
            assert client.answer().status == 201
        assert third.ask("PUT", "/rpm/third", body=b"hello").status == 201


# -- a file that becomes shorter while it is sent ---------------------------------------------------


def test_a_file_truncated_while_it_is_sent_ends_the_connection(door: Door) -> None:
    path = door.tree / "shrinks"
    with open(path, "wb") as file:
        file.truncate(LARGE)
    with door.connect(receive_buffer=1 << 16) as client:
        client.send(head("GET", "/rpm/shrinks"))
        assert client.socket.recv(100).startswith(b"HTTP/1.1 200 OK\r\n")
        os.truncate(path, LARGE // 16)
        assert len(client.rest()) < LARGE
