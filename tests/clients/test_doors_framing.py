"""Where a request ends, seen from outside: no request hides in another, and none that is cut is taken."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.clients.conftest import Corner
from tests.kit.daemon import wait_until
from tests.kit.rpms import make_rpm
from tests.kit.wire import Client, Cut, chunked, head

HELLO = "hello-1.0-1.noarch.rpm"

PUT = b"PUT {href}x HTTP/1.1\r\nHost: localhost\r\n"
SMUGGLED = b"DELETE {href}kept HTTP/1.1\r\nHost: localhost\r\n\r\n"
CHUNKED = PUT + b"Transfer-Encoding: chunked\r\n\r\n"

# What two servers could read in two ways, each with a request that hides in it.
AMBIGUOUS = {
    "two lengths": PUT + b"Content-Length: 5\r\nContent-Length: 6\r\n\r\nhello" + SMUGGLED,
    "two equal lengths": PUT + b"Content-Length: 5\r\nContent-Length: 5\r\n\r\nhello" + SMUGGLED,
    "a list of lengths": PUT + b"Content-Length: 5, 5\r\n\r\nhello" + SMUGGLED,
    "a length and a coding": PUT
    + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"
    + SMUGGLED,
    "a coding and a length": PUT
    + b"Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n"
    + SMUGGLED,
    "a length with a plus": PUT + b"Content-Length: +5\r\n\r\nhello" + SMUGGLED,
    "a length with an underscore": PUT + b"Content-Length: 1_0\r\n\r\nhellohello" + SMUGGLED,
    "a negative length": PUT + b"Content-Length: -5\r\n\r\n" + SMUGGLED,
    "a hexadecimal length": PUT + b"Content-Length: 0x5\r\n\r\nhello" + SMUGGLED,
    "an empty length": PUT + b"Content-Length: \r\n\r\n" + SMUGGLED,
    "a length in a name with an underscore": PUT + b"Content_Length: 5\r\n\r\nhello" + SMUGGLED,
    "a coding in a name with an underscore": PUT
    + b"Content-Length: 5\r\nTransfer_Encoding: chunked\r\n\r\n0\r\n\r\n"
    + SMUGGLED,
    "a blank before the colon": PUT + b"Content-Length : 5\r\n\r\nhello" + SMUGGLED,
    "a folded field": PUT + b"Transfer-Encoding:\r\n chunked\r\n\r\n0\r\n\r\n" + SMUGGLED,
    "chunked twice": PUT + b"Transfer-Encoding: chunked, chunked\r\n\r\n0\r\n\r\n" + SMUGGLED,
    "chunked before another coding": PUT
    + b"Transfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n"
    + SMUGGLED,
    "a coding that is nearly chunked": PUT + b"Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n" + SMUGGLED,
    "a bare LF after a field": PUT + b"X: y\nContent-Length: 5\r\n\r\nhello" + SMUGGLED,
    "a bare CR in a field": PUT + b"X: y\rContent-Length: 5\r\n\r\nhello" + SMUGGLED,
    "a NUL in a field": PUT + b"X: \x00\r\nContent-Length: 5\r\n\r\nhello" + SMUGGLED,
    "a negative chunk": CHUNKED + b"-5\r\nhello\r\n0\r\n\r\n" + SMUGGLED,
    "a chunk with a plus": CHUNKED + b"+5\r\nhello\r\n0\r\n\r\n" + SMUGGLED,
    "a chunk with 0x": CHUNKED + b"0x5\r\nhello\r\n0\r\n\r\n" + SMUGGLED,
    "a chunk with an underscore": CHUNKED + b"0_5\r\nhello\r\n0\r\n\r\n" + SMUGGLED,
    "a chunk without a size": CHUNKED + b"\r\nhello\r\n0\r\n\r\n" + SMUGGLED,
    "a chunk of 2^64 + 5 bytes": CHUNKED + b"10000000000000005\r\nhello\r\n0\r\n\r\n" + SMUGGLED,
    "a chunk that is longer than it says": CHUNKED + b"4\r\nhello\r\n0\r\n\r\n" + SMUGGLED,
    "a bare LF after the size of a chunk": CHUNKED + b"5\nhello\r\n0\r\n\r\n" + SMUGGLED,
    "a bare LF in an extension": CHUNKED + b"5;a\nb\r\nhello\r\n0\r\n\r\n" + SMUGGLED,
    "a trailer that is none": CHUNKED + b"5\r\nhello\r\n0\r\n" + SMUGGLED,
    "a trailer with a blank before the colon": CHUNKED + b"5\r\nhello\r\n0\r\nA : b\r\n\r\n" + SMUGGLED,
    "a space in the target": b"GET {href}a b HTTP/1.1\r\nHost: x\r\n\r\n" + SMUGGLED,
    "no Host": b"GET {href} HTTP/1.1\r\n\r\n" + SMUGGLED,
}


@pytest.mark.parametrize("stream", AMBIGUOUS.values(), ids=AMBIGUOUS)
def test_an_ambiguous_request_is_answered_400_and_nothing_behind_it_is_heard(
    corner: Corner, stream: bytes
) -> None:
    (corner.path / "kept").write_bytes(b"kept")
    with Client(corner.daemon.address) as client:
        client.send(stream.replace(b"{href}", corner.href.encode()))
        answer = client.answer()
        assert answer.status == 400
        assert answer.headers["Connection"] == "close"
        assert client.rest() == b""
    assert corner.files() == {"kept"}


def test_the_hidden_request_would_have_been_obeyed(corner: Corner) -> None:
    (corner.path / "kept").write_bytes(b"kept")
    good = PUT + b"Content-Length: 5\r\n\r\nhello" + SMUGGLED
    with Client(corner.daemon.address) as client:
        client.send(good.replace(b"{href}", corner.href.encode()))
        assert [client.answer().status for _ in range(2)] == [201, 204]
    assert corner.files() == {"x"}


def test_pipelined_requests_are_answered_in_order(corner: Corner) -> None:
    names = [f"{number}" for number in range(40)]
    for name in names:
        (corner.path / name).write_text(f"content of {name}")
    asked = []
    for name in names:  # answered in the loop and by workers, by turns
        asked += [head("GET", f"{corner.href}{name}"), head("PROPFIND", f"{corner.href}{name}", "Depth: 0")]
    with Client(corner.daemon.address) as client:
        client.send(b"".join(asked))
        for name in names:
            assert client.answer().text == f"content of {name}"
            assert f"{corner.href}{name}<" in client.answer().text


def test_requests_that_come_in_pieces_are_put_together(corner: Corner) -> None:
    put = head("PUT", f"{corner.href}x", "Content-Length: 5") + b"hello"
    body = b'<propfind xmlns="DAV:"><allprop/></propfind>'
    find = head("PROPFIND", f"{corner.href}x", "Depth: 0", f"Content-Length: {len(body)}") + body
    stream = put + find + head("GET", f"{corner.href}x")
    with Client(corner.daemon.address) as client:
        for start in range(0, len(stream), 7):
            client.send(stream[start : start + 7])
        assert client.answer().status == 201
        assert client.answer().status == 207
        assert client.answer().body == b"hello"


# -- uploads that end too early --------------------------------------------------------------------

PARTS = {"nothing": 0.0, "1/4": 0.25, "1/2": 0.5, "3/4": 0.75, "all but a byte": 1.0}


@pytest.mark.parametrize("part", PARTS.values(), ids=PARTS)
@pytest.mark.parametrize("end", ["FIN", "RST"])
@pytest.mark.parametrize("coding", ["length", "chunked"])
@pytest.mark.parametrize("name", [HELLO, "x"])
def test_an_upload_that_is_cut_leaves_nothing(
    corner: Corner, tmp_path: Path, name: str, coding: str, end: str, part: float
) -> None:
    content = make_rpm(tmp_path, files={"/usr/share/large": os.urandom(1 << 18)}).read_bytes()
    field = f"Content-Length: {len(content)}" if coding == "length" else "Transfer-Encoding: chunked"
    body = content if coding == "length" else chunked(content[:100], content[100:])
    with Client(corner.daemon.address) as client:
        client.send(head("PUT", f"{corner.href}{name}", field, "Expect: 100-continue"))
        assert client.answer().status == 100
        client.send(body[: min(int(len(body) * part), len(body) - 1)])
        if end == "RST":
            client.reset()
        else:
            client.finish()
            assert client.answer().status in (400, 422)
            assert client.rest() == b""
    wait_until(lambda: not os.listdir(corner.staging))
    assert corner.files() == set()
    assert corner.listed() == set()


@pytest.mark.parametrize("name", [HELLO, "x"])
def test_an_upload_that_is_cut_keeps_what_was_there(corner: Corner, tmp_path: Path, name: str) -> None:
    content = make_rpm(tmp_path).read_bytes()
    with Client(corner.daemon.address) as client:
        assert client.ask("PUT", f"{corner.href}{name}", body=content).status == 201
        client.send(head("PUT", f"{corner.href}{name}", f"Content-Length: {len(content)}") + content[:-1])
        client.finish()
        assert client.answer().status in (400, 422)
        with pytest.raises(Cut):
            client.answer()
    assert (corner.path / name).read_bytes() == content
