"""Requests and uploads are counted once each, by what became of them."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from repowatch.web.http.body import Body, BodyError
from repowatch.web.info.counts import OTHER, RESULTS, Counts


def nothing(*_: Any) -> Any:
    return nothing


def body_of(*pieces: bytes, length: int) -> Body:
    """A body of which the client sends these pieces, and ends the connection."""
    rest = list(pieces)
    return Body(lambda size: rest.pop(0) if rest else b"", length=length)


def send(counts: Counts, status: str, body: Body, *, read: bool = True) -> None:
    """One upload that is answered so."""
    with counts.upload({"wsgi.input": body}, nothing) as start:
        try:
            while read and body.read1(65536):
                pass
        except BodyError:
            pass
        start(status, [])


def counted(counts: Counts) -> dict[str, tuple[int, int]]:
    """Uploads and their bytes by result, where there are any."""
    now = counts.now()
    return {name: (now.uploads[name], now.upload_bytes[name]) for name in RESULTS if now.uploads[name]}


def test_requests_are_counted_by_method_and_code() -> None:
    counts = Counts()
    for method, code in (("GET", 200), ("GET", 200), ("PUT", 201), ("GET", 404)):
        counts.answered(method, code)
    assert counts.now().requests == {("GET", 200): 2, ("PUT", 201): 1, ("GET", 404): 1}


def test_methods_that_nobody_knows_are_one() -> None:
    counts = Counts()
    for number in range(1000):
        counts.answered(f"M{number}", 405)
    assert counts.now().requests == {(OTHER, 405): 1000}


def test_no_request_is_lost_between_threads() -> None:
    counts = Counts()

    def answer(_: int) -> None:
        for _ in range(2000):
            counts.answered("GET", 200)

    with ThreadPoolExecutor(8) as threads:
        list(threads.map(answer, range(8)))
    assert counts.now().requests == {("GET", 200): 16000}


@pytest.mark.parametrize(
    ("status", "result"),
    [
        ("201 Created", "done"),
        ("204 No Content", "done"),
        ("202 Accepted", "later"),
        ("422 Unprocessable Entity", "bad"),
        ("409 Conflict", "conflict"),
        ("412 Precondition Failed", "conflict"),
        ("413 Request Entity Too Large", "too_large"),
        ("507 Insufficient Storage", "no_space"),
        ("403 Forbidden", "refused"),
        ("500 Internal Server Error", "failed"),
        ("503 Service Unavailable", "failed"),
    ],
)
def test_an_upload_is_counted_by_its_answer(status: str, result: str) -> None:
    counts = Counts()
    send(counts, status, body_of(b"ab", b"cd", length=4))
    assert counted(counts) == {result: (1, 4)}


def test_an_upload_whose_client_went_away_is_cut() -> None:
    counts = Counts()
    send(counts, "400 Bad Request", body_of(b"ab", length=4))
    assert counted(counts) == {"cut": (1, 2)}


def test_an_upload_that_is_refused_before_its_body_was_read_brings_no_bytes() -> None:
    counts = Counts()
    send(counts, "400 Bad Request", body_of(b"ab", length=4), read=False)
    assert counted(counts) == {"bad": (1, 0)}


@pytest.mark.parametrize(("error", "result"), [(ConnectionResetError, "cut"), (KeyError, "failed")])
def test_an_upload_without_an_answer_is_counted_too(error: Callable[[], Exception], result: str) -> None:
    counts = Counts()
    with pytest.raises(Exception), counts.upload({"wsgi.input": body_of(length=0)}, nothing):  # noqa: B017
        raise error()
    assert counted(counts) == {result: (1, 0)}
    assert counts.now().in_hand == 0


def test_an_upload_is_in_hand_until_its_end() -> None:
    counts = Counts()
    with counts.upload({"wsgi.input": body_of(length=0)}, nothing) as start:
        assert counts.now().in_hand == 1
        start("201 Created", [])
        assert counted(counts) == {}
    assert counts.now().in_hand == 0
