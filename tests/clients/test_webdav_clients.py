"""rclone, cadaver and litmus, the WebDAV test suite."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.clients.conftest import Corner, run
from tests.kit.rpms import flip_byte, layout, make_rpm

HELLO = "hello-1.0-1.noarch.rpm"
OTHER = "other-1.0-1.noarch.rpm"


def rclone(*arguments: str | Path, check: bool = True) -> str:
    return run("rclone", "--config", "", "--retries", "1", *arguments, check=check)


def remote(corner: Corner) -> str:
    """The corner as rclone calls it: a remote that no configuration knows."""
    return f":webdav,url='{corner.url}':"


@pytest.mark.client("rclone")
def test_rclone_brings_a_directory_of_packages(corner: Corner, tmp_path: Path) -> None:
    make_rpm(tmp_path / "from"), make_rpm(tmp_path / "from" / "sub", "other")
    rclone("copy", tmp_path / "from", remote(corner))
    assert corner.listed() == {HELLO, f"sub/{OTHER}"}
    assert set(rclone("lsf", "-R", remote(corner)).split()) == {HELLO, "sub/", f"sub/{OTHER}"}
    assert "0 differences found" in rclone("check", "--download", tmp_path / "from", remote(corner))


@pytest.mark.client("rclone")
def test_rclone_makes_the_repository_what_the_source_is(corner: Corner, tmp_path: Path) -> None:
    make_rpm(corner.path, "surplus")
    make_rpm(tmp_path / "from")
    rclone("sync", tmp_path / "from", remote(corner))
    assert corner.listed() == {HELLO}
    rclone("moveto", f"{remote(corner)}{HELLO}", f"{remote(corner)}moved.rpm")
    assert corner.listed() == {"moved.rpm"}
    rclone("purge", remote(corner))
    assert corner.listed() == set()


@pytest.mark.client("rclone")
def test_rclone_is_told_of_a_package_that_is_not_whole(corner: Corner, tmp_path: Path) -> None:
    package = make_rpm(tmp_path / "from")
    flip_byte(package, offset=layout(package).end - 1)
    assert "422" in rclone("copy", tmp_path / "from", remote(corner), check=False)
    assert corner.files() == set()


@pytest.mark.client("cadaver")
def test_cadaver_walks_through_the_repository(corner: Corner, tmp_path: Path) -> None:
    package = make_rpm(tmp_path)
    script = f"""
put {package}
mkcol sub
move {HELLO} sub/{HELLO}
copy sub/{HELLO} copy.rpm
ls
get copy.rpm {tmp_path}/fetched
delete copy.rpm
quit
"""
    told = run("cadaver", corner.url, stdin=script, cwd=tmp_path)
    assert "failed" not in told
    assert re.search(r"Coll:\s+sub\b", told)
    assert re.search(r"\bcopy\.rpm\b", told)
    assert (tmp_path / "fetched").read_bytes() == package.read_bytes()
    assert corner.listed() == {f"sub/{HELLO}"}
    assert corner.files() == {f"sub/{HELLO}"}


@pytest.mark.client("litmus")
def test_litmus_passes_without_a_warning(corner: Corner, tmp_path: Path) -> None:
    told = run("litmus", "--keep-going", corner.url, cwd=tmp_path)
    groups = re.findall(r"summary for `(\w+)': of (\d+) tests run: (\d+) passed, 0 failed", told)
    assert [name for name, _, _ in groups] == ["basic", "copymove", "props", "locks", "http"]
    assert all(tests == passed for _, tests, passed in groups)
    assert "WARNING" not in told
    assert "SKIPPED" not in told.upper()
