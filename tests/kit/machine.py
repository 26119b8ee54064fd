"""What the machine lets a daemon do, and what its processes are doing: set and seen from outside."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.kit import daemon
from tests.kit.clients import in_ci
from tests.kit.daemon import wait_until

# Root may read everything; a daemon that lacks these two capabilities may not, as its own user would not.
LIKE_A_USER = ("setpriv", "--bounding-set", "-dac_override,-dac_read_search") if os.geteuid() == 0 else ()

_NAMESPACE = ("unshare", "--user", "--map-root-user")


@contextlib.contextmanager
def launched_by(*command: str) -> Iterator[None]:
    """The daemons made in this context are started by a command that becomes what its arguments say."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(daemon, "COMMAND", (*command, *daemon.COMMAND))
        yield


def with_limits(**limits: int) -> tuple[str, ...]:
    """A command that starts another one where files like /proc/sys/user/max_inotify_watches say this.

    The limits hold in a user namespace of its own (user_namespaces(7)), and the machine keeps its own. Skips
    the test where no user namespace can be made; fails it in CI.
    """
    if subprocess.run([*_NAMESPACE, "true"], stderr=subprocess.DEVNULL, check=False).returncode:
        reason = "needs a user namespace"
        if in_ci():
            pytest.fail(reason, pytrace=False)
        pytest.skip(reason)
    return *_NAMESPACE, "sh", "-c", f'{_set(limits)} exec "$@"', "sh"


def limit(pid: int, **limits: int) -> None:
    """Set other limits for a process that was started with some."""
    command = ["nsenter", "--target", str(pid), "--user", "--preserve-credentials", "sh", "-c", _set(limits)]
    subprocess.run(command, check=True)


def _set(limits: dict[str, int]) -> str:
    return " ".join(f"echo {value} > /proc/sys/user/{name};" for name, value in limits.items())


@contextlib.contextmanager
def stopped(*pids: int) -> Iterator[None]:
    """Processes that stand still (SIGSTOP)."""
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    try:
        wait_until(lambda: all(_state(pid) == "T" for pid in pids))
        yield
    finally:
        for pid in pids:
            os.kill(pid, signal.SIGCONT)


def _state(pid: int) -> str:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]


def readers_of(pid: int) -> list[int]:
    """The processes in which a daemon reads packages: its children."""
    found: list[int] = []
    for task in Path(f"/proc/{pid}/task").iterdir():
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # a thread that ends
            found += map(int, (task / "children").read_text().split())
    return found


def bytes_read(pids: list[int]) -> int:
    """What processes got from read(2) and the like in their lives."""
    return sum(int(Path(f"/proc/{pid}/io").read_text().split()[1]) for pid in pids)


@contextlib.contextmanager
def held_while_read(pid: int, path: Path, write: Callable[[], object]) -> Iterator[None]:
    """A daemon that stands still in the middle of the file that `write` puts at `path`.

    Raises AssertionError when it is not seen reading.
    """
    readers = readers_of(pid)
    write()
    deadline = time.monotonic() + 10
    while not (found := [reader for reader in readers if _has_open(reader, path)]):
        assert time.monotonic() < deadline, f"nobody was seen to read {path}"
    with stopped(*found):
        assert _has_open(found[0], path), f"{path} was read too fast to be held"
        yield


def _has_open(pid: int, path: Path) -> bool:
    with contextlib.suppress(FileNotFoundError), os.scandir(f"/proc/{pid}/fd") as descriptors:
        for each in descriptors:
            with contextlib.suppress(FileNotFoundError):
                if os.readlink(each.path) == str(path):
                    return True
    return False
