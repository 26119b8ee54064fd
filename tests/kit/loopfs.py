"""File systems that can be filled, made to fail, and whose power can be cut. All of it needs root."""

from __future__ import annotations

import contextlib
import os
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.kit.clients import in_ci
from tests.kit.daemon import wait_until

MKFS = "/usr/sbin/mkfs.ext4"

# commit: seconds until ext4 writes by itself what nobody asked it to.
_OPTIONS = "loop,commit=300,errors=remount-ro"


def require_mounts() -> None:
    """Skip the test where file systems can not be made and mounted; fail it in CI."""
    if os.geteuid() == 0 and os.access(MKFS, os.X_OK):
        return
    reason = f"needs root and {MKFS}"
    if in_ci():
        pytest.fail(reason, pytrace=False)
    pytest.skip(reason)


@dataclass(frozen=True, slots=True)
class Disk:
    """A mounted ext4 in a file, which holds what has reached the disk and nothing else."""

    image: Path
    root: Path

    def cut_power(self, image: Path) -> None:
        """Write to `image` what the disk would hold if the power failed now.

        Whoever writes to it should be stopped. Mounting the copy makes ext4 replay its journal.
        """
        subprocess.run(["cp", "--sparse=always", self.image, image], check=True)

    def fail(self) -> None:
        """Let ext4 find an error: it becomes read-only at once, also for files that are open."""
        device = os.stat(self.root).st_dev
        name = os.path.basename(os.readlink(f"/sys/dev/block/{os.major(device)}:{os.minor(device)}"))
        Path(f"/sys/fs/ext4/{name}/trigger_fs_error").write_text("a test\n")


@contextlib.contextmanager
def new_disk(directory: Path, *, megabytes: int = 64) -> Iterator[Disk]:
    """A new, empty ext4, unmounted at the end."""
    image = directory / "disk.img"
    with open(image, "xb") as file:
        file.truncate(megabytes << 20)
    subprocess.run([MKFS, "-q", "-F", "-m", "0", "-E", "lazy_itable_init=0", image], check=True)
    with mounted(image, directory / "disk") as disk:
        (disk.root / "lost+found").rmdir()
        subprocess.run(["sync", "-f", disk.root], check=True)
        yield disk


@contextlib.contextmanager
def mounted(image: Path, root: Path) -> Iterator[Disk]:
    """The ext4 in an image, mounted there."""
    with _mount("-o", _OPTIONS, image, root=root):
        yield Disk(image, root)


@contextlib.contextmanager
def memory_disk(root: Path, *, kilobytes: int) -> Iterator[Path]:
    """A tmpfs of this size, mounted there; its root."""
    with _mount("-t", "tmpfs", "-o", f"size={kilobytes}k", "tmpfs", root=root):
        yield root


@contextlib.contextmanager
def _mount(*arguments: str | Path, root: Path) -> Iterator[None]:
    root.mkdir(exist_ok=True)
    subprocess.run(["mount", *arguments, root], check=True)
    try:
        yield
    finally:
        # A process that was killed a moment ago may still be on its way out.
        wait_until(lambda: _is_gone(root))


def _is_gone(root: Path) -> bool:
    return subprocess.run(["umount", root], stderr=subprocess.DEVNULL, check=False).returncode == 0


def fill(directory: Path, *, leave: int = 0) -> Path:
    """Fill the file system but for about `leave` bytes; the file to remove to make room again."""
    ballast = directory / ".ballast"
    with open(ballast, "wb", buffering=0) as file, contextlib.suppress(OSError):
        while True:
            file.write(bytes(4096))
    os.truncate(ballast, ballast.stat().st_size // 4096 * 4096 - leave)
    return ballast
