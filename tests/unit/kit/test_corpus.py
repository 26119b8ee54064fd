"""The benchmarks' corpus: real packages, the same each time."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import createrepo_c
import pytest

from benchmarks.corpus import Member, make, members, write_member


def tree(directory: Path) -> dict[str, bytes]:
    return {str(path.relative_to(directory)): path.read_bytes() for path in directory.rglob("*.rpm")}


def test_a_small_corpus_is_a_prefix_of_a_large_one(tmp_path: Path) -> None:
    small = make(tmp_path / "small", 20, processes=1)
    large = make(tmp_path / "large", 40, processes=1)
    rest = make(tmp_path / "small", 20, skip=20, processes=1)
    assert [path.name for path in small + rest] == [path.name for path in large]
    assert tree(tmp_path / "small") == tree(tmp_path / "large")


def test_another_edition_has_the_same_name_and_other_content(tmp_path: Path) -> None:
    member = next(members(1))
    old = write_member(tmp_path / "old", member, seed=1)
    new = write_member(tmp_path / "new", member, seed=1, edition=1)
    assert old.name == new.name
    assert old.read_bytes() != new.read_bytes()


def test_seeds_make_different_packages(tmp_path: Path) -> None:
    names = {write_member(tmp_path, Member(0, 0), seed=seed).name for seed in range(5)}
    assert len(names) == 5


def test_createrepo_c_lists_every_package_with_its_files_and_changelog(tmp_path: Path) -> None:
    made = make(tmp_path, 30, processes=1)
    command = Path(sys.executable).with_name("createrepo_c")
    if not command.exists():
        pytest.skip("createrepo_c's command is not beside Python")
    subprocess.run([command, "--quiet", tmp_path], check=True)
    read = createrepo_c.Metadata()
    read.locate_and_load_xml(str(tmp_path))
    packages = [read.get(key) for key in read.keys()]  # noqa: SIM118 - not a mapping
    assert sorted(package.location_href for package in packages) == sorted(
        str(path.relative_to(tmp_path)) for path in made
    )
    assert all(package.files and len(package.changelogs) == 10 for package in packages)
