"""Stamps and names of packages."""

from __future__ import annotations

import os
from pathlib import Path

from repowatch.model.package import Nevra, Stamp


def stamp_of(path: Path) -> Stamp:
    return Stamp.of(os.lstat(path))


def test_an_epoch_of_0_is_not_written() -> None:
    assert str(Nevra("a", "0", "1.0", "2", "noarch")) == "a-1.0-2.noarch"
    assert str(Nevra("a", "3", "1.0", "2", "noarch")) == "a-3:1.0-2.noarch"


def test_a_renamed_file_is_known_by_its_stamp(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"content")
    before = stamp_of(tmp_path / "a")
    (tmp_path / "a").rename(tmp_path / "b")
    assert stamp_of(tmp_path / "b").is_moved(before)


def test_another_file_of_the_same_size_and_mtime_is_not_a_renamed_one(tmp_path: Path) -> None:
    for name in "ab":
        (tmp_path / name).write_bytes(b"content")
        os.utime(tmp_path / name, (1, 1))
    assert not stamp_of(tmp_path / "a").is_moved(stamp_of(tmp_path / "b"))
