"""A second place for the content of a file: the same bytes and times, by the cheapest way there is."""

from __future__ import annotations

import errno
import fcntl
import os
from pathlib import Path

import pytest

from repowatch.system.second import give_second_place
from tests.kit.loopfs import memory_disk, require_mounts


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "a.rpm"
    path.write_bytes(b"content" * 100_000)
    os.utime(path, ns=(1, 1_234_567_890))
    return path


def is_same(source: Path, new: Path) -> bool:
    status = new.stat()
    return (new.read_bytes(), status.st_mtime_ns) == (source.read_bytes(), source.stat().st_mtime_ns)


def test_it_is_cloned_or_linked_on_the_same_file_system(source: Path, tmp_path: Path) -> None:
    new = tmp_path / "b.rpm"
    how = give_second_place(str(source), str(new))
    assert how in ("cloned", "linked")
    assert is_same(source, new)
    assert os.path.samefile(source, new) == (how == "linked")


def test_it_is_another_file_where_it_must_not_be_linked(source: Path, tmp_path: Path) -> None:
    new = tmp_path / "b.rpm"
    assert give_second_place(str(source), str(new), may_link=False) in ("cloned", "copied")
    assert is_same(source, new)
    with open(new, "r+b") as file:
        file.write(b"CHANGED")
    assert source.read_bytes().startswith(b"content")


def test_blocks_that_can_be_shared_are_no_copy(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def clone(target: int, request: int, origin: int) -> int:
        os.write(target, os.pread(origin, 1 << 20, 0))
        return 0

    monkeypatch.setattr(fcntl, "ioctl", clone)
    assert give_second_place(str(source), str(tmp_path / "b.rpm")) == "cloned"
    assert is_same(source, tmp_path / "b.rpm")


def test_it_is_copied_to_another_file_system(source: Path, tmp_path: Path) -> None:
    require_mounts()
    with memory_disk(tmp_path / "disk", kilobytes=2048) as disk:
        assert give_second_place(str(source), str(disk / "b.rpm")) == "copied"
        assert is_same(source, disk / "b.rpm")


def test_a_disk_that_is_full_leaves_nothing(source: Path, tmp_path: Path) -> None:
    require_mounts()
    with memory_disk(tmp_path / "disk", kilobytes=64) as disk:
        with pytest.raises(OSError, match="No space"):
            give_second_place(str(source), str(disk / "b.rpm"))
        assert os.listdir(disk) == []


def test_a_symbolic_link_is_refused(source: Path, tmp_path: Path) -> None:
    (tmp_path / "link.rpm").symlink_to(source)
    with pytest.raises(OSError) as refused:
        give_second_place(str(tmp_path / "link.rpm"), str(tmp_path / "b.rpm"))
    assert refused.value.errno == errno.ELOOP
