"""The audit: who did what, line by line, whatever happens to the disk."""

from __future__ import annotations

import bz2
import errno
import gzip
import json
import logging
import lzma
import os
import re
import resource
import signal
import stat
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from repowatch.errors import RepowatchError
from repowatch.model.package import Nevra
from repowatch.system.audit import Audit, Change, answers
from tests.kit.daemon import wait_until

AT = 1795876706.25  # 2026-11-28 14:38:26.25 UTC


def change(location: str = "el9/a-1-1.noarch.rpm", **others: Any) -> Change:
    known: dict[str, Any] = {
        "at": AT,
        "who": "anna",
        "how": "basic",
        "address": "192.0.2.7",
        "method": "PUT",
        "repository": "rpm",
        "location": location,
        "status": 201,
    }
    return Change(**(known | others))


def recorded(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text("ascii").splitlines()]


def locations(path: Path, asked: str) -> list[str]:
    return [each["location"] for each in answers(str(path), asked)]


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


class TestRecording:
    def test_a_change_is_one_line_of_json(self, tmp_path: Path) -> None:
        audit = Audit(str(tmp_path / "audit"))
        audit.record(
            change(
                method="MOVE", destination="el9/b.rpm", sha256="ab" * 32, nevra="a-1-1.noarch", revision=17
            )
        )
        audit.close()
        assert (tmp_path / "audit").read_text("ascii") == (
            '{"at":"2026-11-28T14:38:26.250Z","who":"anna","how":"basic","address":"192.0.2.7","method":"MOVE",'
            '"repository":"rpm","location":"el9/a-1-1.noarch.rpm","destination":"el9/b.rpm",'
            f'"sha256":"{"ab" * 32}","nevra":"a-1-1.noarch","revision":17,"status":201}}\n'
        )

    def test_what_is_not_known_is_left_out(self, tmp_path: Path) -> None:
        audit = Audit(str(tmp_path / "audit"))
        audit.record(change(who=None, how="none", address=None))
        audit.close()
        [line] = recorded(tmp_path / "audit")
        assert list(line) == ["at", "how", "method", "repository", "location", "status"]

    @settings(deadline=None)
    @given(location=st.text() | st.binary().map(os.fsdecode), who=st.text())
    def test_any_name_is_one_line_and_comes_back(
        self, tmp_path_factory: pytest.TempPathFactory, location: str, who: str
    ) -> None:
        path = tmp_path_factory.getbasetemp() / "names"
        path.unlink(missing_ok=True)
        audit = Audit(str(path), fdatasync=lambda descriptor: None)
        audit.record(change(location, who=who))
        audit.close()
        assert path.read_bytes().count(b"\n") == 1
        [line] = answers(str(path), location)
        assert (line["location"], line["who"]) == (location, who)

    def test_a_new_file_is_for_its_owner_and_group_alone(self, tmp_path: Path) -> None:
        Audit(str(tmp_path / "audit")).close()
        assert stat.S_IMODE((tmp_path / "audit").stat().st_mode) & 0o137 == 0

    def test_what_can_not_be_opened_is_told_in_plain_words(self, tmp_path: Path) -> None:
        path = str(tmp_path / "missing" / "audit")
        with pytest.raises(RepowatchError, match=re.escape(path) + ": the audit .* no such file.*make its"):
            Audit(path)
        with pytest.raises(RepowatchError, match=r"/dev/null: .* not a regular file"):
            Audit("/dev/null")

    def test_a_line_that_a_power_cut_tore_does_not_take_the_next_one_along(self, tmp_path: Path) -> None:
        path = tmp_path / "audit"
        path.write_bytes(change("first").line() + change("torn").line()[:40])
        audit = Audit(str(path))
        for location in ("second", "third"):
            audit.record(change(location))
        audit.close()
        assert path.read_bytes().count(b"\n") == 4
        assert locations(path, "second") == ["second"]
        assert locations(path, "third") == ["third"]

    def test_a_line_that_did_not_fit_is_an_error_and_spoils_no_other(self, tmp_path: Path) -> None:
        path = tmp_path / "audit"
        audit = Audit(str(path))
        audit.record(change("a"))
        with disk_of(path.stat().st_size + 20):
            for expected in (errno.ENOSPC, errno.EFBIG):  # a part of it fits, then nothing
                with pytest.raises(OSError) as raised:
                    audit.record(change("b"))
                assert raised.value.errno == expected
        audit.record(change("c"))
        audit.close()
        assert [locations(path, each) for each in "abc"] == [["a"], [], ["c"]]
        assert path.read_bytes().count(b"\n") == 3

    def test_what_is_recorded_after_the_end_is_an_error(self, tmp_path: Path) -> None:
        audit = Audit(str(tmp_path / "audit"))
        audit.close()
        with pytest.raises(OSError):
            audit.record(change())


RECORD = """
import sys
from repowatch.system.audit import Audit, Change
audit = Audit(sys.argv[1])
print("open", flush=True)
sys.stdin.readline()
for number in range(2000):
    audit.record(Change(at=0.0, who=sys.argv[2], how="file", address=None, method="PUT", repository="rpm",
                        location=f"{number}" + "x" * (number % 700), status=201), durable=False)
"""


def test_lines_of_two_processes_stand_whole_side_by_side(tmp_path: Path) -> None:
    path = tmp_path / "audit"
    writers = [
        subprocess.Popen(
            [sys.executable, "-c", RECORD, str(path), who], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        for who in ("anna", "ben")
    ]
    try:
        for writer in writers:
            assert writer.stdout is not None
            assert writer.stdout.readline() == b"open\n"
        for writer in writers:
            writer.communicate(b"\n", timeout=60)
    finally:
        for writer in writers:
            writer.kill()
    lines = recorded(path)
    for who in ("anna", "ben"):
        numbers = [int(each["location"].rstrip("x")) for each in lines if each["who"] == who]
        assert numbers == list(range(2000))


class Disk:
    """An fdatasync that waits until it is let go, and counts."""

    def __init__(self) -> None:
        self.entered = threading.Semaphore(0)
        self.go_on = threading.Semaphore(0)
        self.synced: list[int] = []  # how large the file was
        self.fails: list[int] = []  # which syncs

    def fdatasync(self, descriptor: int) -> None:
        self.synced.append(os.fstat(descriptor).st_size)
        number = len(self.synced)
        self.entered.release()
        assert self.go_on.acquire(timeout=30)
        if number in self.fails:
            raise OSError(errno.EIO, os.strerror(errno.EIO))


class Crowd:
    """Threads that record at the same time."""

    def __init__(self, audit: Audit) -> None:
        self._audit = audit
        self._threads: list[threading.Thread] = []
        self.errors: dict[str, OSError] = {}
        self.durable: list[str] = []

    def record(self, location: str) -> None:
        thread = threading.Thread(target=self._record, args=(location,))
        self._threads.append(thread)
        thread.start()

    def join(self) -> None:
        for thread in self._threads:
            thread.join(30)
            assert not thread.is_alive()

    def _record(self, location: str) -> None:
        try:
            self._audit.record(change(location))
        except OSError as error:
            self.errors[location] = error
        else:
            self.durable.append(location)


class TestDurability:
    def test_a_change_is_recorded_when_it_is_durable_and_not_before(self, tmp_path: Path) -> None:
        disk = Disk()
        crowd = Crowd(Audit(str(tmp_path / "audit"), fdatasync=disk.fdatasync))
        crowd.record("a")
        assert disk.entered.acquire(timeout=30)
        assert recorded(tmp_path / "audit")[0]["location"] == "a"
        assert crowd.durable == []
        disk.go_on.release()
        crowd.join()
        assert crowd.durable == ["a"]

    def test_all_that_come_during_one_sync_share_the_next(self, tmp_path: Path) -> None:
        path = tmp_path / "audit"
        disk = Disk()
        crowd = Crowd(Audit(str(path), fdatasync=disk.fdatasync))
        crowd.record("first")
        assert disk.entered.acquire(timeout=30)
        for number in range(100):
            crowd.record(f"{number}")
        wait_until(lambda: len(path.read_bytes().splitlines()) == 101)
        assert crowd.durable == []
        disk.go_on.release(2)
        crowd.join()
        assert len(crowd.durable) == 101
        assert disk.synced[1:] == [path.stat().st_size]

    def test_all_whose_sync_failed_are_told_and_no_others(self, tmp_path: Path) -> None:
        path = tmp_path / "audit"
        disk = Disk()
        disk.fails = [2]
        audit = Audit(str(path), fdatasync=disk.fdatasync)
        crowd = Crowd(audit)
        crowd.record("first")
        assert disk.entered.acquire(timeout=30)
        for number in range(10):
            crowd.record(f"{number}")
        wait_until(lambda: len(path.read_bytes().splitlines()) == 11)
        disk.go_on.release(3)
        crowd.join()
        audit.record(change("last"))
        assert crowd.durable == ["first"]
        assert {error.errno for error in crowd.errors.values()} == {errno.EIO}
        assert len(crowd.errors) == 10
        assert len(disk.synced) == 3

    def test_a_refusal_may_do_without(self, tmp_path: Path) -> None:
        disk = Disk()
        audit = Audit(str(tmp_path / "audit"), fdatasync=disk.fdatasync)
        audit.record(change(status=403), durable=False)
        assert disk.synced == []
        assert recorded(tmp_path / "audit")[0]["status"] == 403
        disk.go_on.release()
        audit.close()
        assert len(disk.synced) == 1


class TestRotation:
    def test_new_lines_go_into_the_new_file(self, tmp_path: Path) -> None:
        path = tmp_path / "audit"
        audit = Audit(str(path))
        audit.record(change("old"))
        path.rename(tmp_path / "audit.1")
        audit.reopen()
        audit.record(change("new"))
        audit.close()
        assert [each["location"] for each in recorded(path)] == ["new"]
        assert [each["location"] for each in recorded(tmp_path / "audit.1")] == ["old"]

    def test_what_waits_for_its_sync_is_made_durable_in_the_old_file(self, tmp_path: Path) -> None:
        path = tmp_path / "audit"
        disk = Disk()
        audit = Audit(str(path), fdatasync=disk.fdatasync)
        crowd = Crowd(audit)
        crowd.record("first")
        assert disk.entered.acquire(timeout=30)
        crowd.record("second")
        wait_until(lambda: len(path.read_bytes().splitlines()) == 2)
        path.rename(tmp_path / "audit.1")
        rotation = threading.Thread(target=audit.reopen)
        rotation.start()
        disk.go_on.release(3)
        rotation.join(30)
        crowd.join()
        assert crowd.errors == {}
        assert disk.synced[1] == (tmp_path / "audit.1").stat().st_size
        assert path.read_bytes() == b""

    def test_where_there_can_be_no_new_file_the_old_one_goes_on(
        self, tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        directory = tmp_path / "log"
        directory.mkdir()
        audit = Audit(str(directory / "audit"))
        directory.rename(tmp_path / "moved")
        audit.reopen()
        assert "can not be reopened, the old file goes on: no such file" in caplog.text
        audit.record(change("a"))
        audit.close()
        assert locations(tmp_path / "moved" / "audit", "a") == ["a"]


PACKED_BY: dict[str, Callable[[bytes], bytes]] = {
    "gz": gzip.compress,
    "xz": lzma.compress,
    "bz2": bz2.compress,
}


def audit_of(path: Path, *changes: Change) -> None:
    path.write_bytes(b"".join(each.line() for each in changes))


class TestAnswers:
    @pytest.mark.parametrize(
        ("asked", "is_meant"),
        [
            ("python3-foo-2:1.0~rc1-3.el9.x86_64", True),
            ("python3-foo-1.0~rc1-3.el9.x86_64", True),
            ("python3-foo-2:1.0~rc1-3.el9", True),
            ("python3-foo-1.0~rc1-3.el9", True),
            ("python3-foo.x86_64", True),
            ("python3-foo", True),
            ("el9/python3-foo.rpm", True),
            ("python3-foo.rpm", True),
            ("el8/foo.rpm", True),  # where it was moved to
            ("python3", False),
            ("python3-foo-1.0~rc1", False),
            ("python3-foo-1:1.0~rc1-3.el9.x86_64", False),
            ("python3-foo.noarch", False),
            ("el9", False),
            ("", False),
        ],
    )
    def test_a_package_is_found_by_all_that_people_call_it(
        self, tmp_path: Path, asked: str, is_meant: bool
    ) -> None:
        nevra = str(Nevra("python3-foo", "2", "1.0~rc1", "3.el9", "x86_64"))
        moved = change("el9/python3-foo.rpm", destination="el8/foo.rpm", nevra=nevra)
        audit_of(tmp_path / "audit", change("el9/bar.rpm", nevra="bar-1-1.noarch"), moved)
        assert locations(tmp_path / "audit", asked) == (["el9/python3-foo.rpm"] if is_meant else [])

    @pytest.mark.parametrize(("asked", "is_meant"), [("a-0:1-1.noarch", True), ("a-1:1-1.noarch", False)])
    def test_an_epoch_of_0_may_be_named(self, tmp_path: Path, asked: str, is_meant: bool) -> None:
        audit_of(tmp_path / "audit", change(nevra=str(Nevra("a", "0", "1", "1", "noarch"))))
        assert bool(locations(tmp_path / "audit", asked)) is is_meant

    def test_older_files_are_read_first(self, tmp_path: Path) -> None:
        def put(name: str, location: str, packed: Callable[[bytes], bytes] = bytes) -> None:
            (tmp_path / name).write_bytes(packed(change(location, nevra="a-1-1.noarch").line()))

        put("audit", "7")
        put("audit.1", "4")
        put("audit.2.gz", "3", gzip.compress)
        put("audit.9.xz", "2", lzma.compress)
        put("audit.10.bz2", "1", bz2.compress)
        put("audit-20261101.gz", "5", gzip.compress)
        put("audit-20261128", "6")
        put("audit-other", "no")
        put("audit.1.orig", "no")
        put("auditor", "no")
        assert locations(tmp_path / "audit", "a") == list("1234567")

    def test_a_file_that_is_being_compressed_is_read_once(self, tmp_path: Path) -> None:
        audit_of(tmp_path / "audit.1", change("a"))
        (tmp_path / "audit.1.gz").write_bytes(b"half")
        assert locations(tmp_path / "audit", "a") == ["a"]

    def test_a_rotation_meanwhile_hides_nothing(self, tmp_path: Path) -> None:
        audit_of(tmp_path / "audit.1", change("x/a"))
        audit_of(tmp_path / "audit", change("y/a"))
        found = answers(str(tmp_path / "audit"), "a")
        assert next(found)["location"] == "x/a"
        (tmp_path / "audit.1").rename(tmp_path / "audit.2")
        (tmp_path / "audit").rename(tmp_path / "audit.1")
        (tmp_path / "audit").write_bytes(b"")
        assert [each["location"] for each in found] == ["y/a"]

    @pytest.mark.parametrize("name", ["audit", "./audit"])
    def test_a_relative_path_is_good(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
    ) -> None:
        monkeypatch.chdir(tmp_path)
        audit = Audit(name)
        audit.record(change("a"))
        audit.close()
        assert [each["location"] for each in answers(name, "a")] == ["a"]

    def test_damaged_lines_are_passed_over_and_counted(
        self, tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        damaged = [b"\0" * 50, b"\xff\xfe", b'"a"', b"17", b'{"location": "a"', b"[" * 100_000]
        odd = [b'{"location": 5, "nevra": ["a"], "destination": null}', b""]
        line = change("a").line()
        (tmp_path / "audit").write_bytes(line + b"\n".join([*damaged, *odd]) + b"\n" + line)
        assert locations(tmp_path / "audit", "a") == ["a", "a"]
        [(_, level, text)] = caplog.record_tuples
        assert level == logging.WARNING
        assert text == f"{tmp_path / 'audit'}: 6 damaged lines of the audit are passed over"

    def test_an_audit_that_is_not_there_is_told(self, tmp_path: Path) -> None:
        path = tmp_path / "audit"
        with pytest.raises(
            RepowatchError, match=re.escape(f"{path}: the audit can not be read: no such file")
        ):
            list(answers(str(path), "a"))
        with pytest.raises(RepowatchError, match=r"missing/audit: .* no such file"):
            list(answers(str(tmp_path / "missing" / "audit"), "a"))

    @pytest.mark.parametrize("name", ["audit.1.gz", "audit.1.xz", "audit.1.bz2"])
    @pytest.mark.parametrize("cut", [0.5, 0.0])
    def test_an_older_file_that_is_damaged_is_named(self, tmp_path: Path, name: str, cut: float) -> None:
        pack = PACKED_BY[name.rpartition(".")[2]]
        packed = pack(change("a").line() * 100)
        (tmp_path / name).write_bytes(packed[: int(len(packed) * cut)] or b"no such format")
        audit_of(tmp_path / "audit", change("a"))
        with pytest.raises(RepowatchError, match=f"{name}: the audit can not be read: .*move this file away"):
            list(answers(str(tmp_path / "audit"), "a"))

    def test_what_is_compressed_in_a_way_that_is_not_known_is_named(self, tmp_path: Path) -> None:
        (tmp_path / "audit.1.zst").write_bytes(b"")
        with pytest.raises(RepowatchError, match=r"audit\.1\.zst: .* decompress it"):
            list(answers(str(tmp_path / "audit"), "a"))
