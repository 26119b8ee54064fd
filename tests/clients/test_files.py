"""Packages that come, change and go as files, with the tools that people use for it."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from tests.clients.conftest import Corner, run
from tests.kit.daemon import wait_until
from tests.kit.rpms import layout, make_rpm, truncate

HELLO = "hello-1.0-1.noarch.rpm"
OTHER = "other-1.0-1.noarch.rpm"


def two(directory: Path) -> set[str]:
    """Make two packages, one in a directory below; their names in it."""
    make_rpm(directory)
    make_rpm(directory / "sub", "other")
    return {HELLO, f"sub/{OTHER}"}


def test_a_copied_file_is_listed(corner: Corner, tmp_path: Path) -> None:
    run("cp", make_rpm(tmp_path), corner.path)
    corner.await_listed(HELLO)


def test_a_file_moved_in_from_outside_is_listed(corner: Corner, tmp_path: Path) -> None:
    run("mv", make_rpm(tmp_path), corner.path)
    corner.await_listed(HELLO)


def test_a_hard_link_is_listed(corner: Corner, tmp_path: Path) -> None:
    run("ln", make_rpm(tmp_path), corner.path)
    corner.await_listed(HELLO)


def test_a_symbolic_link_is_not_listed_and_the_status_says_why(corner: Corner, tmp_path: Path) -> None:
    run("ln", "-s", make_rpm(tmp_path), corner.path)
    wait_until(corner.rejected)
    assert "symbolic link" in corner.rejected()[HELLO]
    assert corner.listed() == set()


def test_a_file_written_slowly_is_listed_when_it_is_whole(corner: Corner, tmp_path: Path) -> None:
    content = make_rpm(tmp_path, files={"/usr/share/large": os.urandom(10_000)}).read_bytes()
    step = len(content) // 100
    with open(corner.path / HELLO, "wb", buffering=0) as file:
        for start in range(0, len(content), step):
            file.write(content[start : start + step])
            assert start + step >= len(content) or corner.listed() == set()
    corner.await_listed(HELLO)
    assert corner.rejected() == {}


def test_a_copy_that_stops_half_way_is_rejected_until_it_goes_on(corner: Corner, tmp_path: Path) -> None:
    content = make_rpm(tmp_path).read_bytes()
    half = layout(tmp_path / HELLO).payload + 1
    (corner.path / HELLO).write_bytes(content[:half])
    wait_until(corner.rejected)
    assert "bytes" in corner.rejected()[HELLO]
    with open(corner.path / HELLO, "ab") as file:
        file.write(content[half:])
    corner.await_listed(HELLO)
    assert corner.rejected() == {}


def test_a_removed_file_is_unlisted(corner: Corner) -> None:
    make_rpm(corner.path), make_rpm(corner.path, "other")
    corner.await_listed(HELLO, OTHER)
    run("rm", corner.path / HELLO)
    corner.await_listed(OTHER)


def test_a_renamed_file_is_listed_under_its_new_name(corner: Corner) -> None:
    make_rpm(corner.path)
    corner.await_listed(HELLO)
    run("mv", corner.path / HELLO, corner.path / "new.rpm")
    corner.await_listed("new.rpm")


def test_a_file_renamed_to_another_kind_of_name_is_unlisted(corner: Corner) -> None:
    make_rpm(corner.path)
    corner.await_listed(HELLO)
    run("mv", corner.path / HELLO, corner.path / "old")
    corner.await_listed()


def test_a_file_moved_over_another_is_listed_in_its_place(corner: Corner, tmp_path: Path) -> None:
    make_rpm(corner.path)
    corner.await_listed(HELLO)
    before = corner.pkgid(HELLO)
    run("mv", "-f", make_rpm(tmp_path, summary="Another"), corner.path)
    wait_until(lambda: corner.pkgid(HELLO) != before)
    assert corner.listed() == {HELLO}


def test_a_listed_file_that_is_damaged_is_unlisted(corner: Corner) -> None:
    make_rpm(corner.path)
    corner.await_listed(HELLO)
    truncate(corner.path / HELLO, size=500)
    corner.await_listed()
    assert HELLO in corner.rejected()


def test_a_file_copied_into_directories_just_made_is_listed(corner: Corner, tmp_path: Path) -> None:
    make_rpm(tmp_path)
    run("sh", "-c", f"mkdir -p a/b && cp '{tmp_path / HELLO}' a/b", cwd=corner.path)
    corner.await_listed(f"a/b/{HELLO}")


def test_a_directory_moved_in_is_listed_and_watched(corner: Corner, tmp_path: Path) -> None:
    names = {f"d/{name}" for name in two(tmp_path / "d")}
    run("mv", tmp_path / "d", corner.path)
    corner.await_listed(*names)
    make_rpm(corner.path / "d" / "sub", "late")
    corner.await_listed(*names, "d/sub/late-1.0-1.noarch.rpm")


def test_a_directory_copied_in_is_listed(corner: Corner, tmp_path: Path) -> None:
    names = two(tmp_path / "d")
    run("cp", "-r", tmp_path / "d", corner.path)
    corner.await_listed(*(f"d/{name}" for name in names))


def test_a_renamed_directory_is_listed_under_its_new_name_and_watched(corner: Corner) -> None:
    names = two(corner.path / "d")
    corner.await_listed(*(f"d/{name}" for name in names))
    run("mv", corner.path / "d", corner.path / "e")
    corner.await_listed(*(f"e/{name}" for name in names))
    run("rm", corner.path / "e" / HELLO)
    corner.await_listed(f"e/sub/{OTHER}")


def test_a_directory_moved_away_is_unlisted(corner: Corner, tmp_path: Path) -> None:
    names = two(corner.path / "d")
    corner.await_listed(*(f"d/{name}" for name in names))
    run("mv", corner.path / "d", tmp_path)
    corner.await_listed()


def test_a_removed_directory_is_unlisted(corner: Corner) -> None:
    names = two(corner.path / "d")
    corner.await_listed(*(f"d/{name}" for name in names))
    run("rm", "-r", corner.path / "d")
    corner.await_listed()


def test_hidden_files_are_not_listed(corner: Corner) -> None:
    make_rpm(corner.path / ".hidden")
    make_rpm(corner.path, filename=".partial.rpm")
    make_rpm(corner.path)
    corner.await_listed(HELLO)
    run("mv", corner.path / ".partial.rpm", corner.path / "whole.rpm")
    corner.await_listed(HELLO, "whole.rpm")


def test_many_files_at_once_are_all_listed(corner: Corner, tmp_path: Path) -> None:
    package = make_rpm(tmp_path)
    names = [f"{number}.rpm" for number in range(300)]
    for name in names:
        shutil.copyfile(package, corner.path / name)
    corner.await_listed(*names)


@pytest.mark.client("rsync")
def test_what_rsync_brings_and_takes_is_followed(corner: Corner, tmp_path: Path) -> None:
    names = two(tmp_path / "from")
    run("rsync", "-a", f"{tmp_path}/from/", f"{corner.path}/")
    corner.await_listed(*names)
    os.unlink(tmp_path / "from" / HELLO)
    make_rpm(tmp_path / "from", "new")
    run("rsync", "-a", "--delete", f"{tmp_path}/from/", f"{corner.path}/")
    corner.await_listed(f"sub/{OTHER}", "new-1.0-1.noarch.rpm")


@pytest.mark.client("rsync")
def test_what_rsync_writes_in_place_is_listed_when_it_is_whole(corner: Corner, tmp_path: Path) -> None:
    make_rpm(tmp_path / "from")
    run("rsync", "-a", "--inplace", f"{tmp_path}/from/", f"{corner.path}/")
    corner.await_listed(HELLO)
