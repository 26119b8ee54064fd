"""What processes cost: the processor time and the memory of a whole tree of them, from Linux's /proc."""

from __future__ import annotations

import contextlib
import mmap
import os
import threading
import time
from collections.abc import Iterator
from multiprocessing import get_context
from pathlib import Path


def cpu_seconds(pid: int) -> float:
    """Processor time of a process and its descendants, to the nanosecond; of ended ones, to the tick."""
    return sum(map(_own_cpu_seconds, descent(pid))) + _ticks(pid, 15, 16)


def _own_cpu_seconds(pid: int) -> float:
    with contextlib.suppress(OSError):
        if _fields(pid)[2] == "Z":  # it ended, and nobody has waited for it yet
            return _ticks(pid, 13, 14)
        # clock_getcpuclockid(3): its number is made of the pid's complement and 2, "scheduler time".
        return time.clock_gettime((~pid << 3) | 2)
    return 0.0


def _ticks(pid: int, *fields: int) -> float:
    """Seconds in fields of proc(5)'s stat, counted from 0: 13 and 14 are its own, 15 and 16 those of children
    that it has waited for."""
    with contextlib.suppress(OSError):
        return sum(int(_fields(pid)[field]) for field in fields) / os.sysconf("SC_CLK_TCK")
    return 0.0


def _fields(pid: int) -> list[str]:
    head, _, rest = Path(f"/proc/{pid}/stat").read_text().rpartition(")")
    return [str(pid), head, *rest.split()]


def descent(pid: int) -> list[int]:
    """A process and its living descendants."""
    found = [pid]
    for parent in found:  # grows while it is walked
        with contextlib.suppress(OSError):
            for task in Path(f"/proc/{parent}/task").iterdir():
                with contextlib.suppress(OSError):  # a thread that ends
                    found += map(int, (task / "children").read_text().split())
    return found


def anonymous_bytes(pid: int) -> int:
    """Anonymous resident memory of a process and its living descendants."""
    return sum(map(_own_anonymous_bytes, descent(pid)))


def _own_anonymous_bytes(pid: int) -> int:
    with contextlib.suppress(OSError, StopIteration):
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
        return 1024 * int(next(line for line in lines if line.startswith("RssAnon:")).split()[1])
    return 0


def touch_free_memory() -> None:
    """Use most of the free memory once, in a process that ends then.

    On a virtual machine the first use of a page costs what the host needs for it (10 us were seen, for 4 kB:
    ten times what writing a file takes), and would be counted to whoever comes first.
    """
    with get_context("spawn").Pool(1) as pool:
        pool.apply(_touch, [_available() * 8 // 10])


def _available() -> int:
    lines = Path("/proc/meminfo").read_text().splitlines()
    return 1024 * int(next(line for line in lines if line.startswith("MemAvailable:")).split()[1])


def _touch(size: int) -> None:
    page = os.sysconf("SC_PAGE_SIZE")
    with mmap.mmap(-1, size) as memory:
        for at in range(0, size, page):
            memory[at] = 1


class Peak:
    """The most anonymous memory that processes were seen with that this one started meanwhile."""

    def __init__(self) -> None:
        self.bytes = 0
        self._others = set(descent(os.getpid()))
        self._end = threading.Event()

    @contextlib.contextmanager
    def watched(self) -> Iterator[None]:
        watcher = threading.Thread(target=self._watch)
        watcher.start()
        try:
            yield
        finally:
            self._end.set()
            watcher.join()

    def _watch(self) -> None:
        while not self._end.wait(0.01):
            started = set(descent(os.getpid())) - self._others
            self.bytes = max(self.bytes, sum(map(_own_anonymous_bytes, started)))
