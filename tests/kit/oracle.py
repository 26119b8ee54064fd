"""createrepo_c's own command line, run from scratch over a copy of a tree: what has to be published of it."""

from __future__ import annotations

import gzip
import hashlib
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from pathlib import Path

import createrepo_c

from repowatch.model.repomd import parse

KINDS = ("primary", "filelists", "other")


@cache
def command() -> str:
    """The command of the version that is imported. Raises AssertionError when there is none."""
    path = os.pathsep.join([os.path.dirname(sys.executable), os.environ.get("PATH", os.defpath)])
    found = shutil.which("createrepo_c", path=path)
    assert found is not None, "createrepo_c's command line is not installed"
    told = subprocess.run([found, "--version"], capture_output=True, text=True, check=True).stdout
    assert f" {createrepo_c.VERSION}" in told, f"{found} is not {createrepo_c.VERSION}: {told}"
    return found


def createrepo(tree: Path, *options: str) -> None:
    """Make the metadata of a tree from scratch, with gzip."""
    arguments = ["--general-compress-type", "gz", "--quiet", *options, str(tree)]
    done = subprocess.run([command(), *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def expected(
    root: Path, *, scratch: Path, is_rejected: Callable[[Path], bool], options: Sequence[str] = ()
) -> dict[str, bytes]:
    """The open bytes of each metadata file that createrepo_c makes of what counts in the tree.

    `scratch` does not exist, and is on the file system of `root`; `options` are createrepo_c's.
    """
    scratch.mkdir()
    for path in packages(root):
        if not is_rejected(path):
            copy = scratch / path.relative_to(root)
            copy.parent.mkdir(parents=True, exist_ok=True)
            os.link(path, copy)
    createrepo(scratch, "--no-database", *options)
    made = published(scratch)
    shutil.rmtree(scratch)
    return made


def packages(root: Path) -> Iterator[Path]:
    """The files that count: neither hidden nor links, below no hidden directory and not in repodata/."""
    for directory, below, names in os.walk(root):
        below[:] = [name for name in below if not name.startswith(".")]
        if Path(directory) == root and "repodata" in below:
            below.remove("repodata")
        for name in names:
            path = Path(directory, name)
            if (
                name.endswith(".rpm")
                and not name.startswith(".")
                and path.is_file()
                and not path.is_symlink()
            ):
                yield path


def published(root: Path) -> dict[str, bytes]:
    """The open bytes of each metadata file, as a client gets them.

    Raises AssertionError when a file is not what repomd.xml says.
    """
    repomd = parse((root / "repodata" / "repomd.xml").read_bytes())
    opened = {}
    for record in repomd.records:
        content = (root / record.location_href).read_bytes()
        assert hashlib.new(record.checksum_type, content).hexdigest() == record.checksum
        assert len(content) == record.size
        if record.type in KINDS:
            opened[record.type] = gzip.decompress(content)
            checksum = hashlib.new(record.open_checksum_type, opened[record.type]).hexdigest()
            assert checksum == record.open_checksum
            assert len(opened[record.type]) == record.open_size
    assert set(opened) == set(KINDS)
    return opened
