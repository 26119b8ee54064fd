"""Requests that were altered where servers have been fooled before, the same ones for the same seed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from random import Random


@dataclass(frozen=True, slots=True)
class Sent:
    """A request in the parts that are altered one by one; each part has its own line end."""

    line: bytes
    fields: tuple[bytes, ...]
    body: tuple[bytes, ...] = ()
    end: bytes = b"\r\n"

    @property
    def whole(self) -> bytes:
        return b"".join((self.line, *self.fields, self.end, *self.body))


HOST = b"Host: repo.example.org:8080\r\n"
AGENT = b"User-Agent: libdnf (Fedora Linux 39; server; Linux.x86_64)\r\n"
CURL = b"User-Agent: curl/8.4.0\r\n"
CHUNKED = b"Transfer-Encoding: chunked\r\n"
CHUNKS = (b"6\r\n", b"first ", b"\r\n", b"a\r\n", b"second one", b"\r\n", b"0\r\n", b"\r\n")

# Tables, which one entry a line would stretch over pages.
# fmt: off
USUAL = (
    Sent(b"GET /rpm/repodata/repomd.xml HTTP/1.1\r\n", (HOST, AGENT, b"Accept: */*\r\n")),
    Sent(b"GET /rpm/a.rpm HTTP/1.1\r\n", (HOST, b"Range: bytes=0-9\r\n", b"Connection: keep-alive\r\n")),
    Sent(b"HEAD /rpm/a.rpm HTTP/1.0\r\n", (HOST, b"Connection: Keep-Alive\r\n")),
    Sent(b"GET http://repo.example.org:8080/rpm/?a=b HTTP/1.1\r\n", (HOST, AGENT)),
    Sent(b"MOVE /rpm/a HTTP/1.1\r\n", (HOST, b"Destination: /rpm/b\r\n", b"Overwrite: F\r\n")),
    Sent(b"PUT /rpm/a.rpm HTTP/1.1\r\n", (HOST, CURL, b"Content-Length: 12\r\n"), (b"hello there\n",)),
    Sent(b"PUT /rpm/a.rpm HTTP/1.0\r\n", (CURL, b"Content-Length: 12\r\n"), (b"hello there\n",)),
    Sent(b"PUT /rpm/a.rpm HTTP/1.1\r\n", (HOST, CURL, CHUNKED), CHUNKS),
    Sent(b"PUT /rpm/a.rpm HTTP/1.1\r\n", (HOST, CURL, CHUNKED, b"Expect: 100-continue\r\n"), CHUNKS),
    Sent(
        b"PUT /rpm/a.rpm HTTP/1.1\r\n",
        (HOST, CHUNKED, b"Trailer: A\r\n"),
        (b"C;name=value\r\n", b"hello there\n", b"\r\n", b"0\r\n", b"A: b\r\n", b"\r\n"),
    ),
    Sent(
        b"PROPFIND /rpm/ HTTP/1.1\r\n",
        (HOST, b"Depth: 1\r\n", b"Content-Type: text/xml\r\n", b"Content-Length: 40\r\n"),
        (b'<propfind xmlns="DAV:"><allprop/></prop>',),
    ),
)

# Bytes that one server or another takes for a blank, a line end, a digit, a sign or nothing at all.
ODD = (
    b"\r", b"\n", b"\r\n", b"\t", b" ", b"\x00", b"\x0b", b"\x0c", b"\x1f", b"\x7f", b"\x80", b"\x85",
    b"\xa0", b"\xff", b":", b";", b",", b"=", b'"', b"+", b"-", b"_", b"0", b"1", b"5", b"a", b"x", b"#",
    b"?", b"/", b"%", b"\\",
)
BLANKS = (b"", b" ", b"\t", b"  ", b" \t ", b"\x0b", b"\x0c", b"\xa0", b"\x00")
LINE_ENDS = (
    b"\n", b"\r", b"\r\r\n", b"\n\r", b"\r\n ", b"\r\n\t", b" \r\n", b"\t\r\n", b"\r\n\r\n", b"\x00\r\n", b"",
)
LENGTHS = (
    b"0", b"1", b"5", b"11", b"12", b"13", b"012", b"00000012", b"+12", b"-12", b"-0", b"1_2", b"12, 12",
    b"12,12", b"12, 5", b"0xc", b"0x12", b"c", b"12.0", b"1e1", b"1 2", b"12;", b"12 ", b"12\x0b", b"\xb212",
    b"", b"40", b"80", b"9" * 18, b"9" * 19, b"9" * 20, b"18446744073709551628", b"4294967308",
    b"0" * 30 + b"12",
)
CODINGS = (
    b"chunked", b"Chunked", b"CHUNKED", b"chunked, chunked", b"identity", b"gzip", b"gzip, chunked",
    b"chunked, gzip", b"chunked, identity", b"identity, chunked", b"chunked;q=1", b"xchunked", b"chunkedx",
    b"chunked,", b",chunked", b'"chunked"', b"\x0bchunked", b"chunked\x00", b"chunked\x0b", b"",
    b"chun\r\n ked", b"\r\n chunked", b"c hunked",
)
FRAMING_NAMES = (
    b"Content-Length", b"Transfer-Encoding", b"content-length", b"TRANSFER-ENCODING", b"Content_Length",
    b"Transfer_Encoding", b"Content-Length ", b"Transfer-Encoding\t", b" Content-Length", b"X-Content-Length",
    b"Content-Length\x00", b"Transfer-Encoding\x0b", b"Content--Length", b"Content-Lengt\xe8",
)
OTHERS = (
    b"Accept-Encoding: gzip\r\n", b"X:\r\n", b"X: \xe9\xff\r\n", b"Cookie: a=b\r\n", b"Via: 1.1 proxy\r\n",
    b"Connection: close\r\n", b"Connection: TE, keep-alive\r\n", b"TE: trailers\r\n",
    b"Expect: 100-continue\r\n", b"Trailer: Content-Length\r\n", b"Host: other\r\n",
    b"HOST: repo.example.org:8080\r\n", b"Upgrade: h2c\r\n", b"X-Forwarded-For: 192.0.2.1\r\n",
    b'If-None-Match: "a", "b"\r\n', b"Content-Type: a/b; c=d\r\n",
)
METHODS = (
    b"GET", b"HEAD", b"PUT", b"DELETE", b"MKCOL", b"LOCK", b"OPTIONS", b"TRACE", b"CONNECT", b"POST", b"get",
    b"G-T", b"G_T",
)
TARGETS = (
    b"/", b"/a%20b", b"/a?b", b"//a/b", b"*", b"http://repo.example.org:8080/x", b"http://other/x", b"/a#b",
    b"/\xe9", b"a", b"/a b", b"/a;b=c", b"/a/../b", b"/%2e%2e/", b"/%", b"/%00",
    b"HTTP://REPO.example.org:8080", b"/a\\b", b"/{a}|b", b"repo.example.org:8080",
)
VERSIONS = (
    b"HTTP/1.1", b"HTTP/1.0", b"HTTP/0.9", b"HTTP/1.2", b"HTTP/2.0", b"http/1.1", b"HTTP/1.10", b"HTTP/11",
    b"",
)
SIZES = (
    b"0", b"1", b"5", b"6", b"7", b"a", b"A", b"c", b"06", b"0006", b"+6", b"-6", b"0x6", b"6_", b"6 ", b" 6",
    b"6\t", b"", b"g", b"0" * 15 + b"6", b"0" * 16 + b"6", b"0" * 30 + b"6", b"f" * 15, b"f" * 16,
    b"1" + b"0" * 16, b"100000006", b"6.0", b"6\x00",
)
EXTENSIONS = (
    b"", b";a", b";a=b", b';a="b"', b';a="\\""', b" ; a = b", b";", b";a=\x00", b";a\n", b";a\r", b";\r",
    b" a", b",a",
)
TRAILERS = (
    b"A: b\r\n", b"Content-Length: 5\r\n", b"Transfer-Encoding: chunked\r\n", b"A : b\r\n", b" A: b\r\n",
    b"A\r\n", b"A: b\n", b"A: b\r", b": b\r\n", b"\n", b"\r", b"A: \x00\r\n", b"GET / HTTP/1.1\r\n",
    b"A:\r\n",
)
# fmt: on


def altered(random: Random) -> bytes:
    """A request that was usual before one to four alterations, some of which leave it a good one."""
    sent = random.choice(USUAL)
    for _ in range(random.choice((1, 1, 1, 2, 2, 3, 4))):
        sent = random.choice(ALTERATIONS)(sent, random)
    whole = sent.whole
    if random.random() < 0.25:
        whole = _damage(whole, random)
    return whole


def _damage(whole: bytes, random: Random) -> bytes:
    at = random.randrange(len(whole) + 1)
    odd = random.choice(ODD)
    cut = random.choice((0, 0, 1, 1, 1, 2, len(odd)))
    return whole[:at] + (odd if random.random() < 0.8 else b"") + whole[at + cut :]


def _request_line(sent: Sent, random: Random) -> Sent:
    words = sent.line.removesuffix(b"\r\n").split(b" ")
    if len(words) != 3:
        return sent
    place = random.randrange(3)
    words[place] = random.choice((METHODS, TARGETS, VERSIONS)[place])
    return replace(sent, line=b" ".join(words) + b"\r\n")


def _blank_in_request_line(sent: Sent, random: Random) -> Sent:
    blank = random.choice(BLANKS)
    before, space, after = sent.line.rpartition(b" ") if random.random() < 0.5 else sent.line.partition(b" ")
    return replace(
        sent, line=random.choice((before + blank + after, before + space + blank + after, blank + sent.line))
    )


def _before_the_request(sent: Sent, random: Random) -> Sent:
    return replace(sent, line=random.choice((b"\r\n", b"\r\n", b"\r\n\r\n", b"\n", b"\r", b" ")) + sent.line)


def _framing_field(sent: Sent, random: Random) -> Sent:
    name = random.choice(FRAMING_NAMES[:4] if random.random() < 0.7 else FRAMING_NAMES)
    values = CODINGS if b"ransfer" in name.lower() else LENGTHS
    return _insert(
        sent, name + b":" + random.choice((b" ", b" ", b"", b"\t")) + random.choice(values) + b"\r\n", random
    )


def _framing_value(sent: Sent, random: Random) -> Sent:
    fields = list(sent.fields)
    for number, field in enumerate(fields):
        name, _, _ = field.partition(b":")
        if name.lower() in (b"content-length", b"transfer-encoding"):
            values = CODINGS if b"ransfer" in name.lower() else LENGTHS
            fields[number] = name + b": " + random.choice(values) + b"\r\n"
    return replace(sent, fields=tuple(fields))


def _other_field(sent: Sent, random: Random) -> Sent:
    return _insert(sent, random.choice(OTHERS), random)


def _repeat(sent: Sent, random: Random) -> Sent:
    return _insert(sent, random.choice(sent.fields), random) if sent.fields else sent


def _drop(sent: Sent, random: Random) -> Sent:
    at = random.randrange(len(sent.fields) + 1)
    return replace(sent, fields=sent.fields[:at] + sent.fields[at + 1 :])


def _shuffle(sent: Sent, random: Random) -> Sent:
    return replace(sent, fields=tuple(random.sample(sent.fields, len(sent.fields))))


def _case(sent: Sent, random: Random) -> Sent:
    change = random.choice((bytes.lower, bytes.upper, bytes.swapcase))
    return _change_field(
        sent, lambda field: change(field.partition(b":")[0]) + b":" + field.partition(b":")[2], random
    )


def _blank_in_field(sent: Sent, random: Random) -> Sent:
    blank = random.choice(BLANKS)
    where = random.choice((b" :", b":", b":", b"\r\n", b"\r\n"))

    def change(field: bytes) -> bytes:
        if where == b" :":
            return field.replace(b":", blank + b":", 1)
        return field.replace(where, where + blank if where == b":" else blank + where, 1)

    return _change_field(sent, change, random)


def _line_end(sent: Sent, random: Random) -> Sent:
    end = random.choice(LINE_ENDS)
    if random.random() < 0.3:
        return replace(sent, line=sent.line.replace(b"\r\n", end))
    if random.random() < 0.3:
        return replace(sent, end=end)
    return _change_field(sent, lambda field: field.removesuffix(b"\r\n") + end, random)


def _body_part(sent: Sent, random: Random) -> Sent:
    if not sent.body:
        return replace(
            sent, body=(random.choice((b"0\r\n\r\n", b"hello there\n", b"5\r\nhello\r\n0\r\n\r\n")),)
        )
    at = random.randrange(len(sent.body))
    new = random.choice((b"", sent.body[at] * 2, sent.body[at] + random.choice(ODD), sent.body[at][:-1]))
    return _with_part(sent, at, new)


def _chunk_size(sent: Sent, random: Random) -> Sent:
    sizes = [
        at
        for at, part in enumerate(sent.body)
        if part.endswith(b"\r\n") and len(part) > 2 and b": " not in part
    ]
    if not sizes:
        return sent
    at = random.choice(sizes)
    size = random.choice(SIZES) if random.random() < 0.6 else sent.body[at].removesuffix(b"\r\n")
    return _with_part(sent, at, size + random.choice(EXTENSIONS) + random.choice((b"\r\n",) * 8 + LINE_ENDS))


def _chunk_end(sent: Sent, random: Random) -> Sent:
    ends = [at for at, part in enumerate(sent.body) if part == b"\r\n"]
    return _with_part(sent, random.choice(ends), random.choice(LINE_ENDS)) if ends else sent


def _cut_chunk(sent: Sent, random: Random) -> Sent:
    # Still good: the first chunk becomes two.
    if len(sent.body) < 4 or len(sent.body[1]) < 2 or len(sent.body[1]) > 9:
        return sent
    at = random.randrange(1, len(sent.body[1]))
    first, second = sent.body[1][:at], sent.body[1][at:]
    return replace(
        sent, body=(b"%x\r\n" % len(first), first, b"\r\n", b"%X\r\n" % len(second), second, *sent.body[2:])
    )


def _trailer(sent: Sent, random: Random) -> Sent:
    if len(sent.body) < 4:
        return sent
    return replace(sent, body=(*sent.body[:-1], random.choice(TRAILERS), sent.body[-1]))


def _with_part(sent: Sent, at: int, part: bytes) -> Sent:
    return replace(sent, body=(*sent.body[:at], part, *sent.body[at + 1 :]))


def _insert(sent: Sent, field: bytes, random: Random) -> Sent:
    at = random.randrange(len(sent.fields) + 1)
    return replace(sent, fields=(*sent.fields[:at], field, *sent.fields[at:]))


def _change_field(sent: Sent, change: Callable[[bytes], bytes], random: Random) -> Sent:
    if not sent.fields:
        return sent
    at = random.randrange(len(sent.fields))
    return replace(sent, fields=(*sent.fields[:at], change(sent.fields[at]), *sent.fields[at + 1 :]))


ALTERATIONS: tuple[Callable[[Sent, Random], Sent], ...] = (
    _request_line,
    _blank_in_request_line,
    _before_the_request,
    _framing_field,
    _framing_field,
    _framing_value,
    _framing_value,
    _other_field,
    _other_field,
    _repeat,
    _drop,
    _shuffle,
    _case,
    _blank_in_field,
    _line_end,
    _body_part,
    _chunk_size,
    _chunk_size,
    _chunk_end,
    _cut_chunk,
    _trailer,
)
