"""Reads a repository as a slow, distrustful client does, and tells every view that is broken.

A view is what one repomd.xml names. It is whole when each of its files can be had, has the size, checksum
and open-checksum of its record, and primary lists as many packages as it says. Nothing of repowatch is
used to find out.
"""

from __future__ import annotations

import bz2
import gzip
import hashlib
import lzma
import random
import threading
import urllib.error
import urllib.request
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Self
from xml.etree import ElementTree

_REPO = "{http://linux.duke.edu/metadata/repo}"
_COMMON = "{http://linux.duke.edu/metadata/common}"

_OPENERS: Mapping[str, Callable[[bytes], bytes]] = {
    ".gz": gzip.decompress,
    ".bz2": bz2.decompress,
    ".xz": lzma.decompress,
    ".xml": bytes,
}

Fetch = Callable[[str], bytes]  # a path below the repository's root to its content; raises Missing


class Missing(Exception):
    """There is no such file."""


class BrokenView(Exception):
    """A repomd.xml was read, and what it names is not there or is not what it says."""


@dataclass(frozen=True, slots=True)
class View:
    """What one repomd.xml says."""

    revision: int
    packages: Mapping[str, str]  # pkgid by location_href


def from_disk(root: Path) -> Fetch:
    """Reads below a directory."""

    def fetch(path: str) -> bytes:
        try:
            return (root / path).read_bytes()
        except FileNotFoundError:
            raise Missing(path) from None

    return fetch


def over_http(url: str) -> Fetch:
    """Reads below a URL that ends with a slash."""

    def fetch(path: str) -> bytes:
        try:
            with urllib.request.urlopen(url + path, timeout=30) as answer:
                content: bytes = answer.read()
                return content
        except urllib.error.HTTPError as error:
            with error:
                if error.code == 404:
                    raise Missing(path) from None
                raise BrokenView(f"{path}: {error}") from error

    return fetch


def read_view(fetch: Fetch, *, pause: Callable[[], None] = lambda: None) -> View:
    """Read one view, with a pause behind repomd.xml. Raises Missing without one, and BrokenView."""
    repomd = _parsed("repomd.xml", fetch("repodata/repomd.xml"))
    pause()
    primary = None
    for record in repomd.iter(f"{_REPO}data"):
        content = _read_record(record, fetch)
        if record.get("type") == "primary":
            primary = _parsed("primary", content)
    if primary is None:
        raise BrokenView("repomd.xml names no primary")
    packages = {
        _attribute(package, f"{_COMMON}location", "href"): _text(package, f"{_COMMON}checksum")
        for package in primary.iter(f"{_COMMON}package")
    }
    if primary.get("packages") != str(len(packages)):
        raise BrokenView(f"primary says {primary.get('packages')} packages and lists {len(packages)}")
    return View(int(_text(repomd, f"{_REPO}revision")), packages)


def _read_record(record: ElementTree.Element, fetch: Fetch) -> bytes:
    """The open content of the file that a record names. Raises BrokenView."""
    path = _attribute(record, f"{_REPO}location", "href")
    try:
        content = fetch(path)
    except Missing:
        raise BrokenView(f"{path}: repomd.xml names it, and it is not there") from None
    _compare(path, content, record, size="size", checksum="checksum")
    try:
        opened = _OPENERS[Path(path).suffix](content)
    except (OSError, EOFError, zlib.error, lzma.LZMAError) as error:
        raise BrokenView(f"{path}: {error}") from error
    _compare(path, opened, record, size="open-size", checksum="open-checksum")
    return opened


def _compare(path: str, content: bytes, record: ElementTree.Element, *, size: str, checksum: str) -> None:
    wanted = record.find(f"{_REPO}{size}")
    if wanted is not None and wanted.text != str(len(content)):
        raise BrokenView(f"{path}: {len(content)} bytes, {size} says {wanted.text}")
    said = record.find(f"{_REPO}{checksum}")
    if said is None or hashlib.new(said.get("type", ""), content).hexdigest() != said.text:
        raise BrokenView(f"{path}: it does not have its {checksum}")


def _parsed(name: str, content: bytes) -> ElementTree.Element:
    try:
        return ElementTree.fromstring(content)
    except ElementTree.ParseError as error:
        raise BrokenView(f"{name}: {error}") from error


def _attribute(parent: ElementTree.Element, tag: str, name: str) -> str:
    found = parent.find(tag)
    if found is None or name not in found.attrib:
        raise BrokenView(f"a {parent.tag} without {tag} {name}")
    return found.attrib[name]


def _text(parent: ElementTree.Element, tag: str) -> str:
    found = parent.find(tag)
    if found is None or found.text is None:
        raise BrokenView(f"a {parent.tag} without {tag}")
    return found.text


@dataclass(slots=True)
class Crowd:
    """Threads that read views, one after the other with random pauses, for as long as the context lasts."""

    fetch: Fetch
    readers: int = 3
    longest_pause: float = 0.5  # seconds between repomd.xml and the first file that it names
    seed: int = 1
    views: int = 0
    absent: int = 0  # times that there was no repomd.xml
    broken: list[str] = field(default_factory=list)
    failed: list[BaseException] = field(default_factory=list)
    _ends: threading.Event = field(default_factory=threading.Event)
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _threads: list[threading.Thread] = field(default_factory=list)

    def __enter__(self) -> Self:
        self._threads = [
            threading.Thread(target=self._run, args=(random.Random(self.seed + number),))
            for number in range(self.readers)
        ]
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ends.set()
        for thread in self._threads:
            thread.join()
        if self.failed and error is None:
            raise self.failed[0]

    def _run(self, chance: random.Random) -> None:
        try:
            while not self._ends.is_set():
                self._read(chance)
        except Exception as error:
            self.failed.append(error)

    def _read(self, chance: random.Random) -> None:
        """One view. Half of the readers do not pause at all: they hit the moment of the change."""
        seconds = chance.choice((0.0, chance.uniform(0.0, self.longest_pause)))
        try:
            read_view(self.fetch, pause=lambda: self._pause(seconds))
        except Missing:
            with self._lock:
                self.absent += 1
        except BrokenView as error:
            with self._lock:
                self.broken.append(str(error))
        with self._lock:
            self.views += 1

    def _pause(self, seconds: float) -> None:
        if seconds:
            self._ends.wait(seconds)
