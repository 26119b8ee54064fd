"""How much room a file system has."""

from __future__ import annotations

import os


def space_at(path: str) -> tuple[int, int] | None:
    """Bytes free for other users than root, and of the whole file system; None where it can not be asked."""
    try:
        status = os.statvfs(path)
    except OSError:
        return None
    return status.f_bavail * status.f_frsize, status.f_blocks * status.f_frsize
