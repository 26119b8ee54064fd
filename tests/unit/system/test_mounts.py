"""Which file system a path lies on, and which of them do not tell of all changes."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from repowatch.system.mounts import is_blind, type_of
from tests.kit.loopfs import memory_disk, require_mounts

# As in proc(5): id, parent, device, root, mount point, options, optional fields, -, type, source, options.
MOUNTINFO = """\
22 1 254:0 / / rw,relatime - ext4 /dev/vda rw
23 22 0:5 / /proc rw - proc proc rw
24 22 0:40 / /srv rw,relatime shared:5 master:1 - xfs /dev/vdb rw
25 24 0:41 / /srv/pool rw - nfs4 host:/pool rw,vers=4.2
26 24 0:42 / /srv/a\\040b\\011c\\134d rw - fuse.sshfs host:/ rw
27 22 0:43 / /mnt rw - ext4 /dev/vdc rw
28 27 0:44 / /mnt rw - 9p share rw
29 22 0:45 / /srv/\udce9 rw - cifs //host/share rw
"""


@pytest.fixture
def mountinfo(tmp_path: Path) -> str:
    path = tmp_path / "mountinfo"
    path.write_text(MOUNTINFO, errors="surrogateescape")
    return str(path)


@pytest.mark.parametrize(
    ("path", "filesystem"),
    [
        ("/nowhere", "ext4"),
        ("/srv", "xfs"),
        ("/srv/rpm", "xfs"),
        ("/srv/pool", "nfs4"),
        ("/srv/pool/el9/x", "nfs4"),
        ("/srv/pools", "xfs"),
        ("/srv/a b\tc\\d/x", "fuse.sshfs"),
        ("/mnt/x", "9p"),
        ("/srv/\udce9/x", "cifs"),
    ],
)
def test_a_path_lies_on_the_last_and_nearest_mount_above_it(
    path: str, filesystem: str, mountinfo: str
) -> None:
    assert type_of(path, mountinfo=mountinfo) == filesystem


def test_a_path_behind_a_link_lies_where_the_link_leads(tmp_path: Path, mountinfo: str) -> None:
    (tmp_path / "link").symlink_to("/srv/pool/x")
    assert type_of(str(tmp_path / "link"), mountinfo=mountinfo) == "nfs4"


@pytest.mark.parametrize("content", [None, "", "a line of another kind\n", "1 2 0:1 / / rw -\n"])
def test_no_type_is_told_where_there_is_no_telling(tmp_path: Path, content: str | None) -> None:
    if content is not None:
        (tmp_path / "mountinfo").write_text(content)
    assert type_of("/", mountinfo=str(tmp_path / "mountinfo")) == ""


def test_the_type_is_what_the_machine_says_of_it(tmp_path: Path) -> None:
    assert type_of("/proc/self") == "proc"
    command = ["findmnt", "--noheadings", "--output", "FSTYPE", "--target", str(tmp_path)]
    assert type_of(str(tmp_path)) == subprocess.check_output(command, text=True).strip()


def test_a_new_mount_is_seen_while_it_is_there(tmp_path: Path) -> None:
    require_mounts()
    before = type_of(str(tmp_path / "a b"))
    with memory_disk(tmp_path / "a b", kilobytes=64) as root:
        assert type_of(str(root / "x")) == "tmpfs"
    assert type_of(str(tmp_path / "a b")) == before


@pytest.mark.parametrize(
    "filesystem",
    [
        *("nfs", "nfs4", "cifs", "smb3", "9p", "ceph", "glusterfs", "lustre", "gfs2", "ocfs2", "vboxsf"),
        *("fuse", "fuse.sshfs", "fuse.glusterfs", "fuse.s3fs", "fuse.bindfs"),
        *("virtiofs", "beegfs"),
    ],
)
def test_what_others_write_to_without_this_kernel_is_blind(filesystem: str) -> None:
    assert is_blind(filesystem)


@pytest.mark.parametrize(
    "filesystem", ["ext4", "xfs", "btrfs", "zfs", "tmpfs", "overlay", "f2fs", "fuseblk", "nfsd", ""]
)
def test_what_only_this_kernel_writes_to_is_not_blind(filesystem: str) -> None:
    assert not is_blind(filesystem)
