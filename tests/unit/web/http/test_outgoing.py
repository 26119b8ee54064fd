"""What is still to be sent: over a pair of sockets, one of which reads when the test says so."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from repowatch.web.http.outgoing import AT_ONCE, JOINED, FilePart, Outgoing, Sent, ShortFileError

Pair = tuple[socket.socket, socket.socket]


@pytest.fixture
def pair() -> Iterator[Pair]:
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    theirs.setblocking(False)
    with ours, theirs:
        yield ours, theirs


def everything(outgoing: Outgoing, pair: Pair, *, make: bool = True) -> bytes:
    """Send all, while the other side reads."""
    received = bytearray()
    while True:
        outcome = outgoing.advance(pair[0], make=make)
        try:
            while data := pair[1].recv(1 << 20):
                received += data
        except BlockingIOError:
            pass
        if outcome is Sent.ALL:
            return bytes(received)
        assert outcome in (Sent.BLOCKED, Sent.MORE)


def opened(path: Path, content: bytes) -> int:
    path.write_bytes(content)
    return os.open(path, os.O_RDONLY)


@pytest.mark.parametrize("size", [0, 1, JOINED - 1, JOINED, JOINED + 1, 5 * AT_ONCE + 3])
def test_a_head_and_a_file_arrive_whole_and_in_order(tmp_path: Path, pair: Pair, size: int) -> None:
    content = os.urandom(size)
    outgoing = Outgoing()
    outgoing.write(b"head")
    outgoing.write_file(FilePart(opened(tmp_path / "f", content), 0, size))
    outgoing.write(b"tail")
    assert everything(outgoing, pair) == b"head" + content + b"tail"
    assert outgoing.sent == size + 8


def test_a_small_file_goes_with_its_head_in_one_packet(tmp_path: Path) -> None:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours, theirs:
        outgoing = Outgoing()
        outgoing.write(b"head")
        outgoing.write_file(FilePart(opened(tmp_path / "f", b"content"), 0, 7))
        assert outgoing.advance(ours, make=False) is Sent.ALL
        assert theirs.recv(100) == b"headcontent"


def test_parts_of_a_file_are_sent_from_where_they_begin(tmp_path: Path, pair: Pair) -> None:
    content = bytes(range(256)) * 1024
    descriptor = opened(tmp_path / "f", content)
    outgoing = Outgoing()
    outgoing.write_file(FilePart(descriptor, 10, 20))
    outgoing.write_file(FilePart(descriptor, 100, 100 + 2 * JOINED))
    assert everything(outgoing, pair) == content[10:20] + content[100 : 100 + 2 * JOINED]


def test_a_client_that_does_not_read_blocks_and_one_that_reads_goes_on(pair: Pair) -> None:
    outgoing = Outgoing()
    outgoing.write(bytes(4 * AT_ONCE))
    while (outcome := outgoing.advance(pair[0], make=False)) is Sent.MORE:
        pass
    assert outcome is Sent.BLOCKED
    before = outgoing.sent
    assert outgoing.advance(pair[0], make=False) is Sent.BLOCKED
    assert outgoing.sent == before
    assert everything(outgoing, pair) == bytes(4 * AT_ONCE)


def test_one_turn_sends_a_bounded_amount(tmp_path: Path, pair: Pair) -> None:
    """Others have their turn, however fast one client reads."""
    outgoing = Outgoing()
    pair[0].setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 16 * AT_ONCE)
    outgoing.write_file(FilePart(opened(tmp_path / "f", bytes(8 * AT_ONCE)), 0, 8 * AT_ONCE))
    assert outgoing.advance(pair[0], make=False) in (Sent.MORE, Sent.BLOCKED)
    assert outgoing.sent <= 2 * AT_ONCE


def test_blocks_are_made_only_where_that_may_take_time(pair: Pair) -> None:
    made = []

    def blocks() -> Iterator[bytes]:
        for each in (b"one", b"", b"two"):
            made.append(each)
            yield each

    outgoing = Outgoing()
    outgoing.write(b"head|")
    outgoing.write_blocks(blocks(), chunked=False)
    assert outgoing.advance(pair[0], make=False) is Sent.MAKE
    assert made == []
    assert everything(outgoing, pair) == b"head|onetwo"


def test_chunked_blocks_are_framed_and_ended(pair: Pair) -> None:
    outgoing = Outgoing()
    outgoing.write_blocks(iter([b"x" * 17, b"", b"y"]), chunked=True)
    assert everything(outgoing, pair) == b"11\r\n" + b"x" * 17 + b"\r\n1\r\ny\r\n0\r\n\r\n"


@pytest.mark.parametrize("size", [10, 3 * JOINED])
def test_a_file_that_became_shorter_is_no_answer(tmp_path: Path, pair: Pair, size: int) -> None:
    descriptor = opened(tmp_path / "f", bytes(size - 5))
    outgoing = Outgoing()
    outgoing.write_file(FilePart(descriptor, 0, size))
    with pytest.raises(ShortFileError, match=f"ended at byte {size - 5} while bytes up to {size}"):
        everything(outgoing, pair)


@pytest.mark.parametrize("given_up", [False, True])
def test_what_it_came_from_is_closed_once(pair: Pair, given_up: bool) -> None:
    closed: list[str] = []
    outgoing = Outgoing()
    outgoing.write(b"x")
    outgoing.when_done(lambda: closed.append("closed"))
    assert closed == []
    if given_up:
        outgoing.give_up()
        assert not outgoing
    everything(outgoing, pair)
    outgoing.give_up()
    assert closed == ["closed"]


def test_a_client_that_is_gone_is_told_by_an_error(pair: Pair) -> None:
    pair[1].close()
    outgoing = Outgoing()
    outgoing.write(b"x")
    with pytest.raises(OSError, match="Broken pipe"):
        outgoing.advance(pair[0], make=False)
