"""What `server` relies on in cheroot beyond its documentation: a release that changes it fails here."""

from __future__ import annotations

import inspect
import queue
import socket
from collections.abc import Iterator

import pytest
from cheroot.server import HTTPConnection, HTTPServer
from cheroot.workers.threadpool import ThreadPool, WorkerThread
from cheroot.wsgi import Server


class _Recording(Server):
    """Tells what its workers do."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), None, numthreads=2)
        self.told: queue.SimpleQueue[tuple[str, object]] = queue.SimpleQueue()

    def put_conn(self, conn: object) -> None:
        self.told.put(("put", conn))

    def error_log(self, msg: str = "", level: int = 20, traceback: bool = False) -> None:
        self.told.put(("log", msg))


class _Work:
    """What is put into the pool."""

    remote_addr = "192.0.2.1"
    remote_port = 1

    def __init__(self, server: _Recording, result: bool | BaseException) -> None:
        self._server = server
        self._result = result

    def communicate(self) -> bool:
        self._server.told.put(("communicate", self))
        if isinstance(self._result, BaseException):
            raise self._result
        return self._result

    def close(self) -> None:
        self._server.told.put(("close", self))


@pytest.fixture
def server() -> Iterator[_Recording]:
    server = _Recording()
    server.requests.start()
    yield server
    server.requests.stop(5)


def test_a_worker_puts_a_connection_back_that_goes_on(server: _Recording) -> None:
    work = _Work(server, True)
    server.requests.put(work)
    assert [server.told.get(timeout=5) for _ in range(2)] == [("communicate", work), ("put", work)]


@pytest.mark.parametrize("result", [False, ValueError("no"), ConnectionResetError("gone")])
def test_a_worker_closes_one_that_does_not_and_lives_on(
    server: _Recording, result: bool | BaseException
) -> None:
    for _ in range(4):  # more than there are workers
        work = _Work(server, result)
        server.requests.put(work)
        told = [server.told.get(timeout=5)]
        while told[-1][0] != "close":
            told.append(server.told.get(timeout=5))
        assert told[0] == ("communicate", work)
        assert told[-1] == ("close", work)


def test_a_pool_that_stops_asks_what_is_closed_and_shuts_its_socket() -> None:
    source = inspect.getsource(ThreadPool)
    assert "conn.rfile.closed" in source
    assert "conn.socket.shutdown" in source


def test_a_worker_asks_the_server_for_what_we_give_it() -> None:
    source = inspect.getsource(WorkerThread)
    for asked in (
        "self.server.requests.get()",
        "conn.communicate()",
        "self.server.put_conn(conn)",
        "conn.close()",
    ):
        assert asked in source, f"cheroot's worker no longer says {asked}: read repowatch/web/server.py again"


def test_a_connection_is_made_from_a_socket_and_a_function_that_makes_files() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        made: list[str] = []

        def makefile(sock: socket.socket, mode: str, size: int) -> object:
            made.append(mode)
            return object()

        HTTPConnection(HTTPServer(("127.0.0.1", 0), None), ours, makefile)
        assert made == ["rb", "wb"]
