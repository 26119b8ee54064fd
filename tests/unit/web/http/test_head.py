"""Which heads of requests are taken, what they say, and how the others are refused."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from repowatch.web.http.head import MOST_FIELDS, MOST_HEAD, MOST_TARGET, BadHead, Head, end_of_head, parse

FROM_DNF = (
    b"GET /rpm/repodata/repomd.xml HTTP/1.1\r\n"
    b"Host: repo.example.org:8080\r\n"
    b"User-Agent: libdnf (Fedora Linux 39; server; Linux.x86_64)\r\n"
    b"Accept: */*\r\n"
    b"Cache-Control: no-cache\r\n"
    b"\r\n"
)


def request(*fields: str, line: str = "PUT /rpm/a.rpm HTTP/1.1", host: str | None = "Host: a") -> bytes:
    lines = [line, *([host] if host else []), *fields, "", ""]
    return "\r\n".join(lines).encode("latin-1")


def refusal(head: bytes) -> int:
    with pytest.raises(BadHead) as caught:
        parse(head)
    assert "\n" not in str(caught.value)
    return caught.value.status


def test_a_head_is_read() -> None:
    assert parse(FROM_DNF) == Head(
        method="GET",
        target="/rpm/repodata/repomd.xml",
        minor=1,
        fields={
            "host": "repo.example.org:8080",
            "user-agent": "libdnf (Fedora Linux 39; server; Linux.x86_64)",
            "accept": "*/*",
            "cache-control": "no-cache",
        },
        length=0,
        keep_alive=True,
        expects_continue=False,
    )


def test_one_empty_line_before_the_request_line_is_skipped() -> None:
    assert parse(b"\r\n" + FROM_DNF) == parse(FROM_DNF)


@pytest.mark.parametrize("before", [b"\r\n\r\n", b"\n", b"\r", b" \r\n"])
def test_anything_else_before_the_request_line_is_refused(before: bytes) -> None:
    assert refusal(before + FROM_DNF) == 400


@pytest.mark.parametrize(
    "head", [b"", b"\r\n", b"\r\n\r\n", b"\r\n\r\n\r\n", FROM_DNF[:-2], FROM_DNF[:-2] + b"\n"]
)
def test_a_head_without_its_end_is_refused(head: bytes) -> None:
    assert refusal(head) == 400


@pytest.mark.parametrize("method", ["GET", "PROPFIND", "VERSION-CONTROL", "TRACE", "CONNECT", "M" * 32])
def test_methods_known_here_and_not_are_left_to_the_application(method: str) -> None:
    assert parse(request(line=f"{method} / HTTP/1.1")).method == method


@pytest.mark.parametrize("method", ["", "get", "Get", "G_T", "GET1", "G\tT", "M" * 33, "G\xc9T", "GET\x00"])
def test_other_methods_are_refused(method: str) -> None:
    assert refusal(request(line=f"{method} / HTTP/1.1")) == 400


@pytest.mark.parametrize("target", ["/", "//a", "/a%20b?c=/d?e", "/a/../b", '/"<>\\^`{|}', "/%zz", "/:a@b"])
def test_a_target_is_left_as_it_was_sent(target: str) -> None:
    assert parse(request(line=f"GET {target} HTTP/1.1")).target == target


@pytest.mark.parametrize(
    "target",
    [
        "",
        "a",
        "?a",
        "*",
        "a:80",
        "/a b",
        "/a\tb",
        "/\xe9",
        "/\x7f",
        "/a\x00",
        "/a#b",
        "#",
        "ftp://a/",
        "http:/a",
    ],
)
def test_targets_of_other_forms_or_characters_are_refused(target: str) -> None:
    assert refusal(request(line=f"GET {target} HTTP/1.1")) == 400


def test_an_asterisk_is_a_target_for_options_alone() -> None:
    assert parse(request(line="OPTIONS * HTTP/1.1")).target == "*"
    assert refusal(request(line="GET * HTTP/1.1")) == 400
    assert refusal(request(line="OPTIONS ** HTTP/1.1")) == 400


@pytest.mark.parametrize(
    ("target", "path"),
    [
        ("http://a/b?c", "/b?c"),
        ("HTTPS://A/b", "/b"),
        ("http://a", "/"),
        ("http://a?b=c/d", "/?b=c/d"),
        ("http://a//b", "//b"),
    ],
)
def test_of_an_absolute_target_the_path_is_taken(target: str, path: str) -> None:
    assert parse(request(line=f"GET {target} HTTP/1.1")).target == path
    assert parse(request(line=f"GET {target} HTTP/1.0", host=None)).target == path


@pytest.mark.parametrize(
    "target", ["http://b/", "http://a:80/", "http://u@a/", "http:///", "http://", "http://a,b/"]
)
def test_an_absolute_target_for_another_server_than_host_is_refused(target: str) -> None:
    assert refusal(request(line=f"GET {target} HTTP/1.1")) == 400


def test_a_target_may_be_as_long_as_the_limit_and_no_longer() -> None:
    longest = "/" + "a" * (MOST_TARGET - 1)
    assert parse(request(line=f"GET {longest} HTTP/1.1")).target == longest
    assert refusal(request(line=f"GET {longest}a HTTP/1.1")) == 414
    assert refusal(request(line=f"GET {longest}\xe9 HTTP/1.1")) == 414


@pytest.mark.parametrize(("version", "minor"), [("HTTP/1.0", 0), ("HTTP/1.1", 1)])
def test_two_versions_are_spoken(version: str, minor: int) -> None:
    assert parse(request(line=f"GET / {version}")).minor == minor


@pytest.mark.parametrize("version", ["HTTP/0.9", "HTTP/1.2", "HTTP/1.9", "HTTP/2.0", "HTTP/3.0"])
def test_other_versions_are_refused_as_such(version: str) -> None:
    assert refusal(request(line=f"GET / {version}")) == 505
    assert refusal(b"PRI * HTTP/2.0\r\n\r\n") == 505


@pytest.mark.parametrize(
    "version",
    [
        "",
        "HTTP",
        "http/1.1",
        "HTTP/1",
        "HTTP/1.1.1",
        "HTTP/01.1",
        "HTTP/1.10",
        "HTTP/1.1x",
        "HTTPS/1.1",
        "HTTP/\xb9.1",
    ],
)
def test_what_is_no_version_is_refused(version: str) -> None:
    assert refusal(request(line=f"GET / {version}")) == 400


@pytest.mark.parametrize(
    "line",
    [
        "GET /",
        "GET",
        "",
        "GET  / HTTP/1.1",
        "GET /  HTTP/1.1",
        " GET / HTTP/1.1",
        "GET / HTTP/1.1 ",
        "GET\t/ HTTP/1.1",
    ],
)
def test_a_request_line_has_three_words_with_one_space_between_them(line: str) -> None:
    assert refusal(request(line=line)) == 400


def test_names_are_put_in_lower_case_and_values_lose_the_blanks_around_them() -> None:
    fields = parse(
        request("X-One:1", "x-TWO: \t 2  2 \t", "X-Empty:", "X-High: \xe9\x80", "!#$%&'*+-.^`|~:t")
    ).fields
    assert fields == {
        "host": "a",
        "x-one": "1",
        "x-two": "2  2",
        "x-empty": "",
        "x-high": "\xe9\x80",
        "!#$%&'*+-.^`|~": "t",
    }


@pytest.mark.parametrize(
    "field",
    [
        "No-Colon",
        ": no name",
        "Blank-Before : 1",
        "Tab-Before\t: 1",
        " Folded: 1",
        "\tFolded",
        "In side: 1",
        "Under_Score: 1",
        "Quote\": 1",
        "Slash/: 1",
        "High\xe9: 1",
        "Control\x01: 1",
        "Null\x00: 1",
        "X: null\x00",
        "X: bell\x07",
        "X: delete\x7f",
        "X: bare\rreturn",
        "X: bare\nfeed",
        "X: folded\r\n more",
        "X: form\x0cfeed",
        "X: vertical\x0btab",
        "X: end\r",
        "\rX: 1",
        "\nX: 1",
    ],
)  # fmt: skip
def test_a_malformed_field_is_refused_wherever_it_stands(field: str) -> None:
    assert refusal(request(field, "A: b")) == 400
    assert refusal(request("A: b", field)) == 400
    assert refusal(request(field, host=None)) == 400


def test_no_refusal_repeats_a_field_that_may_hold_a_password() -> None:
    with pytest.raises(BadHead, match=r"^header field 2 is malformed$"):
        parse(request("Authorization : Basic c2VjcmV0"))


def test_a_hundred_fields_are_taken_and_no_more() -> None:
    assert len(parse(request(*(f"X-{n}: 1" for n in range(MOST_FIELDS - 1)))).fields) == MOST_FIELDS
    assert refusal(request(*(f"X-{n}: 1" for n in range(MOST_FIELDS)))) == 431
    assert refusal(request(*["X: 1"] * MOST_FIELDS)) == 431


def test_repeated_fields_become_one_list() -> None:
    fields = parse(
        request("If-None-Match: a", "X: 1", "if-none-match: b, c", "Cookie: d=e", "Cookie: f=g")
    ).fields
    assert fields["if-none-match"] == "a, b, c"
    assert fields["cookie"] == "d=e; f=g"


@pytest.mark.parametrize(
    "field",
    [
        "Authorization: Basic YTpi",
        "Content-Length: 5",
        "Content-Range: bytes 0-1/2",
        "Content-Type: a/b",
        "Depth: 0",
        "Destination: /a",
        "Expect: 100-continue",
        "Host: a",
        "If-Modified-Since: Sat, 29 Oct 1994 19:43:31 GMT",
        "If-Range: a",
        "If-Unmodified-Since: Sat, 29 Oct 1994 19:43:31 GMT",
        "Overwrite: T",
        "Range: bytes=0-1",
    ],
)
def test_a_field_with_one_value_may_not_stand_twice(field: str) -> None:
    host = None if field.startswith("Host") else "Host: a"
    parse(request(field, host=host))
    assert refusal(request(field, field, host=host)) == 400
    assert refusal(request(field, "X: 1", field.swapcase(), host=host)) == 400


@pytest.mark.parametrize(
    "host", ["a", "A-b.example.org:8080", "my_box", "192.0.2.1", "[2001:db8::1]:80", "[::1]", "a:"]
)
def test_a_host_is_a_name_or_an_address_with_or_without_a_port(host: str) -> None:
    assert parse(request(host=f"Host: {host}")).fields["host"] == host


@pytest.mark.parametrize(
    "host", ["", "a b", "a,b", "a/b", "u@a", ":80", "a:b", "a:80:80", "[::1", "::1", "a:123456", "a?", "\xe9"]
)
def test_a_malformed_host_is_refused(host: str) -> None:
    assert refusal(request(host=f"Host: {host}")) == 400
    assert refusal(request(host=f"Host: {host}", line="GET / HTTP/1.0")) == 400


def test_only_the_older_version_may_lack_a_host() -> None:
    assert refusal(request(host=None)) == 400
    assert "host" not in parse(request(host=None, line="GET / HTTP/1.0")).fields


@pytest.mark.parametrize(
    ("sent", "length"), [("0", 0), ("5", 5), ("005", 5), ("\t5 ", 5), (str(2**63 - 1), 2**63 - 1)]
)
def test_content_length_is_a_number_of_bytes(sent: str, length: int) -> None:
    assert parse(request(f"Content-Length: {sent}")).length == length


@pytest.mark.parametrize(
    "sent",
    [
        "",
        " ",
        "+5",
        "-5",
        "-0",
        "1_0",
        "5, 5",
        "5,5",
        "5;",
        "0x5",
        "5.0",
        "1e1",
        "5 5",
        "a",
        "\xb2",
        "1" * 20,
        "0" * 19 + "5",
        str(2**63),
    ],
)
def test_any_other_content_length_is_refused(sent: str) -> None:
    assert refusal(request(f"Content-Length: {sent}")) == 400
    assert refusal(request(f"Content-Length: {sent}", line="GET / HTTP/1.0")) == 400


def test_two_content_lengths_are_refused_even_when_they_agree() -> None:
    assert refusal(request("Content-Length: 5", "Content-Length: 5")) == 400
    assert refusal(request("Content-Length: 5", "content-length: 6")) == 400


@pytest.mark.parametrize("coding", ["chunked", "Chunked", "CHUNKED", " \tchunked\t "])
def test_a_chunked_body_has_no_length(coding: str) -> None:
    assert parse(request(f"Transfer-Encoding: {coding}")).length is None


@pytest.mark.parametrize(
    ("coding", "status"),
    [
        ("", 400),
        ("chunked,", 400),
        (",chunked", 400),
        ("chunked, chunked", 400),
        ("chunked;q=1", 400),
        ("gzip, chunked;q=1", 400),
        ("chunked chunked", 400),
        ('"chunked"', 400),
        ("chunked, gzip", 400),
        ("chunked, gzip, chunked", 400),
        ("gzip", 400),
        ("identity", 400),
        ("xchunked", 400),
        ("chunked\xa0", 400),
        ("gzip, chunked", 501),
        ("GZIP , Chunked", 501),
        ("a;b=c, chunked", 501),
    ],
)
def test_any_other_transfer_coding_is_refused(coding: str, status: int) -> None:
    assert refusal(request(f"Transfer-Encoding: {coding}")) == status


def test_transfer_encoding_may_not_stand_twice() -> None:
    assert refusal(request("Transfer-Encoding: chunked", "Transfer-Encoding: chunked")) == 400
    assert refusal(request("Transfer-Encoding: chunked", "Transfer-Encoding: gzip")) == 400


def test_two_ways_to_tell_the_length_are_refused() -> None:
    assert refusal(request("Transfer-Encoding: chunked", "Content-Length: 5")) == 400
    assert refusal(request("Content-Length: 0", "Transfer-Encoding: chunked")) == 400


def test_the_older_version_knows_no_transfer_encoding() -> None:
    assert refusal(request("Transfer-Encoding: chunked", line="PUT / HTTP/1.0")) == 400


@pytest.mark.parametrize(
    ("connection", "newer", "older"),
    [
        ([], True, False),
        (["close"], False, False),
        (["Keep-Alive"], True, True),
        (["TE, Close"], False, False),
        (["keep-alive, close"], False, False),
        (["TE", "keep-alive"], True, True),
        (["closed"], True, False),
        (["keep-alive-not"], True, False),
    ],
)
def test_a_connection_is_kept_as_its_version_and_options_say(
    connection: list[str], newer: bool, older: bool
) -> None:
    fields = [f"Connection: {options}" for options in connection]
    assert parse(request(*fields)).keep_alive == newer
    assert parse(request(*fields, line="GET / HTTP/1.0")).keep_alive == older


@pytest.mark.parametrize("body", ["Content-Length: 5", "Transfer-Encoding: chunked"])
def test_continue_is_expected_before_a_body(body: str) -> None:
    assert parse(request("Expect: 100-Continue", body)).expects_continue
    assert not parse(request(body)).expects_continue


def test_continue_is_not_expected_without_a_body_or_by_the_older_version() -> None:
    assert not parse(request("Expect: 100-continue")).expects_continue
    assert not parse(request("Expect: 100-continue", "Content-Length: 0")).expects_continue
    older = request("Expect: 100-continue", "Content-Length: 5", line="PUT / HTTP/1.0")
    assert not parse(older).expects_continue


@pytest.mark.parametrize("expect", ["", "200-ok", "100-continue, x", "100-continue;a"])
def test_another_expectation_fails(expect: str) -> None:
    assert refusal(request(f"Expect: {expect}")) == 417


def test_a_head_may_be_as_long_as_the_limit_and_no_longer() -> None:
    room = MOST_HEAD - len(request("X: "))
    assert len(parse(request("X: " + "a" * room)).fields["x"]) == room
    assert refusal(request("X: " + "a" * (room + 1))) == 431


def test_a_value_of_blanks_takes_no_more_time_than_another() -> None:
    # With a regular expression that goes back, this one takes minutes.
    assert parse(request("X: " + " \t" * 15000 + "a")).fields["x"] == "a"
    assert refusal(request("X: " + "a \t" * 10000 + "\x00")) == 400


def test_the_end_of_a_head_is_after_the_empty_line() -> None:
    assert end_of_head(bytearray(FROM_DNF + b"GET /"), 0) == len(FROM_DNF)
    assert end_of_head(bytearray(b"\r\n" + FROM_DNF), 0) == len(FROM_DNF) + 2


@pytest.mark.parametrize(
    "buffer",
    [b"", b"\r\n", b"GET / HTTP/1.1\n\n", b"a\r\n\n", b"a\n\r\n", b"a\r\r", b"a\r\n\r", b"a\r\n \r\n"],
)
def test_nothing_but_an_empty_line_ends_a_head(buffer: bytes) -> None:
    assert end_of_head(bytearray(buffer), 0) == -1


def test_the_end_is_found_wherever_the_bytes_before_it_were_looked_at() -> None:
    for searched in range(len(FROM_DNF)):
        assert end_of_head(bytearray(FROM_DNF), searched) == len(FROM_DNF)


def test_what_was_looked_at_is_not_looked_at_again() -> None:
    assert end_of_head(bytearray(FROM_DNF + b"a" * 8), len(FROM_DNF) + 8) == -1


@pytest.mark.parametrize(
    ("begin", "status"),
    [(b"", 414), (b"GET / HTTP/1.1\r\n", 431), (b"\r\nGET / HTTP/1.1\r\n", 431), (b"\r\nGET /", 414)],
)
def test_a_head_that_grows_too_long_is_refused_before_its_end(begin: bytes, status: int) -> None:
    assert end_of_head(bytearray(begin.ljust(MOST_HEAD, b"a")), 0) == -1
    with pytest.raises(BadHead) as caught:
        end_of_head(bytearray(begin.ljust(MOST_HEAD + 1, b"a")), MOST_HEAD)
    assert caught.value.status == status


PIECES = st.sampled_from(
    [
        *[b"\r\n", b"\r", b"\n", b" ", b"\t", b":", b",", b";", b"_", b"\x00", b"\xff", b"0", b"1", b"a"],
        *[b"GET", b"PUT", b"/", b"*", b"#", b"http://a", b"HTTP/1.", b"Host", b"Host: a\r\n"],
        *[b"Content-Length", b"Content-Length: ", b"Transfer-Encoding: ", b"chunked", b"gzip"],
        *[b"Expect: ", b"100-continue", b"Connection: close\r\n"],
    ]
)


@given(st.one_of(st.binary(max_size=200), st.lists(PIECES, max_size=40).map(b"".join)), st.booleans())
def test_any_bytes_are_a_head_or_refused_in_one_line(junk: bytes, begun: bool) -> None:
    head = (b"GET / HTTP/1.1\r\nHost: a\r\n" if begun else b"") + junk + b"\r\n\r\n"
    try:
        parsed = parse(head)
    except BadHead as error:
        assert error.status >= 400
        assert len(str(error).splitlines()) == 1
    else:
        assert re.fullmatch(r"[A-Z-]+", parsed.method)
        assert parsed.target == "*" or parsed.target.startswith("/")
        assert not re.search(r"[\x00-\x08\x0a-\x1f\x7f]", "".join([parsed.target, *parsed.fields.values()]))


@given(st.lists(st.integers(0, len(FROM_DNF) + 10), max_size=10))
def test_the_end_is_found_however_the_bytes_come(cuts: list[int]) -> None:
    stream = FROM_DNF + b"\r\nGET / HT"
    buffer = bytearray()
    ends = []
    for cut in [*sorted(cuts), len(stream)]:
        searched = len(buffer)
        buffer += stream[searched:cut]
        ends.append(end_of_head(buffer, searched))
        if ends[-1] >= 0:
            break
    assert ends[-1] == len(FROM_DNF)
    assert parse(bytes(buffer[: ends[-1]])) == parse(FROM_DNF)
