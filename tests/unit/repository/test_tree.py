"""Which files count as packages."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from repowatch.model.package import Stamp
from repowatch.repository.tree import Found, Tree


def touch(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"content")
    return path


def found(root: Path, directory: str = "", *, exclude: tuple[str, ...] = ()) -> dict[str, str | None]:
    """What a scan finds, with its problem."""
    return {each.location_href: each.problem for each in Tree(str(root), exclude=exclude).scan(directory)}


def test_every_rpm_counts_however_deep_and_whatever_its_name(tmp_path: Path) -> None:
    names = ["a.rpm", "x/y/b.rpm", "a b#%&'\"é\n.rpm", "x/repodata/c.rpm", os.fsdecode(b"caf\xe9.rpm")]
    for name in names:
        touch(tmp_path / name)
    touch(tmp_path / "README")
    touch(tmp_path / "a.rpm.part")
    assert found(tmp_path) == dict.fromkeys(names)


def test_a_found_file_has_the_stamp_of_the_file(tmp_path: Path) -> None:
    path = touch(tmp_path / "a.rpm")
    wanted = Found("a.rpm", str(path), Stamp.of(path.stat()))
    assert list(Tree(str(tmp_path)).scan()) == [wanted]
    assert Tree(str(tmp_path)).look("a.rpm") == wanted


@pytest.mark.parametrize("name", [".a.rpm", ".hidden/a.rpm", "x/.y/a.rpm", "repodata/a.rpm"])
def test_hidden_names_and_the_metadata_do_not_exist(tmp_path: Path, name: str) -> None:
    touch(tmp_path / name)
    tree = Tree(str(tmp_path))
    assert found(tmp_path) == {}
    assert tree.look(name) is None
    assert not tree.concerns(name)


@pytest.mark.parametrize("pattern", ["*.drpm.rpm", "old/*", "old/x.drpm.rpm"])
def test_an_excluded_file_is_no_package_by_basename_or_path(tmp_path: Path, pattern: str) -> None:
    touch(tmp_path / "old" / "x.drpm.rpm")
    touch(tmp_path / "new.rpm")
    assert found(tmp_path, exclude=(pattern,)) == {"new.rpm": None}
    assert Tree(str(tmp_path), exclude=(pattern,)).look("old/x.drpm.rpm") is None


def problem(tree: Tree, location_href: str) -> str:
    """The problem of a name, which has to be the same to a look and to a scan."""
    (scanned,) = [each for each in tree.scan() if each.location_href == location_href]
    assert tree.look(location_href) == scanned
    assert scanned.problem is not None
    return scanned.problem


def test_a_link_within_the_tree_is_the_file_behind_it_under_another_name(tmp_path: Path) -> None:
    path = touch(tmp_path / "pool" / "a.rpm")
    (tmp_path / "link.rpm").symlink_to("pool/a.rpm")
    (tmp_path / "directory").symlink_to("pool")
    tree = Tree(str(tmp_path))
    stamp = Stamp.of(path.stat())
    wanted = {name: Found(name, str(path), stamp) for name in ("pool/a.rpm", "link.rpm", "directory/a.rpm")}
    assert {each.location_href: each for each in tree.scan()} == wanted
    assert {name: tree.look(name) for name in wanted} == wanted


def test_a_link_out_of_the_tree_is_told_and_not_followed(tmp_path: Path) -> None:
    touch(tmp_path / "outside" / "b.rpm")
    root = tmp_path / "root"
    root.mkdir()
    (root / "link.rpm").symlink_to("../outside/b.rpm")
    (root / "directory").symlink_to("../outside")
    tree = Tree(str(root))
    assert "out of the tree" in problem(tree, "link.rpm")
    assert {each.location_href for each in tree.scan()} == {"link.rpm", "directory/"}
    assert not tree.may_lead_to(str(tmp_path / "outside" / "b.rpm"))
    assert list(tree.scan("directory")) == []


def test_a_link_may_lead_to_where_follow_says(tmp_path: Path) -> None:
    path = touch(tmp_path / "outside" / "b.rpm")
    root = tmp_path / "root"
    root.mkdir()
    (root / "directory").symlink_to("../outside")
    tree = Tree(str(root), follow=[str(tmp_path / "outside")])
    assert [each.path for each in tree.scan()] == [str(path)]
    assert tree.names_of(str(path)) == ["directory/b.rpm"]


@pytest.mark.parametrize("target", [".hidden/a.rpm", "repodata/a.rpm", ".repowatch/staging/a.rpm"])
def test_a_link_does_not_make_a_hidden_file_visible(tmp_path: Path, target: str) -> None:
    touch(tmp_path / target)
    (tmp_path / "link.rpm").symlink_to(target)
    assert problem(Tree(str(tmp_path)), "link.rpm")


def test_a_link_to_nothing_is_told(tmp_path: Path) -> None:
    (tmp_path / "link.rpm").symlink_to("nowhere.rpm")
    assert problem(Tree(str(tmp_path)), "link.rpm") == "a symbolic link to nothing"


def test_links_in_a_circle_end(tmp_path: Path) -> None:
    touch(tmp_path / "x" / "a.rpm")
    (tmp_path / "x" / "up").symlink_to("..")
    (tmp_path / "self.rpm").symlink_to("self.rpm")
    listed = found(tmp_path)
    assert listed.pop("x/a.rpm") is None
    assert set(listed) == {"x/up/", "self.rpm"}
    assert all(listed.values())


def test_a_fifo_is_told_and_not_opened(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.rpm")
    assert found(tmp_path) == {"a.rpm": "not a regular file"}


def test_a_directory_called_like_a_package_is_a_directory(tmp_path: Path) -> None:
    touch(tmp_path / "x.rpm" / "a.rpm")
    assert found(tmp_path) == {"x.rpm/a.rpm": None}
    look = Tree(str(tmp_path)).look("x.rpm")
    assert look is not None and look.problem == "a directory whose name ends in .rpm"


@pytest.mark.parametrize("name", ["gone.rpm", "gone/a.rpm", "a.rpm/b.rpm"])
def test_a_name_that_nothing_has_is_not_found(tmp_path: Path, name: str) -> None:
    touch(tmp_path / "a.rpm")
    assert Tree(str(tmp_path)).look(name) is None


def test_a_scan_can_begin_at_a_directory_and_finds_nothing_where_there_is_none(tmp_path: Path) -> None:
    touch(tmp_path / "x" / "a.rpm")
    touch(tmp_path / "b.rpm")
    assert found(tmp_path, "x") == {"x/a.rpm": None}
    assert found(tmp_path, "gone") == found(tmp_path, "b.rpm") == {}


def test_what_changed_lately_is_found_fresh(tmp_path: Path) -> None:
    changed = touch(tmp_path / "a.rpm").stat().st_ctime
    tree = Tree(str(tmp_path))
    assert [each.fresh for each in tree.scan(quiet_since=changed - 1)] == [True]
    assert [each.fresh for each in tree.scan(quiet_since=changed)] == [False]
    assert [each.fresh for each in tree.scan()] == [False]


AS_NOBODY = """
import os, sys
from repowatch.repository.tree import Tree
if os.geteuid() == 0:
    os.seteuid(65534)
for found in Tree(sys.argv[1]).scan():
    print(found.location_href, found.problem, sep=": ")
"""


def test_a_directory_that_can_not_be_read_is_told_under_its_name_with_a_slash() -> None:
    # Not tmp_path: pytest keeps everyone else out of that.
    with tempfile.TemporaryDirectory() as scratch:
        root = Path(scratch).resolve()
        root.chmod(0o755)
        touch(root / "locked" / "a.rpm")
        touch(root / "open" / "b.rpm")
        (root / "locked").chmod(0)
        told = subprocess.run(
            [sys.executable, "-c", AS_NOBODY, root],
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
            capture_output=True,
            text=True,
            check=True,
        )
        (root / "locked").chmod(0o700)
    assert sorted(told.stdout.splitlines()) == [
        "locked/: not readable: permission denied",
        "open/b.rpm: None",
    ]
