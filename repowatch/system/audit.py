"""The audit: one line of JSON for each change, outside the tree, that outlasts a power cut."""

from __future__ import annotations

import bz2
import contextlib
import errno
import gzip
import io
import json
import logging
import lzma
import os
import re
import stat
import threading
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields
from datetime import UTC, datetime
from typing import Any

from repowatch.errors import RepowatchError
from repowatch.system.files import fsync_directory

log = logging.getLogger(__name__)

# What logrotate calls older files: audit.1, audit.2.gz, or by date, audit-20261128.gz.
_ROTATED = re.compile(
    r"(?:\.(?P<number>[0-9]+)|-(?P<date>[0-9]{8}[0-9-]*))(?P<compressed>\.(?:gz|xz|bz2|zst))?"
)
_OPENERS: dict[str | None, Callable[[str], io.BufferedIOBase]] = {
    None: lambda path: io.BufferedReader(io.FileIO(path)),
    ".gz": gzip.GzipFile,
    ".xz": lzma.LZMAFile,
    ".bz2": bz2.BZ2File,
}
_NEVRA = re.compile(r"(.+)-(?:([0-9]+):)?([^-:]+)-([^-]+)\.([^-.]+)", re.DOTALL)


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """What somebody did to a repository, or tried to."""

    at: float  # seconds since 1970
    who: str | None
    how: str  # how they are known: "basic", "certificate", "none"; "file" for a change of the tree itself
    address: str | None
    method: str
    repository: str
    location: str
    destination: str | None = None
    batch: str | None = None  # whose commit it waits for; one that is discarded changes nothing
    sha256: str | None = None
    sha512: str | None = None
    nevra: str | None = None  # as str(Nevra) gives it
    revision: int | None = None
    status: int

    def line(self) -> bytes:
        """This as a line of JSON, without what is None; ASCII, so that any name comes back as it was."""
        row = {each: value for each in _FIELDS if (value := getattr(self, each)) is not None}
        row["at"] = _rfc3339(self.at)
        return json.dumps(row, separators=(",", ":")).encode("ascii") + b"\n"


_FIELDS = tuple(each.name for each in fields(Change))


class _Group:
    """Changes that one fdatasync makes durable together."""

    __slots__ = ("descriptor", "done", "error")

    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor
        self.done = False
        self.error: OSError | None = None


class Audit:
    """A file that changes are appended to, for any number of threads, and of processes."""

    def __init__(self, path: str, *, fdatasync: Callable[[int], None] = os.fdatasync) -> None:
        """Open the file, or make it, readable to its owner and group alone. Raises RepowatchError."""
        self._path = path
        self._fdatasync = fdatasync
        # Who holds _syncing may take _writing, never the other way round.
        self._syncing = threading.Lock()
        self._writing = threading.Lock()
        try:
            descriptor, self._torn = _opened(path)
        except OSError as error:
            raise RepowatchError(
                f"{path}: the audit can not be opened: {_reason(error)}; "
                f"make its directory, and let the daemon write there"
            ) from None
        self._group = _Group(descriptor)

    def record(self, change: Change, *, durable: bool = True) -> None:
        """Append one line; with `durable`, return when it outlasts a power cut.

        The line is one write(2), so that it stands whole between those of others. Who comes while a sync is
        under way waits for the next one, which serves all that have written by then: a hundred uploads at
        once cost two or three. A refusal may do without.

        Raises OSError. What was published can not be taken back, so a caller logs the error and answers all
        the same.
        """
        group = self._append(change.line())
        if not durable:
            return
        with self._syncing:
            self._commit(group)
        if group.error is not None:
            raise OSError(group.error.errno, group.error.strerror, self._path)

    def reopen(self) -> None:
        """Write on into the file that has the name now; the one before stays where there can be none."""
        try:
            descriptor, torn = _opened(self._path)
        except OSError as error:
            log.error(
                "%s: the audit can not be reopened, the old file goes on: %s", self._path, _reason(error)
            )
            return
        self._go_on_with(descriptor, torn=torn)

    def close(self) -> None:
        """Make all of it durable and let go of the file; what is recorded afterwards raises OSError."""
        self._go_on_with(-1, torn=False)

    def _append(self, line: bytes) -> _Group:
        with self._writing:
            data = b"\n" + line if self._torn else line
            written = os.write(self._group.descriptor, data)
            self._torn = not data.endswith(b"\n", 0, written)
            if written < len(data):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), self._path)
            return self._group

    def _commit(self, group: _Group) -> None:
        """Make a group durable, unless whoever held _syncing before did."""
        if group.done:
            return
        with self._writing:
            if group is self._group:
                self._group = _Group(group.descriptor)
        try:
            self._fdatasync(group.descriptor)
        except OSError as error:
            # Not tried again: the kernel takes the pages for clean now, and would say that all is well.
            group.error = error
        group.done = True

    def _go_on_with(self, descriptor: int, *, torn: bool) -> None:
        with self._syncing:
            with self._writing:
                old, self._group, self._torn = self._group, _Group(descriptor), torn
            self._commit(old)
            os.close(old.descriptor)
        if old.error is not None:
            log.error("%s: the end of the audit may not last: %s", self._path, _reason(old.error))


def answers(path: str, asked: str) -> Iterator[dict[str, Any]]:
    """The changes of a package, newest last, from an audit and the older files that it was rotated into.

    `asked` is a NEVRA, with or without its epoch, or the part of it that people know: name, name.arch,
    name-version-release; or a location, or the file name in it. Lines that are not whole are passed over, and
    their number logged. Raises RepowatchError when a file can not be read.
    """
    with contextlib.ExitStack() as stack:
        # All are opened before the first is read, so that a rotation meanwhile moves none out of sight.
        for file, name in _files(path, stack):
            damaged = 0
            for line in _lines(file, path=name):
                change = _parsed(line)
                if change is not None and _is_about(change, asked):
                    yield change
                damaged += change is None and not line.isspace()
            if damaged:
                log.warning("%s: %d damaged lines of the audit are passed over", name, damaged)


def _files(path: str, stack: contextlib.ExitStack) -> list[tuple[io.BufferedIOBase, str]]:
    """The files of an audit, open, each with its name; oldest first. Raises RepowatchError."""
    name = path
    try:
        files = []
        for name, compressed in _rotated(path):
            if compressed == ".zst":
                raise OSError(errno.EINVAL, "it is compressed by zstd; decompress it", name)
            files.append((stack.enter_context(_OPENERS[compressed](name)), name))
    except OSError as error:
        raise _unreadable(name, error) from None
    return files


def _opened(path: str) -> tuple[int, bool]:
    """A descriptor to append with, and whether the last line has no end (a power cut). Raises OSError."""
    descriptor = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_NOCTTY | os.O_CLOEXEC, 0o640)
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise OSError(errno.EINVAL, "not a regular file", path)
        fsync_directory(os.path.dirname(os.path.realpath(path)))
        return descriptor, status.st_size > 0 and os.pread(descriptor, 1, status.st_size - 1) != b"\n"
    except BaseException:
        os.close(descriptor)
        raise


def _rfc3339(at: float) -> str:
    """A time in UTC with milliseconds (RFC 3339)."""
    return datetime.fromtimestamp(at, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _rotated(path: str) -> list[tuple[str, str | None]]:
    """The files of an audit, oldest first, each with how it is compressed. Raises OSError."""
    directory, name = os.path.split(path)
    found: dict[tuple[int, int, str], tuple[str, str | None]] = {}
    for each in sorted(os.listdir(directory or ".")):
        if each == name:
            found[2, 0, ""] = path, None
        elif each.startswith(name) and (match := _ROTATED.fullmatch(each, len(name))):
            number, date, compressed = match["number"], match["date"], match["compressed"]
            key = (1, 0, date) if date else (0, -int(number), "")
            # Where both are there, the compressed one, which sorts behind, is still being made.
            found.setdefault(key, (os.path.join(directory, each), compressed))
    if not found:
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), path)
    return [found[each] for each in sorted(found)]


def _lines(file: io.BufferedIOBase, *, path: str) -> Iterator[bytes]:
    try:
        yield from file
    except (OSError, EOFError, zlib.error, lzma.LZMAError) as error:
        raise _unreadable(path, error) from None


def _parsed(line: bytes) -> dict[str, Any] | None:
    try:
        change = json.loads(line.decode("ascii"))
    except (ValueError, RecursionError):
        return None
    return change if isinstance(change, dict) else None


def _is_about(change: dict[str, Any], asked: str) -> bool:
    for location in (change.get("location"), change.get("destination")):
        if isinstance(location, str) and asked in (location, os.path.basename(location)):
            return True
    nevra = change.get("nevra")
    return isinstance(nevra, str) and asked in _forms(nevra)


def _forms(nevra: str) -> tuple[str, ...]:
    """All that people call a package."""
    match = _NEVRA.fullmatch(nevra)
    if match is None:
        return (nevra,)
    name, epoch, version, release, arch = match.groups()
    plain = f"{name}-{version}-{release}"
    full = f"{name}-{epoch or 0}:{version}-{release}"  # as dnf prints it, also where the epoch is 0
    return name, f"{name}.{arch}", plain, f"{plain}.{arch}", full, f"{full}.{arch}"


def _unreadable(path: str, error: Exception) -> RepowatchError:
    return RepowatchError(
        f"{path}: the audit can not be read: {_reason(error)}; ask as a user who may read it, "
        f"or move this file away if it is damaged"
    )


def _reason(error: Exception) -> str:
    return ((error.strerror if isinstance(error, OSError) else None) or str(error)).lower()
