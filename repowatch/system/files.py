"""Files: durable writes, the lock of a repository, and what a name may be."""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterable

from repowatch.errors import Unfinished, UsageError

# writev(2) takes at most IOV_MAX = 1024 pieces at once.
_PIECES = 512


def is_where_it_seems(descriptor: int, path: str) -> bool:
    """Whether what was opened by an absolute, normalised path lies there: no part of it is a symbolic link.

    False also where that can not be told (proc(5) is not mounted).
    """
    try:
        return os.readlink(f"/proc/self/fd/{descriptor}") == path
    except OSError:
        return False


def fsync_directory(path: str) -> None:
    """Make the names in a directory durable. Raises OSError."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def make_sure_of(*directories: str) -> None:
    """Make changes of names durable that were made already. Raises Unfinished."""
    try:
        for directory in set(directories):
            fsync_directory(directory)
    except OSError as error:
        raise Unfinished(error) from error


def fsync_file(path: str) -> None:
    """Make the content of a file durable. Raises OSError."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_durably(path: str, pieces: Iterable[bytes]) -> int:
    """Write a new file and fsync it; its name is durable only after `fsync_directory`.

    Returns its size in bytes. Raises OSError; a file that could not be written whole is removed.
    """
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o644)
    size = 0
    try:
        try:
            group: list[bytes] = []
            for piece in pieces:
                group.append(piece)
                if len(group) == _PIECES:
                    size += _write_all(descriptor, group)
                    group = []
            size += _write_all(descriptor, group)
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(path)
        raise
    return size


def replace_durably(path: str, pieces: Iterable[bytes]) -> None:
    """Write a file in the place of another, durably: whoever opens it finds the one or the other, whole.

    Raises OSError; then the old one stays.
    """
    aside = f"{path}.new"
    write_durably(aside, pieces)
    os.rename(aside, path)
    fsync_directory(os.path.dirname(path))


def _write_all(descriptor: int, pieces: list[bytes]) -> int:
    wanted = sum(map(len, pieces))
    written = os.writev(descriptor, pieces) if pieces else 0
    if written < wanted:
        rest = memoryview(b"".join(pieces))
        while written < wanted:
            written += os.write(descriptor, rest[written:])
    return wanted


def make_directories(path: str, *, below: str) -> None:
    """Make a directory and those above it that are missing, each durable before the next.

    `below` exists and is not made. Raises OSError (FileExistsError where a file is in the way).
    """
    missing = []
    while path != below and not os.path.isdir(path):
        missing.append(path)
        path = os.path.dirname(path)
    for directory in reversed(missing):
        with contextlib.suppress(FileExistsError):
            os.mkdir(directory)
        if not os.path.isdir(directory):
            raise FileExistsError(17, "a file is in the place of a directory", directory)
        fsync_directory(os.path.dirname(directory))


def remove_if_there(path: str) -> None:
    """Remove a file that may be gone already. Raises OSError for every other trouble."""
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path)


class Lock:
    """The right to write one repository: flock(2) on its lock file.

    The kernel drops it with the process that held it, so a killed one leaves nothing behind that
    blocks the next.
    """

    def __init__(self, path: str) -> None:
        """Take the lock. Raises UsageError when another process holds it, OSError when there is no file."""
        self._path = path
        self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.pread(self._descriptor, 32, 0).decode("ascii", "replace").strip() or "unknown"
            os.close(self._descriptor)
            raise UsageError(
                f"{path}: another process (pid {holder}) writes this repository; "
                f"stop it first, or leave the work to it"
            ) from None
        os.ftruncate(self._descriptor, 0)
        os.pwrite(self._descriptor, f"{os.getpid()}\n".encode(), 0)

    def is_in_place(self) -> bool:
        """Whether the next process that wants the lock would find this one."""
        try:
            return os.path.samestat(os.stat(self._path), os.fstat(self._descriptor))
        except FileNotFoundError:
            return False

    def release(self) -> None:
        os.close(self._descriptor)
