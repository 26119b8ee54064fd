"""Sending files: a WSGI client asks, and wsgiref's validator listens in."""

from __future__ import annotations

import email.policy
import os
import socket
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from email.parser import BytesParser
from pathlib import Path
from typing import Any
from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment
from wsgiref.util import setup_testing_defaults
from wsgiref.validate import validator

import pytest

from repowatch.web.conditions import http_date
from repowatch.web.downloads import BLOCK, MOST_RANGES, requested_ranges, send_file
from repowatch.web.http.outgoing import ShortFileError

CHANGED = 784111777
CONTENT = b"0123456789"


@dataclass(frozen=True, slots=True)
class Response:
    status: int
    headers: dict[str, str]
    body: bytes


def application(target: int | Path, *, cache_control: str | None = None) -> WSGIApplication:
    def send(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        return send_file(
            environ,
            start_response,
            target,
            etag=lambda status: f"tag-{status.st_size}",
            content_type="application/x-rpm",
            cache_control=cache_control,
        )

    return send


def request_of(method: str, fields: dict[str, str]) -> WSGIEnvironment:
    environ: WSGIEnvironment = {"REQUEST_METHOD": method, "QUERY_STRING": ""}
    setup_testing_defaults(environ)
    return environ | {f"HTTP_{name.upper()}": value for name, value in fields.items()}


def ask(app: WSGIApplication, method: str = "GET", **fields: str) -> Response:
    """The response to one request; the validator raises at any breach of WSGI."""
    started: list[tuple[str, dict[str, str]]] = []

    def start_response(
        status: str,
        headers: list[tuple[str, str]],
        exc_info: object = None,
        /,
    ) -> Any:
        assert len(dict(headers)) == len(headers), "a header was sent twice"
        started.append((status, dict(headers)))
        return lambda data: None

    body = validator(app)(request_of(method, fields), start_response)
    try:
        content = b"".join(body)
    finally:
        body.close()  # type: ignore[attr-defined]
    ((status, headers),) = started
    return Response(int(status.split()[0]), headers, content)


def open_descriptors() -> set[str]:
    return set(os.listdir("/proc/self/fd"))


@pytest.fixture(autouse=True)
def no_descriptor_stays_open() -> Iterator[None]:
    before = open_descriptors()
    yield
    assert open_descriptors() == before


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "foo.rpm"
    path.write_bytes(CONTENT)
    os.utime(path, ns=(0, CHANGED * 10**9 + 999_999_999))
    return path


def test_a_get_sends_the_whole_file_and_what_caches_need(path: Path) -> None:
    assert ask(application(path, cache_control="no-cache")) == Response(
        200,
        {
            "Content-Type": "application/x-rpm",
            "Content-Length": "10",
            "Accept-Ranges": "bytes",
            "ETag": '"tag-10"',
            "Cache-Control": "no-cache",
            "Last-Modified": http_date(CHANGED),
        },
        CONTENT,
    )


def test_cache_control_is_left_out_when_there_is_none(path: Path) -> None:
    assert "Cache-Control" not in ask(application(path)).headers


@pytest.mark.parametrize("fields", [{}, {"range": "bytes=1-2"}, {"range": "bytes=99-"}])
def test_a_head_has_the_headers_of_the_whole_file_and_no_body(path: Path, fields: dict[str, str]) -> None:
    app = application(path)
    assert ask(app, "HEAD", **fields) == Response(200, ask(app).headers, b"")


def test_a_304_carries_only_what_updates_a_cache(path: Path) -> None:
    app = application(path, cache_control="immutable")
    expected = Response(304, {"ETag": '"tag-10"', "Cache-Control": "immutable"}, b"")
    for method in ("GET", "HEAD"):
        assert ask(app, method, if_none_match='W/"tag-10"') == expected
        assert ask(app, method, if_modified_since=http_date(CHANGED)) == expected
    assert ask(app, if_modified_since=http_date(CHANGED - 1)).status == 200


def test_a_failed_precondition_is_told_in_one_line_of_text(path: Path) -> None:
    response = ask(application(path), if_match='"another"')
    assert response.status == 412
    assert response.headers["Content-Type"] == "text/plain; charset=utf-8"
    assert response.headers["Content-Length"] == str(len(response.body))
    assert response.body.endswith(b"\n")
    assert response.body.count(b"\n") == 1
    head = ask(application(path), "HEAD", if_match='"another"')
    assert head == Response(412, response.headers, b"")


@pytest.mark.parametrize(
    ("fields", "status"),
    [
        ({"if_match": '"another"', "range": "bytes=99-"}, 412),
        ({"if_none_match": '"tag-10"', "range": "bytes=99-"}, 304),
        ({"if_none_match": '"another"', "range": "bytes=0-1"}, 206),
        ({"if_none_match": '"another"', "range": "bytes=99-", "if_range": '"another"'}, 200),
        ({"if_match": '"tag-10"', "range": "bytes=99-", "if_range": '"tag-10"'}, 416),
        ({"if_range": '"tag-10"'}, 200),
    ],
)
def test_conditions_come_before_ranges(path: Path, fields: dict[str, str], status: int) -> None:
    assert ask(application(path), **fields).status == status


@pytest.mark.parametrize(
    ("field", "ranges"),
    [
        ("bytes=0-0", [range(1)]),
        ("bytes=2-5", [range(2, 6)]),
        ("bytes=5-", [range(5, 10)]),
        ("bytes=-5", [range(5, 10)]),
        ("bytes=-99", [range(10)]),
        ("bytes=0-99", [range(10)]),
        ("bytes=9-9", [range(9, 10)]),
        ("bytes=0-" + "9" * 900, [range(10)]),
        ("BYTES=0-1", [range(2)]),
        ("bytes=, 0-1 ,\t,", [range(2)]),
        ("bytes=0-1,8-9", [range(2), range(8, 10)]),
        ("bytes=8-9,0-1", [range(8, 10), range(2)]),
        ("bytes=0-4,5-9", [range(5), range(5, 10)]),
        ("bytes=0-1,50-60", [range(2)]),
        ("bytes=-0,0-1", [range(2)]),
        ("bytes=10-", []),
        ("bytes=" + "9" * 900 + "-", []),
        ("bytes=-0", []),
        ("bytes=10-20,30-", []),
    ],
)
def test_ranges_are_read_against_the_size_of_the_file(field: str, ranges: list[range]) -> None:
    assert requested_ranges(field, size=10) == ranges


@pytest.mark.parametrize(
    "field",
    [
        "",
        "bytes",
        "bytes=",
        "bytes=,",
        "bytes=-",
        "bytes=a-b",
        "bytes=5-2",
        "bytes=0-1,5-2",
        "bytes=0-1,x",
        "bytes=1",
        "bytes=--5",
        "bytes=+1-2",
        "bytes=0 - 1",
        "bytes =0-1",
        "bytes=0-1\xa0",
        "bytes=¹-²",
        "bytes=0-1;2-3",
        "items=0-1",
        "0-1",
        "bytes=0-5,5-9",
        "bytes=0-,0-",
        "bytes=-1,5-",
        "bytes=" + ",".join(f"{n}-{n}" for n in range(0, 2 * MOST_RANGES + 2, 2)),
        "bytes=0-" + "9" * 5000,
    ],
)
def test_malformed_overlapping_and_too_many_ranges_are_ignored(path: Path, field: str) -> None:
    assert requested_ranges(field, size=100) is None
    assert ask(application(path), range=field) == ask(application(path))


def test_as_many_ranges_as_the_limit_says_are_obeyed() -> None:
    field = "bytes=" + ",".join(f"{n}-{n}" for n in range(0, 2 * MOST_RANGES, 2))
    assert len(requested_ranges(field, size=100) or []) == MOST_RANGES


@pytest.mark.parametrize(
    ("field", "content_range", "body"),
    [
        ("bytes=2-5", "bytes 2-5/10", b"2345"),
        ("bytes=-3", "bytes 7-9/10", b"789"),
        ("bytes=9-", "bytes 9-9/10", b"9"),
        ("bytes=0-", "bytes 0-9/10", CONTENT),
        ("bytes=3-4,77-", "bytes 3-4/10", b"34"),
    ],
)
def test_one_range_is_sent_as_it_is(path: Path, field: str, content_range: str, body: bytes) -> None:
    whole = ask(application(path))
    assert ask(application(path), range=field) == Response(
        206, whole.headers | {"Content-Range": content_range, "Content-Length": str(len(body))}, body
    )


def test_several_ranges_are_sent_as_the_parts_of_one_message(path: Path) -> None:
    response = ask(application(path), range="bytes=8-,0-1,4-4")
    assert response.status == 206
    assert response.headers["Content-Length"] == str(len(response.body))
    assert "Content-Range" not in response.headers
    head = f"Content-Type: {response.headers['Content-Type']}\r\n\r\n".encode()
    message = BytesParser(policy=email.policy.HTTP).parsebytes(head + response.body)
    assert message.get_content_type() == "multipart/byteranges"
    assert not message.defects
    parts = [
        (part["Content-Type"], part["Content-Range"], part.get_payload(decode=True))
        for part in message.iter_parts()
    ]
    assert parts == [
        ("application/x-rpm", "bytes 8-9/10", b"89"),
        ("application/x-rpm", "bytes 0-1/10", b"01"),
        ("application/x-rpm", "bytes 4-4/10", b"4"),
    ]


def test_an_unsatisfiable_range_is_answered_with_the_size(path: Path) -> None:
    response = ask(application(path), range="bytes=10-")
    assert response.status == 416
    assert response.headers["Content-Range"] == "bytes */10"
    assert response.headers["Content-Length"] == str(len(response.body))


@pytest.mark.parametrize("field", ["bytes=0-", "bytes=-5", "bytes=-0", "bytes=0-0,2-3"])
def test_an_empty_file_is_sent_whole_whatever_range_is_asked_for(path: Path, field: str) -> None:
    path.write_bytes(b"")
    response = ask(application(path), range=field)
    assert (response.status, response.headers["Content-Length"], response.body) == (200, "0", b"")


def test_a_range_is_for_the_version_that_the_client_has(path: Path) -> None:
    app = application(path)
    assert ask(app, range="bytes=0-1", if_range='"tag-10"').body == b"01"
    assert ask(app, range="bytes=0-1", if_range=http_date(CHANGED)).body == b"01"
    for other in ('"tag-11"', 'W/"tag-10"', http_date(CHANGED + 1), "nonsense"):
        assert ask(app, range="bytes=0-1", if_range=other) == ask(app)


def test_a_file_from_the_future_was_last_modified_now(path: Path) -> None:
    os.utime(path, (0, time.time() + 86400))
    earliest = int(time.time())
    sent = ask(application(path)).headers["Last-Modified"]
    assert sent in [http_date(second) for second in range(earliest, int(time.time()) + 1)]


def test_a_file_from_before_1970_has_no_date(path: Path) -> None:
    os.utime(path, (0, -1))
    assert "Last-Modified" not in ask(application(path)).headers


def test_a_large_file_is_read_in_blocks(path: Path) -> None:
    content = os.urandom(2 * BLOCK + 7)
    path.write_bytes(content)
    body = application(path)(request_of("GET", {}), lambda *_: lambda data: None)
    blocks = list(body)
    body.close()  # type: ignore[attr-defined]
    assert [len(block) for block in blocks] == [BLOCK, BLOCK, 7]
    assert b"".join(blocks) == content
    assert ask(application(path), range=f"bytes=5-{BLOCK + 9}").body == content[5 : BLOCK + 10]


def test_a_file_that_grows_is_sent_as_long_as_announced(path: Path) -> None:
    body = application(path)(request_of("GET", {}), lambda *_: lambda data: None)
    path.write_bytes(CONTENT + b"more")
    assert b"".join(body) == CONTENT
    body.close()  # type: ignore[attr-defined]


def test_a_file_that_is_replaced_is_sent_as_it_was(path: Path) -> None:
    body = application(path)(request_of("GET", {}), lambda *_: lambda data: None)
    (path.parent / "new").write_bytes(b"completely other content")
    (path.parent / "new").rename(path)
    assert b"".join(body) == CONTENT
    body.close()  # type: ignore[attr-defined]


def test_a_file_that_shrinks_breaks_the_answer_off(path: Path) -> None:
    path.write_bytes(bytes(2 * BLOCK))
    body = application(path)(request_of("GET", {}), lambda *_: lambda data: None)
    blocks = iter(body)
    assert len(next(blocks)) == BLOCK
    os.truncate(path, BLOCK + 5)
    assert len(next(blocks)) == 5
    with pytest.raises(ShortFileError, match=rf"foo\.rpm: ended at byte {BLOCK + 5}"):
        next(blocks)
    body.close()  # type: ignore[attr-defined]


@pytest.mark.parametrize("read", [0, 1])
def test_a_body_closes_the_file_once_and_reads_nothing_more(path: Path, read: int) -> None:
    path.write_bytes(bytes(2 * BLOCK))
    before = open_descriptors()
    body = application(path)(request_of("GET", {}), lambda *_: lambda data: None)
    blocks = iter(body)
    assert sum(len(next(blocks)) for _ in range(read)) == read * BLOCK
    assert open_descriptors() > before
    body.close()  # type: ignore[attr-defined]
    assert open_descriptors() == before
    with (path.parent / "unrelated").open("w+b") as unrelated:
        body.close()  # type: ignore[attr-defined]
        assert list(blocks) == []
        unrelated.write(b"still open")


@pytest.mark.parametrize("fields", [{}, {"range": "bytes=99-"}, {"if_none_match": "*"}])
def test_the_file_is_closed_when_the_answer_can_not_be_started(path: Path, fields: dict[str, str]) -> None:
    def broken(*_: object) -> Any:
        raise ConnectionResetError

    with pytest.raises(ConnectionResetError):
        application(path)(request_of("GET", fields), broken)


def test_the_file_is_closed_when_it_has_no_tag(path: Path) -> None:
    def fail(status: os.stat_result) -> str:
        raise LookupError

    with pytest.raises(LookupError):
        send_file(request_of("GET", {}), lambda *_: print, path, etag=fail, content_type="text/plain")


def test_an_open_descriptor_is_sent_and_closed(path: Path) -> None:
    assert ask(application(os.open(path, os.O_RDONLY))).body == CONTENT
    assert ask(application(os.open(path.parent, os.O_RDONLY))).status == 404


def test_the_place_of_a_descriptor_does_not_matter(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    os.lseek(descriptor, 4, os.SEEK_SET)
    assert ask(application(descriptor), range="bytes=1-2").body == b"12"


def missing(path: Path) -> None:
    pass


def below_a_file(path: Path) -> None:
    path.parent.rmdir()
    path.parent.write_bytes(b"")


def link(path: Path) -> None:
    (path.parent / "content").write_bytes(CONTENT)
    path.symlink_to("content")


def listening(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(os.path.relpath(path))


@pytest.mark.parametrize("make", [missing, below_a_file, link, os.mkfifo, os.mkdir, listening])
def test_what_is_not_a_regular_file_is_not_found(tmp_path: Path, make: Any) -> None:
    path = tmp_path / "folder" / "x"
    path.parent.mkdir()
    make(path)
    response = ask(application(path), if_match='"another"')
    assert (response.status, response.body) == (404, b"there is no such file\n")
    assert response.headers == {
        "Content-Type": "text/plain; charset=utf-8",
        "Content-Length": str(len(response.body)),
    }
    assert ask(application(path), "HEAD") == Response(404, response.headers, b"")


def test_a_name_that_is_too_long_is_not_found(tmp_path: Path) -> None:
    assert ask(application(tmp_path / ("x" * 300))).status == 404


def test_a_file_that_the_server_may_not_read_is_forbidden(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Root may read everything, so the refusal has to be ordered.
    def refuse(*_: object) -> int:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("repowatch.web.downloads.os.open", refuse)
    assert ask(application(path)).status == 403


def test_trouble_of_the_machine_is_left_to_the_caller(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> int:
        raise OSError(24, "Too many open files")

    monkeypatch.setattr("repowatch.web.downloads.os.open", fail)
    with pytest.raises(OSError, match="Too many open files"):
        ask(application(path))
