"""Gives the content of a file a second place: a clone, a second name, or a copy, the cheapest there is.

A clone shares the blocks until one of the two is written to. A second name (a hard link) is the same file:
whoever writes into one of them, in place, changes the other as well.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import shutil
from collections.abc import Iterator
from typing import Literal

How = Literal["cloned", "linked", "copied"]

# What link(2) says where the file system, or a limit of it, is in the way.
NO_LINKS = (errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK, errno.EXDEV)

_FICLONE = 0x40049409  # ioctl_ficlonerange(2)


def give_second_place(path: str, new: str, *, may_link: bool = True) -> How:
    """Make `new`, with the content and the times of a regular file; durable but for its name.

    `may_link`: whether it may be a second name of the same file. Raises OSError (ELOOP for a symbolic
    link), and leaves nothing then.
    """
    source = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        if _clone(source, new):
            return "cloned"
        if may_link and _link(source, path, new):
            return "linked"
        _copy(source, new)
        return "copied"
    finally:
        os.close(source)


def share_blocks(path: str, new: str) -> bool:
    """Make `new` a clone of a regular file, durable but for its name; False where that can not be.

    Raises OSError (ELOOP for a symbolic link), and leaves nothing then.
    """
    source = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        return _clone(source, new)
    finally:
        os.close(source)


def may_link(path: str, status: os.stat_result) -> bool:
    """Whether the kernel lets this process give a file a second name (proc(5): protected_hardlinks)."""
    if os.geteuid() in (0, status.st_uid) or os.access(path, os.R_OK | os.W_OK):
        return True
    with contextlib.suppress(OSError), open("/proc/sys/fs/protected_hardlinks") as file:
        return file.read().strip() == "0"
    return True


def _clone(source: int, new: str) -> bool:
    """Whether the file system could share the blocks."""
    with _made(new) as target:
        try:
            fcntl.ioctl(target, _FICLONE, source)
        except OSError:
            os.unlink(new)
            return False
        _settle(source, target)
        return True


def _link(source: int, path: str, new: str) -> bool:
    """Whether the file could be given a second name."""
    try:
        os.link(path, new, follow_symlinks=False)
    except OSError:
        return False
    if os.path.samestat(os.lstat(new), os.fstat(source)):
        os.fsync(source)
        return True
    os.unlink(new)  # its own name went to another file meanwhile
    return False


def _copy(source: int, new: str) -> None:
    with _made(new) as target, open(source, "rb", closefd=False) as reader:
        reader.seek(0)
        with open(target, "wb", closefd=False) as writer:
            shutil.copyfileobj(reader, writer, 1 << 20)
        _settle(source, target)


@contextlib.contextmanager
def _made(new: str) -> Iterator[int]:
    """A new file, to be written; removed again when that fails."""
    target = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)
    try:
        yield target
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(new)
        raise
    finally:
        os.close(target)


def _settle(source: int, target: int) -> None:
    """The times of the source, and all of it on the disk."""
    status = os.fstat(source)
    os.utime(target, ns=(status.st_atime_ns, status.st_mtime_ns))
    os.fsync(target)
    if os.fstat(target).st_size != status.st_size:
        raise OSError(errno.EIO, "the file changed while it was copied")
