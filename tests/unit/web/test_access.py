"""The access log: lines that nobody can forge, and a disk that costs no answer."""

from __future__ import annotations

import os
import re
import resource
import signal
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from repowatch.errors import RepowatchError
from repowatch.web.access import AccessLog

AT = 1795876706.9  # 2026-11-28 14:38:26 UTC
REQUEST: dict[str, Any] = {
    "address": "192.0.2.7",
    "user": "anna",
    "request_line": "GET /rpm/a.rpm HTTP/1.1",
    "status": 200,
    "sent": 2326,
    "referer": "http://example.org/",
    "agent": "libdnf (Fedora Linux 41)",
    "at": AT,
}
# As a simple reader of the format has it: a field in quotes ends at the next quote.
COMBINED = re.compile(
    r'(\S+) (\S+) (\S+) \[([^\]]+)\] "([^"]*)" ([0-9]{3}) ([0-9]+|-) "([^"]*)" "([^"]*)"', re.ASCII
)


@pytest.fixture(autouse=True)
def utc(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    with timezone("UTC", monkeypatch):
        yield


@contextmanager
def timezone(name: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    with monkeypatch.context() as changed:
        changed.setenv("TZ", name)
        time.tzset()
        yield
    time.tzset()


def lines_of(tmp_path: Path, *requests: dict[str, Any]) -> list[str]:
    path = tmp_path / "access.log"
    access = AccessLog(str(path))
    for request in requests:
        access.note(**(REQUEST | request))
    access.close()
    text = path.read_bytes().decode("ascii")
    path.unlink()
    assert text.endswith("\n")
    return text[:-1].split("\n")


def unescaped(field: str) -> bytes:
    return re.sub(r"\\x([0-9a-f]{2})", lambda each: chr(int(each[1], 16)), field).encode("latin-1")


def test_a_line_is_what_apache_writes(tmp_path: Path) -> None:
    assert lines_of(tmp_path, {}) == [
        '192.0.2.7 - anna [28/Nov/2026:14:38:26 +0000] "GET /rpm/a.rpm HTTP/1.1" 200 2326 '
        '"http://example.org/" "libdnf (Fedora Linux 41)"'
    ]


def test_what_is_missing_is_a_dash(tmp_path: Path) -> None:
    nothing = {"address": None, "user": None, "request_line": "", "sent": 0, "referer": None, "agent": None}
    assert lines_of(tmp_path, nothing) == ['- - - [28/Nov/2026:14:38:26 +0000] "-" 200 - "-" "-"']


@pytest.mark.parametrize(
    ("zone", "expected"),
    [
        ("UTC-5:30", "28/Nov/2026:20:08:26 +0530"),
        ("UTC+3:30", "28/Nov/2026:11:08:26 -0330"),
        ("CET-1CEST,M3.5.0,M10.5.0", "28/Nov/2026:15:38:26 +0100"),
    ],
)
def test_the_time_is_local_with_its_offset(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, zone: str, expected: str
) -> None:
    with timezone(zone, monkeypatch):
        assert f"[{expected}]" in lines_of(tmp_path, {})[0]


def test_each_line_has_the_time_of_its_own_request_even_if_they_end_out_of_order(tmp_path: Path) -> None:
    lines = lines_of(tmp_path, {"at": AT}, {"at": AT + 1}, {"at": AT}, {"at": AT + 86400 * 40})
    times = [line.split("[")[1].split("]")[0] for line in lines]
    assert [each.partition(" ")[0] for each in times] == [
        "28/Nov/2026:14:38:26",
        "28/Nov/2026:14:38:27",
        "28/Nov/2026:14:38:26",
        "07/Jan/2027:14:38:26",
    ]


@pytest.mark.parametrize(
    ("field", "sent", "written"),
    [
        ("agent", 'x" 200 1 "-" "y', r"x\x22 200 1 \x22-\x22 \x22y"),
        ("agent", "x\\", r"x\x5c"),
        ("agent", "a\nb\rc\td\x1b[2J\x7f", r"a\x0ab\x0dc\x09d\x1b[2J\x7f"),
        ("referer", "caf\xc3\xa9", r"caf\xc3\xa9"),
        ("request_line", 'GET /"a\0 HTTP/1.1', r"GET /\x22a\x00 HTTP/1.1"),
        ("user", "anna b", r"anna\x20b"),
        ("user", "renée \U0001f600", r"ren\xc3\xa9e\x20\xf0\x9f\x98\x80"),
        ("user", "\ud800", r"\xed\xa0\x80"),
        ("agent", "\u2028", r"\xe2\x80\xa8"),
        ("address", "a b\n", r"a\x20b\x0a"),
    ],
)
def test_what_is_odd_is_written_by_number(tmp_path: Path, field: str, sent: str, written: str) -> None:
    [line] = lines_of(tmp_path, {field: sent})
    [plain] = lines_of(tmp_path, {})
    assert line == plain.replace(REQUEST[field], written)


fields = st.text(st.characters(max_codepoint=0xFF)) | st.text('\\"x0a \n-')


@settings(deadline=None)
@given(user=st.text(), request_line=fields, referer=fields, agent=fields, status=st.integers(100, 599))
def test_whatever_a_client_sends_is_one_line_and_comes_back(
    tmp_path_factory: pytest.TempPathFactory,
    user: str,
    request_line: str,
    referer: str,
    agent: str,
    status: int,
) -> None:
    request = {
        "user": user,
        "request_line": request_line,
        "referer": referer,
        "agent": agent,
        "status": status,
    }
    [line] = lines_of(tmp_path_factory.getbasetemp(), request)
    match = COMBINED.fullmatch(line)
    assert match is not None
    assert unescaped(match[3]) == (user or "-").encode()
    assert match[6] == str(status)
    for number, sent in ((5, request_line), (8, referer), (9, agent)):
        assert unescaped(match[number]) == (sent or "-").encode("latin-1")


def test_nothing_is_written_before_a_flush_and_then_all_by_one_write(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = os.write
    sizes: list[int] = []

    def counted(descriptor: int, data: bytes) -> int:
        sizes.append(len(data))
        return write(descriptor, data)

    monkeypatch.setattr(os, "write", counted)
    path = tmp_path / "access.log"
    access = AccessLog(str(path))
    for _ in range(5):
        access.note(**REQUEST)
    assert sizes == []
    access.flush()
    access.flush()
    assert sizes == [path.stat().st_size]
    access.close()


def test_a_log_that_is_there_is_appended_to_and_a_new_one_is_for_its_owner_and_group(tmp_path: Path) -> None:
    path = tmp_path / "access.log"
    for _ in range(2):
        access = AccessLog(str(path))
        access.note(**REQUEST)
        access.close()
    assert path.read_bytes().count(b"\n") == 2
    assert stat.S_IMODE(path.stat().st_mode) & 0o137 == 0


def test_without_a_path_nothing_is_kept() -> None:
    access = AccessLog(None, most=0)
    access.note(**REQUEST)
    access.flush()
    access.reopen()
    access.close()


def test_what_can_not_be_opened_is_told_in_plain_words(tmp_path: Path) -> None:
    path = str(tmp_path / "missing" / "access.log")
    with pytest.raises(RepowatchError, match=re.escape(path) + r": the access log .* no such file.*make its"):
        AccessLog(path)
    os.mkfifo(tmp_path / "fifo")  # nobody reads it; opening must not wait for who does
    with pytest.raises(RepowatchError, match="no such device"):
        AccessLog(str(tmp_path / "fifo"))


def test_no_line_is_lost_or_torn_when_threads_note_while_others_flush(tmp_path: Path) -> None:
    path = tmp_path / "access.log"
    access = AccessLog(str(path))

    def note(worker: int) -> None:
        for number in range(2000):
            access.note(**(REQUEST | {"request_line": f"GET /{worker}/{number} HTTP/1.1"}))
            if number % 100 == worker:
                access.flush()
                access.reopen()

    threads = [threading.Thread(target=note, args=(worker,)) for worker in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    access.close()
    asked = [COMBINED.fullmatch(line) for line in path.read_text().splitlines()]
    assert sorted(match[5] for match in asked if match) == sorted(
        f"GET /{worker}/{number} HTTP/1.1" for worker in range(4) for number in range(2000)
    )


@contextmanager
def disk_of(size: int) -> Iterator[None]:
    """Files can not grow beyond `size` bytes, as on a disk that is full."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, ignored)


def test_a_full_disk_costs_lines_and_is_logged_once_until_it_works_again(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "access.log"
    access = AccessLog(str(path), most=1000)
    with disk_of(200):
        for _ in range(50):
            access.note(**REQUEST)
            access.flush()
    [failed] = [record.getMessage() for record in caplog.records]
    assert failed.startswith(f"{path}: the access log can not be written: file too large")
    access.close()
    lines = path.read_text().splitlines()
    assert 2 < len(lines) < 20  # what the buffers held, not all 50
    assert all(COMBINED.fullmatch(line) for line in lines)
    assert [record.getMessage() for record in caplog.records[1:]] == [
        f"{path}: the access log is written again; {50 - len(lines)} lines were lost"
    ]


def test_a_disk_that_fills_up_twice_is_told_twice(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    access = AccessLog(str(tmp_path / "access.log"))
    for _ in range(2):
        with disk_of(10):
            access.note(**REQUEST)
            access.flush()
        access.flush()
    access.close()
    assert [record.levelname for record in caplog.records] == ["ERROR", "WARNING"] * 2


def test_after_a_rotation_new_lines_go_into_the_new_file(tmp_path: Path) -> None:
    path = tmp_path / "access.log"
    access = AccessLog(str(path))
    access.note(**REQUEST)
    path.rename(tmp_path / "access.log.1")
    access.reopen()
    access.note(**(REQUEST | {"status": 404}))
    access.close()
    assert " 200 " in (tmp_path / "access.log.1").read_text()
    assert [" 404 " in line for line in path.read_text().splitlines()] == [True]


def test_a_line_that_the_old_file_has_half_of_does_not_begin_the_new_one(tmp_path: Path) -> None:
    path = tmp_path / "access.log"
    access = AccessLog(str(path))
    with disk_of(100):
        access.note(**REQUEST)
        access.note(**(REQUEST | {"status": 404}))
        access.flush()
        path.rename(tmp_path / "access.log.1")
        access.reopen()
    access.close()
    assert len((tmp_path / "access.log.1").read_bytes()) == 100
    assert [" 404 " in line for line in path.read_text().splitlines()] == [True]


def test_where_there_can_be_no_new_file_the_old_one_goes_on(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    directory = tmp_path / "log"
    directory.mkdir()
    access = AccessLog(str(directory / "access.log"))
    directory.rename(tmp_path / "moved")
    access.reopen()
    assert "can not be reopened, the old file goes on: no such file" in caplog.text
    access.note(**REQUEST)
    access.close()
    assert (tmp_path / "moved" / "access.log").read_bytes().count(b"\n") == 1


def test_what_is_noted_after_the_end_is_no_error(tmp_path: Path) -> None:
    access = AccessLog(str(tmp_path / "access.log"))
    access.close()
    access.note(**REQUEST)
    access.flush()
    assert (tmp_path / "access.log").read_bytes() == b""


TO_STDERR = """
import select
import sys
from repowatch.web.access import AccessLog

access = AccessLog("stderr")
for number in range(5000):
    line = f"GET /{number} HTTP/1.1"
    access.note(
        address=None, user=None, request_line=line, status=200, sent=0, referer=None, agent=None, at=0.0
    )
    if number % 150 == 149:  # three pages, of which a pipe does not hold a whole number
        access.flush()
print("answered", flush=True)
while not select.select([sys.stdin], [], [], 0.01)[0]:
    access.flush()
access.close()
"""


def test_a_reader_of_standard_error_that_is_stuck_stops_nobody() -> None:
    with subprocess.Popen(
        [sys.executable, "-c", TO_STDERR],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as writer:
        assert writer.stdin and writer.stdout and writer.stderr
        try:
            assert writer.stdout.readline() == b"answered\n"  # more than a pipe holds, and nobody has read
            lines = [writer.stderr.readline() for _ in range(5000)]
            writer.stdin.close()
            assert writer.wait(60) == 0
        finally:
            writer.kill()
    assert [re.findall(rb'"GET /([0-9]+) HTTP/1.1" 200 - "-" "-"\n$', line) for line in lines] == [
        [b"%d" % number] for number in range(5000)
    ]
