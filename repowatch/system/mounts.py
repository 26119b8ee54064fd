"""Which file system a path lies on, and whether inotify tells all that happens there."""

from __future__ import annotations

import os
import re

# What other machines or a user's program write does not pass through this kernel's own layer, so it
# makes no events (inotify(7): "remote events that occur on network filesystems").
_BLIND = re.compile(
    r"^(nfs4?|cifs|smb[23]?|smbfs|9p|afs|ceph|coda|gfs2?|glusterfs|lustre|ocfs2|vboxsf|prl_fs|fuse(\..+)?)$"
)


def type_of(path: str, *, mountinfo: str = "/proc/self/mountinfo") -> str:
    """The type of the file system that `path` lies on, "" when it can not be told (proc(5))."""
    path = os.path.realpath(path)
    best, found = "", ""
    try:
        with open(mountinfo, encoding="utf-8", errors="surrogateescape") as lines:
            for line in lines:
                fields, _, rest = line.partition(" - ")
                mount = _unescaped(fields.split()[4])
                # The last of equal mount points is the one on top.
                if len(mount) >= len(best) and (path == mount or path.startswith(mount.rstrip("/") + "/")):
                    best, found = mount, rest.split()[0]
    except (OSError, LookupError):
        return ""
    return found


def is_blind(filesystem: str) -> bool:
    """Whether changes on a file system of this type may happen without an event."""
    return _BLIND.match(filesystem) is not None


def _unescaped(text: str) -> str:
    return re.sub(r"\\([0-7]{3})", lambda octal: chr(int(octal[1], 8)), text)
