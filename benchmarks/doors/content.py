"""What all servers serve, and what is uploaded to them: made once, and linked into a tree for each."""

from __future__ import annotations

import os
import random
import shutil
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path

from benchmarks import corpus
from benchmarks.doors.extent import MIB, Extent
from tests.kit.daemon import repowatch
from tests.kit.rpms import make_rpm

SMALL, ONE_MIB, LARGE = "/files/small", "/files/mib", "/files/large"
MEMBERS = "/files/members/"
ARRIVING = "/files/arriving/"  # what is uploaded and is no package
REPOSITORY = "/rpm/"

SMALL_SIZE = 2048
FILE_SIZE = 50 * 1024
FETCHED = 20
# Bytes of payload of the packages that clients fetch: from 10 KiB to 1 MiB, 4.3 MiB together.
PAYLOADS = tuple(round(10 * 1024 * 102.4 ** (number / (FETCHED - 1))) for number in range(FETCHED))
PACKAGE = 100 * MIB  # the smaller one that is uploaded


@dataclass(frozen=True, slots=True)
class Content:
    """Where things lie."""

    tree: Path  # ours; the others get copies
    fetched: tuple[str, ...]  # paths of URLs, of packages
    files: Path  # a directory of small ones
    medium_file: Path
    large_file: Path
    medium_package: Path
    large_package: Path


def make(scratch: Path, extent: Extent) -> Content:
    """Make it all below `scratch`, with metadata."""
    tree, uploads = scratch / "tree", scratch / "uploads"
    _write_files(tree / "files", extent)
    _write(uploads / "medium", 100 * MIB)
    packages = [_in_a_process(uploads, name, size) for name, size in _package_sizes(extent)]
    for number in range(extent.files):
        _write(uploads / "files" / f"{number:04d}.bin", FILE_SIZE)
    return Content(
        tree=tree,
        fetched=_repository(tree / "rpm", extent),
        files=uploads / "files",
        medium_file=uploads / "medium",
        large_file=tree / "files" / "large",
        medium_package=packages[0],
        large_package=packages[1],
    )


def _package_sizes(extent: Extent) -> list[tuple[str, int]]:
    return [("medium", min(PACKAGE, extent.large)), ("large", extent.large)]


def _write_files(directory: Path, extent: Extent) -> None:
    _write(directory / "small", SMALL_SIZE)
    _write(directory / "mib", MIB)
    _write(directory / "large", extent.large)
    (directory / "arriving").mkdir()
    for number in range(extent.members):
        _write(directory / "members" / f"member-{number:05d}.txt", 16)


def _write(path: Path, size: int) -> None:
    """Bytes that are not all alike; a large file repeats itself."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as stream:
        for block in _blocks(size):
            stream.write(block)


def _blocks(size: int) -> list[bytes]:
    block = random.Random(size).randbytes(min(size, 16 * MIB))  # noqa: S311 - the same each time is wanted
    whole, rest = divmod(size, len(block))
    return [block] * whole + [block[:rest]]


def _in_a_process(directory: Path, name: str, size: int) -> Path:
    """Write a package; the memory that it takes, some times its size, ends with the process."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return pool.submit(_write_package, directory, name, size).result()


def _write_package(directory: Path, name: str, size: int) -> Path:
    files = {f"/usr/share/{name}/data": b"".join(_blocks(size))}
    return make_rpm(directory, name, files=files, payload="none")


def _repository(root: Path, extent: Extent) -> tuple[str, ...]:
    corpus.make(root, extent.listed - FETCHED)
    fetched = [
        _write_package(root / "Packages" / "fetched", f"fetched{number}", size)
        for number, size in enumerate(PAYLOADS)
    ]
    done = repowatch("index", root)
    if done.returncode:
        raise AssertionError(f"repowatch index: {done.stderr}")
    return tuple(f"{REPOSITORY}{path.relative_to(root)}" for path in fetched)


def link(tree: Path, target: Path, *, owner: str | None) -> None:
    """Make a tree of the same files, in directories of its own that belong to `owner`."""
    for directory, names, files in os.walk(tree):
        names[:] = [name for name in names if not name.startswith(".")]
        there = target / Path(directory).relative_to(tree)
        there.mkdir(parents=True)
        for name in files:
            os.link(Path(directory, name), there / name)
        if owner is not None:
            shutil.chown(there, owner)
