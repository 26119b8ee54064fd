"""Durable writes, directories, and the lock of a repository."""

from __future__ import annotations

import contextlib
import errno
import os
import resource
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from repowatch.errors import UsageError
from repowatch.system.files import (
    Lock,
    fsync_directory,
    fsync_file,
    is_where_it_seems,
    make_directories,
    remove_if_there,
    write_durably,
)


@pytest.mark.parametrize("count", [0, 1, 511, 512, 513, 2000])
def test_a_file_is_its_pieces_joined_however_many(tmp_path: Path, count: int) -> None:
    pieces = [b"%d\n" % number for number in range(count)]
    path = tmp_path / "file"
    assert write_durably(str(path), iter(pieces)) == len(b"".join(pieces))
    assert path.read_bytes() == b"".join(pieces)


def test_a_short_file_takes_the_place_of_a_longer_one(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"x" * 100)
    write_durably(str(path), [b"short"])
    assert path.read_bytes() == b"short"


def test_a_file_that_does_not_fit_is_removed_and_its_errno_told(tmp_path: Path) -> None:
    path = tmp_path / "file"
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))
    try:
        with pytest.raises(OSError) as raised:
            write_durably(str(path), [b"x" * 700] * 3)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, ignored)
    assert raised.value.errno == errno.EFBIG
    assert not path.exists()


def test_missing_directories_are_made_and_present_ones_left(tmp_path: Path) -> None:
    for _ in range(2):
        make_directories(str(tmp_path / "a" / "b" / "c"), below=str(tmp_path))
        assert (tmp_path / "a" / "b" / "c").is_dir()


def test_a_file_in_the_place_of_a_directory_is_told(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"")
    with pytest.raises(FileExistsError, match="a file is in the place of a directory"):
        make_directories(str(tmp_path / "a"), below=str(tmp_path))


def test_removing_what_is_gone_is_no_error(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"")
    for _ in range(2):
        remove_if_there(str(tmp_path / "a"))
    assert not (tmp_path / "a").exists()
    with pytest.raises(OSError):
        remove_if_there(str(tmp_path))


def test_syncing_what_is_not_there_is_an_error(tmp_path: Path) -> None:
    fsync_directory(str(tmp_path))
    with pytest.raises(FileNotFoundError):
        fsync_directory(str(tmp_path / "gone"))
    with pytest.raises(FileNotFoundError):
        fsync_file(str(tmp_path / "gone"))


def test_a_link_is_not_followed_to_be_synced(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    (tmp_path / "link").symlink_to("file")
    fsync_file(str(tmp_path / "file"))
    with pytest.raises(OSError) as raised:
        fsync_file(str(tmp_path / "link"))
    assert raised.value.errno == errno.ELOOP


def test_a_repository_has_one_writer_whose_pid_is_told(tmp_path: Path) -> None:
    path = str(tmp_path / "lock")
    lock = Lock(path)
    with pytest.raises(UsageError, match=rf"pid {os.getpid()}\) writes this repository"):
        Lock(path)
    lock.release()
    Lock(path).release()


HOLD = """
import sys
from repowatch.system.files import Lock
lock = Lock(sys.argv[1])
print("held", flush=True)
sys.stdin.read()
"""


def test_a_killed_writer_leaves_nothing_behind_that_blocks_the_next(tmp_path: Path) -> None:
    path = str(tmp_path / "lock")
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, path], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"held\n"
        with pytest.raises(UsageError, match=rf"pid {holder.pid}\)"):
            Lock(path)
        holder.kill()
    Lock(path).release()


@pytest.mark.parametrize("name", ["plain", "directory", "directory/plain"])
def test_what_was_opened_by_a_plain_path_is_where_it_seems(tmp_path: Path, name: str) -> None:
    (tmp_path / "directory").mkdir()
    (tmp_path / "plain").touch()
    (tmp_path / "directory" / "plain").touch()
    with _opened(tmp_path.resolve() / name) as descriptor:
        assert is_where_it_seems(descriptor, str(tmp_path.resolve() / name))


@pytest.mark.parametrize("name", ["link", "to-directory/plain", "directory/../plain", "to-directory"])
def test_what_was_opened_over_a_link_is_not(tmp_path: Path, name: str) -> None:
    (tmp_path / "directory").mkdir()
    (tmp_path / "plain").touch()
    (tmp_path / "directory" / "plain").touch()
    (tmp_path / "link").symlink_to("plain")
    (tmp_path / "to-directory").symlink_to("directory")
    path = f"{tmp_path.resolve()}/{name}"
    with _opened(path) as descriptor:
        assert not is_where_it_seems(descriptor, path)


def test_what_can_not_be_told_does_not_seem_right(tmp_path: Path) -> None:
    assert not is_where_it_seems(-1, str(tmp_path))


@contextlib.contextmanager
def _opened(path: str | Path) -> Iterator[int]:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        yield descriptor
    finally:
        os.close(descriptor)
