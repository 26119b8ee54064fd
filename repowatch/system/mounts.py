"""Which file system a path lies on, and whether inotify tells all that happens there."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator

# What other machines or a user's program write does not pass through this kernel's own layer, so it
# makes no events (inotify(7): "remote events that occur on network filesystems").
_BLIND = re.compile(
    r"^(nfs4?|cifs|smb[23]?|smbfs|9p|afs|beegfs|ceph|coda|gfs2?|glusterfs|gpfs|lustre|ocfs2|orangefs"
    r"|prl_fs|vboxsf|virtiofs|vmhgfs|fuse(\..+)?)$"
)

_MOUNTINFO = "/proc/self/mountinfo"  # proc(5)


def type_of(path: str, *, mountinfo: str = _MOUNTINFO) -> str:
    """The type of the file system that `path` lies on, "" when it can not be told."""
    path = os.path.realpath(path)
    best, found = "", ""
    for mount, filesystem in _mounts(mountinfo):
        # The last of equal mount points is the one on top.
        if len(mount) >= len(best) and (path == mount or path.startswith(mount.rstrip("/") + "/")):
            best, found = mount, filesystem
    return found


def mounted_below(path: str, *, mountinfo: str = _MOUNTINFO) -> tuple[tuple[str, str], ...]:
    """The mount points below a directory, each with the type of its file system."""
    prefix = os.path.realpath(path).rstrip("/") + "/"
    return tuple(each for each in _mounts(mountinfo) if each[0].startswith(prefix))


def _mounts(mountinfo: str) -> Iterator[tuple[str, str]]:
    try:
        with open(mountinfo, encoding="utf-8", errors="surrogateescape") as lines:
            for line in lines:
                fields, _, rest = line.partition(" - ")
                yield _unescaped(fields.split()[4]), rest.split()[0]
    except (OSError, LookupError):
        return


def is_blind(filesystem: str) -> bool:
    """Whether changes on a file system of this type may happen without an event."""
    return _BLIND.match(filesystem) is not None


def _unescaped(text: str) -> str:
    return re.sub(r"\\([0-7]{3})", lambda octal: chr(int(octal[1], 8)), text)
