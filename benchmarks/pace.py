"""Clients that ask for small files at a fixed pace, each in a process of its own."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from dataclasses import dataclass
from http.client import HTTPConnection
from multiprocessing import get_context

CLIENTS = 2
PACE = 200  # GETs in a second, of all clients together

Address = tuple[str, int]
Asked = Sequence[Future[list["Get"]]]


@dataclass(frozen=True, slots=True)
class Get:
    """A GET that was answered."""

    at: float  # on time.perf_counter, which is one clock for all processes of Linux
    seconds: float


class Clients:
    """Processes that wait to be told to ask."""

    def __init__(self, address: Address, paths: Sequence[str]) -> None:
        """`paths` are asked for in turns. The first GETs are here, to start everything."""
        self._address = address
        self._paths = paths
        self._pool = ProcessPoolExecutor(CLIENTS, mp_context=get_context("spawn"))
        answers(self.ask(1))

    def ask(self, seconds: float) -> Asked:
        """Begin to ask for so long, each client on one connection."""
        return [
            self._pool.submit(_ask, self._address, self._paths, seconds, client=client)
            for client in range(CLIENTS)
        ]

    def close(self) -> None:
        self._pool.shutdown()


def is_over(asked: Asked) -> bool:
    return all(client.done() for client in asked)


def answers(asked: Asked) -> list[Get]:
    """Wait for all that was asked. Raises what a client met."""
    return [each for client in asked for each in client.result()]


def _ask(address: Address, paths: Sequence[str], seconds: float, *, client: int) -> list[Get]:
    connection = HTTPConnection(*address, timeout=40)
    connection.connect()
    try:
        return list(_paced(connection, paths, seconds, client=client))
    finally:
        connection.close()


def _paced(connection: HTTPConnection, paths: Sequence[str], seconds: float, *, client: int) -> Iterable[Get]:
    """A GET that is due while the one before it is not answered counts from when it was due."""
    began = answered = time.perf_counter()
    for number in range(round(seconds * PACE / CLIENTS)):
        due = began + (number * CLIENTS + client) / PACE
        time.sleep(max(0.0, due - time.perf_counter()))
        at = due if answered > due else time.perf_counter()
        _get(connection, paths[number % len(paths)])
        answered = time.perf_counter()
        yield Get(at, answered - at)


def _get(connection: HTTPConnection, path: str) -> None:
    connection.request("GET", path)
    with connection.getresponse() as response:
        response.read()
    if response.status != 200:
        raise AssertionError(f"GET {path}: {response.status}")
