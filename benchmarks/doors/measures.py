"""What is measured of every server, and which ratios are asked for."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from time import perf_counter
from xml.etree import ElementTree

from benchmarks.doors import clients
from benchmarks.doors.content import (
    ARRIVING,
    FILE_SIZE,
    LARGE,
    MEMBERS,
    ONE_MIB,
    REPOSITORY,
    SMALL,
    Content,
)
from benchmarks.doors.extent import MIB, Extent
from benchmarks.doors.servers import APACHE, Server
from repowatch.system.files import fsync_directory

AT_ONCE = 8  # small files
_REPOMD = "{http://linux.duke.edu/metadata/repo}"


@dataclass(frozen=True, slots=True)
class Asked:
    """Ratios that are asked for: of speeds, where more is better, or of times."""

    of_times: bool = False
    apache: float | None = None
    nginx: float | None = None
    fsyncs: float | None = None  # or else this, as a ratio of times to the bare fsyncs


@dataclass(frozen=True, slots=True)
class Measure:
    """One row: `run` gives seconds; `amount` in these seconds is what people are told, in `unit`."""

    title: str
    run: Callable[[Server], float]
    asked: Asked = Asked()
    amount: float | None = None
    unit: str = "s"
    floor: Callable[[], float] | None = None


def all_of(content: Content, extent: Extent, *, scratch: Path) -> list[Measure]:
    """Everything, in the order of the page."""
    return [
        *_gets(extent),
        *_storms(content, extent, scratch=scratch),
        *_puts(content, extent, scratch=scratch),
    ]


def _gets(extent: Extent) -> Iterator[Measure]:
    large = extent.large / MIB
    asked = Asked(apache=1.0, nginx=0.9)
    one_mib = partial(_fetch, ONE_MIB, times=extent.gets)
    yield Measure("GET 1 MiB", one_mib, asked, extent.gets, "MiB/s")
    yield Measure(f"GET {_size(large)}", partial(_fetch, LARGE), asked, large, "MiB/s")
    for connections in (16, 64):
        yield Measure(
            f"GET 2 KiB, {connections} connections",
            partial(_small, connections=connections, seconds=extent.small_seconds),
            Asked(apache=0.5),
            1,
            "a second",
        )


def _fetch(path: str, server: Server, times: int = 1) -> float:
    return clients.fetch(server.url(path), times=times)


def _small(server: Server, *, connections: int, seconds: int) -> float:
    # Apache's event MPM closes connections that it kept alive when all its workers are busy.
    may_close = server.name == APACHE
    return clients.ask_again_and_again(
        server.url(SMALL), connections=connections, seconds=seconds, may_close=may_close
    )


def _storms(content: Content, extent: Extent, *, scratch: Path) -> Iterator[Measure]:
    for tls in (False, True):
        run = partial(_storm, content.fetched, clients_=extent.clients, tls=tls, aside=scratch / "urls")
        title = f"{extent.clients} clients, {'TLS' if tls else 'plain'}"
        yield Measure(title, run, Asked(of_times=True, apache=1.2, nginx=1.5))


def _storm(packages: Sequence[str], server: Server, *, clients_: int, tls: bool, aside: Path) -> float:
    paths = [*_metadata(server.place.tree / "rpm"), *packages]
    return clients.storm([server.url(path, tls=tls) for path in paths], clients=clients_, aside=aside)


def _metadata(root: Path) -> Iterator[str]:
    """What a client reads that wants to know all: repomd.xml and the files it names."""
    yield f"{REPOSITORY}repodata/repomd.xml"
    repomd = ElementTree.parse(root / "repodata" / "repomd.xml")  # noqa: S314 - our own
    for location in repomd.iter(f"{_REPOMD}location"):
        yield f"{REPOSITORY}{location.get('href')}"


def _puts(content: Content, extent: Extent, *, scratch: Path) -> Iterator[Measure]:
    sizes = [
        (100.0, content.medium_file, content.medium_package),
        (extent.large / MIB, content.large_file, content.large_package),
    ]
    for size, file, _ in sizes:
        put = partial(_put, file, f"{ARRIVING}{file.name}")
        yield Measure(f"PUT {_size(size)}", put, Asked(apache=1.0, nginx=0.8), size, "MiB/s")
    for size, _, package in sizes:
        put = partial(_put, package, f"{REPOSITORY}{package.name}")
        yield Measure(f"PUT {_size(size)}, an RPM", put, Asked(apache=0.8), size, "MiB/s")
    files = sorted(content.files.iterdir())
    yield Measure(
        f"PUT {len(files):,} files of {FILE_SIZE // 1024} KiB, {AT_ONCE} at once",
        partial(_put_all, files),
        Asked(apache=0.5, fsyncs=1.2),
        len(files),
        "a second",
        floor=partial(bare_fsyncs, files, aside=scratch / "fsyncs"),
    )
    yield Measure(f"PROPFIND of {extent.members:,} files", _propfind, Asked(of_times=True, apache=2.0))


def _size(mib: float) -> str:
    return f"{mib / 1024:g} GiB" if mib >= 1024 else f"{mib:g} MiB"


def _put(path: Path, to: str, server: Server) -> float:
    """A new file; it is removed then."""
    seconds = clients.send(path, server.url(to))
    clients.ask("DELETE", server.url(to))
    return seconds


def _put_all(paths: Sequence[Path], server: Server) -> float:
    directory = server.url(f"{ARRIVING}some/")
    clients.ask("MKCOL", directory)
    seconds = clients.send_all(paths, directory, at_once=AT_ONCE)
    clients.ask("DELETE", directory)
    return seconds


def _propfind(server: Server) -> float:
    return clients.ask("PROPFIND", server.url(MEMBERS), "Depth: 1")


def bare_fsyncs(paths: Sequence[Path], *, aside: Path) -> float:
    """Seconds to write, sync, rename and sync the directory, for each file, as many at once; then they go."""
    aside.mkdir()
    block = bytes(FILE_SIZE)
    began = perf_counter()
    with ThreadPoolExecutor(AT_ONCE) as pool:
        list(pool.map(partial(_store, aside, block), range(len(paths))))
    seconds = perf_counter() - began
    for path in aside.iterdir():
        path.unlink()
    aside.rmdir()
    return seconds


def _store(directory: Path, block: bytes, number: int) -> None:
    staged = directory / f"staged-{threading.get_ident()}"
    with staged.open("wb", buffering=0) as stream:
        stream.write(block)
        os.fsync(stream.fileno())
    staged.rename(directory / f"{number}.bin")
    fsync_directory(str(directory))
