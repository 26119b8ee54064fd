"""What of a connection is the body of a request, and what is no body at all."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from functools import partial
from http import HTTPStatus

import pytest
from hypothesis import given
from hypothesis import strategies as st

from repowatch.web.http.body import MOST_CHUNK_LINE, MOST_JOINED, MOST_TRAILERS, Body, BodyError

NEXT = b"GET /next HTTP/1.1\r\n\r\n"


class Wire:
    """A connection that gives out `content` in pieces of at most `step` bytes and then ends."""

    def __init__(self, content: bytes, *, step: int = 1 << 20) -> None:
        self.content = memoryview(content)
        self.step = step
        self.asked: list[int] = []

    def receive(self, size: int) -> bytes:
        assert size > 0
        self.asked.append(size)
        count = min(size, self.step)
        piece, self.content = bytes(self.content[:count]), self.content[count:]
        return piece


def chunked(*chunks: bytes, trailers: bytes = b"") -> bytes:
    return b"".join(b"%x\r\n%b\r\n" % (len(chunk), chunk) for chunk in chunks) + b"0\r\n" + trailers + b"\r\n"


def body(content: bytes, *, length: int | None = None, buffered: bytes = b"", step: int = 1 << 20) -> Body:
    return Body(Wire(content, step=step).receive, length=length, buffered=buffered)


def unexpected(size: int) -> bytes:
    raise AssertionError("the connection was read")


def pieces(read: Callable[[int], bytes], size: int) -> Iterator[bytes]:
    return iter(lambda: read(size), b"")


def refusal(read: Callable[[], object]) -> BodyError:
    with pytest.raises(BodyError) as caught:
        read()
    assert "\n" not in str(caught.value)
    return caught.value


def is_malformed(content: bytes) -> bool:
    """And not just cut short."""
    error = refusal(body(content).read)
    return error.status == HTTPStatus.BAD_REQUEST and "ended before" not in str(error)


def test_a_request_without_a_body_is_done_and_reads_nothing() -> None:
    empty = Body(unexpected, length=0, buffered=NEXT)
    assert empty.done
    assert (empty.read(), empty.read(5), empty.read1(5), empty.readline()) == (b"", b"", b"", b"")
    assert empty.leftover() == NEXT


@pytest.mark.parametrize("buffered", [b"", b"one", b"one two"])
def test_a_body_ends_after_its_length(buffered: bytes) -> None:
    here = body(b"one two"[len(buffered) :] + NEXT, length=7, buffered=buffered)
    assert here.read() == b"one two"
    assert here.done
    assert here.received == 7
    assert here.read() == b""


def test_what_was_buffered_beyond_the_end_is_left_over() -> None:
    here = Body(unexpected, length=7, buffered=b"one two" + NEXT)
    assert here.leftover() == b""
    assert here.read1(1 << 20) == b"one two"
    assert here.leftover() == NEXT


def test_a_body_with_a_length_is_received_to_its_end_and_no_further() -> None:
    wire = Wire(b"one two" + NEXT)
    here = Body(wire.receive, length=7)
    assert list(pieces(here.read1, 5)) == [b"one t", b"wo"]
    assert wire.asked == [5, 2]


def test_what_was_received_is_returned_as_it_is() -> None:
    block = bytes(1 << 20)
    assert Body(lambda size: block, length=1 << 30).read1(1 << 20) is block
    assert Body(lambda size: block, length=1 << 30).read(1 << 20) is block


@pytest.mark.parametrize("length", [7, None])
def test_read_gives_all_that_was_asked_for_and_read1_what_came(length: int | None) -> None:
    content = b"one two" if length else chunked(b"one two")
    assert list(pieces(body(content, length=length, step=2).read, 5)) == [b"one t", b"wo"]
    assert body(content, length=length, step=2).read(-1) == b"one two"
    assert b"".join(pieces(body(content, length=length, step=2).read1, 5)) == b"one two"
    assert body(b"one two", length=7, step=2).read1(5) == b"on"


@pytest.mark.parametrize("length", [8, None])
def test_lines_are_read(length: int | None) -> None:
    content = b"one\ntwo\n" if length else chunked(b"one", b"\ntw", b"o\n")
    assert body(content, length=length).readlines() == [b"one\n", b"two\n"]
    here = body(content, length=length)
    assert [here.readline(2), here.readline(), here.readline(9), here.readline()] == [
        b"on",
        b"e\n",
        b"two\n",
        b"",
    ]


@pytest.mark.parametrize("buffered", [b"", b"one "])
def test_a_body_that_ends_early_raises_and_goes_on_to_raise(buffered: bytes) -> None:
    here = body(b"two", length=8, buffered=buffered)
    assert refusal(here.read).status == HTTPStatus.BAD_REQUEST
    for read in (here.read, here.read1, here.readline, lambda: here.read(0)):
        assert "ended before" in str(refusal(read))
    assert not here.done
    assert here.leftover() == b""


def test_every_cut_of_a_chunked_body_raises() -> None:
    whole = chunked(b"one", b"two", trailers=b"A: b\r\n")
    for cut in range(len(whole)):
        here = body(whole[:cut])
        refusal(here.read)
        assert not here.done
    assert body(whole).read() == b"onetwo"


def test_trouble_with_the_connection_is_passed_on_and_ends_the_body() -> None:
    troubles = iter([TimeoutError("too slow")])

    def receive(size: int) -> bytes:
        raise next(troubles)

    here = Body(receive, length=5)
    for _ in range(2):
        with pytest.raises(TimeoutError, match="too slow"):
            here.read1()


@pytest.mark.parametrize("length", [8, None])
def test_the_client_is_told_once_and_before_the_first_byte_is_waited_for(length: int | None) -> None:
    events = []
    wire = Wire(b"one two!" if length else chunked(b"one", b"two"), step=2)

    def receive(size: int) -> bytes:
        events.append("receive")
        return wire.receive(size)

    here = Body(receive, length=length, before_first=lambda: events.append("continue"))
    assert events == []
    here.read()
    assert events[:2] == ["continue", "receive"]
    assert events.count("continue") == 1


@pytest.mark.parametrize(("length", "buffered"), [(3, b"one"), (None, chunked(b"one"))])
def test_the_client_is_not_told_when_everything_was_there(length: int | None, buffered: bytes) -> None:
    events: list[str] = []
    here = Body(unexpected, length=length, buffered=buffered, before_first=lambda: events.append("continue"))
    assert here.read() == b"one"
    assert here.done
    assert events == []


def test_a_chunked_body_is_done_when_its_trailers_were_read() -> None:
    here = body(chunked(b"one", trailers=b"A: b\r\n") + NEXT)
    assert here.read(3) == b"one"
    assert not here.done
    assert here.read(3) == b""
    assert here.done
    assert here.received == 3
    assert here.leftover() == NEXT


@pytest.mark.parametrize(
    "size", [b"5", b"05", b"0000000000000005", b"5;a", b"5;a=b", b'5;a="b;\\"c"', b"5 ; a = b ;c", b'5;a=""']
)
def test_the_size_of_a_chunk_is_hexadecimal_and_may_have_extensions(size: bytes) -> None:
    here = body(size + b"\r\nhello\r\n0;end\r\n\r\n")
    assert here.read() == b"hello"
    assert here.done


def test_the_digits_of_a_size_have_no_case() -> None:
    assert len(body(b"aA\r\n" + bytes(170) + b"\r\n0\r\n\r\n").read()) == 170


@pytest.mark.parametrize(
    "size",
    [
        *[b"", b" 5", b"5 ", b"5\t", b"+5", b"-5", b"0x5", b"1_0", b"5,5", b"5.", b"g", b"\xb2"],
        *[b"5\r", b"5\n", b"5\x00", b"00000000000000005", b"1000000000000000", b"ffffffffffffffff"],
        *[
            b"5;",
            b"5;;a",
            b"5;a=",
            b"5;=b",
            b'5;a="b',
            b"5;a\nb",
            b"5;a\rb",
            b"5;a=b c",
            b'5;a="\x00"',
            b"5;\xe9",
        ],
    ],
)
def test_any_other_size_is_refused(size: bytes) -> None:
    assert is_malformed(size + b"\r\nhello\r\n0\r\n\r\n")
    assert is_malformed(b"1\r\na\r\n" + size + b"\r\nhello\r\n0\r\n\r\n")


@pytest.mark.parametrize(
    "end", [b"", b"\n", b"\r", b"!\r\n", b"\r\r\n", b"\n\r\n", b" \r\n", b"\r\n\r\n", b"\r\n\n"]
)
def test_a_chunk_ends_exactly_where_it_says(end: bytes) -> None:
    assert is_malformed(b"5\r\nhello" + end + b"0\r\n\r\n")


@pytest.mark.parametrize(
    "end",
    [
        b"\n",
        b"\r",
        b"0\r\n",
        b"A b\r\n\r\n",
        b"A : b\r\n\r\n",
        b" A: b\r\n\r\n",
        b"A: b\n\r\n",
        b"A_: b\r\n\r\n",
    ],
)
def test_malformed_trailers_are_refused(end: bytes) -> None:
    assert is_malformed(b"0\r\n" + end + NEXT)


def test_trailers_are_thrown_away_whatever_they_say() -> None:
    here = body(
        chunked(b"one", trailers=b"Content-Length: 9\r\nTransfer-Encoding: gzip\r\nHost: b\r\n") + NEXT
    )
    assert here.read() == b"one"
    assert here.leftover() == NEXT


def test_the_lines_between_chunks_are_bounded() -> None:
    longest = b"5;" + b"a" * (MOST_CHUNK_LINE - 2)
    assert body(longest + b"\r\nhello\r\n0\r\n\r\n").read() == b"hello"
    assert "too long" in str(refusal(body(longest + b"a\r\nhello\r\n0\r\n\r\n").read))


def test_trailers_are_bounded() -> None:
    trailer = b"A: " + b"a" * (MOST_TRAILERS // 4 - 5) + b"\r\n"
    assert body(chunked(trailers=trailer * 4)).read() == b""
    assert "too long" in str(refusal(body(chunked(trailers=trailer * 4 + b"B: c\r\n")).read))


@pytest.mark.parametrize("endless", [b"5", b"5;a" + b"a" * 100, b"0\r\nA: b", b"0\r\nA: b\r\n"])
def test_what_never_ends_is_refused_before_it_fills_the_memory(endless: bytes) -> None:
    begun = Wire(endless)
    received = 0

    def receive(size: int) -> bytes:
        nonlocal received
        received += size
        return begun.receive(size) or endless[-6:] * (size // 6)

    refusal(Body(receive, length=None).read)
    assert received < 1 << 18


def test_lines_that_trickle_in_are_read_as_others() -> None:
    whole = chunked(b"one", b"two", trailers=b"A: b\r\n") + NEXT
    here = body(whole, step=1)
    assert here.read() == b"onetwo"
    assert here.done
    assert here.leftover() == b""


def test_a_huge_chunk_is_streamed() -> None:
    wire_size = 1 << 40
    block = bytes(1 << 20)
    asked = []

    def receive(size: int) -> bytes:
        asked.append(size)
        return block[:size]

    here = Body(receive, length=None, buffered=b"%x\r\n" % wire_size)
    assert {len(here.read1(1 << 20)) for _ in range(100)} == {1 << 20}
    assert set(asked) == {1 << 20}


def test_tiny_chunks_come_together() -> None:
    content = bytes(range(256)) * 16
    whole = chunked(*(content[at : at + 1] for at in range(len(content))))
    assert list(pieces(body(whole).read1, 1 << 20)) == [content]
    assert list(pieces(Body(unexpected, length=None, buffered=whole).read, 1000)) == [
        content[at : at + 1000] for at in range(0, len(content), 1000)
    ]


@pytest.mark.parametrize("length", [MOST_JOINED + 1, None])
def test_no_more_is_joined_than_memory_is_meant_for_it(length: int | None) -> None:
    begin = b"" if length else b"%x\r\n" % (2 * MOST_JOINED)
    block = memoryview(bytes(1 << 16))

    def here() -> Body:
        return Body(lambda size: bytes(block[:size]), length=length, buffered=begin)

    assert len(here().read(MOST_JOINED)) == MOST_JOINED
    for size in (-1, MOST_JOINED + 1):
        error = refusal(partial(here().read, size))
        assert error.status == HTTPStatus.REQUEST_ENTITY_TOO_LARGE


@given(
    content=st.binary(max_size=300),
    cuts=st.lists(st.integers(0, 300), max_size=12),
    has_length=st.booleans(),
    already=st.integers(0, 500),
    step=st.integers(1, 400),
    sizes=st.lists(
        st.tuples(st.sampled_from(["read", "read1", "readline"]), st.integers(1, 400)), min_size=1
    ),
    more=st.sampled_from([b"", NEXT]),
)
def test_the_content_is_the_same_however_it_is_cut_received_and_read(
    content: bytes,
    cuts: list[int],
    has_length: bool,
    already: int,
    step: int,
    sizes: list[tuple[str, int]],
    more: bytes,
) -> None:
    edges = sorted({0, len(content), *(cut for cut in cuts if cut < len(content))})
    chunks = (content[begin:end] for begin, end in itertools.pairwise(edges))
    framed = content if has_length else chunked(*chunks, trailers=b"A: b\r\n")
    stream = framed + more
    wire = Wire(stream[already:], step=step)
    here = Body(wire.receive, length=len(content) if has_length else None, buffered=stream[:already])
    taken = b""
    turn = 0
    while not here.done:
        way, size = sizes[turn % len(sizes)]
        piece = getattr(here, way)(size)
        assert len(piece) <= size
        assert piece or here.done
        taken += piece
        turn += 1
    assert taken == content
    assert here.received == len(content)
    assert here.leftover() + bytes(wire.content) == more
