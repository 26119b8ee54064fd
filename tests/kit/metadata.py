"""Reads a repository as a client does: repomd.xml first, then every record that it names, all checked."""

from __future__ import annotations

import bz2
import gzip
import hashlib
import lzma
import subprocess
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path

import createrepo_c

from tests.kit.daemon import Daemon

_OPENERS: Mapping[str, Callable[[bytes], bytes]] = {
    ".gz": gzip.decompress,
    ".bz2": bz2.decompress,
    ".xz": lzma.decompress,
    ".zst": lambda content: (
        subprocess.run(["zstd", "--decompress"], input=content, capture_output=True, check=True).stdout
    ),
}


def listed(daemon: Daemon, name: str) -> dict[str, createrepo_c.Package]:
    """The packages that clients see now, by location_href.

    Raises AssertionError when a record is missing, or is not what repomd.xml says.
    """
    with tempfile.TemporaryDirectory() as scratch:
        repodata = Path(scratch, "repodata")
        repodata.mkdir()
        repomd = repodata / "repomd.xml"
        repomd.write_bytes(_fetch(daemon, f"/{name}/repodata/repomd.xml"))
        for record in createrepo_c.Repomd(str(repomd)).records:
            content = _fetch(daemon, f"/{name}/{record.location_href}")
            _check(record, content)
            Path(scratch, record.location_href).write_bytes(content)
        reader = createrepo_c.RepositoryReader.from_path(scratch)
        packages = list(reader.iter_packages())
    by_location = {package.location_href: package for package in packages}
    assert len(by_location) == len(packages), "a location_href is listed twice"
    return by_location


def locations(daemon: Daemon, name: str) -> set[str]:
    """The location_hrefs that clients see now. Raises as `listed` does."""
    return set(listed(daemon, name))


def _fetch(daemon: Daemon, path: str) -> bytes:
    answer = daemon.get(path)
    assert answer.status == 200, f"{path}: {answer.status} {answer.text}"
    return answer.body


def _check(record: createrepo_c.RepomdRecord, content: bytes) -> None:
    name = record.location_href
    assert len(content) == record.size, name
    assert hashlib.new(record.checksum_type, content).hexdigest() == record.checksum, name
    if record.checksum_open is None:  # it is not compressed
        return
    opened = _OPENERS.get(Path(name).suffix, bytes)(content)
    assert len(opened) == record.size_open, name
    assert hashlib.new(record.checksum_open_type, opened).hexdigest() == record.checksum_open, name
