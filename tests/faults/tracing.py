"""strace as a saboteur: it kills a process at a call, lets the call fail, or only watches.

strace counts the calls of each kind in each thread by itself. In the daemon one thread publishes, and
makes nearly all of them; a thread that receives an upload makes one fsync before it begins.
"""

from __future__ import annotations

import contextlib
import os
import re
import subprocess
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.kit.daemon import wait_until

# Seconds. strace 6.1 sometimes waits for ever for a thread that was born as its process was killed, and
# then heeds SIGKILL alone.
LETS_GO = 0.3

# What changes a disk in a way that a publication relies on. Not write(2): it goes to sockets and logs too.
STEPS = "writev,fsync,rename,unlink,mkdir,rmdir"


@dataclass(frozen=True, slots=True)
class Point:
    """The `at`-th call of one kind that a thread makes."""

    call: str
    at: int


def kill_at(point: Point) -> tuple[str, ...]:
    """Options for strace: kill the process where the call was to be made; it is not made."""
    return _tampering(point.call, f"signal=KILL:when={point.at}")


def fail_at(point: Point, error: str) -> tuple[str, ...]:
    """Options for strace: the call fails with an error as "ENOSPC"; it is not made."""
    return _tampering(point.call, f"error={error}:when={point.at}")


WITHOUT_FSYNC = ("--trace=fsync", "--output=/dev/null", "--inject=fsync:retval=0")


def _tampering(call: str, how: str) -> tuple[str, ...]:
    return f"--trace={call}", "--output=/dev/null", f"--inject={call}:{how}"


def logging_to(log: Path, *, calls: str = STEPS) -> tuple[str, ...]:
    """Options for strace: write each call to a file, with the paths of descriptors."""
    return f"--trace={calls}", "--decode-fds=path", "--string-limit=4096", f"--output={log}"


def points_in(log: Path) -> list[Point]:
    """Where a process with such a log can be struck, in the order of time."""
    counts: Counter[tuple[str, str]] = Counter()
    points: dict[Point, None] = {}
    for thread, call in re.findall(r"^(\d+) +(\w+)\(", log.read_text(), re.MULTILINE):
        counts[thread, call] += 1
        points.setdefault(Point(call, counts[thread, call]))
    return list(points)


@contextlib.contextmanager
def attached(pid: int, options: Sequence[str]) -> Iterator[None]:
    """strace on every thread of a process, which may end meanwhile."""
    command = ["strace", "--follow-forks", *options, "--attach", str(pid)]
    with tempfile.TemporaryFile("w+") as said, subprocess.Popen(command, stderr=said) as strace:
        try:
            wait_until(lambda: os.pread(said.fileno(), 1000, 0).endswith(b"\n") or strace.poll() is not None)
            assert strace.poll() is None, os.pread(said.fileno(), 1000, 0).decode()
            yield
        finally:
            strace.kill() if has_ended(pid) else strace.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                strace.wait(LETS_GO)
            strace.kill()


def run(options: Sequence[str], *command: str | Path) -> int:
    """Run a command under strace to its end; its exit code, negative for the signal that ended it.

    Without --seccomp-bpf: with that and --trace, strace 6.1 sends no signal.
    """
    with subprocess.Popen(
        ["strace", "--follow-forks", *options, *map(str, command)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    ) as strace:
        return strace.wait(60)


def has_ended(pid: int) -> bool:
    """Whether a child of ours runs no more, although nobody has waited for it yet."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2][0] in "ZX"
